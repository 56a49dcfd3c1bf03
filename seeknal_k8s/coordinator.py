"""From a request to results: read the project, plan, run, publish. What the CLI and flows call."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal_k8s import graph as graphs
from seeknal_k8s import plan as planning
from seeknal_k8s import verdict
from seeknal_k8s.attempt import Ending
from seeknal_k8s.backends.local import LocalBackend, cores
from seeknal_k8s.engine_client import EngineClient
from seeknal_k8s.errors import (
    EngineFailed,
    Interrupted,
    Problem,
    ProjectRefused,
    StateUnreadable,
    StoreLocked,
    StoreUnavailable,
)
from seeknal_k8s.events import RunEnded, RunStarted, StoreAwaited
from seeknal_k8s.options import OptionsFile, resolve_all
from seeknal_k8s.request import RunRequest, new_pins, new_run_id, settled
from seeknal_k8s.runner import Runner, accept, result_of, state_record
from seeknal_k8s.selection import select
from seeknal_k8s.store import Store, utc_now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from seeknal_k8s.engine_process import EngineProcess
    from seeknal_k8s.events import Observer
    from seeknal_k8s.plan import Plan
    from seeknal_k8s.results import PrefectRunResult, RunResults
    from seeknal_k8s.store import RunFolder


__all__ = ["Planned", "RunRequest", "new_run_id", "plan", "run"]

_PAUSE = 0.2
"""Seconds between two looks at a lock that somebody else holds."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and what the user should know about the project."""

    plan: Plan
    warnings: tuple[Problem, ...]


async def plan(request: RunRequest, engine: EngineProcess | None = None) -> Planned:
    """Read the project and plan, without running anything.

    Raises:
        ProjectRefused: the project, its options or the selection is wrong.
        StateUnreadable: ``target/run_state.json`` cannot be read.
    """
    async with EngineClient(engine) as client:
        raw = await _read(client, request, new_pins(request.run_id or new_run_id()))
        client.hang_up()  # it takes 20 ms to end: meanwhile, we plan
        _refuse_unreadable_state(raw, request)
        return _make_plan(raw, request)


async def run(
    request: RunRequest, observer: Observer, engine: EngineProcess | None = None
) -> RunResults:
    """Run what the request asks for and return how every node ended.

    Cancelling the task ends every node, keeps what was accepted, and raises ``Interrupted``.

    Raises:
        ProjectRefused, StateUnreadable, StoreUnavailable, StoreLocked: nothing was run.
        Interrupted: it was stopped; the message says how to resume.
    """
    began = time.monotonic()
    async with EngineClient(engine) as client:
        _require_folder(request.project)
        store = Store.of(request.project, request.store)
        request, run_id, pins = settled(request, store)
        async with _locked(store, run_id, request.wait, observer):
            raw = await _read(client, request, pins)
            _set_unreadable_state_aside(raw, request, run_id)
            folder = store.new_run(run_id)
            execution = _Execution(client, request, folder, observer=observer, raw=raw, pins=pins)
            results = await execution.run()
            observer(RunEnded(results, time.monotonic() - began))
            return results


@contextlib.asynccontextmanager
async def _locked(
    store: Store, run_id: str, wait: float, observer: Observer
) -> AsyncIterator[None]:
    """Hold the store's lock, asking for it again and again: Ctrl-C ends that, a thread it cannot."""
    store.prepare()
    until = time.monotonic() + wait
    told = False
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(store.lock(run_id))
                break
            except StoreLocked as locked:
                if time.monotonic() >= until:
                    raise
                if not told:
                    observer(StoreAwaited(str(locked).partition("\n")[0]))
                    told = True
                await asyncio.sleep(_PAUSE)
        yield


def _require_folder(project: Path) -> None:
    if not project.is_dir():
        raise ProjectRefused(
            [Problem(f"there is no folder {project}", "name the project's folder")]
        )


async def _read(client: EngineClient, request: RunRequest, pins: dict[str, str]) -> dict[str, Any]:
    _require_folder(request.project)
    raw: dict[str, Any] = await client.call(
        "open",
        root=str(request.project.resolve()),
        home=str(_home(request)),
        pins=pins,
        overrides=dict(request.params),
        profile=str(request.profile.resolve()) if request.profile else None,
    )
    return raw


def _home(request: RunRequest) -> Path:
    """Return the folder below which ``target/`` is: what the run publishes to."""
    return request.project.resolve()


