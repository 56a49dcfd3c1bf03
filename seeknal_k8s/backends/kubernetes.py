"""Run attempts as Kubernetes Jobs: create, wait on one shared watch, read the result from the store.

An attempt is one Job with a name of its own, so a coordinator that comes back after a crash meets
its own Jobs again (409) and goes on waiting for them instead of running anything twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from seeknal_k8s import diagnosis, exitcodes, indexes, manifest
from seeknal_k8s.attempt import AttemptSpec, Ending, write_whole
from seeknal_k8s.backends import DUCKDB_PART, Share
from seeknal_k8s.backends.clocks import LOOK_EVERY, Clocks
from seeknal_k8s.backends.complaints import Complaints
from seeknal_k8s.backends.following import JOB_NAME, RunWatch
from seeknal_k8s.cluster import Cluster
from seeknal_k8s.diagnosis import Clock
from seeknal_k8s.errors import (
    AdmissionRefused,
    AlreadyExists,
    ClusterError,
    Invalid,
    NotFound,
    QuotaExceeded,
)
from seeknal_k8s.results import NO_EXIT_CODE
from seeknal_k8s.settings import WORK, load
from seeknal_k8s.views import CONFIG_MAPS, JOBS, PODS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from seeknal_k8s.backends import Attempt
    from seeknal_k8s.diagnosis import Wait
    from seeknal_k8s.manifest import Owner
    from seeknal_k8s.options import Resolved
    from seeknal_k8s.plan import Plan
    from seeknal_k8s.settings import Settings
    from seeknal_k8s.views import JobView, PodView

_RESULT_PATIENCE = 5.0
"""Seconds a result may need to be seen through the store's volume after its Job has ended."""

_GONE_PATIENCE = 60.0
"""Seconds for a deleted Job, and its pod, to be gone."""

_QUOTA_EVERY = 5.0
"""Seconds between two tries to create a Job for which the quota has no room."""

_SEEN_PATIENCE = 10.0
"""Seconds for a created Job to come by on the watch, before it is asked for by its name."""

_ENDED = frozenset({"Succeeded", "Failed"})
"""The phases of a pod that runs no more."""


