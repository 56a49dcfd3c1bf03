"""A node is run for every interval of a range, each once, whatever happens in between."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from seeknal_k8s import backfill
from seeknal_k8s.backfill import BackfillRequest
from seeknal_k8s.backfill.ledger import Ledger
from seeknal_k8s.errors import InputsFailed, Interrupted, ProjectRefused, StoreLocked, UsageError
from seeknal_k8s.events import BackfillStarted, NodeEnded, NodeStarted
from seeknal_k8s.options import parse_overrides
from seeknal_k8s.store import Store
from tests.projects import csv, transform, write
from tests.running import isolate, new_project, python

if TYPE_CHECKING:
    from pathlib import Path

    from seeknal_k8s.events import Event
    from seeknal_k8s.results import RunResults

DAYS = 28
DAILY = "transform.daily"


@dataclass
class Ran:
    """A backfill that has ended, and what it told."""

    results: RunResults
    events: list[Event] = field(default_factory=list)

    @property
    def ran(self) -> list[str]:
        """What was started, in order: nodes, and pieces of the backfill."""
        return [event.node for event in self.events if isinstance(event, NodeStarted)]

    @property
    def reasons(self) -> set[str]:
        return {result.reason for result in self.results.values()}


def fill(project: Path, asked: str = "daily", **request: Any) -> Ran:
    """Backfill in this process, by default the first five days of 2024."""
    events: list[Event] = []
    given = {"start": "2024-01-01", "end": "2024-01-05", **request}
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, project.parent / "home")
        wanted = BackfillRequest(project=project, node=asked, **given)
        return Ran(asyncio.run(backfill.run(wanted, events.append)), events)


def a_project(folder: Path) -> Path:
    """Make a source, what prepares it, and two nodes that use the interval, one behind the other."""
    project = new_project(folder)
    csv(project, "a", rows=DAYS * 2)
    transform(
        project, "prepared", "SELECT id, grp, CAST(day AS DATE) AS day FROM __THIS__", "source.a"
    )
    transform(
        project,
        "of_day",
        """
        SELECT * FROM ref('transform.prepared')
        WHERE day >= '{{ start_date }}' AND day < '{{ end_date }}'
        """,
        "transform.prepared",
    )
    transform(
        project,
        "daily",
        "SELECT day, COUNT(*) AS n FROM ref('transform.of_day') GROUP BY day",
        "transform.of_day",
    )
    transform(project, "above", "SELECT n * 2 AS n FROM ref('transform.daily')", "transform.daily")
    return project


def ledger(project: Path, node_id: str = DAILY) -> Ledger:
    return Ledger(Store.of(project), node_id)


def data(project: Path, node_id: str = DAILY) -> list[tuple[Any, ...]]:
    """Return a node's rows of all intervals, each behind its interval's start."""
    glob = ledger(project).data(node_id) / "*" / "*.parquet"
    query = f"SELECT CAST(interval_start AS VARCHAR), * EXCLUDE (interval_start) FROM read_parquet('{glob}', hive_partitioning=true) ORDER BY ALL"
    with duckdb.connect(":memory:") as connection:
        return connection.execute(query).fetchall()


def days(rows: list[tuple[Any, ...]]) -> list[str]:
    return [str(row[0]) for row in rows]


FIVE = [f"2024-01-0{day}" for day in range(1, 6)]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """Five days have run; no test changes anything."""
    project = a_project(tmp_path_factory.mktemp("filled"))
    return project, fill(project)


def test_every_interval_has_its_own_rows_and_is_in_the_ledger_once(
    filled: tuple[Path, Ran],
) -> None:
    project, ran = filled
    assert ran.results.success
    assert list(ran.results) == [f"{day}/2024-01-0{n + 2}" for n, day in enumerate(FIVE)]
    assert [(day, str(of), n) for day, of, n in data(project)] == [(day, day, 2) for day in FIVE]
    assert list(ledger(project).done()) == list(ran.results)
    assert {record.rows for record in ledger(project).done().values()} == {1}


def test_what_does_not_depend_on_the_interval_runs_once_and_before(
    filled: tuple[Path, Ran],
) -> None:
    _, ran = filled
    assert ran.ran[:2] == ["source.a", "transform.prepared"]
    assert sorted(ran.ran[2:]) == list(ran.results)


def test_only_what_was_asked_for_is_kept_and_seeknals_own_state_knows_nothing_of_it(
    filled: tuple[Path, Ran],
) -> None:
    project, _ = filled
    assert [folder.name for folder in (ledger(project).root / "data").iterdir()] == [
        "transform_daily"
    ]
    state = (project / "target" / "run_state.json").read_text(encoding="utf-8")
    assert "transform.prepared" in state
    assert "of_day" not in state
    assert not (project / "target" / "intermediate" / "transform_daily.parquet").exists()


def test_a_backfill_leaves_no_workspace_and_no_claim_behind(filled: tuple[Path, Ran]) -> None:
    project, ran = filled
    left = Store.of(project).root / "runs" / ran.results.run_id / "bundles"
    names = {file.name for file in left.rglob("*")} - {file.name for file in left.iterdir()}
    assert names == {"1", "result.json", "stdout", "stderr"}
    assert not list((ledger(project).root / "claims").glob("*.json"))


def test_what_is_done_is_not_run_again(filled: tuple[Path, Ran]) -> None:
    project, _ = filled
    again = fill(project, end="2024-01-04")
    assert again.reasons == {"Cached"}
    assert again.events == []


def test_the_claim_of_a_killed_backfill_goes_when_there_is_nothing_left_to_do(
    tmp_path: Path,
) -> None:
    project = a_project(tmp_path)
    fill(project, end="2024-01-01")
    left = ledger(project).root / "claims" / "killed.json"
    left.write_text('{"run": "killed", "shape": "s"}', encoding="utf-8")
    assert fill(project, end="2024-01-01").events == []
    assert not left.exists()


def test_a_longer_range_runs_only_what_is_missing(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    fill(project, end="2024-01-02")
    more = fill(project, end="2024-01-03")
    assert more.ran == ["2024-01-03/2024-01-04"]
    assert [result.reason for result in more.results.values()] == ["Cached", "Cached", "Succeeded"]
    assert days(data(project)) == FIVE[:3]


def test_an_attempt_can_run_many_intervals(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    ran = fill(project, chunk=3)
    started = next(event for event in ran.events if isinstance(event, BackfillStarted))
    assert started.pieces == {"2024-01-01/2024-01-04": 3, "2024-01-04/2024-01-06": 2}
    assert len(ran.results) == 5
    assert ran.reasons == {"Succeeded"}
    assert days(data(project)) == FIVE


def test_changed_logic_is_told_and_runs_again_only_if_asked(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    fill(project, end="2024-01-02")
    transform(
        project, "daily", "SELECT day, 7 AS n FROM ref('transform.of_day')", "transform.of_day"
    )
    left = fill(project, end="2024-01-03")
    told = next(event for event in left.events if isinstance(event, BackfillStarted))
    assert [problem.what for problem in told.warnings] == [
        "2 finished intervals ran with other logic, and stay as they are"
    ]
    assert {n for _, _, n in data(project)} == {2, 7}
    assert fill(project, end="2024-01-03", rerun_changed=True).reasons == {"Cached", "Succeeded"}
    assert {n for _, _, n in data(project)} == {7}


def test_a_changed_interval_that_fails_when_it_runs_again_is_shown_as_failed(
    tmp_path: Path,
) -> None:
    project = a_project(tmp_path)
    fill(project, end="2024-01-04")
    transform(project, "daily", FAILS_ON_THE_THIRD, "transform.of_day")
    fill(project, end="2024-01-04", rerun_changed=True)
    assert standing(project) == ["done", "done", "failed", "done"]
    transform(
        project, "daily", "SELECT day, 7 AS n FROM ref('transform.of_day')", "transform.of_day"
    )
    assert standing(project) == ["stale", "stale", "failed", "stale"]
    told = fill(project, end="2024-01-04").events  # nothing is to be run, and yet there is a word
    assert [len(event.warnings) for event in told if isinstance(event, BackfillStarted)] == [1]
    fill(project, end="2024-01-04", rerun_changed=True)
    assert standing(project) == ["done"] * 4


def standing(project: Path) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, project.parent / "home")
        request = BackfillRequest(project=project, node="daily")
        _, found = asyncio.run(backfill.status(request))
    return [one.status for one in found]


def test_a_description_is_no_logic(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    fill(project, end="2024-01-01")
    file = project / "seeknal" / "transforms" / "daily.yml"
    write(project, str(file.relative_to(project)), f"description: better\n{file.read_text()}")
    assert fill(project, end="2024-01-01").events == []


def test_restating_runs_what_is_done_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    fill(project)
    before = ledger(project).done()
    again = fill(project, start="2024-01-02", end="2024-01-03", restate=True)
    assert again.reasons == {"Succeeded"}
    after = ledger(project).done()
    assert [key for key in after if after[key] != before[key]] == list(again.results)
    assert days(data(project)) == FIVE


def test_under_its_own_id_a_restatement_goes_on_and_does_nothing_twice(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    fill(project, end="2024-01-03")
    once: dict[str, Any] = {"restate": True, "run_id": "again"}
    fill(project, end="2024-01-02", **once)
    more = fill(project, end="2024-01-03", **once)
    assert more.ran == ["2024-01-03/2024-01-04"]
    assert {record.run for record in ledger(project).done().values()} == {"again"}
    transform(
        project, "daily", "SELECT day, 7 AS n FROM ref('transform.of_day')", "transform.of_day"
    )
    assert fill(project, end="2024-01-03", **once).reasons == {"Succeeded"}
    assert {n for _, _, n in data(project)} == {7}


FAILS_ON_THE_THIRD = """
    SELECT day, n FROM (SELECT day, COUNT(*) AS n FROM ref('transform.of_day') GROUP BY day)
    WHERE CASE WHEN '{{ start_date }}' = '2024-01-03' THEN error('no such day') ELSE true END
