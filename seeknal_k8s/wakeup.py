"""Wait for signals and for other things at once, without races and without threads."""

from __future__ import annotations

import contextlib
import os
import signal


class Wakeup:
    """Turns signals into something readable: each arrives as a byte in a pipe.

    A signal between a check and the wait is not lost: its byte is there already. For the main
    thread of a process that runs no event loop of its own.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        self.pipe, self._write = os.pipe()
        os.set_blocking(self.pipe, False)
        os.set_blocking(self._write, False)
        self.seen: set[int] = set()
        self._signals = signals
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, _nothing)

    def drain(self) -> None:
        """Note in ``seen`` which signals have come."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.pipe, 512):
                self.seen.update(chunk)

    def close(self) -> None:
        """Give the signals back to their default, in a child that wants none of this."""
        signal.set_wakeup_fd(-1)
        for number in self._signals:
            signal.signal(number, signal.SIG_DFL)
        os.close(self.pipe)
        os.close(self._write)


def _nothing(*_: object) -> None:
    """Be a handler: the byte in the pipe is what counts."""
