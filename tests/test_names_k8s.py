"""Names and labels of what we make in a cluster: fit for Kubernetes, whatever the ids are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal_k8s.names import (
    DOTTED_NAME_PATTERN,
    LABEL_KEY_PATTERN,
    anchor_name,
    job_name,
    label_value,
)

# Written from https://kubernetes.io/docs/concepts/overview/working-with-objects/, not from ours.
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
ANY = st.text() | st.text("aZ0-_. /", max_size=80)


@given(ANY, ANY, ANY, st.integers(1, 99_999))
def test_a_pod_of_any_job_carries_the_whole_name_of_the_job(
    run_id: str, node_id: str, interval: str, attempt: int
) -> None:
    name = job_name(run_id, node_id, interval=interval, attempt=attempt)
    assert DNS_LABEL.fullmatch(name)
    # The API server cuts `<job>-` to 58 characters before it adds five: names/generate.go.
    assert len(f"{name}-") <= 58
    assert name == job_name(run_id, node_id, interval=interval, attempt=attempt)


@given(ANY)
def test_the_anchor_of_any_run_has_a_name(run_id: str) -> None:
    assert DNS_LABEL.fullmatch(anchor_name(run_id))
    assert len(anchor_name(run_id)) <= 63


@given(ANY)
def test_any_text_has_a_label(text: str) -> None:
    assert LABEL.fullmatch(label_value(text))
    assert len(label_value(text)) <= 63


@given(st.text("aZ0-_.", max_size=63).filter(LABEL.fullmatch))
def test_what_kubernetes_takes_is_its_own_label(text: str) -> None:
    assert label_value(text) == text


@given(ANY, ANY)
def test_different_texts_have_different_labels_and_names(one: str, other: str) -> None:
    if one != other:
        assert label_value(one) != label_value(other)
        assert anchor_name(one) != anchor_name(other)
        assert job_name("r", one, attempt=1) != job_name("r", other, attempt=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("transform.orders", "transform.orders", id="a node id is itself"),
        pytest.param("20260102-030405-ab12", "20260102-030405-ab12", id="so is a run id"),
        pytest.param("läuft heute", "l-uft-heute-7eb3cd19", id="others are a slug and a digest"),
        pytest.param("orders\n", "orders-e0b76fb1", id="a line break at the end is noticed"),
        pytest.param("_private", "private-3ce6c249", id="so is an underscore in front"),
        pytest.param("a" * 64, "a" * 40 + "-ffe054fe", id="64 characters are too many"),
        pytest.param("", "node-e3b0c442", id="nothing"),
    ],
)
def test_labels_are_readable(text: str, expected: str) -> None:
    assert label_value(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(("r", "a", 1, ""), ("r", "a", 2, ""), id="attempt"),
        pytest.param(("r", "a", 1, ""), ("s", "a", 1, ""), id="run"),
        pytest.param(("r", "a", 1, "x"), ("r", "a", 1, "y"), id="interval"),
        pytest.param(("r", "a", 1, ""), ("r", "A", 1, ""), id="case"),
        pytest.param(("ra", "b", 1, ""), ("r", "ab", 1, ""), id="where the run's id ends"),
    ],
)
def test_jobs_have_different_names_that_differ_only_in(
    one: tuple[str, str, int, str], other: tuple[str, str, int, str]
) -> None:
    names = {
        job_name(run, node, attempt=attempt, interval=interval)
        for run, node, attempt, interval in (one, other)
    }
    assert len(names) == 2


def test_a_job_keeps_its_name_from_version_to_version() -> None:
    # A coordinator of a newer version has to find the Jobs of an older one.
    assert job_name("r1", "transform.orders", attempt=2) == "transform-orders-30a5b4f06e-2"
    assert anchor_name("r1") == "seeknal-run-r1-82f3e9c6"


@pytest.mark.parametrize("text", ["a", "a.b", "0-a.b-c"])
def test_names_with_dots_are_recognized(text: str) -> None:
    assert re.fullmatch(DOTTED_NAME_PATTERN, text)


@pytest.mark.parametrize("text", ["", "A", "-a", "a-", "a..b", "a.-b", "a_b", "a\n"])
def test_what_is_no_name_with_dots_is_not(text: str) -> None:
    assert not re.fullmatch(DOTTED_NAME_PATTERN, text)


@pytest.mark.parametrize("text", ["team", "example.com/team", "A_b.c-d"])
def test_keys_of_labels_are_recognized(text: str) -> None:
    assert re.fullmatch(LABEL_KEY_PATTERN, text)


@pytest.mark.parametrize("text", ["", "/team", "Example.com/team", "a/b/c", "team-", "t" * 64])
def test_what_is_no_key_of_a_label_is_not(text: str) -> None:
    assert not re.fullmatch(LABEL_KEY_PATTERN, text)
