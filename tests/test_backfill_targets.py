"""What may be lost in a node's own target, and what two backfills may do side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from seeknal_k8s.backfill import BackfillRequest, claims, planning
from seeknal_k8s.backfill.claims import Claim
from seeknal_k8s.backfill.ledger import Record
from seeknal_k8s.backfill.scope import Scope
from seeknal_k8s.backfill.targets import Policy, policy, refuse_going_back
from seeknal_k8s.errors import ProjectRefused, StoreLocked, UsageError
from seeknal_k8s.graph import Graph, Node
from seeknal_k8s.intervals import between

if TYPE_CHECKING:
    from seeknal_k8s.backfill.planning import BackfillPlan

NODE = Node("transform.daily", "transform", "daily", "seeknal/daily.yml")
GROUP = Node("feature_group.daily", "feature_group", "daily", "seeknal/fg.yml")


def a_scope(*modes: str, node: Node = NODE) -> Scope:
    targets = [{"type": "postgresql", "table": "public.daily", "mode": mode} for mode in modes]
    return Scope(
        graph=Graph("p", "/p", {node.id: node}),
        node=node,
        chain=(node,),
        wanted=(node.id,),
        shared=(),
        outdated=(),
        logic="l",
        upper="exclusive",
        depends=True,
        targets={node.id: targets} if targets else {},
        options={},
    )


def test_a_node_without_a_target_may_run_in_parallel() -> None:
    assert policy(a_scope()) == Policy()


@pytest.mark.parametrize("mode", ["upsert_by_key", "upsert", "insert_overwrite"])
def test_writing_by_key_goes_one_at_a_time(mode: str) -> None:
    assert policy(a_scope(mode)) == Policy(serial=True)


def test_writing_by_time_goes_one_at_a_time_and_upwards() -> None:
    assert policy(a_scope("incremental_by_time")) == Policy(serial=True, ascending=True)


def a_plan(*modes: str, **asked: Any) -> BackfillPlan:
    request = BackfillRequest(
        project=Path("/p"), node="daily", start="2025-01-01", end="2025-01-03", **asked
    )
    return planning.make(a_scope(*modes), request, {})


@pytest.mark.parametrize(
    ("modes", "asked", "indexed"),
    [
        ((), {"on": "kubernetes"}, True),
        ((), {"on": "kubernetes", "indexed": False}, False),
        ((), {"on": "local"}, False),
        (("upsert",), {"on": "kubernetes"}, False),
        (("incremental_by_time",), {"on": "kubernetes"}, False),
    ],
)
def test_attempts_are_the_indexes_of_one_job_where_they_may_run_side_by_side(
    modes: tuple[str, ...], asked: dict[str, Any], *, indexed: bool
) -> None:
    assert a_plan(*modes, **asked).indexed == indexed


def test_what_goes_one_at_a_time_refuses_to_be_indexes() -> None:
    with pytest.raises(UsageError, match="one interval at a time"):
        a_plan("upsert", on="kubernetes", indexed=True)
    with pytest.raises(UsageError, match="is for Kubernetes"):
        a_plan(on="local", indexed=True)


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("full", "would replace the whole table"),
        ("overwrite", "would replace the whole table"),
        ("append", "add its rows a second time"),
        ("teleport", "nobody knows"),
    ],
)
def test_what_would_lose_or_double_rows_is_refused(mode: str, says: str) -> None:
    with pytest.raises(ProjectRefused, match=says):
        policy(a_scope(mode))


def test_a_feature_group_is_refused() -> None:
    with pytest.raises(ProjectRefused, match="keeps what was written last"):
        policy(a_scope(node=GROUP))


def done(*keys: str) -> dict[str, Record]:
    return {key: Record(key, "UTC", "l", "r", "now") for key in keys}


def test_by_time_an_older_interval_is_refused_when_newer_ones_would_be_deleted() -> None:
    todo = between("2024-01-01", "2024-01-01")
    newer = done("2024-01-02/2024-01-03")
    with pytest.raises(ProjectRefused, match="deletes every later row, and 1 later intervals"):
        refuse_going_back(a_scope("incremental_by_time"), todo, newer)
    refuse_going_back(a_scope("incremental_by_time"), between("2024-01-01", "2024-01-02"), newer)
    refuse_going_back(a_scope("incremental_by_time"), between("2024-01-03", "2024-01-04"), newer)
    refuse_going_back(a_scope("incremental_by_time"), [], newer)


def a_claim(run: str, start: str, end: str, **more: Any) -> Claim:
    return Claim(run, "shape", between(start, end), **more)


def test_claims_of_other_intervals_stand_side_by_side(tmp_path: Path) -> None:
    with (
        claims.held(tmp_path, a_claim("a", "2024-01-01", "2024-01-05")),
        claims.held(tmp_path, a_claim("b", "2024-01-06", "2024-01-09")),
    ):
        assert claims.dead(tmp_path) == []
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize(
    ("claim", "says"),
    [
        pytest.param(a_claim("b", "2024-01-05", "2024-01-09"), "2024-01-05/2024-01-06 too"),
        pytest.param(a_claim("b", "2023-12-01", "2024-01-01"), "2024-01-01/2024-01-02 too"),
        pytest.param(a_claim("a", "2024-02-01", "2024-02-02"), "under the same id"),
        pytest.param(a_claim("b", "2024-02-01", "2024-02-02", alone=True), "one backfill"),
    ],
    ids=["its last day", "its first day", "its id", "its target"],
)
def test_a_claim_on_what_is_taken_is_refused_and_says_whose_it_is(
    tmp_path: Path, claim: Claim, says: str
) -> None:
    with (
        claims.held(tmp_path, a_claim("a", "2024-01-01", "2024-01-05")),
        pytest.raises(StoreLocked, match=rf"backfill a \(process {os.getpid()} on .* {says}"),
        claims.held(tmp_path, claim),
    ):
        pass


HOLD = """
import sys
from pathlib import Path
from seeknal_k8s.backfill import claims
from seeknal_k8s.intervals import between
claim = claims.Claim("a", "shape", between("2024-01-01", "2024-01-05"))
with claims.held(Path(sys.argv[1]), claim):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_claim_of_a_killed_backfill_is_known_and_cleared_away(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(StoreLocked),
            claims.held(tmp_path, a_claim("b", "2024-01-05", "2024-01-06")),
        ):
            pass
        os.kill(holder.pid, signal.SIGKILL)
    assert [(one.run, one.shape) for one in claims.dead(tmp_path)] == [("a", "shape")]
    with claims.held(tmp_path, a_claim("b", "2024-01-05", "2024-01-06")):
        assert [file.stem for file in tmp_path.glob("*.json")] == ["b"]
