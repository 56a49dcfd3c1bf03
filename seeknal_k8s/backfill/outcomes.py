"""What a backfill has to say in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seeknal_k8s.results import NO_EXIT_CODE, PrefectRunResult, RunResults, skipped

if TYPE_CHECKING:
    from seeknal_k8s.backfill.planning import BackfillPlan

_TOLD = 5
"""So many nodes are named."""


def results_of(
    made: BackfillPlan, ended: dict[str, PrefectRunResult], *, run_id: str
) -> RunResults:
    """Return the results of all intervals that were asked for, oldest first."""
    cached = {*made.done, *made.changed}
    found: dict[str, PrefectRunResult] = {}
    for interval in made.intervals:
        key = interval.key
        if key in ended:
            found[key] = ended[key]
        elif key in cached:
            found[key] = _no_run("Cached", exit_code=0)
        else:
            found[key] = _no_run("NotRun", exit_code=NO_EXIT_CODE)
    return RunResults(found, run_id=run_id)


def _no_run(reason: str, *, exit_code: int) -> PrefectRunResult:
    return PrefectRunResult(
        success=exit_code == 0,
        exit_code=exit_code,
        stdout="",
        stderr="",
        duration_seconds=0.0,
        reason=reason,
    )


def why_nothing_ran(shared: RunResults) -> str:
    """Return what to tell where what all intervals read could not be made: each node, and why."""
    causes = [
        f"  {node}: {next(iter(result.message.strip().splitlines()), result.reason)}"
        for node, result in shared.failed.items()
        if not skipped(result)
    ]
    hidden = len(causes) - _TOLD
    lines = [
        "every interval reads what could not be made",
        *causes[:_TOLD],
        *([f"  … and {hidden:,} more"] if hidden > 0 else []),
        f"  → look at it: seeknal-k8s show {shared.run_id}",
    ]
    return "\n".join(lines)


def how_to_go_on(results: RunResults) -> str:
    """Return what whoever has interrupted a backfill reads."""
    kept = sum(result.success for result in results.values())
    return (
        f"backfill {results.run_id} was interrupted; {kept} of {len(results)} intervals are done "
        "and kept\n  → go on with it: the same command again"
    )
