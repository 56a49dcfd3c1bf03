"""Run and plan: the coordinator on an event loop, watched by a terminal, stopped by signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

from rich.console import Console

from seeknal_k8s import coordinator
from seeknal_k8s.errors import Interrupted
from seeknal_k8s.progress import PER_SECOND, Lines, LiveView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seeknal_k8s.coordinator import Planned
    from seeknal_k8s.engine_process import EngineProcess
    from seeknal_k8s.request import RunRequest
    from seeknal_k8s.results import RunResults

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def plan(request: RunRequest, engine: EngineProcess | None) -> Planned:
    """Return what would run and why."""
    return asyncio.run(coordinator.plan(request, engine))


def run(request: RunRequest, view: Lines, engine: EngineProcess | None) -> RunResults:
    """Run, and let ``view`` show it.

    Raises:
        Interrupted: a signal stopped it; the message says how to resume.
    """
    with view:
        return asyncio.run(_run(request, view, engine))


def view_on(console: Console, *, quiet: bool) -> Lines:
    """Return the view that fits the console: live on a terminal, lines elsewhere."""
    if quiet:
        return Lines(Console(quiet=True))
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveView(console)
    return Lines(console)


async def _run(request: RunRequest, view: Lines, engine: EngineProcess | None) -> RunResults:
    running = asyncio.create_task(coordinator.run(request, view, engine))
    ticking = asyncio.create_task(_tick(view))
    try:
        with _stopped_by_signals(running, view):
            return await running
    except asyncio.CancelledError:
        raise Interrupted("interrupted before any node was started") from None
    finally:
        ticking.cancel()


async def _tick(view: Lines) -> None:
    while True:
        view.tick()
        await asyncio.sleep(1 / PER_SECOND)


@contextlib.contextmanager
def _stopped_by_signals(running: asyncio.Task[RunResults], view: Lines) -> Iterator[None]:
    """Cancel the run at the first signal, and leave at once at the second.

    A signal that whoever started us has told us to ignore (nohup, ``&`` in a script) stays ignored.
    """
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if running.cancelling():
            view.__exit__()
            os._exit(Interrupted.exit_code)  # the engine sees the end of us and ends the nodes
        running.cancel()
        view.stopping()

    heard = [number for number in _STOPS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heard:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in heard:
            loop.remove_signal_handler(number)
