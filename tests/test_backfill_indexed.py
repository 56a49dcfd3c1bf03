"""A backfill as one Indexed Job on a real cluster: what fails, its speed, its end."""

from __future__ import annotations

import signal
import textwrap
import time
from typing import TYPE_CHECKING, Any

import pytest

from seeknal_k8s.manifest import GRACE
from tests.cluster.harness import until
from tests.on_kubernetes import LONG, Volume, kill, volume
from tests.projects import write
from tests.running import new_project, python
from tests.test_backfill_kubernetes import KEPT
from tests.test_kubernetes_commands import program

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.cluster.harness import Namespace


@pytest.fixture
def store(audited: Namespace, image: str) -> Iterator[Volume]:
    with volume(audited, image) as made:
        yield made


def by_day(store: Volume, body: str, options: str = "") -> None:
    """Make a project of one Python node that is given ``day``."""
    project = new_project(store.path, options)
    python(project, "daily", f'day = ctx.params["start_date"]\n{textwrap.dedent(body)}')
    text = (project / "seeknal" / "py" / "daily.py").read_text(encoding="utf-8")
    write(project, "seeknal/py/daily.py", text.replace("inputs=[]", 'start_date="none"'))


def waits(store: Volume) -> str:
    """Return what leaves a mark of its day and waits until it is let go."""
    return f"""
        open("{store.marks}/" + day, "a").write("x")
        while not os.path.exists("{store.marks}/go"):
            time.sleep(0.05)
        """


def start(
    store: Volume, days: int, *arguments: str, first: int = 1, **settings: str
) -> subprocess.Popen[str]:
    range_ = ["--start", f"2025-01-{first:02}", "--end", f"2025-01-{days:02}"]
    asked = ["daily", *range_, "--run-id", "b1", "-C", str(store.path / "project")]
    command = ("backfill", *asked, "--on", "kubernetes", *arguments)
    return store.begin(*command, **KEPT, **settings)


def jobs(store: Volume) -> dict[str, dict[str, Any]]:
    """Return the Jobs' specs by their attempt and whether they are indexed."""
    return {
        f"{job['spec']['completionMode']} {job['metadata']['labels']['seeknal.io/attempt']}": job
        for job in store.jobs()
    }


def test_a_job_that_is_ahead_of_its_coordinator_runs_nothing_twice(store: Volume) -> None:
    """As after a crash, or when a pod is started before the end of the last one has been noticed."""
    by_day(store, waits(store))
    process = start(store, 4, "--max-parallel", "1")
    store.wait_for_mark("2025-01-01")
    faster = '{"spec": {"parallelism": 4}}'
    store.namespace.kubectl("patch", "job", store.job("transform.daily"), "-p", faster)
    for day in ("2025-01-02", "2025-01-03", "2025-01-04"):
        store.wait_for_mark(day)
    store.mark("go")
    said, _ = process.communicate(timeout=2 * LONG)
    assert process.returncode == 0, said
    assert {store.marks.joinpath(f"2025-01-0{day}").read_text() for day in range(1, 5)} == {"x"}
    (job,) = store.jobs()
    assert job["status"]["succeeded"] == 4


def test_an_index_that_fails_is_tried_again_in_a_job_of_its_own(store: Volume) -> None:
    """One fails once, one fails for good; the others do not notice."""
    by_day(
        store,
        f"""
        if day == "2025-01-02" and not os.path.exists("{store.marks}/once"):
            open("{store.marks}/once", "w").close()
            raise ValueError("the first time")
        if day == "2025-01-04":
            raise ValueError("always")
        """,
        "defaults: {retries: 1, backoff: 1s}\n",
    )
    process = start(store, 5, "--max-parallel", "2")
    said, _ = process.communicate(timeout=2 * LONG)
    assert process.returncode == 1, said
    assert "5 intervals: 4 done, 1 failed" in said
    assert "✗ 2025-01-04/2025-01-05  NodeFailed" in said
    assert sorted(jobs(store)) == ["Indexed 1", "NonIndexed 2"]
    assert store.created().total() == 3
    why = program(store, "why", "2025-01-02/2025-01-03", "--run", "b1", "--attempt", "1", **KEPT)
    assert why.returncode == 0, why.stderr
    assert "the first time" in why.stdout
    shown = program(
        store, "logs", "2025-01-04/2025-01-05", "--run", "b1", "--store", str(store.path), **KEPT
    )
    assert "always" in shown.stdout + shown.stderr


def test_its_speed_can_be_changed_while_it_runs(store: Volume) -> None:
    by_day(store, waits(store))
    process = start(store, 4, "--max-parallel", "1")
    store.wait_for_mark("2025-01-01")
    assert len(list(store.marks.iterdir())) == 1
    scaled = program(
        store, "scale", "b1", "--max-parallel", "3", "--store", str(store.path), **KEPT
    )
    assert scaled.returncode == 0, scaled.stderr
    assert "run b1: at most 3 at once from now on" in scaled.stdout
    for day in ("2025-01-02", "2025-01-03"):
        store.wait_for_mark(day)
    (job,) = store.jobs()
    assert (job["spec"]["parallelism"], job["status"]["active"]) == (3, 3)
    store.mark("go")
    said, _ = process.communicate(timeout=2 * LONG)
    assert process.returncode == 0, said
    late = program(store, "scale", "b1", "--max-parallel", "3", "--store", str(store.path), **KEPT)
    assert (late.returncode, "its status is succeeded" in late.stderr) == (2, True)


