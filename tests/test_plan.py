"""Which nodes run, why, and what waits for what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal_k8s.errors import UsageError
from seeknal_k8s.graph import Graph, Node
from seeknal_k8s.options import NodeOptions, Resolved
from seeknal_k8s.plan import PastRun, Plan, Reason, critical_path, make

if TYPE_CHECKING:
    from collections.abc import Mapping

    Drawn = tuple[Plan, set[str], set[str] | None, set[str] | None]

DEFAULT = Resolved(NodeOptions(), {})
DONE = PastRun("success", "v1", seconds=2.0, rows=10)
FAILED = PastRun("failed")


def a_graph(inputs: Mapping[str, tuple[str, ...]]) -> Graph:
    """Return a graph of these nodes, given in order, all with the digest ``v1``."""
    nodes = {}
    for node_id, refs in inputs.items():
        kind, _, name = node_id.partition(".")
        nodes[node_id] = Node(node_id, kind, name, file="f.yml", inputs=refs, digest="v1")
    return Graph("shop", "/projects/shop", nodes)


SHOP = a_graph(
    {
        "source.orders": (),
        "source.users": (),
        "transform.clean": ("source.orders",),
        "transform.joined": ("transform.clean", "source.users"),
        "rule.paid": ("transform.clean",),
        "exposure.report": ("transform.joined",),
    }
)
ALL_DONE = dict.fromkeys(SHOP.nodes, DONE)


def plan(
    graph: Graph = SHOP,
    state: Mapping[str, PastRun] = ALL_DONE,
    *,
    missing: set[str] | None = None,
    refresh: set[str] | None = None,
    selected: set[str] | None = None,
    within: set[str] | None = None,
    full: bool = False,
) -> Plan:
    return make(
        graph,
        state=state,
        missing=missing or set(),
        refresh=refresh or set(),
        options=dict.fromkeys(graph.nodes, DEFAULT),
        selected=selected,
        within=within,
        full=full,
    )


def reasons(made: Plan) -> dict[str, str]:
    """Return why each node runs, as people read it."""
    return {run.node.id: f"{run.reason}: {run.because}" for run in made.runs}


def without(*gone: str, **changed: PastRun) -> dict[str, PastRun]:
    """Return the state after a good run, less some nodes, and with others' runs changed."""
    kept = {key: past for key, past in ALL_DONE.items() if key not in gone}
    return kept | {key.replace("__", "."): past for key, past in changed.items()}


def test_after_a_good_run_everything_is_cached() -> None:
    made = plan()
    assert made.runs == ()
    assert made.cached == tuple(SHOP.nodes)
    assert made.left_out == ()


def test_the_first_run_runs_everything_because_it_is_new() -> None:
    made = plan(state={})
    assert [run.node.id for run in made.runs] == list(SHOP.nodes)
    assert set(reasons(made).values()) == {"new: it has never run"}
    assert [run.waits_for for run in made.runs] == [node.inputs for node in SHOP.nodes.values()]
    assert [run.past_seconds for run in made.runs] == [None] * len(SHOP.nodes)


