"""The run store: who may write, which run is meant, and what a crash leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.errors import StoreLocked, StoreUnavailable, UsageError
from seeknal_k8s.results import PrefectRunResult, RunResults
from seeknal_k8s.store import FOLDER, LATEST, RunFolder, Store, write_json

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import pathlib, sys
from seeknal_k8s.store import Store
with Store(pathlib.Path(sys.argv[1])).lock("theirs"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.of(tmp_path)
    store.prepare()
    return store


def hold(store: Store) -> subprocess.Popen[str]:
    """Start a process that holds the lock until its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_coordinator_is_told_who_the_first_is(store: Store) -> None:
    with hold(store) as first:
        with pytest.raises(StoreLocked) as refused, store.lock("ours"):
            pass
        assert refused.value.exit_code == 75
        assert f"run theirs (process {first.pid} on " in str(refused.value)
        assert "--wait" in str(refused.value)
        holder = store.holder()
        assert holder is not None
        assert (holder["run"], holder["pid"]) == ("theirs", first.pid)
        first.communicate()
    assert store.holder() is None


def test_looking_at_the_lock_never_keeps_a_coordinator_out(store: Store) -> None:
    looking = threading.Event()

    def look() -> None:
        while not looking.is_set():
            store.holder()

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(300):
            with store.lock("ours"):
                pass
    finally:
        looking.set()
        looker.join()


def test_a_killed_coordinator_leaves_the_store_free(store: Store) -> None:
    with hold(store) as first:
        first.kill()
        first.wait()
        assert store.holder() is None
        with store.lock("ours"):
            pass


def test_the_lock_is_free_after_an_error_inside(store: Store) -> None:
    with pytest.raises(RuntimeError, match="on purpose"), store.lock("ours"):
        raise RuntimeError("on purpose")
    assert store.holder() is None


def test_a_torn_note_of_the_holder_hides_the_holder_but_not_the_lock(store: Store) -> None:
    with hold(store) as first:
        (store.root / "lock").write_text('{"run": "th')
        with pytest.raises(StoreLocked, match="another coordinator is at work"), store.lock("o"):
            pass
        first.communicate()


def test_a_store_is_in_the_project_unless_it_is_named(tmp_path: Path) -> None:
    assert Store.of(tmp_path).root == tmp_path / FOLDER
    assert Store.of(tmp_path, tmp_path / "else").root == tmp_path / "else"


def test_preparing_keeps_the_store_out_of_git_and_leaves_no_probe(store: Store) -> None:
    store.prepare()
    assert {entry.name for entry in store.root.iterdir()} == {".gitignore", "runs"}
    assert (store.root / ".gitignore").read_text() == "*\n"
    (store.root / ".gitignore").write_text("mine\n")
    store.prepare()
    assert (store.root / ".gitignore").read_text() == "mine\n"


def started(store: Store, **runs: str) -> None:
    """Make runs by id, each with the time it was started."""
    for run_id, time in runs.items():
        store.new_run(run_id).note(id=run_id, started=time)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        pytest.param("a1", "a1", id="a whole id"),
        pytest.param("b", "b1", id="an unambiguous beginning"),
        pytest.param("a12", "a12", id="an id that is the beginning of no other"),
        pytest.param(LATEST, "b1", id="the latest by its time, whatever its id"),
    ],
)
def test_a_run_is_found_by(store: Store, asked: str, found: str) -> None:
    started(store, a1="2024-01-01", a12="2024-01-02", b1="2024-01-03", never="")
    assert store.run(asked).id == found


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        pytest.param("a", "beginning of 2 runs", id="an ambiguous beginning"),
        pytest.param("b2", "did you mean 'b1'", id="a mistyped id"),
        pytest.param("zzz", "did you mean 'b1'", id="nothing like it"),
    ],
)
def test_a_run_is_not_found_by(store: Store, asked: str, message: str) -> None:
    started(store, a1="2024-01-01", a12="2024-01-02", b1="2024-01-03")
    with pytest.raises(UsageError, match=message):
        store.run(asked)