def test_a_lower_speed_ends_what_began_last_and_runs_it_again(store: Volume) -> None:
    """The Job controller ends pods that are more than the Job's parallelism; nobody has failed."""
    by_day(store, waits(store), "defaults: {retries: 0, memory: 512Mi, memory_max: 512Mi}\n")
    asked = ("--max-parallel", "3", "--max-failures", "9")
    process = start(store, 4, *asked, deadline_margin="1s")
    for day in ("2025-01-01", "2025-01-02", "2025-01-03"):
        store.wait_for_mark(day)
    where = ("--store", str(store.path))
    scaled = program(store, "scale", "b1", "--max-parallel", "1", *where, **KEPT)
    assert scaled.returncode == 0, scaled.stderr
    until(lambda: len(active(store)) == 1, "one pod", seconds=LONG)
    given_up = time.monotonic() + GRACE + 5  # a pod that is told to end, and does not
    until(lambda: time.monotonic() > given_up, "that a pod is given up", seconds=LONG)
    store.mark("go")
    said, _ = process.communicate(timeout=2 * LONG)
    assert process.returncode == 0, said
    assert "4 intervals: 4 done" in said
    ran = [len(store.marks.joinpath(f"2025-01-0{day}").read_text()) for day in range(1, 5)]
    assert sorted(ran) == [1, 1, 2, 2]
    (job,) = store.jobs()
    assert (job["spec"]["maxFailedIndexes"], job["status"]["succeeded"]) == (4, 4)


def active(store: Volume) -> list[str]:
    """Return the pods that have not ended."""
    pods = [pod for pod in store.pods() if pod["status"]["phase"] in {"Pending", "Running"}]
    return [pod["metadata"]["name"] for pod in pods]


def test_begun_again_it_has_the_speed_that_is_asked_for_then(store: Volume) -> None:
    by_day(store, waits(store))
    process = start(store, 3, "--max-parallel", "1")
    store.wait_for_mark("2025-01-01")
    kill(process)
    process = start(store, 3, "--max-parallel", "3")
    for day in ("2025-01-02", "2025-01-03"):
        store.wait_for_mark(day)
    store.mark("go")
    said, _ = process.communicate(timeout=2 * LONG)
    assert process.returncode == 0, said
    assert {store.marks.joinpath(f"2025-01-0{day}").read_text() for day in range(1, 4)} == {"x"}


def test_a_job_for_days_that_nobody_asks_for_any_more_is_ended(store: Volume) -> None:
    by_day(store, waits(store))
    process = start(store, 4, "--max-parallel", "1")
    store.wait_for_mark("2025-01-01")
    kill(process)
    process = start(store, 6, "--max-parallel", "1", first=3)
    store.wait_for_mark("2025-01-03")
    store.mark("go")
    said, _ = process.communicate(timeout=2 * LONG)
    assert process.returncode == 0, said
    ((name, job),) = jobs(store).items()
    assert (name, job["spec"]["completions"]) == ("Indexed 1", 4)
    assert job["metadata"]["annotations"]["seeknal.io/interval"] == "2025-01-03/2025-01-07"
    ran = {day.name: day.read_text() for day in store.marks.glob("2025-*")}
    assert ran == {f"2025-01-0{day}": "x" for day in (1, 3, 4, 5, 6)}


def test_an_indexed_job_can_be_gone_on_with_as_jobs(store: Volume) -> None:
    by_day(store, waits(store))
    process = start(store, 3, "--max-parallel", "1")
    store.wait_for_mark("2025-01-01")
    kill(process)
    process = start(store, 3, "--no-indexed")
    for day in ("2025-01-02", "2025-01-03"):
        store.wait_for_mark(day)
    store.mark("go")
    said, _ = process.communicate(timeout=2 * LONG)
    assert process.returncode == 0, said
    assert "3 intervals: 3 done" in said
    assert {job["spec"]["completionMode"] for job in store.jobs()} == {"NonIndexed"}


def test_an_index_waits_for_its_turn_however_long_the_others_take(store: Volume) -> None:
    """A quota lets one pod be there at a time, and each takes longer than one may wait for that."""
    store.namespace.kubectl("create", "quota", "one", "--hard=pods=1")
    by_day(store, "time.sleep(6)")
    process = start(store, 3, "--max-parallel", "3", queue_timeout="3s")
    said, _ = process.communicate(timeout=2 * LONG)
    assert process.returncode == 0, said
    assert "3 intervals: 3 done" in said
    assert sorted(jobs(store)) == ["Indexed 1"]


def test_ending_it_ends_all_its_indexes(store: Volume) -> None:
    by_day(store, f'open("{store.marks}/" + day, "w").close()\ntime.sleep(600)')
    process = start(store, 4, "--max-parallel", "2")
    store.wait_for_mark("2025-01-02")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=2 * LONG)
    assert process.returncode == 130, said
    assert (store.jobs(), store.pods()) == ([], [])
