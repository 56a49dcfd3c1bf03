"""Quantities and durations: what is accepted, what is refused and why, and how they are shown."""

import re
from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal_k8s.quantity import (
    DURATION_PATTERN,
    QUANTITY_PATTERN,
    format_cpu,
    format_duration,
    format_memory,
    parse_cpu,
    parse_duration,
    parse_memory,
)


@pytest.mark.parametrize(
    ("written", "cores"),
    [
        pytest.param("500m", 0.5, id="thousandths of a core"),
        pytest.param("1.5", 1.5, id="a fraction"),
        pytest.param(".5", 0.5, id="a fraction without a leading zero"),
        pytest.param("2.", 2.0, id="a point without a fraction"),
        pytest.param(2, 2.0, id="an integer, as YAML gives it"),
        pytest.param(0.25, 0.25, id="a float, as YAML gives it"),
        pytest.param("1e1", 10.0, id="an exponent"),
        pytest.param("1000u", 0.001, id="millionths that make a whole 1m"),
    ],
)
def test_cpu_is_read_as_cores(written: object, cores: float) -> None:
    assert parse_cpu(written) == cores


@pytest.mark.parametrize(
    ("written", "size"),
    [
        pytest.param("1.5Gi", 3 * 2**29, id="a fraction of a binary unit"),
        pytest.param("512Ki", 2**19, id="kibibytes"),
        pytest.param("500M", 500_000_000, id="megabytes"),
        pytest.param("1k", 1000, id="kilobytes, which have a small k"),
        pytest.param("128974848", 128_974_848, id="bytes as text"),
        pytest.param(128_974_848, 128_974_848, id="bytes as a number"),
        pytest.param("1e9", 10**9, id="an exponent"),
        pytest.param("1E3", 1000, id="an exponent with a capital E"),
        pytest.param("1E", 10**18, id="E alone is exabytes"),
        pytest.param("1.1", 2, id="a part of a byte is rounded up, as Kubernetes does"),
        pytest.param("2000m", 2, id="thousandths of a byte, which Kubernetes itself may print"),
        pytest.param("9223372036854775807", 2**63 - 1, id="the largest there is"),
    ],
)
def test_memory_is_read_as_bytes(written: object, size: int) -> None:
    assert parse_memory(written) == size


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        pytest.param("90", 90.0, id="a plain number is seconds"),
        pytest.param(90, 90.0, id="an integer is seconds"),
        pytest.param(0.5, 0.5, id="a float is seconds"),
        pytest.param("30s", 30.0, id="seconds"),
        pytest.param("10m", 600.0, id="minutes"),
        pytest.param("2h", 7200.0, id="hours"),
        pytest.param("1h30m", 5400.0, id="hours and minutes"),
        pytest.param("1h5s", 3605.0, id="a unit may be left out in the middle"),
        pytest.param("1.5h", 5400.0, id="a fraction"),
    ],
)
def test_a_duration_is_read_as_seconds(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds


REFUSED_BY_ALL = [
    pytest.param("", "empty", id="empty"),
    pytest.param("-1", "negative", id="negative text"),
    pytest.param(-0.5, "negative", id="a negative number"),
    pytest.param("0", "zero", id="zero"),
    pytest.param(0, "zero", id="zero as a number"),
    pytest.param(float("nan"), "is not a", id="not a number"),
    pytest.param("nan", "is not a", id="not a number, as text"),
    pytest.param(float("inf"), "is not a", id="infinity"),
    pytest.param(True, "neither", id="a boolean, although Python counts it as an integer"),
    pytest.param(None, "neither", id="nothing"),
    pytest.param([1], "neither", id="a list"),
    pytest.param(" 1", "is not a", id="a space in front"),
    pytest.param("1\n", "is not a", id="a line break behind"),
    pytest.param("\u0661", "is not a", id="a digit of another script"),
    pytest.param("9" * 30, "too l", id="more than Kubernetes can keep"),
    pytest.param(1e300, "too l", id="a number without measure"),
]


@pytest.mark.parametrize(
    ("parse", "example"),
    [
        pytest.param(parse_cpu, "500m", id="cpu"),
        pytest.param(parse_memory, "512Mi", id="memory"),
        pytest.param(parse_duration, "1h30m", id="duration"),
    ],
)
@pytest.mark.parametrize(("written", "reason"), REFUSED_BY_ALL)
def test_what_is_refused_is_named_with_an_example(
    parse: Callable[[object], float], example: str, written: object, reason: str
) -> None:
    with pytest.raises(ValueError, match=rf"{reason}.*{example}"):
        parse(written)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        pytest.param("0.0005", "finer than 1m", id="half of the thousandth of a core"),
        pytest.param("1n", "finer than 1m", id="a billionth of a core"),
        pytest.param("2 cores", "not a quantity", id="a word for the unit"),
    ],
)
def test_cpu_that_kubernetes_would_refuse_is_refused(written: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_cpu(written)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        pytest.param("512m", "less than one byte", id="m for mebibytes"),
        pytest.param("2GB", "not a quantity", id="GB, which Kubernetes spells G"),
        pytest.param("2gi", "not a quantity", id="units in small letters"),
        pytest.param("1K", "not a quantity", id="a capital K for kilobytes"),
        pytest.param("1e99", "too large", id="an exponent out of this world"),
    ],
)
def test_memory_that_kubernetes_would_refuse_is_refused(written: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_memory(written)


@pytest.mark.parametrize("written", ["h", "1m1h", "1:30", "1d", "1e3", "5 m"])
def test_what_is_no_duration_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("cores", "shown"),
    [(0.5, "500m"), (0.001, "1m"), (1, "1"), (1.25, "1.25"), (0.9999, "1"), (100, "100")],
)
def test_cores_are_shown_as_people_write_them(cores: float, shown: str) -> None:
    assert format_cpu(cores) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        pytest.param(3 * 2**29, "1.5Gi", id="the largest binary unit that says it exactly"),
        pytest.param(2**29, "512Mi", id="not a fraction below one"),
        pytest.param(500_000_000, "500M", id="a decimal unit where a binary one would be long"),
        pytest.param(128_974_848, "123Mi", id="a unit hidden in plain bytes"),
        pytest.param(1001, "1001", id="plain bytes where no unit is exact"),
        pytest.param(10 * 2**30, "10Gi", id="no zero is lost from a whole number"),
    ],
)
def test_bytes_are_shown_in_the_shortest_exact_unit(size: int, shown: str) -> None:
    assert format_memory(size) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(10.0, "10s"), (90.0, "1m30s"), (5400.0, "1h30m"), (3600.5, "1h0.5s"), (0.0, "0s")],
)
def test_seconds_are_shown_as_hours_minutes_and_seconds(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


@given(st.integers(1, 10**7))
def test_cores_survive_being_shown_and_read(thousandths: int) -> None:
    cores = thousandths / 1000
    assert parse_cpu(format_cpu(cores)) == cores


@given(
    st.integers(1, 2**63 - 1)
    | st.builds(lambda count, power: count * 1024**power, st.integers(1, 1023), st.integers(0, 5))
)
def test_bytes_survive_being_shown_and_read(size: int) -> None:
    shown = format_memory(size)
    assert parse_memory(shown) == size
    assert len(shown) <= len(str(size))


@given(st.floats(1e-9, 2**31 - 1))
def test_seconds_survive_being_shown_and_read(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(
    number=st.decimals(Decimal("0.01"), 1000, places=2),
    unit=st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e2", "E-1"]),
)
def test_a_smaller_number_of_the_same_unit_is_never_more(number: Decimal, unit: str) -> None:
    try:
        less, more = parse_memory(f"{number}{unit}"), parse_memory(f"{number + 1}{unit}")
    except ValueError:
        return  # less than a byte
    assert less <= more


def said_of(parse: Callable[[object], float], text: str) -> str:
    try:
        parse(text)
    except ValueError as error:
        said = re.search("is (not|zero|too large|too long|less than)", str(error))
        return said[0] if said else str(error)
    return "accepted"


@given(st.from_regex(QUANTITY_PATTERN, fullmatch=True))
def test_whatever_has_the_form_of_a_quantity_is_one_or_zero_or_out_of_range(text: str) -> None:
    assert said_of(parse_memory, text) in {"accepted", "is zero", "is too large", "is less than"}


@given(st.from_regex(DURATION_PATTERN, fullmatch=True))
def test_whatever_has_the_form_of_a_duration_is_one_or_zero_or_too_long(text: str) -> None:
    assert said_of(parse_duration, text) in {"accepted", "is zero", "is too long"}
