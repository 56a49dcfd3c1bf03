"""One attempt at a bundle, as the coordinator orders it and as it ended: plain, JSON-able data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class AttemptSpec:
    """One attempt, as the coordinator orders it; JSON-able.

    ``folder`` is the attempt's own, for logs, outputs and the result. ``memory`` and ``spill``
    (bytes) and ``threads`` fit DuckDB; ``timeout`` is in seconds; ``env`` is added to the node's
    environment.
    """

    node_id: str
    folder: str
    project: str
    target: str
    inputs: tuple[str, ...] = ()
    undeclared: tuple[str, ...] = ()
    memory: int | None = None
    threads: int | None = None
    spill: int | None = None
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


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended, as observed: nothing here is an opinion.

    ``exit_code`` is the process's own, ``-1`` when there was none; ``signal`` is the number that
    ended the attempt's own supervisor, 0 if none did. ``error`` is the node's message. ``outputs`` are relative paths in the
    attempt's ``out`` folder. ``seconds`` is the node's running time; ``started`` is Unix time.
    ``reason`` is a word from the backend, such as ``OOMKilled``, where it has one.
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
    signal: int = 0

    @classmethod
    def from_record(cls, raw: Mapping[str, Any]) -> Ending:
        """Read the ``result.json`` that an attempt's supervisor has written."""
        return cls(
            exit_code=raw["exit_code"],
            error=raw["error"],
            rows=raw["rows"],
            seconds=raw["seconds"],
            started=raw["started"],
            peak_memory=raw["peak_memory"],
            outputs=tuple(raw["outputs"]),
            metadata=raw["metadata"],
        )
