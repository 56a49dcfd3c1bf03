"""What each node of a project is told to do, as short hashes: to see what a change changes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal_k8s.engine.project import open_project

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seeknal.workflow.dag import DAGNode

    from seeknal_k8s.engine.project import Project

_NO_MATTER = frozenset({"description", "kubernetes", "owner", "tags"})
"""Keys that say nothing about what a node computes."""


def definitions(project: Project) -> dict[str, dict[str, Any]]:
    """Return for each node a hash of its definition, and which tables it writes outside ``target/``.

    The hash has everything in the file, with parameters filled in, and a Python node's own text;
    unlike Seeknal's it has nothing of the data.
    """
    return {
        node_id: {"definition": _definition(node), "targets": _targets(node.yaml_data)}
        for node_id, node in project.builder.nodes.items()
    }


def _definition(node: DAGNode) -> str:
    told = {key: value for key, value in node.yaml_data.items() if key not in _NO_MATTER}
    text = json.dumps(told, sort_keys=True, default=str)
    if node.file_path.endswith(".py"):
        text += Path(node.file_path).read_text(encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _targets(data: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return where a node writes to, and how: as in ``materialization:`` or ``materializations:``."""
    several, single = data.get("materializations"), data.get("materialization")
    written = several if isinstance(several, list) else []
    if not written and isinstance(single, dict) and single.get("enabled"):
        written = [single]
    found = []
    for one in written:
        if not isinstance(one, dict) or not one.get("table"):
            continue
        kind = str(one.get("type", "iceberg")).lower()
        usual = "full" if kind == "postgresql" else "append"
        mode = str(getattr(one.get("mode"), "value", one.get("mode")) or usual)
        found.append({"type": kind, "table": str(one["table"]), "mode": mode.lower()})
    return found


def reopened(project: Project, overrides: Mapping[str, Any]) -> Project:
    """Read the project once more, with other values for some parameters."""
    request = project.request
    return open_project(replace(request, overrides={**request.overrides, **overrides}))
