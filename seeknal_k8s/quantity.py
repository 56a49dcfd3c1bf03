"""Quantities as Kubernetes writes them, and durations: text to numbers and back.

The grammar is that of https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
without a sign: digits with an optional fraction, then a binary unit (``Ki`` to ``Ei``), a decimal
one (``n`` to ``E``) or an exponent (``1e9``).
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

QUANTITY_PATTERN = r"^([0-9]+\.?[0-9]*|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?$"
DURATION_PATTERN = (
    r"^(?:([0-9]+(?:\.[0-9]+)?)|(?=[0-9])(?:([0-9]+(?:\.[0-9]+)?)h)?"
    r"(?:([0-9]+(?:\.[0-9]+)?)m)?(?:([0-9]+(?:\.[0-9]+)?)s)?)$"
)

_BINARY = {unit: Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)}
_DECIMAL = {unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", start=1)}
_SCALES = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **_DECIMAL,
    **{f"{unit}i": scale for unit, scale in _BINARY.items()},
}
# From the largest unit to the smallest, binary before decimal: the order in which text is preferred.
_MEMORY_UNITS = [(f"{unit}i", int(scale)) for unit, scale in reversed(_BINARY.items())] + [
    (unit, int(scale)) for unit, scale in reversed(_DECIMAL.items())
]

_LARGEST = 2**63 - 1  # the API server keeps quantities in a signed 64-bit integer
_LONGEST = 2**31 - 1  # seconds; about 68 years
_CPU_HINT = "write a number of cores, such as 2, 0.5 or 500m"
_MEMORY_HINT = "write bytes with a unit, such as 4Gi, 512Mi or 500M"
_DURATION_HINT = "write seconds or hours, minutes and seconds, such as 90, 30s, 10m or 1h30m"


def parse_cpu(value: object) -> float:
    """Return a CPU quantity (``2``, ``0.5``, ``500m``) in cores.

    Raises:
        ValueError: it is not a positive quantity, or finer than the 1m that Kubernetes accepts.

    """
    cores = _amount(value, _CPU_HINT)
    if cores * 1000 % 1:
        raise ValueError(f"{value!r} is finer than 1m, the thousandth of a core; {_CPU_HINT}")
    return float(cores)


def parse_memory(value: object) -> int:
    """Return a quantity of memory or disk (``1.5Gi``, ``500M``, ``1e9``) in bytes, rounded up.

    Raises:
        ValueError: it is not a positive quantity, or less than one byte.

    """
    size = _amount(value, _MEMORY_HINT)
    if size < 1:
        raise ValueError(f"{value!r} is less than one byte, m being thousandths; {_MEMORY_HINT}")
    return int(size.to_integral_value(ROUND_CEILING))


def parse_duration(value: object) -> float:
    """Return a duration (``90``, ``30s``, ``10m``, ``1h30m``) in seconds.

    Raises:
        ValueError: it is not a positive duration, or longer than 2,147,483,647 seconds.

    """
    match = re.fullmatch(DURATION_PATTERN, _text(value, _DURATION_HINT))
    if match is None:
        raise ValueError(f"{value!r} is not a duration; {_DURATION_HINT}")
    plain, hours, minutes, seconds = map(Decimal, match.groups(default="0"))
    total = float(plain + hours * 3600 + minutes * 60 + seconds)
    if not 0 < total <= _LONGEST:
        raise ValueError(f"{value!r} is {'too long' if total else 'zero'}; {_DURATION_HINT}")
    return total


def format_cpu(cores: float) -> str:
    """Return cores as people write them: ``500m`` below one, else ``2`` or ``1.25``.

    What is finer than 1m is rounded to it.
    """
    whole, thousandths = divmod(round(cores * 1000), 1000)
    return _plain(whole + Decimal(thousandths) / 1000) if whole else f"{thousandths}m"


def format_memory(size: int) -> str:
    """Return bytes in the unit that says them exactly and shortest: ``1.5Gi``, ``500M``, ``1001``."""
    exact = [
        _plain(Decimal(size * 100 // scale) / 100) + unit
        for unit, scale in _MEMORY_UNITS
        if size >= scale and size * 100 % scale == 0
    ]
    return min([*exact, str(size)], key=len)


def format_duration(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds without the zeros: ``1h30m``, ``10s``, ``0.5s``."""
    minutes, rest = divmod(Decimal(repr(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (rest, "s"))
    return "".join(_plain(amount) + unit for amount, unit in parts if amount) or "0s"


def _amount(value: object, hint: str) -> Decimal:
    match = re.fullmatch(QUANTITY_PATTERN, _text(value, hint))
    if match is None:
        raise ValueError(f"{value!r} is not a quantity; {hint}")
    number, unit = match.groups(default="")
    amount = Decimal(number) * (_SCALES.get(unit) or Decimal(f"1{unit}"))
    if not 0 < amount <= _LARGEST:
        raise ValueError(f"{value!r} is {'too large' if amount else 'zero'}; {hint}")
    return amount


def _text(value: object, hint: str) -> str:
    # True and False are integers to Python, but nobody means one core by `cpu: yes`.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is neither a number nor a text; {hint}")  # noqa: TRY004 - what pydantic turns into a problem
    text = value if isinstance(value, str) else f"{Decimal(repr(value)):f}"
    if not text:
        raise ValueError(f"it is empty; {hint}")
    if text.startswith("-"):
        raise ValueError(f"{value!r} is negative; {hint}")
    return text


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
