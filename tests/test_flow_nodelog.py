"""Which lines of a node's log Prefect gets: all of a short one, of a long one both ends."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.flows import nodelog
from seeknal_k8s.flows.nodelog import LAST, LINES, LONGEST, NodeLog

if TYPE_CHECKING:
    from pathlib import Path


def write(bundle: Path, attempt: int, *, stdout: str = "", stderr: str = "") -> None:
    folder = bundle / str(attempt)
    folder.mkdir(exist_ok=True)
    for name, text in (("stdout", stdout), ("stderr", stderr)):
        with (folder / name).open("ab") as stream:
            stream.write(text.encode())


def texts(lines: list[tuple[int, str]]) -> list[str]:
    return [text for _, text in lines]


def test_lines_come_once_and_when_they_are_complete(tmp_path: Path) -> None:
    log = NodeLog(tmp_path, 1)
    assert list(log.new(1, whole=False)) == []
    write(tmp_path, 1, stdout="one\ntw", stderr="oh\n")
    assert list(log.new(1, whole=False)) == [(logging.INFO, "one"), (logging.WARNING, "oh")]
    write(tmp_path, 1, stdout="o\nthree")
    assert texts(list(log.new(1, whole=False))) == ["two"]
    assert texts(list(log.new(1, whole=True))) == ["three"]
    assert list(log.new(1, whole=True)) == []
    assert log.last() == []


def test_what_an_attempt_printed_last_comes_also_when_the_next_has_begun(tmp_path: Path) -> None:
    log = NodeLog(tmp_path, 1)
    write(tmp_path, 1, stdout="starting\n")
    assert texts(list(log.new(1, whole=False))) == ["starting"]
    write(tmp_path, 1, stderr="ValueError: not yet")
    write(tmp_path, 2, stderr="KeyError: still not\n")
    write(tmp_path, 3, stdout="done\n")
    assert texts(list(log.new(3, whole=False))) == [
        "ValueError: not yet",
        "KeyError: still not",
        "done",
    ]


def test_attempts_of_an_earlier_start_of_the_run_do_not_come_again(tmp_path: Path) -> None:
    write(tmp_path, 1, stdout="told already\n")
    write(tmp_path, 2, stdout="new\n")
    assert texts(list(NodeLog(tmp_path, 2).new(2, whole=True))) == ["new"]


def test_of_a_long_log_come_the_first_lines_and_the_last_of_each_stream(tmp_path: Path) -> None:
    many = LINES + 1000
    write(
        tmp_path, 1, stdout="".join(f"{n}\n" for n in range(many)), stderr="Traceback\nKeyError: x"
    )
    log = NodeLog(tmp_path, 1)
    assert texts(list(log.new(1, whole=True))) == [str(n) for n in range(LINES)]
    last = log.last()
    assert texts(last) == [*(str(n) for n in range(many - LAST, many)), "Traceback", "KeyError: x"]
    assert last[-1][0] == logging.WARNING


def test_no_line_comes_twice_where_the_end_is_near_the_beginning(tmp_path: Path) -> None:
    write(tmp_path, 1, stdout="".join(f"{n}\n" for n in range(LINES + 3)))
    log = NodeLog(tmp_path, 1)
    given = [*texts(list(log.new(1, whole=True))), *texts(log.last())]
    assert given == [str(n) for n in range(LINES + 3)]


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    write(tmp_path, 1, stdout="x" * (LONGEST + 1) + "\n")
    ((_, line),) = NodeLog(tmp_path, 1).new(1, whole=True)
    assert line == "x" * LONGEST + "…"


def test_a_log_is_read_in_pieces_and_a_line_longer_than_one_does_not_hold_up_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodelog, "_AT_ONCE", 8)
    write(tmp_path, 1, stdout="a\nbb\nccc\n" + "d" * 20 + "\nlast\n")
    found = texts(list(NodeLog(tmp_path, 1).new(1, whole=False)))
    assert found[:3] == ["a", "bb", "ccc"]
    assert "".join(found[3:-1]) == "d" * 20
    assert found[-1] == "last"


@pytest.mark.parametrize("lines", [0, LINES])
def test_secrets_come_neither_at_the_beginning_nor_at_the_end(tmp_path: Path, lines: int) -> None:
    write(tmp_path, 1, stdout="line\n" * lines + "password=hunter2\n")
    log = NodeLog(tmp_path, 1)
    given = [*texts(list(log.new(1, whole=True))), *texts(log.last())]
    assert given[-1] == "password=***"
