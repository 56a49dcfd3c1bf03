"""Whether Prefect can take and run our deployments: its version, its workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import prefect

from seeknal_k8s.deployments.api import api_url, connected, pool_named

if TYPE_CHECKING:
    from datetime import datetime

    from prefect.client.schemas.objects import Worker


@dataclass(frozen=True, slots=True)
class Api:
    """Where the API is, and the versions of both sides, such as ``3.8.8``."""

    url: str
    server: str
    client: str


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker of a pool, and when it was heard of last."""

    name: str
    online: bool
    last: datetime | None


async def api() -> Api:
    """Return who answers.

    Raises:
        PrefectRefused, PrefectUnavailable: nobody, or it does not let us in.
    """
    async with connected() as client:
        return Api(api_url(), await client.api_version(), prefect.__version__)


async def workers(pool: str) -> tuple[WorkerSeen, ...]:
    """Return the workers that a pool has had, those that are at work first; none without a pool.

    Raises:
        PrefectRefused, PrefectUnavailable: the API is not to be had.
    """
    async with connected() as client:
        if await pool_named(client, pool) is None:
            return ()
        found = await client.read_workers_for_work_pool(pool)
    return tuple(sorted(map(_seen, found), key=lambda one: (not one.online, one.name)))


def _seen(worker: Worker) -> WorkerSeen:
    online = worker.status.value == "ONLINE"
    return WorkerSeen(worker.name, online, worker.last_heartbeat_time)
