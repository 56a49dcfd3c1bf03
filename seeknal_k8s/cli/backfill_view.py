"""What the terminal shows of a backfill: what ended, how many are left, and how long that may take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from seeknal_k8s.cli import render
from seeknal_k8s.events import (
    BackfillStarted,
    NodeEnded,
    NodeRetrying,
    RunStarted,
    StoreAwaited,
)
from seeknal_k8s.progress import (
    NOT_WORTH_A_LINE,
    STYLES,
    duration,
    first_line,
    mark,
    plural,
    warning_lines,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from seeknal_k8s.events import Event


class BackfillView:
    """An observer of a backfill: a line for what ends, and on a terminal a bar below them."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._began = clock()
        self._started: BackfillStarted | None = None
        self._since = self._began
        self._ended = 0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    @property
    def took(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    def tick(self) -> None:
        """Draw the bar."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, left=self._left())
            self._bar.refresh()

    def stopping(self) -> None:
        """Say that it is being stopped."""
        self._say(
            Text("stopping: what is done is kept; once more to leave at once", style="yellow")
        )

    def __call__(self, event: Event) -> None:
        """Take note of an event, and show it."""
        if isinstance(event, StoreAwaited):
            self._say(Text(f"waiting: {event.holder}"))
        elif isinstance(event, RunStarted):
            self._say(
                Text(f"first, what all intervals read: {plural(len(event.plan.runs), 'node')}")
            )
        elif isinstance(event, BackfillStarted):
            self._start(event)
        elif isinstance(event, NodeRetrying):
            text = f"↻ {event.node}  again in {duration(event.delay)}: {first_line(event.message)}"
            self._say(Text(text, style="yellow"))
        elif isinstance(event, NodeEnded) and event.result.reason not in NOT_WORTH_A_LINE:
            self._end(event)

    @property
    def _done(self) -> int:
        return self._ended + (self._started.done if self._started else 0)

    def _start(self, event: BackfillStarted) -> None:
        self._started, self._since = event, self._clock()
        render.show(self._console, warning_lines(event.warnings))
        todo = event.total - event.done
        if not todo:
            return
        self._say(Text(f"backfill {event.run_id}: {plural(todo, 'interval')} of {event.node}"))
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._bar = Progress(
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
                console=self._console,
                auto_refresh=False,
                transient=True,
            )
            self._task = self._bar.add_task("", total=event.total, left="")
            self._bar.start()

    def _end(self, event: NodeEnded) -> None:
        result, size = event.result, 1
        if self._started is not None:
            size = self._started.pieces.get(event.node, 1)
            self._ended += size
        sign = mark(result)
        line = Text(sign, style=STYLES[sign])
        words = duration(result.duration_seconds) if result.success else result.reason
        line.append(f" {event.node}  {words}")
        if result.rows is not None:
            line.append(f"  {plural(result.rows, 'row')}")
        if self._started is not None:
            line.append(f"  [{self._done:,}/{self._started.total:,}]  {self._left()}", style="dim")
        self._say(line)

    def _left(self) -> str:
        """Return how long the rest may take, by what has ended so far."""
        if self._started is None or not self._ended:
            return ""
        left = self._started.total - self._done
        seconds = (self._clock() - self._since) / self._ended * left
        return f"{duration(seconds)} left" if left else ""

    def _say(self, line: Text) -> None:
        render.show(self._console, [line])
