"""A backfill as a flow on a real Prefect server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from seeknal_k8s import seeknal_backfill_flow
from seeknal_k8s.backfill.ledger import Ledger
from seeknal_k8s.deployments import known
from seeknal_k8s.errors import UsageError
from seeknal_k8s.store import Store
from tests.projects import csv, transform
from tests.running import isolate, new_project
from tests.test_flows import settled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.prefect_server import PrefectServer

# Prefect leaves connections of its own open where an async flow has called a sync one.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)

OF_A_DAY = """
    SELECT day, COUNT(*) AS n FROM ref('source.a')
    WHERE day >= '{{ start_date }}' AND day < '{{ end_date }}'
      AND CASE WHEN '{{ start_date }}' = 'FAILS' THEN error('no such day') ELSE true END
    GROUP BY day
"""


@pytest.fixture
def server(
    prefect: PrefectServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[PrefectServer]:
    isolate(monkeypatch, tmp_path / "home")
    with temporary_settings({PREFECT_API_URL: prefect.url, PREFECT_HOME: prefect.home}):
        yield prefect


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = new_project(tmp_path)
    csv(project, "a", rows=28)
    transform(project, "daily", OF_A_DAY, "source.a")
    return project


def test_each_attempt_is_a_task_run_and_each_interval_a_row(
    server: PrefectServer, project: Path
) -> None:
    assert server.url
    results = seeknal_backfill_flow(str(project), "daily", "2024-01-01", "2024-01-05", chunk=2)
    assert list(results) == [f"2024-01-0{n}/2024-01-0{n + 1}" for n in range(1, 6)]
    assert results.success
    seen = settled(results.run_id, 4)
    assert set(seen["tasks"]) == {
        "source.a",
        "2024-01-01/2024-01-03",
        "2024-01-03/2024-01-05",
        "2024-01-05/2024-01-06",
    }
    assert set(seen["artifacts"]) == {
        "seeknal-progress",
        "seeknal-intervals",
        "seeknal-backfill-summary",
    }
    again = seeknal_backfill_flow(str(project), "daily", "2024-01-01", "2024-01-06")
    assert [r.reason for r in again.values()] == ["Cached"] * 5 + ["Succeeded"]


def test_an_interval_that_fails_fails_the_flow_run_and_the_caller_gets_all_results(
    server: PrefectServer, project: Path
) -> None:
    assert server.url
    transform(project, "daily", OF_A_DAY.replace("FAILS", "2024-01-02"), "source.a")
    state = seeknal_backfill_flow(
        str(project), "daily", "2024-01-01", "2024-01-03", parallel=False, return_state=True
    )
    assert state.is_failed()
    assert "1 of 3 intervals failed: 2024-01-02/2024-01-03" in state.message
    done = Ledger(Store.of(project), "transform.daily").done()
    assert list(done) == ["2024-01-01/2024-01-02", "2024-01-03/2024-01-04"]


def test_attempts_that_are_too_many_for_prefect_share_task_runs(
    server: PrefectServer, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.url
    monkeypatch.setattr("seeknal_k8s.flows.backfill.MOST_TASKS", 4)
    transform(project, "daily", OF_A_DAY.replace("FAILS", "2024-01-05"), "source.a")
    state = seeknal_backfill_flow(
        str(project), "daily", "2024-01-01", "2024-01-07", return_state=True
    )
    assert state.is_failed()
    seen = settled(str(state.state_details.flow_run_id), 4)
    assert {name: one.state.message.splitlines()[0] for name, one in seen["tasks"].items()} == {
        "source.a": "Succeeded, exit code 0, 28 rows",
        "2024-01-01/2024-01-04": "Succeeded, exit code 0, 3 rows",
        "2024-01-04/2024-01-07": "NodeFailed, exit code 1, 2 rows: "
        "1 of 3 attempts, such as 2024-01-05/2024-01-06: "
        "transform.daily: Execution failed for transform.daily: Statement 1 failed: "
        "Invalid Input Error: no such day",
        "2024-01-07/2024-01-08": "Succeeded, exit code 0, 1 rows",
    }


def test_dates_that_make_no_sense_run_nothing(server: PrefectServer, project: Path) -> None:
    assert server.url
    with pytest.raises(UsageError, match="is not a date"):
        seeknal_backfill_flow(str(project), "daily", "yesterday", "2024-01-05")


def test_it_can_be_deployed_to_catch_up_every_night() -> None:
    found = known.find("seeknal-backfill")
    assert found.entrypoint == "seeknal_k8s.flows.seeknal_backfill_flow"
    assert known.check_parameters(found.flow, {"node_id": "daily", "last": "7d"}) == []
    (problem,) = known.check_parameters(found.flow, {"node_id": "daily", "lst": "7d"})
    assert "did you mean last?" in problem
