"""``seeknal_run_flow``: a whole project as a flow run."""

from __future__ import annotations

from collections.abc import (  # noqa: TC003 - Prefect reads the annotations
    Callable,
    Coroutine,
    Mapping,
    Sequence,
)
from typing import TYPE_CHECKING, Any, cast

from prefect import Flow, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run as current

from seeknal_k8s import coordinator
from seeknal_k8s.errors import NodesFailed
from seeknal_k8s.flows.aloof import Aloof
from seeknal_k8s.flows.asked import On, at_once, exactly, request, where
from seeknal_k8s.flows.shown import Showing
from seeknal_k8s.results import RunResults, skipped
from seeknal_k8s.store import Store

if TYPE_CHECKING:
    from seeknal_k8s.request import RunRequest

RUN = "seeknal-run-pipeline"

_NAMED = 5
"""How many failed nodes the message of a flow run names."""


class ResultsFlow(Flow[..., Any]):
    """A flow whose caller gets its results even where the flow run has failed.

    Prefect shows a run with a failed node as Failed. Whoever calls the flow as a function wants to
    know which node that was, and is given the results, as the documentation of Seeknal has it.
    """

    def __call__(self, *args: Any, return_state: bool = False, **kwargs: Any) -> Any:
        """Run the flow; return its results, or its state if asked to.

        Raises:
            SeeknalK8sError: nothing was run, or the run was ended; the message says why.
        """
        state = cast("State[Any]", super().__call__(*args, return_state=True, **kwargs))
        if return_state:
            return state
        # _sync: where a loop runs already, Prefect would return a coroutine.
        result = cast("Any", state.result)
        found = result(raise_on_failure=False, _sync=True)
        return found.results if isinstance(found, NodesFailed) else result(_sync=True)

    def with_options(self, **options: Any) -> ResultsFlow:
        """Return the flow with other options, as Prefect does."""
        made = super().with_options(**options)
        made.__class__ = type(self)  # Prefect makes a plain Flow of every subclass
        return cast("ResultsFlow", made)


def require_success(results: RunResults, what: str = "nodes") -> RunResults:
    """Return the results of a flow's run.

    Raises:
        NodesFailed: a node failed. An exception, for a failed state that a flow returns is not
            tried again by Prefect.
    """
    if results.success:
        return results
    failed = [key for key, result in results.failed.items() if not skipped(result)]
    left = len(results.failed) - len(failed)
    named = ", ".join(f"{key} ({results[key].reason})" for key in failed[:_NAMED])
    more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    below = f"; {left} skipped" if left else ""
    raise NodesFailed(
        f"{len(failed)} of {len(results)} {what} failed: {named}{more}{below}", results
    )


def run_shown(asked: RunRequest) -> RunResults:
    """Run what is asked for, and show it in Prefect.

    Raises:
        SeeknalK8sError: nothing was run, or the run was ended.
    """

    async def work() -> RunResults:
        showing = Showing(Store.of(asked.project, asked.store_root))
        try:
            return await coordinator.run(asked, showing.see)
        finally:
            await showing.close()

    return aloof(work, asked.on)


def aloof(work: Callable[[], Coroutine[Any, Any, RunResults]], on: On) -> RunResults:
    """Return what the work returns; a pod that is told to end leaves the Jobs as they are."""

    def leave(interruption: BaseException) -> bool:
        # A pod that is moved elsewhere starts again and goes on with its Jobs; who cancels a flow
        # run in Prefect wants them to end.
        return (
            on == "kubernetes"
            and isinstance(interruption, TerminationSignal)
            and not is_cancelled(str(current.id))
        )

    return Aloof(work, leave).run()


def is_cancelled(flow_run_id: str) -> bool:
    """Whether Prefect says that this flow run is to end; also where nobody can tell."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(flow_run_id).state  # type: ignore[arg-type] # takes texts
    except Exception:  # noqa: BLE001 - whatever a server, or the way to it, may do
        return True
    ending = {StateType.CANCELLING, StateType.CANCELLED}
    return state is not None and state.type in ending


def end_jobs(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """End all Jobs of a flow run that was cancelled or has crashed: a hook of the flows."""
    del flow, state
    on, settings = where(None)
    on = (flow_run.parameters or {}).get("on") or on
    if on != "kubernetes":
        return
    from seeknal_k8s import cleaning  # noqa: PLC0415 - the cluster's client is not for laptops

    async def work() -> None:
        await cleaning.end(settings, [str(flow_run.id)])

    Aloof(work).run()


def _seeknal_run_flow(  # noqa: PLR0913 - the options of a run, as a form in Prefect
    project_path: str = ".",
    parallel: bool = True,  # noqa: FBT001, FBT002 - Seeknal's documented signature
    node_ids: list[str] | None = None,
    *,
    select: Sequence[str] = (),
    exclude: Sequence[str] = (),
    full: bool = False,
    options: Sequence[str] = (),
    params: Mapping[str, Any] | None = None,
    on: On | None = None,
    max_parallel: int | None = None,
    fail_fast: bool = False,
    store: str | None = None,
    wait: float = 0.0,
) -> Any:
    """Run a Seeknal project, each node in a process or a Kubernetes Job of its own.

    ``node_ids`` are the nodes to run, by id or by name, and no others; None is all that have
    changed. ``parallel=False`` runs one node at a time. ``select`` and ``exclude`` are selectors
    as of ``seeknal-k8s run --select``, ``full`` runs everything, ``options`` are as of ``--set``,
    ``params`` as of ``--params``. ``on`` is ``local`` or ``kubernetes``, None what
    ``SEEKNAL_K8S_ON`` says. ``max_parallel`` bounds how many nodes run at once, ``fail_fast`` stops
    at the first failure, ``store`` is where outputs and logs are kept, ``wait`` is how many seconds
    to wait for another run that is at work on it.

    Returns a ``PrefectRunResult`` per node, in a ``RunResults``. A node that fails makes the flow
    run Failed; whoever calls the flow gets the results all the same.
    """
    asked = request(
        project_path,
        on=on,
        store=store,
        options=options,
        params=params,
        run_id=current.id,
        resume_if_started=True,
        retry_failed=True,
        select=(*exactly(node_ids), *select),
        exclude=tuple(exclude),
        full=full,
        at_once=at_once(max_parallel, parallel=parallel),
        fail_fast=fail_fast,
        wait=wait,
    )
    return require_success(run_shown(asked))


_seeknal_run_flow.__name__ = _seeknal_run_flow.__qualname__ = "seeknal_run_flow"
seeknal_run_flow = ResultsFlow(
    _seeknal_run_flow,
    name=RUN,
    persist_result=False,
    on_cancellation=[end_jobs],
    on_crashed=[end_jobs],
)
