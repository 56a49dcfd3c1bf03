"""All Jobs and pods of one run on one watch each, handed out by the name of the Job."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Self

from seeknal_k8s import indexes
from seeknal_k8s.names import label_value
from seeknal_k8s.views import JOBS, PODS
from seeknal_k8s.watch import Happened, Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seeknal_k8s.cluster import Cluster
    from seeknal_k8s.views import JobView, PodView

_CONTROLLER = "batch.kubernetes.io/controller-uid"
JOB_NAME = "batch.kubernetes.io/job-name"
"""The label with which the Job controller marks its pods."""


class RunWatch:
    """What the cluster says about one run's Jobs; an async context manager.

    The names of an Indexed Job's indexes (see ``indexes``) may be used where a Job's are.

    A pod is remembered as it was last seen, also when it is gone: only its own record tells an
    out-of-memory kill from a deletion.
    """

    def __init__(self, cluster: Cluster, run_id: str) -> None:
        labels = f"seeknal.io/run={label_value(run_id)}"
        self._jobs = Watcher(cluster, JOBS, labels)
        self._pods = Watcher(cluster, PODS, labels)
        self._job: dict[str, JobView] = {}
        self._pod: dict[str, PodView] = {}
        self._deleted: set[str] = set()  # by uid: a name can be taken again
        self._gone: set[str] = set()
        self._changed: dict[str, asyncio.Event] = {}
        self._indexes: defaultdict[str, set[str]] = defaultdict(set)
        self._pumps: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._jobs)
            await stack.enter_async_context(self._pods)
            self._pumps = [
                asyncio.create_task(self._follow_jobs()),
                asyncio.create_task(self._follow_pods()),
            ]
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        await self._stack.aclose()

    @contextlib.contextmanager
    def following(self, name: str) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever something about this Job has changed."""
        changed = self._changed.setdefault(name, asyncio.Event())
        job, index = indexes.split(name)
        if index:
            self._indexes[job].add(name)
        try:
            yield changed
        finally:
            del self._changed[name]
            self._indexes[job].discard(name)

    def job(self, name: str, uid: str) -> JobView | None:
        """Return the Job as it is now, None while, or since, it is not there."""
        self._raise_if_broken()
        of, index = indexes.split(name)
        job = self._job.get(of)
        if job is None or job.uid != uid:
            return None
        return indexes.of(job, int(index)) if index else job

    def pod(self, name: str, uid: str) -> PodView | None:
        """Return the pod of the Job of this uid as it was last seen."""
        pod = self._pod.get(name)
        return pod if pod is not None and pod.labels.get(_CONTROLLER, uid) == uid else None

    def gone(self, pod: PodView) -> bool:
        """Whether the pod is no longer there, although it is remembered."""
        return pod.uid in self._gone

    def deleted(self, uid: str) -> bool:
        """Whether the Job was there and is gone."""
        return uid in self._deleted

    def _raise_if_broken(self) -> None:
        """Let a watch that the server has refused for good end the attempts that rely on it."""
        for pump in self._pumps:
            if pump.done() and not pump.cancelled() and (error := pump.exception()):
                raise error

    async def _follow_jobs(self) -> None:
        try:
            async for change in self._jobs:
                name = change.view.name
                if change.happened is Happened.DELETED:
                    self._job.pop(name, None)
                    self._deleted.add(change.view.uid)
                else:
                    self._job[name] = change.view
                self._wake(name)
        finally:
            self._wake_all()

    async def _follow_pods(self) -> None:
        try:
            async for change in self._pods:
                name = change.view.labels.get(JOB_NAME, "")
                if index := change.view.labels.get(indexes.LABEL):
                    name = indexes.key(name, index)
                known = self._pod.get(name, change.view)
                # A deletion has the last state of all: that of the end may never come by itself.
                if change.happened is not Happened.DELETED or known.uid == change.view.uid:
                    self._pod[name] = change.view
                if change.happened is Happened.DELETED:
                    self._gone.add(change.view.uid)
                self._wake(name)
        finally:
            self._wake_all()

    def _wake(self, name: str) -> None:
        for one in (name, *self._indexes.get(name, ())):
            if one in self._changed:
                self._changed[one].set()

    def _wake_all(self) -> None:
        for changed in self._changed.values():
            changed.set()
