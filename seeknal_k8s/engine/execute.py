"""Run one node in its workspace exactly as ``seeknal run`` would, then verify what it made.

Seeknal's executors read their inputs from views that earlier nodes left in one shared in-memory
DuckDB. A node in a process of its own gets the same views from its inputs' files: the *prelude*.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow.parquet

from seeknal_k8s import exitcodes
from seeknal_k8s.engine import script
from seeknal_k8s.engine.project import UNCACHED_SOURCES, expected_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from seeknal.workflow.dag import DAGNode
    from seeknal.workflow.executors import ExecutionContext, ExecutorResult

    from seeknal_k8s.engine.project import Project

    Connection = duckdb.DuckDBPyConnection

OWN_CONNECTION = frozenset({"rule", "profile", "semantic_model", "metric"})
"""Kinds whose executors open a connection themselves, or none."""

FILES_ONLY = frozenset({"second_order_aggregation"})
"""Kinds that read files, and for which a view does harm: Seeknal 2.13 tries the view first and
leaves the connection with an unfinished result, which DuckDB 2.0 refuses to go on with."""


_REF = re.compile(r"""ref\(\s*['"]([^'"]+)['"]\s*\)""")
"""``ref('kind.name')`` in SQL, as Seeknal's transform executor finds it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the node's DuckDB may use: bytes of memory, threads, and bytes of spill on disk.

    DuckDB sizes itself from the machine, not from the pod, so all three are always given.
    ``None`` leaves that one to DuckDB.
    """

    memory: int | None = None
    threads: int | None = None
    spill: int | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One node to run: its id, the workspace, where DuckDB spills to, its inputs' ids, the limits.

    ``undeclared`` are the inputs that its file does not list. ``script_timeout`` replaces
    Seeknal's fixed 30 minutes for Python nodes (seconds). ``environments`` is the folder with
    what ``uv run`` would give each Python script (see ``script``).
    """

    node_id: str
    workspace: Path
    scratch: Path
    inputs: tuple[str, ...] = ()
    undeclared: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    script_timeout: float | None = None
    environments: Path | None = None
    allow_failed_materialization: bool = False
    full: bool = False


@dataclass(slots=True)
class Outcome:
    """How the node ended: what ``result.json`` holds, but for what only its supervisor can see."""

    exit_code: int = exitcodes.OK
    error: str = ""
    rows: int | None = None
    seconds: float = 0.0
    metadata: dict[str, Any] = field(default_factory=dict)


def run_node(project: Project, task: Task) -> Outcome:
    """Run the node in ``task.workspace``, which becomes the working directory, and verify it."""
    os.chdir(task.workspace)
    node = _prepared(project.node(task.node_id), task)
    fit_duckdb(task)
    context = _context(project, node, task)
    _kept.append(context)
    started = time.monotonic()
    try:
        with script.as_uv_run(task.environments, task.script_timeout):
            outcome = _execute(node, context, task)
    except Exception as error:  # noqa: BLE001 - whatever a node raises is the node's failure
        outcome = Outcome(exitcodes.of_exception(_causes(error)), error=_message(error))
        traceback.print_exc()
    outcome.seconds = time.monotonic() - started
    return _as_in_project(outcome, project, task)


def _prepared(node: DAGNode, task: Task) -> DAGNode:
    """Settle what Seeknal leaves to the order of things in one process."""
    data = node.yaml_data
    if node.kind.value == "aggregation" and not data.get("source") and task.inputs:
        data["source"] = task.inputs[0]  # else: whichever transform's file is newest
    sql = data.get("transform")
    if isinstance(sql, str):
        data["transform"] = _REF.sub(
            lambda match: match[1] if match[1] in task.undeclared else match[0], sql
        )
    return node


_spare: Connection | None = None

_kept: list[object] = []
"""What is never taken apart: this process ends with ``_exit``, and closing DuckDB takes 8 ms."""


