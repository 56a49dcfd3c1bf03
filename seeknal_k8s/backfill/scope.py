"""Which nodes a backfill runs for each interval, and which run once, for all of them.

The project is read for two invented intervals. What is different then depends on the interval.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal_k8s import graph as graphs
from seeknal_k8s.drafting import draft
from seeknal_k8s.errors import Problem, ProjectRefused
from seeknal_k8s.names import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from seeknal_k8s.backfill.request import BackfillRequest, Upper
    from seeknal_k8s.engine_client import EngineClient
    from seeknal_k8s.graph import Graph, Node
    from seeknal_k8s.intervals import Interval
    from seeknal_k8s.options import Resolved
    from seeknal_k8s.plan import NodeRun

PINS = {"today": "2001-02-03", "run_date": "2001-02-03T04:05:06", "run_id": "definition"}
"""One clock for all readings that are compared, or every day would be a change of logic."""

_ONE, _OTHER = (
    {
        "start_date": f"{day}",
        "end_date": f"{following}",
        "interval_start": f"{day}T00:00:00+00:00",
        "interval_end": f"{following}T00:00:00+00:00",
    }
    for day, following in (("2001-02-03", "2001-02-04"), ("2003-05-06", "2003-05-07"))
)

_END = r"""(?:(?:CAST|DATE|TIMESTAMP|TIMESTAMPTZ)\s*\(?\s*)?['"]?\s*\{\{\s*end_date\b"""
_INCLUSIVE = re.compile(rf"(?:<=|\bBETWEEN\b[^;]*?\bAND)\s*{_END}", re.IGNORECASE)
_EXCLUSIVE = re.compile(rf"<\s*{_END}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a backfill of a node takes.

    ``chain`` are the nodes that run for each interval, in order; ``wanted`` those of them whose rows
    are kept; ``shared`` what the chain reads of others; ``outdated`` the nodes that have to run once
    before. ``logic`` is a digest of what is computed, without the interval and without the data.
    """

    graph: Graph
    node: Node
    chain: tuple[Node, ...]
    wanted: tuple[str, ...]
    shared: tuple[str, ...]
    outdated: tuple[str, ...]
    logic: str
    upper: Upper
    depends: bool
    targets: dict[str, list[dict[str, str]]]
    options: dict[str, Resolved]
    warnings: tuple[Problem, ...] = ()


async def read(client: EngineClient, request: BackfillRequest) -> Scope:
    """Read the project and return what the backfill takes.

    Raises:
        ProjectRefused: the project, its options or the node is wrong.
    """
    one, about = await _reading(client, request, _ONE)
    other, about_other = await _reading(client, request, _OTHER)
    found, warnings = graphs.build(one)
    text = request.node
    with_readers = text.endswith("+") and text not in found.nodes
    node = found.find(text.removesuffix("+") if with_readers else text)
    unlike = _unlike(one, other, about, about_other)
    dependent = unlike | found.downstream_of(unlike)
    wanted = {node.id} | (found.downstream_of([node.id]) if with_readers else set())
    above = found.upstream_of(wanted)
    chain = tuple(
        each
        for each in found.nodes.values()
        if each.id in wanted or (each.id in above and each.id in dependent)
    )
    ids = {each.id for each in chain}
    shared = tuple(dict.fromkeys(ref for each in chain for ref in each.inputs if ref not in ids))
    planned = draft(one, request.shares).plan
    needed = {*shared, *found.upstream_of(shared)}
    upper = request.upper or _expected_upper(chain, Path(found.root))
    everything = sorted(ids | above)
    return Scope(
        graph=found,
        node=node,
        chain=chain,
        wanted=tuple(each.id for each in chain if each.id in wanted),
        shared=shared,
        outdated=tuple(run.node.id for run in planned.runs if run.node.id in needed),
        logic=digest(
            *(f"{key} {about[key]['definition']}" for key in everything),
            request.timezone,
            upper,
            repr(sorted(request.params.items())),
            length=16,
        ),
        upper=upper,
        depends=node.id in dependent,
        targets={key: about[key]["targets"] for key in sorted(ids) if about[key]["targets"]},
        options={run.node.id: run.options for run in _all_runs(one, request)},
        warnings=tuple(warnings),
    )


async def _reading(
    client: EngineClient, request: BackfillRequest, dates: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    raw = await open_project(client, request, PINS, dates)
    return raw, await client.call("definitions")


async def open_project(
    client: EngineClient,
    request: BackfillRequest,
    pins: Mapping[str, str],
    dates: Mapping[str, str] = _ONE,
) -> dict[str, Any]:
    """Have the engine read the project for an interval, an invented one if none is given."""
    if not request.project.is_dir():
        what = f"there is no folder {request.project}"
        raise ProjectRefused([Problem(what, "name the project's folder")])
    raw: dict[str, Any] = await client.call(
        "open",
        root=str(request.project.resolve()),
        home=str(request.shares.home),
        pins=dict(pins),
        overrides=overrides(request, dates),
        profile=str(request.profile.resolve()) if request.profile else None,
    )
    return raw


def overrides(request: BackfillRequest, dates: Mapping[str, str] = _ONE) -> dict[str, Any]:
    """Return what the project is read with: the user's parameters, and an interval's dates."""
    return {**request.params, **dates}


def _unlike(
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    about: Mapping[str, Any],
    about_other: Mapping[str, Any],
) -> set[str]:
    digests = [{node["id"]: node["digest"] for node in raw["nodes"]} for raw in (one, other)]
    return {
        key
        for key in about
        if about_other.get(key) != about[key] or digests[0][key] != digests[1].get(key)
    }


def _all_runs(raw: dict[str, Any], request: BackfillRequest) -> Iterable[NodeRun]:
    """Return a run of every node, for its options."""
    return draft(raw, replace(request.shares, full=True)).plan.runs


def _expected_upper(chain: Iterable[Node], root: Path) -> Upper:
    """Return which kind of end the nodes compare with: ``<`` or ``<=``.

    Raises:
        ProjectRefused: some compare so, some the other way.
    """
    inclusive, exclusive = [], []
    for node in chain:
        text = (root / node.file).read_text(encoding="utf-8", errors="replace")
        if _INCLUSIVE.search(text):
            inclusive.append(node)
        if _EXCLUSIVE.search(text):
            exclusive.append(node)
    if inclusive and exclusive:
        what = "some SQL says < '{{ end_date }}', and some says <=: one of them is a day wrong"
        fix = "write < everywhere, or say what {{ end_date }} is to be: --upper exclusive"
        raise ProjectRefused([Problem(what, fix, inclusive[0].file, inclusive[0].id)])
    return "inclusive" if inclusive else "exclusive"


def dates_of(interval: Interval, upper: Upper) -> dict[str, str]:
    """Return what the project is read with for an interval.

    Raises:
        ProjectRefused: its last day is asked for, and it does not end with a day.
    """
    start, _, end = interval.key.partition("/")
    if upper == "inclusive":
        if len(start) != len("2024-01-01") or len(end) != len("2024-01-01"):
            what = f"with <= '{{{{ end_date }}}}' an interval has to end with a day: {interval.key}"
            raise ProjectRefused([Problem(what, "write < '{{ end_date }}' in the node's SQL")])
        end = (interval.end.date() - timedelta(days=1)).isoformat()
    return {
        "start_date": start,
        "end_date": end,
        "interval_start": interval.start.isoformat(),
        "interval_end": interval.end.isoformat(),
    }
