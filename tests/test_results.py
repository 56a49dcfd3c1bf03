"""What users get back, in Python, in a notebook and as JSON."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal_k8s.results import PrefectRunResult, RunResults

GOOD = PrefectRunResult(True, 0, "out", "err", 1.5, reason="Succeeded", attempts=1, rows=7)  # noqa: FBT003
BAD = PrefectRunResult(False, 77, "", "no", 0.25, reason="OutOfMemory", attempts=3)  # noqa: FBT003
SKIPPED = PrefectRunResult(False, -1, "", "", 0.0, reason="UpstreamFailed")  # noqa: FBT003


def test_the_documented_fields_come_first_and_by_position() -> None:
    result = PrefectRunResult(True, 0, "out", "err", 1.5)  # noqa: FBT003
    assert (result.success, result.exit_code, result.stdout) == (True, 0, "out")
    assert (result.stderr, result.duration_seconds) == ("err", 1.5)
    documented = ["success", "exit_code", "stdout", "stderr", "duration_seconds"]
    assert list(asdict(result))[:5] == documented


async def awaited(results: RunResults) -> RunResults:
    return await results


def test_results_are_a_dict_that_waits_for_nothing() -> None:
    results = RunResults({"transform.a": GOOD}, run_id="r")
    assert results.wait() is results
    assert asyncio.run(awaited(results)) is results
    assert isinstance(results, dict)
    assert dict(results) == {"transform.a": GOOD}
    assert [result.success for result in results.wait().values()] == [True]


@pytest.mark.parametrize(
    ("results", "success", "failed"),
    [
        pytest.param({}, True, [], id="nothing to do"),
        pytest.param({"a": GOOD}, True, [], id="all well"),
        pytest.param({"a": GOOD, "b": BAD}, False, ["b"], id="a failure"),
        pytest.param({"a": BAD, "b": SKIPPED}, False, ["a", "b"], id="what a failure skipped"),
    ],
)
def test_a_run_succeeded_if_all_nodes_did(
    results: dict[str, PrefectRunResult],
    success: bool,  # noqa: FBT001
    failed: list[str],
) -> None:
    run = RunResults(results)
    assert run.success is success
    assert list(run.failed) == failed


def test_a_run_prints_one_line_per_node() -> None:
    text = repr(RunResults({"transform.a": GOOD, "transform.b": BAD}, run_id="r1"))
    assert text == (
        "RunResults('r1', 1 of 2 succeeded)\n"
        "  ✓ transform.a  Succeeded  exit 0  1.50s\n"
        "  ✗ transform.b  OutOfMemory  exit 77  0.25s"
    )


def test_a_notebook_shows_a_table_and_runs_nothing() -> None:
    evil = PrefectRunResult(False, 1, "", "", 0.0, reason="<script>alert(1)</script>")  # noqa: FBT003
    table = RunResults({"<img src=x>&": evil, "transform.a": GOOD})._repr_html_()
    assert "<script" not in table
    assert "<img" not in table
    assert "&lt;img src=x&gt;&amp;" in table
    assert "<td>transform.a</td><td>Succeeded</td><td>0</td><td>1.50</td><td>7</td>" in table


RESULT = st.builds(
    PrefectRunResult,
    success=st.booleans(),
    exit_code=st.integers(-1, 255),
    stdout=st.text(),
    stderr=st.text(),
    duration_seconds=st.floats(0, 1e6),
    reason=st.text(),
    message=st.text(),
    attempts=st.integers(0, 20),
    started=st.none() | st.text(),
    rows=st.none() | st.integers(0),
    peak_memory_bytes=st.none() | st.integers(0),
    log_path=st.none() | st.text(),
)


@given(st.dictionaries(st.text(), RESULT, max_size=5), st.text())
def test_json_brings_everything_back(results: dict[str, PrefectRunResult], run_id: str) -> None:
    run = RunResults(results, run_id=run_id)
    back = RunResults.from_json(run.to_json())
    assert (dict(back), back.run_id, list(back)) == (results, run_id, list(results))


def test_fields_of_a_newer_version_are_passed_over() -> None:
    body = json.loads(RunResults({"a": GOOD}, run_id="r").to_json())
    body["results"]["a"]["carbon_grams"] = 3
    body["weather"] = "fine"
    assert dict(RunResults.from_json(json.dumps(body))) == {"a": GOOD}


def test_fields_that_an_older_version_had_not_get_their_defaults() -> None:
    first = dict(list(asdict(SKIPPED).items())[:5])
    read = RunResults.from_json(json.dumps({"run_id": "r", "results": {"a": first}}))
    assert read["a"] == PrefectRunResult(**first)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="an empty file"),
        pytest.param("{", id="half a file"),
        pytest.param("[]", id="a list"),
        pytest.param("null", id="nothing"),
        pytest.param('{"results": {}}', id="no run id"),
        pytest.param('{"run_id": "r", "results": []}', id="a list of results"),
        pytest.param('{"run_id": "r", "results": {"a": 1}}', id="a number for a result"),
        pytest.param('{"run_id": "r", "results": {"a": {}}}', id="a result without its fields"),
    ],
)
def test_what_is_no_results_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not the results|Expecting"):
        RunResults.from_json(text)
