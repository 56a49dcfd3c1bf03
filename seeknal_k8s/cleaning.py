"""End a run's Jobs and see that none is left; find what coordinators that are gone left behind."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from seeknal_k8s.cluster import Cluster
from seeknal_k8s.errors import TimedOut, UsageError
from seeknal_k8s.names import anchor_name, label_value
from seeknal_k8s.store import LATEST, RunFolder
from seeknal_k8s.views import CONFIG_MAPS, JOBS, PODS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from seeknal_k8s.settings import Settings
    from seeknal_k8s.store import Store
    from seeknal_k8s.views import ConfigMapView, JobView

_OURS = "app.kubernetes.io/managed-by=seeknal-k8s"
_ANCHORS = f"{_OURS},app.kubernetes.io/component=run"
_RUN = "seeknal.io/run"
_RUN_ID = "seeknal.io/run-id"
_COMPONENT = "app.kubernetes.io/component"
RUNNER = "runner"
"""The component of the Job in which a coordinator runs inside the cluster."""

_LOOK_EVERY = 0.5
"""Seconds between two looks at what is left."""

_QUIET = 2.0
"""Seconds without a Job of the run until it is believed that nobody creates any more.

A living coordinator needs about half a second from a deleted Job to its next one.
"""

_PATIENCE = 120.0
"""Seconds until all is gone: a pod has 30 to end, and its machine may be slow."""

_ENDED = {
    "succeeded": "it has succeeded",
    "failed": "it has failed",
    "interrupted": "it was interrupted",
}


def run_id(view: JobView | ConfigMapView) -> str:
    """Return the id of the run that a Job or an anchor belongs to, as it was given."""
    return view.metadata.annotations.get(_RUN_ID) or view.labels.get(_RUN, "")


async def resolve(cluster: Cluster, store: Store | None, text: str) -> str:
    """Return the run id that ``text`` means: asked of the store, then of the cluster, else itself.

    Raises:
        UsageError: ``latest`` where there is no run, or the beginning of more than one.
        ClusterError: the API server refused, or could not be reached.
    """
    if store is not None:
        ids = [run.id for run in store.runs()]
        if any(text == LATEST or known.startswith(text) for known in ids):
            return store.run(text).id
    anchors = (await cluster.list(CONFIG_MAPS, labels=_ANCHORS)).items
    newest = sorted(anchors, key=lambda anchor: str(anchor.metadata.creation_timestamp))[::-1]
    ids = [run_id(anchor) for anchor in newest]
    if text == LATEST:
        if ids:
            return ids[0]
        raise UsageError(f"there is no run in namespace {cluster.namespace} yet")
    found = {known for known in ids if known.startswith(text)}
    if text in found or not found:
        return text
    if len(found) > 1:
        raise UsageError(f"'{text}' is the beginning of {len(found)} runs: {', '.join(found)}")
    return found.pop()


async def cancel(cluster: Cluster, run: str, anchor: str, *, runner: bool = True) -> int:
    """End everything of a run in the cluster, see that it is gone; return how many Jobs that were.

    Without ``runner`` a coordinator that was submitted is spared: it may be who asks. A coordinator that lives sees its Jobs vanish. What it still creates meanwhile is ended, too.

    Raises:
        TimedOut: something is still there; the message says what.
        ClusterError: the API server refused, or could not be reached.
    """
    labels = f"{_RUN}={label_value(run)}" + ("" if runner else f",{_COMPONENT}!={RUNNER}")
    met: set[str] = set()
    began = quiet_since = time.monotonic()
    while True:
        jobs = (await cluster.list(JOBS, labels=labels)).items
        pods = (await cluster.list(PODS, labels=labels)).items
        anchored = await cluster.delete(CONFIG_MAPS, anchor)
        if {job.uid for job in jobs} - met:
            met |= {job.uid for job in jobs}
            await cluster.delete_jobs(labels, propagation="Foreground")
        now = time.monotonic()
        if jobs or pods or anchored:
            quiet_since = now + _QUIET
        elif now >= quiet_since:
            return len(met)
        if now - began > _PATIENCE:
            raise TimedOut(_left_over(run, [view.name for view in (*jobs, *pods)]))
        await asyncio.sleep(_LOOK_EVERY)


async def end(settings: Settings, runs: Iterable[str], *, runner: bool = True) -> None:
    """End everything of these runs, as ``cancel`` does, in the cluster and namespace of the settings.

    Raises:
        TimedOut, ClusterError: see ``cancel``.
    """
    async with Cluster(namespace=settings.namespace, context=settings.context) as cluster:
        for run in runs:
            await cancel(cluster, run, anchor_name(run), runner=runner)


def _left_over(run: str, names: list[str]) -> str:
    return (
        f"{len(names)} Jobs and pods of run {run} are still there after {_PATIENCE:.0f} s: "
        f"{', '.join(names[:5])}\n  → see what holds them: kubectl describe pod {names[-1]}"
        if names
        else f"somebody goes on creating Jobs of run {run}\n  → end its coordinator first"
    )


@dataclass(slots=True)
class Leftover:
    """What the cluster has of one run, and what becomes of it: ``why``, and whether to remove it.

    ``since`` is when the newest of it was created.
    """

    run: str
    anchor: ConfigMapView | None = None
    jobs: list[JobView] = field(default_factory=list)
    why: str = ""
    dead: bool = False

    @property
    def since(self) -> datetime | None:
        """Return when the newest of all this was created."""
        views = [*self.jobs, *([self.anchor] if self.anchor else [])]
        times = [view.metadata.creation_timestamp for view in views]
        return max((time for time in times if time is not None), default=None)

    @property
    def unfinished(self) -> int:
        """Return how many of the Jobs have not ended."""
        return sum(not job.ended for job in self.jobs)

    @property
    def store_path(self) -> str:
        """Return where the run's pods have its store; empty if its anchor is gone."""
        return (self.anchor.data or {}).get("store-path", "") if self.anchor else ""


