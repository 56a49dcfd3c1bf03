"""One attempt at a node, as the coordinator orders it and as it ended: plain, JSON-able data."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Link:
    """One node of a chain that is run for each interval, and what it reads.

    ``timeout`` (seconds) is for one interval, ``env`` is added to the node's environment.
    """

    node_id: str
    inputs: tuple[str, ...] = ()
    undeclared: tuple[str, ...] = ()
    timeout: float | None = None
    env: tuple[tuple[str, str], ...] = ()
    allow_failed_materialization: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """One interval, as a process has to know it: its key, and the dates the project is read with."""

    key: str
    overrides: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a backfill that one attempt runs: a chain of nodes, for some intervals.

    ``key`` names it; it stays the same when some of its ``spans`` are done. ``inputs`` are what the
    chain reads of nodes outside it, the same for all intervals.
    """

    key: str
    chain: tuple[Link, ...]
    spans: tuple[Span, ...]
    inputs: tuple[str, ...] = ()

    @property
    def timeout(self) -> float | None:
        """The longest all of it may take, in seconds; None without a limit."""
        each = [link.timeout for link in self.chain]
        return None if None in each else len(self.spans) * sum(filter(None, each))

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Piece:
        """Read what ``asdict`` gave, after a journey as JSON."""
        chain = tuple(
            Link(**{**link, **_tuples(link, "inputs", "undeclared"), "env": _pairs(link["env"])})
            for link in raw["chain"]
        )
        spans = tuple(Span(span["key"], _pairs(span["overrides"])) for span in raw["spans"])
        return cls(raw["key"], chain, spans, tuple(raw["inputs"]))


def _tuples(raw: Mapping[str, Any], *names: str) -> dict[str, tuple[Any, ...]]:
    return {name: tuple(raw[name]) for name in names}


def _pairs(raw: Any) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in raw)


@dataclass(frozen=True, slots=True)
class AttemptSpec:
    """One attempt, as the coordinator orders it.

    ``required`` are files of its inputs, relative to where they are published, that were there when
    it was ordered. ``folder`` is the attempt's own, for logs, outputs and the result. ``memory`` and ``spill``
    (bytes) and ``threads`` fit DuckDB, which spills to ``scratch``, its workspace where there is none; ``timeout``
    is in seconds; ``env`` is added to the node's
    environment; ``environments`` is the folder with what ``uv run`` would give Python scripts.
    ``piece`` is what of a backfill to run, instead of the node once.
    """

    node_id: str
    folder: str
    project: str
    target: str
    inputs: tuple[str, ...] = ()
    undeclared: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    memory: int | None = None
    threads: int | None = None
    spill: int | None = None
    scratch: str | None = None
    timeout: float | None = None
    env: tuple[tuple[str, str], ...] = ()
    environments: str | None = None
    allow_failed_materialization: bool = False
    full: bool = False
    piece: Piece | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the attempt as JSON-able data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> AttemptSpec:
        """Read what ``to_dict`` gave, after a journey as JSON."""
        lists = _tuples(raw, "inputs", "undeclared", "required")
        piece = Piece.from_dict(raw["piece"]) if raw["piece"] else None
        return cls(**{**raw, **lists, "env": _pairs(raw["env"]), "piece": piece})

    @property
    def result_file(self) -> Path:
        """Where the attempt's ``result.json`` will be, once it has ended."""
        return Path(self.folder) / "result.json"

    @property
    def out(self) -> Path:
        """Where what the node made is kept until the coordinator accepts it."""
        return Path(self.folder) / "out"

    @property
    def workspace(self) -> Path:
        """Where the node runs; gone when the attempt has ended."""
        return Path(self.folder) / "ws"

    @property
    def scratch_folder(self) -> Path:
        """Where DuckDB spills to; gone when the attempt has ended."""
        return Path(self.scratch or f"{self.folder}/scratch")


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended, as observed: nothing here is an opinion.

    ``exit_code`` is the process's own, ``-1`` when there was none. ``error`` is the node's message.
    ``outputs`` are relative paths in the attempt's ``out`` folder. ``seconds`` is the node's
    running time, ``started`` Unix time, ``peak_memory`` bytes. ``reason`` is a word from the
    backend, such as ``OOMKilled``, where it has one.
    """

    exit_code: int
    error: str = ""
    rows: int | None = None
    seconds: float = 0.0
    started: float | None = None
    peak_memory: int | None = None
    outputs: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    reason: str = ""

    @classmethod
    def read(cls, file: Path) -> Ending | None:
        """Read a ``result.json``; None when there is none, or no whole one."""
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
            return cls(**{**raw, "outputs": tuple(raw["outputs"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @classmethod
    def of(cls, folder: Path) -> Ending | None:
        """Return how an attempt ended: as the coordinator saw it, else as its supervisor wrote."""
        return cls.read(folder / _SEEN) or cls.read(folder / "result.json")

    def keep(self, folder: Path) -> None:
        """Note in the attempt's folder how the coordinator saw it end, where that says more.

        A pod that was evicted may have written that all went well.

        Raises:
            OSError: it could not be written.
        """
        if Ending.read(folder / "result.json") != self:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / _SEEN, asdict(self))


_SEEN = "ending.json"


def write_record(
    spec: AttemptSpec,
    *,
    outcome: Mapping[str, Any],
    outputs: Sequence[str] = (),
    started: float | None = None,
    peak_memory: int | None = None,
) -> None:
    """Write ``result.json``, which ``Ending.read`` reads: all of it at once, or nothing.

    Raises:
        OSError: it could not be written.
    """
    record = {
        **outcome,
        "outputs": list(outputs),
        "started": time.time() if started is None else started,
        "peak_memory": peak_memory,
    }
    write_whole(spec.result_file, record)


def write_whole(file: Path, record: Mapping[str, Any]) -> None:
    """Write JSON: all of it at once, or nothing.

    Raises:
        OSError: it could not be written.
    """
    temporary = file.with_name(f".{file.stem}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(record, default=str), encoding="utf-8")
    temporary.replace(file)
