"""What nobody may lose: whole outputs, honest states, and projects that look unusual."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import duckdb
import pytest

from seeknal_k8s import coordinator, exitcodes
from seeknal_k8s.errors import ProjectRefused, StoreLocked, UsageError
from seeknal_k8s.events import StoreAwaited
from seeknal_k8s.request import RunRequest
from seeknal_k8s.store import Store
from tests.projects import write
from tests.running import run

if TYPE_CHECKING:
    from pathlib import Path

    from seeknal_k8s.events import Event

MEDDLES = """
from pathlib import Path
from seeknal.pipeline.decorators import transform

@transform(name="meddles", inputs=["source.orders"])
def meddles(ctx):
    Path("target/intermediate/source_orders.parquet").write_bytes(b"gone")
    return ctx.duckdb.sql("SELECT 1 AS one").df()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "p"
    write(root, "orders.csv", "id,value\n1,10\n2,20\n")
    source(root, "orders")
    return root


def source(root: Path, name: str) -> None:
    text = f"kind: source\nname: {name}\nsource: csv\ntable: orders.csv\n"
    write(root, f"seeknal/{name}.yml", text)


def transform(root: Path, name: str, sql: str, origin: str) -> None:
    refs = f"inputs:\n  - ref: {origin}\n"
    write(root, f"seeknal/{name}.yml", f"kind: transform\nname: {name}\n{refs}transform: {sql}\n")


