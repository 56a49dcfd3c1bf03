"""A flow's parameters, where they are wrong; and a caller that is interrupted."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.errors import ProjectRefused, UsageError
from seeknal_k8s.flows import artifacts, shown
from seeknal_k8s.flows.aloof import Aloof
from seeknal_k8s.flows.asked import at_once, exactly
from seeknal_k8s.flows.shown import Showing
from seeknal_k8s.graph import Graph, Node
from seeknal_k8s.results import PrefectRunResult, RunResults
from seeknal_k8s.selection import select
from seeknal_k8s.store import Store

if TYPE_CHECKING:
    from pathlib import Path


def graph(*ids: str) -> Graph:
    return Graph("p", "/p", {i: Node(i, i.partition(".")[0], i.partition(".")[2], "") for i in ids})


def test_node_ids_mean_exactly_those_nodes() -> None:
    nodes = graph("source.a", "transform.a+b", "transform.c")
    assert select(nodes, exactly(["a", "a+b"])) == {"source.a", "transform.a+b"}
    for selector in ("c+", "tag:daily", "transform.*", "+c"):
        with pytest.raises(ProjectRefused):
            select(nodes, exactly([selector]))


def test_an_empty_list_of_nodes_does_not_mean_all_nodes() -> None:
    assert exactly(None) == ()
    with pytest.raises(UsageError, match="leave it out to run all"):
        exactly([])


def test_how_many_run_at_once() -> None:
    assert at_once(None, parallel=True) is None
    assert at_once(3, parallel=True) == 3
    assert at_once(3, parallel=False) == 1
    with pytest.raises(UsageError, match="at least 1"):
        at_once(0, parallel=True)


def test_who_is_interrupted_before_the_work_has_begun_does_not_wait_for_it() -> None:
    worked = threading.Event()

    class Interrupted(Aloof[None]):
        """Interrupted at once, and the work begins only after that."""

        def _main(self) -> None:
            until_cancelled.wait()
            super()._main()

        def _wait(self) -> None:
            if not until_cancelled.is_set():
                raise KeyboardInterrupt
            super()._wait()

        def _cancel(self) -> None:
            super()._cancel()
            until_cancelled.set()

    async def work() -> None:
        worked.set()

    until_cancelled = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        Interrupted(work).run()
    assert not worked.is_set()


@pytest.fixture
def unreadable() -> RunResults:
    """Give results of which no table can be made."""
    broken = PrefectRunResult(success=True, exit_code=0, stdout="", stderr="", duration_seconds=0)
    broken.duration_seconds = "long"  # type: ignore[assignment]
    return RunResults({"source.a": broken}, run_id="r")


def test_artifacts_that_cannot_be_made_fail_nothing(
    unreadable: RunResults, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TypeError):
        artifacts.rows(unreadable)
    written: list[str] = []

    async def write_text(text: str, *, key: str) -> None:
        written.append(f"{key}: {text}")

    monkeypatch.setattr(artifacts, "acreate_markdown_artifact", write_text)
    caplog.set_level("WARNING", "prefect.seeknal_k8s")
    asyncio.run(artifacts.conclude(unreadable, seconds=1.0))
    assert written[0].startswith("seeknal-run-summary: # Run succeeded")


def test_a_server_that_never_answers_does_not_hold_up_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(artifacts, "PATIENCE", 0.01)
    assert asyncio.run(artifacts.tried(asyncio.sleep(3600))) is None


@pytest.mark.parametrize(("server_hangs", "told"), [(False, 3), (True, 2)])
def test_prefect_is_told_all_as_long_as_it_takes_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, server_hangs: bool, told: int
) -> None:
    monkeypatch.setattr(shown, "_PATIENCE", 1.0)

    async def ended() -> list[bool]:
        showing = Showing(Store(tmp_path))
        tasks = [asyncio.create_task(asyncio.sleep(0.6 * n)) for n in (1, 2)]
        tasks.append(asyncio.create_task(asyncio.sleep(3600 if server_hangs else 1.8)))
        monkeypatch.setattr(showing, "_tasks", dict(enumerate(tasks)))
        await showing.close()
        return [task.done() and not task.cancelled() for task in tasks]

    assert sum(asyncio.run(ended())) == told
