"""The flows on a real Prefect server: whoever calls them, whatever becomes of a node."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from seeknal_k8s import PrefectRunResult, RunResults, run_seeknal_node, seeknal_run_flow
from seeknal_k8s.errors import ProjectRefused, UsageError
from seeknal_k8s.store import Store
from tests.cluster.harness import until
from tests.projects import csv, transform
from tests.running import isolate, new_project, python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.prefect_server import PrefectServer


# Prefect leaves connections of its own open where an async flow has called a sync one.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def server(
    prefect: PrefectServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[PrefectServer]:
    isolate(monkeypatch, tmp_path / "home")
    with temporary_settings({PREFECT_API_URL: prefect.url, PREFECT_HOME: prefect.home}):
        yield prefect


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project of a source and two transforms, one below the other."""
    project = new_project(tmp_path)
    csv(project, "orders", rows=5)
    transform(project, "clean", "SELECT * FROM __THIS__", "source.orders")
    transform(project, "total", "SELECT count(*) AS n FROM __THIS__", "transform.clean")
    return project


def about(run_id: str) -> dict[str, Any]:
    """Return what Prefect shows of a flow run: its state, its task runs, artifacts and log."""

    async def ask() -> dict[str, Any]:
        found = uuid.UUID(run_id)
        only = FlowRunFilter(id=FlowRunFilterId(any_=[found]))
        async with get_client() as client:
            state = (await client.read_flow_run(found)).state
            tasks = await client.read_task_runs(
                flow_run_filter=only,
                task_run_filter=TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[found])),
            )
            artifacts = await client.read_artifacts(
                artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[found]))
            )
            logs = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[found])))
        return {
            "state": state,
            "tasks": {one.name: one for one in tasks},
            "artifacts": {one.key: one for one in artifacts},
            "log": [one.message for one in logs],
        }

    return asyncio.run(ask())


def settled(run_id: str, tasks: int) -> dict[str, Any]:
    """Wait until Prefect shows so many task runs that have ended; return what it shows.

    Their states travel as events, so that the server knows of them a little later.
    """

    def seen() -> dict[str, Any] | None:
        found = about(run_id)
        ended = [one for one in found["tasks"].values() if one.state and one.state.is_final()]
        return found if len(ended) >= tasks else None

    shown: dict[str, Any] = until(seen, f"{tasks} task runs of flow run {run_id}")
    return shown


def names_of_inputs(shown: dict[str, Any], node: str) -> set[str]:
    """Return the nodes whose task runs Prefect knows to be the inputs of a node's."""
    names = {one.id: name for name, one in shown["tasks"].items()}
    inputs = shown["tasks"][node].task_inputs
    return {names[one.id] for several in inputs.values() for one in several}


def test_a_run_is_a_flow_run_with_a_task_run_per_node(server: PrefectServer, project: Path) -> None:
    results = seeknal_run_flow(project_path=str(project)).wait()
    assert isinstance(results, RunResults)
    assert {node: result.exit_code for node, result in results.items()} == {
        "source.orders": 0,
        "transform.clean": 0,
        "transform.total": 0,
    }
    shown = settled(results.run_id, 3)
    assert shown["state"].is_completed()
    assert {name: one.state.message for name, one in shown["tasks"].items()} == {
        "source.orders": "Succeeded, exit code 0, 5 rows",
        "transform.clean": "Succeeded, exit code 0, 5 rows",
        "transform.total": "Succeeded, exit code 0, 1 rows",
    }
    assert names_of_inputs(shown, "transform.clean") == {"source.orders"}
    assert names_of_inputs(shown, "transform.total") == {"transform.clean"}
    assert shown["tasks"]["transform.clean"].tags == ["transform"]
    assert server.url


@pytest.mark.usefixtures("server")
def test_a_run_leaves_a_progress_bar_a_table_and_a_summary(project: Path) -> None:
    results = seeknal_run_flow(str(project))
    artifacts = about(results.run_id)["artifacts"]
    assert set(artifacts) == {"seeknal-progress", "seeknal-nodes", "seeknal-run-summary"}
    assert artifacts["seeknal-progress"].data == 100
    table = json.loads(artifacts["seeknal-nodes"].data)
    assert [row["node"] for row in table] == list(results)
    assert "3 of 3 nodes succeeded" in artifacts["seeknal-run-summary"].data


