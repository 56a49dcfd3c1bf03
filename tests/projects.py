"""Build small projects, and run each twice: with ``seeknal run``, and node by node.

The two copies of a project have the same folder name, for that is the project's name, and the same
file times, for Seeknal's hashes contain them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import textwrap
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from tests.faithful import (
    EXAMPLE,
    SCRIPTS,
    copy_project,
    differences,
    environment,
    ours,
    seeknal,
    states,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONG_AGO = 1_700_000_000
"""When every file of a built project was last changed, in Unix time."""

FEATURE_STORE = Path("/tmp/feature_store")  # noqa: S108 - where Seeknal 2.13 writes, whatever one asks


def write(project: Path, name: str, text: str) -> Path:
    """Write a file of a project, as if long ago."""
    file = project / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
    os.utime(file, (LONG_AGO, LONG_AGO))
    return file


def node(project: Path, node_id: str, body: str = "", *, inputs: tuple[str, ...] = ()) -> None:
    """Add a YAML node; ``body`` is the rest of its file."""
    kind, _, name = node_id.partition(".")
    refs = "".join(f"\n  - ref: {ref}" for ref in inputs)
    listed = f"\n{'depends_on' if kind == 'exposure' else 'inputs'}:{refs}" if inputs else ""
    text = f'kind: {kind}\nname: "{name}"{listed}\n{textwrap.dedent(body).lstrip()}'
    write(project, f"seeknal/{kind}s/{name}.yml", text)


def transform(project: Path, name: str, sql: str, *inputs: str) -> None:
    """Add a YAML transform."""
    body = textwrap.indent(textwrap.dedent(sql).strip(), "  ")
    node(project, f"transform.{name}", f"transform: |\n{body}\n", inputs=inputs)


def csv(project: Path, name: str, *, rows: int = 12) -> None:
    """Add a CSV source of ``rows`` rows: id, grp (0 to 2), day, value."""
    lines = [f"{row},{row % 3},2024-01-{row % 28 + 1:02},{row * 37 % 100}.5" for row in range(rows)]
    write(project, f"data/{name}.csv", "\n".join(["id,grp,day,value", *lines, ""]))
    node(project, f"source.{name}", f"source: csv\ntable: data/{name}.csv\n")


@dataclass(frozen=True)
class Pair:
    """One project in two copies: ``mono`` is for ``seeknal run``, ``ours`` for us."""

    mono: Path
    ours: Path
    home: Path

    def run_mono(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``seeknal run`` in its copy; what fails does not stop the rest."""
        return seeknal(self.mono, self.home / "mono", "run", "--continue-on-error", *arguments)

    def run_ours(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``seeknal-k8s run`` in our copy."""
        return ours(self.ours, self.home / "ours", "run", *arguments)

    def run_both(self) -> None:
        """Run both; single nodes may fail, but each must have run them and said so."""
        for done in (self.run_mono(), self.run_ours()):
            assert done.returncode in {0, 1}, f"{done.args}:\n{done.stdout}\n{done.stderr}"

    def write(self, name: str, text: str) -> None:
        """Write the same file in both copies, as if a minute later than the last time."""
        last = (self.mono / name).stat().st_mtime if (self.mono / name).exists() else LONG_AGO
        for project in (self.mono, self.ours):
            os.utime(write(project, name, text), (last + 60, last + 60))

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace the one occurrence of ``old`` in a file, in both copies."""
        text = (self.mono / name).read_text(encoding="utf-8")
        assert text.count(old) == 1
        self.write(name, text.replace(old, new))

    def differences(self) -> list[str]:
        """Return how what the runs have left differs, states included; empty if equal."""
        one, other = states(self.mono), states(self.ours)
        unlike = [
            f"{key}: {one.get(key)} / {other.get(key)}"
            for key in sorted(one.keys() | other.keys())
            if one.get(key) != other.get(key)
        ]
        return [*differences(self.mono, self.ours), *unlike]

    @cached_property
    def all_differences(self) -> list[str]:
        """``differences`` of a pair that no test changes any more."""
        return self.differences()


@contextlib.contextmanager
def pair_of(folder: Path, name: str, build: Callable[[Path], None]) -> Iterator[Pair]:
    """Make a project with ``build``, in two copies, and clean up outside ``folder`` at the end.

    The name is made unique: Seeknal's feature store is one folder for everybody.
    """
    unique = f"{name}_{uuid.uuid4().hex[:8]}"
    pair = Pair(folder / "mono" / unique, folder / "ours" / unique, folder / "home")
    pair.mono.mkdir(parents=True)
    write(pair.mono, "seeknal_project.yml", f"name: {name}\nversion: 1.0.0\n")
    build(pair.mono)
    copy_project(pair.mono, pair.ours)
    try:
        yield pair
    finally:
        shutil.rmtree(FEATURE_STORE / unique, ignore_errors=True)


@contextlib.contextmanager
def example_pair(folder: Path) -> Iterator[Pair]:
    """Make a pair of the example project."""
    with pair_of(folder, "shop", _copy_example) as pair:
        yield pair


def _copy_example(project: Path) -> None:
    ignored = shutil.ignore_patterns("target", ".seeknal-k8s", "exports")
    shutil.copytree(EXAMPLE, project, ignore=ignored, dirs_exist_ok=True)


def start(project: Path, home: Path, *arguments: str, **env: str) -> subprocess.Popen[str]:
    """Start our command line in the project, without waiting for it."""
    command = [str(SCRIPTS / "seeknal-k8s"), *arguments]
    return subprocess.Popen(
        command,
        cwd=project,
        env={**environment(home), **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rows(project: Path, node_id: str) -> list[tuple[Any, ...]]:
    """Return a node's rows, sorted."""
    file = project / "target" / "intermediate" / f"{node_id.replace('.', '_')}.parquet"
    with duckdb.connect(":memory:") as connection:
        return sorted(connection.read_parquet(str(file)).fetchall())
