"""The first attempts of a backfill as the indexes of one Job: one API object for all intervals.

What follows a failed index is a Job of its own. Which piece is which index is kept in the store, so a
coordinator that comes back after a crash finds the Job, and in it what it was waiting for.

    <run>/indexed/<generation>/job.json       the manifest, and the pieces by their index
    <run>/indexed/<generation>/<index>.json   the order of a piece
    <run>/indexed/<generation>/created        there once the Job is: gone then means gone
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from seeknal_k8s import indexes, manifest_indexed
from seeknal_k8s.attempt import Ending, write_whole
from seeknal_k8s.backends import Attempt
from seeknal_k8s.backends.kubernetes import KubernetesBackend, open_backend
from seeknal_k8s.diagnosis import Clock
from seeknal_k8s.errors import ClusterError, NotFound
from seeknal_k8s.manifest import Draft
from seeknal_k8s.manifest_indexed import Indexes
from seeknal_k8s.store import unavailable
from seeknal_k8s.views import JOBS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from seeknal_k8s.attempt import AttemptSpec
    from seeknal_k8s.backends.clocks import Clocks
    from seeknal_k8s.diagnosis import Wait
    from seeknal_k8s.plan import NodeRun, Plan
    from seeknal_k8s.settings import Settings
    from seeknal_k8s.store import RunFolder
    from seeknal_k8s.views import JobView, PodView

_LOOK_EVERY = 2.0
"""Seconds between two looks at whether somebody wants another speed."""


class IndexedBackend(KubernetesBackend):
    """Attempts as the indexes of a Job where they have a place in one, else as Jobs of their own."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._places: dict[str, str] = {}
        self._open: set[str] = set()
        self._left: set[str] = set()
        self._bodies: dict[str, dict[str, Any]] = {}
        self._speeds: dict[str, int] = {}
        self._generations: dict[str, Path] = {}
        self._creating: dict[str, asyncio.Task[Ending | JobView]] = {}
        self._given_up: dict[str, Ending] = {}
        self._stop = asyncio.Event()

    async def prepare(
        self,
        runs: Sequence[NodeRun],
        folder: RunFolder,
        *,
        asked: Sequence[str],
        at_once: int,
        max_failures: int | None,
    ) -> None:
        """Give every run that nothing has been tried for a place in a Job. Nothing is created yet.

        ``asked`` are the keys of all that is asked for, also of what is done by now.

        Raises:
            StoreUnavailable: the orders could not be written.
            ClusterError: the API server refused, or could not be reached.
        """
        untried = [run for run in runs if not folder.attempts(run.node.id, run.interval)]
        earlier = folder.indexed_jobs()
        try:
            for generation in earlier:
                await self._take_up(generation, folder, runs, set(asked), untried)
            if new := [run for run in untried if run.key not in self._places]:
                limits = Indexes(
                    count=len(new),
                    at_once=at_once,
                    generation=1 + len(earlier),
                    timeout=_longest(new),
                    max_failures=max_failures if _is_tried_once(new[0]) else None,
                )
                self._write(new, folder, limits)
        except OSError as error:
            raise unavailable(folder.path, error) from error
        self._open = set(self._places.values())

    async def _take_up(
        self,
        generation: Path,
        folder: RunFolder,
        runs: Sequence[NodeRun],
        asked: set[str],
        untried: Sequence[NodeRun],
    ) -> None:
        """Find the Job of an earlier try of this run, if it has to do what is to be done now.

        One that was created and is gone is left alone, one that does something else is ended.
        """
        body, pieces = _read(generation)
        if not body:
            return
        name = body["metadata"]["name"]
        ours = body["metadata"]["ownerReferences"][0]["uid"] == self._owner.anchor_uid
        job = await self._get(name)
        new = {run.key for run in untried}
        begun = (generation / "created").exists() or not new.issuperset(pieces)
        if not ours or (job is None and begun):
            return
        left = {pieces[index] for index in indexes.left(job, len(pieces))}
        if left and not (left <= asked and new.issubset(pieces)):
            if job is not None:
                await self._delete(name)
            return
        wanted = {run.key: run for run in runs}
        for index, key in enumerate(pieces):
            if key in wanted:  # inputs may have changed since, or the project
                write_whole(generation / f"{index}.json", self._order_of(wanted[key], folder))
        self._add(generation, body, [key if key in wanted else "" for key in pieces])

    def _order_of(self, run: NodeRun, folder: RunFolder) -> dict[str, Any]:
        attempt = Attempt(
            node=run.node,
            number=1,
            folder=folder.bundle(run.node.id, run.interval) / "1",
            options=run.options,
            share=self.share(run.options),
            piece=run.piece,
        )
        return self._order(self._spec(attempt))

    def _write(self, runs: Sequence[NodeRun], folder: RunFolder, limits: Indexes) -> None:
        """Write a new Job and its orders into the store."""
        generation = folder.indexed_job(limits.generation)
        generation.mkdir(parents=True, exist_ok=True)  # it was killed before it had written all
        for index, run in enumerate(runs):
            write_whole(generation / f"{index}.json", self._order_of(run, folder))
        first, last = runs[0].key.partition("/")[0], runs[-1].key.partition("/")[2]
        body = manifest_indexed.build(
            Draft(runs[0].node, runs[0].options, interval=f"{first}/{last}"),
            self._owner,
            self._settings,
            orders=str(generation),
            indexes=limits,
        )
        pieces = [run.key for run in runs]
        write_whole(generation / "job.json", {"job": body, "pieces": pieces})
        self._speeds[body["metadata"]["name"]] = body["spec"]["parallelism"]
        self._add(generation, body, pieces)

    def _add(self, generation: Path, body: dict[str, Any], pieces: Sequence[str]) -> None:
        name = body["metadata"]["name"]
        self._bodies[name], self._generations[name] = body, generation
        for index, piece in enumerate(pieces):
            if piece:
                self._places[piece] = indexes.key(name, index)

    async def run(self, attempt: Attempt) -> Ending:
        """Run the attempt to its end; a Job with indexes is ended by ``close``, not by cancelling this.

        Raises:
            ClusterError: the API server refused, or could not be reached for long.
        """
        place = self._places.get(attempt.interval) if attempt.number == 1 else None
        if place is None:
            return await super().run(attempt)
        job, _ = indexes.split(place)
        with self._watch.following(place) as changed:
            made = await asyncio.shield(self._created(job))
            # Not before: its folder says that the Job was there, see _take_up.
            attempt.folder.mkdir(parents=True, exist_ok=True)
            if isinstance(made, Ending):
                return made
            ending = await self._see_to_its_end(place, made.uid, self._spec(attempt), changed)
        if ending.reason == "JobDeleted":
            return self._given_up.get(job, ending)
        if place not in self._left:
            self._open.discard(place)
        return ending

    def _created(self, job: str) -> asyncio.Task[Ending | JobView]:
        """Return what creates the Job, once."""
        if job not in self._creating:
            self._creating[job] = asyncio.create_task(self._make(job))
        return self._creating[job]

    async def _make(self, job: str) -> Ending | JobView:
        made = await self._create(self._bodies[job], self._stop)
        if not isinstance(made, Ending):
            file = self._generations[job] / "created"
            try:
                file.touch()
            except OSError as error:
                raise unavailable(file, error) from error
        return made

    async def _waiting(self, job: JobView, pod: PodView | None, clocks: Clocks) -> Wait:
        """Return where an index stands: while others of its Job run, its turn comes after theirs.

        A pod that is gone although its index has not ended was one too many for a lower speed. What
        an event says about pods that could not be made is no longer so once there was one.
        """
        if pod is not None and self._watch.gone(pod):
            pod = None
        wait = await super()._waiting(job, pod, clocks)
        status = job.status
        if wait.clock is not Clock.RUN and status.ready:
            clocks.since = clocks.reason_since = time.monotonic()
            return replace(wait, hopeless=False)
        if pod is None and (status.active or status.succeeded or status.failed):
            return replace(wait, hopeless=False)
        return wait

    async def _give_up(self, name: str, clocks: Clocks) -> Ending:
        """End what does not get on: for what is wrong with one pod is wrong with all that wait."""
        ending = await super()._give_up(name, clocks)
        job, index = indexes.split(name)
        if index and clocks.leaving:
            self._left.add(name)
        elif index:
            self._given_up.setdefault(job, ending)
        return ending

    async def _end(self, name: str, *, leaving: bool) -> None:
        job, index = indexes.split(name)
        # The pod of one index may be on a machine that is gone; the others have nothing to do with it.
        if not (index and leaving):
            await super()._end(job, leaving=leaving)

    async def follow_speed(self, folder: RunFolder, at_once: int) -> None:
        """Have as many pods at once as are asked for, now and meanwhile; until it is cancelled."""
        while True:
            wanted = folder.max_parallel() or at_once
            for job in [job for job, task in self._creating.items() if task.done()]:
                speed = min(wanted, self._bodies[job]["spec"]["completions"])
                if self._speeds.get(job) != speed:
                    with contextlib.suppress(ClusterError):  # then it is tried again
                        await self._speed_up(job, speed)
            await asyncio.sleep(_LOOK_EVERY)

    async def _speed_up(self, job: str, speed: int) -> None:
        with contextlib.suppress(NotFound):  # it has just gone
            await self._cluster.patch(JOBS, job, {"spec": {"parallelism": speed}})
        self._speeds[job] = speed

    async def close(self) -> None:
        """End the Jobs of which nobody has waited for every index, and see that they are gone."""
        self._stop.set()
        await asyncio.gather(*self._creating.values(), return_exceptions=True)
        for name in {indexes.split(place)[0] for place in self._open}:
            with contextlib.suppress(ClusterError):  # what ended the run is to be told
                job = await self._get(name)
                if job is not None and not job.ended:
                    await self._delete(name)


