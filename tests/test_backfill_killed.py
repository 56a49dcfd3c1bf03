"""A backfill is killed before every single change it makes to the ledger and the data."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from itertools import count
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.backfill.ledger import Ledger
from seeknal_k8s.store import Store
from tests.faithful import environment
from tests.test_backfill import DAILY, a_project, data, days

if TYPE_CHECKING:
    from pathlib import Path

KILLED = """
import os, signal, sys

left = int(sys.argv.pop(1))

def kill(event, arguments):
    global left
    changes = event in {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
    if changes and "/intervals/" in " ".join(map(str, arguments)):
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

sys.addaudithook(kill)
from seeknal_k8s.cli import main

sys.exit(main())
"""


def backfill(project: Path, changes: int) -> subprocess.CompletedProcess[str]:
    """Backfill two days, killed when it would make the change after so many."""
    asked = ["daily+", "--start", "2024-01-01", "--end", "2024-01-02", "--chunk", "2", "--json"]
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(changes), "backfill", *asked],
        cwd=project,
        env=environment(project.parent / "home"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


SHARES = 4
"""How many tests share the kills, to run side by side."""


@pytest.mark.parametrize("share", range(SHARES))
def test_wherever_it_is_killed_each_interval_is_there_once(tmp_path: Path, share: int) -> None:
    for changes in count(share, SHARES):
        project = a_project(tmp_path / str(changes))
        first = backfill(project, changes)
        done = Ledger(Store.of(project), DAILY).done()
        assert set(days(data(project)) if done else []) >= {key.partition("/")[0] for key in done}
        if first.returncode != -signal.SIGKILL:
            assert first.returncode == 0, first.stderr
            assert changes > 10
            return
        second = backfill(project, 10**6)
        assert second.returncode == 0, (changes, second.stderr)
        assert len(json.loads(second.stdout)["results"]) == 2
        for node_id in (DAILY, "transform.above"):
            assert days(data(project, node_id)) == ["2024-01-01", "2024-01-02"], (changes, node_id)
