"""Run a plan: start each node the moment its last input is accepted, longest way to go first.

One loop owns all decisions. Attempts run at the same time as tasks of that loop; their outputs
are accepted by the loop, one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from seeknal_k8s import verdict, workspace
from seeknal_k8s.backends import Attempt, Share
from seeknal_k8s.endings import never_ran, of_cached, result_of, state_record
from seeknal_k8s.events import NodeEnded, NodeRetrying, NodeStarted
from seeknal_k8s.logs import redact
from seeknal_k8s.plan import critical_path
from seeknal_k8s.quantity import format_memory
from seeknal_k8s.results import RunResults
from seeknal_k8s.store import unavailable

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from seeknal_k8s.attempt import Ending
    from seeknal_k8s.backends import Backend
    from seeknal_k8s.events import Observer
    from seeknal_k8s.graph import Node
    from seeknal_k8s.options import Resolved
    from seeknal_k8s.plan import NodeRun, Plan
    from seeknal_k8s.results import PrefectRunResult
    from seeknal_k8s.store import RunFolder
    from seeknal_k8s.verdict import Verdict

T = TypeVar("T")

MAX_BACKOFF = 600.0
"""Longest delay between two attempts, in seconds."""

_LOOK_EVERY = 2.0
"""Seconds between two looks at whether somebody wants more attempts at once."""

MEMORY_FACTOR = 1.5
"""How much more memory an attempt gets after one that ran out of it."""

PLATFORM_RETRIES = 3
"""How often a node is tried again for what is not its fault, apart from its own retries."""


@dataclass(slots=True)
class _Progress:
    """How far one node is: what it still waits for, and what its attempts have cost it."""

    run: NodeRun
    waits_for: set[str]
    options: Resolved
    share: Share
    number: int = 0
    own_failures: int = 0
    platform_failures: int = 0


class Keeper(Protocol):
    """Keeps what attempts have made, where that is not ``target/``: a backfill's intervals."""

    def accept(self, attempt: Attempt, ending: Ending) -> None:
        """Keep what a successful attempt has made."""

    def salvage(self, run: NodeRun, attempt: Attempt) -> NodeRun:
        """Keep what an attempt that failed has made before it did; return what is left to run."""


