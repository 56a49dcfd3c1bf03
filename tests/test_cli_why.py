"""``why`` of nodes that were processes of this machine: the store alone tells, without a cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.attempt import Ending
from seeknal_k8s.cli.app import execute
from seeknal_k8s.store import Store
from tests.past_runs import a_run, an_attempt

if TYPE_CHECKING:
    from pathlib import Path

    from seeknal_k8s.store import RunFolder

NODE = "transform.daily"
BAD = Ending(1, "no such column: amount", started=1_735_725_600.0, seconds=1.5, peak_memory=5 << 20)


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("NAMESPACE", "IMAGE", "CONTEXT", "STORE_CLAIM", "STORE_PATH", "ON"):
        monkeypatch.delenv(f"SEEKNAL_K8S_{name}", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    (tmp_path / "seeknal").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.of(tmp_path)
    store.prepare()
    return store


def a_local_run(store: Store) -> RunFolder:
    return a_run(store, "r1", on="local", status="failed")


def test_a_node_of_a_local_run_is_told_of_without_a_cluster(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_local_run(store)
    an_attempt(folder, NODE, 1, ending=Ending(137, reason="OOMKilled"))
    an_attempt(folder, NODE, 2, ending=BAD)
    assert execute(["why", "daily"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "transform.daily  attempt 2 of run r1",
        "  10:00:00     +0s  started",
        "  10:00:01     +2s  process ended  exit code 1",
        "",
        "  clocks  running 1.50s",
        "  used    5 MiB of memory at most",
        "",
        "NodeFailed: the node failed (exit code 1)",
        "  no such column: amount",
        "  → seeknal-k8s logs transform.daily",
    ]
    assert execute(["why", "daily", "--run", "r1"]) == 0
    assert "  → seeknal-k8s logs transform.daily --run r1\n" in capsys.readouterr().out
    assert execute(["why", "daily", "--run", "r1", "--attempt", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["attempt"], told["reason"], told["job"]) == (1, "OOMKilled", None)


def test_a_local_node_that_runs_is_said_to_run(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_run(store, "r1", on="local", status="running")
    an_attempt(folder, NODE, 1)
    an_attempt(folder, NODE, 2)
    with store.lock("r1"):
        assert execute(["why", NODE]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "it is running"
        assert execute(["why", NODE, "--attempt", "1"]) == 0
        assert "nothing runs it" in capsys.readouterr().out
    assert execute(["why", NODE]) == 0  # nobody holds the lock any more
    assert "nothing runs it, and it left no result" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["dayly"], "did you mean transform.daily?", id="no such node"),
        pytest.param(["daily", "--attempt", "3"], "no attempt 3 in this run; it has 1", id="a try"),
        pytest.param(["daily", "--run", "r9"], "there is no run 'r9'; did you mean", id="a run"),
        pytest.param(["daily", "-C", "elsewhere"], "there is no folder elsewhere", id="a project"),
        pytest.param(["daily", "--run", "k1"], "no kubeconfig", id="a run on Kubernetes"),
    ],
)
def test_what_is_not_there_is_explained(
    arguments: list[str], message: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(store, "k1", on="kubernetes", status="failed")
    an_attempt(a_local_run(store), NODE, ending=BAD)
    assert execute(["why", *arguments]) != 0
    assert message in capsys.readouterr().err


def test_where_a_cluster_is_set_the_latest_run_is_one_of_its(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    an_attempt(a_local_run(store), NODE, ending=BAD)
    monkeypatch.setenv("SEEKNAL_K8S_NAMESPACE", "data")
    assert execute(["why", NODE]) != 0
    assert "no kubeconfig" in capsys.readouterr().err
    assert execute(["why", NODE, "--run", "r1"]) == 0
