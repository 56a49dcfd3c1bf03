"""Names: pure functions, so that the same attempt always has the same name."""

from __future__ import annotations

import hashlib
import re

_DIGEST = 8
_SLUG = 40


def digest(*parts: str, length: int = _DIGEST) -> str:
    """Return the first ``length`` hex digits of a SHA-256 over the parts, kept apart by NUL."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:length]


def slug(text: str) -> str:
    """Return ``text`` in lower case with every run of other characters as one dash.

    The result matches ``[a-z0-9]([a-z0-9-]*[a-z0-9])?`` and has at most 40 characters; text
    without a single ASCII letter or digit gives ``"node"``.
    """
    readable = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return readable[:_SLUG].rstrip("-") or "node"


def bundle_name(node_id: str, interval: str = "") -> str:
    """Return the folder name of what one Job runs: a readable slug and a digest.

    The digest keeps names apart that differ only in case, dots or non-ASCII characters.
    """
    return f"{slug(node_id)}-{digest(node_id, interval)}"


def file_id(node_id: str) -> str:
    """Return the node id as Seeknal spells it in file names: dots become underscores."""
    return node_id.replace(".", "_")


def folded(node_id: str) -> str:
    """Return what two ids have in common when Seeknal's files or views cannot tell them apart.

    ``a.b`` and ``a_b`` share a file in ``target/intermediate``; DuckDB's identifiers, and the
    file systems of two of three laptops, ignore case.
    """
    return file_id(node_id).casefold()