@pytest.mark.parametrize(
    ("state", "missing", "expected"),
    [
        pytest.param(
            without("exposure.report"),
            set(),
            {"exposure.report": "new: it has never run"},
            id="a new node at the end",
        ),
        pytest.param(
            without("source.users"),
            set(),
            {
                "source.users": "new: it has never run",
                "transform.joined": "upstream changed: source.users is new",
                "exposure.report": "upstream changed: source.users is new",
            },
            id="a new source, and what reads it",
        ),
        pytest.param(
            without(source__orders=PastRun("success", "v0")),
            set(),
            {
                "source.orders": "changed: its file or its data changed",
                "transform.clean": "upstream changed: source.orders runs again",
                "transform.joined": "upstream changed: source.orders runs again",
                "rule.paid": "upstream changed: source.orders runs again",
                "exposure.report": "upstream changed: source.orders runs again",
            },
            id="a source with another digest",
        ),
        pytest.param(
            without(rule__paid=PastRun("success", "v0")),
            set(),
            {"rule.paid": "changed: its file or its parameters changed"},
            id="a rule with another digest",
        ),
        pytest.param(
            without(rule__paid=PastRun("success")),
            set(),
            {"rule.paid": "changed: whether it changed is unknown"},
            id="a success of which no digest was kept",
        ),
        pytest.param(
            without(rule__paid=FAILED),
            set(),
            {"rule.paid": "changed: it failed last time"},
            id="a node that failed",
        ),
        pytest.param(
            without(rule__paid=PastRun("running", "v1")),
            set(),
            {"rule.paid": "changed: it did not finish last time"},
            id="a node that never ended",
        ),
        pytest.param(
            ALL_DONE,
            {"transform.joined"},
            {
                "transform.joined": "output missing: its output is gone",
                "exposure.report": "upstream changed: transform.joined runs again",
            },
            id="a lost output, and what reads it",
        ),
        pytest.param(
            without("source.users", transform__clean=FAILED),
            set(),
            {
                "source.users": "new: it has never run",
                "transform.clean": "changed: it failed last time",
                "transform.joined": "upstream changed: source.users is new",
                "rule.paid": "upstream changed: transform.clean runs again",
                "exposure.report": "upstream changed: source.users is new",
            },
            id="of two causes the nearest",
        ),
        pytest.param(
            without(source__orders=FAILED, transform__joined=FAILED),
            set(),
            {
                "source.orders": "changed: it failed last time",
                "transform.clean": "upstream changed: source.orders runs again",
                "transform.joined": "changed: it failed last time",
                "rule.paid": "upstream changed: source.orders runs again",
                "exposure.report": "upstream changed: transform.joined runs again",
            },
            id="a cause of its own comes before one upstream",
        ),
    ],
)
def test_what_runs_after(
    state: Mapping[str, PastRun], missing: set[str], expected: dict[str, str]
) -> None:
    made = plan(state=state, missing=missing)
    assert reasons(made) == expected
    assert set(made.cached) == set(SHOP.nodes) - set(expected)


def test_a_run_waits_only_for_what_runs() -> None:
    made = plan(state=without("transform.joined"))
    assert {run.node.id: run.waits_for for run in made.runs} == {
        "transform.joined": (),
        "exposure.report": ("transform.joined",),
    }


def test_a_run_knows_how_long_it_took_when_it_last_succeeded() -> None:
    state = without(rule__paid=PastRun("success", "v0", seconds=7.5), exposure__report=FAILED)
    made = plan(state=state)
    assert {run.node.id: run.past_seconds for run in made.runs} == {
        "rule.paid": 7.5,
        "exposure.report": None,
    }


@pytest.mark.parametrize(
    ("changed", "refresh", "expected"),
    [
        pytest.param(
            "transform.clean",
            {"source.orders"},
            {"source.orders": "needed: transform.clean reads it, and its data may have changed"},
            id="a source right below which something runs",
        ),
        pytest.param(
            "transform.joined",
            {"source.orders", "source.users"},
            {
                "source.orders": "needed: transform.joined reads it, and its data may have changed",
                "source.users": "needed: transform.joined reads it, and its data may have changed",
            },
            id="a source two levels above a transform",
        ),
        pytest.param("rule.paid", {"source.orders"}, {}, id="not two levels above a rule"),
        pytest.param("exposure.report", {"source.users"}, {}, id="not above what is cached"),
        pytest.param("transform.joined", set(), {}, id="not a file, whose changes show"),
    ],
)
def test_a_database_is_read_again_for_what_runs(
    changed: str, refresh: set[str], expected: dict[str, str]
) -> None:
    made = plan(state=without(changed), refresh=refresh)
    assert {key: why for key, why in reasons(made).items() if key.startswith("source.")} == expected


def test_a_database_that_is_read_again_makes_nothing_else_run() -> None:
    graph = a_graph(
        {
            "source.orders": (),
            "transform.a": ("source.orders",),
            "transform.b": ("source.orders",),
        }
    )
    state = {"source.orders": DONE, "transform.b": DONE}
    made = plan(graph, state, refresh={"source.orders"})
    assert list(reasons(made)) == ["source.orders", "transform.a"]
    assert made.runs[1].waits_for == ("source.orders",)
    assert made.cached == ("transform.b",)


def test_a_full_run_forces_every_node() -> None:
    made = plan(full=True)
    assert reasons(made) == dict.fromkeys(SHOP.nodes, "forced: a full run was asked for")
    assert made.cached == ()


