"""The engine process: what it lets through to nodes, and what happens when it dies."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import psutil
import pytest

from seeknal_k8s import coordinator
from seeknal_k8s.coordinator import RunRequest
from seeknal_k8s.engine_client import EngineClient
from seeknal_k8s.engine_process import EngineProcess
from seeknal_k8s.errors import EngineFailed, ProjectRefused
from seeknal_k8s.quiet import QUIET_THREADS
from seeknal_k8s.store import Store
from tests.projects import rows, transform, write
from tests.running import isolate, log, new_project, python, run

if TYPE_CHECKING:
    from pathlib import Path

TALKATIVE = """
    import sys
    print("printed at import")
    print("and to the side", file=sys.stderr)
    import pandas as pd
    from seeknal.pipeline.decorators import transform

    @transform(name="talkative")
    def talkative(ctx):
        return pd.DataFrame({"n": [1]})
"""


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch, tmp_path / "home")


async def _appears(file: Path) -> None:
    async with asyncio.timeout(60):
        while not file.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
            await asyncio.sleep(0.01)


async def _is_gone(pid: int) -> None:
    async with asyncio.timeout(30):
        while psutil.pid_exists(pid):  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("alone")
async def test_a_killed_engine_ends_the_run_with_its_last_words_and_no_orphans(
    tmp_path: Path,
) -> None:
    project = new_project(tmp_path)
    write(project, "seeknal/py/talkative.py", TALKATIVE)
    pid = tmp_path / "pid"
    body = f"""
        with open("{pid}.new", "w") as file:
            file.write(str(os.getpid()))
        os.rename("{pid}.new", "{pid}")
        if not os.path.exists("{tmp_path / "go"}"):
            time.sleep(1000)
    """
    python(project, "sleeps", body)
    engine = EngineProcess()
    request = RunRequest(project=project, run_id="r1")
    running = asyncio.create_task(coordinator.run(request, lambda _: None, engine))
    await _appears(pid)
    engine.process.kill()
    with pytest.raises(EngineFailed) as died:
        await running
    assert died.value.exit_code == 70
    assert "exit code -9" in str(died.value)
    assert "printed at import" in str(died.value)
    await _is_gone(int(pid.read_text()))
    assert Store.of(project).holder() is None
    (tmp_path / "go").touch()
    resumed = await coordinator.run(RunRequest(project=project, resume="r1"), lambda _: None)
    assert resumed.success


@pytest.mark.usefixtures("alone")
async def test_a_call_to_a_dead_engine_says_so() -> None:
    engine = EngineProcess()
    engine.process.kill()
    engine.process.wait()
    async with EngineClient(engine) as client:
        with pytest.raises(EngineFailed, match="exit code -9"):
            await client.call("stop", of=1)


@pytest.mark.usefixtures("alone")
async def test_a_call_that_fails_does_not_end_the_engine() -> None:
    async with EngineClient() as client:
        with pytest.raises(EngineFailed, match="no project is open"):
            await client.call("warm", nodes=[], environments="", spares=0)
        with pytest.raises(EngineFailed, match="_call_dance"):
            await client.call("dance")
        assert await client.call("stop", of=1) is None


@pytest.mark.usefixtures("alone")
async def test_the_engine_ends_when_its_client_goes() -> None:
    async with EngineClient() as client:
        engine = psutil.Process(client.pid)
        assert await client.call("stop", of=1) is None
    assert not engine.is_running()


def test_what_a_module_prints_at_import_is_not_the_output_of_its_neighbours(
    tmp_path: Path,
) -> None:
    project = new_project(tmp_path)
    write(project, "seeknal/py/talkative.py", TALKATIVE)
    python(project, "quiet", "pass")
    ran = run(project)
    assert ran.results.success
    own = log(ran["transform.talkative"])
    assert own == b"printed at import\nExecuted talkative successfully\n"
    assert log(ran["transform.talkative"], "stderr") == b"and to the side\n"
    assert log(ran["transform.quiet"]) == b"Executed quiet successfully\n"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        pytest.param("raise RuntimeError('not today')", "not today", id="an exception"),
        pytest.param("import no_such_module", "no_such_module", id="a missing module"),
        pytest.param("def (", "invalid syntax", id="no Python"),
    ],
)
def test_a_module_that_cannot_be_imported_is_a_problem_of_the_project(
    tmp_path: Path, code: str, message: str
) -> None:
    project = new_project(tmp_path)
    transform(project, "one", "SELECT 1 AS one")
    write(project, "seeknal/py/broken.py", f"{code}\n")
    with pytest.raises(ProjectRefused) as refused:
        run(project)
    assert "seeknal/py/broken.py" in str(refused.value)
    assert message in str(refused.value)
    assert not (project / "target").exists()


ENVIRONMENT = """
    import json
    print(json.dumps(dict(os.environ)))
    return pd.DataFrame([{"name": k, "value": v} for k, v in os.environ.items()])
"""


def _environment(project: Path) -> dict[str, str]:
    python(project, "shows", ENVIRONMENT)
    ran = run(project, full=True)
    assert ran.results.success, ran["transform.shows"].message
    return dict(rows(project, "transform.shows"))


def test_nodes_see_the_dot_env_of_their_project_and_of_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SK_SET", "by the user")
    project = new_project(tmp_path)
    write(project, ".env", "SK_FILE=from the file\nSK_SET=from the file\n")
    write(project, "seeknal-k8s.yml", "nodes:\n  transform.shows: {env: {SK_OPTION: yes please}}\n")
    seen = _environment(project)
    assert (seen["SK_FILE"], seen["SK_SET"]) == ("from the file", "by the user")
    assert seen["SK_OPTION"] == "yes please"
    assert "SK_FILE" not in os.environ
    assert "SK_OPTION" not in os.environ


def test_nodes_have_as_many_threads_as_the_user_says_and_not_as_we_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in QUIET_THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    seen = _environment(new_project(tmp_path))
    ours = {name: seen.get(name) for name in QUIET_THREADS}
    assert ours == {**dict.fromkeys(QUIET_THREADS), "OMP_NUM_THREADS": "3"}
