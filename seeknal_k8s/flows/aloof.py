"""The coordinator on an event loop, and a thread, of its own: whoever calls a flow may have one."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from prefect.exceptions import TerminationSignal

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

_TICK = 0.5
"""Seconds between two chances for Prefect to interrupt a caller that is no main thread: it raises
an exception in the thread, and a thread that waits for a lock does not see it."""


class Aloof(Generic[T]):
    """A coroutine that runs elsewhere, in the context of whoever made this.

    ``leave`` is asked, when the caller is interrupted, whether the work is to be left as it is
    instead of being ended in good order.
    """

    def __init__(
        self,
        work: Callable[[], Coroutine[Any, Any, T]],
        leave: Callable[[BaseException], bool] = lambda _: False,
    ) -> None:
        self._work = work
        self._leave = leave
        self._done = threading.Event()
        self._cancelled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[T] | None = None
        self._result: T | None = None
        self._error: BaseException | None = None

    def run(self) -> T:
        """Return what the coroutine returns; whatever interrupts the caller cancels it first."""
        context = contextvars.copy_context()
        # A daemon: work that is left must not hold up the end of the process.
        thread = threading.Thread(
            target=context.run, args=[self._main], name="seeknal-k8s", daemon=True
        )
        thread.start()
        try:
            self._wait()
        except BaseException as interruption:
            if not self._leave(interruption):
                self._cancel()
                self._wait()
            raise
        thread.join()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value] # it is a T, or there is an error

    def _wait(self) -> None:
        while not self._done.wait(_TICK):
            if not self._cancelled and (interruption := _of_main_thread()):
                raise interruption

    def _cancel(self) -> None:
        self._cancelled = True  # read by a thread that is not yet as far as to have a task
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the work has ended
                self._loop.call_soon_threadsafe(self._task.cancel)

    def _main(self) -> None:
        try:
            self._result = asyncio.run(self._entered())
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            self._error = error
        finally:
            self._done.set()

    async def _entered(self) -> T:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        if self._cancelled:
            raise asyncio.CancelledError
        return await self._work()


def _of_main_thread() -> BaseException | None:
    """Return what ends the process, where this is another thread, which no signal reaches.

    Prefect's threads of tasks are waited for while the main thread still handles it: whoever does
    not look would hold up the end of a process for as long as a node runs.
    """
    main = threading.main_thread()
    if threading.current_thread() is main:
        return None
    handled: Any = sys._current_exceptions().get(main.ident or 0)  # noqa: SLF001 - documented
    found = handled[1] if isinstance(handled, tuple) else handled  # a tuple until Python 3.12
    if isinstance(found, TerminationSignal):
        return TerminationSignal(signal.SIGTERM)
    return KeyboardInterrupt() if isinstance(found, KeyboardInterrupt) else None
