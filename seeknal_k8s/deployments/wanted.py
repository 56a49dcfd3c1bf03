"""The whole state of a deployment, as it is wanted and as it is there, and the difference."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions

from seeknal_k8s.deployments.known import FLOWS, Known
from seeknal_k8s.deployments.schedules import text_of
from seeknal_k8s.settings import PREFIX
from seeknal_k8s.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from prefect.client.schemas.objects import WorkPool
    from prefect.client.schemas.responses import DeploymentResponse

    from seeknal_k8s.deployments.schedules import Timing

Overlap = Literal["skip", "queue"]
"""What becomes of a run whose time has come while the last one is still going."""

STRATEGIES = {
    "skip": ConcurrencyLimitStrategy.CANCEL_NEW,
    "queue": ConcurrencyLimitStrategy.ENQUEUE,
}
TAG = "seeknal"
"""A tag of every deployment of ours, by which they are found."""

KUBERNETES, PROCESS = "kubernetes", "process"
"""Types of work pools: a pod for each run, and a process beside the worker."""

_BY_NAME_ONLY = ("parameters", "job_variables")
"""What may hold a secret: only what has changed is told, and not its values."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """What has become of a deployment.

    ``name`` is ``flow/deployment``, as ``prefect deployment run`` takes it; ``url`` is its page in
    Prefect's UI, empty where that is not known. ``changes`` says what was updated, a line each.
    """

    id: str
    name: str
    url: str
    change: Literal["created", "updated", "unchanged"]
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """A deployment that is there. ``last_state`` is of the last run that has begun, or empty."""

    name: str
    schedule: str
    paused: bool
    work_pool: str
    next_run: datetime | None
    last_run: datetime | None
    last_state: str


@dataclass(frozen=True, slots=True)
class Place:
    """A work pool, as far as it decides over a deployment: whether its runs have an image."""

    name: str
    type: str
    has_image: bool

    @classmethod
    def of(cls, pool: WorkPool) -> Place:
        """Return what is to be known of a pool."""
        variables = pool.base_job_template.get("variables", {}).get("properties", {})
        return cls(pool.name, pool.type, "image" in variables)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A deployment as it was asked for, checked as far as that needs no server."""

    known: Known
    name: str
    project_path: str
    work_pool: str
    timing: Timing | None = None
    tags: tuple[str, ...] = ()
    image: str | None = None
    image_is_asked_for: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    job_variables: Mapping[str, Any] = field(default_factory=dict)
    concurrency_limit: int | None = 1
    overlap: Overlap = "skip"
    paused: bool = False
    description: str = ""


def project_of(request: Request, pool: Place) -> str:
    """Return the project's path as the worker of this pool has to be told.

    Raises:
        ValueError: it is relative, and nobody knows to what: a run starts in a folder of its own.
    """
    path = request.project_path
    if pool.type == PROCESS:  # a path of this machine, made absolute by the caller
        return path
    if not PurePosixPath(path).is_absolute():
        raise ValueError(
            f"project_path {path!r} is relative, but work pool {pool.name!r} runs flows elsewhere: "
            "write the absolute path of the project in the image or on its volume, such as /project"
        )
    return path


def job_variables_of(request: Request, pool: Place) -> dict[str, Any]:
    """Return what is to be different from the pool's own template for runs of this deployment.

    An image is also the one of the nodes' Jobs, or flow and nodes would not be of one version.

    Raises:
        ValueError: an image was asked for, and the pool's runs are not in containers.
    """
    given = dict(request.job_variables)
    if request.image is None or not pool.has_image:
        if request.image_is_asked_for and not pool.has_image:
            raise ValueError(
                f"image {request.image!r}: work pool {pool.name!r} is of type {pool.type}, whose "
                "runs have no image; leave it out"
            )
        return given
    given.setdefault("image", request.image)
    if pool.type == KUBERNETES:
        env = {f"{PREFIX}IMAGE": given["image"], **dict(given.get("env") or {})}
        given["env"] = env
    return given


def payload(request: Request, pool: Place) -> dict[str, Any]:
    """Return what ``create_deployment`` is given: everything, so that nothing of old stays.

    Raises:
        ValueError: the deployment does not fit the pool.
    """
    limit = request.concurrency_limit
    return {
        "name": request.name,
        "entrypoint": request.known.entrypoint,
        "work_pool_name": pool.name,
        "parameters": {**request.parameters, "project_path": project_of(request, pool)},
        "job_variables": job_variables_of(request, pool),
        "tags": sorted({TAG, *request.tags}),
        "schedules": [DeploymentScheduleCreate(schedule=request.timing.schedule)]
        if request.timing
        else [],
        "concurrency_limit": limit,
        "concurrency_options": ConcurrencyOptions(collision_strategy=STRATEGIES[request.overlap])
        if limit
        else None,
        "paused": request.paused,
        "description": request.description or request.known.flow.description,
        "version": __version__,
        "parameter_openapi_schema": request.known.flow.parameters.model_dump(exclude_unset=True),
        "enforce_parameter_schema": True,
        "pull_steps": [],  # the code is in the image
    }


def state_wanted(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a payload in the shape in which it is compared with what is there."""
    options = payload["concurrency_options"]
    return {
        **{name: payload[name] for name in _COMPARED},
        "schedule": [text_of(one.schedule) for one in payload["schedules"]],
        "overlap": options.collision_strategy.value if options else None,
        "work_pool": payload["work_pool_name"],
    }


def state_found(there: DeploymentResponse) -> dict[str, Any]:
    """Return a deployment that is there in the same shape."""
    options = there.concurrency_options
    limit = there.global_concurrency_limit
    found = {name: getattr(there, name) for name in _COMPARED if name != "concurrency_limit"}
    return {
        **found,
        "tags": sorted(there.tags),
        "pull_steps": there.pull_steps or [],
        "concurrency_limit": limit.limit if limit else None,
        "schedule": [
            text_of(one.schedule) + ("" if one.active else ", not active")
            for one in there.schedules
        ],
        "overlap": options.collision_strategy.value if options and limit else None,
        "work_pool": there.work_pool_name,
    }


_COMPARED = (
    "entrypoint",
    "parameters",
    "job_variables",
    "tags",
    "concurrency_limit",
    "paused",
    "description",
    "version",
    "parameter_openapi_schema",
    "enforce_parameter_schema",
    "pull_steps",
)


def changes(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what differs, a line each, without anything that may be secret."""
    lines = []
    for name in wanted:
        before, after = _plain(found[name]), _plain(wanted[name])
        if before == after:
            continue
        if name in _BY_NAME_ONLY:
            keys = sorted(key for key in {**before, **after} if before.get(key) != after.get(key))
            lines.append(f"{name}: {', '.join(keys)}")
        elif name in {"parameter_openapi_schema", "pull_steps"}:
            lines.append(name)
        else:
            lines.append(f"{name}: {_shown(before)} → {_shown(after)}")
    return tuple(lines)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def full_name(request: Request) -> str:
    """Return ``flow/deployment``."""
    return f"{request.known.name}/{request.name}"


def is_ours(there: DeploymentResponse) -> bool:
    """Whether a deployment runs one of our flows."""
    return str(there.entrypoint or "").startswith(f"{FLOWS}.")
