"""A small project, the program in it as a process, and what becomes of its processes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from seeknal_k8s.store import Store
from tests.faithful import environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROGRAM = [sys.executable, "-m", "seeknal_k8s"]

SLEEPER = '''
"""A node that takes its time, and does not mind being asked to end."""
import os, signal, time
from typing import Any
import pandas as pd
from seeknal.pipeline.decorators import transform

@transform(name="nap", inputs=["source.a"])
def nap(ctx: Any) -> pd.DataFrame:
    """Sleep."""
    if "STUBBORN" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("asleep", flush=True)
    time.sleep(float(os.environ.get("NAP", "0")))
    return ctx.ref("source.a")
'''


@dataclass(frozen=True)
class Project:
    """A small project in a folder of its own."""

    root: Path

    def write(self, name: str, text: str) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def transform(self, name: str, sql: str, source: str = "source.a") -> None:
        text = f"kind: transform\nname: {name}\ninputs:\n  - ref: {source}\ntransform: {sql}\n"
        self.write(f"seeknal/transforms/{name}.yml", text)

    def environment(self, **more: str) -> dict[str, str]:
        return {**environment(self.root.parent / "home"), **more}

    def call(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments],
            cwd=self.root,
            env=self.environment(**env),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def status(self) -> str:
        return str(Store.of(self.root).run("latest").about()["status"])

    def started(self, node: str) -> bool:
        runs = Store.of(self.root).runs()
        attempts = runs[0].attempts(node) if runs else []
        with contextlib.suppress(OSError):
            return any((attempt / "stdout").read_text() for attempt in attempts)
        return False


def a_project(root: Path, *, slow: bool = False) -> Project:
    """Make a source and a transform of it, and a node that sleeps for ``NAP`` seconds."""
    project = Project(root)
    project.write("seeknal_project.yml", "name: small\nversion: 1.0.0\n")
    project.write("data/a.csv", "id,v\n1,2\n3,4\n")
    project.write(
        "seeknal/sources/a.yml", "kind: source\nname: a\nsource: csv\ntable: data/a.csv\n"
    )
    project.transform("b", "SELECT id, v FROM __THIS__")
    if slow:
        project.write("seeknal/transforms/nap.py", SLEEPER)
    return project


def until(happened: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def at_work_in(root: Path) -> list[psutil.Process]:
    """Return the processes that have anything of a folder as their working directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.cwd().startswith(str(root)):
                found.append(process)
    return found