def _refuse_unreadable_state(raw: dict[str, Any], request: RunRequest) -> None:
    if raw["state_error"] and not request.full:
        raise StateUnreadable(
            f"{raw['state_error']}\n"
            "  → it is kept as it is. Put a backup in its place (target/run_state.json.bak.*), or "
            "run everything anew: seeknal-k8s run --full (which sets the file aside)"
        )


def _set_unreadable_state_aside(raw: dict[str, Any], request: RunRequest, run_id: str) -> None:
    """Keep a corrupt state file under another name, when the user has chosen to start anew."""
    _refuse_unreadable_state(raw, request)
    if raw["state_error"]:
        file = _home(request) / "target" / "run_state.json"
        file.replace(file.with_name(f"{file.name}.corrupt.{run_id}"))


def _make_plan(
    raw: dict[str, Any], request: RunRequest, *, done: Mapping[str, dict[str, Any]] | None = None
) -> Planned:
    """Plan a project as read. ``done`` has been accepted by an earlier try of the same run."""
    graph, warnings = graphs.build(raw)
    options = resolve_all(
        OptionsFile.load(Path(raw["root"])), graph.nodes.values(), request.options
    )
    state = {node_id: planning.PastRun(**past) for node_id, past in (raw["state"] or {}).items()}
    selected = None
    if request.select or request.exclude:
        selected = frozenset(select(graph, request.select, request.exclude))
    made = planning.make(
        graph,
        state=state,
        missing=frozenset(raw["missing"]),
        refresh=frozenset(raw["refresh"]),
        options=options,
        selected=selected,
        full=request.full,
    )
    if done is not None:
        made = _without(made, done)
    return Planned(made, tuple(warnings))


def _without(plan: Plan, done: Mapping[str, Any]) -> Plan:
    """Return the plan without what is done already; those nodes no longer hold up others."""
    runs = tuple(
        replace(run, waits_for=tuple(other for other in run.waits_for if other not in done))
        for run in plan.runs
        if run.node.id not in done
    )
    return replace(plan, runs=runs)


