"""The ends of logs, fit to be shown: decoded, bounded, and without passwords."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TAIL = 10_000
"""How many bytes of a log a result carries."""

_SECRETS = re.compile(
    r"""(?ix)
    (?P<key> \b[\w-]*(?:password|passwd|pwd|secret|token|api[_-]?key|credential)[\w-]*
      ['"]? \s* [=:] \s* ['"]? )
    (?P<value> [^\s'",;&})]+ )
    | (?P<url> \b[a-z][a-z0-9+.-]* :// [^\s:/@]+ : ) [^\s@/]+ (?=@)
    """
)


def redact(text: str) -> str:
    """Return the text with what looks like a password, a token or a key replaced by ``***``."""
    return _SECRETS.sub(lambda match: f"{match['key'] or match['url']}***", text)


def tail(file: Path, size: int = TAIL) -> str:
    """Return the last ``size`` bytes of a log as text, from a whole line on; empty if there is none.

    Bytes that are no UTF-8 become replacement characters; secrets are redacted.
    """
    try:
        with file.open("rb") as stream:
            length = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, length - size))
            data = stream.read()
    except OSError:
        return ""
    if length > size and b"\n" in data:
        data = data.split(b"\n", 1)[1]
    return redact(data.decode(errors="replace"))


def iso_utc(seconds: float | None) -> str | None:
    """Return Unix time as ISO 8601 in UTC, to the millisecond."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
