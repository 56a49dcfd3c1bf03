"""A run's events as Prefect's task runs: one per node, with its inputs, its log, and its verdict.

A task run awaits a future that the coordinator's own events resolve. Nothing here decides anything,
and whatever fails here is logged and left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from prefect import Task, allow_failure, get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, StateType
from prefect.states import Completed, Failed

from seeknal_k8s.events import NodeEnded, NodeRetrying, NodeStarted, RunEnded, RunStarted
from seeknal_k8s.flows import artifacts
from seeknal_k8s.flows.nodelog import NodeLog
from seeknal_k8s.logs import redact
from seeknal_k8s.results import PrefectRunResult, skipped

if TYPE_CHECKING:
    from pathlib import Path

    from seeknal_k8s.events import Event
    from seeknal_k8s.graph import Node
    from seeknal_k8s.store import Store

_LOG = logging.getLogger("prefect.seeknal_k8s")

MOST_TASKS = 1000
"""Nodes up to which each has a task run: a server with its queue in memory loses states of more than
3,000 at once. Beyond that, the artifacts tell all."""

_LOG_EVERY = 2.0
"""Seconds between two looks at the log of a node that runs."""

_PROGRESS_EVERY = 2.0
_APART = 1 / 30
"""Seconds between the ends of task runs that end together: what a server records in that time."""

_PATIENCE = 60.0
"""Seconds since Prefect last took something, after the run, until what is left is not told."""

_CACHED = PrefectRunResult(
    success=True, exit_code=0, stdout="", stderr="", duration_seconds=0.0, reason="Cached"
)
_RESUMED = replace(_CACHED, reason="Resumed")
_NOT_RUN = {
    "Cached": "nothing it depends on has changed",
    "Resumed": "it was done before this run was taken up again",
}
"""What is said of nodes that this flow run did not run, by their reason."""


@dataclass(slots=True)
class Shown:
    """One node as it is shown: when it began, what happened to it, and how it ended."""

    node: Node
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Future[PrefectRunResult] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    first: int = 1
    attempt: int = 1
    notes: list[str] = field(default_factory=list)

    def begin(self, attempt: int) -> None:
        """Take note of an attempt; the first is a later one where a run goes on."""
        if not self.begun.is_set():
            self.first = attempt
        self.attempt = attempt
        self.begun.set()

    def end(self, result: PrefectRunResult) -> None:
        """Take note of the end."""
        if not self.ended.done():
            self.ended.set_result(result)
        self.begun.set()


class Showing:
    """Shows one run; ``see`` is the coordinator's observer. Used on the coordinator's loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._run_id = ""
        self._nodes: dict[str, Shown] = {}
        self._tasks: dict[str, asyncio.Task[State[Any] | None]] = {}
        self._progress: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._ending: RunEnded | None = None
        self._pace = asyncio.Lock()

    def see(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case RunStarted():
                self._start(event)
            case NodeStarted(node, attempt) if node in self._nodes:
                self._nodes[node].begin(attempt)
            case NodeRetrying(node=node, attempt=attempt, message=message) if node in self._nodes:
                self._nodes[node].notes.append(f"attempt {attempt}: {message}")
            case NodeEnded(node, result) if node in self._nodes:
                self._nodes[node].end(result)
            case RunEnded():
                self._ending = event
            case _:
                pass

    async def close(self) -> None:
        """Tell Prefect what is left to tell, unless it has taken nothing for a minute."""
        self._over.set()
        for shown in self._nodes.values():
            if not shown.ended.done():
                shown.end(_unknown())
        waiting: set[asyncio.Task[Any]] = {*self._tasks.values()}
        if self._progress is not None:
            waiting.add(self._progress)
        taken: set[asyncio.Task[Any]] = waiting
        while waiting and taken:
            taken, waiting = await asyncio.wait(
                waiting, timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED
            )
        for late in waiting:
            late.cancel()
        if self._ending is not None:
            await artifacts.conclude(self._ending.results, seconds=self._ending.seconds)

    def _start(self, event: RunStarted) -> None:
        self._run_id = event.run_id
        plan = event.plan
        runs = {run.node.id for run in plan.runs}
        for node in plan.graph.nodes.values():
            if node.id in runs or node.id in plan.cached or node.id in event.resumed:
                self._nodes[node.id] = Shown(node)
        for node_id in {*plan.cached, *event.resumed} & self._nodes.keys():
            self._nodes[node_id].end(_RESUMED if node_id in event.resumed else _CACHED)
        self._show_all()

    def _show_all(self) -> None:
        """Give each node a task run, unless there are too many, and all of them a progress bar."""
        if len(self._nodes) <= MOST_TASKS:
            for node_id, shown in self._nodes.items():
                if node_id not in self._tasks:
                    self._tasks[node_id] = asyncio.create_task(self._show(shown))
        else:
            _LOG.warning("%d nodes have no task runs of their own", len(self._nodes))
        if self._progress is None:
            self._progress = asyncio.create_task(self._show_progress())

    async def _show(self, shown: Shown) -> State[Any] | None:
        """Return the final state of the node's task run, None if Prefect did not take it."""
        above = [self._tasks[up] for up in shown.node.inputs if up in self._tasks]
        inputs = [state for state in await asyncio.gather(*above) if state is not None]
        await shown.begun.wait()

        async def node() -> State[Any]:
            await self._follow(shown)
            return _state(shown.ended.result(), shown.notes)

        shown_as = Task(
            fn=node,
            name=shown.node.id,
            task_run_name=shown.node.id.replace("{", "{{").replace("}", "}}"),
            tags={shown.node.kind},
            persist_result=False,
            cache_policy=NO_CACHE,
        )
        try:
            if shown.ended.done():
                async with self._pace:
                    await asyncio.sleep(_APART)
            running: Any = shown_as(
                return_state=True, wait_for=[allow_failure(state) for state in inputs]
            )
            state: State[Any] = await running
        except Exception as error:  # noqa: BLE001 - whatever a server, or the way to it, may do
            _LOG.warning("Prefect did not take the task run of %s: %s", shown.node.id, error)
            return None
        return state

    def _folder(self, shown: Shown) -> Path:
        """Return the folder with the node's attempts."""
        return self._store.folder(self._run_id).bundle(shown.node.id)

    async def _follow(self, shown: Shown) -> None:
        """Copy the node's log to Prefect, until it has ended."""
        log = NodeLog(self._folder(shown), shown.first)
        told = get_run_logger()
        noted = 0
        over = False
        while not over:
            await asyncio.wait([shown.ended], timeout=_LOG_EVERY)
            over = shown.ended.done()
            if not over or shown.ended.result().attempts:
                for level, line in log.new(shown.attempt, whole=over):
                    told.log(level, "%s", line)
            for note in shown.notes[noted:]:
                told.warning("%s", note)
            noted = len(shown.notes)
        last = log.last() if shown.ended.result().attempts else []
        if last:
            pointer = "… all of it: seeknal-k8s logs %s --run %s. Its last lines:"
            told.info(pointer, shown.node.id, self._run_id)
            for level, line in last:
                told.log(level, "%s", line)

    async def _show_progress(self) -> None:
        artifact = await artifacts.begin()
        told = 0.0
        while artifact is not None and told < 100:  # noqa: PLR2004 - percent
            over = self._over.is_set()
            ended = sum(shown.ended.done() for shown in self._nodes.values())
            percent = 100 * ended / max(1, len(self._nodes))
            if percent != told:
                await artifacts.advance(artifact, percent)
                told = percent
            if over:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), _PROGRESS_EVERY)


def _state(result: PrefectRunResult, notes: list[str]) -> State[Any]:
    """Return the state of a node's task run: the verdict, and what it took to get there."""
    said = ". ".join([*notes, _sentence(result)])
    if skipped(result):
        return State(type=StateType.CANCELLED, name="Skipped", message=said)
    if not result.success:
        return Failed(message=said)
    if result.reason in _NOT_RUN:
        return Completed(name="Cached", message=_NOT_RUN[result.reason])
    return Completed(message=said)


def _sentence(result: PrefectRunResult) -> str:
    told = f"{result.reason}, exit code {result.exit_code}"
    told += f", {result.rows} rows" if result.rows is not None else ""
    message = redact(result.message.strip())
    return f"{told}: {message}" if message and not result.success else told


def _unknown() -> PrefectRunResult:
    return PrefectRunResult(
        success=False,
        exit_code=-1,
        stdout="",
        stderr="",
        duration_seconds=0.0,
        reason="Interrupted",
        message="the run ended before it",
    )
