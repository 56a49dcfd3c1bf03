"""How an attempt ended, and what we make of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal_k8s import exitcodes
from seeknal_k8s.attempt import Ending
from seeknal_k8s.options import parse_overrides
from seeknal_k8s.verdict import Fault, every, page, read

TABLE = [
    pytest.param(0, "Succeeded", Fault.NOBODY, False, id="the node succeeded"),
    pytest.param(1, "NodeFailed", Fault.NODE, True, id="the node failed"),
    pytest.param(3, "NodeFailed", Fault.NODE, True, id="an exit code of the node's own"),
    pytest.param(65, "VerificationFailed", Fault.NODE, True, id="a success that was none"),
    pytest.param(66, "InputMissing", Fault.USER, False, id="an input is gone"),
    pytest.param(69, "StoreUnavailable", Fault.PLATFORM, True, id="the disk is full"),
    pytest.param(77, "OutOfMemory", Fault.NODE, True, id="DuckDB out of memory"),
    pytest.param(78, "ConfigurationError", Fault.USER, False, id="another project than planned"),
    pytest.param(124, "Timeout", Fault.NODE, True, id="out of time"),
    pytest.param(137, "Killed", Fault.NODE, True, id="killed by nobody we know"),
    pytest.param(139, "Killed", Fault.NODE, True, id="a segmentation fault"),
    pytest.param(143, "Cancelled", Fault.USER, False, id="cancelled"),
    pytest.param(-1, "Lost", Fault.PLATFORM, True, id="no process exited"),
]


@pytest.mark.parametrize(("code", "reason", "fault", "retry"), TABLE)
def test_an_exit_code_has_one_meaning(code: int, reason: str, fault: Fault, retry: bool) -> None:  # noqa: FBT001
    found = read(Ending(code))
    assert (found.reason, found.fault, found.retry) == (reason, fault, retry)


@given(st.integers(-300, 300))
def test_only_zero_is_success(code: int) -> None:
    assert read(Ending(code)).success == (code == 0)


@given(st.integers(-300, 300))
def test_nothing_is_retried_that_the_user_has_to_repair(code: int) -> None:
    found = read(Ending(code))
    assert found.retry == (found.fault in {Fault.NODE, Fault.PLATFORM})


@pytest.mark.parametrize("code", [77, 124])
def test_a_hint_can_be_typed_as_it_is(code: int) -> None:
    hint = read(Ending(code)).hint.format(node="transform.a")
    (typed,) = re.findall(r"--set (\S+),", hint)
    assert parse_overrides([typed])[0].node == "transform.a"
    assert re.search(r"`kubernetes: \{\w+: \w+\}`", hint)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param("ValueError: on purpose", exitcodes.NODE_FAILED, id="any other error"),
        pytest.param(
            "Out of Memory Error: failed to allocate data of size 16.0 MiB",
            exitcodes.OUT_OF_MEMORY,
            id="DuckDB's own words",
        ),
        pytest.param("MemoryError: Unable to allocate", exitcodes.OUT_OF_MEMORY, id="numpy's"),
        pytest.param(
            "IO Error: Could not write file: No space left on device",
            exitcodes.UNAVAILABLE,
            id="a full disk",
        ),
        pytest.param(
            "OSError: [Errno 122] Disk quota exceeded", exitcodes.UNAVAILABLE, id="a full quota"
        ),
    ],
)
def test_what_a_node_says_decides_its_exit_code(text: str, code: int) -> None:
    assert exitcodes.of_text(text) == code


def test_a_cause_below_the_error_decides_too() -> None:
    causes = [ValueError("it failed"), MemoryError()]
    assert exitcodes.of_exception(causes) == exitcodes.OUT_OF_MEMORY
    assert exitcodes.of_exception(causes[:1]) == exitcodes.NODE_FAILED


def test_the_troubleshooting_page_is_the_list_of_verdicts() -> None:
    there = Path(__file__).parent.parent / "docs" / "troubleshooting.md"
    assert there.read_text(encoding="utf-8") == page(), "write it anew: make docs"


@pytest.mark.parametrize("reason", sorted(one.reason for one in every() if not one.success))
def test_every_failure_says_what_it_is_read_from_and_what_to_do(reason: str) -> None:
    (found,) = [one for one in every() if one.reason == reason]
    assert found.evidence
    assert found.hint
