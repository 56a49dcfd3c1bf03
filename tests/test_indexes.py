"""An index of an Indexed Job is seen as a Job of its own would be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seeknal_k8s import indexes
from seeknal_k8s.diagnosis import ending
from seeknal_k8s.verdict import Fault, read
from seeknal_k8s.views import JOBS, JobView
from tests.test_diagnosis import FINE, a_pod, condition, terminated


def a_job(*conditions: Any, completed: str = "", failed: str = "") -> JobView:
    status = {
        "conditions": list(conditions),
        "completedIndexes": completed,
        "failedIndexes": failed,
    }
    body = {"metadata": {"name": "a-1"}, "status": status}
    return JOBS.one.decode(json.dumps(body))


def seen(index: int, *conditions: Any, completed: str = "", failed: str = "") -> JobView:
    return indexes.of(a_job(*conditions, completed=completed, failed=failed), index)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", set()),
        ("0", {0}),
        ("1,3-5,7", {1, 3, 4, 5, 7}),
        ("0-2,10", {0, 1, 2, 10}),
    ],
)
def test_ranges_are_read_as_kubernetes_writes_them(text: str, found: set[int]) -> None:
    assert indexes.parse(text) == found


def test_an_index_among_the_completed_has_ended_well_while_the_job_goes_on() -> None:
    assert ending(seen(3, completed="1-4"), a_pod(terminated(0, "Completed")), FINE) == FINE


def test_an_index_that_is_in_neither_list_has_not_ended() -> None:
    assert ending(seen(5, completed="1-4", failed="6"), a_pod({"running": {}}), None) is None


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (a_pod(terminated(137, "OOMKilled")), "OOMKilled"),
        (
            a_pod(terminated(143), condition("DisruptionTarget", "EvictionByEvictionAPI")),
            "Drained",
        ),
        (a_pod(terminated(137), reason="DeadlineExceeded"), "DeadlineExceeded"),
        (a_pod(terminated(137), deleted=True), "PodDeleted"),
        (a_pod(terminated(1)), "NodeFailed"),
    ],
)
def test_a_failed_index_has_the_verdict_that_its_pod_gives(pod: Any, reason: str) -> None:
    found = ending(seen(2, failed="2"), pod, None)
    assert found is not None
    assert read(found).reason == reason


def test_an_index_that_a_stopped_job_never_began_is_tried_again_on_nobodys_account() -> None:
    job = seen(9, condition("Failed", "MaxFailedIndexesExceeded"), failed="0-3")
    found = ending(job, None, None)
    assert found is not None
    verdict = read(found)
    assert (verdict.fault, verdict.retry) == (Fault.PLATFORM, True)
    assert "too many others had failed" in found.error


@pytest.mark.parametrize(
    ("completed", "failed", "left"),
    [("", "", {0, 1, 2, 3}), ("0,2", "", {1, 3}), ("0", "2-3", {1}), ("0-1", "2-3", set())],
)
def test_indexes_that_are_in_neither_list_are_left(
    completed: str, failed: str, left: set[int]
) -> None:
    assert indexes.left(a_job(completed=completed, failed=failed), 4) == left


def test_of_a_job_that_is_not_there_yet_all_are_left_and_of_one_that_is_over_none() -> None:
    assert indexes.left(None, 2) == {0, 1}
    assert indexes.left(a_job(condition("Failed", "Whatever")), 2) == set()
