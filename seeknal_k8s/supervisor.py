"""Attempts from the outside: fork them, keep their clocks, end them, and say how they ended.

For a process that has Seeknal loaded and runs no threads: the engine process of a laptop, or the
first process of a pod.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from seeknal_k8s import exitcodes, workspace
from seeknal_k8s.attempt import AttemptSpec, Ending, write_record
from seeknal_k8s.worker import prepare, work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from seeknal_k8s.engine.project import Project
    from seeknal_k8s.wakeup import Wakeup

    Work = Callable[[AttemptSpec, Project, Callable[[], None]], int]

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for a node that is out of time or cancelled."""


@dataclass(slots=True)
class Child:
    """A running child and what is to happen with it.

    ``deadline`` and ``kill_at`` are on the monotonic clock. ``verdict`` is set when we end it: then
    its exit code and message are ours, whatever the process says. ``told`` is whether ``ended``
    has been called: an attempt is over when its worker says so, a little before the process is.
    """

    ended: Callable[[int], None]
    spec: AttemptSpec | None = None
    began: float = 0.0
    deadline: float = float("inf")
    kill_at: float = float("inf")
    verdict: tuple[int, str] | None = None
    told: bool = False

    def tell(self, status: int) -> None:
        """Call ``ended``, once."""
        if not self.told:
            self.told = True
            self.deadline = float("inf")
            self.ended(status)


@dataclass(frozen=True, slots=True)
class _Spare:
    """A child that was forked ahead and waits for its attempt at the other end of a pipe."""

    pid: int
    pipe: int


class Supervisor:
    """The children of this process, by process id. ``in_child`` is called first in every fork.

    ``finished`` becomes readable when an attempt is over: call ``note_finished`` then. ``work`` is
    what a child does with its attempt.
    """

    def __init__(self, in_child: Callable[[], None], work: Work = work) -> None:
        self.children: dict[int, Child] = {}
        self.finished, self._finished_end = os.pipe()
        os.set_blocking(self.finished, False)
        self._in_child = in_child
        self._work = work
        self._spares: list[_Spare] = []

    def attempt(self, spec: AttemptSpec, project: Project, ended: Callable[[Ending], None]) -> int:
        """Start an attempt; ``ended`` is called with how it ended. Return its process id."""
        began = time.monotonic()
        child = Child(
            ended=lambda status: ended(_finish(child, spec, status)),
            spec=spec,
            began=began,
            deadline=began + (spec.timeout or float("inf")),
        )
        order = json.dumps(spec.to_dict()).encode()
        while self._spares:
            spare = self._spares.pop(0)
            try:
                _write_all(spare.pipe, order)
            except BrokenPipeError:
                continue
            finally:
                os.close(spare.pipe)
            self.children[spare.pid] = child
            return spare.pid
        return self.fork(lambda: self._work(spec, project, self._say_finished), child)

    @property
    def spares(self) -> int:
        """How many children wait for an attempt."""
        return len(self._spares)

    def keep_spares(self, project: Project, count: int) -> None:
        """Have ``count`` children ready, so that an attempt need not wait for its fork."""
        while len(self._spares) < count:
            order, order_end = os.pipe()

            def wait_and_work(order: int = order, order_end: int = order_end) -> int:
                os.close(order_end)
                prepare()
                text = _read_all(order)
                if not text:
                    return exitcodes.OK
                spec = AttemptSpec.from_dict(json.loads(text))
                return self._work(spec, project, self._say_finished)

            try:
                pid = self._fork(wait_and_work)
            except OSError:
                os.close(order_end)
                raise
            finally:
                os.close(order)
            self._spares.append(_Spare(pid, order_end))

    def drop_spares(self) -> None:
        """Let the waiting children go."""
        for spare in self._spares:
            os.close(spare.pipe)
        self._spares.clear()

    def _say_finished(self) -> None:
        os.write(self._finished_end, os.getpid().to_bytes(4))

    def note_finished(self) -> None:
        """Tell of the attempts that are over although their processes are not gone yet."""
        with contextlib.suppress(BlockingIOError):
            while number := os.read(self.finished, 4):
                child = self.children.get(int.from_bytes(number))
                if child is not None:
                    child.tell(0)

    def fork(self, do: Callable[[], int], child: Child) -> int:
        """Fork a child that does ``do`` and exits with what it returns."""
        pid = self._fork(do)
        self.children[pid] = child
        return pid

    def _fork(self, do: Callable[[], int]) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = exitcodes.SOFTWARE
        try:
            for spare in self._spares:
                os.close(spare.pipe)
            self._in_child()
            code = do()
        except BaseException:  # noqa: BLE001 - a child must never return into its parent's loop
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(code)

    def next_deadline(self) -> float:
        """Return when ``enforce`` has to be called next, on the monotonic clock."""
        return min(
            (min(child.deadline, child.kill_at) for child in self.children.values()),
            default=float("inf"),
        )

    def enforce(self) -> None:
        """End the attempts whose time is up, and kill those that were asked to end long ago."""
        now = time.monotonic()
        for pid, child in self.children.items():
            if now >= child.kill_at:
                _signal_tree(pid, signal.SIGKILL)
                child.kill_at = float("inf")
            elif now >= child.deadline and not child.told and child.spec is not None:
                limit = f"{child.spec.timeout:g} s"
                self.stop(pid, exitcodes.TIMEOUT, f"it ran longer than its timeout of {limit}")

    def stop(self, pid: int, code: int, why: str) -> None:
        """Ask a child and everything below it to end; ``enforce`` kills it after ``GRACE``."""
        child = self.children[pid]
        if child.verdict is None and not child.told:
            child.verdict = (code, why)
            child.deadline = float("inf")
            child.kill_at = time.monotonic() + GRACE
            _ask_to_end(pid)

    def reap(self) -> None:
        """Take note of the children that have ended; kill what a dead one has left."""
        gone: list[tuple[Child, int]] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self._spares = [spare for spare in self._spares if spare.pid != pid or _closed(spare)]
            child = self.children.pop(pid, None)
            if child is not None:
                gone.append((child, status))
        if any(os.WIFSIGNALED(status) for _, status in gone):
            self.end_orphans()
        for child, status in gone:
            child.tell(status)

    def end_orphans(self) -> None:
        """Kill whatever has become our child because the attempt it belonged to was killed."""
        known = {*self.children, *(spare.pid for spare in self._spares)}
        for process in psutil.Process().children():
            if process.pid not in known:
                _signal_tree(process.pid, signal.SIGKILL)

    def see_through(
        self, pid: int, wakeup: Wakeup, *, every: float, tick: Callable[[], None], why: str
    ) -> None:
        """Wait until an attempt is over, enforcing its clock; end it when we are told to end.

        ``tick`` is called after each look, ``every`` so many seconds at least.
        """
        while pid in self.children and not self.children[pid].told:
            seconds = min(every, max(0.0, self.next_deadline() - time.monotonic()))
            select.select([wakeup.pipe, self.finished], [], [], seconds)
            wakeup.drain()
            if wakeup.seen & {signal.SIGTERM, signal.SIGINT}:
                self.stop(pid, exitcodes.TERMINATED, why)
            self.note_finished()
            self.reap()
            self.enforce()
            tick()

    def end_all(self, why: str, patience: float) -> None:
        """End every child and wait for that, ``patience`` seconds at most."""
        self.drop_spares()
        for pid in list(self.children):
            self.stop(pid, exitcodes.TERMINATED, why)
        until = time.monotonic() + patience
        while self.children and time.monotonic() < until:
            self.reap()
            self.enforce()
            time.sleep(0.01)
        self.end_orphans()
        _wait_for_all(until)


