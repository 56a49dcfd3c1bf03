"""What a check has found: that something is as it should be, that it is not, or that nobody knows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """A check and what came of it: ``reason`` says why, ``fix`` what to type; both may have lines.

    ``group`` is what was looked at: project, cluster, pods or prefect.
    """

    group: str
    check: str
    state: State
    reason: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A finding without its place: what a pure decision returns."""

    state: State
    reason: str = ""
    fix: str = ""

    def of(self, group: str, check: str) -> Finding:
        """Return it as the finding of a check."""
        return Finding(group, check, self.state, self.reason, self.fix)


def good(reason: str) -> Judgement:
    """Return that all is well."""
    return Judgement(State.OK, reason)


def bad(reason: str, fix: str = "") -> Judgement:
    """Return that it is not, and what to do."""
    return Judgement(State.FAILED, reason, fix)


def unknown(reason: str, fix: str = "") -> Judgement:
    """Return that it could not be looked at, or need not be."""
    return Judgement(State.SKIPPED, reason, fix)


def from_error(error: Exception) -> Judgement:
    """Return an error of ours as a judgement: its first lines say what, its arrows what to do."""
    lines = str(error).splitlines() or [type(error).__name__]
    arrow = "  → "
    said = [line for line in lines if not line.startswith(arrow)]
    fixes = [line.removeprefix(arrow) for line in lines if line.startswith(arrow)]
    return bad("\n".join(said), "\n".join(fixes))