"""


@pytest.mark.parametrize("chunk", [1, 5])
def test_an_interval_that_fails_does_not_stop_the_others_and_is_the_one_to_run_again(
    tmp_path: Path, chunk: int
) -> None:
    project = a_project(tmp_path)
    transform(project, "daily", FAILS_ON_THE_THIRD, "transform.of_day")
    ran = fill(project, chunk=chunk)
    assert list(ran.results.failed) == ["2024-01-03/2024-01-04"]
    assert "no such day" in ran.results["2024-01-03/2024-01-04"].message
    assert "no such day" in ledger(project).failed()["2024-01-03/2024-01-04"].error
    assert days(data(project)) == [day for day in FIVE if day != "2024-01-03"]
    again = fill(project, chunk=chunk)
    assert list(again.results.failed) == ["2024-01-03/2024-01-04"]
    started = next(event for event in again.events if isinstance(event, BackfillStarted))
    assert list(started.pieces.values()) == [1]


def test_after_so_many_failures_it_stops(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    transform(
        project, "daily", "SELECT error('never') FROM ref('transform.of_day')", "transform.of_day"
    )
    ran = fill(project, max_failures=1, at_once=1)
    assert [result.reason for result in ran.results.values()] == ["NodeFailed", *["NotRun"] * 4]


def test_inputs_that_fail_fail_the_backfill_before_any_interval(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    transform(project, "prepared", "SELECT error('broken') FROM __THIS__", "source.a")
    with pytest.raises(InputsFailed, match=r"made\n  transform\.prepared: .*broken\n"):
        fill(project)
    assert ledger(project).done() == {}


def test_an_interval_that_is_cut_short_runs_again_when_it_is_whole(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    weekly = {"schedule": "@weekly", "start": "2024-01-07"}
    cut = fill(project, **weekly, end="2024-01-16")
    assert list(cut.results) == ["2024-01-07/2024-01-14", "2024-01-14/2024-01-17"]
    whole = fill(project, **weekly, end="2024-01-20")
    assert whole.ran == ["2024-01-14/2024-01-21"]
    assert list(ledger(project).done()) == ["2024-01-07/2024-01-14", "2024-01-14/2024-01-21"]
    assert len(data(project)) == 14


def test_a_partial_interval_can_be_taken_as_it_is(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    weekly: dict[str, Any] = {"schedule": "@weekly", "start": "2024-01-07", "end": "2024-01-16"}
    fill(project, **weekly, accept_partial=True)
    assert fill(project, **weekly).events == []


def test_another_schedule_does_not_count_days_twice(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    fill(project, start="2024-01-07", end="2024-01-13")
    weekly: dict[str, Any] = {"schedule": "@weekly", "start": "2024-01-07", "end": "2024-01-13"}
    with pytest.raises(ProjectRefused, match="7 finished intervals of another schedule"):
        fill(project, **weekly)
    fill(project, **weekly, restate=True)
    assert list(ledger(project).done()) == ["2024-01-07/2024-01-14"]
    assert len(data(project)) == 7


def test_what_reads_the_node_can_run_with_it(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    assert fill(project, "daily+", end="2024-01-02").results.success
    assert days(data(project, "transform.above")) == FIVE[:2]
    assert [n for _, n in data(project, "transform.above")] == [4, 4]
    assert days(data(project)) == FIVE[:2]


def test_the_intervals_can_be_put_together_as_the_nodes_output(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    fill(project, end="2024-01-03")
    fill(project, start="2024-01-04", combine=True)
    file = project / "target" / "intermediate" / "transform_daily.parquet"
    with duckdb.connect(":memory:") as connection:
        rows = connection.execute(f"SELECT * FROM '{file}' ORDER BY day").fetchall()
    assert [(str(day), n) for day, n in rows] == [(day, 2) for day in FIVE]


INCLUSIVE = """
    SELECT day, COUNT(*) AS n FROM ref('transform.prepared')
    WHERE day >= '{{ start_date }}' AND day <= '{{ end_date }}' GROUP BY day
