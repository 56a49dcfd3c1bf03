"""What becomes of a run that fails, is interrupted, or killed; and what the next one makes of it."""

from __future__ import annotations

import contextlib
import json
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.faithful import states
from tests.gates import PATIENCE, Outside, alive, below, gone
from tests.projects import Pair, csv, pair_of, start, transform

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import psutil

    Started = Callable[..., subprocess.Popen[str]]

GOOD = "SELECT count(*) AS n FROM __THIS__"
TOGETHER = ("--set", "cpu=100m", "--set", "backoff=1s")
"""Lets two nodes run at once also on one core, and a retry follow soon."""


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    folder = tmp_path / "outside"
    folder.mkdir()
    return Outside(folder)


def _build(project: Path, outside: Outside) -> None:
    """Make `before`, `held`, `after` and `last` in a row, and `beside` next to `held`."""
    csv(project, "plain")
    outside.node(project, "before", "source.plain")
    outside.node(project, "held", "transform.before")
    outside.node(project, "beside", "transform.before")
    transform(project, "after", GOOD, "transform.held")
    transform(project, "last", "SELECT n + 1 AS n FROM __THIS__", "transform.after")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project as one ``seeknal run`` leaves it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pair_of(folder, "undisturbed", lambda project: _build(project, Outside(folder))) as pair:
        assert pair.run_mono().returncode == 0
        yield pair.mono


@pytest.fixture
def pair(tmp_path: Path, outside: Outside, undisturbed: Path) -> Iterator[Pair]:
    """The undisturbed project, and ours, which has not run yet."""
    with pair_of(tmp_path, "resume", lambda project: _build(project, outside)) as pair:
        yield replace(pair, mono=undisturbed)


@pytest.fixture
def started(pair: Pair) -> Iterator[Started]:
    """Return what starts ``run`` with arguments; whatever is left of it at the end is killed."""
    with contextlib.ExitStack() as stack:

        def run(*arguments: str) -> subprocess.Popen[str]:
            process = start(pair.ours, pair.home / "ours", "run", *TOGETHER, *arguments)
            stack.enter_context(process)  # at the end: closes the pipes, and waits
            stack.callback(process.kill)
            return process

        yield run


def _results(pair: Pair, run: str) -> dict[str, Any]:
    file = pair.ours / ".seeknal-k8s" / "runs" / run / "results.json"
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["results"]
    return results


def _reasons(pair: Pair, run: str) -> dict[str, str]:
    return {node: result["reason"] for node, result in _results(pair, run).items()}


def _half_done(pair: Pair) -> list[str]:
    """Return what the node at the gate has left where others can see it."""
    names = ("half_way", "transform_held.parquet", "transform_after.parquet", "*.tmp")
    return [file.name for name in names for file in (pair.ours / "target").rglob(name)]


def _assert_ends_equal(pair: Pair) -> None:
    assert {status for status, _, _ in states(pair.ours).values()} == {"success"}
    assert pair.differences() == []


def test_after_bad_sql_is_mended_a_new_run_does_the_rest(pair: Pair, outside: Outside) -> None:
    transform(pair.ours, "after", "SELECT nope FROM __THIS__", "transform.held")
    assert pair.run_ours("--run-id", "one").returncode == 1
    reasons = _reasons(pair, "one")
    assert reasons["transform.after"] == "NodeFailed"
    assert reasons["transform.last"] == "UpstreamFailed"
    assert not (pair.ours / "target" / "intermediate" / "transform_last.parquet").exists()

    transform(pair.ours, "after", GOOD, "transform.held")
    refused = pair.run_ours("--resume", "one")
    assert refused.returncode == 78
    assert "has changed since run one" in refused.stderr

    assert pair.run_ours("--run-id", "two").returncode == 0
    again = {node for node, reason in _reasons(pair, "two").items() if reason != "Cached"}
    assert again == {"transform.after", "transform.last"}
    assert outside.ran() == {"before": 1, "held": 1, "beside": 1}
    _assert_ends_equal(pair)


def test_after_the_world_is_mended_a_resumed_run_does_the_rest(
    pair: Pair, outside: Outside
) -> None:
    outside.breaks("held")
    failed = pair.run_ours("--run-id", "one")
    assert failed.returncode == 1
    assert "--resume one" in failed.stdout + failed.stderr
    assert "not as it should be" in _results(pair, "one")["transform.held"]["message"]

    outside.mend("held")
    assert pair.run_ours("--resume", "one").returncode == 0
    assert outside.ran() == {"before": 1, "held": 2, "beside": 1}
    assert _results(pair, "one")["transform.held"]["success"]
    _assert_ends_equal(pair)
    nothing = pair.run_ours("--json")
    assert {each["reason"] for each in json.loads(nothing.stdout)["results"].values()} == {"Cached"}


def test_a_killed_coordinator_takes_everything_with_it_and_is_resumed(
    pair: Pair, outside: Outside, started: Started
) -> None:
    outside.close("held")
    coordinator = started("--run-id", "one")
    outside.reached("held")
    processes = below(coordinator)
    coordinator.kill()
    coordinator.communicate(timeout=PATIENCE)
    assert len(processes) >= 3
    assert gone(processes)
    assert _half_done(pair) == []

    outside.take_away("held")
    assert pair.run_ours("--resume", "one").returncode == 0
    ran = outside.ran()
    assert (ran["before"], ran["held"]) == (1, 2)
    assert _half_done(pair) == ["transform_held.parquet", "transform_after.parquet"]
    _assert_ends_equal(pair)


