"""How we run on Kubernetes, from environment variables: the only reader of ``os.environ``.

A field ``namespace`` is read from ``SEEKNAL_K8S_NAMESPACE``. Durations are seconds or texts such
as ``90s``, ``10m`` or ``1h30m``; lists are written with commas, maps as JSON; an empty variable
counts as none. ``python -m seeknal_k8s.settings`` prints ``docs/settings.md``.
"""

from __future__ import annotations

import json
import math
import os
import posixpath
import re
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from seeknal_k8s.errors import UsageError
from seeknal_k8s.names import (
    DOTTED_NAME_PATTERN,
    LABEL_KEY_PATTERN,
    LABEL_VALUE_PATTERN,
    NAME_PATTERN,
)
from seeknal_k8s.quantity import format_duration, parse_duration

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

PREFIX = "SEEKNAL_K8S_"
WORK = "/work"
"""Where a node's pod has its workspace, its home and its caches: a disk of its own."""
TMP = "/tmp"  # noqa: S108 - a mount of the pod's own, not a folder that others can write
"""Where a node's pod has its temporary files: a disk of its own."""

OURS = ("seeknal.io/", "batch.kubernetes.io/", "prefect.io/")
"""Prefixes of labels that mean something to us, to Kubernetes or to Prefect.

A Job with the label ``prefect.io/flow-run-id`` would decide over that flow run's state.
"""


def _path(value: str) -> str:
    if value != posixpath.normpath(value) or not value.startswith("/") or value.startswith("//"):
        raise ValueError(f"{value!r} is not an absolute path in its shortest form, such as /store")
    if value == "/" or ":" in value:
        raise ValueError(f"{value!r} cannot be mounted; write a path such as /store")
    return value


def _fitting(pattern: str, longest: int, what: str) -> AfterValidator:
    def check(value: str) -> str:
        if len(value) > longest or not re.fullmatch(pattern, value):
            raise ValueError(f"{value!r} is not {what}, up to {longest} characters")
        return value

    return AfterValidator(check)


def _duration(shortest: str, longest: str) -> BeforeValidator:
    def seconds(value: object) -> int:
        found = parse_duration(value)
        if not parse_duration(shortest) <= found <= parse_duration(longest):
            raise ValueError(f"{value!r} is not between {shortest} and {longest}")
        return math.ceil(found)

    return BeforeValidator(seconds)


def _from_json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError('it is not JSON; write a map, such as {"team": "data"}') from None


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(name.strip() for name in value.split(",") if name.strip())


