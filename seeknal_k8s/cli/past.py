"""What the store tells about runs: how far they are, how they ended, what their nodes wrote."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from seeknal_k8s import progress, verdict
from seeknal_k8s.attempt import Ending
from seeknal_k8s.errors import UsageError
from seeknal_k8s.graph import nearest
from seeknal_k8s.logs import iso_utc, redact, tail
from seeknal_k8s.results import NO_EXIT_CODE, PrefectRunResult, RunResults, skipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from seeknal_k8s.store import RunFolder, Store


RUNNING, INTERRUPTED, DIED = "running", "interrupted", "died"
COUNTED = ("succeeded", "failed", "skipped", "cached")

_POLL = 0.2
"""Seconds between two looks at a log that is followed."""

_RESULT = "result.json"
_WAITING = "Waiting"
_UNDER_WAY = frozenset({progress.RUNNING, _WAITING})
_NAMED = 5
_CHUNK = 1 << 20


def status(store: Store, run: RunFolder) -> str:
    """Return running, succeeded, failed, interrupted, or died: it says it runs and nobody does."""
    about = run.about()
    noted = str(about.get("status", DIED))
    if noted != RUNNING:
        return noted
    if about.get("kind") == "backfill":
        return RUNNING if store.is_backfilling(str(about["node"]), run.id) else DIED
    return RUNNING if (store.holder() or {}).get("run") == run.id else DIED


def results_so_far(run: RunFolder, state: str) -> RunResults:
    """Return the run's results; while it has none, what its folder says about each node."""
    results = run.results()
    if results is not None and state not in {RUNNING, DIED}:  # else they are of an earlier try
        return results
    nodes = run.about().get("plan", [])
    return RunResults({node: _so_far(run, node, state) for node in nodes}, run_id=run.id)


def _so_far(run: RunFolder, node: str, state: str) -> PrefectRunResult:
    attempts = run.attempts_of(node)
    if not attempts:
        reason = _WAITING if state == RUNNING else "NotRun"
        return _result(None, Ending(NO_EXIT_CODE, "it has not begun"), reason, 0, success=False)
    ending = Ending.read(attempts[-1] / _RESULT)
    if ending is None:
        reason = progress.RUNNING if state == RUNNING else "Lost"
        unknown = Ending(NO_EXIT_CODE)
        return _result(attempts[-1], unknown, reason, len(attempts), success=False)
    found = verdict.read(ending)
    return _result(attempts[-1], ending, found.reason, len(attempts), success=found.success)


def _result(
    folder: Path | None, ending: Ending, reason: str, attempts: int, *, success: bool
) -> PrefectRunResult:
    return PrefectRunResult(
        success=success,
        exit_code=ending.exit_code,
        stdout=tail(folder / "stdout") if folder else "",
        stderr=tail(folder / "stderr") if folder else "",
        duration_seconds=round(ending.seconds, 3),
        reason=reason,
        message=redact(ending.error),
        attempts=attempts,
        started=iso_utc(ending.started),
        rows=ending.rows,
        peak_memory_bytes=ending.peak_memory,
        log_path=str(folder) if folder else None,
    )


def took(about: dict[str, Any], state: str) -> float | None:
    """Return how many seconds a run took, or has taken so far; None if nobody knows."""
    try:
        began = datetime.fromisoformat(about["started"])
        if about.get("ended"):
            return (datetime.fromisoformat(about["ended"]) - began).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None
    return (datetime.now(UTC) - began).total_seconds() if state == RUNNING else None


def counts(results: RunResults) -> dict[str, int]:
    """Return how many nodes ended how; those that run or wait are in none of the counts."""
    ended = [result for result in results.values() if result.reason not in _UNDER_WAY]
    cached = sum(result.reason == "Cached" for result in ended)
    passed_over = sum(skipped(result) for result in ended)
    good = sum(result.success for result in ended) - cached
    failed = len(ended) - cached - passed_over - good
    return dict(zip(COUNTED, (good, failed, passed_over, cached), strict=True))


def node_in(run: RunFolder, text: str) -> str:
    """Return the id of the run's node that ``text`` names: an id, or a name only one node has.

    Of a backfill these are the intervals of its attempts; ``text`` may be any day or interval in one.

    Raises:
        UsageError: there is no such node in this run, or more than one.
    """
    about = run.about()
    nodes: dict[str, str] = about.get("nodes", {})
    if text in nodes:
        return text
    if about.get("kind") == "backfill":
        return _attempt_with(run, text, nodes)
    named = [node for node in nodes if node.partition(".")[2] == text]
    if len(named) == 1:
        return named[0]
    if named:
        raise UsageError(f"{len(named)} nodes are called '{text}': {', '.join(named)}")
    if text in (run.results() or {}):
        raise UsageError(f"{text} was cached in run {run.id}, so there is no log of it")
    near = nearest(text, nodes)
    some = ", ".join(list(nodes)[:_NAMED]) + (" …" if len(nodes) > _NAMED else "")
    fix = f"did you mean {' or '.join(near)}?" if near else f"it ran {some or 'nothing'}"
    raise UsageError(f"run {run.id} did not run '{text}'\n  → {fix}")


