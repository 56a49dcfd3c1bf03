"""What of a log is shown, and what is not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal_k8s.logs import TAIL, iso_utc, redact, tail

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE = [
    pytest.param("password=hunter2 next", "password=*** next", id="a password in key=value"),
    pytest.param("PGPASSWORD='a b; c' psql", "PGPASSWORD='***' psql", id="a quoted one, spaces"),
    pytest.param("host=h password=x user=u", "host=h password=*** user=u", id="a DSN"),
    pytest.param("passwd: x", "passwd: ***", id="a line of YAML"),
    pytest.param("Pwd=x;Uid=me", "Pwd=***;Uid=me", id="ODBC"),
    pytest.param("f(password=x, y=1)", "f(password=***, y=1)", id="an argument of a call"),
    pytest.param('{"password": "x", "a": 1}', '{"password": "***", "a": 1}', id="JSON"),
    pytest.param(
        r'{"db_password":"a\"b c"} end', '{"db_password":"***"} end', id="JSON, a quote within"
    ),
    pytest.param(r"\"api_key\": \"a b\", x", r"\"api_key\": \"***\", x", id="JSON in JSON"),
    pytest.param("{'secret': 'x'}", "{'secret': '***'}", id="a dict as Python prints it"),
    pytest.param("AWS_SECRET_ACCESS_KEY=x", "AWS_SECRET_ACCESS_KEY=***", id="a key of AWS"),
    pytest.param("?token=x&page=2", "?token=***&page=2", id="a token in a query"),
    pytest.param("x-api-key: x", "x-api-key: ***", id="a header with an API key"),
    pytest.param("Authorization: Bearer x.y", "Authorization: Bearer ***", id="a bearer token"),
    pytest.param("--db-password x -v", "--db-password *** -v", id="an option of a command"),
    pytest.param(
        "SECRET 'it''s', REGION 'eu'", "SECRET '***', REGION 'eu'", id="CREATE SECRET in SQL"
    ),
    pytest.param("postgres://me:x@host/db", "postgres://me:***@host/db", id="a URL"),
    pytest.param("redis://:x@host", "redis://:***@host", id="a URL without a user"),
    pytest.param("ftp://me:p@ss@host", "ftp://me:***@host", id="a URL with an @ too many"),
    pytest.param("password = \nnext = 1", "password = \nnext = 1", id="nothing after the sign"),
]


@pytest.mark.parametrize(("text", "shown"), PRIVATE)
def test_what_looks_like_a_secret_is_not_shown(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("tokens: 512", id="a count of tokens"),
        pytest.param("tokenizer = Simple", id="a longer word"),
        pytest.param("secretary: Anna", id="another longer word"),
        pytest.param("if token == expected:", id="a comparison in a traceback"),
        pytest.param("Token::new", id="a path in another language"),
        pytest.param("a password is required; the secret 'x' was not found", id="a sentence"),
        pytest.param("https://host:8080/path@2x.png", id="a URL with a port"),
        pytest.param("write to me@example.org: thanks", id="a mail address"),
        pytest.param("10:15:00 - INFO - 3 rows, key=id, ratio: 0.5", id="a line of a log"),
    ],
)
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert redact(text) == text


@given(st.text(alphabet=st.sampled_from("pasword=:'\"\\ \nx/@-{},é"), max_size=200))
def test_redacting_twice_is_redacting_once(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "a-" * 50_000,
        "token" * 20_000,
        "://:" * 25_000,
        "password='" * 10_000,
        "password" + " " * 99999,
    ],
    ids=["dashes", "key words", "URLs", "open quotes", "blanks"],
)
def test_no_log_takes_long_to_redact(text: str) -> None:
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 1  # ten times a tail: 0.08 s at most, measured


@pytest.mark.parametrize(
    ("content", "size", "shown"),
    [
        pytest.param(b"", 10, "", id="an empty log"),
        pytest.param(b"one\ntwo\n", 10, "one\ntwo\n", id="a short log is whole"),
        pytest.param(b"0123456789", 10, "0123456789", id="a log of just that size"),
        pytest.param(b"first\nsecond\nthird\n", 15, "second\nthird\n", id="a line is never cut"),
        pytest.param(b"0123456789abc", 10, "3456789abc", id="but for one that is too long"),
        pytest.param(b"0123456789abc\n", 10, "456789abc\n", id="that ends as a line does"),
        pytest.param(b"a\xff\xfeb", 10, "a��b", id="bytes that are no text"),
        pytest.param("x\nä".encode()[:-1], 10, "x\n�", id="half a character"),
        pytest.param(b"password=xyz uvw\n", 10, "d=*** uvw\n", id="half a secret"),
    ],
)
def test_a_tail_is_whole_lines_from_the_end(
    tmp_path: Path, content: bytes, size: int, shown: str
) -> None:
    log = tmp_path / "stdout"
    log.write_bytes(content)
    assert tail(log, size) == shown


def test_a_log_that_is_not_there_has_an_empty_tail(tmp_path: Path) -> None:
    assert tail(tmp_path / "stdout") == ""
    assert tail(tmp_path) == ""


@given(st.lists(st.integers(0, 300), max_size=200))
def test_a_tail_is_as_long_as_whole_lines_allow(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int]
) -> None:
    log = tmp_path_factory.getbasetemp() / "log"
    content = "".join("x" * length + "\n" for length in lengths)
    log.write_text(content)
    shown = tail(log)
    assert content.endswith(shown)
    assert len(shown) <= TAIL
    assert len(content) <= TAIL or len(shown) >= TAIL - 301


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        pytest.param(None, None, id="no time"),
        pytest.param(0.0, "1970-01-01T00:00:00.000Z", id="the epoch"),
        pytest.param(1_700_000_000.1239, "2023-11-14T22:13:20.123Z", id="to the millisecond"),
    ],
)
def test_times_are_iso_8601_in_utc(seconds: float | None, text: str | None) -> None:
    assert iso_utc(seconds) == text
