"""Names: pure functions, so that the same attempt always has the same name."""

from __future__ import annotations

import hashlib
import re

_DIGEST = 8
_JOB_DIGEST = 10
_SLUG = 40

# The grammars of https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and of
# the page on labels beside it; for `re.fullmatch`, since `$` alone lets a line break pass.
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DOTTED_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
LABEL_KEY_PATTERN = (
    r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"


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


def job_name(run_id: str, node_id: str, *, attempt: int, interval: str = "") -> str:
    """Return the name of the Job of one attempt: a readable slug, a digest and the number.

    The name is a function of its arguments, so creating the same attempt twice meets a 409. It has
    at most 57 characters up to attempt 99,999: Kubernetes allows 63, but cuts the name to 58 where
    it becomes that of a pod (``<job>-x7k2p``), and the number would be lost.
    """
    return f"{slug(node_id)}-{digest(run_id, node_id, interval, length=_JOB_DIGEST)}-{attempt}"


def anchor_name(run_id: str) -> str:
    """Return the name of the ConfigMap that owns all Jobs of a run, at most 61 characters."""
    return f"seeknal-run-{slug(run_id)}-{digest(run_id)}"


def label_value(text: str) -> str:
    """Return ``text`` itself where Kubernetes takes it as a label's value, else slug and digest.

    So ``kubectl get jobs -l seeknal.io/node=transform.orders`` finds what it says.
    """
    return (
        text if text and re.fullmatch(LABEL_VALUE_PATTERN, text) else f"{slug(text)}-{digest(text)}"
    )


def file_id(node_id: str) -> str:
    """Return the node id as Seeknal spells it in file names: dots become underscores."""
    return node_id.replace(".", "_")


def folded(node_id: str) -> str:
    """Return what two ids have in common when Seeknal's files or views cannot tell them apart.

    ``a.b`` and ``a_b`` share a file in ``target/intermediate``; DuckDB's identifiers, and the
    file systems of two of three laptops, ignore case.
    """
    return file_id(node_id).casefold()