@pytest.mark.usefixtures("server")
def test_a_failed_node_fails_the_flow_run_and_the_caller_has_its_results(project: Path) -> None:
    transform(project, "broken", "SELECT no_such_column FROM __THIS__", "source.orders")
    transform(project, "below", "SELECT * FROM __THIS__", "transform.broken")
    results = seeknal_run_flow(str(project), options=["retries=0"])
    assert not results.success
    assert results["transform.broken"].exit_code == 1
    shown = settled(results.run_id, 5)
    assert shown["state"].is_failed()
    assert "1 of 5 nodes failed: transform.broken (NodeFailed); 1 skipped" in shown["state"].message
    states = {name: one.state for name, one in shown["tasks"].items()}
    assert states["transform.broken"].is_failed()
    assert "NodeFailed, exit code 1" in states["transform.broken"].message
    assert "no_such_column" in states["transform.broken"].message
    assert (states["transform.below"].name, states["transform.below"].is_cancelled()) == (
        "Skipped",
        True,
    )
    summary = shown["artifacts"]["seeknal-run-summary"].data
    assert f"seeknal-k8s run --resume {results.run_id}" in summary
    assert f"seeknal-k8s logs transform.broken --run {results.run_id}" in summary


@pytest.mark.usefixtures("server")
def test_what_a_node_prints_is_in_the_log_of_its_task_run(project: Path) -> None:
    python(project, "talks", 'print("hello from a node"); print("password=hunter2")')
    results = seeknal_run_flow(str(project), node_ids=["talks"])
    assert set(results) == {"transform.talks"}

    def said() -> str:
        return "\n".join(about(results.run_id)["log"])

    until(lambda: "hello from a node" in said(), "the node's log")
    assert "hunter2" not in said()