def test_a_full_run_of_a_selection_is_refused() -> None:
    with pytest.raises(UsageError, match="drop either --full or the selection"):
        plan(full=True, selected={"source.orders"})


@pytest.mark.parametrize(
    ("state", "missing", "expected", "cached", "left_out"),
    [
        pytest.param(
            ALL_DONE,
            set(),
            {"transform.joined": "selected: it was selected"},
            {"source.orders", "source.users", "transform.clean", "rule.paid", "exposure.report"},
            set(),
            id="a selected node alone, not its readers",
        ),
        pytest.param(
            without(source__users=PastRun("success", "v0")),
            set(),
            {"transform.joined": "selected: it was selected"},
            {"source.orders", "source.users", "transform.clean", "rule.paid", "exposure.report"},
            set(),
            id="not an upstream that changed",
        ),
        pytest.param(
            ALL_DONE,
            {"transform.clean"},
            {
                "transform.clean": "needed: transform.joined reads it, and its output is gone",
                "transform.joined": "selected: it was selected",
            },
            {"source.orders", "source.users", "rule.paid", "exposure.report"},
            set(),
            id="an upstream whose output is gone",
        ),
        pytest.param(
            without("source.users", transform__clean=FAILED),
            {"source.orders"},
            {
                "source.orders": "needed: transform.clean reads it, and its output is gone",
                "source.users": "needed: transform.joined reads it, and it has never succeeded",
                "transform.clean": "needed: transform.joined reads it, and it has never succeeded",
                "transform.joined": "selected: it was selected",
            },
            {"rule.paid", "exposure.report"},
            set(),
            id="upstreams of upstreams that have nothing to give",
        ),
        pytest.param(
            without("rule.paid", exposure__report=FAILED),
            set(),
            {"transform.joined": "selected: it was selected"},
            {"source.orders", "source.users", "transform.clean"},
            {"rule.paid", "exposure.report"},
            id="what has no output and was not selected is left out",
        ),
    ],
)
def test_a_selection_runs(
    state: Mapping[str, PastRun],
    missing: set[str],
    expected: dict[str, str],
    cached: set[str],
    left_out: set[str],
) -> None:
    made = plan(
        state=state, missing=missing, refresh={"source.users"}, selected={"transform.joined"}
    )
    assert reasons(made) == expected
    assert set(made.cached) == cached
    assert set(made.left_out) == left_out


def test_selecting_a_node_and_what_reads_it_keeps_their_order() -> None:
    made = plan(selected={"exposure.report", "transform.joined"})
    assert [run.node.id for run in made.runs] == ["transform.joined", "exposure.report"]
    assert made.runs[1].waits_for == ("transform.joined",)


CHANGED_SOURCE = without(source__orders=PastRun("success", "v0"))
AFTER_CHANGE = dict.fromkeys(
    ("transform.clean", "transform.joined", "exposure.report"),
    "upstream changed: source.orders runs again",
)


@pytest.mark.parametrize(
    ("state", "excluded", "expected", "left_out"),
    [
        pytest.param(ALL_DONE, {"rule.paid"}, {}, set(), id="what is cached stays so"),
        pytest.param(
            CHANGED_SOURCE,
            {"rule.paid"},
            {"source.orders": "changed: its file or its data changed", **AFTER_CHANGE},
            {"rule.paid"},
            id="what changed, but not what was left out",
        ),
        pytest.param(
            CHANGED_SOURCE,
            {"source.orders"},
            {},
            {"source.orders", "rule.paid", *AFTER_CHANGE},
            id="nobody runs for what does not run",
        ),
        pytest.param(
            without("transform.clean", "rule.paid"),
            {"transform.clean"},
            {
                "rule.paid": "new: it has never run",
                "transform.clean": "needed: rule.paid reads it, and it has never succeeded",
                "transform.joined": "upstream changed: transform.clean runs again",
                "exposure.report": "upstream changed: transform.joined runs again",
            },
            set(),
            id="what was left out runs where nothing goes without it",
        ),
    ],
)
def test_a_run_that_leaves_nodes_out(
    state: Mapping[str, PastRun],
    excluded: set[str],
    expected: dict[str, str],
    left_out: set[str],
) -> None:
    made = plan(state=state, within=SHOP.nodes.keys() - excluded)
    assert reasons(made) == expected
    assert set(made.left_out) == left_out
    assert set(made.cached) == SHOP.nodes.keys() - expected.keys() - left_out


