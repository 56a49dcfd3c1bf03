"""What earlier tries of a backfill have left: which of them this one goes on with, and what is ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seeknal_k8s import exitcodes
from seeknal_k8s.attempt import Ending
from seeknal_k8s.backfill import claims
from seeknal_k8s.errors import UsageError
from seeknal_k8s.request import new_run_id

if TYPE_CHECKING:
    from pathlib import Path

    from seeknal_k8s.backfill.ledger import Ledger
    from seeknal_k8s.backfill.planning import BackfillPlan
    from seeknal_k8s.backfill.request import BackfillRequest


def shape_of(request: BackfillRequest, made: BackfillPlan) -> str:
    """Return what two backfills have in common whose Jobs do the same."""
    first = made.intervals[0].key if request.chunk > 1 else ""
    return " ".join([made.scope.logic, request.schedule, str(request.chunk), first])


def is_otherwise(about: dict[str, Any], made: BackfillPlan, shape: str) -> bool:
    """Whether what an earlier try of this run has left in the cluster does something else."""
    if not about:
        return False
    return about.get("shape") != shape or about.get("indexed", False) != made.indexed


async def run_id(request: BackfillRequest, shape: str, ledger: Ledger) -> str:
    """Return the run's id: that of one that was killed, if it is the same backfill.

    Its Jobs have names made of that id: they are found again, and nothing runs twice. The Jobs of
    others that were killed are ended.
    """
    dead = claims.dead(ledger.root / "claims")
    same = [one.run for one in dead if one.shape == shape]
    spared = {request.run_id} if request.run_id is not None else set(same[:1])
    await end_jobs(request, [one.run for one in dead if one.run not in spared])
    if request.run_id is not None:
        about = request.place.folder(request.run_id).about()
        if about and about.get("kind") != "backfill":
            raise UsageError(f"'{request.run_id}' is a run, not a backfill: take another id")
        return request.run_id
    return same[0] if same else new_run_id()


async def end_jobs(request: BackfillRequest, runs: list[str]) -> None:
    """End what is left of backfills whose coordinators were killed."""
    if not runs or request.on == "local" or request.settings is None:
        return
    from seeknal_k8s import cleaning  # noqa: PLC0415 - the cluster's client is not for laptops

    await cleaning.end(request.settings, runs, runner=False)


def is_over(attempt: Path) -> bool:
    """Whether an attempt has ended. One that was told to may be begun again, as an index is."""
    ending = Ending.of(attempt)
    return ending is not None and ending.exit_code != exitcodes.TERMINATED
