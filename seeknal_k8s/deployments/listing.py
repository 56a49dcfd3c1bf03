"""What is deployed, when it runs next, and how it ran last."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    DeploymentFilterTags,
    FlowFilter,
    FlowFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort

from seeknal_k8s.deployments import wanted
from seeknal_k8s.deployments.api import connected
from seeknal_k8s.deployments.wanted import Listed

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

_PAGE = 200
"""Deployments per page, the most that the API gives at once."""


async def listed() -> tuple[Listed, ...]:
    """Return our deployments, by name, with when they run next and how they ran last.

    Raises:
        PrefectRefused, PrefectUnavailable: the API is not to be had.
    """
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[wanted.TAG]))
    async with connected() as client:
        found: list[DeploymentResponse] = []
        while True:
            page = await client.read_deployments(
                deployment_filter=tagged, limit=_PAGE, offset=len(found)
            )
            found += page
            if len(page) < _PAGE:
                break
        ours = [one for one in found if wanted.is_ours(one)]
        rows = await asyncio.gather(*(_listed(client, one) for one in ours))
    return tuple(sorted(rows, key=lambda row: row.name))


async def _listed(client: PrefectClient, there: DeploymentResponse) -> Listed:
    due = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    begun = FlowRunFilterState(type=FlowRunFilterStateType(not_any_=[StateType.SCHEDULED]))
    flows, after, before = await asyncio.gather(
        client.read_flows(flow_filter=FlowFilter(id=FlowFilterId(any_=[there.flow_id]))),
        _first_run(client, there, due, FlowRunSort.EXPECTED_START_TIME_ASC),
        _first_run(client, there, begun, FlowRunSort.EXPECTED_START_TIME_DESC),
    )
    return Listed(
        name=f"{flows[0].name}/{there.name}" if flows else there.name,
        schedule=", ".join(wanted.state_found(there)["schedule"]),
        paused=there.paused,
        work_pool=there.work_pool_name or "",
        next_run=after.expected_start_time if after else None,
        last_run=(before.start_time or before.expected_start_time) if before else None,
        last_state=(before.state_name or "") if before else "",
    )


async def _first_run(
    client: PrefectClient, there: DeploymentResponse, state: FlowRunFilterState, sort: FlowRunSort
) -> FlowRun | None:
    runs = await client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[there.id])),
        flow_run_filter=FlowRunFilter(state=state),
        sort=sort,
        limit=1,
    )
    return runs[0] if runs else None
