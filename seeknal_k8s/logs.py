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

_CONTEXT = 200
"""How many bytes before a tail are read too, lest its beginning be the end of a password."""

_SECRETS = re.compile(
    r"""(?ix)
    (?P<key>
      (?: password | passwd | pwd | secret (?!ar) | token (?!s|iz) | passphrase | credential
        | (?: api | access | private | account | encryption | signing | shared ) [_-]? key )
      [\w-]{0,40}                               # bounded, as all repeats here: no log may hang us
      (?: (?: \\?['"] )? [ \t]{0,8} [=:] (?![=:]) [ \t]{0,8}
        | (?-i: (?<=SECRET) | (?<=PASSWORD) | (?<=TOKEN) ) [ \t]{1,8} (?=') )   # CREATE SECRET … in SQL
    | -- [\w-]{0,40}? (?: password | secret | token | api-key ) [\w-]{0,40} [ \t]{1,8} (?!-)
    | \b authorization ['"]? [ \t]{0,8} [=:] [ \t]{0,8} ['"]? (?: (?:basic|bearer) [ \t]{1,8} )?
    )
    (?: (?P<quote> \\?['"] ) (?: (?P=quote){2} | (?!(?P=quote)) (?: \\. | . ) )+   # to the same quote again
      | [^\s'",;&})\\]+ )
    | (?P<url> :// (?: [^\s:/@]* : )? ) [^\s/]+ (?=@)
    """
)


def redact(text: str) -> str:
    """Return the text with what looks like a password, a token or a key replaced by ``***``."""
    return _SECRETS.sub(_masked, text)


def _masked(found: re.Match[str]) -> str:
    return f"{found['key'] or found['url']}{found['quote'] or ''}***"


def tail(file: Path, size: int = TAIL) -> str:
    """Return the last ``size`` bytes of a log as text, from a whole line on; empty if there is none.

    Bytes that are no UTF-8 become replacement characters; secrets are redacted. A line that is
    longer than ``size`` is cut all the same.
    """
    try:
        with file.open("rb") as stream:
            length = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, length - size - _CONTEXT))
            data = stream.read()
    except OSError:
        return ""
    text = redact(data.decode(errors="replace")).encode()
    shown = text[-size:]
    if b"\n" in shown[:-1] and (len(data) < length or len(shown) < len(text)):
        shown = shown.split(b"\n", 1)[1]
    return shown.decode(errors="replace")


def iso_utc(seconds: float | None) -> str | None:
    """Return Unix time as ISO 8601 in UTC, to the millisecond."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
