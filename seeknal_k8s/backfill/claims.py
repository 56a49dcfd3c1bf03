"""Who is at work on which intervals of a node: two backfills never run the same one.

A claim is a file that its backfill keeps locked. The lock is the kernel's, so it goes with its
holder: a claim that nobody holds is of a backfill that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from seeknal_k8s.errors import StoreLocked
from seeknal_k8s.store import unavailable, utc_now

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from seeknal_k8s.intervals import Interval


@dataclass(frozen=True, slots=True)
class Claim:
    """What a backfill has to itself: ``alone`` means the whole node, whatever the intervals are.

    ``shape`` tells whether another one has the same logic, cut into the same pieces.
    """

    run: str
    shape: str
    intervals: Sequence[Interval]
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Dead:
    """The claim of a backfill that was killed: its run, and its shape."""

    run: str
    shape: str


def dead(folder: Path) -> list[Dead]:
    """Return the claims whose backfills were killed, newest first."""
    found = []
    for file in _files(folder):
        with contextlib.suppress(OSError), file.open("r+", encoding="utf-8") as opened:
            if _locked(opened) and (raw := _about(opened)):
                found.append(Dead(str(raw["run"]), str(raw["shape"])))
    return sorted(found, key=lambda one: one.run, reverse=True)


def bury(folder: Path, runs: Iterable[str]) -> None:
    """Clear away the claims of the dead."""
    for run in runs:
        (folder / f"{run}.json").unlink(missing_ok=True)


@contextlib.contextmanager
def held(folder: Path, claim: Claim) -> Iterator[None]:
    """Have intervals to oneself inside the block; claims of the dead are cleared away.

    Raises:
        StoreLocked: another backfill has one of them; the message says which, and whose.
        StoreUnavailable: the file system cannot lock.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("a+", encoding="utf-8") as door:
            fcntl.flock(door, fcntl.LOCK_EX)  # for the milliseconds in which claims are compared
            _refuse_overlap(folder, claim)
            file = folder / f"{claim.run}.json"
            opened = file.open("a+", encoding="utf-8")
            fcntl.flock(opened, fcntl.LOCK_EX)
            opened.seek(0)
            opened.truncate()
            opened.write(json.dumps(_as_json(claim)))
            opened.flush()
    except OSError as error:
        raise unavailable(folder, error) from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        opened.close()


def _refuse_overlap(folder: Path, claim: Claim) -> None:
    for file in _files(folder):
        with contextlib.suppress(FileNotFoundError), file.open("r+", encoding="utf-8") as opened:
            if _locked(opened):
                if file.stem != claim.run:
                    file.unlink(missing_ok=True)
                continue
            other = _about(opened) or {}
            taken = "it under the same id" if file.stem == claim.run else _taken(claim, other)
            if taken:
                raise StoreLocked(
                    f"backfill {other.get('run')} (process {other.get('pid')} on "
                    f"{other.get('host')}, since {other.get('since')}) is at work on {taken}\n"
                    "  → wait for it to end, or take other intervals"
                )


def _taken(claim: Claim, other: Mapping[str, Any]) -> str:
    """Return what both want, as text; empty if nothing."""
    if claim.alone or other.get("alone"):
        return "this node, whose target lets only one backfill write at a time"
    theirs = sorted(map(tuple, other.get("spans", ())))
    at = 0
    for interval in claim.intervals:
        start, end = interval.start.timestamp(), interval.end.timestamp()
        while at < len(theirs) and theirs[at][1] <= start:
            at += 1
        if at < len(theirs) and theirs[at][0] < end:
            return f"{interval.key} too"
    return ""


def _as_json(claim: Claim) -> dict[str, Any]:
    return {
        "run": claim.run,
        "shape": claim.shape,
        "alone": claim.alone,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": utc_now(),
        "spans": [[each.start.timestamp(), each.end.timestamp()] for each in claim.intervals],
    }


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def _locked(file: IO[str]) -> bool:
    """Lock a claim that nobody holds."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _about(file: IO[str]) -> dict[str, Any] | None:
    try:
        raw: dict[str, Any] = json.loads(file.read())
    except ValueError:
        return None
    return raw