class _Execution:
    """One run of one project, from the read project to the published state."""

    def __init__(
        self,
        client: EngineClient,
        request: RunRequest,
        folder: RunFolder,
        *,
        observer: Observer,
        raw: dict[str, Any],
        pins: dict[str, str],
    ) -> None:
        self._client = client
        self._request = request
        self._folder = folder
        self._observer = observer
        self._raw = raw
        self._project = Path(raw["root"])
        self._home = _home(request)
        self._pins = pins

    async def run(self) -> RunResults:
        """Carry the run out; every ending is noted in ``run.json``."""
        planned = self._plan()
        done, ended = self._take_up(planned.plan)
        plan = _without(planned.plan, done)
        self._note_start(planned.plan)
        try:
            await self._warm(plan)
        except asyncio.CancelledError as cancelled:
            self._folder.note(status="interrupted", ended=utc_now())
            raise Interrupted("interrupted before the first node had started") from cancelled
        runner = Runner(
            plan=plan,
            backend=self._backend(),
            folder=self._folder,
            home=self._home,
            observer=self._observer,
            at_once=self._request.at_once,
            fail_fast=self._request.fail_fast,
            full=self._request.full,
            results=done,
            ended=ended,
        )
        self._observer(RunStarted(self._folder.id, plan, tuple(done), planned.warnings))
        try:
            await runner.run()
        except asyncio.CancelledError as cancelled:
            await self._publish(runner, planned.plan)
            self._finish(runner.in_plan_order(), "interrupted")
            raise Interrupted(self._how_to_resume(runner)) from cancelled
        except (EngineFailed, StoreUnavailable):
            self._folder.note(status="failed", ended=utc_now())
            raise
        await self._publish(runner, planned.plan)
        results = runner.in_plan_order()
        self._finish(results, "succeeded" if results.success else "failed")
        return results

    def _plan(self) -> Planned:
        planned = _make_plan(self._raw, self._request)
        about = self._folder.about()
        if self._request.resume is None:
            return planned
        if about.get("digest") != planned.plan.graph.digest:
            raise ProjectRefused(
                [
                    Problem(
                        f"the project, or its data, has changed since run {self._folder.id}",
                        "start a new run: seeknal-k8s run",
                    )
                ]
            )
        return replace(planned, plan=self._planned_then(planned.plan, about["plan"]))

    def _planned_then(self, now: Plan, ids: Sequence[str]) -> Plan:
        """Return the plan as it was made then: what ran since is cached by now."""
        request = replace(self._request, select=tuple(ids), exclude=(), full=False)
        raw = {**self._raw, "missing": []}
        return _make_plan(raw, request).plan if ids else replace(now, runs=())

    def _take_up(self, plan: Plan) -> tuple[dict[str, PrefectRunResult], dict[str, dict[str, Any]]]:
        """Return what earlier tries of this run have done, accepting what they could not."""
        done: dict[str, PrefectRunResult] = {}
        ended: dict[str, dict[str, Any]] = {}
        if self._request.resume is None:
            return done, ended
        accepted = self._folder.accepted()
        for run in plan.runs:
            node = run.node
            attempts = self._folder.attempts(node.id)
            ending = Ending.read(attempts[-1] / "result.json") if attempts else None
            if ending is None or not verdict.read(ending).success:
                continue
            if node.id not in accepted:
                accept(self._folder, self._home, node, attempts[-1], ending)
            if all((self._home / file).exists() for file in ending.outputs):
                found = verdict.read(ending)
                done[node.id] = result_of(attempts[-1], ending, found, attempts=len(attempts))
                ended[node.id] = state_record(node.digest, done[node.id], ending)
        return done, ended

    def _note_start(self, plan: Plan) -> None:
        request = self._request
        self._folder.note(
            id=self._folder.id,
            project=str(self._project),
            status="running",
            started=self._folder.about().get("started") or utc_now(),
            ended=None,
            digest=plan.graph.digest,
            pins=self._pins,
            plan=[run.node.id for run in plan.runs],
            nodes={run.node.id: self._folder.bundle(run.node.id).name for run in plan.runs},
            request={
                "select": request.select,
                "exclude": request.exclude,
                "full": request.full,
                "params": dict(request.params),
                "profile": str(request.profile) if request.profile else None,
            },
        )

    def _backend(self) -> LocalBackend:
        return LocalBackend(
            self._client,
            project=self._project,
            environments=self._environments,
            at_once=self._request.at_once,
        )

    @property
    def _environments(self) -> Path:
        return self._folder.path / "environments"

    async def _warm(self, plan: Plan) -> None:
        """Have the engine ready for these nodes, unless governance forbids one of them."""
        nodes = [run.node.id for run in plan.runs]
        if not nodes:
            return
        answer = await self._client.call(
            "warm",
            nodes=nodes,
            environments=str(self._environments),
            spares=min(len(nodes), cores()),
        )
        if answer["refused"]:
            self._folder.note(status="refused", ended=utc_now())
            raise ProjectRefused(
                [
                    Problem(
                        f"Atlas does not allow it to be read: {reason}",
                        "ask for access: seeknal gov request-access",
                        file=plan.graph.nodes[node_id].file,
                        node=node_id,
                    )
                    for node_id, reason in answer["refused"].items()
                ]
            )

    async def _publish(self, runner: Runner, plan: Plan) -> None:
        """Let Seeknal know what ran, once, in its own files."""
        if not plan.runs:
            return
        record = {
            "ran": [run.node.id for run in plan.runs],
            "ended": runner.ended,
            "config": {
                "full": self._request.full,
                "nodes": list(self._request.select) or None,
                "types": None,
            },
        }
        reply = str(self._folder.path / "publish.json")
        publishing = self._client.call("publish", record=record, reply=reply)
        try:
            warnings = await asyncio.shield(asyncio.ensure_future(publishing))
        except EngineFailed as error:
            self._folder.note(status="failed", ended=utc_now())
            raise StoreUnavailable(
                f"{error}\n  → the nodes' outputs are kept: seeknal-k8s run --resume {self._folder.id}"
            ) from error
        if warnings:
            self._folder.note(warnings=warnings)

    def _finish(self, results: RunResults, status: str) -> None:
        self._folder.write_results(results)
        self._folder.note(status=status, ended=utc_now())

    def _how_to_resume(self, runner: Runner) -> str:
        kept = sum(result.success for result in runner.results.values())
        return (
            f"run {self._folder.id} was interrupted; {kept} of {len(self._folder.about()['plan'])} "
            f"nodes are done and kept\n  → go on with it: seeknal-k8s run --resume {self._folder.id}"
        )