def keep_spare_connection() -> None:
    """Open, in the process that forks, an in-memory database for every fork to start with.

    Opening one costs a fork 20 ms of CPU, inheriting one costs it nothing. This one runs no
    threads at all (``threads`` counts the caller's own, ``async_threads`` are DuckDB 2's for
    I/O), so a fork has a whole and private copy. Where DuckDB cannot do without threads, there
    is no spare.
    """
    global _spare  # noqa: PLW0603 - one per process, inherited by its forks
    if "async_threads" in {row[0] for row in _settings()}:
        _spare = duckdb.connect(":memory:", config={"threads": 1, "async_threads": 0})
        with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
            # Touch what every node will use, so that its pages are there to share.
            _spare.execute(f"COPY (SELECT 1 AS one) TO {_literal(file.name)} (FORMAT PARQUET)")
            _spare.execute(f"SELECT * FROM read_parquet({_literal(file.name)})").fetchall()  # noqa: S608
            _rows(Path(file.name))


def _settings() -> list[tuple[str]]:
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        return connection.execute("SELECT name FROM duckdb_settings()").fetchall()


def fit_duckdb(task: Task) -> None:
    """Make every connection of this process, the executors' own ones too, keep to the limits."""
    connect: Callable[..., Connection] = duckdb.connect
    limits = task.limits
    fitted = {
        "memory_limit": limits.memory and f"{limits.memory}B",
        "threads": limits.threads,
        "temp_directory": str(task.scratch / "duckdb"),
        "max_temp_directory_size": limits.spill and f"{limits.spill}B",
    }
    settings = {key: value for key, value in fitted.items() if value}

    def fitting(database: Any = ":memory:", *args: Any, **kwargs: Any) -> Connection:
        if not args and not kwargs and database == ":memory:" and _spare is not None:
            return _take_spare(settings)
        if not args and "config" not in kwargs:
            kwargs["config"] = settings
        return connect(database, *args, **kwargs)

    duckdb.connect = fitting


def _take_spare(settings: Mapping[str, str | int]) -> Connection:
    """Return the inherited database, fitted; the second one who asks gets one of its own.

    A new cursor has a random generator of its own: the inherited one would repeat, in every
    fork, what its siblings draw.
    """
    global _spare  # noqa: PLW0603 - it can be given away once
    if _spare is None:
        raise RuntimeError("the spare connection was given away already")
    connection = _spare.cursor()
    _spare = None
    for name, value in settings.items():
        text = str(value) if isinstance(value, int) else _literal(value)
        connection.execute(f"SET GLOBAL {name} = {text}")
    return connection


def _context(project: Project, node: DAGNode, task: Task) -> ExecutionContext:
    from seeknal.workflow.executors import ExecutionContext

    context = ExecutionContext(
        project_name=project.name,
        workspace_path=task.workspace,
        target_path=task.workspace / "target",
        common_config=project.builder._common_config,  # noqa: SLF001 - the only place it is kept
        profile_path=project.request.profile,
    )
    if not task.full and project.state and node.yaml_data.get("source") == "iceberg":
        past = project.state.nodes.get(task.node_id)
        watermark = past and (past.last_watermark or past.metadata.get("last_watermark"))
        if watermark:
            context.config["_iceberg_last_watermark"] = watermark
    return context


def _execute(node: DAGNode, context: ExecutionContext, task: Task) -> Outcome:
    from seeknal.workflow.executors import get_executor

    is_script = node.file_path.endswith(".py") and node.kind.value != "source"
    if node.kind.value not in OWN_CONNECTION and not is_script:
        context.duckdb_connection = duckdb.connect(":memory:")
        if node.kind.value not in FILES_ONLY:
            _prelude(context.duckdb_connection, task)
    result = get_executor(node, context).run()
    outcome = Outcome(rows=result.row_count, metadata=dict(result.metadata or {}))
    if result.is_success():
        fault = next(_faults(node, result, context, task), "")
        outcome.exit_code = exitcodes.UNVERIFIED if fault else exitcodes.OK
        outcome.error = fault
    else:
        outcome.error = result.error_message or f"the node ended as {result.status.value}"
        outcome.exit_code = exitcodes.of_text(f"{outcome.error}\n{_raised(outcome.metadata)}")
    return outcome


def _raised(metadata: Mapping[str, Any]) -> str:
    """Return the exception that ended a script: Seeknal's error has only the last line of it."""
    printed = str(metadata.get("stderr", ""))
    _, found, last = printed.rpartition("Traceback (most recent call last):")
    return "\n".join(line for line in last.splitlines() if found and not line.startswith(" "))