def _attempt_with(run: RunFolder, text: str, keys: Iterable[str]) -> str:
    """Return the attempt of a backfill that runs a day, a time or an interval."""
    from seeknal_k8s import intervals  # noqa: PLC0415 - a parser of schedules comes with it

    about = run.about()
    with contextlib.suppress(UsageError):  # then it is no date
        if found := intervals.holder(keys, text, about.get("timezone", "UTC")):
            return found
    failed = list((run.results() or RunResults()).failed)
    some = (failed or list(keys))[:1]
    example = f", such as {some[0]}" + (", which failed" if failed else "") if some else ""
    first, last = about["range"]
    reach = f"{first.partition('/')[0]}/{last.partition('/')[2]}"
    raise UsageError(
        f"run {run.id} is a backfill of {about['node']} over {reach}; no attempt of it is for '{text}'\n"
        f"  → name a day or an interval{example}"
    )


class NodeLog:
    """What one attempt at a node wrote. ``number`` is the attempt's, None for the last one."""

    def __init__(self, store: Store, run: RunFolder, node: str, number: int | None) -> None:
        self.run = run
        self.node = node
        self._store = store
        self._number = number

    def folder(self) -> Path:
        """Return the attempt's folder.

        Raises:
            UsageError: there is no such attempt.
        """
        attempts = self.run.attempts_of(self.node)
        numbers = [int(attempt.name) for attempt in attempts]
        if self._number in numbers:
            return attempts[numbers.index(self._number)]
        if attempts and self._number is None:
            return attempts[-1]
        if attempts:
            had = ", ".join(map(str, numbers))
            raise UsageError(f"{self.node} has no attempt {self._number} in this run; it has {had}")
        result = (self.run.results() or RunResults()).get(self.node)
        why = result.message if result and result.message else "it has not begun"
        raise UsageError(f"{self.node} has no log in run {self.run.id}: {why}")

    def wait_for_folder(self) -> Path:
        """Return the attempt's folder as soon as there is one.

        Raises:
            UsageError: the run is over, and there is none.
        """
        while not self._there() and self._goes_on():
            time.sleep(_POLL)
        return self.folder()

    def _there(self) -> bool:
        numbers = {int(attempt.name) for attempt in self.run.attempts_of(self.node)}
        return bool(numbers) if self._number is None else self._number in numbers

    def document(self, folder: Path) -> dict[str, Any]:
        """Return what the attempt in ``folder`` wrote as JSON-able data, and how it ended."""
        ending = Ending.read(folder / _RESULT)
        return {
            "run_id": self.run.id,
            "node": self.node,
            "attempt": int(folder.name),
            "exit_code": ending.exit_code if ending else None,
            "log_path": str(folder),
            "stdout": _text(folder / "stdout"),
            "stderr": _text(folder / "stderr"),
        }

    def _goes_on(self) -> bool:
        return status(self._store, self.run) == RUNNING

    def follow(self, streams: dict[Path, BinaryIO]) -> None:
        """Copy what the attempt writes as it writes it, until the attempt ends."""
        at = dict.fromkeys(streams, 0)
        result_file = next(iter(streams)).with_name(_RESULT)
        while True:
            # Looked at before the copy: whatever was written before the end is then in it.
            ended = result_file.exists() or not self._goes_on()
            for file, target in streams.items():
                at[file] = copy(file, target, at[file])
            if ended:
                return
            time.sleep(_POLL)


def copy(file: Path, target: BinaryIO, start: int = 0) -> int:
    """Copy a file's bytes from ``start`` on as they are, and return where the file ends."""
    for chunk in _chunks(file, start):
        target.write(chunk)
        start += len(chunk)
    target.flush()
    return start


def _text(file: Path) -> str:
    return b"".join(_chunks(file, 0)).decode(errors="replace")


def _chunks(file: Path, start: int) -> Iterator[bytes]:
    try:
        with file.open("rb") as stream:
            stream.seek(start)
            while chunk := stream.read(_CHUNK):
                yield chunk
    except FileNotFoundError:
        return
