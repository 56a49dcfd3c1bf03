"""Which nodes run, why, in what order, and which are cached."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from seeknal_k8s.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from seeknal_k8s.attempt import Piece
    from seeknal_k8s.graph import Graph, Node
    from seeknal_k8s.options import Resolved

    Causes = dict[str, tuple["Reason", str]]


class Reason(StrEnum):
    """Why a node runs."""

    NEW = "new"
    CHANGED = "changed"
    UPSTREAM_CHANGED = "upstream changed"
    OUTPUT_MISSING = "output missing"
    FORCED = "forced"
    SELECTED = "selected"
    NEEDED = "needed"


@dataclass(frozen=True, slots=True)
class PastRun:
    """What ``run_state.json`` holds of a node's last run: Seeknal's status, hash, time and rows.

    ``digest`` is empty where Seeknal kept none, as after a failure.
    """

    status: str
    digest: str = ""
    seconds: float = 0.0
    rows: int = 0

    @property
    def succeeded(self) -> bool:
        """Whether the node's output, if it is still there, may be used."""
        return self.status == "success"


@dataclass(frozen=True, slots=True)
class NodeRun:
    """One node that will run: why (``because`` is a sentence), and what it asks for.

    ``waits_for`` are the keys of this plan's other runs that have to be accepted first.
    ``past_seconds`` is how long it took the last time, None when it has never succeeded.
    ``piece`` is the part of a backfill that it is, if it is one.
    """

    node: Node
    reason: Reason
    because: str
    options: Resolved
    waits_for: tuple[str, ...] = ()
    past_seconds: float | None = None
    piece: Piece | None = None

    @property
    def interval(self) -> str:
        """The interval, or the intervals, that it runs for; empty if it runs for none."""
        return self.piece.key if self.piece else ""

    @property
    def key(self) -> str:
        """What tells it from the plan's other runs: the node's id, or the interval."""
        return self.interval or self.node.id


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run will do: ``runs``, in an order that respects ``waits_for``, and what it leaves.

    ``cached`` are the nodes that do not run and are up to date, or of a selection not asked about.
    ``left_out`` are those that a selection or an exclusion passed over although they have no output
    or, of an exclusion, one that is out of date or will be.
    """

    graph: Graph
    runs: tuple[NodeRun, ...]
    cached: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def make(
    graph: Graph,
    *,
    state: Mapping[str, PastRun],
    missing: AbstractSet[str],
    refresh: AbstractSet[str],
    options: Mapping[str, Resolved],
    selected: AbstractSet[str] | None = None,
    within: AbstractSet[str] | None = None,
    full: bool = False,
) -> Plan:
    """Return what to run.

    Args:
        graph: the project.
        state: what is known of each node's last run, by id.
        missing: nodes whose last run succeeded and whose output is gone.
        refresh: sources whose data may change without their digest showing it.
        options: what each node asks for, by id.
        selected: run these, and what they cannot do without. None lets Seeknal's rules decide:
            what is new, changed, failed the last time, or reads such a node.
        within: let the rules decide about these alone; ignored where ``selected`` is given. What they
            cannot do without runs all the same.
        full: run every node.

    Raises:
        UsageError: ``full`` and ``selected`` together.
    """
    if full and selected is not None:
        raise UsageError("a full run runs every node: drop either --full or the selection")
    usable = {key for key, past in state.items() if past.succeeded} - missing
    among = graph.nodes.keys() if within is None else within
    passed_over: set[str] = set()
    if selected is not None:
        causes: Causes = dict.fromkeys(selected, (Reason.SELECTED, "it was selected"))
        _add_lacking(graph, causes, usable, state, among=frozenset())
    else:
        if full:
            causes = dict.fromkeys(among, (Reason.FORCED, "a full run was asked for"))
        else:
            causes = _outdated(graph, state, missing, among)
        if within is not None:  # of all nodes nothing is lacking, and none is passed over
            _add_lacking(graph, causes, usable, state, among=within)
            passed_over = _passed_over(graph, causes, state, missing)
        if not full:
            causes |= _refreshed(graph, causes, refresh & among)
    idle = [key for key in graph.nodes if key not in causes]
    cached = {key for key in idle if key in usable and key not in passed_over}
    return Plan(
        graph,
        runs=_runs(graph, causes, state, options),
        cached=tuple(key for key in idle if key in cached),
        left_out=tuple(key for key in idle if key not in cached),
    )


def _runs(
    graph: Graph,
    causes: Causes,
    state: Mapping[str, PastRun],
    options: Mapping[str, Resolved],
) -> tuple[NodeRun, ...]:
    return tuple(
        NodeRun(
            node=node,
            reason=causes[node.id][0],
            because=causes[node.id][1],
            options=options[node.id],
            waits_for=tuple(ref for ref in node.inputs if ref in causes),
            past_seconds=_past_seconds(state.get(node.id)),
        )
        for node in graph.nodes.values()
        if node.id in causes
    )


def critical_path(plan: Plan) -> dict[str, float]:
    """Return for each run the seconds from its start to the end of all that waits for it.

    A node that has never run counts as long as the median of those that have. Starting the
    largest first keeps the longest chain moving.
    """
    known = [run.past_seconds for run in plan.runs if run.past_seconds is not None]
    typical = statistics.median(known) if known else 1.0
    after = dict.fromkeys((run.key for run in plan.runs), 0.0)
    remaining: dict[str, float] = {}
    for run in reversed(plan.runs):
        own = typical if run.past_seconds is None else run.past_seconds
        remaining[run.key] = own + after[run.key]
        for ref in run.waits_for:
            after[ref] = max(after[ref], remaining[run.key])
    return remaining


def _past_seconds(past: PastRun | None) -> float | None:
    return past.seconds if past and past.succeeded else None


def _outdated(
    graph: Graph,
    state: Mapping[str, PastRun],
    missing: AbstractSet[str],
    among: AbstractSet[str],
) -> Causes:
    """Return what has to run by Seeknal's rules, and what lost its output; all of it ``among`` these."""
    causes: Causes = {}
    nearest: dict[str, tuple[int, str]] = {}  # how many steps upstream the cause is, and which
    for node in (node for key, node in graph.nodes.items() if key in among):
        own = _own_cause(node, state.get(node.id), is_missing=node.id in missing)
        upstream = min((nearest[ref] for ref in node.inputs if ref in nearest), default=None)
        if own:
            causes[node.id] = own
            nearest[node.id] = (0, node.id)
        elif upstream:
            steps, cause = upstream
            verb = "is new" if causes[cause][0] is Reason.NEW else "runs again"
            causes[node.id] = (Reason.UPSTREAM_CHANGED, f"{cause} {verb}")
            nearest[node.id] = (steps + 1, cause)
    return causes


