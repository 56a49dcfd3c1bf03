"""Run and plan: the coordinator on an event loop, watched by a terminal, stopped by signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from rich.console import Console

from seeknal_k8s import coordinator
from seeknal_k8s.errors import Interrupted
from seeknal_k8s.progress import PER_SECOND, Lines, LiveView

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from seeknal_k8s.coordinator import Planned
    from seeknal_k8s.engine_process import EngineProcess
    from seeknal_k8s.request import RunRequest
    from seeknal_k8s.results import RunResults

_T = TypeVar("_T")

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class View(Protocol):
    """What shows how something goes, for as long as it goes."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""

    def tick(self) -> None:
        """Draw, if there is something to draw."""

    def stopping(self) -> None:
        """Say that it is being stopped."""


def plan(request: RunRequest, engine: EngineProcess | None) -> Planned:
    """Return what would run and why."""
    return asyncio.run(coordinator.plan(request, engine))


def run(request: RunRequest, view: Lines, engine: EngineProcess | None) -> RunResults:
    """Run, and let ``view`` show it.

    Raises:
        Interrupted: a signal stopped it; the message says how to resume.
    """
    return until_ended(lambda: coordinator.run(request, view, engine), view)


def until_ended(start: Callable[[], Coroutine[Any, Any, _T]], view: View) -> _T:
    """Carry out what ``start`` gives, and let ``view`` show it.

    Raises:
        Interrupted: a signal stopped it.
    """
    with view:
        return asyncio.run(_until_ended(start, view))


def view_on(console: Console, *, quiet: bool) -> Lines:
    """Return the view that fits the console: live on a terminal, lines elsewhere."""
    if quiet:
        return Lines(Console(quiet=True))
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveView(console)
    return Lines(console)


async def _until_ended(start: Callable[[], Coroutine[Any, Any, _T]], view: View) -> _T:
    running = asyncio.create_task(start())
    ticking = asyncio.create_task(_tick(view))
    try:
        with _stopped_by_signals(running, view):
            return await running
    except asyncio.CancelledError:
        raise Interrupted("interrupted before any node was started") from None
    finally:
        ticking.cancel()


async def _tick(view: View) -> None:
    while True:
        view.tick()
        await asyncio.sleep(1 / PER_SECOND)


@contextlib.contextmanager
def _stopped_by_signals(running: asyncio.Task[_T], view: View) -> Iterator[None]:
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
