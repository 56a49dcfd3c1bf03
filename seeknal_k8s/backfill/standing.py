"""How the intervals of a node stand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from seeknal_k8s.backfill.ledger import Ledger
from seeknal_k8s.backfill.scope import read
from seeknal_k8s.engine_client import EngineClient
from seeknal_k8s.errors import UsageError
from seeknal_k8s.intervals import text_of

if TYPE_CHECKING:
    from seeknal_k8s.backfill.ledger import Record
    from seeknal_k8s.backfill.request import BackfillRequest
    from seeknal_k8s.engine_process import EngineProcess
    from seeknal_k8s.intervals import Interval


@dataclass(frozen=True, slots=True)
class Standing:
    """How an interval stands: done, partial, stale (done with other logic), failed or missing."""

    interval: Interval
    status: str
    record: Record | None = None


async def status(
    request: BackfillRequest, engine: EngineProcess | None = None
) -> tuple[str, list[Standing]]:
    """Return the node's id and how its intervals stand, oldest first.

    Without a range these are all from the first to the last that the ledger knows.

    Raises:
        UsageError, ProjectRefused: the request, or the project, makes no sense.
    """
    asked = request.last is not None or request.start is not None or request.end is not None
    if asked:
        request.intervals()
    async with EngineClient(engine) as client:
        scope = await read(client, request)
        client.hang_up()
    ledger = Ledger(request.place, scope.node.id)
    done, failed = ledger.done(), ledger.failed()
    known = sorted(
        (record.interval for record in (*done.values(), *failed.values())),
        key=lambda interval: interval.start.timestamp(),
    )
    wanted = request.intervals() if asked else _from_first_to_last(known, request)
    return scope.node.id, [
        _standing(interval, done.get(interval.key), failed.get(interval.key), scope.logic)
        for interval in wanted
    ]


def _from_first_to_last(known: list[Interval], request: BackfillRequest) -> list[Interval]:
    """Return what the ledger knows, with the gaps in between if it is of the same schedule."""
    if not known:
        return []
    first, last = (text_of(moment) for moment in (known[0].start, known[-1].end))
    try:
        whole = replace(request, start=first, end=last, end_inclusive=False).intervals()
    except UsageError:
        return known
    keys = {interval.key for interval in whole}
    return whole if all(interval.key in keys for interval in known) else known


def _standing(
    interval: Interval, done: Record | None, failed: Record | None, logic: str
) -> Standing:
    if done is None or (failed is not None and done.logic != logic):
        return Standing(interval, "failed" if failed else "missing", failed)
    if done.partial:
        return Standing(interval, "partial", done)
    return Standing(interval, "done" if done.logic == logic else "stale", done)