"""


def test_sql_that_says_at_most_the_end_gets_the_last_day_and_counts_no_day_twice(
    tmp_path: Path,
) -> None:
    project = a_project(tmp_path)
    transform(project, "daily", INCLUSIVE, "transform.prepared")
    fill(project)
    assert [(day, str(of)) for day, of, _ in data(project)] == [(day, day) for day in FIVE]
    with pytest.raises(ProjectRefused, match="has to end with a day"):
        fill(project, schedule="@hourly", end="2024-01-01", start="2024-01-01")


def test_sql_that_says_both_is_refused_unless_one_is_chosen(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    both = INCLUSIVE.replace("transform.prepared", "transform.of_day")
    transform(project, "daily", both, "transform.of_day")
    with pytest.raises(ProjectRefused, match="one of them is a day wrong"):
        fill(project)
    assert fill(project, upper="exclusive", end="2024-01-01").results.success


def test_a_python_node_gets_the_dates_it_declares(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    python(project, "pyday", 'return pd.DataFrame({"start": [ctx.params["start_date"]]})')
    file = project / "seeknal" / "py" / "pyday.py"
    text = file.read_text(encoding="utf-8")
    write(project, "seeknal/py/pyday.py", text.replace("inputs=[]", 'start_date="none"'))
    fill(project, "pyday", end="2024-01-02")
    glob = ledger(project, "transform.pyday").data("transform.pyday") / "*" / "*.parquet"
    with duckdb.connect(":memory:") as connection:
        rows = connection.execute(f"SELECT start FROM '{glob}' ORDER BY 1").fetchall()
    assert rows == [("2024-01-01",), ("2024-01-02",)]


def test_a_node_that_does_not_use_the_interval_is_refused_unless_asked_for(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    with pytest.raises(ProjectRefused, match="every interval would give the same rows"):
        fill(project, "prepared")
    assert fill(project, "prepared", end="2024-01-02", anyway=True).results.success


BAD = [
    pytest.param({"start": "2024-02-01"}, UsageError, "is after the end", id="backwards"),
    pytest.param({"end": "2024-01-01'; DROP"}, UsageError, "is not a date", id="SQL for a date"),
    pytest.param({"schedule": "0 0 31 2 *"}, UsageError, "never fires", id="31 February"),
    pytest.param({"timezone": "Mars"}, UsageError, "no time zone", id="Mars"),
    pytest.param({"last": "7d"}, UsageError, "by its start and end, or", id="two ranges"),
    pytest.param({"end": None}, UsageError, "needs a range", id="half a range"),
    pytest.param({"chunk": 0}, UsageError, "at least one interval", id="empty chunks"),
    pytest.param(
        {"schedule": "* * * * *", "end": "2024-06-30"}, UsageError, "--yes", id="262,080 minutes"
    ),
]


@pytest.mark.parametrize(("request_", "error", "says"), BAD)
def test_bad_dates_are_refused_before_the_project_is_read(
    tmp_path: Path, request_: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=re.escape(says)):
        fill(tmp_path / "there is no project", **request_)


def test_an_unknown_node_is_refused_with_the_nearest(filled: tuple[Path, Ran]) -> None:
    project, _ = filled
    with pytest.raises(ProjectRefused, match=r"did you mean transform\.daily"):
        fill(project, "dayly")


def test_what_the_plan_says_is_what_is_missing(filled: tuple[Path, Ran]) -> None:
    project, _ = filled
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, project.parent / "home")
        request = BackfillRequest(
            project=project, node="daily", start="2024-01-04", end="2024-01-07"
        )
        made = asyncio.run(backfill.plan(request))
    assert [each.key for each in made.todo] == ["2024-01-06/2024-01-07", "2024-01-07/2024-01-08"]
    assert [each.id for each in made.scope.chain] == ["transform.of_day", DAILY]
    assert made.scope.shared == ("transform.prepared",)
    assert made.scope.outdated == ()


SLEEPS = """
    if ctx.params["start_date"] in ("2024-01-02", "2024-01-03"):
        time.sleep(250)
    return pd.DataFrame({"n": [1]})
