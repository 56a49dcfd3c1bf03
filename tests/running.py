"""Run a project in this process, isolated from this user's own files, and keep what was told."""

from __future__ import annotations

import asyncio
import os
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from seeknal_k8s import coordinator
from seeknal_k8s.coordinator import RunRequest
from seeknal_k8s.store import Store
from tests.faithful import environment
from tests.projects import write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from seeknal_k8s.events import Event
    from seeknal_k8s.results import PrefectRunResult, RunResults

_Event = TypeVar("_Event")


@dataclass(frozen=True)
class Ran:
    """A run that has ended: its results, and every event in order."""

    results: RunResults
    events: list[Event]

    def __getitem__(self, node_id: str) -> PrefectRunResult:
        return self.results[node_id]

    def told(self, kind: type[_Event], node_id: str) -> list[_Event]:
        """Return the events of one kind about one node, in order."""
        return [e for e in self.events if isinstance(e, kind) and getattr(e, "node", "") == node_id]


def run(project: Path, **request: Any) -> Ran:
    """Run a project as the command line does, in this process."""
    events: list[Event] = []
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, project.parent / "home")
        asked = RunRequest(project=project, **request)
        return Ran(asyncio.run(coordinator.run(asked, events.append)), events)


def isolate(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Give this process the environment of ``tests.faithful``."""
    wanted = environment(home)
    for name in os.environ.keys() - wanted.keys():
        patch.delenv(name)
    for name, value in wanted.items():
        patch.setenv(name, value)


def new_project(folder: Path, options: str = "") -> Path:
    """Make an empty project in ``folder``; ``options`` is its ``seeknal-k8s.yml``."""
    project = folder / "project"
    write(project, "seeknal_project.yml", "name: project\nversion: 1.0.0\n")
    if options:
        write(project, "seeknal-k8s.yml", options)
    return project


def python(project: Path, name: str, body: str, *inputs: str) -> None:
    """Add a Python transform: ``body`` is the function's, with ``ctx``, ``os``, ``pd`` and ``sys``.

    A body that returns nothing gives one row.
    """
    head = f"""
        import os, signal, subprocess, sys, time
        import pandas as pd
        from seeknal.pipeline.decorators import transform

        @transform(name="{name}", inputs={list(inputs)!r})
        def {name}(ctx):
    """
    lines = textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
    text = f'{textwrap.dedent(head).strip()}\n{lines}\n    return pd.DataFrame({{"n": [1]}})\n'
    write(project, f"seeknal/py/{name}.py", text)


def log(result: PrefectRunResult, stream: str = "stdout") -> bytes:
    """Return the whole of a node's log, as the store keeps it."""
    from pathlib import Path  # noqa: PLC0415

    assert result.log_path
    return (Path(result.log_path) / stream).read_bytes()


def attempts(project: Path, results: RunResults) -> Iterator[Path]:
    """Yield the folders of all attempts of a run."""
    yield from (Store.of(project).root / "runs" / results.run_id / "bundles").glob("*/*")
