"""Ending → Verdict: what an attempt's end means, whose fault it is, and what to do next.

A closed list, and a pure function. A backend's own ``reason`` comes first, the exit code last.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from seeknal_k8s import exitcodes

if TYPE_CHECKING:
    from seeknal_k8s.attempt import Ending


class Fault(StrEnum):
    """Whose fault a failure is: it decides which budget a retry is taken from."""

    NOBODY = "nobody"
    NODE = "node"
    PLATFORM = "platform"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Our reading of an ending: one word, a sentence, the fault, and whether to try again.

    ``hint`` says what to do, with ``{node}`` to be filled in.
    """

    reason: str
    summary: str
    fault: Fault
    retry: bool
    hint: str = ""

    @property
    def success(self) -> bool:
        """Whether the attempt's outputs may be accepted."""
        return self.fault is Fault.NOBODY


_LOGS = "seeknal-k8s logs {node}"

SUCCEEDED = Verdict("Succeeded", "the node succeeded", Fault.NOBODY, retry=False)
_BY_CODE = {
    exitcodes.OK: SUCCEEDED,
    exitcodes.NODE_FAILED: Verdict(
        "NodeFailed", "the node failed", Fault.NODE, retry=True, hint=_LOGS
    ),
    exitcodes.UNVERIFIED: Verdict(
        "VerificationFailed",
        "the node said it succeeded, but its output is not right",
        Fault.NODE,
        retry=True,
        hint=_LOGS,
    ),
    exitcodes.INPUT_MISSING: Verdict(
        "InputMissing",
        "an input of the node is gone",
        Fault.USER,
        retry=False,
        hint="seeknal-k8s run --select +{node}",
    ),
    exitcodes.UNAVAILABLE: Verdict(
        "StoreUnavailable",
        "the store could not be written",
        Fault.PLATFORM,
        retry=True,
        hint="make room on the disk, then resume",
    ),
    exitcodes.OUT_OF_MEMORY: Verdict(
        "OutOfMemory",
        "the node's DuckDB ran out of its memory",
        Fault.NODE,
        retry=True,
        hint="give it more: --set {node}:memory=4Gi, or `kubernetes: {{memory: 4Gi}}` in its file",
    ),
    exitcodes.CONFIGURATION: Verdict(
        "ConfigurationError",
        "the node was not run: its project is not the one that was planned",
        Fault.USER,
        retry=False,
        hint="seeknal-k8s plan",
    ),
    exitcodes.TIMEOUT: Verdict(
        "Timeout",
        "the node ran out of time",
        Fault.NODE,
        retry=True,
        hint="give it longer: --set {node}:timeout=1h, or `kubernetes: {{timeout: 1h}}` in its file",
    ),
    exitcodes.TERMINATED: Verdict("Cancelled", "the node was cancelled", Fault.USER, retry=False),
}
_KILLED = Verdict("Killed", "the node's process was killed", Fault.NODE, retry=True, hint=_LOGS)
_LOST = Verdict(
    "Lost", "the attempt ended without a result", Fault.PLATFORM, retry=True, hint=_LOGS
)


def read(ending: Ending) -> Verdict:
    """Return the verdict on an ending: the first of the closed list that fits."""
    if known := _BY_CODE.get(ending.exit_code):
        return known
    if ending.exit_code > 128:  # noqa: PLR2004 - 128 + the number of a signal, as in a shell
        return _KILLED
    return _LOST if ending.exit_code < 0 else _BY_CODE[exitcodes.NODE_FAILED]
