"""Run the real ``seeknal run`` beside ours, and compare everything that both have left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb

SCRIPTS = Path(sys.executable).parent
EXAMPLE = Path(__file__).parent.parent / "examples" / "shop"
_NOT_DATA = ("run_state", "manifest.json", "logs/", "_runner_", "pipeline_state/.lock")


def environment(home: Path) -> dict[str, str]:
    """Return an environment in which neither Seeknal nor uv sees this user's own files."""
    home.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SEEKNAL_")}
    return {
        **kept,
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(SCRIPTS.parent),
        "SEEKNAL_BASE_CONFIG_PATH": str(home),
        "NO_COLOR": "1",
        "COLUMNS": "100",
    }


def copy_project(source: Path, destination: Path) -> Path:
    """Copy a project, keeping the files' times: Seeknal's hash of a CSV source contains them."""
    ignored = shutil.ignore_patterns("target", ".seeknal-k8s", "exports")
    shutil.copytree(source, destination, ignore=ignored)
    return destination


def seeknal(project: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Seeknal's own command line in the project."""
    return _run([str(SCRIPTS / "seeknal"), *arguments], project, home)


def ours(project: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run our own command line in the project."""
    return _run([str(SCRIPTS / "seeknal-k8s"), *arguments], project, home)


def _run(command: list[str], project: Path, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=project,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def data_files(project: Path) -> set[str]:
    """Return the data a run has left, relative to the project."""
    found = set()
    for folder in ("target", "exports"):
        for file in (project / folder).rglob("*"):
            name = file.relative_to(project / folder).as_posix()
            if file.is_file() and not name.startswith(_NOT_DATA):
                found.add(f"{folder}/{name}")
    return found


def differences(one: Path, other: Path) -> list[str]:
    """Return how the outputs of two runs differ, table by table, as sentences; empty if equal."""
    first, second = data_files(one), data_files(other)
    found = [f"only {one.name} has {name}" for name in sorted(first - second)]
    found += [f"only {other.name} has {name}" for name in sorted(second - first)]
    for name in sorted(first & second):
        if name.endswith(".parquet"):
            found += _table_differences(one / name, other / name, name)
        elif _neutral(one / name, one) != _neutral(other / name, other):
            found.append(f"{name} differs")
    return found


def _neutral(file: Path, project: Path) -> str:
    """Return a text file without the project's own path, and without the time of day."""
    text = file.read_text(encoding="utf-8").replace(str(project), "<project>")
    if file.name == "_entity_catalog.json":
        return json.dumps(_without_times(json.loads(text)), sort_keys=True)
    return text


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            k: _without_times(v) for k, v in value.items() if not k.endswith(("_at", "_updated"))
        }
    return value


def _table_differences(one: Path, other: Path, name: str) -> list[str]:
    with duckdb.connect(":memory:") as connection:
        tables = [
            f"read_parquet('{str(file).replace(chr(39), chr(39) * 2)}')" for file in (one, other)
        ]
        kinds = [
            connection.execute(f"DESCRIBE SELECT * FROM {table}").fetchall() for table in tables
        ]
        if [row[:2] for row in kinds[0]] != [row[:2] for row in kinds[1]]:
            return [f"{name} has other columns: {kinds[0]} / {kinds[1]}"]
        counts = [
            connection.execute(
                f"SELECT count(*) FROM (SELECT * FROM {left} EXCEPT ALL SELECT * FROM {right})"
            ).fetchone()
            for left, right in (tables, reversed(tables))
        ]
    rows = [count[0] for count in counts if count]
    return [f"{name} has other rows: {rows[0]} / {rows[1]}"] if any(rows) else []


def states(project: Path) -> dict[str, tuple[str, int, str]]:
    """Return what ``run_state.json`` says of every node: status, rows, hash."""
    state = json.loads((project / "target" / "run_state.json").read_text(encoding="utf-8"))
    return {
        node: (past["status"], past["row_count"], past["hash"])
        for node, past in state["nodes"].items()
    }
