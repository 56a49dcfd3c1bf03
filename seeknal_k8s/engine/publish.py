"""Write what Seeknal keeps of a run: ``run_state.json``, ``manifest.json``, consolidated features.

The coordinator calls this once, when all nodes have ended, through a process of its own.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from seeknal.dag.manifest import Manifest
    from seeknal.workflow.state import NodeState

    from seeknal_k8s.engine.project import Project

from seeknal_k8s.engine.project import STATE_FILE


def publish(project: Project, record: Mapping[str, Any]) -> list[str]:
    """Write manifest and state, and consolidate the entities of feature groups that ran.

    ``record`` has ``ran`` (ids that were to run), ``ended`` (id → status, rows, seconds, digest,
    metadata, error of those that did), and ``config`` (what was asked, as Seeknal notes it).
    Returns warnings: consolidation is Seeknal's best effort, and its failure fails no run.

    Raises:
        OSError: a file could not be written.
    """
    target = project.request.home / "target"
    manifest = _manifest(project)
    _save_manifest(manifest, target)
    _save_state(project, record, target)
    groups = {
        node_id.split(".", 1)[1]
        for node_id, ended in record["ended"].items()
        if node_id.startswith("feature_group.") and ended["status"] == "success"
    }
    return _consolidate(target, manifest, groups) if groups else []


def forget(project: Project, node_ids: Sequence[str]) -> None:
    """Take nodes out of ``run_state.json``; a backup of the whole stays beside it.

    Raises:
        OSError: it could not be written.
    """
    from seeknal.workflow.state import RunState, save_state

    past = project.state
    if past is not None:
        kept = {k: v for k, v in past.nodes.items() if k not in set(node_ids)}
        state = RunState(run_id=past.run_id, last_run=past.last_run, config=past.config, nodes=kept)
        save_state(state, project.request.home / "target" / STATE_FILE)


def _manifest(project: Project) -> Manifest:
    """Build the manifest as Seeknal's command line does; its own builder costs 0.4 s to import."""
    from seeknal.dag.manifest import Manifest, Node

    manifest = Manifest(project=project.name)
    for node_id, node in project.builder.nodes.items():
        manifest.add_node(
            Node(
                id=node_id,
                name=node.name,
                node_type=node.kind,
                description=node.yaml_data.get("description"),
                tags=list(node.tags or []),
                columns=node.yaml_data.get("columns", {}) or {},
                config=node.yaml_data,
                file_path=node.file_path,
            )
        )
    for node_id in project.builder.nodes:
        for below in project.builder.get_downstream(node_id):
            manifest.add_edge(node_id, below)
    return manifest


def _save_manifest(manifest: Manifest, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    temporary = target / f".manifest.json.{os.getpid()}.tmp"
    manifest.save(str(temporary))
    temporary.replace(target / "manifest.json")


def _save_state(project: Project, record: Mapping[str, Any], target: Path) -> None:
    from seeknal.workflow.state import RunState, save_state, update_node_state

    state = RunState(config=dict(record["config"]))
    ran: Sequence[str] = record["ran"]
    if project.state is not None:
        kept = {k: v for k, v in project.state.nodes.items() if v.is_success() and k not in ran}
        state.nodes.update(kept)
    for node_id, ended in record["ended"].items():
        succeeded = ended["status"] == "success"
        error = {} if succeeded else {"error": ended["error"]}
        update_node_state(
            state,
            node_id,
            ended["status"],
            duration_ms=int(ended["seconds"] * 1000),
            row_count=ended["rows"] or 0,
            metadata={**ended["metadata"], **error},
            hash=ended["digest"] if succeeded else None,
        )
        if succeeded:
            _note_iceberg(state.nodes[node_id], ended["metadata"])
    save_state(state, target / STATE_FILE)


def _note_iceberg(past: NodeState, metadata: Mapping[str, Any]) -> None:
    for field in ("iceberg_snapshot_id", "iceberg_table_ref", "last_watermark"):
        if metadata.get(field):
            setattr(past, field, metadata[field])


def _consolidate(target: Path, manifest: Manifest, groups: set[str]) -> list[str]:
    from seeknal.workflow.consolidation.consolidator import EntityConsolidator

    try:
        results = EntityConsolidator(target).consolidate_all(manifest.nodes, changed_fgs=groups)
    except Exception as error:  # noqa: BLE001 - Seeknal's own best effort: it may raise anything
        return [f"features were not consolidated: {error}"]
    return [
        f"entity '{result.entity_name}' was not consolidated: {result.error}"
        for result in results
        if not result.success
    ]
