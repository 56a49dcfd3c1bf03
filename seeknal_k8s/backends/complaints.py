"""Why Jobs and pods do not get on, by their events: one list for all attempts of a run."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from seeknal_k8s.errors import ClusterError
from seeknal_k8s.views import EVENTS

if TYPE_CHECKING:
    from seeknal_k8s.cluster import Cluster
    from seeknal_k8s.views import EventView

EVERY = 10.0
"""Seconds between two lists of the same kind, however many attempts wait for one."""


class Complaints:
    """The warnings about one kind of object, by its name, listed when somebody asks and they are old.

    Where a thousand Jobs wait for their pods, a list each would be more requests than all else.
    """

    def __init__(self, cluster: Cluster, kind: str) -> None:
        self._cluster = cluster
        self._fields = f"involvedObject.kind={kind},type=Warning"
        self._found: dict[str, list[EventView]] = {}
        self._listed_at = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    async def about(self, name: str) -> list[EventView]:
        """Return the warnings about an object; none if they cannot be listed."""
        async with self._one_at_a_time:
            if time.monotonic() - self._listed_at >= EVERY:
                await self._list()
        return self._found.get(name, [])

    async def _list(self) -> None:
        with contextlib.suppress(ClusterError):  # without events it waits all the same
            listing = await self._cluster.list(EVENTS, fields=self._fields)
            self._found = {}
            for event in listing.items:
                self._found.setdefault(event.involved_object.name, []).append(event)
        self._listed_at = time.monotonic()
