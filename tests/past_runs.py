"""Runs as a store has them, written by hand: for commands that only look at them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from seeknal_k8s.attempt import Ending
    from seeknal_k8s.store import RunFolder, Store

NODES = ("source.orders", "transform.clean", "transform.daily", "rule.clean")


def a_run(
    store: Store, run_id: str, *, status: str = "running", day: int = 1, **facts: Any
) -> RunFolder:
    """Make a run of these nodes that began on that day; ``facts`` are noted besides."""
    folder = store.new_run(run_id)
    folder.note(
        id=run_id,
        project=str(store.root.parent),
        status=status,
        started=f"2025-01-{day:02}T10:00:00.000Z",
        ended=None if status == "running" else f"2025-01-{day:02}T10:00:02.000Z",
        plan=list(NODES),
        nodes={node: folder.bundle(node).name for node in NODES},
        **facts,
    )
    return folder


def an_attempt(
    folder: RunFolder, node: str, number: int = 1, *, ending: Ending | None = None
) -> Path:
    """Make an attempt at a node of it, with a log that is no text, and how it ended, if it has."""
    place = folder.bundle(node) / str(number)
    place.mkdir(parents=True)
    (place / "stdout").write_bytes(b"out %d \xff\x00\n" % number)
    (place / "stderr").write_bytes(b"err %d\n" % number)
    if ending is not None:
        (place / "result.json").write_text(json.dumps(asdict(ending)), encoding="utf-8")
    return place
