"""One run of one project: take up what is done, run the rest, publish, and say how it ended."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal_k8s import verdict
from seeknal_k8s.attempt import AttemptSpec, Ending
from seeknal_k8s.backends.local import LocalBackend, cores
from seeknal_k8s.drafting import Planned, draft, without
from seeknal_k8s.endings import result_of, state_record
from seeknal_k8s.errors import (
    EngineFailed,
    Interrupted,
    Problem,
    ProjectRefused,
    SeeknalK8sError,
    StoreUnavailable,
)
from seeknal_k8s.events import RunStarted
from seeknal_k8s.logs import redact
from seeknal_k8s.pod import Order
from seeknal_k8s.runner import Runner, accept
from seeknal_k8s.store import utc_now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from seeknal_k8s.backends import Backend
    from seeknal_k8s.engine_client import EngineClient
    from seeknal_k8s.events import Observer
    from seeknal_k8s.plan import Plan
    from seeknal_k8s.request import RunRequest
    from seeknal_k8s.results import PrefectRunResult, RunResults
    from seeknal_k8s.store import RunFolder


@dataclass(frozen=True, slots=True)
class _Earlier:
    """What earlier tries of a run have left: see ``Runner`` for what its parts are."""

    done: dict[str, PrefectRunResult] = field(default_factory=dict)
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)


class Execution:
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
        self._home = request.home
        self._pins = pins
        self._digest = ""
        self.warnings: tuple[str, ...] = ()

    async def run(self) -> RunResults:
        """Carry the run out; every ending is noted in ``run.json``."""
        planned = self._plan()
        self._digest = planned.plan.graph.digest
        outdated = self._outdated(planned.plan)
        self._note_start(planned.plan, outdated)
        await self._forget(planned.plan, outdated)
        earlier = self._take_up(planned.plan)
        plan = without(planned.plan, earlier.done)
        runner = None
        try:
            async with self._backend(plan) as backend:
                runner = self._runner(plan, backend, earlier)
                self._observer(
                    RunStarted(self._folder.id, plan, tuple(earlier.done), planned.warnings)
                )
                await runner.run()
        except asyncio.CancelledError as cancelled:
            raise await self._interrupted(runner, planned.plan) from cancelled
        except SeeknalK8sError:
            self._folder.note(status="failed", ended=utc_now())
            if runner is not None:
                with contextlib.suppress(
                    SeeknalK8sError
                ):  # as far as it goes: the error goes first
                    await self._publish(runner, planned.plan)
                    self._folder.write_results(runner.in_plan_order())
            raise
        await self._publish(runner, planned.plan)
        results = runner.in_plan_order()
        self._finish(results, "succeeded" if results.success else "failed")
        return results

    def _runner(self, plan: Plan, backend: Backend, earlier: _Earlier) -> Runner:
        settings = self._request.settings if self._request.on == "kubernetes" else None
        return Runner(
            plan=plan,
            backend=backend,
            folder=self._folder,
            home=self._home,
            observer=self._observer,
            at_once=self._request.at_once or (settings.max_jobs if settings else None),
            fail_fast=self._request.fail_fast,
            full=self._request.full,
            results=earlier.done,
            ended=earlier.ended,
            running=earlier.running if backend.reattaches else {},
        )

    async def _interrupted(self, runner: Runner | None, plan: Plan) -> Interrupted:
        """Keep what was accepted, and return the error that says how to go on."""
        if runner is None:
            self._folder.note(status="interrupted", ended=utc_now())
            return Interrupted("interrupted before the first node had started")
        await self._publish(runner, plan)
        self._finish(runner.in_plan_order(), "interrupted")
        return Interrupted(self._how_to_resume(runner))

    def _plan(self) -> Planned:
        planned = draft(self._raw, self._request)
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
        return draft(self._raw, request).plan if ids else replace(now, runs=())

    def _take_up(self, plan: Plan) -> _Earlier:
        """Return what earlier tries of this run have done, accepting what they could not."""
        earlier = _Earlier()
        if self._request.resume is None:
            return earlier
        accepted = self._folder.accepted()
        for run in plan.runs:
            node = run.node
            attempts = self._folder.attempts(node.id)
            if not attempts:
                continue
            ending = Ending.of(attempts[-1])
            if ending is None:
                earlier.running[node.id] = int(attempts[-1].name)
                continue
            found = verdict.read(ending)
            if not found.success:
                continue
            if node.id not in accepted:
                accept(self._folder, self._home, node, attempts[-1], ending)
            if all((self._home / file).exists() for file in ending.outputs):
                result = result_of(attempts[-1], ending, found, attempts=len(attempts))
                earlier.done[node.id] = result
                earlier.ended[node.id] = state_record(node.digest, result, ending)
        return earlier

    def _note_start(self, plan: Plan, outdated: Sequence[str]) -> None:
        request = self._request
        self._folder.make()
        self._folder.note(
            id=self._folder.id,
            project=str(self._project),
            on=request.on,
            status="running",
            started=self._folder.about().get("started") or utc_now(),
            ended=None,
            digest=plan.graph.digest,
            pins=self._pins,
            plan=[run.node.id for run in plan.runs],
            outdated=outdated,
            nodes={run.node.id: self._folder.bundle(run.node.id).name for run in plan.runs},
            request={
                "set": [asdict(override) for override in request.options],
                "select": request.select,
                "exclude": request.exclude,
                "full": request.full,
                "params": dict(request.params),
                "profile": str(request.profile) if request.profile else None,
            },
        )

    @contextlib.asynccontextmanager
    async def _backend(self, plan: Plan) -> AsyncIterator[Backend]:
        """Give the backend that the request asks for, ready to run attempts of this plan."""
        if self._request.on == "local":
            await self._warm(plan, spares=cores())
            yield LocalBackend(
                self._client,
                project=self._project,
                environments=self._environments,
                at_once=self._request.at_once,
            )
            return
        from seeknal_k8s.backends import kubernetes  # noqa: PLC0415 - 0.3 s, and not on a laptop

        await self._warm(plan, spares=0)
        async with kubernetes.open_backend(
            self._request.settings,
            run_id=self._folder.id,
            plan=plan,
            order=self._order,
            kind=kubernetes.KubernetesBackend,
        ) as backend:
            yield backend

    def _order(self, spec: AttemptSpec) -> dict[str, Any]:
        """Return what a pod has to know to run an attempt of this run."""
        return Order(
            spec,
            home=str(self._home),
            digest=self._digest,
            pins=self._pins,
            overrides=self._request.params,
            profile=str(self._request.profile) if self._request.profile else None,
        ).to_dict()

    @property
    def _environments(self) -> Path:
        return self._folder.path / "environments"

    async def _warm(self, plan: Plan, *, spares: int) -> None:
        """Have the engine ready for these nodes, unless governance forbids one of them."""
        nodes = [run.node.id for run in plan.runs]
        if not nodes:
            return
        answer = await self._client.call(
            "warm",
            nodes=nodes,
            environments=str(self._environments),
            spares=min(len(nodes), spares),
        )
        if answer["refused"]:
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

    async def _forget(self, plan: Plan, outdated: Sequence[str]) -> None:
        """Have Seeknal's state forget the nodes that are about to run.

        Whatever stops this run, even a power cut, the next one then runs them again, instead of
        taking outputs of two runs for one. What is ``outdated`` is not forgotten, for its output can be
        read, but noted as such.
        """
        past = self._raw["state"] or {}
        nodes = [run.node.id for run in plan.runs if run.node.id in past]
        outdated = [node for node in outdated if node in past]
        if nodes or outdated:
            try:
                await self._client.call("forget", nodes=nodes, outdated=outdated)
            except EngineFailed as error:
                raise self._state_unwritten(error) from error

    def _outdated(self, plan: Plan) -> list[str]:
        """Return what was left out although its inputs run: once they have, nothing else would tell.

        A run that is gone on with has it from its beginning.
        """
        noted: list[str] | None = self._folder.about().get("outdated")
        if noted is not None:
            return noted
        if self._request.select:  # as in Seeknal, a selection is no business of what reads it
            return []
        running, nodes = {run.node.id for run in plan.runs}, plan.graph.nodes
        return [node for node in plan.left_out if running & set(nodes[node].inputs)]

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
            raise self._state_unwritten(error) from error
        self.warnings = tuple(redact(warning) for warning in warnings)
        if self.warnings:
            self._folder.note(warnings=self.warnings)

    def _state_unwritten(self, error: EngineFailed) -> StoreUnavailable:
        self._folder.note(status="failed", ended=utc_now())
        return StoreUnavailable(
            f"{error}\n  → the nodes' outputs are kept: seeknal-k8s run --resume {self._folder.id}"
        )

    def _finish(self, results: RunResults, status: str) -> None:
        self._folder.write_results(results)
        self._folder.note(status=status, ended=utc_now())

    def _how_to_resume(self, runner: Runner) -> str:
        kept = sum(result.success for result in runner.results.values())
        return (
            f"run {self._folder.id} was interrupted; {kept} of {len(self._folder.about()['plan'])} "
            f"nodes are done and kept\n  → go on with it: seeknal-k8s run --resume {self._folder.id}"
        )
