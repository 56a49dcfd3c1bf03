"""``run`` and ``plan`` on a small project, as a script sees them."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.cli.app import execute
from seeknal_k8s.results import RunResults
from seeknal_k8s.store import Store
from tests.faithful import environment
from tests.small import PROGRAM, Project, a_project, at_work_in, until

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Said:
    """How a command line ended, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


Here = Callable[..., Said]


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Here:
    """Run command lines in this process, in the project's folder."""

    def call(*arguments: str) -> Said:
        monkeypatch.chdir(tmp_path / "small")
        for name, value in environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        code = execute(arguments)
        told = capsys.readouterr()
        return Said(code, told.out, told.err)

    return call


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return a_project(tmp_path / "small")


@pytest.fixture
def broken(project: Project) -> Project:
    project.transform("bad", "SELECT nope FROM __THIS__")
    project.transform("below", "SELECT * FROM __THIS__", "transform.bad")
    return project


@pytest.fixture
def slow(tmp_path: Path) -> Project:
    return a_project(tmp_path / "small", slow=True)


def without_times(text: str) -> list[str]:
    text = re.sub(r"\d{8}-\d{6}-[0-9a-f]{4}", "RUN", text)
    text = re.sub(r"[\d.]+s in all.*", "TIMES", text)
    return re.sub(r"\d+\.\d+s", "0.0s", text).splitlines()


@pytest.mark.usefixtures("project")
def test_a_run_tells_what_it_does_and_what_to_try_next(here: Here) -> None:
    found = here("run")
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
    again = here("run")
    assert again.returncode == 0
    assert without_times(again.stdout)[2] == "nothing had to run, 2 cached"


@pytest.mark.usefixtures("broken")
def test_a_failed_node_comes_first_and_the_exit_code_is_1(here: Here) -> None:
    found = here("run", "--quiet")
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
        "  seeknal-k8s logs transform.bad                 # what it said",
    ]
    log = here("logs", "bad")
    assert log.stdout == ""
    assert "Binder Error" in log.stderr


def test_a_quiet_run_that_succeeds_says_nothing(project: Project) -> None:
    found = project.call("run", "-q")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.usefixtures("broken")
def test_json_is_alone_on_stdout(here: Here) -> None:
    found = here("run", "--json", "--run-id", "mine")
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
    taken = here("run", "--run-id", "mine")
    assert taken.returncode == 2
    assert "--resume mine" in taken.stderr


def test_a_refused_project_exits_with_78_and_names_every_problem(
    project: Project, here: Here
) -> None:
    project.transform("c", "SELECT 1", "source.nowhere")
    project.write("seeknal-k8s.yml", "defaults:\n  memory: lots\n")
    found = here("run", "--json")
    assert found.returncode == 78
    assert found.stderr.startswith("error: ")
    assert "nothing was run" in found.stderr
    error = json.loads(found.stdout)["error"]
    assert error["type"] == "ProjectRefused"
    assert all(problem["what"] for problem in error["problems"])
    assert "Traceback" not in found.stderr


def test_a_plan_shows_what_runs_and_why_and_changes_nothing(project: Project, here: Here) -> None:
    project.write("seeknal-k8s.yml", "nodes:\n  transform.b:\n    cpu: 250m\n    memory: 1Gi\n")
    assert here("plan").stdout.splitlines() == [
        "NODE         ACTION   CPU  MEMORY  WAITS FOR  WHY",
        "source.a     run        1     2Gi             it has never run",
        "transform.b  run     250m     1Gi  source.a   it has never run",
        "",
        "2 nodes to run, 0 cached",
    ]
    assert not (project.root / ".seeknal-k8s").exists()
    assert not (project.root / "target" / "run_state.json").exists()


@pytest.mark.usefixtures("project")
def test_a_plan_is_json_for_programs(here: Here) -> None:
    document = json.loads(here("plan", "-s", "b", "--set", "cpu=2", "--json").stdout)
    runs = {run["node"]: run for run in document["runs"]}
    assert runs["transform.b"]["waits_for"] == ["source.a"]
    assert runs["transform.b"]["cpu"] == 2.0
    assert runs["transform.b"]["options"]["cpu"] == {"value": "2", "from": "--set"}
    assert (document["cached"], document["left_out"], document["warnings"]) == ([], [], [])


def test_explain_shows_where_each_option_comes_from_also_of_a_cached_node(
    project: Project,
    here: Here,
) -> None:
    project.write("seeknal-k8s.yml", "kinds:\n  transform:\n    memory: 1Gi\n")
    here("run", "-q")
    lines = here("plan", "--explain", "b", "--set", "source.a:cpu=2").stdout.splitlines()
    assert lines[:4] == [
        "transform.b",
        "  file       seeknal/transforms/b.yml",
        "  reads      source.a",
        "  action     cached",
    ]
    options = {line.split()[0]: line.split(maxsplit=2)[1:] for line in lines[6:]}
    assert options["memory"] == ["1Gi", "seeknal-k8s.yml kinds.transform"]
    assert options["cpu"] == ["1", "built-in"]
    unknown = here("plan", "--explain", "source.b", "--json")
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
