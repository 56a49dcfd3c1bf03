"""Where attempts run. A backend starts one attempt, waits for its end, and tells how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from seeknal_k8s.attempt import Ending, Piece
    from seeknal_k8s.graph import Node
    from seeknal_k8s.options import Resolved


DUCKDB_PART = 0.7
"""DuckDB's part of a node's memory and disk: the Python around it needs some too."""


@dataclass(frozen=True, slots=True)
class Share:
    """What an attempt counts for while it runs: cores and bytes of memory."""

    cpu: float
    memory: int

    def __add__(self, other: Share) -> Share:
        return Share(self.cpu + other.cpu, self.memory + other.memory)

    def within(self, capacity: Share) -> bool:
        """Whether there is so much of both."""
        return self.cpu <= capacity.cpu and self.memory <= capacity.memory


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one node: its number (from 1), its folder in the store, what it may use.

    ``required`` are published files of its inputs without which it must not start. ``crowd`` is how many nodes run or could run at this moment, this one included: cores that
    nobody else wants may be used. ``full`` is whether everything is being run anew. ``piece`` is what of
    a backfill it runs, instead of the node once.
    """

    node: Node
    number: int
    folder: Path
    options: Resolved
    share: Share
    required: tuple[str, ...] = ()
    crowd: int = 1
    full: bool = False
    piece: Piece | None = None

    @property
    def interval(self) -> str:
        """The interval, or the intervals, that it runs for; empty if it runs for none."""
        return self.piece.key if self.piece else ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it reads that is published."""
        return self.piece.inputs if self.piece else self.node.inputs

    @property
    def timeout(self) -> float | None:
        """The longest it may take, in seconds; None without a limit."""
        return self.piece.timeout if self.piece else self.options.timeout_seconds


class Backend(Protocol):
    """Runs attempts, as many at once as ``capacity`` holds.

    ``reattaches`` is whether an attempt of a coordinator that died may still be running, so that
    the same number has to be asked for again.
    """

    reattaches: bool

    @property
    def capacity(self) -> Share:
        """What there is to share: the sum of the running attempts' shares stays within it."""

    def share(self, options: Resolved) -> Share:
        """Return what an attempt with these options counts for."""

    async def run(self, attempt: Attempt) -> Ending:
        """Run the attempt to its end. Cancelling this ends the attempt first, then raises."""