def test_a_full_run_may_leave_nodes_out() -> None:
    made = plan(within={"source.orders", "transform.clean", "rule.paid"}, full=True)
    assert reasons(made) == dict.fromkeys(
        ("source.orders", "transform.clean", "rule.paid"), "forced: a full run was asked for"
    )
    assert made.left_out == ("transform.joined", "exposure.report")
    assert made.cached == ("source.users",)


# --- what holds for every plan -----------------------------------------------------------------

PASTS = st.sampled_from([None, DONE, DONE, FAILED, PastRun("success", "v0")])


@st.composite
def plans(draw: st.DrawFn) -> Drawn:
    """Return a plan of any project, the ids with an output to use, and what it was restricted to."""
    count = draw(st.integers(1, 10))
    inputs: dict[str, tuple[str, ...]] = {}
    for number in range(count):
        kind = draw(st.sampled_from(["source", "transform", "rule"]))
        known = list(inputs)
        some = draw(st.sets(st.sampled_from(known))) if known and kind != "source" else set()
        inputs[f"{kind}.n{number}"] = tuple(sorted(some))
    graph = a_graph(inputs)
    ids = st.sets(st.sampled_from(list(inputs)))
    state = {node_id: past for node_id in inputs if (past := draw(PASTS))}
    missing, selected, within = draw(ids), draw(st.none() | ids), draw(st.none() | ids)
    refresh = {node_id for node_id in draw(ids) if node_id.startswith("source.")}
    made = plan(graph, state, missing=missing, refresh=refresh, selected=selected, within=within)
    usable = {key for key, past in state.items() if past.succeeded} - missing
    return made, usable, selected, within


@given(plans())
def test_in_every_plan_a_run_follows_what_it_waits_for_and_finds_its_inputs(drawn: Drawn) -> None:
    made, usable, selected, within = drawn
    before: set[str] = set()
    for run in made.runs:
        assert set(run.waits_for) <= before
        assert set(run.node.inputs) - set(run.waits_for) <= usable
        before.add(run.node.id)
    assert sorted([*before, *made.cached, *made.left_out]) == sorted(made.graph.nodes)
    renewed = {run.node.id for run in made.runs if run.reason is not Reason.NEEDED}
    if selected is not None:
        assert renewed == selected
    elif within is not None:
        assert renewed <= within
    else:
        assert made.left_out == ()
        assert not made.graph.downstream_of(renewed) & set(made.cached)


@given(plans())
def test_in_every_plan_the_critical_path_falls_to_what_waits(drawn: Drawn) -> None:
    made = drawn[0]
    remaining = critical_path(made)
    assert set(remaining) == {run.node.id for run in made.runs}
    for run in made.runs:
        for ref in run.waits_for:
            assert remaining[ref] >= remaining[run.node.id]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param(
            {},
            {"source.a": 2.0, "source.b": 1.0, "transform.c": 1.0},
            id="a second each when nothing is known",
        ),
        pytest.param(
            {"source.a": 10.0, "source.b": 4.0},
            {"source.a": 17.0, "source.b": 4.0, "transform.c": 7.0},
            id="the median of the others for what has never run",
        ),
        pytest.param(
            {"source.a": 1.0, "source.b": 9.0, "transform.c": 0.0},
            {"source.a": 1.0, "source.b": 9.0, "transform.c": 0.0},
            id="no time at all is a time",
        ),
    ],
)
def test_the_critical_path_counts(seconds: dict[str, float], expected: dict[str, float]) -> None:
    graph = a_graph({"source.a": (), "source.b": (), "transform.c": ("source.a",)})
    state = {key: PastRun("success", "v0", seconds=took) for key, took in seconds.items()}
    assert critical_path(plan(graph, state)) == expected


def test_a_plan_of_three_thousand_nodes_in_one_chain_is_made_at_once() -> None:
    ids = [f"transform.n{number:04}" for number in range(3000)]
    graph = a_graph({node_id: tuple(ids[max(0, at - 1) : at]) for at, node_id in enumerate(ids)})
    made = plan(graph, {})
    assert [run.node.id for run in made.runs] == ids
    assert critical_path(made)[ids[0]] == 3000.0