def _wait_for_all(until: float) -> None:
    """Wait for children that are about to die, or their working directory would stay in use."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] or time.monotonic() < until:
            time.sleep(0.001)


def _closed(spare: _Spare) -> bool:
    """Close a dead spare's pipe; it is no spare any more."""
    os.close(spare.pipe)
    return False


def _write_all(pipe: int, data: bytes) -> None:
    while data:
        data = data[os.write(pipe, data) :]


def _read_all(pipe: int) -> bytes:
    data = b""
    while chunk := os.read(pipe, 1 << 16):
        data += chunk
    os.close(pipe)
    return data


def _ask_to_end(pid: int) -> None:
    """Send SIGTERM to a node's processes; their worker stays, or their last words were lost."""
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(pid)
        _signal_each(top.children(recursive=True) or [top], signal.SIGTERM)


def _signal_tree(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and to everything below it."""
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(pid)
        _signal_each([*top.children(recursive=True), top], number)


def _signal_each(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def _finish(child: Child, spec: AttemptSpec, status: int) -> Ending:
    """Return how an attempt ended, and write it down where its worker could not."""
    ending = Ending.read(spec.result_file)
    if child.verdict is None and ending is not None:
        return ending
    code, error = child.verdict or _from_status(status)
    seconds = round(time.monotonic() - child.began, 3)
    started = time.time() - seconds
    for left in (spec.workspace, spec.out, spec.scratch_folder):
        workspace.remove(left)
    outcome = {"exit_code": code, "error": error, "seconds": seconds}
    try:
        spec.result_file.parent.mkdir(parents=True, exist_ok=True)  # it may have died before that
        write_record(spec, outcome=outcome, started=started)
    except OSError as unwritten:
        if child.verdict is None:
            code, error = exitcodes.UNAVAILABLE, f"its result was not kept: {unwritten}"
    return Ending(exit_code=code, error=error, seconds=seconds, started=started)


def _from_status(status: int) -> tuple[int, str]:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        name = signal.Signals(-code).name
        return exitcodes.of_signal(-code), f"its process was ended by signal {-code} ({name})"
    if code == exitcodes.UNAVAILABLE:
        return code, "the store could not be written, so its log and its result are lost"
    return code or exitcodes.SOFTWARE, f"its process exited with code {code} and left no result"
