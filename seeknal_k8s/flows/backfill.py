"""``seeknal_backfill_flow``: a node over the intervals of a range, as a flow run."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence  # noqa: TC003 - Prefect reads the annotations
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.runtime import flow_run as current

from seeknal_k8s import backfill
from seeknal_k8s.backfill import BackfillRequest
from seeknal_k8s.events import BackfillStarted, NodeEnded, NodeRetrying, NodeStarted, RunEnded
from seeknal_k8s.flows import artifacts
from seeknal_k8s.flows.asked import On, at_once, where
from seeknal_k8s.flows.run import ResultsFlow, aloof, end_jobs, require_success
from seeknal_k8s.flows.shown import MOST_TASKS, Showing, Shown
from seeknal_k8s.graph import Node
from seeknal_k8s.options import parse_overrides
from seeknal_k8s.results import PrefectRunResult, skipped

if TYPE_CHECKING:
    from seeknal_k8s.events import Event
    from seeknal_k8s.results import RunResults
    from seeknal_k8s.store import Store

BACKFILL = "seeknal-backfill"

_MOST_NOTES = 10
"""Retries that are told of each task run that several attempts share."""


class _ShowingIntervals(Showing):
    """Shows a backfill: a task run for each attempt's intervals, each interval a row of a table.

    Where there are more attempts than Prefect should have task runs, several that follow each other
    are one.
    """

    _node_id = ""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._parts: dict[str, _Several] = {}

    def see(self, event: Event) -> None:
        """Take in one event; the run of what the intervals share is shown as part of this one."""
        match event:
            case BackfillStarted():
                self._start_backfill(event)
            case NodeStarted(node=key) if key in self._parts:
                self._parts[key].shown.begin(1)
            case NodeRetrying(node=key, attempt=attempt, message=message) if key in self._parts:
                notes = self._parts[key].shown.notes
                if len(notes) < _MOST_NOTES:
                    notes.append(f"{key}, attempt {attempt}: {message}")
            case NodeEnded(node=key, result=result) if key in self._parts:
                self._parts[key].end(key, result)
            case RunEnded():
                pass
            case _:
                super().see(event)

    def _start_backfill(self, event: BackfillStarted) -> None:
        self._run_id, self._node_id = event.run_id, event.node
        keys = list(event.pieces)
        many = max(1, math.ceil(len(keys) / max(1, MOST_TASKS - len(self._nodes))))
        for several in (keys[at : at + many] for at in range(0, len(keys), many)):
            shown = Shown(_interval(several[0], several[-1]))
            self._nodes[shown.node.id] = shown
            if len(several) > 1:
                self._parts |= dict.fromkeys(several, _Several(shown, set(several)))
        self._show_all()

    def _folder(self, shown: Shown) -> Path:
        if shown.node.kind != "interval":
            return super()._folder(shown)
        return self._store.folder(self._run_id).bundle(self._node_id, shown.node.id)


class _Several:
    """Attempts that are shown as one."""

    def __init__(self, shown: Shown, keys: set[str]) -> None:
        self.shown = shown
        self._keys = keys
        self._results: dict[str, PrefectRunResult] = {}

    def end(self, key: str, result: PrefectRunResult) -> None:
        """Take note of how one of them ended."""
        self._results[key] = result
        if self._results.keys() == self._keys:
            self.shown.end(together(self._results))


def together(results: Mapping[str, PrefectRunResult]) -> PrefectRunResult:
    """Return one result for several: a failure if there is one, with the rows and seconds of all."""
    key, worst = min(results.items(), key=lambda item: (item[1].success, skipped(item[1])))
    bad = sum(not result.success for result in results.values())
    said = worst.message.removeprefix(f"{key}: ")
    message = f"{bad} of {len(results)} attempts, such as {key}: {said}" if bad else ""
    return replace(
        worst,
        stdout="",
        stderr="",
        message=message,
        duration_seconds=sum(result.duration_seconds for result in results.values()),
        rows=sum(result.rows or 0 for result in results.values()),
    )


def _interval(first: str, last: str) -> Node:
    key = f"{first.partition('/')[0]}/{last.partition('/')[2]}"
    return Node(key, "interval", key, "")


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
