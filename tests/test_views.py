"""What we read of the API server's answers, which Kubernetes 1.36 gave to real runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from seeknal_k8s.views import (
    CONFIG_MAPS,
    EVENTS,
    JOBS,
    PODS,
    WATCH_LINE,
    Condition,
    ContainerState,
    ContainerStatus,
    Kind,
    Terminated,
)

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> bytes:
    return (RECORDED / name).read_bytes()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_job_that_succeeded() -> None:
    page = JOBS.page.decode(recorded("jobs.json"))
    (job,) = page.items or []

    assert job.name == "aggregation-customer-spend-863a4b500f-1"
    assert job.labels["seeknal.io/node"] == "aggregation.customer_spend"
    assert job.metadata.annotations["seeknal.io/run-id"] == "20261124-032832-6b4d"
    assert job.condition("Complete") == Condition(
        type="Complete",
        status="True",
        reason="CompletionsReached",
        message="Reached expected number of succeeded pods",
        last_transition_time=at("2026-11-24T03:28:55"),
    )
    assert job.condition("Failed") is None
    assert (job.status.succeeded, job.status.failed, job.status.active) == (1, 0, 0)
    assert job.status.completion_time == at("2026-11-24T03:28:55")
    assert not job.suspended


def test_its_pod() -> None:
    page = PODS.page.decode(recorded("pods.json"))
    (pod,) = page.items or []

    assert pod.labels["batch.kubernetes.io/job-name"] == "aggregation-customer-spend-863a4b500f-1"
    assert (pod.status.phase, pod.spec.node_name) == ("Succeeded", "node1")
    assert pod.container("node") == ContainerStatus(
        name="node",
        state=ContainerState(
            terminated=Terminated(
                reason="Completed",
                started_at=at("2026-11-24T03:28:50"),
                finished_at=at("2026-11-24T03:28:52"),
            )
        ),
    )
    assert pod.container("another") is None
    assert pod.condition("PodScheduled") is not None
    assert pod.condition("Ready") is None  # it is there, and False
    assert page.metadata.next_page != ""


def test_events_are_dated_whoever_wrote_them() -> None:
    events = EVENTS.page.decode(recorded("events.json")).items or []

    assert [(event.reason, event.involved_object.kind, event.last) for event in events] == [
        ("FailedCreate", "Job", at("2026-11-24T03:31:56")),
        ("FailedScheduling", "Pod", at("2026-11-24T03:31:53.909592")),
        ("FailedScheduling", "Pod", at("2026-11-24T03:31:55.001101")),
    ]
    assert events[0].count == 3


def test_the_lines_of_a_watch() -> None:
    lines = [WATCH_LINE.decode(line) for line in recorded("watch.jsonl").splitlines()]

    assert [line.type for line in lines] == ["ADDED", "DELETED", "BOOKMARK", "BOOKMARK", "ERROR"]
    assert CONFIG_MAPS.one.decode(lines[0].object).data == {"a": "1"}
    assert CONFIG_MAPS.one.decode(lines[2].object).version == "10691"


@pytest.mark.parametrize("kind", [JOBS, PODS, EVENTS, CONFIG_MAPS], ids=lambda kind: kind.resource)
def test_an_object_without_anything_is_read_and_says_nothing(kind: Kind[Any]) -> None:
    view = kind.one.decode(b"{}")

    assert (view.name, view.uid, view.version, view.labels) == ("", "", "", {})


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({"conditions": None, "containerStatuses": None}, id="null for empty"),
        pytest.param({"futureField": {"x": [1]}, "phase": "Pending"}, id="a field of tomorrow"),
        pytest.param(
            {
                "containerStatuses": [
                    {
                        "name": "node",
                        "state": {
                            "terminated": {"exitCode": 137, "startedAt": None, "finishedAt": None}
                        },
                    }
                ]
            },
            id="a container of a lost node, which has no times",
        ),
    ],
)
def test_what_a_pod_may_look_like(status: dict[str, Any]) -> None:
    pod = PODS.one.decode(json.dumps({"metadata": {"name": "x"}, "status": status}))

    assert pod.name == "x"


def test_an_empty_list_may_be_null() -> None:
    assert PODS.page.decode(b'{"metadata": {"resourceVersion": "1"}, "items": null}').items is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="no JSON"),
        pytest.param(recorded("pods.json")[:-100], id="half of it"),
        pytest.param(b'{"items": []}', id="no list of Kubernetes"),
        pytest.param(b'{"metadata": {}, "items": [{"metadata": {"name": 1}}]}', id="a wrong type"),
    ],
)
def test_what_is_no_answer_of_an_api_server_is_not_taken_for_one(body: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        PODS.page.decode(body)


def test_views_cannot_be_changed() -> None:
    job = JOBS.one.decode(b"{}")

    with pytest.raises(AttributeError):
        job.metadata = job.metadata  # type: ignore[misc]
