"""Layers of options, one over the other, and what comes out with the place of each value."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from seeknal_k8s.errors import UsageError
from seeknal_k8s.options.model import NodeOptions, did_you_mean, problems_of
from seeknal_k8s.quantity import format_memory, parse_cpu, parse_duration, parse_memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from seeknal_k8s.graph import Node

BUILT_IN = "built-in"
COMMAND_LINE = "--set"

_MERGED = ("env", "node_selector", "pod_template")
_ENTRIES = ("env", "node_selector")  # their values are texts: `--set env.NAME=text`
_SECRET = re.compile("PASSWORD|TOKEN|SECRET|KEY", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Layer:
    """Options as somebody wrote them, and the place where, for people."""

    place: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Override:
    """One ``--set``: an option and its value, for one node or, without ``node``, for all."""

    key: str
    value: Any
    node: str = ""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The options of one node, and for each the place it comes from.

    A place reads like ``built-in``, ``seeknal-k8s.yml tags.heavy``, ``seeknal/transforms/a.yml``
    or ``--set``. A map that was put together names all its places, joined by ``" + "``.
    """

    options: NodeOptions
    origins: Mapping[str, str]

    @property
    def cpu_cores(self) -> float:
        """CPU in cores."""
        return parse_cpu(self.options.cpu)

    @property
    def memory_bytes(self) -> int:
        """Memory in bytes."""
        return parse_memory(self.options.memory)

    @property
    def memory_max_bytes(self) -> int:
        """The most memory in bytes that an attempt may get; ``memory_bytes`` when it cannot grow."""
        most = self.options.memory_max
        return max(self.memory_bytes, parse_memory(most) if most else 0)

    @property
    def ephemeral_storage_bytes(self) -> int:
        """Disk in bytes."""
        return parse_memory(self.options.ephemeral_storage)

    @property
    def backoff_seconds(self) -> float:
        """The wait before the first retry, in seconds."""
        return parse_duration(self.options.backoff)

    @property
    def timeout_seconds(self) -> float | None:
        """The longest one attempt may take, in seconds; None without a limit."""
        return parse_duration(self.options.timeout) if self.options.timeout else None

    def is_default(self, field: str) -> bool:
        """Return whether an option has its built-in value because nobody wrote another.

        Raises:
            KeyError: there is no such option.

        """
        return self.origins[field].startswith(BUILT_IN)

    def with_memory(self, size: int, why: str) -> Resolved:
        """Return the same with ``size`` bytes of memory, and ``why`` as their origin."""
        options = self.options.model_copy(update={"memory": format_memory(size)})
        return Resolved(options, {**self.origins, "memory": why})

    def explain(self) -> list[tuple[str, str, str]]:
        """Return every option as name, value and place, for people; secrets in ``env`` masked."""
        values = self.options.model_dump(by_alias=True, exclude_none=True)
        return [
            (field, _shown(field, values.get(field)), self.origins[field])
            for field in NodeOptions.model_fields
        ]


def merge(layers: Iterable[Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the options of layers, the later over the earlier, and the place of each option."""
    merged: dict[str, Any] = {}
    origins = dict.fromkeys(NodeOptions.model_fields, BUILT_IN)
    for layer in layers:
        for key, value in layer.values.items():
            below = merged.get(key)
            merged[key] = value
            if value is None:
                origins[key] = f"{BUILT_IN}, reset by {layer.place}"
            elif key in _MERGED and isinstance(below, dict):
                merged[key] = _over(below, value)
                origins[key] = _joined(origins[key], layer.place)
            else:
                origins[key] = layer.place
    return merged, origins


def parse_overrides(texts: Iterable[str]) -> tuple[Override, ...]:
    """Return ``KEY=VALUE`` and ``NODE:KEY=VALUE`` texts as overrides, in their order.

    A value is read as YAML, so ``retries=2``, ``gpu=null`` and ``env_from=[a, b]`` mean what they
    say. ``env.NAME=text`` and ``node_selector.LABEL=text`` set one entry and take the text as is.

    Raises:
        UsageError: a text has another form, an unknown key or a bad value; all are named.

    """
    overrides = []
    complaints = []
    for text in texts:
        try:
            overrides.append(_override(text))
        except UsageError as error:
            complaints.append(f"{COMMAND_LINE} {text.partition('=')[0]}: {error}")
    if complaints:
        raise UsageError("\n".join(complaints))
    return tuple(overrides)


def override_layers(overrides: Iterable[Override], node: Node) -> Iterable[Layer]:
    """Return the overrides that hold for a node, those that name it last."""
    mine = [override for override in overrides if override.node in {"", node.id}]
    mine.sort(key=lambda override: bool(override.node))
    return [Layer(COMMAND_LINE, {override.key: override.value}) for override in mine]


def _override(text: str) -> Override:
    target, equals, written = text.partition("=")
    node, colon, key = target.rpartition(":")
    option, _, entry = key.partition(".")
    if not (key and equals) or (colon and not node):
        raise UsageError("write KEY=VALUE or NODE:KEY=VALUE, such as memory=4Gi")
    if option in _ENTRIES and entry:
        return _checked(Override(option, {entry: written}, node))
    if key not in NodeOptions.model_fields:
        raise UsageError(f"there is no such option; {did_you_mean(key, NodeOptions.model_fields)}")
    if not written:  # an unset shell variable, more often than not
        raise UsageError("there is no value; `null` brings the built-in default back")
    try:
        value = yaml.safe_load(written)
    except (yaml.YAMLError, ValueError):  # ValueError: a date such as 2024-13-01
        raise UsageError("the value is not YAML; put it in quotes of its own") from None
    return _checked(Override(key, value, node))


def _checked(override: Override) -> Override:
    if problems := problems_of({override.key: override.value}):
        advice = [
            f"{problem.what}; {problem.fix}" if problem.fix else problem.what
            for problem in problems
        ]
        raise UsageError("; ".join(advice))
    return override


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(under, dict) and isinstance(value, dict):
            merged[key] = _over(under, value)
        else:
            merged[key] = value
    return merged


def _joined(places: str, place: str) -> str:
    return places if places.rsplit(" + ", maxsplit=1)[-1] == place else f"{places} + {place}"


def _shown(field: str, value: Any) -> str:
    if field == "env":
        value = {name: "•••" if _SECRET.search(name) else text for name, text in value.items()}
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
