"""Read a Seeknal project the way ``seeknal run`` does, and describe it as plain data."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from seeknal.workflow.dag import DAGBuilder, DAGNode
    from seeknal.workflow.state import RunState

HASHED_SOURCES = frozenset({"csv", "parquet", "json", "jsonl"})
"""Sources of which Seeknal's own hash holds the file's time and size, if it is one local file."""

UNCACHED_SOURCES = frozenset({"sqlite"})
"""Sources that Seeknal 2.13 never writes to ``target/``: their view has another name."""

STATE_FILE = "run_state.json"


@dataclass(frozen=True, slots=True)
class Pins:
    """What must be equal in every process of one run, or ``{{ today }}`` would differ by pod.

    ``today`` is ``YYYY-MM-DD``, ``run_date`` an ISO 8601 time, ``run_id`` the id of the run.
    """

    today: str
    run_date: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Request:
    """How to read a project: its absolute path, the pins, and what the command line overrides.

    ``home`` is the folder with the ``target/`` that outputs are published to: the project itself, or
    a store. ``overrides`` are Seeknal's ``--params``, ``--date``, ``--start-date`` and ``--end-date``;
    ``profile`` is a profiles.yml, None for Seeknal's own default.
    """

    root: Path
    home: Path
    pins: Pins
    overrides: Mapping[str, Any]
    profile: Path | None = None


@dataclass(slots=True)
class Project:
    """A project that has been read, ready to describe or to run nodes of."""

    request: Request
    builder: DAGBuilder
    failures: list[str]
    state: RunState | None = None
    state_error: str = ""

    @property
    def name(self) -> str:
        """The project's name: its folder's, as Seeknal has it."""
        return self.request.root.name

    def node(self, node_id: str) -> DAGNode:
        """Return Seeknal's own node of this id.

        Raises:
            KeyError: the project has no such node.
        """
        return self.builder.nodes[node_id]

    def outdate(self, node_ids: Iterable[str]) -> None:
        """Have the last runs of nodes no longer say what they were made of: so they run again."""
        for node_id in node_ids:
            if self.state is not None and node_id in self.state.nodes:
                self.state.nodes[node_id].hash = ""


def open_project(request: Request) -> Project:
    """Read the project at ``request.root``, which becomes the working directory for good.

    Problems of the project are collected, not raised: they are part of the description.
    """
    os.chdir(request.root)
    # It loads .env from the project, as the executors do by importing it: they can wait.
    import seeknal.workflow.materialization.yaml_integration  # noqa: F401
    from seeknal.workflow.dag import DAGBuilder

    _pin(request.pins)
    builder = DAGBuilder(
        project_path=request.root,
        cli_overrides=dict(request.overrides),
        run_id=request.pins.run_id,
        profile_path=request.profile,
    )
    failures: list[str] = []
    try:
        with _fast_yaml():
            builder.build()
    except Exception as error:  # noqa: BLE001 - a bad common config may raise anything
        if builder.seeknal_dir.is_dir() and _node_files(request.root):
            failures.append(f"Error processing {builder.seeknal_dir}: {error}")
    project = Project(request, builder, failures)
    _load_state(project)
    return project


@contextlib.contextmanager
def _fast_yaml() -> Iterator[None]:
    """Let ``yaml.safe_load`` use libyaml, which gives the same values six times as fast."""
    original = yaml.SafeLoader
    yaml.SafeLoader = getattr(yaml, "CSafeLoader", original)  # type: ignore[misc]
    try:
        yield
    finally:
        yaml.SafeLoader = original  # type: ignore[misc]


def _pin(pins: Pins) -> None:
    """Make every ``ParameterResolver`` count from the same day, time and run id.

    Overrides would not do: they also replace a node's own parameter of the same name.
    """
    from seeknal.workflow.parameters.resolver import ParameterResolver

    original = ParameterResolver.__dict__.get("_unpinned_init", ParameterResolver.__init__)

    def pinned(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.run_id = kwargs.get("run_id") or pins.run_id
        self._base_date = self._base_date or date.fromisoformat(pins.today)
        self.run_date = pins.run_date
        self._context_values |= {"run_id": self.run_id, "run_date": pins.run_date}

    ParameterResolver._unpinned_init = original  # noqa: SLF001
    ParameterResolver.__init__ = pinned


def _load_state(project: Project) -> None:
    from seeknal.workflow.state import StateError, load_state

    try:
        project.state = load_state(project.request.home / "target" / STATE_FILE)
    except StateError as error:
        project.state_error = str(error)


def warm(project: Project, node_ids: Iterable[str]) -> None:
    """Import what Seeknal imports only when a node of a kind runs, so that forks need not."""
    for module in (
        "seeknal.pipeline.context",  # what a Python node's script begins with
        "seeknal.workflow.executors",
    ):
        import_module(module)

    kinds = {project.node(node_id).kind.value for node_id in node_ids}
    if "feature_group" in kinds:
        import seeknal.workflow.executors.feature_group_executor
    if "rule" in kinds:
        import seeknal.workflow.executors.rule_executor  # noqa: F401


def describe(project: Project) -> dict[str, Any]:
    """Return the project as JSON-able data: nodes, Seeknal's complaints, and the last run's state.

    ``missing`` are nodes whose last run succeeded and whose output is gone; ``refresh`` are
    sources whose data may change without Seeknal's hash showing it.
    """
    nodes = project.builder.nodes
    return {
        "name": project.name,
        "root": str(project.request.root),
        "is_project": bool(_node_files(project.request.root)),
        "yaml_files": _node_files(project.request.root),
        "nodes": [_describe_node(project, node) for node in nodes.values()],
        "parse_errors": [*project.builder.get_parse_errors(), *project.failures],
        "state": _describe_state(project),
        "state_error": project.state_error,
        "missing": sorted(_missing(project)),
        "refresh": sorted(_refresh(nodes.values(), project.request.root)),
    }


def _node_files(root: Path) -> list[str]:
    folder = root / "seeknal"
    files = (*folder.glob("**/*.yml"), *folder.glob("**/*.py"))
    return sorted(str(file.relative_to(root)) for file in files)


def _describe_node(project: Project, node: DAGNode) -> dict[str, Any]:
    data = node.yaml_data
    sql = data.get("transform")
    return {
        "id": node.qualified_name,
        "kind": node.kind.value,
        "name": node.name,
        "file": os.path.relpath(node.file_path, project.request.root),
        "inputs": declared_inputs(data),
        "tags": _tags(data.get("tags")),
        "digest": _digest(node),
        "python": node.file_path.endswith(".py"),
        "outputs": expected_outputs(node),
        "options": data.get("kubernetes", {}),
        "sql": sql if isinstance(sql, str) else "",
    }


def _tags(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(tag) for tag in _list(value)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def declared_inputs(data: Mapping[str, Any]) -> list[str]:
    """Return what a node reads, in the order of its file: as ``DAGBuilder`` finds its edges."""
    refs: list[str] = []
    model = data.get("model", "")
    if isinstance(model, str) and model.startswith("ref("):
        refs.append(model.strip("ref('\")"))
    items = _list(data.get("inputs")) or _list(data.get("depends_on"))
    refs += [str(item["ref"]) for item in items if isinstance(item, dict) and item.get("ref")]
    return list(dict.fromkeys(ref for ref in refs if ref))


def _digest(node: DAGNode) -> str:
    from seeknal.workflow.state import StateError, calculate_node_hash

    try:
        digest: str = calculate_node_hash(node.yaml_data, Path(node.file_path))
    except StateError:
        return ""
    return digest


def expected_outputs(node: DAGNode) -> list[str]:
    """Return the files, relative to the project, that a node of this kind must leave behind.

    A Python node, or a transform without a SELECT, may rightly leave nothing.
    """
    data, name = node.yaml_data, node.name
    intermediate = f"target/intermediate/{node.qualified_name.replace('.', '_')}.parquet"
    kind = node.kind.value
    if kind == "source":
        if str(data.get("source", "")).lower() in UNCACHED_SOURCES:
            return []
        return [f"target/cache/source/{name}.parquet", intermediate]
    if node.file_path.endswith(".py") and kind != "second_order_aggregation":
        return []
    if kind in {"aggregation", "second_order_aggregation"}:
        return [f"target/{kind}/{name}/result.parquet"]
    if kind == "profile":
        return [f"target/intermediate/profile_{name}.parquet"]
    if kind == "transform" and selects(data.get("transform")):
        return [intermediate]
    if kind == "exposure" and (path := export_path(node)):
        return [path]
    return []


def selects(sql: Any) -> bool:
    """Whether the SQL may end in rows, so that Seeknal writes a file for the node."""
    words = str(sql or "").lower()
    return any(word in words for word in ("select", "from", "values", "table"))


def export_path(node: DAGNode) -> str:
    """Return the file that a file exposure writes, if it lies in the project; else nothing."""
    data = node.yaml_data
    params = data.get("params") if isinstance(data.get("params"), dict) else {}
    path = (params or {}).get("path") or data.get("url")
    if node.kind.value != "exposure" or str(data.get("type", "")).lower() != "file" or not path:
        return ""
    parts = Path(str(path)).parts
    return "" if Path(str(path)).is_absolute() or ".." in parts else str(Path(*parts))


def _describe_state(project: Project) -> dict[str, dict[str, Any]] | None:
    if project.state is None:
        return None
    renewed = _renewed_snapshots(project)
    return {
        node_id: {
            "status": past.status,
            "digest": "" if node_id in renewed else past.hash,
            "seconds": past.duration_ms / 1000,
            "rows": past.row_count,
        }
        for node_id, past in project.state.nodes.items()
    }


def _renewed_snapshots(project: Project) -> set[str]:
    """Return the Iceberg sources with another snapshot than last time, as ``seeknal run`` does.

    A catalog that does not answer counts as changed.
    """
    renewed = set()
    past_nodes = project.state.nodes if project.state else {}
    for node_id, node in project.builder.nodes.items():
        data = node.yaml_data
        if node.kind.value != "source" or data.get("source") != "iceberg" or not data.get("table"):
            continue
        past = past_nodes.get(node_id)
        known = past and (past.iceberg_snapshot_id or past.metadata.get("iceberg_snapshot_id"))
        if known is None or _snapshot(data) != known:
            renewed.add(node_id)
    return renewed


def _snapshot(data: Mapping[str, Any]) -> str | None:
    from seeknal.workflow.iceberg_metadata import get_current_snapshot_id

    try:
        current: str | None = get_current_snapshot_id(
            table_ref=data["table"], params=data.get("params", {})
        )[0]
    except Exception:  # noqa: BLE001 - any failure of the catalog means "read it again"
        return None
    return current


def _missing(project: Project) -> Iterable[str]:
    """Yield nodes of which the state says success, and whose files are gone.

    What left no rows may have left no file; a Python node's file is known by its rows alone.
    """
    if project.state is None:
        return
    for node_id, node in project.builder.nodes.items():
        past = project.state.nodes.get(node_id)
        if past is None or not past.is_success():
            continue
        files = expected_outputs(node)
        if node.file_path.endswith(".py") or node.kind.value == "feature_group":
            file = f"target/intermediate/{node_id.replace('.', '_')}.parquet"
            files = [*files, file] if past.row_count else files
        elif node.kind.value == "transform" and not past.row_count:
            files = []
        if not all((project.request.home / file).exists() for file in files):
            yield node_id


def _refresh(nodes: Iterable[DAGNode], root: Path) -> Iterable[str]:
    """Yield sources of which the hash does not show new data: databases, patterns, folders, URLs."""
    for node in nodes:
        if node.kind.value != "source":
            continue
        data = node.yaml_data
        hashed = str(data.get("source", "")).lower() in HASHED_SOURCES
        if not (hashed and data.get("table") and (root / str(data["table"])).is_file()):
            yield node.qualified_name
