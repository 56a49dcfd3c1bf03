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
    (?P<key>
      (?: password | passwd | pwd | secret (?!ar) | token (?!s|iz) | api[_-]?key | credential )
      [\w-]{0,40}                               # bounded, as all repeats here: no log may hang us
      (?: (?: \\?['"] )? \s{0,8} [=:] (?![=:]) \s{0,8}
        | (?-i: (?<=SECRET) | (?<=PASSWORD) | (?<=TOKEN) ) \s{1,8} (?=') )   # CREATE SECRET … in SQL
    | -- [\w-]{0,40}? (?: password | secret | token | api-key ) [\w-]{0,40} \s{1,8} (?!-)
    | \b authorization ['"]? \s{0,8} [=:] \s{0,8} ['"]? (?: (?:basic|bearer) \s{1,8} )?
    )
    (?: (?P<quote> \\?['"] ) (?: (?P=quote){2} | (?!(?P=quote)) (?: \\. | . ) )+   # to the same quote again
      | [^\s'",;&})\\]+ )
    | (?P<url> :// [^\s:/@]* : ) [^\s/]+ (?=@)
    """
)


def redact(text: str) -> str:
    """Return the text with what looks like a password, a token or a key replaced by ``***``."""
    return _SECRETS.sub(_masked, text)


def _masked(found: re.Match[str]) -> str:
    return f"{found['key'] or found['url']}{found['quote'] or ''}***"


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
    if length > size and b"\n" in data[:-1]:
        data = data.split(b"\n", 1)[1]
    return redact(data.decode(errors="replace"))


def iso_utc(seconds: float | None) -> str | None:
    """Return Unix time as ISO 8601 in UTC, to the millisecond."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
