"""What a node writes outside the store, and how intervals may write there without losing rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seeknal_k8s.errors import Problem, ProjectRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seeknal_k8s.backfill.ledger import Record
    from seeknal_k8s.backfill.scope import Scope
    from seeknal_k8s.intervals import Interval

_REPLACES = "every interval would replace the whole table, and only the last would be left"
_DOUBLES = "an interval that is tried again would add its rows a second time"
_REFUSED = {
    "full": (_REPLACES, "mode: upsert_by_key, with unique_keys"),
    "overwrite": (_REPLACES, "mode: insert_overwrite, with partition_by, or mode: upsert"),
    "append": (_DOUBLES, "mode: upsert, with unique_keys"),
}
_ONE_AT_A_TIME = frozenset({"upsert_by_key", "upsert", "insert_overwrite"})
_ASCENDING = "incremental_by_time"


@dataclass(frozen=True, slots=True)
class Policy:
    """How intervals may run: ``serial`` one at a time, ``ascending`` each only after the one before."""

    serial: bool = False
    ascending: bool = False


def policy(scope: Scope) -> Policy:
    """Return how the intervals of a backfill may run.

    Raises:
        ProjectRefused: rows would be lost, or doubled.
    """
    problems = [problem for node in scope.chain if (problem := _feature_group(scope, node.id))]
    modes = set()
    for node_id, targets in scope.targets.items():
        for target in targets:
            modes.add(target["mode"])
            known = target["mode"] in _ONE_AT_A_TIME or target["mode"] == _ASCENDING
            if not known:
                why, fix = _REFUSED.get(
                    target["mode"], ("nobody knows what that does", "take upsert_by_key")
                )
                problems.append(
                    Problem(
                        f"it is written to {target['table']} with mode {target['mode']}: {why}",
                        fix,
                        scope.graph.nodes[node_id].file,
                        node_id,
                        "materialization.mode",
                    )
                )
    if problems:
        raise ProjectRefused(problems)
    return Policy(serial=bool(modes), ascending=_ASCENDING in modes)


def _feature_group(scope: Scope, node_id: str) -> Problem | None:
    node = scope.graph.nodes[node_id]
    if node.kind != "feature_group":
        return None
    return Problem(
        "a feature group's offline store keeps what was written last: one interval",
        "backfill the node that it reads, and run the feature group once, over all of it",
        node.file,
        node.id,
    )


def refuse_going_back(scope: Scope, todo: Sequence[Interval], done: Mapping[str, Record]) -> None:
    """Refuse intervals older than some that are done, where the target then loses the newer ones.

    Raises:
        ProjectRefused: there is one.
    """
    if not todo:
        return
    again = {interval.key for interval in todo}
    first = todo[0].start.timestamp()
    newer = [
        record.key
        for record in done.values()
        if record.key not in again and record.interval.start.timestamp() > first
    ]
    if newer:
        what = (
            f"writing {todo[0].key} by incremental_by_time deletes every later row, "
            f"and {len(newer)} later intervals are done: {newer[0]} … {newer[-1]}"
        )
        fix = f"run those again too: --restate, from {todo[0].key.partition('/')[0]} to the last"
        raise ProjectRefused([Problem(what, fix, scope.node.file, scope.node.id)])
