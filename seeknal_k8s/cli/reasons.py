"""Why a node is where it is: what the cluster says of its Job, if it has one, and the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.text import Text

from seeknal_k8s import diagnosis, indexes, timeline, verdict
from seeknal_k8s.attempt import Ending
from seeknal_k8s.backends.indexed import place_of
from seeknal_k8s.backends.kubernetes import pods_of
from seeknal_k8s.cli import past
from seeknal_k8s.cli.render import size
from seeknal_k8s.diagnosis import Clock, Wait
from seeknal_k8s.errors import UsageError
from seeknal_k8s.graph import nearest
from seeknal_k8s.names import label_value
from seeknal_k8s.progress import clean, duration
from seeknal_k8s.results import NO_EXIT_CODE
from seeknal_k8s.views import EVENTS, JOBS, PODS

if TYPE_CHECKING:
    from seeknal_k8s.cli.render import Here
    from seeknal_k8s.cluster import Cluster
    from seeknal_k8s.store import RunFolder, Store
    from seeknal_k8s.verdict import Verdict
    from seeknal_k8s.views import EventView, JobView, PodView

_NODE_ID, _ATTEMPT, _INTERVAL = "seeknal.io/node-id", "seeknal.io/attempt", "seeknal.io/interval"


@dataclass(frozen=True, slots=True)
class Reasons:
    """One attempt at a node: what there is of it in the cluster and in the store."""

    run: str
    node: str
    attempt: int
    job: JobView | None
    pod: PodView | None
    events: tuple[EventView, ...]
    result: Ending | None
    sees_store: bool
    is_running: bool = False
    """Whether a process of this machine, and no Job, is at it."""

    @property
    def ending(self) -> Ending | None:
        """How it ended, None while it has not."""
        if self.job is not None:
            return diagnosis.ending(self.job, self.pod, self.result)
        if self.is_running:
            return None
        return self.result or Ending(NO_EXIT_CODE, "nothing runs it, and it left no result")

    @property
    def clock(self) -> Clock | None:
        """What it waits for or does, None when it has ended."""
        if wait := self.wait:
            return wait.clock
        return Clock.RUN if self.is_running else None

    @property
    def wait(self) -> Wait | None:
        """Where it stands, None when it has ended."""
        if self.job is None or self.ending is not None:
            return None
        return diagnosis.waiting(self.job, self.pod, self.events)

    @property
    def verdict(self) -> Verdict | None:
        """What to think of it; None while it runs, or waits for no reason that anybody gives."""
        if self.ending is not None:
            return verdict.read(self.ending)
        if self.wait is not None and self.wait.reason:
            return verdict.read(Ending(NO_EXIT_CODE, reason=self.wait.reason))
        return None

    @property
    def steps(self) -> list[timeline.Step]:
        """What happened, in order."""
        if self.job is not None:
            return timeline.steps(self.job, self.pod, self.events)
        if self.result is None or self.result.started is None:
            return []
        began = self.result.started
        return [
            timeline.Step(datetime.fromtimestamp(began, UTC), "started"),
            timeline.Step(
                datetime.fromtimestamp(began + self.result.seconds, UTC),
                "process ended",
                f"exit code {self.result.exit_code}",
            ),
        ]

    @property
    def clocks(self) -> dict[Clock, float]:
        """How long it has been in each clock."""
        if self.job is not None:
            return timeline.clocks(self.job, self.pod, datetime.now(UTC))
        return {Clock.RUN: self.result.seconds} if self.result is not None else {}

    @property
    def limits(self) -> str:
        """What it may use, as its Job says."""
        return self.job.metadata.annotations.get("seeknal.io/limits", "") if self.job else ""


def kept(store: Store, run: RunFolder, text: str, *, attempt: int | None = None) -> Reasons:
    """Return what the store has about an attempt at a node of a run that had no Jobs.

    Raises:
        UsageError: the run has no such node, or no such attempt.
    """
    going = past.status(store, run) == past.RUNNING  # looked at before the end, which may come now
    log = past.NodeLog(store, run, past.node_in(run, text), attempt)
    folder = log.folder()
    result = Ending.of(folder)
    running = going and result is None and folder == run.attempts_of(log.node)[-1]
    number = int(folder.name)
    return Reasons(
        run.id, log.node, number, None, None, (), result, sees_store=True, is_running=running
    )


async def find(
    cluster: Cluster, store: Store | None, run: str, text: str, *, attempt: int | None = None
) -> Reasons:
    """Return what there is about the last attempt at a node, or the one of this number.

    Raises:
        UsageError: the run has no such node, or no such attempt.
        ClusterError: the API server refused, or could not be reached.
    """
    labels = f"seeknal.io/run={label_value(run)}"
    listed = (await cluster.list(JOBS, labels=f"{labels},seeknal.io/node")).items
    node = _node(listed, store, run, text)
    kept = store.run(run) if store and (store.root / "runs" / run).is_dir() else None
    place = place_of(kept, node) if kept else ""
    jobs = {
        int(job.labels.get(_ATTEMPT, "0")): job
        for job in listed
        if node in {job.metadata.annotations.get(about) for about in (_INTERVAL, _NODE_ID)}
    }
    of, index = indexes.split(place)
    for shared in listed:
        if index and shared.name == of:
            jobs[1] = indexes.of(shared, int(index))
    folders = {int(path.name): path for path in (kept.attempts_of(node) if kept else ())}
    known = sorted(jobs.keys() | folders.keys())
    number = attempt or (known[-1] if known else 0)
    if number not in known:
        had = f"; it has {', '.join(map(str, known))}" if known else " yet"
        raise UsageError(f"{node} has no attempt {attempt or ''}".rstrip() + f" in run {run}{had}")
    job = jobs.get(number)
    pod = await _pod(cluster, job, place)
    events = [*(await _events(cluster, "Job", job)), *(await _events(cluster, "Pod", pod))]
    folder = folders.get(number)
    result = Ending.read(folder / "result.json") if folder else None
    return Reasons(run, node, number, job, pod, tuple(events), result, store is not None)


def _node(jobs: tuple[JobView, ...], store: Store | None, run: str, text: str) -> str:
    """Return the id of the run's node that ``text`` names: by the store, or else by the Jobs."""
    if store is not None and (store.root / "runs" / run / "run.json").exists():
        return past.node_in(store.run(run), text)
    ids = sorted({job.metadata.annotations.get(_NODE_ID, "") for job in jobs})
    found = [node for node in ids if node == text] or [
        node for node in ids if node.partition(".")[2] == text
    ]
    if len(found) == 1:
        return found[0]
    near = nearest(text, ids)
    fix = f"did you mean {' or '.join(near)}?" if near else "seeknal-k8s show has its nodes"
    raise UsageError(f"the cluster has no Job of run {run} for '{text}'\n  → {fix}")


