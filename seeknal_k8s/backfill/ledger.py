"""Which intervals of a node are done: one small file for each, beside the rows it made.

The coordinator alone writes here. An interval counts when its file is there, and that is written
last: whatever is killed, each interval is in the ledger and in the data once, or not at all.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from seeknal_k8s import workspace
from seeknal_k8s.intervals import parse_key, text_of, zone_of
from seeknal_k8s.names import bundle_name, file_id
from seeknal_k8s.store import unavailable, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from seeknal_k8s.intervals import Interval
    from seeknal_k8s.store import Store

ROWS = "rows.parquet"
"""What the rows of a node and an interval are called."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of an interval that has ended.

    ``key`` is the interval's, in ``timezone``. ``logic`` is the digest of what was computed, ``run`` the
    backfill's id, ``when`` a time in UTC. ``error`` is empty for one that is done.
    """

    key: str
    timezone: str
    logic: str
    run: str
    when: str
    rows: int | None = None
    seconds: float = 0.0
    partial: bool = False
    error: str = ""

    @property
    def interval(self) -> Interval:
        """The interval itself."""
        return replace(parse_key(self.key, zone_of(self.timezone)), partial=self.partial)


class Ledger:
    """The ledger and the data of one node in one store."""

    def __init__(self, store: Store, node_id: str) -> None:
        self.node_id = node_id
        self.root = store.root / "intervals" / bundle_name(node_id)

    def done(self) -> dict[str, Record]:
        """Return the intervals that are done, oldest first."""
        return _records(self.root / "ledger")

    def failed(self) -> dict[str, Record]:
        """Return the intervals whose last attempt failed, also where an earlier one is done."""
        done = self.done()
        return {
            key: one
            for key, one in _records(self.root / "failed").items()
            if key not in done or done[key].when < one.when
        }

    def data(self, node_id: str) -> Path:
        """Return the folder with a node's rows, one folder below it for each interval."""
        return self.root / "data" / file_id(node_id)

    def files(self, node_id: str) -> list[Path]:
        """Return the files with a node's rows, of the intervals that are done, oldest first."""
        found = [self._folder(node_id, record.interval) / ROWS for record in self.done().values()]
        return [file for file in found if file.exists()]

    def land(
        self, record: Record, home: Path, outputs: Iterable[str], wanted: Iterable[str]
    ) -> None:
        """Publish what an interval has made below ``home``, and note that it is done.

        ``outputs`` are all files that it has made. What a killed coordinator has moved already is not
        missing: doing this twice does no harm.

        Raises:
            StoreUnavailable: it could not be written.
        """
        file = self._file("ledger", record.key)
        outputs = list(outputs)
        try:
            # Until the new rows are there, the interval counts as not done.
            file.unlink(missing_ok=True)
            for node_id in wanted:
                self._land_rows(node_id, record.interval, home, outputs)
            self._make("ledger")
            write_json(file, asdict(record))
            self._file("failed", record.key).unlink(missing_ok=True)
        except OSError as error:
            raise unavailable(self.root, error) from error

    def _land_rows(self, node_id: str, interval: Interval, home: Path, outputs: list[str]) -> None:
        folder = self._folder(node_id, interval)
        rows = next((name for name in _rows_of(node_id) if name in outputs), None)
        made = {rows: ROWS} if rows else {}
        if node_id.startswith("exposure."):
            exported = (name for name in outputs if not name.startswith("target/"))
            made |= {name: name.rpartition("/")[2] for name in exported}
        if not made:
            shutil.rmtree(folder, ignore_errors=True)  # no rows this time
            return
        folder.mkdir(parents=True, exist_ok=True)
        for name, kept in made.items():
            if (home / name).exists() or not (folder / kept).exists():
                workspace.move(home / name, folder / kept)

    def note_failure(self, record: Record) -> None:
        """Remember how an interval failed.

        Raises:
            StoreUnavailable: it could not be written.
        """
        self._make("failed")
        write_json(self._file("failed", record.key), asdict(record))

    def forget(self, record: Record, wanted: Iterable[str]) -> None:
        """Remove an interval, with its rows: another one takes its place."""
        self._file("ledger", record.key).unlink(missing_ok=True)
        for node_id in wanted:
            shutil.rmtree(self._folder(node_id, record.interval), ignore_errors=True)

    def _folder(self, node_id: str, interval: Interval) -> Path:
        return self.data(node_id) / f"interval_start={text_of(interval.start)}"

    def _file(self, kind: str, key: str) -> Path:
        return self.root / kind / f"{key.replace('/', '_')}.json"

    def _make(self, kind: str) -> None:
        try:
            (self.root / kind).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unavailable(self.root, error) from error


def _rows_of(node_id: str) -> tuple[str, ...]:
    kind, _, name = node_id.partition(".")
    return (
        f"target/intermediate/{file_id(node_id)}.parquet",
        f"target/cache/{kind}/{name}.parquet",
        f"target/{kind}/{name}/result.parquet",
    )


def _records(folder: Path) -> dict[str, Record]:
    found = {}
    with contextlib.suppress(OSError):
        for file in sorted(folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                record = Record(**_read(file))
                found[record.key] = record
    return found


def _read(file: Path) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return raw
