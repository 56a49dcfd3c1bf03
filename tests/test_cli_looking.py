"""``show``, ``runs`` and ``logs``, on stores written here."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.attempt import Ending
from seeknal_k8s.cli.app import execute
from seeknal_k8s.results import NO_EXIT_CODE, PrefectRunResult, RunResults
from seeknal_k8s.store import Store
from tests.past_runs import NODES, a_run, an_attempt

if TYPE_CHECKING:
    from pathlib import Path

    from seeknal_k8s.store import RunFolder

GOOD = PrefectRunResult(
    success=True,
    exit_code=0,
    stdout="",
    stderr="",
    duration_seconds=1.5,
    reason="Succeeded",
    attempts=1,
    rows=1200,
    peak_memory_bytes=150 << 20,
)
CACHED = replace(GOOD, duration_seconds=0.0, reason="Cached", attempts=0, rows=None)
CACHED.peak_memory_bytes = None
BAD = replace(
    GOOD,
    success=False,
    exit_code=77,
    reason="OutOfMemory",
    message="Out of Memory Error: \x1b[31mfailed\x1b[0m to allocate",
    stderr="reading 9 files\nOut of Memory Error: failed to allocate\n",
    attempts=2,
    rows=None,
)
SKIPPED = replace(
    BAD,
    exit_code=NO_EXIT_CODE,
    reason="UpstreamFailed",
    message="skipped, because transform.clean failed",
    stderr="",
    duration_seconds=0.0,
    attempts=0,
)
SKIPPED.peak_memory_bytes = None


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.of(tmp_path)
    store.prepare()
    return store


def a_failed_run(store: Store, run_id: str = "r1", day: int = 1) -> RunFolder:
    folder = a_run(store, run_id, status="failed", day=day)
    results = dict(zip(NODES, (GOOD, BAD, SKIPPED, CACHED), strict=True))
    folder.write_results(RunResults(results, run_id=run_id))
    return folder


def test_show_tells_how_every_node_ended_and_what_to_do(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a_failed_run(store)
    monkeypatch.chdir(store.root.parent)
    assert execute(["show"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "run r1  failed, started 2025-01-01T10:00:00.000Z",
        "",
        "   NODE             RESULT          EXIT   TIME   ROWS  ATTEMPTS   MEMORY",
        "✓  source.orders    Succeeded          0  1.50s  1,200         1  150 MiB",
        "✗  transform.clean  OutOfMemory       77  1.50s                2  150 MiB",
        "–  transform.daily  UpstreamFailed",  # noqa: RUF001 - the sign itself
        "✓  rule.clean       Cached",
        "",
        "✗ transform.clean  OutOfMemory (exit code 77, 2 attempts)",
        "    Out of Memory Error: failed to allocate",
        "    stderr │ reading 9 files",
        "    → seeknal-k8s logs transform.clean",
        "    → give it more: --set transform.clean:memory=4Gi, or `kubernetes: {memory: 4Gi}` in its file",
        "",
        "– transform.daily  skipped, because transform.clean failed",  # noqa: RUF001
        "",
        "1 of 4 nodes failed, 1 skipped, 1 succeeded, 1 cached",
        "2.00s in all; one after the other the nodes take 3.00s: 1.00s saved",
        "next:",
        "  seeknal-k8s logs transform.clean  # what it said",
        "  seeknal-k8s run --resume r1       # go on, the project unchanged",
        "  seeknal-k8s run                   # after a change; what is still good is cached",
    ]


def test_show_is_json_for_programs(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    a_failed_run(store)
    assert execute(["show", "r1", "-C", str(store.root.parent), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {key: shown[key] for key in ("run_id", "status", "success", "started")} == {
        "run_id": "r1",
        "status": "failed",
        "success": False,
        "started": "2025-01-01T10:00:00.000Z",
    }
    assert RunResults.from_json(json.dumps(shown))["transform.clean"] == BAD


def test_a_running_run_shows_how_far_it_is(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_run(store, "r1")
    an_attempt(folder, NODES[0], ending=Ending(0, rows=7, seconds=0.25, started=0.0))
    an_attempt(folder, NODES[1])
    with store.lock("r1"):
        assert execute(["show", "-C", str(store.root.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("run r1  running, started 2025-01-01T10:00:00.000Z, ")
    assert lines[3:] == [
        "✓  source.orders    Succeeded     0  0.25s     7         1",
        "▸  transform.clean  Running                              1",
        "–  transform.daily  Waiting",  # noqa: RUF001
        "–  rule.clean       Waiting",  # noqa: RUF001
        "",
        "1 of 4 nodes are done",
    ]


@pytest.mark.parametrize("other", [False, True], ids=["nobody runs", "another run is at work"])
def test_a_run_whose_coordinator_is_gone_has_died_and_can_be_resumed(
    store: Store, capsys: pytest.CaptureFixture[str], *, other: bool
) -> None:
    an_attempt(a_run(store, "r1"), NODES[0])
    with store.lock("r2" if other else "r1"):
        pass
    if other:
        with store.lock("r2"):
            execute(["show", "-C", str(store.root.parent)])
    else:
        execute(["show", "-C", str(store.root.parent)])
    said = capsys.readouterr().out
    assert said.startswith("run r1  died, ")
    assert f"seeknal-k8s run --resume r1 {store.root.parent}" in said


def test_show_finds_a_run_by_the_beginning_of_its_id(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    a_failed_run(store, "2025-aa", day=1)
    a_failed_run(store, "2025-bb", day=2)
    assert execute(["show", "2025-a", "-C", str(store.root.parent)]) == 0
    assert capsys.readouterr().out.startswith("run 2025-aa ")
    assert execute(["show", "2025", "-C", str(store.root.parent)]) == 2
    assert "the beginning of 2 runs" in capsys.readouterr().err


def test_a_project_in_the_place_of_a_run_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seeknal").mkdir()
    assert execute(["show", str(tmp_path)]) == 2
    assert f"→ seeknal-k8s show -C {tmp_path}" in capsys.readouterr().err


def test_runs_lists_the_newest_first(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for day in range(1, 5):
        a_failed_run(store, f"r{day}", day=day)
    a_run(store, "r5", day=5)
    assert execute(["runs", "-C", str(store.root.parent), "-n", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "RUN  STATUS  STARTED                    TIME  SUCCEEDED  FAILED  SKIPPED  CACHED  KIND",
        "r5   died    2025-01-05T10:00:00.000Z                                  4          run",
        "r4   failed  2025-01-04T10:00:00.000Z  2.00s          1       1        1       1  run",
        "… and 3 older: --limit 5",
    ]


def test_runs_is_json_for_programs(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    a_failed_run(store)
    assert execute(["runs", "-C", str(store.root.parent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "runs": [
            {
                "id": "r1",
                "kind": "run",
                "node": None,
                "status": "failed",
                "started": "2025-01-01T10:00:00.000Z",
                "seconds": 2.0,
                "succeeded": 1,
                "failed": 1,
                "skipped": 1,
                "cached": 1,
            }
        ]
    }


def test_runs_tells_backfills_from_runs(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    a_run(store, "b1", status="failed").note(kind="backfill", node="transform.daily")
    assert execute(["runs", "-C", str(store.root.parent)]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("  backfill of transform.daily")


def test_a_store_without_runs_is_no_error_for_runs_but_is_for_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["runs", "-C", str(tmp_path)]) == 0
    assert "there are no runs" in capsys.readouterr().err
    assert execute(["show", "-C", str(tmp_path)]) == 2
    assert "start one: seeknal-k8s run" in capsys.readouterr().err


def test_another_store_can_be_named(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_failed_run(store)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert execute(["show", "-C", str(elsewhere), "--store", str(store.root)]) == 0
    assert f"-C {elsewhere} --store {store.root}" in capsys.readouterr().out


def test_logs_are_written_byte_for_byte_each_stream_to_its_own(
    store: Store, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    folder = a_run(store, "r1")
    for number in (1, 2, 10):
        an_attempt(folder, "transform.clean", number)
    where = ["-C", str(store.root.parent)]
    assert execute(["logs", "transform.clean", *where]) == 0
    assert capfdbinary.readouterr() == (b"out 10 \xff\x00\n", b"err 10\n")
    assert execute(["logs", "daily", *where]) == 2
    assert b"has no log in run r1: it has not begun" in capfdbinary.readouterr().err
    assert execute(["logs", "transform.clean", "--attempt", "1", "--stderr", *where]) == 0
    assert capfdbinary.readouterr() == (b"err 1\n", b"")
    assert execute(["logs", "transform.clean", "--attempt", "3", *where]) == 2
    assert b"has no attempt 3 in this run; it has 1, 2, 10" in capfdbinary.readouterr().err


def test_logs_are_json_for_programs(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    place = an_attempt(a_run(store, "r1"), "source.orders", ending=Ending(3))
    assert execute(["logs", "orders", "-C", str(store.root.parent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "run_id": "r1",
        "node": "source.orders",
        "attempt": 1,
        "exit_code": 3,
        "log_path": str(place),
        "stdout": "out 1 \ufffd\x00\n",
        "stderr": "err 1\n",
    }


@pytest.mark.parametrize(
    ("node", "message"),
    [
        pytest.param("clean", "2 nodes are called 'clean': transform.clean, rule.clean", id="two"),
        pytest.param("source.odrers", "did you mean source.orders?", id="a typing error"),
        pytest.param("unlike", "it ran source.orders, transform.clean", id="nothing like it"),
        pytest.param("metric.old", "metric.old was cached in run r1", id="a cached node"),
        pytest.param(
            "transform.daily", "skipped, because transform.clean failed", id="a skipped node"
        ),
    ],
)
def test_a_log_that_is_not_there_is_explained(
    node: str, message: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_failed_run(store)
    results = folder.results()
    assert results is not None
    folder.write_results(RunResults({**results, "metric.old": CACHED}, run_id="r1"))
    assert execute(["logs", node, "-C", str(store.root.parent)]) == 2
    assert message in capsys.readouterr().err


def test_a_followed_log_comes_as_it_is_written_until_the_attempt_ends(
    store: Store, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    folder = a_run(store, "r1")

    def node() -> None:
        time.sleep(0.3)  # it begins after somebody has begun to follow
        place = an_attempt(folder, "transform.daily")
        for number in range(3):
            time.sleep(0.1)
            with (place / "stdout").open("ab") as log:
                log.write(b"line %d\n" % number)
        (place / "result.json").write_text(json.dumps(asdict(Ending(0))), encoding="utf-8")

    with store.lock("r1"):
        writer = threading.Thread(target=node)
        writer.start()
        assert execute(["logs", "daily", "--follow", "-C", str(store.root.parent)]) == 0
        writer.join()
    assert capfdbinary.readouterr() == (b"out 1 \xff\x00\nline 0\nline 1\nline 2\n", b"err 1\n")


def test_following_ends_when_the_run_is_gone(
    store: Store, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    an_attempt(a_run(store, "r1"), "transform.daily")
    assert execute(["logs", "daily", "--follow", "-C", str(store.root.parent)]) == 0
    assert capfdbinary.readouterr().out == b"out 1 \xff\x00\n"
    assert execute(["logs", "source.orders", "--follow", "-C", str(store.root.parent)]) == 2


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(store: Store) -> None:
    place = an_attempt(a_run(store, "r1"), "transform.daily")
    (place / "stdout").write_bytes(b"a line\n" * 1_000_000)
    command = [sys.executable, "-m", "seeknal_k8s", "logs", "daily", "-C", str(store.root.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_a_terminal_without_unicode_gets_signs_that_mean_the_same(store: Store) -> None:
    a_failed_run(store)
    command = [sys.executable, "-m", "seeknal_k8s", "show", "-C", str(store.root.parent)]
    found = subprocess.run(
        command, capture_output=True, check=True, env={"PYTHONIOENCODING": "ascii"}
    )
    said = found.stdout.decode("ascii")
    assert "\n+  source.orders" in said
    assert "\nx  transform.clean" in said
    assert "\n-  transform.daily" in said
    assert "    > seeknal-k8s logs transform.clean" in said
