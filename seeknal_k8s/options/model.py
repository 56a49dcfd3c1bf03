"""What can be said about how a node runs, and what is wrong with what was said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)

from seeknal_k8s.errors import Problem
from seeknal_k8s.quantity import (
    DURATION_PATTERN,
    QUANTITY_PATTERN,
    format_cpu,
    format_duration,
    format_memory,
    parse_cpu,
    parse_duration,
    parse_memory,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pydantic_core import ErrorDetails

_LISTED = 25  # so many known names still fit into one message
_PRIVATE = ("env", "pod_template")  # may hold secrets, so a message never repeats their values
# Pydantic speaks of Python's types; whoever wrote the file thinks in those of YAML.
_IN_YAML_WORDS = {
    "string_type": "should be a text, so put it in quotes",
    "tuple_type": "should be a list",
    "dict_type": "should be a mapping",
    "model_type": "should be a mapping",
}

_Number = TypeVar("_Number", int, float)


def _within(value: object, parse: Callable[[object], _Number], low: str, high: str) -> _Number:
    number = parse(value)
    if not parse(low) <= number <= parse(high):
        raise ValueError(f"{value!r} is not between {low} and {high}")
    return number


def _cpu(value: object) -> str:
    return format_cpu(_within(value, parse_cpu, "1m", "4096"))


def _memory(value: object) -> str:
    return format_memory(_within(value, parse_memory, "16Mi", "64Ti"))


def _disk(value: object) -> str:
    return format_memory(_within(value, parse_memory, "1Mi", "64Ti"))


def _duration(value: object) -> str:
    return format_duration(_within(value, parse_duration, "1s", "720h"))


def _number_as_text(value: object) -> object:
    # Kubernetes takes only texts here. A bool stays what it is and is refused: `yes` in YAML is
    # True, and nobody can tell whether the program wants "yes", "true" or "1".
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def _without_nulls(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    return {key: item for key, item in value.items() if item is not None}


def _count_as_gpu(value: object) -> object:
    return {"count": value} if isinstance(value, int) else value


_QuantityText = Annotated[str, Field(pattern=QUANTITY_PATTERN)] | int | float
_DurationText = Annotated[str, Field(pattern=DURATION_PATTERN)] | int | float
_Cpu = Annotated[str, BeforeValidator(_cpu, json_schema_input_type=_QuantityText)]
_Memory = Annotated[str, BeforeValidator(_memory, json_schema_input_type=_QuantityText)]
_Disk = Annotated[str, BeforeValidator(_disk, json_schema_input_type=_QuantityText)]
_Duration = Annotated[str, BeforeValidator(_duration, json_schema_input_type=_DurationText)]

# RFC 1123, as Kubernetes wants the names of Secrets, service accounts, priority classes and queues.
_ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
_EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_LabelKey = Annotated[
    str, Field(pattern=r"^([a-z0-9][-a-z0-9.]*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
]
_LabelText = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")]
_GpuCount = Annotated[StrictInt, Field(ge=1, le=64)]
_TextInput = str | int | float | None
_EnvValue = Annotated[str, BeforeValidator(_number_as_text, json_schema_input_type=_TextInput)]
_LabelValue = Annotated[
    _LabelText, BeforeValidator(_number_as_text, json_schema_input_type=_TextInput)
]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Gpu(_Model):
    """GPUs for one node. ``gpu: 1`` is short for ``gpu: {count: 1}``."""

    count: _GpuCount = Field(description="How many GPUs, 1 to 64.", examples=[1])
    resource: str = Field(
        default="nvidia.com/gpu",
        pattern=r"^[a-z0-9][-a-z0-9.]*/[A-Za-z0-9][-A-Za-z0-9_.]*$",
        description="The resource name under which the cluster's device plugin offers them.",
        examples=["amd.com/gpu"],
    )


class Toleration(_Model):
    """A taint that the pod may live with, in Kubernetes' own spelling."""

    key: str | None = Field(default=None, description="The taint's key; none: every taint.")
    operator: Literal["Exists", "Equal"] = Field(
        default="Equal", description="Whether the value has to be equal, or the key just exist."
    )
    value: str | None = Field(default=None, description="The taint's value, for Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="The taint's effect; none: every effect."
    )
    toleration_seconds: StrictInt | None = Field(
        default=None,
        alias="tolerationSeconds",
        description="How long the pod stays after a NoExecute taint appears, seconds; none: ever.",
    )


