"""A year of days on a real cluster: its coordinator is killed twice, and every day is there once.

The year is cut into pieces of 15 days, to be quick; YEAR_CHUNK=1 makes it a pod for each day.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from seeknal_k8s.backfill.ledger import Ledger
from seeknal_k8s.store import Store
from tests.cluster.harness import REPOSITORY, until
from tests.faithful import EXAMPLE, copy_project, ours
from tests.on_kubernetes import Volume, kill, volume
from tests.small import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cluster.harness import Namespace

RBAC = REPOSITORY / "manifests" / "runner-rbac.yaml"
NODE = "transform.category_sales"
STEM = "transform-category-sales-"
KEPT = {"ttl": "1h"}
CHUNK = int(os.environ.get("YEAR_CHUNK", "15"))
PIECES = -(-365 // CHUNK)
YEAR = ["--start", "2025-01-01", "--end", "2025-12-31", "--chunk", str(CHUNK)]
LONG = 900.0


@pytest.fixture
def store(audited: Namespace, image: str) -> Iterator[Volume]:
    with volume(audited, image) as made:
        copy_project(EXAMPLE, made.path / "project")
        yield made


def start(store: Volume, *arguments: str) -> subprocess.Popen[str]:
    """Start a backfill of the example, as a process of its own."""
    command = ["backfill", "category_sales", "-C", str(store.path / "project"), *arguments]
    return store.begin(*command, "--on", "kubernetes", **KEPT)


def ledger(root: Path) -> Ledger:
    return Ledger(Store(root), NODE)


def rows(root: Path) -> list[tuple[Any, ...]]:
    glob = str(ledger(root).data(NODE) / "*" / "*.parquet")
    with duckdb.connect(":memory:") as connection:
        query = f"SELECT * FROM read_parquet('{glob}', hive_partitioning=true) ORDER BY ALL"
        return connection.execute(query).fetchall()


def _done(store: Volume, enough: int) -> bool:
    return len(ledger(store.path).done()) >= enough


@pytest.mark.parametrize(("how", "jobs"), [("--indexed", 1), ("--no-indexed", PIECES)])
def test_a_year_killed_twice_is_once_in_ledger_audit_log_and_data(
    store: Volume,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    how: str,
    jobs: int,
) -> None:
    asked = (*YEAR, how, "--max-parallel", "4")
    for enough in (CHUNK, 6 * CHUNK):
        process = start(store, *asked)
        until(partial(_done, store, enough), f"{enough} days", seconds=LONG)
        kill(process)
    process = start(store, *asked)
    said, _ = process.communicate(timeout=LONG)
    assert process.returncode == 0, said

    assert len(ledger(store.path).done()) == 365
    assert len(store.jobs(NODE)) == jobs
    assert set(store.created().values()) == {1}
    started = store.begun(STEM)
    assert (len(started), set(started.values())) == (PIECES, {1})
    calls = [r for r in store.namespace.requests() if r.user == "admin"]
    record_property(
        "measured",
        f"{len(calls)} requests of three coordinators for 365 days in {PIECES} attempts, {how}: "
        f"{dict(Counter(r.call for r in calls))}",
    )

    here = copy_project(EXAMPLE, tmp_path / "shop")
    local = ours(here, tmp_path / "home", "backfill", "category_sales", *YEAR)
    assert local.returncode == 0, local.stderr
    assert rows(store.path) == rows(here / ".seeknal-k8s")


@pytest.mark.parametrize(
    ("how", "jobs"), [((), 1), (("--no-indexed",), 2)], ids=["indexed", "jobs"]
)
def test_a_backfill_can_be_submitted_and_is_followed(
    store: Volume, how: tuple[str, ...], jobs: int
) -> None:
    store.namespace.kubectl("apply", "-f", str(RBAC))
    said = submitted(store, "--end", "2025-01-06", "--run-id", "b1", *how)
    assert "6 intervals: 6 done" in said
    assert len(ledger(store.path).done()) == 6
    assert len(store.jobs(NODE)) == jobs
    said = submitted(store, "--end", "2025-01-09", "--run-id", "b2", "--dry-run", *how)
    assert "3 intervals of 9 to run, in 1 attempt:" in said  # in the cluster, where the ledger is
    assert len(store.jobs(NODE)) == jobs


def submitted(store: Volume, *more: str) -> str:
    command = ("backfill", "category_sales", "--start", "2025-01-01", "--chunk", "3", "--submit")
    done = subprocess.run(
        [*PROGRAM, *command, *more],
        env=store.environment(**KEPT),
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
