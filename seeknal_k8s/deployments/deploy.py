"""``create_prefect_deployment``: check what is asked for, then make it so."""

from __future__ import annotations

import asyncio
import posixpath
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prefect.exceptions import ObjectNotFound
from prefect.utilities.urls import url_for

from seeknal_k8s.deployments import known, schedules, wanted
from seeknal_k8s.deployments.api import connected, pool_named
from seeknal_k8s.deployments.wanted import Deployed, Place, Request
from seeknal_k8s.errors import PrefectRefused, UsageError
from seeknal_k8s.settings import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import WorkPool
    from prefect.client.schemas.responses import DeploymentResponse


def create_prefect_deployment(  # noqa: PLR0913 - everything that a deployment has
    flow_name: str,
    deployment_name: str,
    project_path: str | Path,
    schedule: str | timedelta | None = None,
    tags: Sequence[str] | None = None,
    *,
    image: str | None = None,
    work_pool: str | None = None,
    timezone: str = "UTC",
    parameters: Mapping[str, Any] | None = None,
    job_variables: Mapping[str, Any] | None = None,
    concurrency_limit: int | None = 1,
    overlap: wanted.Overlap = "skip",
    paused: bool = False,
    description: str = "",
) -> Deployed:
    """Create a deployment, or make the one of this name exactly what is said here.

    ``flow_name`` is one of our flows, or a name of your own for the flow that runs a project.
    ``project_path`` is where the project is for the run: in the image or on a volume, and so
    absolute; for a pool of type ``process`` it is a folder of this machine. ``schedule`` is cron
    (``0 2 * * *``, ``@daily``), an interval (a ``timedelta``, ``every 30m``) or a rule of RFC 5545,
    in ``timezone``; None takes a schedule away. ``image`` is also the image of the nodes' Jobs;
    without one ``SEEKNAL_K8S_IMAGE`` counts, then the pool's. ``concurrency_limit`` is how many
    runs there are at once, None for any number; ``overlap`` is what becomes of one too many:
    ``skip`` or ``queue``.

    Inside a running event loop this returns a coroutine, as Prefect's own functions do.

    Raises:
        UsageError: arguments make no sense, all of them in one message; nothing was asked.
        PrefectRefused, PrefectUnavailable: there is no such pool, or the API is not to be had.
    """
    making = apply(
        checked(
            flow_name,
            deployment_name,
            str(project_path),
            schedule=schedule,
            timezone=timezone,
            tags=tuple(tags or ()),
            image=image,
            work_pool=work_pool,
            parameters=dict(parameters or {}),
            job_variables=dict(job_variables or {}),
            concurrency_limit=concurrency_limit,
            overlap=overlap,
            paused=paused,
            description=description,
        )
    )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(making)
    return cast("Deployed", making)


def checked(  # noqa: PLR0913 - as above
    flow_name: str,
    name: str,
    project_path: str,
    *,
    schedule: str | timedelta | None,
    timezone: str,
    tags: tuple[str, ...],
    image: str | None,
    work_pool: str | None,
    parameters: dict[str, Any],
    job_variables: dict[str, Any],
    concurrency_limit: int | None,
    overlap: str,
    paused: bool,
    description: str = "",
) -> Request:
    """Return what is asked for, if it makes sense; no server is asked.

    Raises:
        UsageError: it makes none; every reason is named.
    """
    settings = load()
    problems: list[str] = []
    flow = timing = None
    try:
        flow = known.find(flow_name)
    except ValueError as error:
        problems.append(str(error))
    problems += _timing_problems(schedule, timezone)
    if schedule is not None and not problems:
        timing = schedules.parse(schedule, timezone)
    problems += _plain_problems(name, project_path, concurrency_limit, overlap, parameters)
    if flow is not None:
        given = {**parameters, "project_path": project_path}
        problems += known.check_parameters(flow.flow, given)
    if problems or flow is None:
        raise UsageError("\n".join(problems))
    return Request(
        known=flow,
        name=name,
        project_path=project_path,
        work_pool=work_pool or settings.work_pool,
        timing=timing,
        tags=tags,
        image=image or settings.image,
        image_is_asked_for=image is not None,
        parameters=parameters,
        job_variables=job_variables,
        concurrency_limit=concurrency_limit,
        overlap=cast("wanted.Overlap", overlap),
        paused=paused,
        description=description,
    )


def _timing_problems(schedule: str | timedelta | None, timezone: str) -> list[str]:
    problems = []
    try:
        schedules.check_zone(timezone)
    except ValueError as error:
        problems.append(f"timezone: {error}")
    if schedule is not None:
        try:
            schedules.parse(schedule, "UTC" if problems else timezone)
        except ValueError as error:
            problems.append(f"schedule: {error}")
    return problems


def _plain_problems(
    name: str,
    project_path: str,
    concurrency_limit: int | None,
    overlap: str,
    parameters: Mapping[str, Any],
) -> list[str]:
    problems = []
    try:
        known.check_name(name, "deployment")
    except ValueError as error:
        problems.append(str(error))
    if not project_path.strip():
        problems.append("project_path is empty: write where the project is, such as /project")
    if concurrency_limit is not None and concurrency_limit < 1:
        problems.append(f"concurrency_limit {concurrency_limit}: write 1 or more, or None for any")
    if overlap not in wanted.STRATEGIES:
        problems.append(f"overlap {overlap!r}: write {' or '.join(wanted.STRATEGIES)}")
    if "project_path" in parameters:
        problems.append("parameters: the project's path is an argument of its own, leave it out")
    return problems


async def apply(request: Request) -> Deployed:
    """Make the deployment what is asked for.

    Raises:
        UsageError: it does not fit its work pool.
        PrefectRefused, PrefectUnavailable: there is no such pool, or the API is not to be had.
    """
    async with connected() as client:
        body = payload_for(request, Place.of(await _pool(client, request.work_pool)))
        name = wanted.full_name(request)
        there = await _found(client, name)
        found = {} if there is None else wanted.state_found(there)
        changes = wanted.changes(found, wanted.state_wanted(body)) if there else ()
        if there is not None and not changes:
            return Deployed(str(there.id), name, _url(there.id), "unchanged")
        flow_id = await client.create_flow_from_name(request.known.name)
        made = await client.create_deployment(flow_id=flow_id, **body)
        return Deployed(str(made), name, _url(made), "updated" if there else "created", changes)


def payload_for(request: Request, pool: Place) -> dict[str, Any]:
    """Return the whole deployment as it is sent to a pool.

    Raises:
        UsageError: it does not fit the pool.
    """
    if pool.type == wanted.PROCESS:
        path = posixpath.normpath(Path(request.project_path).absolute().as_posix())
        request = replace(request, project_path=path)
    try:
        return wanted.payload(request, pool)
    except ValueError as error:
        raise UsageError(str(error)) from None


async def _pool(client: PrefectClient, name: str) -> WorkPool:
    pool = await pool_named(client, name)
    if pool is None:
        raise PrefectRefused(
            f"There is no work pool {name!r}\n"
            f"  → create it for Kubernetes: seeknal-k8s pool apply --pool {name}\n"
            f"  → or for processes of one machine: prefect work-pool create --type process {name}"
        )
    return pool


async def _found(client: PrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return await client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def _url(deployment_id: Any) -> str:
    return url_for("deployment", obj_id=deployment_id) or ""