class NodeOptions(_Model):
    """How one node runs.

    Quantities and durations are kept in canonical form (``500m``, ``1.5Gi``, ``1h30m``), ready for
    a manifest; ``Resolved`` has them as numbers. One instance may serve many nodes, so the maps in
    it are not to be changed either.
    """

    cpu: _Cpu = Field(
        default="1",
        description="CPU cores, requested and not exceeded: 2, 0.5 or 500m; 1m to 4096.",
        examples=["500m", 2],
    )
    memory: _Memory = Field(
        default="2Gi",
        description="Memory in bytes, requested and not exceeded: 4Gi or 500M; 16Mi to 64Ti.",
        examples=["4Gi", "512Mi"],
    )
    memory_max: _Memory | None = Field(
        default=None,
        description="The most memory in bytes that attempts may grow to after one ran out of it, "
        "16Mi to 64Ti; none, or no more than `memory`: it does not grow.",
        examples=["16Gi"],
    )
    ephemeral_storage: _Disk = Field(
        default="2Gi",
        description="Disk in bytes for the node's workspace and DuckDB's spill files: 10Gi; "
        "1Mi to 64Ti.",
        examples=["10Gi"],
    )
    gpu: Annotated[
        Gpu | None, BeforeValidator(_count_as_gpu, json_schema_input_type=Gpu | _GpuCount | None)
    ] = Field(
        default=None,
        description="GPUs, 1 to 64: a count of nvidia.com/gpu, or count and resource name; "
        "none: no GPU.",
        examples=[1, {"count": 2, "resource": "amd.com/gpu"}],
    )
    retries: StrictInt = Field(
        default=0,
        ge=0,
        le=20,
        description="How many more attempts a node gets that failed by its own fault, 0 to 20. "
        "Evictions and lost machines do not count.",
        examples=[2],
    )
    backoff: _Duration = Field(
        default="10s",
        description="How long to wait before the first retry: 30s or 5m; 1s to 720h. "
        "The wait doubles, with jitter and a cap, for each one after it.",
        examples=["30s"],
    )
    timeout: _Duration | None = Field(
        default=None,
        description="The longest one attempt may take: 90 (seconds), 10m or 1h30m; 1s to 720h; "
        "none: no limit.",
        examples=["2h"],
    )
    env: Annotated[dict[_EnvName, _EnvValue], BeforeValidator(_without_nulls)] = Field(
        default={},
        description="Environment variables by name; values are texts or numbers. "
        "Anybody who can read the project can read them: secrets belong in `env_from`.",
        examples=[{"LOG_LEVEL": "debug"}],
    )
    env_from: tuple[_ObjectName, ...] = Field(
        default=(),
        description="Names of Secrets whose every key becomes an environment variable.",
        examples=[["warehouse-credentials"]],
    )
    image: str | None = Field(
        default=None,
        pattern=r"^\S+$",
        description="The container image to run in; none: the one the run was given.",
        examples=["registry.example.com/shop:1.4"],
    )
    node_selector: Annotated[dict[_LabelKey, _LabelValue], BeforeValidator(_without_nulls)] = Field(
        default={},
        description="Labels that a machine must have to run this node, up to 63 characters each.",
        examples=[{"pool": "big"}],
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(),
        description="Taints of machines that this node may run on nevertheless.",
        examples=[[{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]],
    )
    priority_class: _ObjectName | None = Field(
        default=None,
        description="The PriorityClass of the pod; none: the cluster's default.",
        examples=["batch-low"],
    )
    queue: _ObjectName | None = Field(
        default=None,
        max_length=63,
        description="The Kueue LocalQueue that admits the Job; none: not queued.",
        examples=["data-team"],
    )
    service_account: _ObjectName | None = Field(
        default=None,
        description="The service account of the pod; none: the one for nodes of the settings.",
        examples=["warehouse-reader"],
    )
    pod_template: dict[Literal["metadata", "spec"], JsonValue] = Field(
        default={},
        description="A patch, last of all, to the pod that would run: `metadata` and `spec` "
        "in Kubernetes' own spelling.",
        examples=[{"spec": {"hostAliases": [{"ip": "10.0.0.5", "hostnames": ["warehouse"]}]}}],
    )
    allow_failed_materialization: StrictBool = Field(
        default=False,
        description="Whether a node counts as succeeded although writing its result to a "
        "warehouse (`materialization:`) failed.",
        examples=[True],
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_built_in(cls, values: Any) -> Any:
        return _without_nulls(values)


def problems_of(layer: object, *, key: str = "", file: str = "", node: str = "") -> list[Problem]:
    """Return everything wrong with one layer of options, as it was written.

    ``key`` is the dotted place of the layer within ``file``, such as ``kubernetes``.
    """
    if not isinstance(layer, Mapping):
        what = f"has to be a mapping of options, but is a {type(layer).__name__}"
        return [Problem(what, f"write it like `{key}: {{memory: 4Gi}}`", file, node, key)]
    try:
        NodeOptions.model_validate(layer)
    except ValidationError as error:
        return [_problem(detail, key, file, node) for detail in error.errors(include_url=False)]
    return []


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return the known name nearest to a mistyped one, as advice; else the known ones if few."""
    if near := get_close_matches(name, known, n=1):
        return f"did you mean `{near[0]}`?"
    return f"known are: {', '.join(known)}" if 0 < len(known) <= _LISTED else ""


def _problem(detail: ErrorDetails, key: str, file: str, node: str) -> Problem:
    path = [str(part) for part in detail["loc"] if part != "[key]"]
    where = ".".join([key, *path] if key else path)
    if detail["type"] == "extra_forbidden":
        fix = did_you_mean(path[-1], _known_beside(path))
        return Problem(f"there is no option `{path[-1]}`", fix, file, node, where)
    if detail["type"] == "value_error":  # ours: it says what to write
        return Problem(str(detail["ctx"]["error"]), "", file, node, where)
    return Problem(_sentence(detail, path[0]), _example(path[0]), file, node, where)


def _known_beside(path: list[str]) -> list[str]:
    parents: dict[str, type[BaseModel]] = {"gpu": Gpu, "tolerations": Toleration}
    model = parents.get(path[0], NodeOptions) if len(path) > 1 else NodeOptions
    return [field.alias or name for name, field in model.model_fields.items()]


def _sentence(detail: ErrorDetails, option: str) -> str:
    given = detail["input"]
    told = isinstance(given, str | int | float) and option not in _PRIVATE
    subject = repr(given) if told else "what is written here"
    said = detail["msg"].removeprefix("Input ").removeprefix("String ")
    return f"{subject} {_IN_YAML_WORDS.get(detail['type'], said)}"


def _example(option: str) -> str:
    if option not in NodeOptions.model_fields:
        return ""
    example, *_ = NodeOptions.model_fields[option].examples or [""]
    text = example if isinstance(example, str) else json.dumps(example)  # JSON is YAML, too
    return f"write it like `{option}: {text}`"
