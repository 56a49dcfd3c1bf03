"""``run`` and ``plan`` as a user sees them: real processes, and a real terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import pytest

from seeknal_k8s.results import RunResults
from seeknal_k8s.store import Store
from tests.faithful import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

PROGRAM = [sys.executable, "-m", "seeknal_k8s"]
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
STYLE = re.compile(r"\x1b\[[\d;]*m")

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


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path / "small")
    project.write("seeknal_project.yml", "name: small\nversion: 1.0.0\n")
    project.write("data/a.csv", "id,v\n1,2\n3,4\n")
    project.write(
        "seeknal/sources/a.yml", "kind: source\nname: a\nsource: csv\ntable: data/a.csv\n"
    )
    project.transform("b", "SELECT id, v FROM __THIS__")
    return project


@pytest.fixture
def broken(project: Project) -> Project:
    project.transform("bad", "SELECT nope FROM __THIS__")
    project.transform("below", "SELECT * FROM __THIS__", "transform.bad")
    return project


@pytest.fixture
def slow(project: Project) -> Project:
    project.write("seeknal/transforms/nap.py", SLEEPER)
    return project


def until(happened: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def without_times(text: str) -> list[str]:
    text = re.sub(r"\d{8}-\d{6}-[0-9a-f]{4}", "RUN", text)
    text = re.sub(r"[\d.]+s in all.*", "TIMES", text)
    return re.sub(r"\d+\.\d+s", "0.0s", text).splitlines()


def test_a_run_tells_what_it_does_and_what_to_try_next(project: Project) -> None:
    found = project.call("run")
    assert found.returncode == 0
    assert found.stderr == ""
    assert without_times(found.stdout) == [
        "run RUN: 2 nodes to run",
        "  source.a started",
        "✓ source.a     0.0s  2 rows",
        "  transform.b started",
        "✓ transform.b  0.0s  2 rows",
        "",
        "2 nodes succeeded",
        "TIMES",
        "next:",
        "  seeknal-k8s show              # this again",
        "  seeknal-k8s logs transform.b  # what a node said",
        "  seeknal inspect transform.b   # what a node made",
    ]
    again = project.call("run")
    assert again.returncode == 0
    assert without_times(again.stdout)[2] == "nothing had to run, 2 cached"


def test_a_failed_node_comes_first_and_the_exit_code_is_1(broken: Project) -> None:
    found = broken.call("run", "--quiet")
    assert found.returncode == 1
    lines = without_times(found.stdout)
    assert lines[1] == "✗ transform.bad  NodeFailed (exit code 1)"
    assert 'Referenced column "nope" not found' in lines[2]
    assert lines[-8:-2] == [
        "– transform.below  skipped, because transform.bad failed",  # noqa: RUF001 - the sign
        "",
        "1 of 4 nodes failed, 1 skipped, 2 succeeded",
        "TIMES",
        "next:",
        "  seeknal-k8s logs transform.bad     # what it said",
    ]
    log = broken.call("logs", "bad")
    assert log.stdout == ""
    assert "Binder Error" in log.stderr


def test_a_quiet_run_that_succeeds_says_nothing(project: Project) -> None:
    found = project.call("run", "-q")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_json_is_alone_on_stdout(broken: Project) -> None:
    found = broken.call("run", "--json", "--run-id", "mine")
    assert found.returncode == 1
    assert found.stderr.startswith("run mine: 4 nodes to run\n")
    results = RunResults.from_json(found.stdout)
    assert results.run_id == "mine"
    assert {node: result.reason for node, result in results.items()} == {
        "source.a": "Succeeded",
        "transform.b": "Succeeded",
        "transform.bad": "NodeFailed",
        "transform.below": "UpstreamFailed",
    }
    taken = broken.call("run", "--run-id", "mine")
    assert taken.returncode == 2
    assert "--resume mine" in taken.stderr


def test_a_refused_project_exits_with_78_and_names_every_problem(project: Project) -> None:
    project.transform("c", "SELECT 1", "source.nowhere")
    project.write("seeknal-k8s.yml", "defaults:\n  memory: lots\n")
    found = project.call("run", "--json")
    assert found.returncode == 78
    assert found.stderr.startswith("error: ")
    assert "nothing was run" in found.stderr
    error = json.loads(found.stdout)["error"]
    assert error["type"] == "ProjectRefused"
    assert all(problem["what"] for problem in error["problems"])
    assert "Traceback" not in found.stderr


def test_a_plan_shows_what_runs_and_why_and_changes_nothing(project: Project) -> None:
    project.write("seeknal-k8s.yml", "nodes:\n  transform.b:\n    cpu: 250m\n    memory: 1Gi\n")
    assert project.call("plan").stdout.splitlines() == [
        "NODE         ACTION   CPU  MEMORY  WAITS FOR  WHY",
        "source.a     run        1     2Gi             it has never run",
        "transform.b  run     250m     1Gi  source.a   it has never run",
        "",
        "2 nodes to run, 0 cached",
    ]
    assert not (project.root / ".seeknal-k8s").exists()
    assert not (project.root / "target" / "run_state.json").exists()


def test_a_plan_is_json_for_programs(project: Project) -> None:
    document = json.loads(project.call("plan", "-s", "b", "--set", "cpu=2", "--json").stdout)
    runs = {run["node"]: run for run in document["runs"]}
    assert runs["transform.b"]["waits_for"] == ["source.a"]
    assert runs["transform.b"]["cpu"] == 2.0
    assert runs["transform.b"]["options"]["cpu"] == {"value": "2", "from": "--set"}
    assert (document["cached"], document["left_out"], document["warnings"]) == ([], [], [])


def test_explain_shows_where_each_option_comes_from_also_of_a_cached_node(
    project: Project,
) -> None:
    project.write("seeknal-k8s.yml", "kinds:\n  transform:\n    memory: 1Gi\n")
    project.call("run", "-q")
    lines = project.call("plan", "--explain", "b", "--set", "source.a:cpu=2").stdout.splitlines()
    assert lines[:4] == [
        "transform.b",
        "  file       seeknal/transforms/b.yml",
        "  reads      source.a",
        "  action     cached",
    ]
    options = {line.split()[0]: line.split(maxsplit=2)[1:] for line in lines[6:]}
    assert options["memory"] == ["1Gi", "seeknal-k8s.yml kinds.transform"]
    assert options["cpu"] == ["1", "built-in"]
    unknown = project.call("plan", "--explain", "source.b", "--json")
    assert unknown.returncode == 78
    assert json.loads(unknown.stdout)["error"]["problems"][0]["fix"] == "did you mean transform.b?"


def test_wrong_usage_leaves_no_process_behind(project: Project) -> None:
    began = time.monotonic()
    with subprocess.Popen(
        [*PROGRAM, "run", "--date", "never"],
        cwd=project.root,
        env=project.environment(),
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.wait(timeout=20) == 2
    assert time.monotonic() - began < 5
    assert at_work_in(project.root) == []


def at_work_in(root: Path) -> list[psutil.Process]:
    """Return the processes that have anything of a folder as their working directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.cwd().startswith(str(root)):
                found.append(process)
    return found


