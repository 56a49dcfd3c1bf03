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
class AttemptSpec:
    """One attempt, as the coordinator orders it.

    ``required`` are files of its inputs, relative to where they are published, that were there when
    it was ordered. ``folder`` is the attempt's own, for logs, outputs and the result. ``memory`` and ``spill``
    (bytes) and ``threads`` fit DuckDB, which spills to ``scratch``, its workspace where there is none; ``timeout``
    is in seconds; ``env`` is added to the node's
    environment; ``environments`` is the folder with what ``uv run`` would give Python scripts.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the attempt as JSON-able data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> AttemptSpec:
        """Read what ``to_dict`` gave, after a journey as JSON."""
        lists = {"inputs": tuple(raw["inputs"]), "undeclared": tuple(raw["undeclared"])}
        lists["required"] = tuple(raw["required"])
        env = tuple((name, value) for name, value in raw["env"])
        return cls(**{**raw, **lists, "env": env})

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
            _write_json(folder / _SEEN, asdict(self))


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
    _write_json(spec.result_file, record)


def _write_json(file: Path, record: Mapping[str, Any]) -> None:
    temporary = file.with_name(f".{file.stem}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(record, default=str), encoding="utf-8")
    temporary.replace(file)
