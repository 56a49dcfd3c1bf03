"""What the terminal shows while a run is under way: a live view, or one line per event when piped.

``Lines`` prints; ``LiveView`` also keeps a few lines at the bottom of a terminal up to date. The
view draws only when ``tick`` is called, in the thread that runs everything else, so that it never
sees a half-told story and a run never waits for it.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.text import Text

from seeknal_k8s.events import (
    NodeEnded,
    NodeRetrying,
    NodeStarted,
    RunEnded,
    RunStarted,
    StoreAwaited,
)
from seeknal_k8s.results import skipped
from seeknal_k8s.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import Console

    from seeknal_k8s.errors import Problem
    from seeknal_k8s.events import Event
    from seeknal_k8s.plan import Plan
    from seeknal_k8s.results import PrefectRunResult, RunResults

SUCCEEDED, FAILED, SKIPPED, RETRIED, RUNS = "✓", "✗", "\N{EN DASH}", "↻", "▸"
STYLES = {
    SUCCEEDED: "green",
    FAILED: "bold red",
    SKIPPED: "dim",
    RETRIED: "yellow",
    RUNS: "cyan",
}

RUNNING = "Running"
"""The reason in place of the result of a node that has not ended."""

PER_SECOND = 8
"""How often the live view is drawn at most."""

_WIDEST_ID = 48
_ROWS_RUNNING = 12
_ROWS_WAITING = 3
_MINUTE = 60.0
_HOUR = 3600.0
_PRECISE = 10.0
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours and cursor movements
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles and links
    r"|[\x00-\x09\x0b-\x1f\x7f-\x9f]"
)
NOT_WORTH_A_LINE = frozenset({"Interrupted", "NotRun"})
"""Reasons of what never began because the run was ended."""


def clean(text: str) -> str:
    """Return text fit for a terminal: no colours, cursor movements or other control characters."""
    return _CONTROL.sub(lambda match: " " if match[0] in "\t\r" else "", text)


def first_line(text: str) -> str:
    """Return the first line of a message that says anything."""
    return next((line.strip() for line in clean(text).splitlines() if line.strip()), "")


def duration(seconds: float) -> str:
    """Return seconds for people: ``0.31s``, ``12.3s``, ``2m 05s``, ``1h 02m``."""
    if seconds < _PRECISE:
        return f"{seconds:.2f}s"
    if round(seconds, 1) < _MINUTE:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // 60}m {whole % 60:02}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02}m"


def plural(count: int, noun: str) -> str:
    """Return a count and its noun: ``1 node``, ``2 nodes``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def mark(result: PrefectRunResult) -> str:
    """Return the sign for how a node ended."""
    if result.success:
        return SUCCEEDED
    if result.reason == RUNNING:
        return RUNS
    return SKIPPED if skipped(result) else FAILED


def warning_lines(warnings: Iterable[Problem]) -> list[Text]:
    """Return what the user should know about a project, before anything runs."""
    return [Text(clean(f"warning: {warning}"), style="yellow") for warning in warnings]


class Lines:
    """One plain line per event. A context manager, and an observer of ``events``."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self.tracker = Tracker(clock)
        self.plan: Plan | None = None
        self.results: RunResults | None = None
        self.took = 0.0
        self._broken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: every line is out."""

    def __call__(self, event: Event) -> None:
        """Take in an event and say what there is to say about it."""
        self.tracker.see(event)
        if isinstance(event, RunStarted):
            self.plan = event.plan
        if isinstance(event, RunEnded):
            self.results, self.took = event.results, event.seconds
            self.say([Text(clean(f"warning: {told}"), style="yellow") for told in event.warnings])
        self.say(self._lines(event))

    def say(self, lines: Iterable[Text]) -> None:
        """Print lines; once nobody reads them any more (``| head``), run on in silence."""
        if self._broken:
            return
        try:
            for line in lines:
                self.console.print(line, soft_wrap=True)
        except OSError:
            self._broken = True

    def tick(self) -> None:
        """Do nothing: lines are printed as they come."""

    def stopping(self) -> None:
        """Say that the first Ctrl-C was heard."""
        self.say([Text("stopping the nodes that run; Ctrl-C again leaves at once", "yellow")])

    def _lines(self, event: Event) -> list[Text]:
        match event:
            case StoreAwaited(holder):
                return [Text(f"waiting: {holder}", style="yellow")]
            case RunStarted():
                return [*warning_lines(event.warnings), Text(head(event), style="bold")]
            case NodeStarted(node, attempt):
                again = f"  attempt {attempt}" if attempt > 1 else ""
                return [Text(f"  {node} started{again}", style="dim")]
            case _:
                return self._ends(event)

    def _ends(self, event: Event) -> list[Text]:
        """Return the lines that both views print: how a node's attempt ended."""
        match event:
            case NodeEnded(node, result) if result.reason not in NOT_WORTH_A_LINE:
                return [self._line(mark(result), node, result_words(result))]
            case NodeRetrying():
                words = (
                    f"attempt {event.attempt} failed, the next follows in "
                    f"{duration(event.delay)}: {first_line(event.message)}"
                )
                return [self._line(RETRIED, event.node, words)]
        return []

    def _line(self, sign: str, node: str, words: str) -> Text:
        width = min(_WIDEST_ID, max((len(run) for run in self.tracker.runs), default=0))
        return Text.assemble((sign, STYLES[sign]), f" {node:<{width}}  {words}")