def _prelude(connection: Connection, task: Task) -> None:
    """Create the views that the inputs would have left behind in one ``seeknal run``."""
    for node_id in task.inputs:
        kind, _, name = node_id.partition(".")
        file = input_file(task.workspace, node_id)
        if file is None:
            continue
        rows = f"SELECT * FROM read_parquet({_literal(str(file))})"  # noqa: S608 - quoted
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(kind)}")
        connection.execute(f"CREATE OR REPLACE VIEW {_quoted(kind)}.{_quoted(name)} AS {rows}")
        if kind == "aggregation":  # Seeknal registers it under this one quoted name
            connection.execute(f"CREATE OR REPLACE VIEW {_quoted(node_id)} AS {rows}")


def input_file(workspace: Path, node_id: str) -> Path | None:
    """Return the parquet file that holds a node's rows in this workspace, None if there is none."""
    kind, _, name = node_id.partition(".")
    target = workspace / "target"
    candidates = (
        target / "intermediate" / f"{node_id.replace('.', '_')}.parquet",
        target / "cache" / kind / f"{name}.parquet",
        target / kind / name / "result.parquet",
    )
    return next((file for file in candidates if file.is_file()), None)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _faults(
    node: DAGNode, result: ExecutorResult, context: ExecutionContext, task: Task
) -> Iterator[str]:
    """Yield what is wrong with a success: Seeknal reports some failures as one."""
    metadata, kind = result.metadata or {}, node.kind.value
    if "Sample data" in str(metadata.get("note", "")):
        yield "its input had no data, and Seeknal exported invented sample rows instead"
    materialized = metadata.get("materialization") or {}
    if not task.allow_failed_materialization and materialized.get("success") is False:
        why = materialized.get("error") or "see the node's log"
        yield f"its output was not materialized: {why}"
    if kind == "feature_group" and not result.row_count and _input_rows(task):
        yield f"it has 0 rows although its input {task.inputs[0]} has {_input_rows(task)}"
    yield from _file_faults(node, result, context)


def _input_rows(task: Task) -> int:
    file = input_file(task.workspace, task.inputs[0]) if task.inputs else None
    return _rows(file) if file else 0


def _rows(file: Path) -> int:
    rows: int = pyarrow.parquet.read_metadata(file).num_rows
    return rows


def _file_faults(node: DAGNode, result: ExecutorResult, context: ExecutionContext) -> Iterator[str]:
    own = f"target/intermediate/{node.qualified_name.replace('.', '_')}.parquet"
    required = expected_outputs(node)
    if node.kind.value == "feature_group" and result.row_count:
        required = [own]
    if node.kind.value == "transform" and not result.row_count:
        required = []
    uncached = str(node.yaml_data.get("source", "")).lower() in UNCACHED_SOURCES
    if result.row_count and not required and node.kind.value == "source" and not uncached:
        required = [own]
    for name in {*required, own}:
        file = context.workspace_path / name
        if not file.exists():
            if name in required:
                yield f"{name} was not written{_disk_hint(context.workspace_path)}"
            continue
        if file.suffix == ".parquet" and (fault := _footer_fault(file)):
            yield f"{name} cannot be read back: {fault}{_disk_hint(context.workspace_path)}"


def _footer_fault(file: Path) -> str:
    try:
        _rows(file)
    except Exception as error:  # noqa: BLE001 - any way in which it cannot be read is a fault
        return str(error)
    return ""


def _disk_hint(folder: Path) -> str:
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    few = 64 << 20
    return f" (the disk is full: {free >> 20} MiB left)" if free < few else ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = getattr(error, "cause", None) or error.__cause__


def _message(error: Exception) -> str:
    return str(error) or type(error).__name__


def _as_in_project(outcome: Outcome, project: Project, task: Task) -> Outcome:
    """Name files as they are called once accepted: in the project, not in the workspace.

    Where a disk is full, it matters which: that message stays as it is.
    """
    if outcome.exit_code == exitcodes.UNAVAILABLE:
        return outcome
    here, there = str(task.workspace), str(project.request.root)
    outcome.error = outcome.error.replace(here, there)
    outcome.metadata = _renamed(outcome.metadata, here, there)
    return outcome


def _renamed(value: Any, here: str, there: str) -> Any:
    if isinstance(value, str):
        return value.replace(here, there)
    if isinstance(value, dict):
        return {key: _renamed(item, here, there) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_renamed(item, here, there) for item in value]
    return value