def test_a_reader_that_has_seen_enough_does_not_end_the_run(project: Project) -> None:
    with subprocess.Popen(
        [*PROGRAM, "run"],
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert project.status() == "succeeded"


def test_sigterm_ends_the_nodes_and_says_how_to_resume(slow: Project) -> None:
    with subprocess.Popen(
        [*PROGRAM, "run"],
        cwd=slow.root,
        env=slow.environment(NAP="60"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        until(lambda: slow.started("transform.nap"))
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    run_id = Store.of(slow.root).run("latest").id
    assert f"seeknal-k8s run --resume {run_id}" in said
    assert at_work_in(slow.root) == []
    resumed = slow.call("run", "--resume", run_id)
    assert resumed.returncode == 0
    assert "done before" in resumed.stdout


class Terminal:
    """A real pseudo-terminal with a command in it."""

    def __init__(self, command: Sequence[str], cwd: Path, env: dict[str, str]) -> None:
        self.output = ""
        self._read = b""
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execve(command[0], list(command), env)  # noqa: S606 - no shell is wanted
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))

    def ended(self) -> bool:
        """Take in what has been written for a moment; return whether that was all."""
        if not select.select([self._master], [], [], 0.05)[0]:
            return False
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # what Linux says when the last writer is gone
            return True
        self._read += data
        self.output = STYLE.sub("", self._read.decode(errors="ignore"))
        return False

    def press_ctrl_c(self) -> None:
        os.write(self._master, b"\x03")

    def wait(self, seconds: float = 60) -> int:
        """Return the exit code."""
        until(self.ended, seconds)
        os.close(self._master)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def read_until(self, text: str) -> None:
        until(lambda: self.ended() or text in self.output)


@pytest.fixture
def terminal(slow: Project, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    env = slow.environment(TERM="xterm-256color", **getattr(request, "param", {}))
    env.pop("COLUMNS", None)
    terminal = Terminal([*PROGRAM, "run"], slow.root, env)
    yield terminal
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(terminal.pid, signal.SIGKILL)
        os.waitpid(terminal.pid, 0)


@pytest.mark.parametrize("terminal", [{"NAP": "1"}], indirect=True)
def test_on_a_terminal_there_is_a_live_view_that_goes_when_the_run_ends(
    terminal: Terminal,
) -> None:
    assert terminal.wait() == 0
    said = terminal.output
    assert said.count(HIDE_CURSOR) == said.count(SHOW_CURSOR) == 1
    live, rest = said.split(SHOW_CURSOR)
    assert "▸ transform.nap  0:01" in live
    assert "of 3 done" in live
    assert "transform.nap  waits for source.a" in live
    assert "✓ transform.nap" in live
    assert "3 nodes succeeded" in rest


@pytest.mark.parametrize("terminal", [{"NAP": "60"}], indirect=True)
def test_ctrl_c_ends_the_nodes_and_gives_the_terminal_back(
    terminal: Terminal, slow: Project
) -> None:
    terminal.read_until("▸ transform.nap  0:01")
    terminal.press_ctrl_c()
    assert terminal.wait() == 130
    live, rest = terminal.output.split(SHOW_CURSOR)
    assert "Ctrl-C again leaves at once" in live
    assert "was interrupted; 2 of 3 nodes are done and kept" in rest
    assert slow.status() == "interrupted"
    assert at_work_in(slow.root) == []


@pytest.mark.parametrize("terminal", [{"NAP": "60", "STUBBORN": "1"}], indirect=True)
def test_a_second_ctrl_c_leaves_at_once_and_no_process_stays(
    terminal: Terminal, slow: Project
) -> None:
    until(lambda: terminal.ended() or slow.started("transform.nap"))
    terminal.press_ctrl_c()
    terminal.read_until("Ctrl-C again leaves at once")
    pressed = time.monotonic()
    terminal.press_ctrl_c()
    assert terminal.wait() == 130
    assert time.monotonic() - pressed < 1
    assert terminal.output.count(SHOW_CURSOR) == 1
    until(lambda: not at_work_in(slow.root))
    assert slow.call("show").stdout.startswith(f"run {Store.of(slow.root).run('latest').id}  died")