class KubernetesBackend:
    """Attempts as Jobs of one run, in one namespace.

    ``order`` makes the order for an attempt; it is written into the attempt's folder in the store,
    where the pod reads it.
    """

    reattaches = True

    def __init__(
        self,
        cluster: Cluster,
        watch: RunWatch,
        settings: Settings,
        owner: Owner,
        order: Callable[[AttemptSpec], dict[str, Any]],
    ) -> None:
        self._cluster = cluster
        self._watch = watch
        self._settings = settings
        self._owner = owner
        self._order = order
        self._about_jobs = Complaints(cluster, "Job")
        self._about_pods = Complaints(cluster, "Pod")
        self._looked_at = float("-inf")

    @property
    def capacity(self) -> Share:
        """No limit of ours: the cluster's scheduler, quota and queues share it out."""
        return Share(cpu=math.inf, memory=1 << 62)

    def share(self, options: Resolved) -> Share:
        """Return nothing: see ``capacity``."""
        del options
        return Share(cpu=0.0, memory=0)

    async def run(self, attempt: Attempt) -> Ending:
        """Run the attempt as a Job, to its end. Cancelling deletes the Job first, then raises.

        Raises:
            ClusterError: the API server refused, or could not be reached for long.
        """
        attempt.folder.mkdir(parents=True, exist_ok=True)
        spec = self._spec(attempt)
        file = attempt.folder / "order.json"
        write_whole(file, self._order(spec))  # a pod of an earlier try may be about to read it
        body = manifest.build(attempt, self._owner, self._settings, order=str(file))
        name = body["metadata"]["name"]
        with self._watch.following(name) as changed:
            stop = asyncio.Event()
            creating = asyncio.create_task(self._create(body, stop))
            try:
                made = await asyncio.shield(creating)
                if isinstance(made, Ending):
                    return made
                return await self._see_to_its_end(name, made.uid, spec, changed)
            except asyncio.CancelledError:
                # A request that is given up may still be carried out, after the deletion.
                stop.set()
                await asyncio.gather(creating, return_exceptions=True)
                await self._delete(name)
                raise

    def _spec(self, attempt: Attempt) -> AttemptSpec:
        options, node, home = attempt.options, attempt.node, self._settings.store_path
        return AttemptSpec(
            node_id=node.id,
            folder=str(attempt.folder),
            project=self._settings.project_path,
            target=f"{home}/target",
            inputs=attempt.inputs,
            undeclared=node.undeclared,
            memory=int(options.memory_bytes * DUCKDB_PART),
            threads=math.ceil(options.cpu_cores),
            spill=int(options.ephemeral_storage_bytes * DUCKDB_PART),
            scratch=f"{WORK}/scratch",
            timeout=attempt.timeout,
            allow_failed_materialization=options.options.allow_failed_materialization,
            full=attempt.full,
            piece=attempt.piece,
        )

    async def _create(self, body: dict[str, Any], stop: asyncio.Event) -> Ending | JobView:
        """Create the Job, or adopt the one that an earlier try of this run has created.

        Returns the Job, or how the attempt ended if the Job may not be created. What would refuse every other
        Job as well, such as RBAC, is raised.
        """
        until = time.monotonic() + self._settings.queue_timeout
        while True:
            try:
                return await self._cluster.create(JOBS, body)
            except AlreadyExists as error:
                found = await self._settled(body["metadata"]["name"])
                if found is not None:
                    return found if _is_ours(found, body) else _never_began("NameTaken", error)
            except QuotaExceeded as error:
                if stop.is_set() or time.monotonic() > until:
                    return _never_began("QuotaExceeded", error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _QUOTA_EVERY)
            except (AdmissionRefused, Invalid) as error:
                return _never_began("AdmissionRefused", error)

    async def _settled(self, name: str) -> JobView | None:
        """Return a Job, None if it is gone, or going and soon gone."""
        until = time.monotonic() + _GONE_PATIENCE
        while (found := await self._get(name)) is not None:
            if found.metadata.deletion_timestamp is None or time.monotonic() > until:
                break
            await asyncio.sleep(LOOK_EVERY)
        return found

    async def _get(self, name: str) -> JobView | None:
        try:
            return await self._cluster.get(JOBS, name)
        except NotFound:
            return None

    async def _see_to_its_end(
        self, name: str, uid: str, spec: AttemptSpec, changed: asyncio.Event
    ) -> Ending:
        clocks, pod, seen = Clocks(), None, False
        look = time.monotonic() + _SEEN_PATIENCE
        while True:
            changed.clear()
            again: float | None = LOOK_EVERY
            job, pod = self._watch.job(name, uid), self._watch.pod(name, uid) or pod
            if job is not None:
                seen = True
                ended = diagnosis.ending(job, pod, None)
                if ended is not None:
                    return await self._ended(name, job, pod, spec)
                clocks.see(await self._waiting(job, pod, clocks))
                left = clocks.left(self._settings)
                if left <= 0:
                    return await self._give_up(name, clocks)
                again = clocks.look_again(left)
            elif seen or self._watch.deleted(uid):
                return await self._vanished(pod, spec)
            elif time.monotonic() > look and self._may_look():
                # Was it created, and gone, between two lists of a broken watch?
                if await self._get(indexes.split(name)[0]) is None:
                    return await self._vanished(pod, spec)
                look = time.monotonic() + _SEEN_PATIENCE
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(again):
                    await changed.wait()

    def _may_look(self) -> bool:
        """Whether a Job may be asked for by its name now: of a late watch all are missing at once."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_EVERY:
            return False
        self._looked_at = now
        return True

    async def _waiting(self, job: JobView, pod: PodView | None, clocks: Clocks) -> Wait:
        """Return where the attempt stands; ask for events only while it does not get on."""
        wait = diagnosis.waiting(job, pod)
        stuck = wait.clock in {Clock.QUEUE, Clock.START} and not wait.reason
        if not stuck or time.monotonic() - clocks.since < LOOK_EVERY:
            return wait
        if pod is None:
            return diagnosis.waiting(job, pod, await self._about_jobs.about(job.name))
        return diagnosis.waiting(job, pod, await self._about_pods.about(pod.name))

    async def _ended(
        self, name: str, job: JobView, pod: PodView | None, spec: AttemptSpec
    ) -> Ending:
        pod = await self._as_it_ended(name, pod)
        result = Ending.read(spec.result_file)
        patience = time.monotonic() + _RESULT_PATIENCE
        while result is None and job.condition("Complete") and time.monotonic() < patience:
            await asyncio.sleep(0.2)  # another machine's write takes a moment to be seen here
            result = Ending.read(spec.result_file)
        ending = diagnosis.ending(job, pod, result)
        assert ending is not None  # noqa: S101 - it was not None without the result either
        if result is None and pod is not None:
            await self._keep_log(pod, spec)
        return ending

    async def _as_it_ended(self, name: str, pod: PodView | None) -> PodView | None:
        """Return the pod of an ended Job as it ended: its watch may be later than the Job's."""
        if pod is not None and pod.status.phase in _ENDED:
            return pod
        with contextlib.suppress(ClusterError):  # then what was seen of it has to do
            if pod is not None:
                return await self._cluster.get(PODS, pod.name)
            found = await self._cluster.list(PODS, labels=pods_of(name))
            return next(iter(found.items), None)
        return pod

    async def _keep_log(self, pod: PodView, spec: AttemptSpec) -> None:
        """Keep what a pod said that could not write into the store itself."""
        file = Path(spec.folder) / "stderr"
        with contextlib.suppress(ClusterError, OSError):
            text = await self._cluster.log_tail(pod.name, diagnosis.CONTAINER, 1 << 20)
            if text and not file.exists():
                file.write_bytes(text)

    async def _give_up(self, name: str, clocks: Clocks) -> Ending:
        await self._end(name, leaving=clocks.leaving)
        seconds = time.monotonic() - clocks.since
        wait = clocks.wait
        message = wait.message or f"it was {wait.clock.value} for {seconds:.0f} s"
        return Ending(exit_code=NO_EXIT_CODE, reason=wait.reason or "NotStarted", error=message)

    async def _end(self, name: str, *, leaving: bool) -> None:
        """Delete the Job. A pod on a machine that is gone stays for as long as the machine does."""
        await self._delete(name, patience=0 if leaving else _GONE_PATIENCE)

    async def _vanished(self, pod: PodView | None, spec: AttemptSpec) -> Ending:
        """Return how an attempt ended whose Job is gone: by what it left in the store, if it did."""
        result = Ending.read(spec.result_file)
        if result is not None and result.exit_code != exitcodes.TERMINATED:
            return result  # told to end, it was because of the deletion
        reason = "JobDeleted" if pod is None or pod.status.phase != "Succeeded" else "JobVanished"
        return Ending(exit_code=NO_EXIT_CODE, reason=reason, error="the Job is no longer there")

    async def _delete(self, name: str, *, patience: float = _GONE_PATIENCE) -> None:
        """Delete a Job and see that it is gone."""
        with contextlib.suppress(NotFound):
            await self._cluster.delete(JOBS, name, propagation="Foreground")
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if await self._get(name) is None:
                return
            await asyncio.sleep(LOOK_EVERY / 2)


