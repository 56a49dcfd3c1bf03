"""A node that runs out of memory gets more of it, up to its cap, apart from its retries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seeknal_k8s import exitcodes
from seeknal_k8s.events import NodeRetrying
from tests.projects import write
from tests.running import run

if TYPE_CHECKING:
    from pathlib import Path

# Some 80 MiB of a hash table that may hardly spill: the first attempts cannot have it.
GREEDY = "SELECT count(*) AS n FROM (SELECT range, count(*) FROM range(1500000) GROUP BY range)"


def project(folder: Path, most: str) -> Path:
    write(
        folder,
        "seeknal/greedy.yml",
        f"""
        kind: transform
        name: greedy
        transform: {GREEDY}
        kubernetes: {{memory: 32Mi, memory_max: {most}, ephemeral_storage: 1Mi}}
        """,
    )
    return folder


def test_memory_grows_until_the_node_has_enough(tmp_path: Path) -> None:
    ran = run(project(tmp_path / "p", "2Gi"))
    result = ran["transform.greedy"]
    assert result.success
    retries = ran.told(NodeRetrying, "transform.greedy")
    assert result.attempts == len(retries) + 1 > 1
    assert {retry.delay for retry in retries} == {0.0}
    assert all(retry.message.startswith("OutOfMemory") for retry in retries)


def test_growth_ends_at_the_cap_with_a_clear_end(tmp_path: Path) -> None:
    ran = run(project(tmp_path / "p", "40Mi"))
    result = ran["transform.greedy"]
    assert (result.success, result.exit_code) == (False, exitcodes.OUT_OF_MEMORY)
    assert (result.reason, result.attempts) == ("OutOfMemory", 2)
