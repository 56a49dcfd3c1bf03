"""What the terminal shows while a run is under way."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from seeknal_k8s.errors import Problem
from seeknal_k8s.events import NodeEnded, NodeRetrying, NodeStarted, RunEnded, RunStarted
from seeknal_k8s.graph import Graph, Node
from seeknal_k8s.options import NodeOptions, Resolved
from seeknal_k8s.plan import NodeRun, Plan, Reason
from seeknal_k8s.progress import Lines, LiveView, clean, duration
from seeknal_k8s.results import NO_EXIT_CODE, PrefectRunResult, RunResults
from seeknal_k8s.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seeknal_k8s.events import Event


class Clock:
    """A clock that goes on only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_plan(
    needs: dict[str, tuple[str, ...]],
    *,
    past: dict[str, float] | None = None,
    cached: tuple[str, ...] = (),
    left_out: tuple[str, ...] = (),
) -> Plan:
    nodes = {
        name: Node(id=name, kind=name.partition(".")[0], name=name.partition(".")[2], file="x.yml")
        for name in (*needs, *cached, *left_out)
    }
    runs = tuple(
        NodeRun(
            node=nodes[name],
            reason=Reason.NEW,
            because="it has never run",
            options=Resolved(NodeOptions(), {}),
            waits_for=waits_for,
            past_seconds=(past or {}).get(name),
        )
        for name, waits_for in needs.items()
    )
    return Plan(Graph("shop", "/shop", nodes), runs, cached, left_out)


def good(seconds: float, rows: int | None = None, attempts: int = 1) -> PrefectRunResult:
    return PrefectRunResult(
        success=True,
        exit_code=0,
        stdout="",
        stderr="",
        duration_seconds=seconds,
        reason="Succeeded",
        attempts=attempts,
        rows=rows,
    )


def bad(message: str) -> PrefectRunResult:
    return replace(good(0.5), success=False, exit_code=1, reason="NodeFailed", message=message)


def never(reason: str, message: str) -> PrefectRunResult:
    result = replace(bad(message), exit_code=NO_EXIT_CODE, duration_seconds=0.0)
    return replace(result, reason=reason, attempts=0)


CHAIN = a_plan(
    {
        "source.orders": (),
        "transform.clean": ("source.orders",),
        "transform.daily": ("transform.clean",),
    },
    cached=("source.customers",),
)

STORY: tuple[Event, ...] = (
    RunStarted("r1", CHAIN, warnings=(Problem("it is old", "renew it", file="a.yml"),)),
    NodeStarted("source.orders", 1),
    NodeRetrying("source.orders", 1, 5.0, "NodeFailed: \x1b[31mno file\x1b[0m\nand more"),
    NodeStarted("source.orders", 2),
    NodeEnded("source.orders", good(1.25, rows=1200, attempts=2)),
    NodeStarted("transform.clean", 1),
    NodeEnded("transform.clean", bad("Binder Error: no column\n  LINE 1")),
    NodeEnded("transform.daily", never("UpstreamFailed", "skipped, because it failed")),
    RunEnded(RunResults(run_id="r1"), 2.0),
)


def test_without_a_terminal_there_is_one_plain_line_per_event() -> None:
    out = io.StringIO()
    lines = Lines(Console(file=out, width=40, highlight=False, emoji=False))
    with lines:
        for event in STORY:
            lines(event)
    assert out.getvalue().splitlines() == [
        "warning: a.yml: it is old",
        "  → renew it",
        "run r1: 3 nodes to run, 1 cached",
        "  source.orders started",
        "↻ source.orders    attempt 1 failed, the next follows in 5.00s: NodeFailed: no file",
        "  source.orders started  attempt 2",
        "✓ source.orders    1.25s  1,200 rows  2 attempts",
        "  transform.clean started",
        "✗ transform.clean  0.50s  NodeFailed (exit code 1)  Binder Error: no column",
        "– transform.daily  skipped, because it failed",  # noqa: RUF001 - the sign itself
    ]
    assert lines.took == 2.0


def test_interrupted_nodes_do_not_fill_the_screen() -> None:
    out = io.StringIO()
    lines = Lines(Console(file=out))
    lines(RunStarted("r1", CHAIN))
    for node in ("source.orders", "transform.clean", "transform.daily"):
        lines(NodeEnded(node, never("Interrupted", "the run was interrupted")))
    assert out.getvalue() == "run r1: 3 nodes to run, 1 cached\n"


def test_a_reader_that_goes_away_does_not_end_the_run() -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(5, "Input/output error")

    lines = Lines(Console(file=Closed()))
    for event in STORY:
        lines(event)
    assert lines.took == 2.0


def test_a_resumed_run_says_how_much_is_done_already() -> None:
    out = io.StringIO()
    Lines(Console(file=out))(RunStarted("r1", CHAIN, resumed=("a", "b")))
    assert out.getvalue() == "run r1: 3 nodes to run, 2 done before, 1 cached\n"


def view_after(events: Sequence[Event], clock: Clock, height: int = 30) -> str:
    live = LiveView(Console(file=io.StringIO(), width=100, height=height), clock)
    for event in events:
        live(event)
    clock.now += 4
    out = io.StringIO()
    Console(file=out, width=100).print(live.view())
    return out.getvalue()


