"""Plan a backfill and carry it out. What the CLI and flows call."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from seeknal_k8s import coordinator
from seeknal_k8s.backends.local import LocalBackend, cores
from seeknal_k8s.backfill import claims, earlier, planning
from seeknal_k8s.backfill.keeping import Keeping
from seeknal_k8s.backfill.ledger import Ledger
from seeknal_k8s.backfill.outcomes import how_to_go_on, results_of, why_nothing_ran
from seeknal_k8s.backfill.scope import open_project, overrides, read
from seeknal_k8s.engine_client import EngineClient
from seeknal_k8s.errors import InputsFailed, Interrupted, SeeknalK8sError
from seeknal_k8s.events import BackfillStarted
from seeknal_k8s.graph import build
from seeknal_k8s.pod import Order
from seeknal_k8s.request import new_pins
from seeknal_k8s.runner import Runner
from seeknal_k8s.store import utc_now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from seeknal_k8s.attempt import AttemptSpec
    from seeknal_k8s.backends import Backend
    from seeknal_k8s.backfill.planning import BackfillPlan
    from seeknal_k8s.backfill.request import BackfillRequest
    from seeknal_k8s.engine_process import EngineProcess
    from seeknal_k8s.events import Observer
    from seeknal_k8s.plan import Plan
    from seeknal_k8s.results import PrefectRunResult, RunResults


async def plan(request: BackfillRequest, engine: EngineProcess | None = None) -> BackfillPlan:
    """Return what a backfill would do, without running anything.

    Raises:
        UsageError, ProjectRefused: the request, or the project, makes no sense.
    """
    request.intervals()  # what is wrong with the dates is told before anything is read
    async with EngineClient(engine) as client:
        scope = await read(client, request)
        client.hang_up()
        return planning.make(scope, request, Ledger(request.place, scope.node.id).done())


async def run(
    request: BackfillRequest, observer: Observer, engine: EngineProcess | None = None
) -> RunResults:
    """Run what is missing, and return how every interval ended, by its key.

    Intervals that were done already are ``Cached``. Cancelling the task ends every attempt, keeps
    what was done, and raises ``Interrupted``; the same request goes on from there.

    Raises:
        UsageError, ProjectRefused, StoreUnavailable, StoreLocked: nothing was run.
        InputsFailed: what all intervals read could not be made.
        Interrupted: it was stopped.
    """
    request.intervals()
    async with EngineClient(engine) as client:
        scope = await read(client, request)
        ledger = Ledger(request.place, scope.node.id)
        request.place.prepare()
        made = planning.make(scope, request, ledger.done())
        if not made.todo and not request.combine:
            dead = [one.run for one in claims.dead(ledger.root / "claims")]
            await earlier.end_jobs(request, dead)
            claims.bury(ledger.root / "claims", dead)
            if made.warnings:
                total = len(made.intervals)
                observer(BackfillStarted("", scope.node.id, {}, total, total, made.warnings))
            return results_of(made, {}, run_id="")
        shape = earlier.shape_of(request, made)
        run_id = await earlier.run_id(request, shape, ledger)
        claim = claims.Claim(run_id, shape, made.todo, alone=made.policy.serial)
        with claims.held(ledger.root / "claims", claim):
            if earlier.is_otherwise(request.place.folder(run_id).about(), made, shape):
                await earlier.end_jobs(request, [run_id])
            # Another one may have been at work until a moment ago.
            made = planning.make(scope, request, ledger.done(), run_id)
            await _run_what_is_shared(made, request, observer)
            async with coordinator.locked(
                [request.place], run_id, request.wait, observer, shared=True
            ):
                backfill = _Backfill(
                    client, request, made, ledger=ledger, run_id=run_id, observer=observer
                )
                results = await backfill.run()
    if request.combine and results.success:
        await _combine(request, made, ledger, run_id, observer)
    return results


async def _run_what_is_shared(
    made: BackfillPlan, request: BackfillRequest, observer: Observer
) -> None:
    """Run once, as any run does, what every interval reads and is not up to date."""
    if not made.scope.outdated or not made.todo:
        return
    asked = replace(request.shares, select=made.scope.outdated)
    results = await coordinator.run(asked, observer)
    if results.failed:
        raise InputsFailed(why_nothing_ran(results))


class _Backfill:
    """One backfill, from its plan to its results."""

    def __init__(
        self,
        client: EngineClient,
        request: BackfillRequest,
        made: BackfillPlan,
        *,
        ledger: Ledger,
        run_id: str,
        observer: Observer,
    ) -> None:
        self._client = client
        self._request = request
        self._made = made
        self._folder = request.place.folder(run_id)
        self._observer = observer
        self._keeping = Keeping(ledger, made, request, run_id)
        self._pins = self._folder.about().get("pins") or new_pins(run_id)
        self._shape = earlier.shape_of(request, made)
        self._is_same = self._folder.about().get("shape") == self._shape
        self._asked: list[str] = []
        self._digest = ""
        self._project = ""

    async def run(self) -> RunResults:
        """Carry it out."""
        raw = await open_project(self._client, self._request, self._pins)
        self._project = raw["root"]
        self._digest = build(raw)[0].digest
        plan = planning.execution(self._made, self._request)
        self._asked = [each.key for each in plan.runs]
        self._note_start(plan)
        running = self._take_up(plan)
        plan = self._without_done(plan)
        self._tell_start(plan)
        # An Indexed Job may have more to do than is asked for now.
        if not plan.runs and not self._made.indexed:
            return self._finish({}, "succeeded")
        runner = None
        try:
            async with self._backend(plan) as backend:
                runner = self._runner(plan, backend, running)
                await runner.run()
        except asyncio.CancelledError as cancelled:
            results = self._finish(self._per_interval(plan, runner), "interrupted")
            raise Interrupted(how_to_go_on(results)) from cancelled
        except SeeknalK8sError:
            self._finish({}, "failed")
            raise
        return self._finish(self._per_interval(plan, runner), "")

    def _runner(self, plan: Plan, backend: Backend, running: dict[str, int]) -> Runner:
        return Runner(
            plan=plan,
            backend=backend,
            folder=self._folder,
            home=self._request.shares.home,
            observer=self._observer,
            at_once=self._at_once(),
            running=running if backend.reattaches else {},
            max_failures=self._request.max_failures,
            keeper=self._keeping,
        )

    def _at_once(self) -> int | None:
        """Return how many attempts may run at once, None for as many as fit."""
        request = self._request
        most = request.settings.max_jobs if request.settings and request.on != "local" else None
        return 1 if self._made.policy.serial else request.at_once or most

    def _take_up(self, plan: Plan) -> dict[str, int]:
        """Keep what an earlier try of this run has finished; return which attempt of each is to go on.

        One that nothing was tried for goes on with its first: an Indexed Job may begin with it, and the
        pod make its folder, before the runner does.
        """
        running: dict[str, int] = {}
        for each in plan.runs:
            attempts = self._folder.attempts(each.node.id, each.interval)
            if not attempts:
                running[each.key] = 1
            if not self._is_same:  # under the same id, but with other logic
                continue
            for attempt in attempts:
                # Processes of this machine have died with their coordinator; a pod may still run.
                over = (
                    self._request.on == "local"
                    or attempt != attempts[-1]
                    or earlier.is_over(attempt)
                )
                self._keeping.take(attempt, int(attempt.name), over=over)
                if not over:
                    running[each.key] = int(attempt.name)
        return running

    def _without_done(self, plan: Plan) -> Plan:
        left = []
        for each in plan.runs:
            assert each.piece is not None  # noqa: S101 - every run of a backfill is one
            spans = tuple(s for s in each.piece.spans if s.key not in self._keeping.results)
            if spans:
                left.append(replace(each, piece=replace(each.piece, spans=spans)))
        keys = {each.key for each in left}
        waiting = [
            replace(each, waits_for=tuple(key for key in each.waits_for if key in keys))
            for each in left
        ]
        return replace(plan, runs=tuple(waiting))

    def _tell_start(self, plan: Plan) -> None:
        made = self._made
        sizes = {each.key: len(each.piece.spans) for each in plan.runs if each.piece}
        total = len(made.intervals)
        self._observer(
            BackfillStarted(
                self._folder.id,
                made.scope.node.id,
                sizes,
                done=total - sum(sizes.values()),
                total=total,
                warnings=made.warnings,
            )
        )

    def _note_start(self, plan: Plan) -> None:
        request, node = self._request, self._made.scope.node
        self._folder.make()
        about = self._folder.about()
        if earlier.is_otherwise(about, self._made, self._shape):
            self._folder.forget_indexed_jobs()
        nodes = about.get("nodes", {}) if self._is_same else {}
        for each in plan.runs:
            nodes[each.key] = self._folder.bundle(node.id, each.interval).name
        self._folder.note(
            kind="backfill",
            id=self._folder.id,
            project=self._project,
            on=request.on,
            node=node.id,
            shape=self._shape,
            status="running",
            started=self._folder.about().get("started") or utc_now(),
            ended=None,
            pins=self._pins,
            plan=sorted(nodes),
            nodes=nodes,
            range=[self._made.intervals[0].key, self._made.intervals[-1].key],
            schedule=request.schedule,
            timezone=request.timezone,
            one_at_a_time=self._made.policy.serial,
            indexed=self._made.indexed,
        )

    @contextlib.asynccontextmanager
    async def _backend(self, plan: Plan) -> AsyncIterator[Backend]:
        environments = self._folder.path / "environments"
        local = self._request.on == "local"
        await self._client.call(
            "warm",
            nodes=[node.id for node in self._made.scope.chain],
            environments=str(environments),
            spares=min(len(plan.runs), cores()) if local else 0,
        )
        if local:
            yield LocalBackend(
                self._client,
                project=self._request.project.resolve(),
                environments=environments,
                at_once=self._request.at_once,
            )
            return
        from seeknal_k8s.backends import indexed, kubernetes  # noqa: PLC0415 - 0.3 s, not on laptops

        if self._made.indexed:
            async with indexed.open_indexed(
                self._request.settings,
                plan=plan,
                asked=self._asked,
                folder=self._folder,
                order=self._order,
                at_once=self._at_once() or len(plan.runs),
                max_failures=self._request.max_failures,
            ) as backend:
                yield backend
            return
        async with kubernetes.open_backend(
            self._request.settings,
            run_id=self._folder.id,
            plan=plan,
            order=self._order,
            kind=kubernetes.KubernetesBackend,
        ) as ordinary:
            yield ordinary

    def _order(self, spec: AttemptSpec) -> dict[str, Any]:
        profile = self._request.profile
        return Order(
            spec,
            home=str(self._request.shares.home),
            digest=self._digest,
            pins=self._pins,
            overrides=overrides(self._request),
            profile=str(profile) if profile else None,
        ).to_dict()

    def _per_interval(self, plan: Plan, runner: Runner | None) -> dict[str, PrefectRunResult]:
        """Return how each interval ended that is not done, from how its attempt did."""
        found: dict[str, PrefectRunResult] = {}
        for each in plan.runs:
            result = runner.results.get(each.key) if runner else None
            if each.piece is None or result is None or result.success:
                continue
            keys = [span.key for span in each.piece.spans]
            found |= self._keeping.failed(keys, result)
        return found

    def _finish(self, others: dict[str, PrefectRunResult], status: str) -> RunResults:
        ended = {**others, **self._keeping.results}
        results = results_of(self._made, ended, run_id=self._folder.id)
        self._folder.write_results(results)
        status = status or ("succeeded" if results.success else "failed")
        self._folder.note(status=status, ended=utc_now())
        return results


async def _combine(
    request: BackfillRequest,
    made: BackfillPlan,
    ledger: Ledger,
    run_id: str,
    observer: Observer,
) -> None:
    """Put the rows of all finished intervals together, as the nodes' normal outputs."""
    async with (
        coordinator.locked([request.place], run_id, request.wait, observer),
        EngineClient() as client,
    ):
        await open_project(client, request, new_pins(run_id))
        for node_id in made.scope.wanted:
            files = [str(file) for file in ledger.files(node_id)]
            outputs = [
                name
                for name in made.scope.graph.nodes[node_id].outputs
                if name.endswith(".parquet")
            ]
            if files and outputs:
                into = [str(request.shares.home / name) for name in outputs]
                await client.call("combine", files=files, into=into)