def test_a_store_without_runs_says_how_to_start_one(store: Store) -> None:
    with pytest.raises(UsageError, match="seeknal-k8s run"):
        store.run(LATEST)
    assert store.runs() == []
    assert Store(store.root / "nowhere").runs() == []
    assert Store(store.root / "nowhere").holder() is None


def test_a_torn_last_line_of_the_ledger_is_passed_over(store: Store) -> None:
    folder = store.new_run("r")
    folder.note_accepted({"node": "transform.a", "digest": "v1"})
    folder.note_accepted({"node": "transform.a", "digest": "v2"})
    with (folder.path / "accepted.jsonl").open("a") as ledger:
        ledger.write('\n{"node": "transform.b", "dig')
    assert folder.accepted() == {"transform.a": {"node": "transform.a", "digest": "v2"}}


def test_the_ledger_goes_on_after_a_torn_line(store: Store) -> None:
    folder = store.new_run("r")
    (folder.path / "accepted.jsonl").write_text('\n{"node": "transform.a", "dig')
    folder.note_accepted({"node": "transform.b"})
    folder.note_accepted({"node": "transform.c"})
    assert set(folder.accepted()) == {"transform.b", "transform.c"}


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "\x00\xff"])
def test_a_run_whose_notes_cannot_be_read_says_nothing(store: Store, text: str) -> None:
    folder = store.new_run("r")
    (folder.path / "run.json").write_text(text)
    (folder.path / "results.json").write_text(text)
    assert folder.about() == {}
    assert folder.results() is None
    assert store.run(LATEST).id == "r"


def test_notes_are_added_to_what_was_there(store: Store) -> None:
    folder = store.new_run("r")
    folder.note(status="running", project="p")
    folder.note(status="failed")
    assert folder.about() == {"status": "failed", "project": "p"}


def test_results_come_back_whole(store: Store) -> None:
    result = PrefectRunResult(True, 0, "ä\x00", "", 0.5)  # noqa: FBT003
    folder = store.new_run("r")
    assert folder.results() is None
    folder.write_results(RunResults({"transform.a": result}, run_id="r"))
    found = folder.results()
    assert found is not None
    assert (dict(found), found.run_id) == ({"transform.a": result}, "r")


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    write_json(file, {"n": 0})
    script = (
        "import pathlib, sys\nfrom seeknal_k8s.store import write_json\n"
        "for n in range(1, 500): write_json(pathlib.Path(sys.argv[1]), {'n': n, 'x': 'x' * 20000})"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(file)]) as writer:
        seen = set()
        while writer.poll() is None:
            seen.add(json.loads(file.read_text())["n"])
    assert writer.returncode == 0
    assert len(seen) > 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_a_write_that_fails_is_said_and_keeps_what_was_there(store: Store) -> None:
    folder = store.new_run("r")
    (folder.path / "run.json").mkdir()  # nothing can take the place of a folder
    with pytest.raises(StoreUnavailable, match="Is a directory") as failed:
        folder.note(status="running")
    assert failed.value.exit_code == 69
    assert [entry.name for entry in folder.path.iterdir()] == ["run.json"]


def test_attempts_are_in_the_order_of_their_numbers(store: Store) -> None:
    folder = store.new_run("r")
    assert folder.attempts("transform.a") == []
    for name in ("10", "9", "1", "notes"):
        (folder.bundle("transform.a") / name).mkdir(parents=True)
    (folder.bundle("transform.b") / "1").mkdir(parents=True)
    assert [path.name for path in folder.attempts("transform.a")] == ["1", "9", "10"]


def test_a_run_folder_knows_its_id(tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "r1").id == "r1"
    assert os.fspath(RunFolder(tmp_path / "r1").bundle("transform.a")).startswith(
        os.fspath(tmp_path / "r1" / "bundles" / "transform-a-")
    )
