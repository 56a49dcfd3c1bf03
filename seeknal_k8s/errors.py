"""Everything this package raises on purpose.

SeeknalK8sError        exit code, message
├── UsageError         2   the command line, or a call, makes no sense
├── ProjectRefused     78  the project, its options or the selection is wrong; nothing has run
├── StateUnreadable    78  ``target/run_state.json`` cannot be read; it is kept, never overwritten
├── StoreUnavailable   69  the store cannot be written, or the disk is full
│   └── StoreLocked    75  another coordinator holds the store; its holder is named
├── EngineFailed       70  the process that has Seeknal loaded died or spoke nonsense
└── Interrupted        130 Ctrl-C or SIGTERM; what was accepted is kept

A node that fails is not an error. It is a ``PrefectRunResult`` with ``success=False``.
The numbers follow ``sysexits.h`` where one fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a project: what, where, and what to do about it.

    ``file`` is relative to the project; ``node`` is a node id such as ``transform.orders``;
    ``key`` is the YAML key, dotted (``kubernetes.memory``). Each may be empty.
    """

    what: str
    fix: str = ""
    file: str = ""
    node: str = ""
    key: str = ""

    @property
    def where(self) -> str:
        """Return file, node and key as one readable place, or an empty string."""
        return " · ".join(part for part in (self.file, self.node, self.key) if part)

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.fix:
            lines.append(f"  → {self.fix}")
        return "\n".join(lines)


class SeeknalK8sError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(SeeknalK8sError):
    """The command line, or a call, makes no sense."""

    exit_code = 2


class ProjectRefused(SeeknalK8sError):
    """The project, its options or the selection is wrong. Nothing was started.

    ``problems`` holds every problem found, not just the first.
    """

    exit_code = 78

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''}; nothing was run"
        super().__init__("\n".join([head, *(str(problem) for problem in self.problems)]))


class StateUnreadable(SeeknalK8sError):
    """``target/run_state.json`` cannot be read. It is kept as it is."""

    exit_code = 78


class StoreUnavailable(SeeknalK8sError):
    """The store cannot be written, or the disk is full."""

    exit_code = 69


class StoreLocked(StoreUnavailable):
    """Another coordinator is at work on the same store."""

    exit_code = 75


class EngineFailed(SeeknalK8sError):
    """The process that has Seeknal loaded died, or answered nonsense."""

    exit_code = 70


class Interrupted(SeeknalK8sError):
    """The run was stopped by Ctrl-C or SIGTERM. What was accepted is kept."""

    exit_code = 130
