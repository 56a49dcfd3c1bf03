"""``run`` on a real terminal: the live view, and Ctrl-C."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.store import Store
from tests.small import PROGRAM, Project, a_project, at_work_in, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
STYLE = re.compile(r"\x1b\[[\d;]*m")


@pytest.fixture
def slow(tmp_path: Path) -> Project:
    return a_project(tmp_path / "small", slow=True)


class Terminal:
    """A real pseudo-terminal with a command in it."""

    def __init__(self, command: Sequence[str], cwd: Path, env: dict[str, str]) -> None:
        self.output = ""
        self._read = b""
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execve(command[0], list(command), env)  # noqa: S606 - no shell is wanted
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))

    def ended(self) -> bool:
        """Take in what has been written for a moment; return whether that was all."""
        if not select.select([self._master], [], [], 0.05)[0]:
            return False
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # what Linux says when the last writer is gone
            return True
        self._read += data
        self.output = STYLE.sub("", self._read.decode(errors="ignore"))
        return False

    def press_ctrl_c(self) -> None:
        os.write(self._master, b"\x03")

    def wait(self, seconds: float = 60) -> int:
        """Return the exit code."""
        until(self.ended, seconds)
        os.close(self._master)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def read_until(self, text: str) -> None:
        until(lambda: self.ended() or text in self.output)


@pytest.fixture
def terminal(slow: Project, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    env = slow.environment(TERM="xterm-256color", **getattr(request, "param", {}))
    env.pop("COLUMNS", None)
    terminal = Terminal([*PROGRAM, "run"], slow.root, env)
    yield terminal
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(terminal.pid, signal.SIGKILL)
        os.waitpid(terminal.pid, 0)


@pytest.mark.parametrize("terminal", [{"NAP": "1.5"}], indirect=True)
def test_on_a_terminal_there_is_a_live_view_that_goes_when_the_run_ends(
    terminal: Terminal,
) -> None:
    assert terminal.wait() == 0
    said = terminal.output
    assert said.count(HIDE_CURSOR) == said.count(SHOW_CURSOR) == 1
    live, rest = said.split(SHOW_CURSOR)
    assert "▸ transform.nap  0:01" in live
    assert "of 3 done" in live
    assert "✓ transform.nap" in live
    assert "3 nodes succeeded" in rest


@pytest.mark.parametrize("terminal", [{"NAP": "60"}], indirect=True)
def test_ctrl_c_ends_the_nodes_and_gives_the_terminal_back(
    terminal: Terminal, slow: Project
) -> None:
    terminal.read_until("▸ transform.nap  0:01")
    terminal.press_ctrl_c()
    assert terminal.wait() == 130
    live, rest = terminal.output.split(SHOW_CURSOR)
    assert "Ctrl-C again leaves at once" in live
    assert "was interrupted; 2 of 3 nodes are done and kept" in rest
    assert slow.status() == "interrupted"
    assert at_work_in(slow.root) == []


@pytest.mark.parametrize("terminal", [{"NAP": "60", "STUBBORN": "1"}], indirect=True)
def test_a_second_ctrl_c_leaves_at_once_and_no_process_stays(
    terminal: Terminal, slow: Project
) -> None:
    until(lambda: terminal.ended() or slow.started("transform.nap"))
    terminal.press_ctrl_c()
    terminal.read_until("Ctrl-C again leaves at once")
    pressed = time.monotonic()
    terminal.press_ctrl_c()
    assert terminal.wait() == 130
    assert time.monotonic() - pressed < 1.9  # a node that ignores SIGTERM would get 2 s
    assert terminal.output.count(SHOW_CURSOR) == 1
    until(lambda: not at_work_in(slow.root))
    assert slow.call("show").stdout.startswith(f"run {Store.of(slow.root).run('latest').id}  died")