def place_of(folder: RunFolder, piece: str) -> str:
    """Return which index of which Job of a run a piece has last been; empty if it was none."""
    for generation in reversed(folder.indexed_jobs()):
        body, pieces = _read(generation)
        if piece in pieces:
            return indexes.key(body["metadata"]["name"], pieces.index(piece))
    return ""


def _read(generation: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the manifest of a Job and its pieces by their index; nothing if they are not there."""
    try:
        told = json.loads((generation / "job.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}, []
    return told["job"], told["pieces"]


def _is_tried_once(run: NodeRun) -> bool:
    """Whether an index that fails is one that has failed for good."""
    options = run.options
    return not options.options.retries and options.memory_bytes >= options.memory_max_bytes


def _longest(runs: Sequence[NodeRun]) -> float | None:
    """Return the longest that one of them may take, in seconds; None without a limit."""
    limits = [run.piece.timeout if run.piece else None for run in runs]
    return None if None in limits else max(filter(None, limits))


@contextlib.asynccontextmanager
async def open_indexed(
    settings: Settings | None,
    *,
    plan: Plan,
    asked: Sequence[str],
    folder: RunFolder,
    order: Callable[[AttemptSpec], dict[str, Any]],
    at_once: int,
    max_failures: int | None,
) -> AsyncIterator[IndexedBackend]:
    """Give the backend for one backfill, as ``kubernetes.open_backend`` does; ``asked`` as in ``prepare``.

    Raises:
        StoreUnavailable: the orders could not be written.
        UsageError, ProjectRefused: the settings, or a node's options, make no valid Job.
        ClusterError: the API server refused, or could not be reached.
    """
    async with open_backend(
        settings, run_id=folder.id, plan=plan, order=order, kind=IndexedBackend
    ) as backend:
        await backend.prepare(
            plan.runs, folder, asked=asked, at_once=at_once, max_failures=max_failures
        )
        speed = asyncio.create_task(backend.follow_speed(folder, at_once))
        try:
            yield backend
        finally:
            speed.cancel()
            await backend.close()
