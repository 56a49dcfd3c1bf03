"""Print the JSON schema of ``seeknal-k8s.yml``, which editors use to complete and to check."""

from __future__ import annotations

import json
import sys
from typing import Any

from seeknal_k8s.options.file import FILE, KINDS
from seeknal_k8s.options.model import NodeOptions

_NOTES = ("description", "default", "examples")


def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of the options file."""
    options = NodeOptions.model_json_schema()
    definitions = options.pop("$defs")
    properties = {name: _nullable(item) for name, item in options["properties"].items()}
    definitions["NodeOptions"] = {
        "description": "How a node runs. Null brings an option's built-in default back.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    layer = {"anyOf": [{"$ref": "#/$defs/NodeOptions"}, {"type": "null"}]}
    sections = {
        "defaults": {"description": "Options of every node.", **layer},
        "kinds": _by_name("Options by kind of node.", layer, names={"enum": list(KINDS)}),
        "tags": _by_name("Options by tag; of a node's tags, the one written last wins.", layer),
        "nodes": _by_name("Options by node id, such as transform.orders.", layer),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": FILE,
        "description": "How the nodes of a Seeknal project run under seeknal-k8s.",
        "type": ["object", "null"],
        "properties": sections,
        "additionalProperties": False,
        "$defs": definitions,
    }


def _by_name(
    description: str, layer: dict[str, Any], names: dict[str, Any] | None = None
) -> dict[str, Any]:
    restriction = {"propertyNames": names} if names else {}
    return {
        "description": description,
        "type": ["object", "null"],
        **restriction,
        "additionalProperties": layer,
    }


def _nullable(item: dict[str, Any]) -> dict[str, Any]:
    # Null brings the built-in default back, whatever the option's own type is.
    notes = {name: item[name] for name in _NOTES if name in item}
    kind = {name: part for name, part in item.items() if name not in {*_NOTES, "title"}}
    if "patternProperties" in kind:
        kind["additionalProperties"] = False
    choices = kind["anyOf"] if set(kind) == {"anyOf"} else [kind]
    null = {"type": "null"}
    return {**notes, "anyOf": choices if null in choices else [*choices, null]}


if __name__ == "__main__":
    json.dump(schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
