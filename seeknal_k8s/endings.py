"""What is told and kept of a node that has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seeknal_k8s.logs import iso_utc, redact, tail
from seeknal_k8s.results import NO_EXIT_CODE, PrefectRunResult

if TYPE_CHECKING:
    from pathlib import Path

    from seeknal_k8s.attempt import Ending
    from seeknal_k8s.verdict import Verdict


def state_record(digest: str, result: PrefectRunResult, ending: Ending) -> dict[str, Any]:
    """Return what Seeknal's run state is to say about an ended node."""
    return {
        "status": "success" if result.success else "failed",
        "rows": ending.rows,
        "seconds": ending.seconds,
        "digest": digest,
        "metadata": ending.metadata,
        "error": ending.error or result.message,
    }


def result_of(folder: Path, ending: Ending, found: Verdict, *, attempts: int) -> PrefectRunResult:
    """Return the user's view of an attempt that has ended."""
    return PrefectRunResult(
        success=found.success,
        exit_code=ending.exit_code,
        stdout=tail(folder / "stdout"),
        stderr=tail(folder / "stderr"),
        duration_seconds=round(ending.seconds, 3),
        reason=found.reason,
        message="" if found.success else redact(ending.error or found.summary),
        attempts=attempts,
        started=iso_utc(ending.started),
        rows=ending.rows,
        peak_memory_bytes=ending.peak_memory,
        log_path=str(folder),
    )


def of_cached() -> PrefectRunResult:
    """Return what is told of a node that did not need to run."""
    return PrefectRunResult(
        success=True, exit_code=0, stdout="", stderr="", duration_seconds=0.0, reason="Cached"
    )


def never_ran(reason: str, message: str) -> PrefectRunResult:
    """Return what is told of a node that no attempt was made for."""
    return PrefectRunResult(
        success=False,
        exit_code=NO_EXIT_CODE,
        stdout="",
        stderr="",
        duration_seconds=0.0,
        reason=reason,
        message=message,
    )