def test_ctrl_c_ends_every_node_keeps_what_is_done_and_says_how_to_go_on(
    pair: Pair, outside: Outside, started: Started
) -> None:
    outside.close("held")
    coordinator = started("--run-id", "one")
    outside.reached("held")
    processes = below(coordinator)
    coordinator.send_signal(signal.SIGINT)
    out, err = coordinator.communicate(timeout=PATIENCE)
    assert coordinator.returncode == 130, out + err
    assert alive(processes) == []
    assert "seeknal-k8s run --resume one" in err
    assert "Traceback" not in err
    assert _half_done(pair) == []
    assert _reasons(pair, "one")["transform.before"] == "Succeeded"
    assert _reasons(pair, "one")["transform.held"] == "Interrupted"

    outside.take_away("held")
    assert pair.run_ours("--resume", "one").returncode == 0
    ran = outside.ran()
    assert (ran["before"], ran["held"]) == (1, 2)
    _assert_ends_equal(pair)


def _script(script: psutil.Process) -> psutil.Process:
    return script


def _worker(script: psutil.Process) -> psutil.Process:
    return script.parents()[0]


@pytest.mark.parametrize(
    ("victim", "retries", "reason", "code"),
    [
        pytest.param(_script, 0, "NodeFailed", 1, id="the script fails the node"),
        pytest.param(_worker, 0, "Killed", 137, id="the worker fails the node, exit code 137"),
        pytest.param(_worker, 1, "Succeeded", 0, id="the worker uses up one of the node's retries"),
    ],
)
def test_kill_9_in_one_node_hurts_no_other(
    pair: Pair,
    outside: Outside,
    started: Started,
    *,
    victim: Callable[[psutil.Process], psutil.Process],
    retries: int,
    reason: str,
    code: int,
) -> None:
    for name in ("held", "beside"):
        outside.close(name)
    coordinator = started("--run-id", "one", "--set", f"transform.held:retries={retries}")
    script, other = outside.reached("held"), outside.reached("beside")
    outside.take_away("held")
    killed = victim(script)
    killed.kill()
    assert gone([script, killed])
    assert alive([other, *other.parents()[:1]])
    outside.open("beside")
    out, err = coordinator.communicate(timeout=PATIENCE)
    held, beside = (_results(pair, "one")[f"transform.{name}"] for name in ("held", "beside"))
    assert (held["reason"], held["exit_code"]) == (reason, code), out + err
    assert held["attempts"] == 1 + retries
    assert (beside["reason"], beside["attempts"]) == ("Succeeded", 1)
    assert coordinator.returncode == (1 if code else 0)
    assert "half_way" not in _half_done(pair)
    if code:
        assert pair.run_ours("--resume", "one").returncode == 0
    assert outside.ran() == {"before": 1, "held": 2, "beside": 1}
    _assert_ends_equal(pair)


def test_a_killed_engine_ends_the_run_which_can_be_resumed(
    pair: Pair, outside: Outside, started: Started
) -> None:
    outside.close("held")
    coordinator = started("--run-id", "one")
    script = outside.reached("held")
    processes = below(coordinator)
    script.parents()[1].kill()
    _, err = coordinator.communicate(timeout=PATIENCE)
    assert coordinator.returncode == 70, err
    assert "the engine process has died" in err
    assert "Traceback" not in err
    assert gone(processes)
    assert _half_done(pair) == []

    outside.take_away("held")
    assert pair.run_ours("--resume", "one").returncode == 0
    ran = outside.ran()
    assert (ran["before"], ran["held"]) == (1, 2)
    _assert_ends_equal(pair)


def test_a_second_coordinator_is_refused_or_waits(
    pair: Pair, outside: Outside, started: Started
) -> None:
    outside.close("held")
    first = started("--run-id", "one")
    outside.reached("held")
    impatient = started("--run-id", "two", "--wait")
    patient = started("--run-id", "three", "--wait", "--json")

    for wait in ((), ("--wait", "1")):
        refused = pair.run_ours("--run-id", "four", *wait)
        assert refused.returncode == 75
        assert f"run one (process {first.pid} on " in refused.stderr
        assert "--wait" in refused.stderr
    runs = sorted(folder.name for folder in (pair.ours / ".seeknal-k8s" / "runs").iterdir())
    assert runs == ["one"]

    impatient.send_signal(signal.SIGINT)
    _, err = impatient.communicate(timeout=PATIENCE)
    assert impatient.returncode == 130, err
    assert patient.poll() is None
    outside.open("held")
    first.communicate(timeout=PATIENCE)
    out, err = patient.communicate(timeout=PATIENCE)
    assert (first.returncode, patient.returncode) == (0, 0), err
    results = json.loads(out)["results"].values()
    assert {result["reason"] for result in results} == {"Cached"}
    _assert_ends_equal(pair)