@pytest.mark.usefixtures("server")
def test_what_an_attempt_printed_last_is_in_the_log_though_another_followed(
    project: Path, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    body = f"""
        with open({str(count)!r}, "a") as file:
            file.write("x")
        print("the last words of attempt", os.path.getsize({str(count)!r}))
        if os.path.getsize({str(count)!r}) < 2:
            raise ValueError("not yet")
    """
    python(project, "second", body)
    results = seeknal_run_flow(str(project), node_ids=["second"], options=["retries=1"])
    assert results["transform.second"].attempts == 2
    wanted = {f"the last words of attempt {n}" for n in (1, 2)}
    until(lambda: wanted <= set(about(results.run_id)["log"]), "the log of both attempts")


@pytest.mark.usefixtures("server")
def test_what_is_cached_is_shown_as_cached(project: Path) -> None:
    seeknal_run_flow(str(project))
    again = seeknal_run_flow(str(project))
    assert {result.reason for result in again.values()} == {"Cached"}
    shown = settled(again.run_id, 3)
    assert {one.state.name for one in shown["tasks"].values()} == {"Cached"}


@pytest.mark.usefixtures("server")
def test_a_flow_calls_it_and_so_does_an_async_one(project: Path) -> None:
    @flow
    def parent() -> Any:
        return seeknal_run_flow(project_path=str(project), parallel=False)

    @flow
    async def async_parent() -> Any:
        return await seeknal_run_flow(project_path=str(project), full=True)

    found: Any = parent()
    assert set(found) == {"source.orders", "transform.clean", "transform.total"}
    assert {result.reason for result in asyncio.run(async_parent()).values()} == {"Succeeded"}


@pytest.mark.usefixtures("server")
def test_it_can_be_called_where_a_loop_runs_already_as_in_a_notebook(project: Path) -> None:
    async def cell() -> RunResults:
        return seeknal_run_flow(project_path=str(project))  # type: ignore[no-any-return]

    assert asyncio.run(cell()).success


@pytest.mark.usefixtures("server")
def test_its_options_are_those_of_any_flow(project: Path) -> None:
    mine = seeknal_run_flow.with_options(name="nightly", retries=1, retry_delay_seconds=0)
    transform(project, "broken", "SELECT no_such_column")
    results = mine(str(project), options=["retries=0"])
    assert results["transform.broken"].attempts == 2  # once more, by Prefect's retry of the flow
    assert results["source.orders"].attempts == 1  # but what was done is done
    runs = [run for run in Store.of(project).runs() if run.id == results.run_id]
    assert len(runs) == 1


@pytest.mark.usefixtures("server")
def test_a_flow_that_takes_too_long_ends_its_nodes(project: Path, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    body = f"""
        with open({str(mark)!r}, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(600)
    """
    python(project, "sleeps", body)
    with pytest.raises(TimeoutError):
        seeknal_run_flow.with_options(timeout_seconds=15)(str(project), node_ids=["sleeps"])
    pid = int(mark.read_text())
    until(lambda: not _lives(pid), "the end of the node")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_flow_process_that_is_told_to_end_ends_its_nodes(
    server: PrefectServer, project: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    body = f"""
        with open({str(mark)!r}, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(600)
    """
    python(project, "sleeps", body)
    code = f"from seeknal_k8s import seeknal_run_flow; seeknal_run_flow({str(project)!r})"
    env = {**os.environ, **server.env}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.DEVNULL)
    until(lambda: mark.exists() and mark.read_text(), "the node", seconds=90)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    until(lambda: not _lives(int(mark.read_text())), "the end of the node")
    (run,) = Store.of(project).runs()
    assert run.about()["status"] == "interrupted"


@pytest.mark.usefixtures("server")
def test_a_single_node_is_a_task_of_ones_own_flow(project: Path) -> None:
    @flow(name="custom-etl")
    def custom_etl(nodes: list[str], project_path: str = ".") -> Any:
        return {node: run_seeknal_node.submit(node, project_path) for node in nodes}

    seeknal_run_flow(str(project))
    states: Any = custom_etl(["clean", "total"], str(project))
    results = [state.result() for state in states.values()]
    assert {type(result) for result in results} == {PrefectRunResult}
    assert [result.rows for result in results] == [5, 1]


@pytest.mark.usefixtures("server")
def test_a_node_task_that_fails_is_tried_again_by_prefect(project: Path, tmp_path: Path) -> None:
    count = tmp_path / "count"
    body = f"""
        with open({str(count)!r}, "a") as file:
            file.write("x")
        if os.path.getsize({str(count)!r}) < 3:
            raise ValueError("not yet")
    """
    python(project, "third", body)

    @flow
    def persistent() -> Any:
        often = run_seeknal_node.with_options(retries=2, retry_delay_seconds=0)
        return often("third", str(project), options=["retries=0"])

    found: Any = persistent()
    assert found.success
    assert count.read_text() == "xxx"


@pytest.mark.usefixtures("server")
def test_a_task_decides_whether_the_pipeline_runs(project: Path) -> None:
    @task
    def check_dependencies() -> bool:
        return True

    @flow
    def conditional_flow() -> Any:
        if check_dependencies():
            return seeknal_run_flow(project_path=str(project))
        return {"skipped": "dependencies not met"}

    found: Any = conditional_flow()
    assert found.success


@pytest.mark.usefixtures("server")
def test_a_node_that_is_not_there_is_a_clear_error(project: Path) -> None:
    with pytest.raises(ProjectRefused, match=r"did you mean transform\.total\?"):
        seeknal_run_flow(str(project), node_ids=["totl"])
    with pytest.raises(UsageError, match="leave it out to run all"):
        seeknal_run_flow(str(project), node_ids=[])
    assert not Store.of(project).runs()


def test_a_prefect_server_that_goes_away_fails_no_run(
    server: PrefectServer, project: Path, tmp_path: Path
) -> None:
    python(
        project, "waits", f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.05)"
    )
    from tests import prefect_server  # noqa: PLC0415

    folder = tmp_path / "prefect"
    folder.mkdir()
    script = f"""
from seeknal_k8s import seeknal_run_flow
print(seeknal_run_flow({str(project)!r}).success)
"""
    with prefect_server.running(folder) as own:
        env = {**os.environ, **own.env}
        process = subprocess.Popen(
            [sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        store = Store.of(project)
        until(
            lambda: store.runs() and store.runs()[0].attempts("transform.waits"),
            "the node",
            seconds=90,
        )
    (tmp_path / "go").touch()
    status = "succeeded"
    until(lambda: store.runs()[0].about().get("status") == status, "the end of the run", seconds=90)
    process.kill()  # Prefect would go on trying for minutes
    process.communicate()
    assert server.url != own.url


def test_without_prefect_the_core_works_and_the_flows_say_what_to_install() -> None:
    code = """
import sys
sys.modules["prefect"] = None
import seeknal_k8s
from seeknal_k8s import RunResults
try:
    seeknal_k8s.seeknal_run_flow
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Prefect is not installed" in done.stdout
    assert 'pip install "seeknal-k8s[prefect]"' in done.stdout
