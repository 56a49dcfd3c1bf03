"""A deployment as a ``prefect.yaml``, for those who deploy with Prefect's own command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

from seeknal_k8s.deployments import wanted
from seeknal_k8s.deployments.deploy import payload_for
from seeknal_k8s.deployments.wanted import Place
from seeknal_k8s.errors import UsageError

if TYPE_CHECKING:
    from prefect.client.schemas.schedules import SCHEDULE_TYPES

    from seeknal_k8s.deployments.wanted import Request


def prefect_yaml(request: Request) -> dict[str, Any]:
    """Return what ``prefect deploy --all`` reads, for a pool of type kubernetes.

    Raises:
        UsageError: the file cannot say it: its flows have their own names only.
    """
    if request.known.renamed:
        own = request.known.flow.name
        raise UsageError(
            f"a prefect.yaml cannot call a flow {request.known.name!r}: Prefect takes its own name\n"
            f"  → call it {own}/{request.name}, or deploy it without --print"
        )
    body = payload_for(request, Place(request.work_pool, wanted.KUBERNETES, has_image=True))
    deployment = {
        "name": body["name"],
        "entrypoint": body["entrypoint"],
        "version": body["version"],
        "description": body["description"],
        "tags": body["tags"],
        "parameters": body["parameters"],
        "schedules": [_schedule(one.schedule) for one in body["schedules"]],
        "paused": body["paused"],
        "concurrency_limit": _limit(request),
        "work_pool": {"name": request.work_pool, "job_variables": body["job_variables"]},
        # An empty list; without one Prefect notes this machine's folder for pods to go to.
        "pull": [],
    }
    return {"deployments": [{name: value for name, value in deployment.items() if value != ""}]}


def _schedule(schedule: SCHEDULE_TYPES) -> dict[str, Any]:
    zone = getattr(schedule, "timezone", None)
    if isinstance(schedule, CronSchedule):
        return {"cron": schedule.cron, "timezone": zone}
    if isinstance(schedule, IntervalSchedule):
        anchor = schedule.anchor_date.isoformat()
        seconds = schedule.interval.total_seconds()
        return {"interval": seconds, "anchor_date": anchor, "timezone": zone}
    assert isinstance(schedule, RRuleSchedule)  # noqa: S101 - there are only these three
    return {"rrule": schedule.rrule, "timezone": zone}


def _limit(request: Request) -> dict[str, Any] | None:
    if request.concurrency_limit is None:
        return None
    strategy = wanted.STRATEGIES[request.overlap].value
    return {"limit": request.concurrency_limit, "collision_strategy": strategy}
