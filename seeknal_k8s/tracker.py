"""How far a run is, and how long it will probably go on: arithmetic over its events."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from seeknal_k8s.events import NodeEnded, NodeRetrying, NodeStarted, RunStarted
from seeknal_k8s.results import skipped

if TYPE_CHECKING:
    from collections.abc import Callable

    from seeknal_k8s.events import Event
    from seeknal_k8s.plan import NodeRun


@dataclass(slots=True)
class Tracker:
    """How far a run is, from the events told so far.

    ``busy`` is the sum of the seconds that nodes have run, those that still run not included.
    """

    clock: Callable[[], float] = time.monotonic
    began: float = 0.0
    runs: dict[str, NodeRun] = field(default_factory=dict)
    running: dict[str, tuple[int, float]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    failed: int = 0
    skipped: int = 0
    busy: float = 0.0

    def see(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case RunStarted(plan=plan, resumed=resumed):
                self.began = self.clock()
                self.runs = {run.node.id: run for run in plan.runs}
                self.done = set(resumed) & set(self.runs)
            case NodeStarted(node, attempt):
                self.running[node] = (attempt, self.clock())
            case NodeRetrying(node=node):
                self._stopped(node)
            case NodeEnded(node, result):
                self._stopped(node)
                self.done.add(node)
                self.skipped += skipped(result)
                self.failed += not result.success and not skipped(result)

    def _stopped(self, node: str) -> None:
        if node in self.running:
            self.busy += self.clock() - self.running.pop(node)[1]

    def seconds(self) -> float:
        """Return how long the run has taken so far."""
        return self.clock() - self.began

    def seconds_left(self) -> float | None:
        """Return about how long the rest takes, None while there is nothing to tell it from.

        Two bounds, and the larger counts: the longest chain of nodes that wait for each other,
        and all the work left, divided by how many nodes have run at once on average so far. A
        node lasts as long as it did the last time; one without a past, as long as the others do
        on average.
        """
        past = [run.past_seconds for run in self.runs.values() if run.past_seconds is not None]
        if not past:
            return None
        usual = sum(past) / len(past)
        chain: dict[str, float] = {}
        work = 0.0
        for node, run in self.runs.items():  # in plan order, so inputs come first
            own = self._own_seconds_left(run, usual)
            work += own
            chain[node] = own + max((chain.get(up, 0.0) for up in run.waits_for), default=0.0)
        return max(work / self._at_once(), *chain.values())

    def _own_seconds_left(self, run: NodeRun, usual: float) -> float:
        if run.node.id in self.done:
            return 0.0
        whole = usual if run.past_seconds is None else run.past_seconds
        _, since = self.running.get(run.node.id, (0, self.clock()))
        return max(0.0, whole - (self.clock() - since))

    def _at_once(self) -> float:
        now = self.clock()
        busy = self.busy + sum(now - since for _, since in self.running.values())
        return max(1.0, busy / max(self.seconds(), 1e-3))

    def waiting(self) -> list[tuple[str, list[str]]]:
        """Return the nodes that have not begun, in plan order, and what each still waits for."""
        return [
            (node, [up for up in run.waits_for if up not in self.done])
            for node, run in self.runs.items()
            if node not in self.done and node not in self.running
        ]
