"""What ``--select`` and ``--exclude`` mean."""

from __future__ import annotations

import pytest

from seeknal_k8s.errors import ProjectRefused
from seeknal_k8s.graph import Graph, Node
from seeknal_k8s.selection import select


def a_graph(*nodes: Node) -> Graph:
    return Graph("shop", "/projects/shop", {node.id: node for node in nodes})


def a_node(node_id: str, *inputs: str, tags: tuple[str, ...] = ()) -> Node:
    kind, _, name = node_id.partition(".")
    return Node(node_id, kind, name, f"seeknal/{name}.yml", inputs=inputs, tags=tags)


SHOP = a_graph(
    a_node("source.orders", tags=("daily",)),
    a_node("source.users"),
    a_node("transform.stg_orders", "source.orders", tags=("daily", "k8s:large")),
    a_node("transform.stg_users", "source.users"),
    a_node("transform.joined", "transform.stg_orders", "transform.stg_users"),
    a_node("rule.joined", "transform.joined"),
    a_node("exposure.report", "transform.joined"),
)
STAGED = {"transform.stg_orders", "transform.stg_users"}
SOURCES = {"source.orders", "source.users"}
READERS = {"rule.joined", "exposure.report"}


@pytest.mark.parametrize(
    ("selectors", "exclude", "expected"),
    [
        pytest.param([], [], set(SHOP.nodes), id="nothing means everything"),
        pytest.param(["source.users"], [], {"source.users"}, id="an id"),
        pytest.param(["report"], [], {"exposure.report"}, id="a name"),
        pytest.param(["kind:source"], [], SOURCES, id="a kind"),
        pytest.param(
            ["tag:daily"], [], {"source.orders", "transform.stg_orders"}, id="a tag of two nodes"
        ),
        pytest.param(["tag:k8s:large"], [], {"transform.stg_orders"}, id="a tag with a colon"),
        pytest.param(["transform.stg_*"], [], STAGED, id="a pattern for ids"),
        pytest.param(["stg_*"], [], STAGED, id="a pattern for names"),
        pytest.param(["*.joine?"], [], {"transform.joined", "rule.joined"}, id="one of any sign"),
        pytest.param(["*.[o-z]rders"], [], {"source.orders"}, id="one sign of a range"),
        pytest.param(
            ["+stg_users"], [], {"source.users", "transform.stg_users"}, id="with all upstream"
        ),
        pytest.param(
            ["stg_users+"],
            [],
            {"transform.stg_users", "transform.joined"} | READERS,
            id="with all downstream",
        ),
        pytest.param(["+transform.joined+"], [], set(SHOP.nodes), id="both ways"),
        pytest.param(
            ["1+transform.joined"], [], {"transform.joined"} | STAGED, id="one step upstream"
        ),
        pytest.param(
            ["source.users+2"],
            [],
            {"source.users", "transform.stg_users", "transform.joined"},
            id="two steps downstream",
        ),
        pytest.param(
            ["1+transform.stg_users+1"],
            [],
            {"source.users", "transform.stg_users", "transform.joined"},
            id="one step both ways",
        ),
        pytest.param(["kind:source+1"], [], SOURCES | STAGED, id="downstream of a kind"),
        pytest.param(["+tag:daily"], [], {"source.orders", "transform.stg_orders"}, id="+ a tag"),
        pytest.param(
            ["kind:rule", "report", "report"], [], READERS, id="several are taken together"
        ),
        pytest.param([], ["kind:source"], set(SHOP.nodes) - SOURCES, id="all but a kind"),
        pytest.param(
            ["stg_*+"], ["transform.joined+"], STAGED, id="less what is downstream of a node"
        ),
        pytest.param(["stg_*"], ["source.users"], STAGED, id="excluding what was not selected"),
    ],
)
def test_selecting(selectors: list[str], exclude: list[str], expected: set[str]) -> None:
    assert select(SHOP, selectors, exclude) == expected


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        pytest.param(
            "source.oders",
            "no node is called 'source.oders'\n  → did you mean source.orders?",
            id="a misspelt id",
        ),
        pytest.param(
            "joined",
            "2 nodes are called 'joined'\n  → give the whole id: transform.joined or rule.joined",
            id="a name that two nodes have",
        ),
        pytest.param(
            "kind:transfrom",
            "'kind:transfrom' means no node\n  → did you mean kind:transform?",
            id="a misspelt kind",
        ),
        pytest.param(
            "kind:",
            "'kind:' means no node\n  → the kinds are exposure, rule, source, transform",
            id="no kind",
        ),
        pytest.param(
            "tag:dayly",
            "'tag:dayly' means no node\n  → did you mean tag:daily?",
            id="a misspelt tag",
        ),
        pytest.param(
            "raw_*",
            "'raw_*' means no node\n  → it has to match whole ids, or whole names",
            id="a pattern without a match",
        ),
        pytest.param("+nope+", "no node is called 'nope'", id="unknown between pluses"),
        pytest.param("", "no node is called ''", id="nothing"),
        pytest.param("+", "no node is called '+'", id="a plus"),
        pytest.param("source:orders", "no node is called 'source:orders'", id="a colon for a dot"),
    ],
)
def test_a_selector_is_refused_that_is(selector: str, said: str) -> None:
    for selectors, exclude in (([selector], []), ([], [selector])):
        with pytest.raises(ProjectRefused) as caught:
            select(SHOP, selectors, exclude)
        assert said in str(caught.value)


def test_a_project_without_tags_says_so() -> None:
    with pytest.raises(ProjectRefused, match="no node has a tag"):
        select(a_graph(a_node("source.orders")), ["tag:daily"])


def test_all_unknown_selectors_are_told_at_once() -> None:
    with pytest.raises(ProjectRefused) as caught:
        select(SHOP, ["nope", "kind:nope", "source.users"], ["tag:nope"])
    assert len(caught.value.problems) == 3


def test_a_selection_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(ProjectRefused, match="everything in it is excluded too"):
        select(SHOP, ["kind:rule"], ["rule.joined"])


def test_an_id_that_holds_a_plus_is_that_node() -> None:
    graph = a_graph(a_node("rule.a"), a_node("rule.a+"), a_node("exposure.x", "rule.a"))
    assert select(graph, ["rule.a+"]) == {"rule.a+"}
