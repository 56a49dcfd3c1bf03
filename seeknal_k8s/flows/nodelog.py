"""What a node prints, as the lines that Prefect gets: the first ones as they come, and the last."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from seeknal_k8s.logs import TAIL, redact, tail

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Line = tuple[int, str]
    """A level of ``logging``, and the text."""

LINES = 500
"""Lines of a node's log that go to Prefect as they come; the store has all."""

LAST = 50
"""Lines that follow from the end of each stream of a longer log: there it says why a node failed."""

LONGEST = 2_000
"""Characters of one line: Prefect refuses what is longer than its own limit."""

_AT_ONCE = 1 << 20
"""Bytes read in one go: a log may be larger than the memory."""

_STREAMS = (("stdout", logging.INFO), ("stderr", logging.WARNING))


class NodeLog:
    """The log of a node's attempts, from attempt ``first`` on, up to ``LINES`` lines.

    ``bundle`` is the folder with a folder for each attempt.
    """

    def __init__(self, bundle: Path, first: int) -> None:
        self._bundle = bundle
        self._attempt = first
        self._at: dict[Path, int] = {}
        self._left = LINES

    def new(self, attempt: int, *, whole: bool) -> Iterator[Line]:
        """Give what has come since the last time, up to the last line break.

        ``attempt`` is the one at work. It is given to its end where it is ``whole``; those before
        it have ended, and always are.
        """
        for earlier in range(self._attempt, attempt):
            yield from self._of(earlier, whole=True)
        self._attempt = max(self._attempt, attempt)
        yield from self._of(self._attempt, whole=whole)

    def last(self) -> list[Line]:
        """Return the last lines of the last attempt, of those that ``new`` has left out."""
        found: list[Line] = []
        for name, level in _STREAMS:
            file = self._file(self._attempt, name)
            left = _size(file) - self._at.get(file, 0)
            if left > 0:
                # One byte more: from the line break on, so that the first line is a whole one.
                text = tail(file, min(left + 1, TAIL))
                found += [(level, _cut(line)) for line in text.splitlines()[-LAST:]]
        return found

    def _of(self, attempt: int, *, whole: bool) -> Iterator[Line]:
        for name, level in _STREAMS:
            for line in self._lines(self._file(attempt, name), whole=whole):
                yield level, _cut(redact(line))

    def _file(self, attempt: int, name: str) -> Path:
        return self._bundle / str(attempt) / name

    def _lines(self, file: Path, *, whole: bool) -> Iterator[str]:
        """Give the file's new lines while any may be given, and take note of how far that went."""
        while self._left and (text := self._piece(file, whole=whole)):
            for line in text.splitlines(keepends=True):
                if not self._left:
                    return
                self._left -= 1
                self._at[file] = self._at.get(file, 0) + len(line)
                yield line.decode(errors="replace").rstrip("\r\n")

    def _piece(self, file: Path, *, whole: bool) -> bytes:
        try:
            with file.open("rb") as stream:
                stream.seek(self._at.get(file, 0))
                text = stream.read(_AT_ONCE)
        except OSError:
            return b""
        if len(text) == _AT_ONCE or not whole:
            end = text.rfind(b"\n") + 1
            return text[:end] if end or len(text) < _AT_ONCE else text
        return text


def _size(file: Path) -> int:
    try:
        return os.stat(file).st_size  # noqa: PTH116 - what is missing has no size
    except OSError:
        return 0


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