"""


def _sleeper(folder: Path) -> Path:
    project = new_project(folder)
    python(project, "sleepy", SLEEPS)
    text = (project / "seeknal" / "py" / "sleepy.py").read_text(encoding="utf-8")
    write(project, "seeknal/py/sleepy.py", text.replace("inputs=[]", 'start_date="none"'))
    return project


def test_the_time_limit_is_for_one_interval_and_ends_only_that(tmp_path: Path) -> None:
    project = _sleeper(tmp_path)
    limit = parse_overrides(["timeout=4s", "retries=0"])
    ran = fill(project, "sleepy", end="2024-01-04", chunk=4, options=limit, at_once=1)
    assert {key for key, one in ran.results.items() if one.success} == {
        "2024-01-01/2024-01-02",
        "2024-01-04/2024-01-05",
    }
    errors = {record.error for record in ledger(project, "transform.sleepy").failed().values()}
    assert errors == {"transform.sleepy: it ran longer than its timeout of 4 s"}


async def _beside(project: Path) -> RunResults:
    """Start a backfill that takes long, and two beside it: only that of other days may run."""
    done = asyncio.Event()

    def watch(event: Event) -> None:
        if isinstance(event, NodeEnded) and event.result.success:
            done.set()

    def days_of_2024(start: str, end: str) -> BackfillRequest:
        return BackfillRequest(project=project, node="sleepy", start=start, end=end)

    long = asyncio.create_task(backfill.run(days_of_2024("2024-01-01", "2024-01-03"), watch))
    async with asyncio.timeout(60):
        await done.wait()
        with pytest.raises(StoreLocked, match=r"at work on 2024-01-03/2024-01-04 too"):
            await backfill.run(days_of_2024("2024-01-03", "2024-01-05"), lambda _: None)
        others = await backfill.run(days_of_2024("2024-02-01", "2024-02-02"), lambda _: None)
    long.cancel()
    with pytest.raises(Interrupted, match="the same command again"):
        await long
    return others


def test_two_at_once_may_not_share_an_interval_but_may_share_a_node(tmp_path: Path) -> None:
    project = _sleeper(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path / "home")
        assert asyncio.run(_beside(project)).success
    assert list(ledger(project, "transform.sleepy").done()) == [
        "2024-01-01/2024-01-02",
        "2024-02-01/2024-02-02",
        "2024-02-02/2024-02-03",
    ]