def pods_of(name: str) -> str:
    """Return the selector of the pods of a Job, or of one of its indexes."""
    job, index = indexes.split(name)
    return f"{JOB_NAME}={job}" + (f",{indexes.LABEL}={index}" if index else "")


def _is_ours(found: JobView, body: dict[str, Any]) -> bool:
    """Whether a Job is the one that ``body`` asks for: of the same run, node and attempt."""
    wanted = body["metadata"]["labels"]
    mine = ("seeknal.io/run", "seeknal.io/node", "seeknal.io/attempt")
    return all(found.labels.get(label) == wanted[label] for label in mine)


def _never_began(reason: str, error: ClusterError) -> Ending:
    return Ending(exit_code=NO_EXIT_CODE, reason=reason, error=str(error))


_Kind = TypeVar("_Kind", bound=KubernetesBackend)


@contextlib.asynccontextmanager
async def open_backend(
    settings: Settings | None,
    *,
    run_id: str,
    plan: Plan,
    order: Callable[[AttemptSpec], dict[str, Any]],
    kind: type[_Kind],
) -> AsyncIterator[_Kind]:
    """Give the backend for one run: its anchor is there, its watches run.

    Every node's manifest is built first, so that a patch that breaks one refuses the run.

    Raises:
        UsageError, ProjectRefused: the settings, or a node's options, make no valid Job.
        ClusterError: the API server refused, or could not be reached.
    """
    settings = settings or load()
    settings.ensure_runnable()
    draft = manifest.Owner(run_id, plan.graph.name, "draft", "draft")
    for run in plan.runs:
        manifest.build(manifest.Draft(run.node, run.options), draft, settings, order="/draft")
    async with Cluster(namespace=settings.namespace, context=settings.context) as cluster:
        owner = await own(cluster, settings, run_id, plan.graph.name)
        async with RunWatch(cluster, run_id) as watch:
            yield kind(cluster, watch, settings, owner, order)


async def own(cluster: Cluster, settings: Settings, run_id: str, project: str) -> Owner:
    """Create the run's anchor, or find the one an earlier try of the run has created.

    Raises:
        Conflict: there is an anchor of this name, but of another project or another store.
        ClusterError: the API server refused, or could not be reached.
    """
    body = manifest.anchor(run_id, project, settings)
    try:
        found = await cluster.create(CONFIG_MAPS, body)
    except AlreadyExists:
        found = await cluster.get(CONFIG_MAPS, body["metadata"]["name"])
        told = found.data or {}
        if any(told.get(key) != body["data"][key] for key in ("project", "run", "store")):
            raise
    return manifest.Owner(run_id, project, found.name, found.uid)
