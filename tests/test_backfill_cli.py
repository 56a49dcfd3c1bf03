"""``backfill`` and ``intervals`` as a user types them, killed in the middle, too."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from seeknal_k8s.backfill.ledger import Ledger
from seeknal_k8s.store import Store
from tests.faithful import EXAMPLE, copy_project, ours, seeknal
from tests.projects import start
from tests.small import until

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

NODE = "transform.category_sales"
YEAR = ["backfill", "category_sales", "--start", "2025-01-01", "--end", "2025-12-31"]


def ledger(project: Path) -> Ledger:
    return Ledger(Store.of(project), NODE)


def count(project: Path) -> int:
    with contextlib.suppress(OSError):
        return len(list((ledger(project).root / "ledger").glob("*.json")))
    return 0


def _has(project: Path, enough: int) -> bool:
    return count(project) >= enough


def rows(files: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(":memory:") as connection:
        query = f"SELECT * FROM read_parquet('{files}', hive_partitioning=false) ORDER BY ALL"
        return connection.execute(query).fetchall()


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A year of the example, killed twice in the middle and begun again."""
    folder = tmp_path_factory.mktemp("year")
    project = copy_project(EXAMPLE, folder / "shop")
    for enough in (60, 180):
        process = start(project, folder / "home", *YEAR, "--chunk", "8")
        until(partial(_has, project, enough), seconds=120)
        kill(process)
    assert count(project) < 365
    done = ours(project, folder / "home", *YEAR, "--chunk", "8", "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert len(results) == 365
    assert {result["reason"] for result in results.values()} == {"Cached", "Succeeded"}
    return project


def test_a_year_that_was_killed_twice_has_every_day_once(year: Path) -> None:
    done = ledger(year).done()
    assert len(done) == 365
    assert len({record.interval.start for record in done.values()}) == 365
    assert len({record.run for record in done.values()}) == 1  # taken up under its own id
    folders = {path.parent.name for path in ledger(year).files(NODE)}
    assert folders == {f"interval_start={key.partition('/')[0]}" for key in done}


def test_days_are_what_a_plain_seeknal_run_with_their_dates_gives(
    year: Path, tmp_path: Path
) -> None:
    other = copy_project(EXAMPLE, tmp_path / "shop")
    for day, following in (
        ("2025-01-01", "2025-01-02"),
        ("2025-02-28", "2025-03-01"),
        ("2025-03-31", "2025-04-01"),
        ("2025-04-01", "2025-04-02"),
    ):
        dates = ["--start-date", day, "--end-date", following]
        done = seeknal(other, tmp_path / "home", "run", *dates)
        assert done.returncode == 0, done.stdout
        plain = rows(str(other / "target" / "intermediate" / "transform_category_sales.parquet"))
        ours_ = ledger(year).data(NODE) / f"interval_start={day}" / "rows.parquet"
        assert rows(str(ours_)) == plain


def test_a_year_of_days_sums_up_to_the_whole(year: Path, tmp_path: Path) -> None:
    other = copy_project(EXAMPLE, tmp_path / "shop")
    assert ours(other, tmp_path / "home", "run", "--select", NODE).returncode == 0
    whole = rows(str(other / "target" / "intermediate" / "transform_category_sales.parquet"))
    sums: dict[str, tuple[int, float]] = {}
    for _, category, orders, quantity, _ in rows(str(ledger(year).data(NODE) / "*" / "*.parquet")):
        one, other_ = sums.get(category, (0, 0.0))
        sums[category] = (one + orders, other_ + quantity)
    assert sums == {category: (orders, quantity) for _, category, orders, quantity, _ in whole}


def test_the_calendar_shows_what_is_done_and_what_is_missing(year: Path, tmp_path: Path) -> None:
    shown = ours(year, tmp_path / "home", "intervals", "category_sales")
    assert "2025-02     " + "✓" * 28 in shown.stdout
    assert "✓ 365 done" in shown.stdout
    more = ours(
        year, tmp_path / "home", "intervals", NODE, "--start", "2025-12-30", "--end", "2026-01-02"
    )
    assert f"2025-12     {' ' * 29}✓✓\n2026-01     ··" in more.stdout
    told = json.loads(ours(year, tmp_path / "home", "intervals", NODE, "--json").stdout)
    assert told["node"] == NODE
    assert {one["status"] for one in told["intervals"]} == {"done"}


def test_other_commands_know_a_backfill(year: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (run,) = {record.run for record in ledger(year).done().values()}
    last = "2025-12-27/2026-01-01"
    shown = ours(year, home, "show", run).stdout
    assert shown.startswith(f"backfill {run} of {NODE}  succeeded, started 20")
    assert "… and 365 more; which are done: seeknal-k8s intervals" in shown
    assert re.search(r"365 intervals: \d+ done, \d+ done before  in", shown)
    said = ours(year, home, "logs", last, "--run", run).stdout
    assert "── 2025-12-31/2026-01-01  transform.category_sales" in said
    for inside in ("2025-12-31", "2025-12-31T12:00", "2025-12-30/2025-12-31"):
        assert ours(year, home, "logs", inside, "--run", run).stdout == said
    for other in ("category_sales", "2026-01-01", "2025-12-26/2025-12-28"):
        lost = ours(year, home, "logs", other, "--run", run)
        assert (lost.returncode, lost.stdout) == (2, "")
        assert f"is a backfill of {NODE} over 2025-01-01/2026-01-01" in lost.stderr
        assert "→ name a day or an interval, such as 2025-" in lost.stderr
    refused = ours(year, home, "run", "--resume", run)
    assert (refused.returncode, f"'{run}' is a backfill of {NODE}" in refused.stderr) == (2, True)


def test_the_id_of_a_run_is_no_id_for_a_backfill(tmp_path: Path) -> None:
    project, home = copy_project(EXAMPLE, tmp_path / "shop"), tmp_path / "home"
    ran = ours(project, home, "run", "--select", "source.orders", "--run-id", "mine")
    assert ran.returncode == 0, ran.stderr
    taken = ours(project, home, *YEAR, "--run-id", "mine")
    assert taken.returncode == 2
    assert "'mine' is a run, not a backfill: take another id" in taken.stderr


def test_a_dry_run_says_what_would_run_and_runs_nothing(tmp_path: Path) -> None:
    project = copy_project(EXAMPLE, tmp_path / "shop")
    done = ours(project, tmp_path / "home", *YEAR, "--chunk", "30", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "365 intervals of 365 to run, in 13 attempts:" in done.stdout
    assert "for each: transform.category_sales" in done.stdout
    assert "once, before: source.order_items, source.orders, source.products," in done.stdout
    assert not (project / "target").exists()
    assert not (project / ".seeknal-k8s").exists()


def test_progress_counts_intervals_and_says_how_long_the_rest_may_take(tmp_path: Path) -> None:
    project = copy_project(EXAMPLE, tmp_path / "shop")
    done = ours(project, tmp_path / "home", *YEAR[:-1], "2025-01-04", "--chunk", "2")
    assert re.search(r"\[2/4\]  [\d.]+s left", done.stdout), done.stdout
    assert re.search(r"4 intervals: 4 done  in [\d.]+s", done.stdout)


REFUSED = [
    pytest.param(["--start", "2025-02-01", "--end", "2025-01-01"], 2, "is after the end"),
    pytest.param(["--start", "2025-02-01"], 2, "it needs a range: --start and --end"),
    pytest.param(["--last", "7d", "--schedule", "0 0 31 2 *"], 2, "never fires"),
    pytest.param(["--last", "7d", "--upper", "both"], 2, "exclusive or inclusive"),
    pytest.param(["--last", "7d", "--detach"], 2, "--submit"),
    pytest.param(["--last", "7d", "--on", "moon"], 2, "no backend 'moon'"),
    pytest.param(["--last", "7d", "--run-id", "../x"], 2, "--run-id"),
]


@pytest.mark.parametrize(("options", "code", "says"), REFUSED)
def test_a_command_line_that_makes_no_sense_is_refused(
    tmp_path: Path, options: list[str], code: int, says: str
) -> None:
    done = ours(tmp_path, tmp_path / "home", "backfill", "category_sales", *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
