"""What a project's description becomes: a graph in order, problems, warnings."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal_k8s import parse_errors
from seeknal_k8s.errors import Problem, ProjectRefused
from seeknal_k8s.graph import Graph, Node, build, nearest


def a_node(node_id: str, *inputs: str, **fields: Any) -> dict[str, Any]:
    """Return one node as ``engine`` describes it."""
    kind, _, name = node_id.partition(".")
    return {
        "id": node_id,
        "kind": kind,
        "name": name,
        "file": f"seeknal/{kind}s/{name}.yml",
        "inputs": list(inputs),
        "tags": [],
        "digest": f"hash of {node_id}",
        "python": False,
        "outputs": [],
        "options": {},
        "sql": "",
    } | fields


def a_project(*nodes: dict[str, Any], parse_errors: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "name": "shop",
        "root": "/projects/shop",
        "nodes": list(nodes),
        "parse_errors": list(parse_errors),
        "is_project": True,
        "yaml_files": [node["file"] for node in nodes],
    }


def refused(*nodes: dict[str, Any], parse_errors: tuple[str, ...] = ()) -> list[Problem]:
    with pytest.raises(ProjectRefused) as caught:
        build(a_project(*nodes, parse_errors=parse_errors))
    return list(caught.value.problems)


def the_problem(*nodes: dict[str, Any]) -> str:
    (problem,) = refused(*nodes)
    return str(problem)


SHOP = a_project(
    a_node("transform.clean", "source.orders", "source.users"),
    a_node("source.users"),
    a_node("feature_group.customers", "transform.clean"),
    a_node("source.orders"),
    a_node("exposure.report", "feature_group.customers"),
)


def test_every_node_follows_its_inputs_and_equals_come_in_alphabetical_order() -> None:
    graph, warnings = build(SHOP)
    assert list(graph.nodes) == [
        "source.orders",
        "source.users",
        "transform.clean",
        "feature_group.customers",
        "exposure.report",
    ]
    assert warnings == ()


def test_a_node_keeps_everything_that_was_said_of_it() -> None:
    described = a_node(
        "transform.a",
        "source.x",
        tags=["daily"],
        python=True,
        outputs=["target/intermediate/transform_a.parquet"],
        options={"cpu": 2},
    )
    graph, _ = build(a_project(described, a_node("source.x")))
    assert graph.nodes["transform.a"] == Node(
        id="transform.a",
        kind="transform",
        name="a",
        file="seeknal/transforms/a.yml",
        inputs=("source.x",),
        tags=("daily",),
        digest="hash of transform.a",
        python=True,
        outputs=("target/intermediate/transform_a.parquet",),
        options={"cpu": 2},
    )


@given(st.data())
def test_any_project_without_cycles_is_sorted_whatever_the_order_of_its_files(
    data: st.DataObject,
) -> None:
    count = data.draw(st.integers(1, 12))
    numbers = data.draw(st.permutations(range(count)))
    edges = st.sets(st.integers(0, max(0, count - 1)))
    nodes = [
        a_node(f"transform.n{numbers[i]}", *(f"transform.n{numbers[j]}" for j in read if j < i))
        for i, read in enumerate(data.draw(st.lists(edges, min_size=count, max_size=count)))
    ]
    graph, _ = build(a_project(*nodes))
    place = {node_id: at for at, node_id in enumerate(graph.nodes)}
    assert len(place) == count
    assert all(place[ref] < place[n.id] for n in graph.nodes.values() for ref in n.inputs)
    again, _ = build(a_project(*data.draw(st.permutations(nodes))))
    assert list(again.nodes) == list(graph.nodes)
    assert again.digest == graph.digest


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(a_node("source.z"), id="another id"),
        pytest.param(a_node("source.x", digest="other"), id="another digest"),
        pytest.param(a_node("source.x", "source.y"), id="another input"),
    ],
)
def test_the_digest_of_a_project_tells_it_from_one_with(other: dict[str, Any]) -> None:
    graph, _ = build(a_project(a_node("source.x"), a_node("source.y")))
    changed, _ = build(a_project(other, a_node("source.y")))
    assert len(graph.digest) == 64
    assert graph.digest != changed.digest


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "lacks"),
    [
        pytest.param(a_project() | {"is_project": False}, "no seeknal/ folder", id="no folder"),
        pytest.param(a_project(), "no node in its seeknal/ folder", id="files without a node"),
    ],
)
def test_a_folder_that_is_no_project_is_one_problem_with_a_way_out(
    raw: dict[str, Any], lacks: str
) -> None:
    with pytest.raises(ProjectRefused, match="/projects/shop is not a Seeknal project") as caught:
        build(raw)
    (problem,) = caught.value.problems
    assert lacks in problem.what
    assert "`seeknal init`" in problem.fix


@pytest.mark.parametrize(
    ("ref", "fix"),
    [
        pytest.param("source.ordres", "write `- ref: source.orders`", id="two letters swapped"),
        pytest.param("orders", "write `- ref: source.orders`", id="no kind"),
        pytest.param("sources.orders", "write `- ref: source.orders`", id="a plural kind"),
        pytest.param("transform.orders", "write `- ref: source.orders`", id="another kind"),
        pytest.param("Source.Orders", "write `- ref: source.orders`", id="capitals"),
        pytest.param("ordrs", "write `- ref: source.orders`", id="no kind and a letter lost"),
        pytest.param(
            "users",
            "write `- ref: source.users` or `- ref: transform.users`",
            id="a name that two nodes have",
        ),
        pytest.param(
            "transform.user",
            "write `- ref: transform.users` or `- ref: source.users`",
            id="a similar name under two kinds, the same kind first",
        ),
        pytest.param("source.q", "add that node, or take the line out", id="nothing alike"),
    ],
)
def test_an_input_that_does_not_exist_is_refused_with_the_nearest_for(ref: str, fix: str) -> None:
    others = [a_node("source.orders"), a_node("source.users"), a_node("transform.users")]
    (problem,) = refused(a_node("rule.all_paid", ref), *others)
    assert problem == Problem(
        what=f"reads {ref}, which is not in the project",
        fix=fix,
        file="seeknal/rules/all_paid.yml",
        node="rule.all_paid",
        key="inputs",
    )


@pytest.mark.parametrize(
    ("node", "key", "fix"),
    [
        pytest.param(
            a_node("transform.a", "source.ordrs", python=True, file="seeknal/a.py"),
            "inputs",
            'write `ctx.ref("source.orders")`',
            id="Python",
        ),
        pytest.param(
            a_node("semantic_model.a", "source.ordrs"),
            "model",
            "write `model: ref('source.orders')`",
            id="a semantic model",
        ),
        pytest.param(
            a_node("exposure.a", "source.ordrs"),
            "depends_on",
            "write `- ref: source.orders`",
            id="an exposure",
        ),
    ],
)
def test_a_missing_input_is_spelt_as_in(node: dict[str, Any], key: str, fix: str) -> None:
    (problem,) = refused(node, a_node("source.orders"))
    assert (problem.key, problem.fix) == (key, fix)


def test_an_input_whose_file_could_not_be_read_points_to_that_file() -> None:
    message = "Missing 'kind' field in /projects/shop/seeknal/sources/orders.yml"
    first, second = refused(a_node("transform.a", "source.orders"), parse_errors=(message,))
    assert first.file == "seeknal/sources/orders.yml"
    assert "seeknal/sources/orders.yml, which could not be read" in second.fix


def test_a_cycle_is_printed_in_the_direction_of_the_data() -> None:
    assert the_problem(
        a_node("transform.a", "transform.c", "source.x"),
        a_node("transform.b", "transform.a"),
        a_node("transform.c", "transform.b"),
        a_node("transform.after", "transform.c"),
        a_node("source.x"),
    ).startswith(
        "seeknal/transforms/a.yml · transform.a · inputs: "
        "nodes wait for each other: transform.a → transform.b → transform.c → transform.a"
    )


def test_every_cycle_is_named() -> None:
    problems = refused(
        a_node("transform.a", "transform.b"),
        a_node("transform.b", "transform.a", "transform.c"),
        a_node("transform.c", "transform.b"),
    )
    assert [problem.what.partition(": ")[2] for problem in problems] == [
        "transform.a → transform.b → transform.a",
        "transform.b → transform.c → transform.b",
    ]


def test_a_tangle_of_nodes_names_a_few_of_its_cycles() -> None:
    ids = [f"transform.n{i}" for i in range(30)]
    problems = refused(*(a_node(i, *(j for j in ids if j != i)) for i in ids))
    assert len(problems) == 20


def test_a_cycle_through_the_sql_is_a_cycle() -> None:
    assert "transform.a → transform.b → transform.a" in the_problem(
        a_node("transform.a", sql="SELECT * FROM transform.b"),
        a_node("transform.b", "transform.a"),
    )


def test_a_node_that_reads_itself_is_one_problem() -> None:
    assert the_problem(a_node("transform.a", "transform.a")) == (
        "seeknal/transforms/a.yml · transform.a · inputs: reads itself\n"
        "  → take `- ref: transform.a` out"
    )


@pytest.mark.parametrize(
    ("name", "what", "fix"),
    [
        pytest.param("a/b", "would be a path", "give it another `name:`", id="a slash"),
        pytest.param("..", "would be a path", "give it another `name:`", id="two dots"),
        pytest.param("../../x", "would be a path", "give it another `name:`", id="a way out"),
        pytest.param("a\\b", "would be a path", "give it another `name:`", id="a backslash"),
        pytest.param("a\nb", r"cannot be seen: 'a\nb'", "give it another `name:`", id="a line end"),
        pytest.param("a\0b", r"cannot be seen: 'a\x00b'", "give it another", id="a NUL"),
        pytest.param("a\u200bb", r"'a\u200bb'", "give it another", id="a space of no width"),
        pytest.param("  ", "its name is empty", "give it another", id="blanks"),
        pytest.param("", "its name is empty", "give it another", id="nothing"),
        pytest.param(5, "YAML reads 5 as a number", '`name: "5"`', id="a number"),
        pytest.param(True, "YAML reads true as yes or no", '`name: "true"`', id="true"),
        pytest.param(["a"], "YAML reads ['a'] as a list", "between quotes", id="a list"),
        pytest.param("ü" * 100, "its id is 207 bytes", "a shorter `name:`", id="too many bytes"),
    ],
)
def test_a_name_is_refused_that_is(name: object, what: str, fix: str) -> None:
    (problem,) = refused(a_node(f"source.{name}", name=name, file="seeknal/x.yml"))
    assert what in problem.what
    assert fix in problem.fix
    assert (problem.file, problem.key) == ("seeknal/x.yml", "name")
    assert problem.node.isprintable()


@pytest.mark.parametrize(
    "name", ["orders_2", "ünï", "数据", "with space", "a-b", "select", "Upper"]
)
def test_a_name_is_taken_that_seeknal_can_use(name: str) -> None:
    graph, _ = build(a_project(a_node(f"rule.{name}")))
    assert list(graph.nodes) == [f"rule.{name}"]


@pytest.mark.parametrize(
    "others",
    [
        pytest.param(["transform.a_b", "transform.a.b"], id="dots and underscores"),
        pytest.param(["transform.Orders", "transform.orders"], id="case"),
    ],
)
def test_ids_are_refused_that_differ_only_in(others: list[str]) -> None:
    problem = the_problem(*(a_node(other) for other in others))
    assert all(other in problem for other in others)
    assert "would share files and views" in problem


def test_all_problems_are_told_at_once() -> None:
    problems = refused(
        a_node("transform.a", "transform.b"),
        a_node("transform.b", "transform.a", "source.nope"),
        a_node("source.x/y"),
        parse_errors=(
            "Seeknal says something new",
            "Missing 'name' field in /projects/shop/seeknal/n.yml",
        ),
    )
    assert [problem.what.split(":")[0] for problem in problems] == [
        "Seeknal says something new",
        "has no `name",
        "its name would be a path",
        "reads source.nope, which is not in the project",
        "nodes wait for each other",
    ]


def test_a_message_that_is_not_known_is_passed_on_with_its_file() -> None:
    message = "Something in /projects/shop/seeknal/a b/x.yml\n  broke: seeknal/c.py went"
    problem = parse_errors.translate(message, "/projects/shop/")
    assert problem == Problem(
        what="Something in seeknal/a b/x.yml broke: seeknal/c.py went", file="seeknal/c.py"
    )


# --- what is warned of --------------------------------------------------------------------------


def test_a_reference_that_is_not_declared_becomes_an_input_and_a_warning() -> None:
    sql = "SELECT * FROM source.y JOIN ref('source.x') USING (id)"
    graph, warnings = build(
        a_project(
            a_node("transform.a", "source.x", sql=sql), a_node("source.y"), a_node("source.x")
        )
    )
    assert graph.nodes["transform.a"].inputs == ("source.x", "source.y")
    assert graph.nodes["transform.a"].undeclared == ("source.y",)
    assert list(graph.nodes)[-1] == "transform.a"
    (warning,) = warnings
    assert str(warning) == (
        "seeknal/transforms/a.yml · transform.a · inputs: its SQL reads source.y, which its inputs "
        "do not list: it runs after source.y here, but with `seeknal run` only by luck\n"
        "  → add `- ref: source.y` under `inputs:`"
    )


def test_sql_that_names_its_own_node_is_left_to_duckdb() -> None:
    graph, warnings = build(a_project(a_node("transform.a", sql="SELECT * FROM transform.a")))
    assert graph.nodes["transform.a"].inputs == ()
    assert warnings == ()


@pytest.mark.parametrize(
    ("kind", "seeknal"),
    [
        pytest.param("rule", "finds no rows", id="a rule"),
        pytest.param("profile", "finds no rows", id="a profile"),
        pytest.param("exposure", "exports invented sample rows", id="an exposure"),
    ],
)
def test_reading_an_aggregation_warns_that_seeknal_alone_would_not(kind: str, seeknal: str) -> None:
    nodes = (a_node(f"{kind}.a", "aggregation.daily"), a_node("aggregation.daily"))
    (warning,) = build(a_project(*nodes))[1]
    assert warning.what == (
        f"reads aggregation.daily: its real rows here, but `seeknal run` {seeknal}"
    )
    assert '`"aggregation.daily"`' in warning.fix
    assert warning.node == f"{kind}.a"


# --- walking and finding -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "depth", "expected"),
    [
        pytest.param(
            ["source.users"],
            None,
            {"transform.clean", "feature_group.customers", "exposure.report"},
            id="everything downstream",
        ),
        pytest.param(["source.users"], 1, {"transform.clean"}, id="one step"),
        pytest.param(["source.users"], 0, set(), id="no step"),
        pytest.param(
            ["source.orders", "feature_group.customers"],
            1,
            {"transform.clean", "exposure.report"},
            id="of two nodes",
        ),
        pytest.param([], None, set(), id="of none"),
    ],
)
def test_downstream(ids: list[str], depth: int | None, expected: set[str]) -> None:
    graph, _ = build(SHOP)
    assert graph.downstream_of(ids, depth) == expected


def test_upstream_is_what_a_node_reads_directly_or_through_others() -> None:
    graph, _ = build(SHOP)
    reads = {"transform.clean", "source.orders", "source.users"}
    assert graph.upstream_of(["feature_group.customers"]) == reads
    assert graph.upstream_of(["feature_group.customers"], 1) == {"transform.clean"}


def test_a_node_is_found_by_its_id_or_its_only_name() -> None:
    graph, _ = build(SHOP)
    assert graph.find("source.users") is graph.nodes["source.users"]
    assert graph.find("clean") is graph.nodes["transform.clean"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            "a",
            "2 nodes are called 'a'\n  → give the whole id: source.a or transform.a",
            id="a name that two nodes have",
        ),
        pytest.param("source.ordr", "did you mean source.orders?", id="a misspelt id"),
        pytest.param("ordres", "did you mean source.orders?", id="a misspelt name"),
        pytest.param("zzz", "the project has 3 nodes, such as source.a", id="nothing alike"),
    ],
)
def test_a_node_is_not_found_by(text: str, said: str) -> None:
    graph, _ = build(a_project(*map(a_node, ["source.a", "transform.a", "source.orders"])))
    with pytest.raises(ProjectRefused) as caught:
        graph.find(text)
    assert said in str(caught.value)


def test_a_graph_without_nodes_says_so() -> None:
    with pytest.raises(ProjectRefused, match="the project has 0 nodes, such as none"):
        Graph("shop", "/projects/shop", {}).find("x")


def test_the_same_name_under_another_kind_is_nearer_than_a_similar_spelling() -> None:
    ids = ["transform.order", "source.orders", "rule.orders"]
    assert nearest("transform.orders", ids) == ["source.orders", "rule.orders"]


def test_three_thousand_nodes_with_long_sql_become_a_graph() -> None:
    chance = random.Random(3)  # noqa: S311 - a test's data
    nodes: list[dict[str, Any]] = []
    for number in range(3000):
        refs = [chance.choice(nodes)["id"] for _ in range(3) if nodes]
        sql = "SELECT a.id, b.x, 'c' FROM {} a JOIN ref('{}') b ON a.id = b.id, {} c WHERE a.x > 1"
        text = sql.format(*refs) * 3 if refs else ""
        nodes.append(a_node(f"transform.n{number}", *refs[:2], sql=text))
    graph, _ = build(a_project(*nodes))
    assert len(graph.nodes) == 3000
    assert sum(len(node.inputs) for node in graph.nodes.values()) > 6000
