"""What the exit code of a node's process means. Codes from ``sysexits.h`` where one fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

OK = 0
NODE_FAILED = 1
USAGE = 64
UNVERIFIED = 65
INPUT_MISSING = 66
UNAVAILABLE = 69
SOFTWARE = 70
TRY_AGAIN = 75
OUT_OF_MEMORY = 77
CONFIGURATION = 78
TIMEOUT = 124
KILLED = 137
TERMINATED = 143

_MEMORY_SIGNS = ("Out of Memory Error", "OutOfMemoryException", "MemoryError")
_DISK_SIGNS = ("No space left on device", "Disk quota exceeded")


def of_signal(number: int) -> int:
    """Return the exit code a shell and a kubelet give to a process that signal ``number`` ended."""
    return 128 + number


def of_exception(causes: Iterable[BaseException]) -> int:
    """Return the exit code of a node that raised: the most telling of the chained errors decides."""
    texts = [f"{type(cause).__name__}: {cause}" for cause in causes]
    return of_text("\n".join(texts))


def of_text(text: str) -> int:
    """Return the exit code of a node that failed with this message."""
    if any(sign in text for sign in _MEMORY_SIGNS):
        return OUT_OF_MEMORY
    if any(sign in text for sign in _DISK_SIGNS):
        return UNAVAILABLE
    return NODE_FAILED