@dataclass(slots=True)
class Runner:
    """One execution of one plan.

    Outputs are published below ``home``. ``at_once`` bounds how many nodes run together.
    ``results`` and ``ended`` are of what earlier tries of the same run have done, ``running`` the
    numbers of attempts that had not ended when those were read: they are asked for again, so that
    one that ends meanwhile is not taken for an earlier one. After ``max_failures`` everything is
    stopped. With a ``keeper`` nothing is published here.
    """

    plan: Plan
    backend: Backend
    folder: RunFolder
    home: Path
    observer: Observer
    at_once: int | None = None
    fail_fast: bool = False
    full: bool = False
    results: dict[str, PrefectRunResult] = field(default_factory=dict)
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    max_failures: int | None = None
    keeper: Keeper | None = None
    _nodes: dict[str, _Progress] = field(default_factory=dict)
    _readers: dict[str, list[_Progress]] = field(default_factory=dict)
    _failures: int = 0
    _ready: list[tuple[float, str]] = field(default_factory=list)
    _attempts: dict[asyncio.Task[Ending], tuple[_Progress, Attempt]] = field(default_factory=dict)
    _delays: dict[asyncio.Task[None], _Progress] = field(default_factory=dict)
    _over: asyncio.Queue[asyncio.Task[Any]] = field(default_factory=asyncio.Queue)
    _order: dict[str, float] = field(default_factory=dict)
    _published: dict[str, tuple[str, ...]] = field(default_factory=dict)

    async def run(self) -> None:
        """Run everything; ``results`` and ``ended`` say how it went.

        Cancelling ends all attempts, and marks what had not ended as interrupted.

        Raises:
            StoreUnavailable: an accepted output or the ledger could not be written.
        """
        self._order = critical_path(self.plan)
        self.folder.forget_max_parallel()
        for node in self.plan.graph.nodes.values():
            there = tuple(file for file in node.outputs if (self.home / file).exists())
            self._published[node.id] = there
        for run in self.plan.runs:
            self._published.pop(run.node.id, None)
            self._nodes[run.key] = _Progress(
                run,
                set(run.waits_for) - set(self.results),
                run.options,
                self.backend.share(run.options),
            )
        for progress in self._nodes.values():
            for key in progress.waits_for:
                self._readers.setdefault(key, []).append(progress)
            if progress.run.key not in self.results and not progress.waits_for:
                self._push(progress)
        try:
            await self._loop()
        except asyncio.CancelledError:
            await self._cancel_attempts()
            self._close("Interrupted", "the run was interrupted before the node had ended")
            raise
        except BaseException:
            await self._cancel_attempts()
            raise

    async def _loop(self) -> None:
        while self._ready or self._attempts or self._delays:
            self._start_what_fits()
            for task in await self._have_ended():
                if task in self._delays:
                    self._push(self._delays.pop(task))
                else:
                    self._ended(*self._attempts.pop(task), task.result())
            if self._had_enough():
                await self._cancel_attempts()
                self._close("NotRun", "another node failed, and the run was told to stop then")
                return

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin a task that ``_have_ended`` will tell of."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._over.put_nowait)
        return task

    async def _have_ended(self) -> list[asyncio.Task[Any]]:
        """Wait until tasks have ended, but not for ever; return them, in that order."""
        ended = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_EVERY):
                ended.append(await self._over.get())
        while not self._over.empty():
            ended.append(self._over.get_nowait())
        return ended

    def _had_enough(self) -> bool:
        """Whether as many have failed as the run is to bear."""
        most = 1 if self.fail_fast else self.max_failures
        return most is not None and self._failures >= most

    def _push(self, progress: _Progress) -> None:
        key = progress.run.key
        heapq.heappush(self._ready, (-self._order.get(key, 0.0), key))

    def _start_what_fits(self) -> None:
        """Start ready nodes, longest way to go first, passing over those that do not fit now."""
        if not self._ready:
            return
        waiting: list[tuple[float, str]] = []
        at_once = self.folder.max_parallel() or self.at_once
        used = sum((attempt.share for _, attempt in self._attempts.values()), Share(0.0, 0))
        while self._ready and not self._full(used, at_once):
            order, key = heapq.heappop(self._ready)
            progress = self._nodes[key]
            more = used + progress.share
            if not self._attempts or more.within(self.backend.capacity):  # alone, everything does
                self._start(progress, crowd=1 + len(self._ready) + len(waiting))
                used = more
            else:
                waiting.append((order, key))
        for entry in waiting:
            heapq.heappush(self._ready, entry)

    def _full(self, used: Share, at_once: int | None) -> bool:
        """Whether nothing more can start now, whatever it asks for."""
        capacity = self.backend.capacity
        return (
            (at_once is not None and len(self._attempts) >= at_once)
            or used.cpu >= capacity.cpu
            or used.memory >= capacity.memory
        )

    def _start(self, progress: _Progress, *, crowd: int) -> None:
        run = progress.run
        earlier = self.folder.attempts(run.node.id, run.interval)
        following = int(earlier[-1].name) + 1 if earlier else 1
        progress.number = self.running.pop(run.key, following)
        reads = run.piece.inputs if run.piece else run.node.inputs
        attempt = Attempt(
            node=run.node,
            number=progress.number,
            folder=self.folder.bundle(run.node.id, run.interval) / str(progress.number),
            options=progress.options,
            share=progress.share,
            required=tuple(file for up in reads for file in self._published.get(up, ())),
            crowd=crowd + len(self._attempts),
            full=self.full,
            piece=run.piece,
        )
        self.observer(NodeStarted(run.key, progress.number))
        self._attempts[self._begin(self.backend.run(attempt))] = (progress, attempt)

    def _ended(self, progress: _Progress, attempt: Attempt, ending: Ending) -> None:
        found = verdict.read(ending)
        with contextlib.suppress(OSError):  # a full disk: then the attempt's end is told, not kept
            ending.keep(attempt.folder)
        if found.success:
            self._accept(attempt, ending)
        else:
            if self.keeper is not None:
                progress.run = self.keeper.salvage(progress.run, attempt)
            if more := self._grow(progress, found):
                self._retry(progress, f"{found.reason}: {more}", delay=0.0)
                return
            if self._may_retry(progress, found):
                why = f"{found.reason}: {ending.error or found.summary}"
                self._retry(progress, why, delay=_backoff(progress, found))
                return
        result = result_of(attempt.folder, ending, found, attempts=progress.number)
        self._finish(progress, result, ending)

    def _accept(self, attempt: Attempt, ending: Ending) -> None:
        if self.keeper is not None:
            self.keeper.accept(attempt, ending)
            return
        accept(self.folder, self.home, attempt.node, attempt.folder, ending)
        self._published[attempt.node.id] = ending.outputs

    def _may_retry(self, progress: _Progress, found: Verdict) -> bool:
        if not found.retry:
            return False
        if found.fault is verdict.Fault.PLATFORM:
            progress.platform_failures += 1
            return progress.platform_failures <= PLATFORM_RETRIES
        progress.own_failures += 1
        return progress.own_failures <= progress.run.options.options.retries

    def _grow(self, progress: _Progress, found: Verdict) -> str:
        """Give a node that ran out of memory more of it, up to its cap, apart from its retries.

        Returns what it had and gets, an empty string if there is no more for it.
        """
        now = max(progress.options.memory_bytes, progress.share.memory)
        cap = progress.options.memory_max_bytes
        if found.reason not in verdict.MEMORY or now >= cap:
            return ""
        more = min(int(now * MEMORY_FACTOR), cap)
        progress.options = progress.options.with_memory(more, f"after {found.reason}")
        progress.share = self.backend.share(progress.options)
        return f"limit {format_memory(now)}, tried again with {format_memory(more)}"

    def _retry(self, progress: _Progress, why: str, *, delay: float) -> None:
        self.observer(NodeRetrying(progress.run.key, progress.number, delay, redact(why)))
        self._delays[self._begin(asyncio.sleep(delay))] = progress

    def _finish(self, progress: _Progress, result: PrefectRunResult, ending: Ending) -> None:
        key = progress.run.key
        self.ended[key] = state_record(progress.run.node.digest, result, ending)
        self._note(key, result)
        if result.success:
            for other in self._readers.get(key, ()):
                other.waits_for.discard(key)
                if not other.waits_for:
                    self._push(other)
        else:
            self._failures += 1
            self._skip_below(key)

    def _skip_below(self, failed: str) -> None:
        """Skip what waits for a failed node, directly or not: it must never run on old data."""
        below = [failed]
        while below:
            for progress in self._readers.get(below.pop(), ()):
                key = progress.run.key
                if key not in self.results:
                    message = f"skipped, because {failed} failed"
                    self._note(key, never_ran("UpstreamFailed", message))
                    below.append(key)

    def _note(self, node_id: str, result: PrefectRunResult) -> None:
        self.results[node_id] = result
        self.observer(NodeEnded(node_id, result))

    def _close(self, reason: str, message: str) -> None:
        for node_id in self._nodes:
            if node_id not in self.results:
                self._note(node_id, never_ran(reason, message))

    async def _cancel_attempts(self) -> None:
        tasks = [*self._attempts, *self._delays]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def in_plan_order(self) -> RunResults:
        """Return the results in the order of the graph, cached nodes among them."""
        cached = set(self.plan.cached)
        ordered = {}
        for node_id in self.plan.graph.nodes:
            if node_id in self.results:
                ordered[node_id] = self.results[node_id]
            elif node_id in cached:
                ordered[node_id] = of_cached()
        return RunResults(ordered, run_id=self.folder.id)


def _backoff(progress: _Progress, found: Verdict) -> float:
    """Return the seconds until the next attempt: doubling, bounded, and not all at once.

    What the platform took away is asked for again at once, the first time.
    """
    failures = progress.own_failures + progress.platform_failures
    if found.fault is verdict.Fault.PLATFORM and failures == 1:
        return 0.0
    delay = min(MAX_BACKOFF, math.ldexp(progress.options.backoff_seconds, failures - 1))
    jitter: float = random.uniform(0.8, 1.2)  # noqa: S311 - not a secret
    return delay * jitter


def accept(folder: RunFolder, home: Path, node: Node, attempt: Path, ending: Ending) -> None:
    """Publish an attempt's outputs and remember it: the one place where ``target/`` changes.

    Raises:
        StoreUnavailable: it could not be written.
    """
    try:
        workspace.accept(attempt / "out", home, ending.outputs)
        folder.note_accepted({"node": node.id, "digest": node.digest, "attempt": attempt.name})
    except OSError as error:
        raise unavailable(home / "target", error) from error