async def _pod(cluster: Cluster, job: JobView | None, place: str) -> PodView | None:
    if job is None:
        return None
    name = place if indexes.split(place)[0] == job.name else job.name
    pods = (await cluster.list(PODS, labels=pods_of(name))).items
    return pods[0] if pods else None


async def _events(cluster: Cluster, kind: str, about: Any) -> tuple[EventView, ...]:
    if about is None:
        return ()
    fields = f"involvedObject.kind={kind},involvedObject.name={about.name}"
    return (await cluster.list(EVENTS, fields=fields)).items


def lines(found: Reasons, here: Here, *, latest: bool) -> list[Text]:
    """Return all of it for people: the timeline, what it used, and what to think of it.

    ``latest`` is whether the run is the one that other commands mean if they are told of none.
    """
    told = [Text.assemble((found.node, "bold"), f"  attempt {found.attempt} of run {found.run}")]
    steps = found.steps
    for step in steps:
        clock = step.at.astimezone(UTC).strftime("%H:%M:%S")
        after = f"+{(step.at - steps[0].at).total_seconds():.0f}s"
        detail = f"  {clean(step.detail)}" if step.detail else ""
        told.append(Text.assemble(f"  {clock} {after:>7}  {step.what}", (detail, "dim")))
    facts = {
        "clocks": ", ".join(f"{clock} {duration(it)}" for clock, it in found.clocks.items()),
        "limits": found.limits,
        "used": _used(found),
        "log": f"kubectl logs {found.pod.name}" if found.pod else "",
    }
    told += [Text(), *(Text(f"  {name:<7} {value}") for name, value in facts.items() if value)]
    return [*told, Text(), *_judged(found, here, latest=latest)]


def _used(found: Reasons) -> str:
    if found.result is not None and found.result.peak_memory is not None:
        return f"{size(found.result.peak_memory)} of memory at most"
    if found.sees_store or found.ending is None:
        return ""
    return "its peak of memory stands in the store, which is not to be seen from here"


def _judged(found: Reasons, here: Here, *, latest: bool) -> list[Text]:
    judged, wait, ending = found.verdict, found.wait, found.ending
    if judged is None:
        return [Text(f"it is {found.clock}", style="bold")]
    message = clean((wait.message if wait else ending.error if ending else "").strip())
    state = f"it is {wait.clock}" if wait else f"exit code {ending.exit_code if ending else ''}"
    head = Text.assemble((f"{judged.reason}: {judged.summary}", "bold"), f" ({state})")
    hint = _hint(found, judged, here, latest=latest)
    said = [Text(f"  {line}") for line in message.splitlines()[:12] if not judged.success]
    return [head, *said, *([Text(f"  → {hint}", style="cyan")] if hint else [])]


def _hint(found: Reasons, judged: Verdict, here: Here, *, latest: bool) -> str:
    """Return what to type next; a backfill is gone on with by its own command."""
    if not judged.hint:
        return ""
    of_backfill = "/" in found.node
    if of_backfill and judged.hint.startswith("seeknal-k8s run"):
        return "the same backfill again, which runs what is missing"
    if judged.hint.startswith("seeknal-k8s logs"):
        which = "" if latest else f" --run {found.run}"
        return here.completed(judged.hint.format(node=found.node)) + which
    node = found.job.metadata.annotations.get(_NODE_ID) if found.job and of_backfill else None
    return here.completed(judged.hint.format(node=node or found.node))


def document(found: Reasons) -> dict[str, Any]:
    """Return all of it for programs."""
    judged, ending, wait = found.verdict, found.ending, found.wait
    return {
        "run_id": found.run,
        "node": found.node,
        "attempt": found.attempt,
        "job": found.job.name if found.job else None,
        "pod": found.pod.name if found.pod else None,
        "machine": found.pod.spec.node_name if found.pod else None,
        "timeline": [
            {"at": step.at.isoformat(), "what": step.what, "detail": step.detail}
            for step in found.steps
        ],
        "clocks": {clock.value: seconds for clock, seconds in found.clocks.items()},
        "limits": dict(one.split("=", 1) for one in found.limits.split()),
        "peak_memory_bytes": found.result.peak_memory if found.result else None,
        "state": found.clock.value if found.clock else "ended",
        "exit_code": ending.exit_code if ending else None,
        "reason": judged.reason if judged else None,
        "summary": judged.summary if judged else None,
        "fault": judged.fault.value if judged else None,
        "message": (wait.message if wait else ending.error if ending else ""),
    }
