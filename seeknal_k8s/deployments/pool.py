"""Our work pool: whether it is what we want, and how it becomes that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate

from seeknal_k8s.deployments import template
from seeknal_k8s.deployments.api import connected, pool_named
from seeknal_k8s.deployments.wanted import KUBERNETES
from seeknal_k8s.errors import PrefectRefused

if TYPE_CHECKING:
    from prefect.client.schemas.objects import WorkPool

DESCRIPTION = "Runs Seeknal flows, each in a pod of its own. Made by `seeknal-k8s pool apply`."


@dataclass(frozen=True, slots=True)
class PoolState:
    """How a pool that is there compares with the one that is wanted.

    ``drift`` is the difference as lines of a unified diff. ``edited`` says that somebody has
    changed the template by hand, or has made it with another tool.
    """

    name: str
    there: bool
    drift: tuple[str, ...]
    edited: bool = False
    template: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Applied:
    """What has become of a pool, and the difference that there was."""

    name: str
    change: Literal["created", "updated", "unchanged"]
    drift: tuple[str, ...]


async def look(name: str, wanted: dict[str, Any]) -> PoolState:
    """Return how the pool is.

    Raises:
        PrefectRefused: there is a pool of this name and another type; or the API refuses.
        PrefectUnavailable: the API is not to be had.
    """
    async with connected() as client:
        return _state(name, await pool_named(client, name), wanted)


async def apply(name: str, wanted: dict[str, Any], *, overwrite: bool = False) -> Applied:
    """Make the pool what is wanted; its limits, and whether it is paused, stay as they are.

    Raises:
        PrefectRefused: there is a pool of this name and another type, or somebody has changed its
            template by hand and ``overwrite`` is not given; the difference is in the message.
        PrefectUnavailable: the API is not to be had.
    """
    async with connected() as client:
        state = _state(name, await pool_named(client, name), wanted)
        if not state.there:
            await client.create_work_pool(
                WorkPoolCreate(
                    name=name, type=KUBERNETES, base_job_template=wanted, description=DESCRIPTION
                )
            )
            return Applied(name, "created", state.drift)
        if not state.drift:
            return Applied(name, "unchanged", ())
        if state.edited and not overwrite:
            raise PrefectRefused(
                f"The template of work pool {name!r} has been changed by hand, or made by another "
                "tool; it is left alone. What would change:\n"
                + "\n".join(state.drift)
                + f"\n  → replace it all the same: seeknal-k8s pool apply --pool {name} --overwrite"
            )
        await client.update_work_pool(name, WorkPoolUpdate(base_job_template=wanted))
        return Applied(name, "updated", state.drift)


def _state(name: str, pool: WorkPool | None, wanted: dict[str, Any]) -> PoolState:
    if pool is None:
        return PoolState(name, there=False, drift=template.drift({}, wanted))
    if pool.type != KUBERNETES:
        raise PrefectRefused(
            f"Work pool {name!r} is of type {pool.type}, and flows are to run on Kubernetes\n"
            "  → name another with --pool, or delete this one: "
            f"prefect work-pool delete {name}"
        )
    found = pool.base_job_template
    drift, edited = template.drift(found, wanted), template.edited(found)
    return PoolState(name, there=True, drift=drift, edited=edited, template=found)
