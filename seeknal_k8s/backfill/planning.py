"""What is left to do of a backfill: intervals against the ledger, cut into pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seeknal_k8s import intervals as clock
from seeknal_k8s.attempt import Link, Piece, Span
from seeknal_k8s.backfill.scope import dates_of
from seeknal_k8s.backfill.targets import Policy, policy, refuse_going_back
from seeknal_k8s.errors import Problem, ProjectRefused, UsageError
from seeknal_k8s.plan import NodeRun, Plan, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seeknal_k8s.backfill.ledger import Record
    from seeknal_k8s.backfill.request import BackfillRequest
    from seeknal_k8s.backfill.scope import Scope
    from seeknal_k8s.intervals import Interval
    from seeknal_k8s.options import Resolved


_MOST_INDEXES = 100_000
"""With more completions Kubernetes wants a Job to bear fewer failures than a backfill may have."""


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """What a backfill will do.

    ``intervals`` are all that were asked for, ``todo`` those that will run, ``done`` the finished ones
    among them, ``changed`` those of the finished that ran with other logic and stay as they are;
    ``superseded`` are records in the ledger that will be replaced by intervals that cover them;
    ``indexed`` is whether the first attempts are the indexes of one Job.
    """

    scope: Scope
    intervals: tuple[Interval, ...]
    todo: tuple[Interval, ...]
    done: tuple[str, ...]
    changed: tuple[str, ...]
    superseded: tuple[Record, ...]
    policy: Policy
    indexed: bool
    warnings: tuple[Problem, ...] = ()


def make(
    scope: Scope, request: BackfillRequest, done: Mapping[str, Record], run_id: str = ""
) -> BackfillPlan:
    """Return what to do; what this very run has done already, before a crash, counts as done.

    Raises:
        UsageError: the range makes no sense.
        ProjectRefused: the node does not use the interval, or rows would be lost.
    """
    if request.indexed and request.on != "kubernetes":
        raise UsageError(
            "an Indexed Job is for Kubernetes: --indexed goes with --on kubernetes or --submit"
        )
    wanted = request.intervals()
    _refuse_independent(scope, request)
    dates_of(wanted[0], scope.upper)
    dates_of(wanted[-1], scope.upper)
    todo: list[Interval] = []
    changed: list[Interval] = []
    kept: list[str] = []
    for interval in wanted:
        record = done.get(interval.key)
        if record is None or record.partial:
            todo.append(interval)
        elif record.logic != scope.logic:
            again = request.rerun_changed or request.restate
            (todo if again else changed).append(interval)
        elif request.restate and record.run != run_id:
            todo.append(interval)
        else:
            kept.append(interval.key)
    how = policy(scope)
    indexed = _indexed(request, len(wanted), how)
    superseded = _superseded(wanted, todo, done, restate=request.restate)
    if how.ascending:
        refuse_going_back(scope, todo, done)
    return BackfillPlan(
        scope,
        tuple(wanted),
        tuple(todo),
        tuple(kept),
        tuple(interval.key for interval in changed),
        superseded,
        how,
        indexed,
        tuple(_warnings(scope, request, wanted, todo, len(changed))),
    )


def _indexed(request: BackfillRequest, intervals: int, how: Policy) -> bool:
    """Return whether the first attempts are the indexes of one Job.

    Raises:
        UsageError: they are to be, and their target does not allow it.
    """
    if how.serial and request.indexed:
        raise UsageError(
            "its target wants one interval at a time, which the indexes of a Job do not promise\n"
            "  → leave --indexed out"
        )
    if request.on != "kubernetes" or request.indexed is False or how.serial:
        return False
    return -(-intervals // request.chunk) <= _MOST_INDEXES


def _refuse_independent(scope: Scope, request: BackfillRequest) -> None:
    if scope.depends or request.anyway:
        return
    node = scope.node
    what = "it does not use the interval: every interval would give the same rows"
    fix = "use {{ start_date }} and {{ end_date }} in it, or run it all the same: --anyway"
    raise ProjectRefused([Problem(what, fix, node.file, node.id)])


def _superseded(
    wanted: Sequence[Interval],
    todo: Sequence[Interval],
    done: Mapping[str, Record],
    *,
    restate: bool,
) -> tuple[Record, ...]:
    """Return the records that the intervals to run overlap, and are not the same.

    Raises:
        ProjectRefused: they are of another schedule, and nobody has said to replace them.
    """
    keys = {interval.key for interval in wanted}
    others = sorted(
        (record for record in done.values() if record.key not in keys),
        key=lambda record: record.interval.start.timestamp(),
    )
    found: list[Record] = []
    at = 0
    for interval in todo:
        start, end = interval.start.timestamp(), interval.end.timestamp()
        while at < len(others) and others[at].interval.end.timestamp() <= start:
            at += 1
        for record in others[at:]:
            if record.interval.start.timestamp() >= end:
                break
            if not found or found[-1] != record:
                found.append(record)
    if foreign := [record.key for record in found if not (record.partial or restate)]:
        what = (
            f"{len(foreign)} finished intervals of another schedule overlap, such as {foreign[0]}"
        )
        fix = "take the same schedule and time zone, or replace them: --restate"
        raise ProjectRefused([Problem(what, fix)])
    return tuple(found)


def _warnings(
    scope: Scope,
    request: BackfillRequest,
    wanted: list[Interval],
    todo: list[Interval],
    changed: int,
) -> list[Problem]:
    found = list(scope.warnings)
    if request.start is not None:
        before = clock.left_out(wanted, request.start, request.timezone)
        if before:
            fix = "start at a boundary of the schedule"
            found.append(Problem(f"{before} is left out: no interval begins there", fix))
    if todo and todo[-1].partial and not request.accept_partial:
        what = f"{wanted[-1].key} is cut short by the end, and will run again when it is whole"
        found.append(Problem(what))
    if changed:
        what = f"{changed:,} finished intervals ran with other logic, and stay as they are"
        found.append(Problem(what, "run them again: --rerun-changed"))
    return found


def execution(plan: BackfillPlan, request: BackfillRequest) -> Plan:
    """Return the plan that the runner carries out: one run for each piece, oldest first."""
    scope = plan.scope
    options = _options(scope)
    links = tuple(_link(scope, node.id) for node in scope.chain)
    runs: list[NodeRun] = []
    todo = {each.key for each in plan.todo}
    for at in range(0, len(plan.intervals), request.chunk):
        # Cut where a backfill that has done nothing yet would: then a second try finds its Jobs.
        several = plan.intervals[at : at + request.chunk]
        spans = tuple(
            Span(each.key, tuple(dates_of(each, scope.upper).items()))
            for each in several
            if each.key in todo
        )
        if not spans:
            continue
        first, last = several[0].key.partition("/")[0], several[-1].key.partition("/")[2]
        before = (runs[-1].key,) if plan.policy.ascending and runs else ()
        runs.append(
            NodeRun(
                scope.node,
                Reason.SELECTED,
                "it is to be backfilled",
                options,
                waits_for=before,
                piece=Piece(f"{first}/{last}", links, spans, scope.shared),
            )
        )
    return Plan(scope.graph, tuple(runs), cached=())


def _options(scope: Scope) -> Resolved:
    """Return the node's options, with the memory of the chain's most needy node."""
    own = scope.options[scope.node.id]
    most = max((scope.options[node.id] for node in scope.chain), key=lambda one: one.memory_bytes)
    if most.memory_bytes <= own.memory_bytes or most.is_default("memory"):
        return own
    return own.with_memory(most.memory_bytes, most.origins["memory"])


def _link(scope: Scope, node_id: str) -> Link:
    node, options = scope.graph.nodes[node_id], scope.options[node_id]
    return Link(
        node_id,
        inputs=node.inputs,
        undeclared=node.undeclared,
        timeout=options.timeout_seconds,
        env=tuple(sorted(options.options.env.items())),
        allow_failed_materialization=options.options.allow_failed_materialization,
    )