def _own_cause(node: Node, past: PastRun | None, *, is_missing: bool) -> tuple[Reason, str] | None:
    """Return why a node runs whatever its inputs do, or None if it need not."""
    if past is None:
        return Reason.NEW, "it has never run"
    if not past.succeeded:
        ended = "failed" if past.status == "failed" else "did not finish"
        return Reason.CHANGED, f"it {ended} last time"
    if past.digest != node.digest:
        what = "its data" if node.kind == "source" else "its parameters"
        changed = f"its file or {what} changed" if past.digest else "whether it changed is unknown"
        return Reason.CHANGED, changed
    return (Reason.OUTPUT_MISSING, "its output is gone") if is_missing else None


def _refreshed(graph: Graph, running: Causes, refresh: AbstractSet[str]) -> Causes:
    """Return the sources to read again because what runs reads them.

    For transforms Seeknal goes two levels up, through transforms, whether those run or not. Other
    readers of such a source stay cached, as in ``seeknal run``.
    """
    causes: Causes = {}
    for reader in running:
        node = graph.nodes[reader]
        read = list(node.inputs)
        if node.kind == "transform":
            transforms = (graph.nodes[ref] for ref in node.inputs)
            read += [ref for t in transforms if t.kind == "transform" for ref in t.inputs]
        for ref in read:
            if ref in refresh and ref not in running:
                because = f"{reader} reads it, and its data may have changed"
                causes.setdefault(ref, (Reason.NEEDED, because))
    return causes


def _passed_over(
    graph: Graph, running: Causes, state: Mapping[str, PastRun], missing: AbstractSet[str]
) -> set[str]:
    """Return what is out of date and does not run, or reads what is so or what runs."""
    found: set[str] = set()
    for node in graph.nodes.values():
        reads = any(ref in running or ref in found for ref in node.inputs)
        own = _own_cause(node, state.get(node.id), is_missing=node.id in missing)
        if node.id not in running and (reads or own):
            found.add(node.id)
    return found


def _add_lacking(
    graph: Graph,
    causes: Causes,
    usable: AbstractSet[str],
    state: Mapping[str, PastRun],
    among: AbstractSet[str],
) -> None:
    """Add what the others cannot do without and, of those ``among``, what reads it in its turn."""
    while new := _lacking(graph, causes, usable, state):
        for node in graph.nodes.values():
            if node.id in among and node.id not in causes and node.id not in new:
                read = [ref for ref in node.inputs if ref in new]
                if read:
                    new[node.id] = (Reason.UPSTREAM_CHANGED, f"{read[0]} runs again")
        causes |= new


def _lacking(
    graph: Graph, running: Causes, usable: AbstractSet[str], state: Mapping[str, PastRun]
) -> Causes:
    """Return what has to run because what runs reads it, and it has no output that could be used."""
    causes: Causes = {}
    for node in reversed(graph.nodes.values()):
        if node.id in running or node.id in causes:
            for ref in node.inputs:
                if ref not in usable and ref not in running and ref not in causes:
                    gone = ref in state and state[ref].succeeded
                    lacks = "its output is gone" if gone else "it has never succeeded"
                    causes[ref] = (Reason.NEEDED, f"{node.id} reads it, and {lacks}")
    return causes
