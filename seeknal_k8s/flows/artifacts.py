"""A run as Prefect's artifacts: a progress bar, a table of nodes, a summary. What they say is pure.

The keys are fixed, so that Prefect keeps their history from run to run.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)

from seeknal_k8s import verdict
from seeknal_k8s.results import skipped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from seeknal_k8s.results import PrefectRunResult, RunResults

INTERVALS, BACKFILL = "seeknal-intervals", "seeknal-backfill-summary"
PROGRESS, NODES, SUMMARY = "seeknal-progress", "seeknal-nodes", "seeknal-run-summary"

_LOG = logging.getLogger("prefect.seeknal_k8s")
PATIENCE = 30.0
"""Seconds that Prefect has to take one artifact."""

_MOST = 20
"""How many failures a summary spells out."""


def rows(results: RunResults) -> list[dict[str, Any]]:
    """Return the table of nodes: failures first, then in the order of the plan."""
    ordered = sorted(results.items(), key=lambda item: item[1].success)
    return [
        {
            "node": node,
            "result": result.reason,
            "exit code": result.exit_code,
            "attempts": result.attempts,
            "seconds": round(result.duration_seconds, 2),
            "rows": "" if result.rows is None else result.rows,
            "peak memory, MiB": _mebibytes(result),
            "message": result.message,
        }
        for node, result in ordered
    ]


def _mebibytes(result: PrefectRunResult) -> str | int:
    peak = result.peak_memory_bytes
    return "" if peak is None else round(peak / (1 << 20))


def summary(results: RunResults, *, seconds: float) -> str:
    """Return the summary of a run in Markdown: failures first, each with what to type next."""
    failed = {n: r for n, r in results.items() if not r.success and not skipped(r)}
    left = {n: r for n, r in results.items() if skipped(r)}
    good = len(results) - len(failed) - len(left)
    head = "failed" if failed or left else "succeeded"
    lines = [
        f"# Run {head}",
        "",
        _counted(results, good, len(failed), len(left), seconds),
    ]
    for node, result in list(failed.items())[:_MOST]:
        lines += ["", f"## {node}: {result.reason}", ""]
        lines += [_quoted(result.message), ""] if result.message else []
        lines += ["```console", f"seeknal-k8s logs {node} --run {results.run_id}", "```"]
        lines += ["", *_advice(node, result)]
    if len(failed) > _MOST:
        lines += ["", f"and {len(failed) - _MOST} more: see the table `{NODES}`"]
    if left:
        named = ", ".join(f"`{node}`" for node in list(left)[:_MOST])
        more = f" and {len(left) - _MOST} more" if len(left) > _MOST else ""
        lines += ["", f"Skipped: {named}{more}."]
    if failed or left:
        resume = f"seeknal-k8s run --resume {results.run_id}"
        lines += ["", "Mend it, then go on where it ended: **Retry** in Prefect, or", ""]
        lines += ["```console", resume, "```"]
    return "\n".join([*lines, ""])


def _counted(results: RunResults, good: int, failed: int, left: int, seconds: float) -> str:
    return (
        f"Run `{results.run_id}`: {good} of {len(results)} nodes succeeded, {failed} failed, "
        f"{left} were skipped, in {seconds:.1f} s."
    )


def _quoted(message: str) -> str:
    return "\n".join(f"> {line}" for line in message.splitlines())


def _advice(node: str, result: PrefectRunResult) -> list[str]:
    """Return what the verdict on a failed node has to say about mending it."""
    hint = verdict.hint(result.reason).format(node=node)
    return [hint] if hint and not hint.startswith("seeknal-k8s logs") else []


async def tried(writing: Awaitable[Any]) -> Any:
    """Return what a call of Prefect's returns, None where it fails: a view never fails a run."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await writing
    except Exception as error:  # noqa: BLE001 - whatever a server, or the way to it, may do
        _LOG.warning("Prefect did not take an artifact: %s", error)
        return None


async def begin() -> UUID | None:
    """Put up the progress bar."""
    made: UUID | None = await tried(
        acreate_progress_artifact(0.0, key=PROGRESS, description="Nodes that have ended")
    )
    return made


async def advance(artifact: UUID, percent: float) -> None:
    """Move the progress bar to so many percent."""
    await tried(aupdate_progress_artifact(artifact, progress=round(percent, 1)))


def backfill_summary(node_id: str, results: RunResults, *, seconds: float) -> str:
    """Return the summary of a backfill in Markdown: failures first."""
    failed = {key: r for key, r in results.items() if not r.success and not skipped(r)}
    left = sum(skipped(result) for result in results.values())
    before = sum(result.reason == "Cached" for result in results.values())
    good = len(results) - len(failed) - left
    counts = (
        f"{good} of {len(results)} intervals are done, {before} of them since an earlier backfill; "
        f"{len(failed)} failed, {left} were not run, in {seconds:.1f} s."
    )
    head = f"# Backfill of {node_id} {'succeeded' if results.success else 'failed'}"
    lines = [head, "", counts]
    for key, result in list(failed.items())[:_MOST]:
        lines += ["", f"## {key}: {result.reason}", ""]
        lines += [_quoted(result.message), ""] if result.message else []
    if len(failed) > _MOST:
        lines += ["", f"and {len(failed) - _MOST} more: see the table `{INTERVALS}`"]
    lines += ["", "```console", f"seeknal-k8s intervals {node_id}", "```", ""]
    return "\n".join(lines)


async def conclude_backfill(node_id: str, results: RunResults, *, seconds: float) -> None:
    """Write the table of intervals and the summary of a backfill."""

    def table() -> list[dict[str, Any]]:
        return [{"interval": row.pop("node"), **row} for row in rows(results)]

    text = partial(backfill_summary, node_id, results, seconds=seconds)
    await _write(INTERVALS, f"Intervals of {node_id}", table)
    await _write_text(BACKFILL, text)


async def conclude(results: RunResults, *, seconds: float) -> None:
    """Write the table and the summary."""
    await _write(NODES, f"Nodes of run {results.run_id}", partial(rows, results))
    await _write_text(SUMMARY, partial(summary, results, seconds=seconds))


async def _write(key: str, description: str, table: Callable[[], list[dict[str, Any]]]) -> None:
    async def writing() -> None:
        await acreate_table_artifact(table(), key=key, description=description)

    await tried(writing())


async def _write_text(key: str, text: Callable[[], str]) -> None:
    async def writing() -> None:
        await acreate_markdown_artifact(text(), key=key)

    await tried(writing())
