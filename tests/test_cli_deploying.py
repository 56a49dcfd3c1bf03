"""The commands that speak to Prefect, on a real server."""

from __future__ import annotations

import asyncio
import http.server
import json
import subprocess
import sys
import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from seeknal_k8s.cli.app import execute
from seeknal_k8s.deployments import pool, template
from seeknal_k8s.doctor import on_prefect
from seeknal_k8s.settings import load
from tests.small import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.prefect_server import PrefectServer

SETTINGS = {"SEEKNAL_K8S_IMAGE": "shop:1", "SEEKNAL_K8S_STORE_CLAIM": "store"}


def call(server: PrefectServer, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a process of its own."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        env={**server.env, **SETTINGS, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def here(prefect: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Speak to the server from this process; give a pool to deploy to."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    pool = f"pool-{uuid.uuid4().hex[:8]}"
    with temporary_settings({PREFECT_API_URL: prefect.url, PREFECT_HOME: prefect.home}):
        assert execute(["pool", "apply", "--pool", pool]) == 0
        yield pool


def test_a_pool_is_applied_checked_and_shown_to_have_drifted(
    here: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pool_apply(*options: str, name: str = here) -> tuple[int, str]:
        capsys.readouterr()
        return execute(["pool", "apply", "--pool", name, *options]), capsys.readouterr().out

    missing, said = pool_apply("--check", name=f"{here}-2")
    assert (missing, said.splitlines()[-1]) == (1, f"work pool {here}-2: missing")
    assert pool_apply(name=f"{here}-2") == (0, f"work pool {here}-2: created\n")
    assert pool_apply("--check") == (0, f"work pool {here}: unchanged\n")
    drifted, said = pool_apply("--check", "--runner-memory", "2Gi")
    assert (drifted, '+        "default": "2Gi",' in said) == (1, True)
    assert pool_apply("--check")[0] == 0
    monkeypatch.setenv("SEEKNAL_K8S_NAMESPACE", "data")
    told = json.loads(pool_apply("--json")[1])
    assert (told["change"], bool(told["drift"])) == ("updated", True)


def test_a_pool_needs_an_image_and_a_store(
    here: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name)
    assert execute(["pool", "apply", "--pool", here]) == 2
    said = capsys.readouterr().err
    assert "SEEKNAL_K8S_IMAGE is not set" in said
    assert "SEEKNAL_K8S_STORE_CLAIM is not set" in said


@pytest.mark.parametrize("command", [("deployments",), ("pool", "apply")])
def test_without_an_api_url_the_program_says_so_and_starts_no_server(
    prefect: PrefectServer, command: tuple[str, ...]
) -> None:
    done = call(prefect, *command, PREFECT_API_URL="")
    assert done.returncode == 78
    assert done.stderr.startswith("error: PREFECT_API_URL is not set")
    assert "Traceback" not in done.stderr


def test_an_api_that_does_not_answer_costs_a_line_and_no_traceback(prefect: PrefectServer) -> None:
    done = call(prefect, "deployments", PREFECT_API_URL="http://127.0.0.1:1/api")
    assert done.returncode == 69
    assert done.stderr.startswith(
        "error: The Prefect API at http://127.0.0.1:1/api does not answer"
    )


class _Locked(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as above
        pass


def test_who_is_not_let_in_learns_what_to_set(prefect: PrefectServer) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Locked) as locked:
        threading.Thread(target=locked.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{locked.server_port}/api"
        done = call(prefect, "deployments", PREFECT_API_URL=url)
        locked.shutdown()
    assert done.returncode == 78
    assert "does not let us in (401)" in done.stderr
    assert "PREFECT_API_AUTH_STRING" in done.stderr
    assert "PREFECT_API_KEY" in done.stderr


def test_a_deployment_is_made_listed_and_the_next_command_named(
    here: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"shop-{uuid.uuid4().hex[:6]}/daily"
    options = ["--pool", here, "--schedule", "0 2 * * *", "--timezone", "Europe/Berlin"]
    capsys.readouterr()
    assert execute(["deploy", name, *options, "--param", "parallel=false", "--tag", "etl"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"✓ created {name}\n")
    assert f"prefect deployment run {name} --watch" in said
    assert execute(["deploy", name, *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["changes"] == ["parameters: parallel", "tags: etl, seeknal → seeknal"]
    assert execute(["deployments"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(name)]
    assert "0 2 * * * (Europe/Berlin)" in line
    assert line.endswith(here)
    assert execute(["deployments", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["deployments"]
    (row,) = [row for row in rows if row["name"] == name]
    assert (row["paused"], row["last_state"], row["work_pool"]) == (False, "", here)


def test_a_deployment_is_printed_as_a_prefect_yaml(
    here: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    options = ["--pool", here, "--schedule", "@daily", "--job-variable", "memory_limit=2Gi"]
    assert execute(["deploy", "daily", *options, "--print"]) == 0
    (made,) = yaml.safe_load(capsys.readouterr().out)["deployments"]
    assert made == {
        "name": "daily",
        "entrypoint": "seeknal_k8s.flows.seeknal_run_flow",
        "version": made["version"],
        "description": made["description"],
        "tags": ["seeknal"],
        "parameters": {"project_path": "/project"},
        "schedules": [{"cron": "@daily", "timezone": "UTC"}],
        "paused": False,
        "concurrency_limit": {"limit": 1, "collision_strategy": "CANCEL_NEW"},
        "work_pool": {
            "name": here,
            "job_variables": {
                "memory_limit": "2Gi",
                "image": "shop:1",
                "env": {"SEEKNAL_K8S_IMAGE": "shop:1"},
            },
        },
        "pull": [],
    }


def test_all_that_is_wrong_with_a_deployment_is_said_at_once(
    here: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["--schedule", "61 * * * *", "--timezone", "Mars", "--overlap", "perhaps"]
    assert execute(["deploy", "seeknal-run-pipelin/daily", "--pool", here, *wrong]) == 2
    said = capsys.readouterr().err
    assert "Flow 'seeknal-run-pipelin' not found" in said
    for word in ("'61 * * * *'", "'Mars'", "'perhaps'"):
        assert word in said


async def test_doctor_tells_what_of_prefect_is_missing_and_what_is_there(here: str) -> None:
    async def looked(pool: str, **settings: str) -> dict[str, tuple[str, str]]:
        found = await on_prefect.examine(load(work_pool=pool, **settings))
        return {one.check: (one.state.value, one.fix) for one in found}

    missing = await looked(f"{here}-none")
    assert {check: state for check, (state, _) in missing.items()} == {
        "API": "ok",
        "work pool": "failed",
        "worker": "failed",
        "flow": "ok",
    }
    assert missing["work pool"][1] == f"seeknal-k8s pool apply --pool {here}-none"
    async with get_client() as client:
        await client.send_worker_heartbeat(here, "worker-1")
    assert {state for state, _ in (await looked(here)).values()} == {"ok"}
    assert (await looked(here, namespace="other"))["work pool"][0] == "failed"


async def test_doctor_is_not_content_with_an_api_that_does_not_answer() -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        (only,) = await on_prefect.examine(load())
    assert (only.check, only.state.value) == ("API", "failed")


async def test_doctor_has_nothing_against_who_does_without_prefect() -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        (only,) = await on_prefect.examine(load())
    assert (only.check, only.state.value) == ("API", "skipped")


def test_a_parameter_is_a_pair(here: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["deploy", "daily", "--pool", here, "--param", "parallel"]) == 2
    assert "--param 'parallel': write KEY=VALUE" in capsys.readouterr().err


def test_the_commands_that_do_not_speak_to_prefect_do_not_load_it() -> None:
    code = (
        "import sys; from seeknal_k8s.cli.app import execute; execute(['deploy', '--help']); "
        "sys.exit('prefect' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0


def wanted(name: str) -> dict[str, Any]:
    return template.build(load(), name)


def with_pool(asked: WorkPoolCreate) -> None:
    """Create a pool as somebody else would."""

    async def create() -> None:
        async with get_client() as client:
            await client.create_work_pool(asked)

    asyncio.run(create())


def test_a_template_that_was_edited_by_hand_is_left_alone(
    here: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = wanted(here)
    edited["variables"]["properties"]["memory_limit"]["default"] = "8Gi"

    async def edit() -> None:
        async with get_client() as client:
            await client.update_work_pool(here, WorkPoolUpdate(base_job_template=edited))

    asyncio.run(edit())
    assert execute(["pool", "apply", "--pool", here]) == 78
    said = capsys.readouterr().err
    assert "changed by hand" in said
    assert '-        "default": "8Gi",' in said
    assert "--overwrite" in said
    assert execute(["pool", "apply", "--pool", here, "--overwrite"]) == 0


@pytest.mark.usefixtures("here")
def test_the_workers_own_template_is_brought_up_to_ours() -> None:
    name = f"plain-{uuid.uuid4().hex[:8]}"
    theirs = template.default()
    with_pool(WorkPoolCreate(name=name, type="kubernetes", base_job_template=theirs))
    assert asyncio.run(pool.apply(name, wanted(name))).change == "updated"


@pytest.mark.usefixtures("here")
def test_a_pool_of_another_type_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    name = f"processes-{uuid.uuid4().hex[:8]}"
    with_pool(WorkPoolCreate(name=name, type="process"))
    assert execute(["pool", "apply", "--pool", name]) == 78
    assert f"'{name}' is of type process" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["deployments"], ["deploy", "daily"], ["pool", "apply"]])
def test_without_prefect_the_program_says_what_to_install(command: list[str]) -> None:
    code = (
        "import sys; sys.modules['prefect'] = None; from seeknal_k8s.cli.app import execute; "
        f"sys.exit(execute({command}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert done.stderr.startswith("error: Prefect is not installed\n")
    assert "pip install 'seeknal-k8s[prefect]'" in done.stderr