def test_the_live_view_shows_what_runs_and_what_waits_for_what() -> None:
    past = {"source.orders": 10.0, "transform.clean": 20.0}
    needs = {run.node.id: run.waits_for for run in CHAIN.runs}
    plan = a_plan(needs, past=past, cached=("source.customers",))
    events: list[Event] = [RunStarted("r1", plan), NodeStarted("source.orders", 2)]
    assert view_after(events, Clock()).splitlines() == [
        "r1  0 of 3 done  0:04, about 0:41 left",
        "  ▸ source.orders  0:04  attempt 2",
        "    transform.clean  waits for source.orders",
        "    transform.daily  waits for transform.clean",
    ]


def test_the_live_view_stays_small_however_much_there_is() -> None:
    ids = [f"source.s{number}" for number in range(60)]
    needs: dict[str, tuple[str, ...]] = dict.fromkeys(ids, ())
    needs |= {f"transform.t{number}": tuple(ids) for number in range(60)}
    events: list[Event] = [RunStarted("r1", a_plan(needs))]
    events += [NodeStarted(node, 1) for node in ids[:40]]
    lines = view_after(events, Clock(), height=12).splitlines()
    assert len(lines) == 11
    assert lines[6] == "    … and 35 more running"
    assert lines[7] == "    source.s40  waits for room to run"
    assert lines[-1] == "    … and 77 more waiting"


def test_the_live_view_names_only_two_of_many_inputs() -> None:
    inputs = ("source.a", "source.b", "source.c")
    plan = a_plan({**dict.fromkeys(inputs, ()), "transform.t": inputs})
    events: list[Event] = [RunStarted("r1", plan), *(NodeStarted(node, 1) for node in inputs)]
    last = view_after(events, Clock()).splitlines()[-1]
    assert last == "    transform.t  waits for source.a, source.b and 1 more"


def test_the_live_view_counts_failed_and_skipped_nodes() -> None:
    assert view_after(STORY[:-1], Clock()).splitlines()[-1] == (
        "r1  3 of 3 done, 1 failed, 1 skipped  0:04"
    )


def test_the_live_view_prints_what_has_ended_above_and_gives_the_cursor_back() -> None:
    out = io.StringIO()
    clock = Clock()
    with LiveView(
        Console(file=out, width=100, force_terminal=True, color_system=None), clock
    ) as live:
        for event in STORY:
            live(event)
            clock.now += 0.2
            live.tick()
        live.stopping()
    text = out.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert text.rindex("\x1b[?25h") > text.rindex("stopping the nodes that run")
    assert text.count("✓ source.orders    1.25s") == 1


def test_the_live_view_is_not_drawn_more_often_than_anyone_can_see() -> None:
    out = io.StringIO()
    clock = Clock()
    with LiveView(Console(file=out, width=100, force_terminal=True), clock) as live:
        drawn = len(out.getvalue())
        for _ in range(100):
            live.tick()
            clock.now += 0.001
        assert len(out.getvalue()) == drawn


@pytest.mark.parametrize(
    ("past", "started", "elapsed", "left"),
    [
        pytest.param({}, (), 0, None, id="nothing is known before anything has ever run"),
        pytest.param({"a": 10, "b": 10, "c": 10}, (), 0, 30, id="the longest chain counts"),
        pytest.param({"a": 10, "b": 20}, (), 0, 45, id="an unknown node counts as the average"),
        pytest.param({"a": 10, "b": 10, "c": 10}, ("a",), 4, 26, id="what has run is taken off"),
        pytest.param({"a": 10, "b": 10, "c": 10}, ("a",), 99, 20, id="an overdue node has 0 left"),
    ],
)
def test_the_time_left(
    past: dict[str, float], started: tuple[str, ...], elapsed: float, left: float | None
) -> None:
    clock = Clock()
    tracker = Tracker(clock)
    tracker.see(RunStarted("r1", a_plan({"a": (), "b": ("a",), "c": ("b",)}, past=past)))
    for node in started:
        tracker.see(NodeStarted(node, 1))
    clock.now += elapsed
    assert tracker.seconds_left() == left


def test_the_time_left_grows_when_less_runs_at_once_than_could() -> None:
    clock = Clock()
    tracker = Tracker(clock)
    ids = [f"n{number}" for number in range(6)]
    plan = a_plan(dict.fromkeys(ids, ()), past=dict.fromkeys(ids, 10.0))
    tracker.see(RunStarted("r1", plan))
    tracker.see(NodeStarted("n0", 1))
    tracker.see(NodeStarted("n1", 1))
    clock.now += 10
    tracker.see(NodeEnded("n0", good(10)))
    tracker.see(NodeEnded("n1", good(10)))
    assert tracker.seconds_left() == 20  # four of ten seconds each, two at once


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00s"),
        (9.994, "9.99s"),
        (12.34, "12.3s"),
        (59.97, "1m 00s"),
        (125, "2m 05s"),
        (3599.7, "1h 00m"),
        (3720, "1h 02m"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        pytest.param("\x1b[1;31mred\x1b[0m", "red", id="colours go"),
        pytest.param("a\x1b[2K\x1b[1Ab", "ab", id="cursor movements go"),
        pytest.param("\x1b]0;title\x07a", "a", id="titles go"),
        pytest.param("a\tb\rc", "a b c", id="tabs and returns become spaces"),
        pytest.param("a\x00\x08b\x9bc\x7f", "abc", id="other control characters go"),
        pytest.param("naïve\n東京", "naïve\n東京", id="letters and lines stay"),
    ],
)
def test_messages_of_nodes_cannot_touch_the_terminal(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned
