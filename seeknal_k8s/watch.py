"""One list, then one watch, for all objects of a kind that a selector lets through.

The state is a dict by uid that is always whole: a consumer decides on what is there, never on what
happened. A watch is a hint that saves lists, and is believed only as long as nothing odd is seen:
whatever is not understood ends it, and the next list says what is true. An object that a list no
longer has is gone.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, Self

import msgspec

from seeknal_k8s.cluster import Backoff
from seeknal_k8s.cluster.refusals import error_of
from seeknal_k8s.errors import (
    ApiCall,
    ClusterError,
    ClusterUnavailable,
    Gone,
    ServerError,
    Unreachable,
)
from seeknal_k8s.views import WATCH_LINE, Kind, View

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from seeknal_k8s.cluster import Cluster, Listing

_log = logging.getLogger(__name__)


class Happened(StrEnum):
    """What has become of an object since it was last looked at."""

    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Change(Generic[View]):
    """An object as it is now or, deleted, as it was last seen."""

    happened: Happened
    view: View


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When a watch is not trusted any longer, in seconds.

    ``relist`` is the longest that a watch is relied upon before all is listed again, whatever it
    says; ``watch`` is when the server ends one: both by a jitter of a fifth. ``silence`` is how
    long a watch may say nothing: the server sends a bookmark at least every 60 s. ``apart`` is the
    least between two watches. A watch that lasted for ``calm`` ends a row of failures. A server that
    refuses us, such as one that has just started and does not know its roles yet, is asked again
    for ``refused`` seconds.
    """

    relist: float = 300.0
    watch: float = 290.0
    silence: float = 150.0
    apart: float = 1.0
    calm: float = 30.0
    refused: float = 60.0


@dataclass(slots=True)
class Counters:
    """What was asked and heard: ``lists`` and ``watches`` begun, ``events`` without bookmarks."""

    lists: int = 0
    watches: int = 0
    events: int = 0
    bookmarks: int = 0
    failures: int = 0


@dataclass
class Watcher(Generic[View]):
    """The objects of one kind, kept up to date; an async context manager and iterator.

    Entering it has listed them once. Each object of that list comes as a change too, so that a
    consumer needs to know of one way only. A consumer that is late misses steps in between and
    never the last one: of each object at most one change waits. One consumer at a time.

    Raises:
        ClusterError: the first list failed or, of an iteration, the server has refused for
            ``rhythm.refused`` seconds. A server that cannot be reached is never an error here:
            ``heard`` says since when.
    """

    cluster: Cluster
    kind: Kind[View]
    labels: str
    rhythm: Rhythm = field(default_factory=Rhythm)
    counters: Counters = field(default_factory=Counters)
    heard: float = 0.0
    """When the server last said anything: ``time.monotonic()``."""

    def __post_init__(self) -> None:
        self._state: dict[str, View] = {}
        self._waiting: dict[str, Change[View]] = {}
        self._news = asyncio.Event()
        self._version = ""
        self._relist_at = 0.0
        self._backoff = Backoff()
        self._refused_since: float | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._list()
        self._task = asyncio.create_task(self._run(), name=f"watch {self.kind.resource}")
        self._task.add_done_callback(lambda _: self._news.set())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.exception()  # has been raised to whoever iterated, or nobody cared

    def snapshot(self) -> Mapping[str, View]:
        """Return all objects by uid as they are known now, in a dict of the caller's own."""
        return dict(self._state)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change[View]:
        while not self._waiting:
            if self._task is None or self._task.cancelled():
                raise StopAsyncIteration
            if self._task.done():
                self._task.result()  # raises what ended it
            self._news.clear()
            await self._news.wait()
        return self._waiting.pop(next(iter(self._waiting)))

    # --- What is true -----------------------------------------------------------------------------

    async def _list(self) -> None:
        self.counters.lists += 1
        listing = await self.cluster.list(self.kind, labels=self.labels)
        self._hear()
        self._replace(listing)
        self._version = listing.version
        self._relist_at = time.monotonic() + _jittered(self.rhythm.relist)

    def _replace(self, listing: Listing[View]) -> None:
        listed = {view.uid: view for view in listing.items}
        for uid in self._state.keys() - listed.keys():
            self._note(Happened.DELETED, self._state[uid])
        for view in listed.values():
            self._note(Happened.MODIFIED, view)

    def _note(self, happened: Happened, view: View) -> None:
        """Bring the state up to date, and let the consumer know of what has really changed."""
        known = self._state.get(view.uid)
        if happened is Happened.DELETED:
            if self._state.pop(view.uid, None) is None:
                return
        elif known is not None and known.version == view.version:
            return
        else:
            self._state[view.uid] = view
            happened = Happened.MODIFIED if known is not None else Happened.ADDED
        unseen = self._waiting.get(view.uid)
        if unseen and unseen.happened is Happened.ADDED and happened is Happened.MODIFIED:
            happened = Happened.ADDED
        self._waiting[view.uid] = Change(happened, view)
        self._news.set()

    def _hear(self) -> None:
        self.heard = time.monotonic()
        self._refused_since = None

    # --- What is said -----------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:  # noqa: ASYNC110 - each round has a pause of its own
            await asyncio.sleep(await self._round())

    async def _round(self) -> float:
        """List if need be, watch while it lasts; return the seconds until the next round.

        A watch that brought something and then ended or broke off is gone on with. After anything
        else all is listed again, ever later while that does not help: a list that succeeds is no
        sign that the next watch will.
        """
        began, events = time.monotonic(), -1
        wanted = None
        try:
            if not self._version or began >= self._relist_at:
                await self._list()
            began, events = time.monotonic(), self._events()
            await self._follow()
            broke_off = True
        except ClusterError as error:
            self._fail(error)
            broke_off = type(error) is Unreachable and events >= 0
            wanted = error.retry_after
        lasted = time.monotonic() - began
        if broke_off and (lasted >= self.rhythm.apart or self._events() > events):
            return max(0.0, _jittered(self.rhythm.apart) - lasted)
        self._version = ""
        if events >= 0 and lasted >= self.rhythm.calm:
            self._backoff.reset()
        return self._backoff.pause(wanted)

    def _events(self) -> int:
        return self.counters.events + self.counters.bookmarks

    def _fail(self, error: ClusterError) -> None:
        """Count a failure; raise it if the server refuses us for good."""
        self.counters.failures += 1
        _log.debug("watching %s: %s", self.kind.resource, error)
        if isinstance(error, ClusterUnavailable | Gone):
            return
        now = time.monotonic()
        self._refused_since = self._refused_since or now
        if self.counters.watches <= 1 or now - self._refused_since >= self.rhythm.refused:
            raise error

    async def _follow(self) -> None:
        """Watch until it is time to list again, or the server ends it."""
        self.counters.watches += 1
        lines = self.cluster.watch(
            self.kind,
            labels=self.labels,
            version=self._version,
            seconds=max(1, int(_jittered(self.rhythm.watch))),
            silence=self.rhythm.silence,
        )
        try:
            async with asyncio.timeout(max(0.0, self._relist_at - time.monotonic())):
                async with aclosing(lines):
                    async for line in lines:
                        self._read(line)
        except TimeoutError:
            return  # time to list again

    def _read(self, line: bytes) -> None:
        try:
            said = WATCH_LINE.decode(line)
            if said.type == "ERROR":
                raise error_of(self._call(), 0, bytes(said.object))
            view = self.kind.one.decode(said.object)
        except msgspec.MsgspecError as error:
            raise ServerError(f"A watch said what nobody understands: {error}") from error
        self._hear()
        if said.type == "BOOKMARK":
            self.counters.bookmarks += 1
        elif (happened := _HAPPENED.get(said.type)) is not None:
            self.counters.events += 1
            self._note(happened, view)
        else:
            raise ServerError(f"A watch told of an unknown kind of event, {said.type[:50]!r}.")
        self._version = view.version

    def _call(self) -> ApiCall:
        return ApiCall("watch", self.kind.resource, self.kind.group, self.cluster.namespace)


_HAPPENED = {
    "ADDED": Happened.ADDED,
    "MODIFIED": Happened.MODIFIED,
    "DELETED": Happened.DELETED,
}


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.0)  # noqa: S311 - not a secret