_WAIT, _KEEP = _duration("1s", "720h"), _duration("1m", "720h")
_Seconds = Annotated[int, _WAIT]
_Path = Annotated[str, AfterValidator(_path)]
_Name = Annotated[
    str, _fitting(NAME_PATTERN, 63, "a name of lower-case letters, digits and inner dashes")
]
_DottedName = Annotated[
    str,
    _fitting(
        DOTTED_NAME_PATTERN, 253, "a name of lower-case letters, digits, inner dashes and dots"
    ),
]
_Image = Annotated[str, _fitting(r"\S+", 1024, "the name of an image")]
_Pool = Annotated[
    str, _fitting(r"(?!prefect)[^/%&<>]+", 200, "the name of a work pool, without / % & < >")
]
_Key = Annotated[str, _fitting(LABEL_KEY_PATTERN, 317, "a key such as team or example.com/team")]
_Value = Annotated[
    str, _fitting(LABEL_VALUE_PATTERN, 63, "a label of letters, digits and inner dashes and dots")
]
_Labels = Annotated[dict[_Key, _Value], NoDecode, BeforeValidator(_from_json)]
_Annotations = Annotated[dict[_Key, str], NoDecode, BeforeValidator(_from_json)]
_PodPart = Literal["metadata", "spec"]
_Patch = Annotated[dict[_PodPart, JsonValue], NoDecode, BeforeValidator(_from_json)]
_Names = Annotated[tuple[_DottedName, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """How we run on Kubernetes.

    Arguments go before environment variables. ``load`` is the way to make one; the class itself
    raises pydantic's errors.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid"
    )

    on: Literal["local", "kubernetes"] = Field(
        default="local",
        description="Where nodes run if nothing else is said: local (processes) or kubernetes (Jobs).",
    )
    context: str | None = Field(
        default=None,
        min_length=1,
        description="The context of the kubeconfig to use; none: its current one, or the pod's own.",
    )
    namespace: _Name = Field(
        default="default", description="The namespace of the Jobs, up to 63 characters."
    )
    image: _Image | None = Field(
        default=None,
        description="The container image with seeknal-k8s, and usually the project, in it. Needed.",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None,
        description="Always, IfNotPresent or Never; none: Always for the tag `latest`, else "
        "IfNotPresent, as Kubernetes decides.",
    )
    image_pull_secrets: _Names = Field(
        default=(), description="Names of Secrets with registry credentials, with commas."
    )
    node_service_account: _DottedName = Field(
        default="default",
        description="The service account of nodes' pods. They get no token of it.",
    )
    runner_service_account: _DottedName = Field(
        default="seeknal-runner",
        description="The service account of a run that `submit` starts inside the cluster.",
    )
    store_path: _Path = Field(
        default="/store",
        description="The absolute path of the store in every pod, the coordinator's included.",
    )
    store_claim: _DottedName | None = Field(
        default=None,
        description="The PersistentVolumeClaim with the store, ReadWriteMany unless all pods share "
        "a machine. This or `store_host_path` is needed.",
    )
    store_host_path: _Path | None = Field(
        default=None,
        description="A folder of the machine with the store, for clusters of one machine such as "
        "kind. Pod Security *restricted* and *baseline* refuse it.",
    )
    project_path: _Path = Field(
        default="/project",
        description="The absolute path of the project in every pod: in the image, below "
        "`store_path`, or on a volume of its own.",
    )
    project_claim: _DottedName | None = Field(
        default=None,
        description="The PersistentVolumeClaim with the project, mounted read-only at "
        "`project_path`; none: the project is in the image or in the store.",
    )
    project_host_path: _Path | None = Field(
        default=None,
        description="A folder of the machine with the project, mounted read-only at "
        "`project_path`, for clusters of one machine.",
    )
    work_pool: _Pool = Field(
        default="seeknal",
        description="The Prefect work pool that deployments go to, where they name none.",
    )
    max_jobs: int = Field(
        default=50, ge=1, le=10_000, description="How many pods a run has at once, 1 to 10000."
    )
    queue: _Name | None = Field(
        default=None,
        description="The Kueue LocalQueue that admits Jobs, where a node names none; none: not "
        "queued.",
    )
    priority_class: _DottedName | None = Field(
        default=None,
        description="The PriorityClass of pods, where a node names none; none: the cluster's "
        "default.",
    )
    queue_timeout: _Seconds = Field(
        default=3600, description="How long a Job may wait for quota or its queue, 1s to 720h."
    )
    schedule_timeout: _Seconds = Field(
        default=600, description="How long a pod may wait for a machine, 1s to 720h."
    )
    start_timeout: _Seconds = Field(
        default=600,
        description="How long a pod with a machine may take to start, pulling its image included, "
        "1s to 720h.",
    )
    image_pull_grace: _Seconds = Field(
        default=180,
        description="How long an image that cannot be pulled is tried again, within "
        "`start_timeout`, 1s to 720h.",
    )
    deadline_margin: _Seconds = Field(
        default=60,
        description="What Kubernetes' own deadline for a Job allows beyond the node's `timeout`, "
        "the waits above and the time to end, 1s to 720h.",
    )
    ttl: Annotated[int, _KEEP] = Field(
        default=86_400,
        description="How long an ended Job, its pod and its log are kept in the cluster, 1m to "
        "720h.",
    )
    labels: _Labels = Field(
        default={}, description="More labels for everything we create, a JSON map."
    )
    annotations: _Annotations = Field(
        default={}, description="More annotations for everything we create, a JSON map."
    )
    node_pod_template: _Patch = Field(
        default={},
        description="A patch to every node's pod, before the node's own `pod_template`: a JSON map "
        "with `metadata` and `spec` in Kubernetes' spelling.",
    )

    @field_validator("labels", "annotations")
    @classmethod
    def _not_ours(cls, value: dict[str, str]) -> dict[str, str]:
        if ours := [key for key in value if key.startswith(OURS)]:
            raise ValueError(f"`{ours[0]}` is not for you to set; it has a meaning already")
        return value

    @model_validator(mode="after")
    def _one_volume_each(self) -> Settings:
        for one, other in (
            ("store_claim", "store_host_path"),
            ("project_claim", "project_host_path"),
        ):
            if getattr(self, one) and getattr(self, other):
                raise ValueError(f"{_env(one)} and {_env(other)}: set only one of them")
        if self.project_claim and self.project_claim == self.store_claim:
            # A pod that mounts one claim as two volumes may never start.
            raise ValueError(
                f"{_env('project_claim')}: the store's volume is mounted already; leave this out "
                f"and set {_env('project_path')} to the project's place below {self.store_path}"
            )
        return self

    @model_validator(mode="after")
    def _paths_apart(self) -> Settings:
        for field in ("store_path", "project_path"):
            path = getattr(self, field)
            if f"{path}/".startswith((f"{WORK}/", f"{TMP}/")):
                raise ValueError(
                    f"{_env(field)}: {path} is in {WORK} or {TMP}, the pod's own disks"
                )
        if self.store_path == self.project_path:
            raise ValueError(f"{_env('store_path')} and {_env('project_path')}: they are the same")
        return self

    def ensure_runnable(self) -> None:
        """Do nothing if a Job can be made of these settings.

        Raises:
            UsageError: there is no image, or no volume for the store; both are named.
        """
        missing = []
        if self.image is None:
            missing.append(f"{_env('image')} is not set: name the image that nodes run in")
        if self.store_claim is None and self.store_host_path is None:
            missing.append(
                f"{_env('store_claim')} is not set: name the PersistentVolumeClaim that the "
                f"coordinator and the nodes share, or set {_env('store_host_path')} on kind"
            )
        if missing:
            raise UsageError("\n".join(missing))


def load(**given: Any) -> Settings:
    """Return the settings: what is given here, else the environment, else the defaults.

    Raises:
        UsageError: everything that is wrong, each with the name of its environment variable.
    """
    problems = _misspelt()
    try:
        settings = Settings(**given)
    except ValidationError as error:
        problems += [_sentence(detail) for detail in error.errors(include_url=False)]
    else:
        if not problems:
            return settings
    raise UsageError("\n".join(problems))


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as documented: its variable, its default as one writes it, what it means."""

    env: str
    default: str
    description: str


def documented() -> tuple[Setting, ...]:
    """Return all settings in their order."""
    return tuple(
        Setting(_env(name), _shown(field), field.description or "")
        for name, field in Settings.model_fields.items()
    )


def page() -> str:
    """Return ``docs/settings.md``."""
    rows = [f"| `{row.env}` | {row.default} | {row.description} |" for row in documented()]
    return "\n".join([*_HEAD, *rows, ""])


_HEAD = (
    "# Settings",
    "",
    "How seeknal-k8s runs on Kubernetes is set by environment variables. How a *node* runs (its CPU,",
    "memory, retries) is set by options, in `seeknal-k8s.yml` or in the node's own file.",
    "",
    "Durations are seconds or texts such as `90s`, `10m` or `1h30m`. Lists are written with commas,",
    "maps as JSON. An empty variable counts as none.",
    "",
    "| variable | default | meaning |",
    "|---|---|---|",
)


def _env(field: str) -> str:
    return PREFIX + field.upper()


def _shown(field: FieldInfo) -> str:
    if field.default in (None, (), {}):
        return "none"
    is_duration = _WAIT in field.metadata or _KEEP in field.metadata
    return f"`{format_duration(field.default) if is_duration else field.default}`"


def _sentence(detail: ErrorDetails) -> str:
    if not detail["loc"]:  # of the settings together; it names them
        return str(detail["ctx"]["error"])
    field, *rest = (str(part) for part in detail["loc"] if part != "[key]")
    if detail["type"] == "extra_forbidden":
        return f"there is no setting `{field}`"
    # A value inside a map may be a secret, so it is not repeated; its key says which it is.
    given = detail["input"]
    subject = f"{given!r} " if isinstance(given, str | int | float) and not rest else ""
    said = "" if detail["type"] == "value_error" else subject
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    place = ".".join([_env(field), *rest])
    return f"{place}: {said}{message.removeprefix('String ')}"


def _misspelt() -> list[str]:
    # Other variables may begin like ours: Kubernetes itself sets SEEKNAL_K8S_SERVICE_HOST in every
    # pod beside a Service of our name. So only what nearly is a setting counts as one.
    known = [name.upper() for name in Settings.model_fields]
    ours = (name.removeprefix(PREFIX) for name in sorted(os.environ) if name.startswith(PREFIX))
    near = {name: get_close_matches(name, known, n=1, cutoff=0.85) for name in ours}
    return [
        f"{_env(name)}: there is no such setting; did you mean {_env(meant[0])}?"
        for name, meant in near.items()
        if meant and meant[0] != name
    ]


if __name__ == "__main__":
    sys.stdout.write(page())