class LiveView(Lines):
    """On a terminal: what has ended scrolls by; what runs and waits stays at the bottom."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, clock)
        self._ended: list[Text] = []
        self._run_id = ""
        self._note = "getting ready …"
        self._drawn = -math.inf
        self._live = Live(
            console=console, get_renderable=self.view, auto_refresh=False, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        self.tick()
        return self

    def __exit__(self, *_: object) -> None:
        """Print what has ended since the last tick, clear the view, give the cursor back."""
        self._flush()
        with contextlib.suppress(OSError):
            self._live.stop()

    def _lines(self, event: Event) -> list[Text]:
        if isinstance(event, StoreAwaited):
            self._note = f"waiting: {event.holder}"
            self.tick()
        if isinstance(event, RunStarted):
            self._run_id, self._note = event.run_id, ""
            return [*warning_lines(event.warnings), Text(head(event), style="bold")]
        self._ended += self._ends(event)
        return []

    def stopping(self) -> None:
        """Say that the first Ctrl-C was heard."""
        self._note = "stopping the nodes that run; Ctrl-C again leaves at once"
        self._drawn = -math.inf
        self.tick()

    def tick(self) -> None:
        """Draw the view, unless that was done a moment ago. To be called now and then."""
        now = self.tracker.clock()
        if self._broken or 0 <= now - self._drawn < 1 / PER_SECOND:
            return
        self._drawn = now
        if self._ended:
            self._flush()
            return
        try:
            self._live.refresh()
        except OSError:
            self._broken = True

    def _flush(self) -> None:
        # All lines at once: each print above a live view draws the view anew.
        ended, self._ended = self._ended, []
        if ended:
            self.say([Text("\n").join(ended)])

    def view(self) -> Group:
        """Return what stays at the bottom: the run, what runs now, what waits for what."""
        lines = [self._header(), *self._running(), *self._waiting()] if self._run_id else []
        if self._note:
            lines.insert(1, Text(self._note, style="yellow"))
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(*lines)

    def _header(self) -> Text:
        tracker = self.tracker
        line = Text(self._run_id, style="bold")
        if tracker.runs:
            line.append(f"  {len(tracker.done)} of {len(tracker.runs)} done", style="not bold")
            if tracker.failed:
                line.append(f", {tracker.failed} failed", style=STYLES[FAILED])
            if tracker.skipped:
                line.append(f", {tracker.skipped} skipped", style="not bold")
            line.append(f"  {_clock_face(tracker.seconds())}", style="not bold dim")
            left = tracker.seconds_left()
            if left is not None and len(tracker.done) < len(tracker.runs):
                line.append(f", about {_clock_face(left)} left", style="not bold dim")
        return line

    def _running(self) -> list[Text]:
        now = self.tracker.clock()
        room = max(1, min(_ROWS_RUNNING, self.console.height - _ROWS_WAITING - 4))
        lines = []
        for node, (attempt, since) in list(self.tracker.running.items())[:room]:
            again = f"  attempt {attempt}" if attempt > 1 else ""
            line = Text.assemble((f"  {RUNS} ", STYLES[RUNS]), f"{node}  ")
            lines.append(line.append(f"{_clock_face(now - since)}{again}", style="dim"))
        return lines + _and_more(len(self.tracker.running) - room, "running")

    def _waiting(self) -> list[Text]:
        waiting = self.tracker.waiting()
        lines = []
        for node, inputs in waiting[:_ROWS_WAITING]:
            first = ", ".join(inputs[:2]) or "room to run"
            more = f" and {len(inputs) - 2} more" if len(inputs) > 2 else ""  # noqa: PLR2004
            lines.append(Text(f"    {node}  waits for {first}{more}", style="dim"))
        return lines + _and_more(len(waiting) - _ROWS_WAITING, "waiting")


def head(event: RunStarted) -> str:
    """Return what a run is about to do, in a line."""
    plan = event.plan
    parts = [f"{plural(len(plan.runs), 'node')} to run"]
    if event.resumed:
        parts.append(f"{len(event.resumed):,} done before")
    if plan.cached:
        parts.append(f"{len(plan.cached):,} cached")
    if plan.left_out:
        parts.append(f"{len(plan.left_out):,} left out")
    return f"run {event.run_id}: {', '.join(parts)}"


def result_words(result: PrefectRunResult) -> str:
    """Return how a node ended, in a line without its name."""
    if skipped(result):
        return first_line(result.message) or result.reason
    parts = [duration(result.duration_seconds)]
    if result.success and result.rows is not None:
        parts.append(plural(result.rows, "row"))
    if result.attempts > 1:
        parts.append(plural(result.attempts, "attempt"))
    if not result.success:
        parts.append(f"{result.reason} (exit code {result.exit_code})")
        parts.append(first_line(result.message))
    return "  ".join(part for part in parts if part)


def _clock_face(seconds: float) -> str:
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _and_more(count: int, doing: str) -> list[Text]:
    return [Text(f"    … and {count} more {doing}", style="dim")] if count > 0 else []
