"""Deployments and work pools on a real Prefect server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.states import Pending

from seeknal_k8s.deployments import create_prefect_deployment, deploy, file, listed, pool, template
from seeknal_k8s.errors import PrefectRefused, PrefectUnavailable, UsageError
from seeknal_k8s.options.text import documents
from seeknal_k8s.settings import Settings
from tests.cluster.harness import until
from tests.small import a_project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect.client.schemas.responses import DeploymentResponse

    from seeknal_k8s.deployments import Deployed, Listed
    from seeknal_k8s.deployments.wanted import Request
    from tests.prefect_server import PrefectServer

FLOW = "seeknal_k8s.flows.seeknal_run_flow"
DIGEST = f"local/shop@sha256:{'a' * 64}"


@pytest.fixture
def server(prefect: PrefectServer) -> Iterator[PrefectServer]:
    with temporary_settings({PREFECT_API_URL: prefect.url, PREFECT_HOME: prefect.home}):
        yield prefect


@pytest.fixture
def work_pool(server: PrefectServer) -> str:
    """Make a pool of type kubernetes, with our template."""
    name = f"pool-{uuid.uuid4().hex[:8]}"
    made = asyncio.run(pool.apply(name, wanted(name)))
    assert (made.change, server.url != "") == ("created", True)
    return name


@pytest.fixture
def processes(server: PrefectServer) -> str:
    """Make a pool of type process."""
    name = f"processes-{uuid.uuid4().hex[:8]}"

    async def create() -> None:
        async with get_client() as client:
            assert str(client.api_url).startswith(server.url)
            await client.create_work_pool(WorkPoolCreate(name=name, type="process"))

    asyncio.run(create())
    return name


def wanted(name: str, **given: Any) -> dict[str, Any]:
    settings = Settings.model_validate({"image": "shop:1", "store_claim": "store", **given})
    return template.build(settings, name, cpu="500m", memory="1Gi")


def request(flow: str = "seeknal-run-pipeline", **given: Any) -> Request:
    asked: dict[str, Any] = {
        "name": "daily",
        "project_path": "/project",
        "schedule": None,
        "timezone": "UTC",
        "tags": (),
        "image": None,
        "work_pool": None,
        "parameters": {},
        "job_variables": {},
        "concurrency_limit": 1,
        "overlap": "skip",
        "paused": False,
        **given,
    }
    return deploy.checked(flow, **asked)


def apply(flow: str = "seeknal-run-pipeline", **given: Any) -> Deployed:
    return asyncio.run(deploy.apply(request(flow, **given)))


def read(done: Deployed) -> DeploymentResponse:
    async def ask() -> DeploymentResponse:
        async with get_client() as client:
            return await client.read_deployment_by_name(done.name)

    return asyncio.run(ask())


def fresh() -> str:
    return f"flow-{uuid.uuid4().hex[:8]}"


def test_a_deployment_is_created_then_unchanged_then_updated(work_pool: str) -> None:
    flow = fresh()
    asked: dict[str, Any] = {
        "flow": flow,
        "work_pool": work_pool,
        "schedule": "0 2 * * *",
        "tags": ("etl",),
    }
    first, second = apply(**asked), apply(**asked)
    third = apply(**{**asked, "schedule": "every 30m", "tags": ()})
    assert [one.change for one in (first, second, third)] == ["created", "unchanged", "updated"]
    assert third.changes == (
        "tags: etl, seeknal → seeknal",
        "schedule: 0 2 * * * (UTC) → every 30m (UTC)",
    )
    assert first.id == second.id == third.id
    assert (first.name, first.url.endswith(first.id)) == (f"{flow}/daily", True)


def test_everything_of_a_deployment_is_what_was_said(work_pool: str) -> None:
    done = apply(
        fresh(),
        work_pool=work_pool,
        schedule="0 2 * * *",
        timezone="Europe/Berlin",
        tags=("etl",),
        image=DIGEST,
        parameters={"parallel": False},
        job_variables={"memory_limit": "2Gi", "env": {"REGION": "EU"}},
        paused=True,
    )
    there = read(done)
    assert there.entrypoint == FLOW
    assert there.parameters == {"project_path": "/project", "parallel": False}
    assert there.job_variables == {
        "image": DIGEST,
        "memory_limit": "2Gi",
        "env": {"REGION": "EU", "SEEKNAL_K8S_IMAGE": DIGEST},
    }
    assert (there.pull_steps, there.paused, there.tags) == ([], True, ["etl", "seeknal"])
    (schedule,) = there.schedules
    assert (getattr(schedule.schedule, "cron", ""), schedule.active) == ("0 2 * * *", True)
    assert getattr(schedule.schedule, "timezone", "") == "Europe/Berlin"
    limit, options = there.global_concurrency_limit, there.concurrency_options
    assert limit is not None
    assert options is not None
    assert (limit.limit, options.collision_strategy.value) == (1, "CANCEL_NEW")


def test_what_is_left_out_is_taken_away(work_pool: str) -> None:
    flow = fresh()
    apply(
        flow,
        work_pool=work_pool,
        schedule=timedelta(hours=1),
        image=DIGEST,
        parameters={"node_ids": ["transform.a"]},
        overlap="queue",
    )
    there = read(apply(flow, work_pool=work_pool, concurrency_limit=None))
    assert (there.schedules, there.job_variables, there.global_concurrency_limit) == ([], {}, None)
    assert there.parameters == {"project_path": "/project"}


def test_the_image_of_the_settings_counts_where_none_is_given(
    work_pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEKNAL_K8S_IMAGE", "shop:7")
    there = read(apply(fresh(), work_pool=work_pool))
    assert there.job_variables == {"image": "shop:7", "env": {"SEEKNAL_K8S_IMAGE": "shop:7"}}


def test_changes_do_not_tell_what_may_be_secret(work_pool: str) -> None:
    flow = fresh()
    apply(flow, work_pool=work_pool)
    done = apply(flow, work_pool=work_pool, job_variables={"env": {"TOKEN": "hunter2"}})
    assert done.changes == ("job_variables: env",)


def test_a_schedule_that_was_edited_in_the_ui_is_put_right(work_pool: str) -> None:
    flow = fresh()
    done = apply(flow, work_pool=work_pool, schedule="@daily")

    async def edit() -> None:
        async with get_client() as client:
            there = await client.read_deployment_by_name(done.name)
            await client.update_deployment_schedule(there.id, there.schedules[0].id, active=False)

    asyncio.run(edit())
    again = apply(flow, work_pool=work_pool, schedule="@daily")
    assert again.changes == ("schedule: @daily (UTC), not active → @daily (UTC)",)
    assert read(again).schedules[0].active


def test_everything_that_is_wrong_is_said_before_any_server_is_asked() -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}),
        pytest.raises(UsageError) as refused,
    ):
        request(
            "seeknal-run-pipelin",
            name="a/b",
            schedule="61 * * * *",
            timezone="Mars",
            concurrency_limit=0,
            overlap="perhaps",
            parameters={"project_path": "/x"},
        )
    said = str(refused.value)
    assert "Flow 'seeknal-run-pipelin' not found; did you mean 'seeknal-run-pipeline'?" in said
    for word in ("'a/b'", "'61 * * * *'", "'Mars'", "concurrency_limit 0", "'perhaps'"):
        assert word in said
    assert "the project's path is an argument of its own" in said


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"paralel": True}, "no parameter 'paralel'; did you mean parallel"),
        ({"parallel": "perhaps"}, "parallel: Input should be a valid boolean"),
    ],
)
def test_parameters_that_the_flow_does_not_take_are_refused(
    parameters: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UsageError, match=why):
        request(parameters=parameters)
    assert caplog.text == ""


def test_a_relative_project_is_refused_where_runs_are_elsewhere(work_pool: str) -> None:
    with pytest.raises(UsageError, match="'shop' is relative"):
        apply(fresh(), work_pool=work_pool, project_path="shop")


def test_a_relative_project_is_this_machines_folder_for_processes(processes: str) -> None:
    there = read(apply(fresh(), work_pool=processes, project_path="examples/../shop"))
    assert there.parameters["project_path"] == str(Path("shop").absolute())


def test_an_image_is_refused_where_runs_have_none(processes: str) -> None:
    with pytest.raises(UsageError, match="whose runs have no image"):
        apply(fresh(), work_pool=processes, image="shop:1")


def test_a_pool_that_is_not_there_is_named_with_what_creates_it(server: PrefectServer) -> None:
    assert server.url
    with pytest.raises(PrefectRefused, match="pool apply --pool nowhere"):
        apply(fresh(), work_pool="nowhere")


def test_without_an_api_no_server_is_started_silently() -> None:
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(PrefectRefused, match="export PREFECT_API_URL="),
    ):
        apply(fresh())


def test_an_api_that_does_not_answer_is_named() -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://me:secret@127.0.0.1:1/api"}),
        pytest.raises(
            PrefectUnavailable, match=r"http://127\.0\.0\.1:1/api does not answer"
        ) as error,
    ):
        apply(fresh())
    assert "secret" not in str(error.value)


def test_what_is_no_prefect_api_is_told_from_one(server: PrefectServer) -> None:
    with (
        temporary_settings({PREFECT_API_URL: server.url.removesuffix("/api")}),
        pytest.raises(PrefectUnavailable, match="is not a Prefect API"),
    ):
        apply(fresh())


def test_the_guides_call_makes_a_deployment(work_pool: str) -> None:
    flow = fresh()
    done = create_prefect_deployment(
        flow_name=flow,
        deployment_name="production",
        project_path="/data/etl",
        schedule="0 2 * * *",
        tags=["etl", "production"],
        work_pool=work_pool,
    )
    assert (done.change, done.name) == ("created", f"{flow}/production")
    assert read(done).tags == ["etl", "production", "seeknal"]


async def test_inside_a_loop_the_same_call_is_awaited() -> None:
    with pytest.raises(UsageError, match="'Mars'"):
        await create_prefect_deployment(  # type: ignore[misc] # as of Prefect's own functions
            "seeknal-run-pipeline", "daily", "/project", timezone="Mars"
        )


def listed_as(name: str) -> Listed:
    (row,) = [row for row in asyncio.run(listed()) if row.name == name]
    return row


def test_deployments_are_listed_with_what_comes_next(work_pool: str) -> None:
    flow = fresh()
    apply(flow, work_pool=work_pool, schedule="@daily", paused=True)
    row = listed_as(f"{flow}/daily")
    assert (row.schedule, row.paused, row.work_pool, row.last_state, row.next_run) == (
        "@daily (UTC)",
        True,
        work_pool,
        "",
        None,
    )
    apply(flow, work_pool=work_pool, schedule="@daily")
    until(lambda: listed_as(f"{flow}/daily").next_run, "the next run of an active schedule")


@pytest.mark.parametrize(
    ("overlap", "state"), [("skip", "Cancelled"), ("queue", "AwaitingConcurrencySlot")]
)
def test_a_run_that_finds_the_last_one_still_going_is_skipped_or_waits(
    work_pool: str, overlap: str, state: str
) -> None:
    done = apply(fresh(), work_pool=work_pool, overlap=overlap)

    async def two_runs() -> str:
        async with get_client() as client:
            first, second = [
                await client.create_flow_run_from_deployment(UUID(done.id)) for _ in range(2)
            ]
            for run in (first, second):
                await client.set_flow_run_state(run.id, Pending())
            return str((await client.read_flow_run(second.id)).state_name)

    assert asyncio.run(two_runs()) == state


def test_a_renamed_flow_is_run_by_a_worker(
    server: PrefectServer, processes: str, tmp_path: Path
) -> None:
    project = a_project(tmp_path / "small")
    done = apply(
        fresh(),
        work_pool=processes,
        project_path=str(project.root),
        parameters={"node_ids": ["source.a"]},
    )
    server.prefect("deployment", "run", done.name)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", processes]
    log = subprocess.run(
        [*command, "--type", "process", "--run-once"],
        env=server.env,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert listed_as(done.name).last_state == "Completed", log.stdout + log.stderr
    assert list((project.root / "target").rglob("*a.parquet"))


def test_prefects_own_command_takes_the_printed_file(
    server: PrefectServer, work_pool: str, tmp_path: Path
) -> None:
    name = fresh()
    asked: dict[str, Any] = {
        "name": name,
        "work_pool": work_pool,
        "schedule": "every 30m",
        "timezone": "Europe/Berlin",
        "image": DIGEST,
        "parameters": {"node_ids": ["transform.a"]},
        "tags": ("etl",),
    }
    printed = documents([file.prefect_yaml(request(**asked))])
    (tmp_path / "prefect.yaml").write_text(printed, encoding="utf-8")
    server.prefect("deploy", "--all", cwd=tmp_path)
    assert apply(**asked).change == "unchanged"


def test_a_file_cannot_rename_a_flow() -> None:
    with pytest.raises(UsageError, match="cannot call a flow 'nightly'"):
        file.prefect_yaml(request("nightly"))


def test_a_backfill_is_deployed_like_a_run(work_pool: str) -> None:
    given = {"node_id": "transform.a", "start_date": "2024-01-01", "end_date": "2024-12-31"}
    there = read(apply("seeknal-backfill", work_pool=work_pool, parameters=given))
    assert there.entrypoint == "seeknal_k8s.flows.seeknal_backfill_flow"
    assert there.parameters == {"project_path": "/project", **given}
