"""Failures of nodes, bad state, strange clocks and strange paths: what a run makes of them."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.errors import ProjectRefused, StateUnreadable
from seeknal_k8s.events import NodeRetrying, NodeStarted
from seeknal_k8s.options import parse_overrides
from seeknal_k8s.store import Store
from tests.faithful import EXAMPLE, copy_project
from tests.projects import FEATURE_STORE, csv, rows, transform, write
from tests.running import log, new_project, python, run

if TYPE_CHECKING:
    from pathlib import Path

TWICE = """
    with open("{file}", "a") as file:
        file.write("x")
    if os.path.getsize("{file}") < 3:
        raise ValueError("not yet")
"""


def test_a_node_is_tried_again_with_growing_delays_until_it_succeeds(tmp_path: Path) -> None:
    project = new_project(tmp_path, "defaults: {retries: 2, backoff: 1s}\n")
    python(project, "third_time", TWICE.format(file=tmp_path / "counter"))
    transform(project, "below", "SELECT count(*) AS n FROM __THIS__", "transform.third_time")
    ran = run(project)
    result = ran["transform.third_time"]
    assert (result.success, result.attempts) == (True, 3)
    assert [e.attempt for e in ran.told(NodeStarted, "transform.third_time")] == [1, 2, 3]
    retries = ran.told(NodeRetrying, "transform.third_time")
    assert [retry.attempt for retry in retries] == [1, 2]
    assert 0.8 <= retries[0].delay <= 1.2
    assert 1.6 <= retries[1].delay <= 2.4
    assert all("NodeFailed: Process exited with code 1" in retry.message for retry in retries)
    assert ran["transform.below"].success
    assert b"not yet" not in log(result, "stderr")  # each attempt has a log of its own


def test_a_node_that_never_succeeds_is_tried_as_often_as_allowed(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    transform(project, "broken", "SELECT no_such_column")
    options = parse_overrides(["transform.broken:retries=1", "backoff=1s"])
    ran = run(project, options=options)
    assert (ran["transform.broken"].success, ran["transform.broken"].attempts) == (False, 2)
    assert "no_such_column" in ran["transform.broken"].message


def test_fail_fast_ends_what_runs_and_starts_nothing_more(tmp_path: Path) -> None:
    project = new_project(tmp_path, "defaults: {cpu: 100m, memory: 256Mi}\n")
    python(project, "sleeps", f"open({str(tmp_path / 'on')!r}, 'w').close(); time.sleep(1000)")
    waiting = f"while not os.path.exists({str(tmp_path / 'on')!r}): time.sleep(0.01)\n"
    python(project, "fails", waiting + "raise ValueError('on purpose')")
    transform(project, "below_sleeps", "SELECT * FROM __THIS__", "transform.sleeps")
    began = time.monotonic()
    ran = run(project, fail_fast=True)
    assert time.monotonic() - began < 100
    reasons = {node: result.reason for node, result in ran.results.items()}
    assert reasons == {
        "transform.fails": "NodeFailed",
        "transform.sleeps": "NotRun",
        "transform.below_sleeps": "NotRun",
    }


def test_a_node_below_a_failure_never_runs_on_old_data(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    csv(project, "orders", rows=5)
    transform(project, "clean", "SELECT * FROM __THIS__", "source.orders")
    transform(project, "total", "SELECT count(*) AS n FROM __THIS__", "transform.clean")
    assert run(project).results.success
    transform(project, "clean", "SELECT no_such_column FROM __THIS__", "source.orders")
    again = run(project)
    reasons = {node: result.reason for node, result in again.results.items()}
    assert reasons == {
        "source.orders": "Cached",
        "transform.clean": "NodeFailed",
        "transform.total": "UpstreamFailed",
    }
    assert "transform.clean failed" in again["transform.total"].message
    assert rows(project, "transform.total") == [(5,)]  # the old output is there, and unused
    transform(project, "clean", "SELECT * FROM __THIS__ WHERE id < 2", "source.orders")
    assert run(project).results.success
    assert rows(project, "transform.total") == [(2,)]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="an empty file"),
        pytest.param(b'{"nodes": {"transform.one"', id="half a file"),
        pytest.param(b"null", id="another kind of JSON"),
        pytest.param(b'{"nodes": {"transform.one": 5}}', id="a node that is a number"),
        pytest.param(b"\xff\xfe\x00", id="bytes that are no text"),
    ],
)
def test_an_unreadable_state_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    project = new_project(tmp_path)
    transform(project, "one", "SELECT 1 AS one")
    state = project / "target" / "run_state.json"
    state.parent.mkdir()
    state.write_bytes(content)
    with pytest.raises(StateUnreadable) as refused:
        run(project)
    assert refused.value.exit_code == 78
    assert "--full" in str(refused.value)
    assert [(file, file.read_bytes()) for file in state.parent.iterdir()] == [(state, content)]


def test_running_everything_anew_sets_an_unreadable_state_aside(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    transform(project, "one", "SELECT 1 AS one")
    write(project, "target/run_state.json", "{broken")
    assert run(project, full=True, run_id="r1").results.success
    aside = project / "target" / "run_state.json.corrupt.r1"
    assert aside.read_text() == "{broken"
    assert run(project)["transform.one"].reason == "Cached"


FUTURE = 4_000_000_000
"""In Unix time: the year 2096."""


def test_a_clock_that_went_back_does_no_harm(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    csv(project, "orders", rows=5)
    os.utime(project / "data" / "orders.csv", (FUTURE, FUTURE))
    transform(project, "total", "SELECT count(*) AS n FROM __THIS__", "source.orders")
    later = Store.of(project).new_run("20960101-000000-ffff")
    later.note(id=later.id, started="2096-01-01T00:00:00.000Z", status="running")
    first = run(project, run_id="now")
    assert first.results.success
    assert all(result.duration_seconds >= 0 for result in first.results.values())
    for file in (project / "target").rglob("*.*"):
        os.utime(file, (FUTURE, FUTURE))
    assert [result.reason for result in run(project).results.values()] == ["Cached", "Cached"]
    os.utime(project / "data" / "orders.csv", (FUTURE - 60, FUTURE - 60))
    write(project, "data/orders.csv", "id\n1\n")  # long ago, by its time
    assert {result.reason for result in run(project).results.values()} == {"Succeeded"}
    assert rows(project, "transform.total") == [(1,)]
    assert Store.of(project).runs()[0].id == "20960101-000000-ffff"


def test_the_example_runs_in_a_folder_whose_name_is_text_of_all_kinds(tmp_path: Path) -> None:
    name = f"with spaces, ünï and 数据 {{x}} #1 50% {uuid.uuid4().hex[:8]}"
    shop = copy_project(EXAMPLE, tmp_path / name)
    try:
        ran = run(shop)
        assert {node: result.message for node, result in ran.results.failed.items()} == {}
        assert len(ran.results) == 25
        assert {result.reason for result in run(shop).results.values()} == {"Cached"}
    finally:
        shutil.rmtree(FEATURE_STORE / name, ignore_errors=True)


def test_quotes_in_a_folders_name_fail_in_seeknal_and_are_said_to(tmp_path: Path) -> None:
    # Seeknal 2.13 writes paths into SQL and into Python as they are.
    for folder, node_id, message in (
        ("it's a name", "source.orders", "unterminated string literal"),
        ('a "quoted" name', "transform.script", "SyntaxError"),
    ):
        project = new_project(tmp_path / folder)
        csv(project, "orders")
        python(project, "script", "pass")
        transform(project, "below", "SELECT * FROM __THIS__", node_id)
        ran = run(project)
        assert ran[node_id].reason == "NodeFailed"
        assert message in ran[node_id].message
        assert ran["transform.below"].reason == "UpstreamFailed"


def test_a_project_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectRefused) as refused:
        run(tmp_path / "nowhere")
    assert refused.value.exit_code == 78
    assert list(tmp_path.iterdir()) == [tmp_path / "home"]


def test_a_finished_run_is_written_down(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    transform(project, "good", "SELECT 1 AS one")
    transform(project, "bad", "SELECT no_such_column")
    ran = run(project, run_id="r1")
    folder = Store.of(project).run("r1")
    kept = folder.results()
    assert kept is not None
    assert dict(kept) == dict(ran.results)
    assert folder.about()["status"] == "failed"
    assert json.loads((folder.path / "run.json").read_text())["nodes"].keys() == kept.keys()