async def survey(cluster: Cluster, store: Store | None) -> list[Leftover]:
    """Return what there is of every run in the namespace, each judged.

    Raises:
        ClusterError: the API server refused, or could not be reached.
    """
    found: dict[str, Leftover] = defaultdict(lambda: Leftover(""))
    for anchor in (await cluster.list(CONFIG_MAPS, labels=_ANCHORS)).items:
        found[anchor.labels.get(_RUN, "")].anchor = anchor
    for job in (await cluster.list(JOBS, labels=f"{_OURS},{_RUN}")).items:
        found[job.labels[_RUN]].jobs.append(job)
    for leftover in found.values():
        view = leftover.anchor or leftover.jobs[0]
        leftover.run = run_id(view)
        leftover.dead, leftover.why = judge(leftover, store)
    return sorted(found.values(), key=lambda leftover: leftover.run)


def judge(leftover: Leftover, store: Store | None) -> tuple[bool, str]:
    """Return whether a run's coordinator is surely gone and has left something, and why (not).

    Only the lock of the run's own store proves that nobody is at work on it, or the end of the
    runner that was submitted. A run of which neither can be seen is left alone.
    """
    runners = [job for job in leftover.jobs if job.labels.get(_COMPONENT) == RUNNER]
    if any(not job.ended for job in runners):
        return False, "its coordinator runs inside the cluster"
    if store is None or leftover.store_path not in {"", str(store.root)}:
        if runners:
            return _left(leftover, "its coordinator, a Job, has ended")
        where = f", {leftover.store_path}" if leftover.store_path else ""
        return False, f"whether its coordinator lives can only be seen from its store{where}"
    folder = RunFolder(store.root / "runs" / leftover.run)
    if not folder.about():
        if runners:
            return _left(leftover, "its coordinator, a Job, has ended")
        return False, "its store knows nothing of it: it has just begun, or is another's"
    holder = store.holder()
    if holder is not None and holder.get("run") in {leftover.run, None}:
        return False, "its coordinator holds the store's lock"
    if leftover.anchor is None:
        return True, "its anchor is gone"
    words = _ENDED.get(str(folder.about().get("status")))
    return (True, "its coordinator has died") if words is None else _left(leftover, words)


def _left(leftover: Leftover, why: str) -> tuple[bool, str]:
    """Return whether a run that has ended left something that nothing else removes."""
    if leftover.unfinished:
        return True, f"{why}, but not all of its Jobs have ended"
    if leftover.jobs:
        return False, f"{why}; its ended Jobs go when their time is up"
    return True, why
