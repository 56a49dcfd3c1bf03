"""Start and end the engine process. Imports little, for it is the first thing a command does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import IO


class EngineProcess:
    """A started engine process that nobody has spoken to yet.

    Starting it early lets it import Seeknal while the command line is still being read.
    """

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair()
        self.log = _anonymous_file()
        command = [sys.executable, "-P", "-m", "seeknal_k8s.engine_server", str(theirs.fileno())]
        with theirs:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for us: we end the children in good order
            )

    def tail(self, size: int = 4000) -> str:
        """Return the end of what the process has printed, at most ``size`` bytes."""
        log = self.log.fileno()  # its offset is the process's too: it must not move
        start = max(0, os.fstat(log).st_size - size)
        return os.pread(log, size, start).decode(errors="replace").strip()

    def close(self) -> None:
        """Close the channel, which ends the process and its children, and wait for that."""
        self.channel.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def _anonymous_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("engine"), "w+b")  # noqa: PTH123 - kept for later
    import tempfile  # noqa: PLC0415 - 10 ms, and not needed on Linux

    return tempfile.TemporaryFile()