def test_a_project_may_have_a_folder_called_tmp(project: Path) -> None:
    write(project, "tmp/notes.txt", "mine")
    assert run(project).results.success
    assert (project / "tmp/notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["tmp_orders", "_runner_up"])
def test_a_node_may_have_a_name_like_a_leftover(project: Path, name: str) -> None:
    source(project, name)
    assert run(project).results.success
    assert (project / f"target/cache/source/{name}.parquet").exists()


def test_a_file_exposure_may_have_a_name_like_a_leftover(project: Path) -> None:
    body = "type: file\ninputs:\n  - ref: source.orders\nparams: {path: exports/.tmp_daily.csv}\n"
    write(project, "seeknal/out.yml", f"kind: exposure\nname: out\n{body}")
    assert run(project).results.success
    assert (project / "exports/.tmp_daily.csv").read_text().startswith("id,value")


def test_a_node_that_overwrites_its_input_fails_and_says_so(project: Path) -> None:
    write(project, "seeknal/meddles.py", MEDDLES)
    result = run(project)["transform.meddles"]
    assert (result.success, result.exit_code) == (False, exitcodes.UNVERIFIED)
    assert "target/intermediate/source_orders.parquet" in result.message


def test_an_input_that_vanished_is_named_and_nothing_is_made_of_it(project: Path) -> None:
    vanish = "from pathlib import Path\n"
    vanish += f"Path({str(project)!r}, 'target/intermediate/source_orders.parquet').unlink()\n"
    code = f"{vanish}Path({str(project)!r}, 'target/cache/source/orders.parquet').unlink()\n"
    source(project, "other")
    transform(project, "early", "SELECT count(*) AS n FROM input_0", "source.orders")
    write(
        project,
        "seeknal/vanisher.py",
        "from seeknal.pipeline.decorators import transform\n"
        '@transform(name="vanisher", inputs=["source.other", "transform.early"])\n'
        f"def vanisher(ctx):\n    exec({code!r})\n"
        '    return ctx.duckdb.sql("SELECT 1 AS one").df()\n',
    )
    refs = "inputs:\n  - ref: source.orders\n  - ref: transform.vanisher\n"
    write(
        project,
        "seeknal/late.yml",
        f"kind: transform\nname: late\n{refs}transform: SELECT 1 AS x\n",
    )
    result = run(project)["transform.late"]
    assert (result.exit_code, result.reason) == (exitcodes.INPUT_MISSING, "InputMissing")
    assert "source_orders.parquet" in result.message


def killed_at(node: str, project: Path, request: str) -> None:
    """Run a project in a process that dies at the first event about this node."""
    code = f"""
import asyncio, os, pathlib, signal
from seeknal_k8s import RunRequest, run

def observe(event):
    if getattr(event, "node", "") == {node!r}:
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(run(RunRequest(pathlib.Path({str(project)!r}), {request}), observe))
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr


def test_a_state_never_vouches_for_nodes_of_a_run_that_was_killed(project: Path) -> None:
    transform(project, "a", "SELECT * FROM input_0", "source.orders")
    assert run(project).results.success
    killed_at("transform.a", project, "full=True")
    state = json.loads((project / "target/run_state.json").read_text())
    assert state["nodes"] == {}
    assert {result.reason for result in run(project).results.values()} == {"Succeeded"}


def test_two_stores_of_one_project_are_not_written_at_once(project: Path, tmp_path: Path) -> None:
    theirs = Store.of(project)
    theirs.prepare()
    with theirs.lock("theirs"), pytest.raises(StoreLocked, match="run theirs"):
        run(project, store=tmp_path / "elsewhere")


def test_an_id_is_free_again_after_a_refused_project(project: Path) -> None:
    write(project, "seeknal/bad.yml", "kind: [")
    with pytest.raises(ProjectRefused):
        run(project, run_id="mine")
    (project / "seeknal/bad.yml").unlink()
    assert run(project, run_id="mine").results.success


def test_what_was_left_out_of_a_run_is_run_by_the_next(project: Path) -> None:
    transform(project, "a", "SELECT sum(value) AS total FROM input_0", "source.orders")
    transform(project, "b", "SELECT total FROM input_0", "transform.a")
    assert run(project).results.success
    write(project, "orders.csv", "id,value\n1,10\n2,20\n3,30\n")
    for ran in ({"source.orders"}, set(), set()):  # what was left out makes nobody run
        results = run(project, exclude=("transform.a",)).results
        assert {node for node, result in results.items() if result.reason != "Cached"} == ran
    after = run(project).results
    assert {node: result.reason for node, result in after.items()} == {
        "source.orders": "Cached",
        "transform.a": "Succeeded",
        "transform.b": "Succeeded",
    }
    made = duckdb.read_parquet(str(project / "target/intermediate/transform_b.parquet"))
    assert made.fetchall() == [(60,)]


def test_what_a_killed_run_has_left_out_is_known_to_who_goes_on_with_it(project: Path) -> None:
    transform(project, "a", "SELECT sum(value) AS total FROM input_0", "source.orders")
    assert run(project).results.success
    write(project, "orders.csv", "id,value\n1,10\n2,20\n3,30\n")
    file = project / "target/run_state.json"
    before = file.read_text()
    killed_at("source.orders", project, "run_id='r1', exclude=('transform.a',)")
    file.write_text(before)  # as if it had been killed a moment earlier
    assert run(project, resume="r1").results.success
    assert run(project)["transform.a"].reason == "Succeeded"


def test_an_old_run_is_not_resumed_over_a_newer_one(project: Path) -> None:
    transform(project, "a", "SELECT nothing FROM input_0", "source.orders")
    assert not run(project, run_id="old").results.success
    transform(project, "a", "SELECT id FROM input_0", "source.orders")
    assert run(project, run_id="new").results.success
    with pytest.raises(UsageError, match="'new' has published since"):
        run(project, resume="old")


def test_a_resume_that_waited_for_the_newer_run_is_refused_as_well(project: Path) -> None:
    transform(project, "a", "SELECT nothing FROM input_0", "source.orders")
    assert not run(project, run_id="old").results.success
    transform(project, "a", "SELECT id FROM input_0", "source.orders")
    assert run(project, run_id="new").results.success
    store = Store.of(project)
    published = store.folder("new").path / "accepted.jsonl"
    held = published.rename(project / "held.jsonl")  # as if it had published nothing yet

    def publish(event: Event) -> None:
        assert isinstance(event, StoreAwaited)
        held.rename(published)
        lock.close()

    lock = ExitStack()
    lock.enter_context(store.lock("new"))
    asked = RunRequest(project, resume="old", wait=60.0)
    with lock, pytest.raises(UsageError, match="'new' has published since"):
        asyncio.run(coordinator.run(asked, publish))


def test_features_that_could_not_be_consolidated_are_told_of(project: Path) -> None:
    body = (
        "inputs:\n  - ref: source.orders\nentity: {name: order, join_keys: [id]}\n"
        "materialization: {event_time_col: event_time, offline: false}\nfeatures: {}\n"
    )
    write(project, "orders.csv", "id,value,event_time\n1,10,2024-01-01\n")
    write(project, "seeknal/fg.yml", f"kind: feature_group\nname: fg\n{body}")
    write(project, "target/feature_store", "in the way")
    ran = run(project)
    (ended,) = [
        event for event in ran.events if hasattr(event, "warnings") and event is ran.events[-1]
    ]
    assert ran.results.success
    assert "consolidated" in str(ended)
