"""``seeknal_backfill_flow``: a node over the intervals of a range, as a flow run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence  # noqa: TC003 - Prefect reads the annotations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.runtime import flow_run as current

from seeknal_k8s import backfill
from seeknal_k8s.backfill import BackfillRequest
from seeknal_k8s.events import BackfillStarted, RunEnded
from seeknal_k8s.flows import artifacts
from seeknal_k8s.flows.asked import On, at_once, where
from seeknal_k8s.flows.run import ResultsFlow, aloof, end_jobs, require_success
from seeknal_k8s.flows.shown import Showing, Shown
from seeknal_k8s.graph import Node
from seeknal_k8s.options import parse_overrides

if TYPE_CHECKING:
    from seeknal_k8s.events import Event
    from seeknal_k8s.results import RunResults

BACKFILL = "seeknal-backfill"


class _ShowingIntervals(Showing):
    """Shows a backfill: a task run for each attempt's intervals, each interval a row of a table."""

    _node_id = ""

    def see(self, event: Event) -> None:
        """Take in one event; the run of what the intervals share is shown as part of this one."""
        if isinstance(event, BackfillStarted):
            self._start_backfill(event)
        elif not isinstance(event, RunEnded):
            super().see(event)

    def _start_backfill(self, event: BackfillStarted) -> None:
        self._run_id, self._node_id = event.run_id, event.node
        for key in event.pieces:
            self._nodes[key] = Shown(Node(key, "interval", key, ""))
        self._show_all()

    def _folder(self, shown: Shown) -> Path:
        if shown.node.kind != "interval":
            return super()._folder(shown)
        return self._store.folder(self._run_id).bundle(self._node_id, shown.node.id)


def _run(asked: BackfillRequest) -> RunResults:
    async def work() -> RunResults:
        began = time.monotonic()
        showing = _ShowingIntervals(asked.place)
        try:
            results = await backfill.run(asked, showing.see)
        finally:
            await showing.close()
        seconds = time.monotonic() - began
        await artifacts.conclude_backfill(asked.node, results, seconds=seconds)
        return results

    return aloof(work, asked.on)


def _seeknal_backfill_flow(  # noqa: PLR0913, PLR0917 - the options of a backfill, as a form in Prefect
    project_path: str = ".",
    node_id: str = "",
    start_date: str | None = None,
    end_date: str | None = None,
    schedule: str = "@daily",
    parallel: bool = True,  # noqa: FBT001, FBT002 - Seeknal's documented signature
    *,
    last: str | None = None,
    timezone: str = "UTC",
    end_inclusive: bool = True,
    upper: backfill.Upper | None = None,
    chunk: int = 1,
    max_parallel: int | None = None,
    max_failures: int | None = None,
    indexed: bool | None = None,
    restate: bool = False,
    rerun_changed: bool = False,
    accept_partial: bool = False,
    combine: bool = False,
    options: Sequence[str] = (),
    params: Mapping[str, Any] | None = None,
    on: On | None = None,
    store: str | None = None,
    wait: float = 0.0,
) -> Any:
    """Run a node for every interval of a schedule between two dates, each exactly once.

    ``start_date`` and ``end_date`` are days or times; an ``end_date`` that is a day belongs to the range
    unless ``end_inclusive`` is false. ``last`` takes their place, such as ``7d``: the whole intervals
    before now, for a deployment with a schedule. ``parallel=False`` runs one attempt at a time,
    ``chunk`` is how many intervals one attempt runs, ``indexed=False`` makes each attempt a Job of its own on
    Kubernetes. ``restate`` runs finished intervals again, ``rerun_changed`` those that ran with other
    logic, ``combine`` puts all together as the node's output. The rest is as in ``seeknal_run_flow`` and ``seeknal-k8s backfill``.

    Returns a ``PrefectRunResult`` per interval, in a ``RunResults`` keyed like
    ``2024-01-01/2024-01-02``. An interval that fails makes the flow run Failed; whoever calls the
    flow gets the results all the same. Run again, it runs only what is missing.
    """
    chosen, settings = where(on)
    asked = BackfillRequest(
        project=Path(project_path).expanduser(),
        node=node_id,
        start=start_date,
        end=end_date,
        last=last,
        schedule=schedule,
        timezone=timezone,
        end_inclusive=end_inclusive,
        upper=upper,
        chunk=chunk,
        restate=restate,
        rerun_changed=rerun_changed,
        accept_partial=accept_partial,
        combine=combine,
        max_failures=max_failures,
        indexed=indexed,
        store=None if store is None else Path(store).expanduser(),
        run_id=current.id,
        options=parse_overrides(options),
        params=dict(params or {}),
        on=chosen,
        settings=settings if chosen == "kubernetes" else None,
        at_once=at_once(max_parallel, parallel=parallel),
        wait=wait,
    )
    return require_success(_run(asked), "intervals")


_seeknal_backfill_flow.__name__ = _seeknal_backfill_flow.__qualname__ = "seeknal_backfill_flow"
seeknal_backfill_flow = ResultsFlow(
    _seeknal_backfill_flow,
    name=BACKFILL,
    persist_result=False,
    on_cancellation=[end_jobs],
    on_crashed=[end_jobs],
)
