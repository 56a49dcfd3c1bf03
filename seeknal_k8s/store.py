"""Where outputs, results and logs live: one layout, for a laptop's folder and a cluster's volume.

    <store>/lock                                     who is at work here
    <store>/runs/<run-id>/run.json                   what was asked, when, and how it ended
    <store>/runs/<run-id>/accepted.jsonl             a line per node whose outputs are published
    <store>/runs/<run-id>/results.json
    <store>/runs/<run-id>/max-parallel               another speed, asked for while it runs
    <store>/runs/<run-id>/bundles/<bundle>/<attempt>/   result.json, stdout, stderr, out/

The store is as secret as the project's ``target/``: resolved parameters end up in both.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from seeknal_k8s.errors import StoreLocked, StoreUnavailable, UsageError
from seeknal_k8s.names import bundle_name
from seeknal_k8s.results import RunResults

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FOLDER = ".seeknal-k8s"
"""The default store's name, inside the project."""

LATEST = "latest"
"""Stands for the newest run wherever a run id is asked for."""

_SPEED = "max-parallel"

_TRIES = 50
"""How often to ask for the lock: ``holder`` has it for some microseconds, and only looks.

Half a second in all, which only somebody who is refused has to wait.
"""

_BETWEEN_TRIES = 0.01
"""Seconds."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder in the store."""

    path: Path

    @property
    def id(self) -> str:
        """The run's id."""
        return self.path.name

    def about(self) -> dict[str, Any]:
        """Return ``run.json``, empty when it cannot be read."""
        return _read_json(self.path / "run.json") or {}

    def make(self) -> None:
        """Make the folder, unless it is there.

        Raises:
            StoreUnavailable: it could not be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unavailable(self.path, error) from error

    def note(self, **facts: Any) -> None:
        """Add to ``run.json``, or change what it says."""
        write_json(self.path / "run.json", {**self.about(), **facts})

    def results(self) -> RunResults | None:
        """Return the run's results, None while it has none."""
        try:
            return RunResults.from_json((self.path / "results.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def write_results(self, results: RunResults) -> None:
        """Write the run's results, so that a reader sees all of them or none."""
        _write(self.path / "results.json", results.to_json())

    def accepted(self) -> dict[str, dict[str, Any]]:
        """Return what was accepted so far: node id → the record given to ``note_accepted``."""
        found = {}
        with contextlib.suppress(OSError):
            for line in (self.path / "accepted.jsonl").read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # the last line of a killed coordinator
                    record = json.loads(line)
                    found[record["node"]] = record
        return found

    def note_accepted(self, record: Mapping[str, Any]) -> None:
        """Remember that a node's outputs are published; survives a kill right after.

        It need not survive a power cut: then the node runs again. A record starts with the end of
        the line before, lest one that a kill has torn spoil it.
        """
        with (self.path / "accepted.jsonl").open("a", encoding="utf-8") as ledger:
            ledger.write("\n" + json.dumps(record))

    def bundle(self, node_id: str, interval: str = "") -> Path:
        """Return the folder of one node's attempts."""
        return self.path / "bundles" / bundle_name(node_id, interval)

    def attempts(self, node_id: str, interval: str = "") -> list[Path]:
        """Return the folders of a node's attempts, first to last."""
        with contextlib.suppress(OSError):
            entries = self.bundle(node_id, interval).iterdir()
            numbered = [entry for entry in entries if entry.name.isdigit()]
            return sorted(numbered, key=lambda path: int(path.name))
        return []

    def indexed_job(self, generation: int) -> Path:
        """Return the folder with the orders of one Indexed Job of this run, from 1."""
        return self.path / "indexed" / str(generation)

    def indexed_jobs(self) -> list[Path]:
        """Return the folders of all Indexed Jobs of this run, first to last, that are written whole."""
        found: list[Path] = []
        while (folder := self.indexed_job(len(found) + 1)).joinpath("job.json").exists():
            found.append(folder)
        return found

    def forget_indexed_jobs(self) -> None:
        """Forget the orders of all Indexed Jobs of this run, which are ended: something else is wanted."""
        shutil.rmtree(self.path / "indexed", ignore_errors=True)

    def max_parallel(self) -> int | None:
        """Return how many attempts may run at once, if somebody has said so since the run began."""
        try:
            return int((self.path / _SPEED).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def set_max_parallel(self, most: int) -> None:
        """Have the run's coordinator, if it lives, run so many attempts at once.

        Raises:
            StoreUnavailable: it could not be written.
        """
        _write(self.path / _SPEED, str(most))

    def forget_max_parallel(self) -> None:
        """Leave it to whoever starts the run how many attempts run at once."""
        (self.path / _SPEED).unlink(missing_ok=True)

    def attempts_of(self, key: str) -> list[Path]:
        """Return the folders of the attempts of what the run calls so: a node, or some intervals."""
        about = self.about()
        if about.get("kind") == "backfill":
            return self.attempts(str(about["node"]), key)
        return self.attempts(key)


@dataclass(frozen=True, slots=True)
class Store:
    """The store of one project."""

    root: Path

    @classmethod
    def of(cls, project: Path, root: Path | None = None) -> Store:
        """Return the project's store: ``root``, or the folder in the project."""
        return cls((root or project / FOLDER).absolute())

    def prepare(self) -> None:
        """Make the store's folders and show that it can be written.

        Raises:
            StoreUnavailable: it cannot.
        """
        try:
            (self.root / "runs").mkdir(parents=True, exist_ok=True)
            ignore = self.root / ".gitignore"
            if not ignore.exists():
                _write(ignore, "*\n")
            probe = self.root / f".probe.{_mine()}"
            probe.write_bytes(b"x")
            probe.unlink()
        except OSError as error:
            raise unavailable(self.root, error) from error

    def runs(self) -> list[RunFolder]:
        """Return the runs in this store, newest first."""
        try:
            folders = [RunFolder(entry) for entry in (self.root / "runs").iterdir()]
        except OSError:
            return []
        started = {folder.id: str(folder.about().get("started", "")) for folder in folders}
        return sorted(folders, key=lambda folder: (started[folder.id], folder.id), reverse=True)

    def run(self, text: str) -> RunFolder:
        """Return the run with this id, an unambiguous beginning of one, or ``latest``.

        Raises:
            UsageError: there is no such run, or more than one.
        """
        runs = self.runs()
        if not runs:
            raise UsageError(f"there are no runs in {self.root} yet; start one: seeknal-k8s run")
        if text == LATEST:
            return runs[0]
        found = [run for run in runs if run.id == text] or [
            run for run in runs if run.id.startswith(text)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(run.id for run in found)
            raise UsageError(f"'{text}' is the beginning of {len(found)} runs: {ids}")
        near = get_close_matches(text, [run.id for run in runs], 1) or [runs[0].id]
        raise UsageError(f"there is no run '{text}'; did you mean '{near[0]}'? (seeknal-k8s runs)")

    def folder(self, run_id: str) -> RunFolder:
        """Return the folder of a run; ``make`` makes it."""
        return RunFolder(self.root / "runs" / run_id)

    def new_run(self, run_id: str) -> RunFolder:
        """Return the folder of a run, made if need be.

        Raises:
            StoreUnavailable: it could not be made.
        """
        folder = self.folder(run_id)
        folder.make()
        return folder

    def holder(self) -> dict[str, Any] | None:
        """Return who holds the lock right now (host, pid, run, since), None when it is free."""
        try:
            with (self.root / "lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_json(self.root / "lock") or {}
        except OSError:
            return None
        return None

    def is_backfilling(self, node_id: str, run_id: str) -> bool:
        """Whether a backfill of this id is at work on a node right now."""
        claim = self.root / "intervals" / bundle_name(node_id) / "claims" / f"{run_id}.json"
        try:
            with claim.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @contextlib.contextmanager
    def lock(self, run_id: str, *, shared: bool = False) -> Iterator[None]:
        """Be the only coordinator of this store inside the block.

        A ``shared`` lock keeps out only those who publish: for backfills, which read what is
        published and write elsewhere. The lock is the kernel's, so it goes with its holder, however that ends.

        Raises:
            StoreLocked: somebody else holds it; the message says who.
            StoreUnavailable: the file system cannot lock.
        """
        with (self.root / "lock").open("a+", encoding="utf-8") as file:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            if not any(_try_lock(file, self.root, kind) for _ in range(_TRIES)):
                raise StoreLocked(_who(self.root, _read_json(self.root / "lock") or {}))
            about = {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "run": run_id,
                "since": utc_now(),
            }
            file.seek(0)
            file.truncate()
            file.write(json.dumps(about))
            file.flush()
            yield


def _try_lock(file: Any, root: Path, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_BETWEEN_TRIES)
        return False
    except OSError as error:
        raise unavailable(root, error) from error
    return True


def _who(root: Path, holder: Mapping[str, Any]) -> str:
    who = "another coordinator"
    if holder:
        who = (
            f"run {holder.get('run')} (process {holder.get('pid')} on {holder.get('host')}, "
            f"since {holder.get('since')})"
        )
    return (
        f"{who} is at work on {root}\n"
        "  → wait for it with --wait, or look at it: seeknal-k8s show latest"
    )


def unavailable(root: Path, error: OSError) -> StoreUnavailable:
    """Return the error to raise when the store cannot be written, with what to do about it."""
    fix = {
        errno.ENOSPC: "make room on the disk",
        errno.EDQUOT: "make room in the quota",
        errno.EACCES: "make it writable for this user, or name another one with --store",
        errno.EROFS: "it is read-only here: name another one with --store",
    }.get(error.errno or 0, "name another one with --store")
    return StoreUnavailable(f"the store {root} cannot be written: {error.strerror}\n  → {fix}")


def utc_now() -> str:
    """Return the time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _mine() -> str:
    """Return what no other writer has: tasks of one flow are threads of one process."""
    return f"{os.getpid()}.{threading.get_ident()}"


def write_json(file: Path, data: Any) -> None:
    """Write JSON so that a reader sees all of it or the previous version."""
    _write(file, json.dumps(data, indent=2, default=str))


def _write(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.{_mine()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise unavailable(file.parent, error) from error


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
