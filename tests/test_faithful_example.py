"""The example project, run by ``seeknal run`` and by us, through everything that comes after."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from tests.faithful import EXAMPLE, differences, seeknal, states
from tests.projects import Pair, example_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both have run once; no test changes anything in it."""
    with example_pair(tmp_path_factory.mktemp("example")) as pair:
        pair.run_both()
        yield pair


def test_every_table_and_file_is_equal(pair: Pair) -> None:
    assert differences(pair.mono, pair.ours) == []


def test_status_rows_and_hash_of_every_node_are_equal(pair: Pair) -> None:
    one, other = states(pair.mono), states(pair.ours)
    files = [file for kind in ("*.yml", "*.py") for file in (EXAMPLE / "seeknal").rglob(kind)]
    assert len(one) == len(files) - 2  # two are common config
    assert other == one
    assert {status for status, _, _ in one.values()} == {"success"}


def test_what_seeknal_remembers_of_a_node_is_equal(pair: Pair) -> None:
    one, other = (_remembered(project) for project in (pair.mono, pair.ours))
    assert other == one


def _remembered(project: Path) -> Any:
    """Return the run state, without times and without the project's own path."""
    state = _read(project, "run_state.json")
    for past in state["nodes"].values():
        del past["duration_ms"], past["last_run"]
        past["metadata"].pop("delivery_duration", None)
    del state["last_run"], state["run_id"]
    return state


def _read(project: Path, name: str) -> Any:
    text = (project / "target" / name).read_text(encoding="utf-8")
    return json.loads(text.replace(str(project), "<project>"))


def test_the_manifest_is_equal(pair: Pair) -> None:
    one, other = (_read(project, "manifest.json") for project in (pair.mono, pair.ours))
    for manifest in (one, other):
        del manifest["metadata"]["generated_at"]
        manifest["edges"].sort(key=str)  # Seeknal takes them from a set
    assert other == one


def test_the_consolidated_features_are_equal(pair: Pair) -> None:
    store = pair.ours / "target" / "feature_store" / "customer"
    features = duckdb.read_parquet(str(store / "features.parquet"))
    assert features.columns == ["customer_id", "event_time", "customer_features"]
    assert len(features.fetchall()) == states(pair.ours)["feature_group.customer_features"][1]
    assert (store / "_entity_catalog.json").exists()  # `differences` has compared it


def test_what_seeknal_exports_by_itself_is_no_link(pair: Pair) -> None:
    left = [*(pair.ours / "target").rglob("*"), *(pair.ours / "exports").rglob("*")]
    assert left
    assert not [file for file in left if file.is_symlink()]


def test_seeknals_own_plan_is_the_same_after_either_run(pair: Pair) -> None:
    plans = [_show_plan(pair.mono, pair.home), _show_plan(pair.ours, pair.home)]
    assert plans[0] == plans[1]
    assert set(plans[0].values()) == {"CACHED"}


def test_seeknal_finds_nothing_to_do_after_our_run(pair: Pair) -> None:
    done = seeknal(pair.ours, pair.home / "ours", "run")
    assert done.returncode == 0
    assert "Nothing to run" in done.stdout


def test_a_second_run_of_ours_is_all_cached(pair: Pair) -> None:
    before = states(pair.ours)
    done = pair.run_ours("--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert results.keys() == before.keys()
    assert {result["reason"] for result in results.values()} == {"Cached"}
    assert states(pair.ours) == before


def _show_plan(project: Path, home: Path) -> dict[str, str]:
    """Return what Seeknal would do with each node: CACHED or RUN."""
    done = seeknal(project, home / "plan", "run", "--show-plan")
    return {name: what for what, name in re.findall(r"\d+\. (CACHED|RUN)\s+(\S+)", done.stdout)}


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both have run, and every test changes something and runs both again, so that they agree."""
    with example_pair(tmp_path_factory.mktemp("changing")) as pair:
        pair.run_both()
        yield pair


def _last_runs(project: Path) -> dict[str, str]:
    nodes = _read(project, "run_state.json")["nodes"]
    return {node: past["last_run"] for node, past in nodes.items()}


def _other_sql(pair: Pair) -> None:
    pair.edit("seeknal/transforms/web_traffic.yml", "AVG(pages), 2", "AVG(pages), 1")


def _other_parameter(pair: Pair) -> None:
    pair.edit("seeknal/transforms/customer_days.yml", '"2025-04-01"', '"2025-05-01"')


def _one_row_more(pair: Pair) -> None:
    last = "\n2,customer2@shop.example,"
    more = "\n999,new@shop.example,north,2024-01-01,true"
    pair.edit("data/customers.csv", last, more + last)


def _touched(pair: Pair) -> None:
    file = "data/orders.csv"
    pair.write(file, (pair.mono / file).read_text(encoding="utf-8"))


def _one_node_less(pair: Pair) -> None:
    for project in (pair.mono, pair.ours):
        (project / "seeknal" / "quality" / "catalogue_is_priced.yml").unlink()
    _other_sql_of_leaf(pair)


def _other_sql_of_leaf(pair: Pair) -> None:
    pair.edit("seeknal/transforms/newsletter_audience.yml", "'unknown'", "'nowhere'")


CHANGES = [
    pytest.param(
        _other_sql,
        {"transform.web_traffic", "transform.daily_sales"},
        id="other SQL in a transform",
    ),
    pytest.param(
        _other_parameter,
        {
            "transform.customer_days",
            "transform.customer_summary",
            "transform.customer_segments",
            "transform.newsletter_audience",
            "exposure.newsletter_file",
            "aggregation.customer_spend",
            "second_order_aggregation.region_spend",
            "feature_group.customer_features",
        },
        id="another parameter",
    ),
    pytest.param(_one_row_more, {"source.customers"}, id="one row more in a CSV file"),
    pytest.param(
        _touched, {"source.orders", "rule.no_order_without_lines"}, id="a CSV file touched"
    ),
    pytest.param(
        _one_node_less,
        {"transform.newsletter_audience", "exposure.newsletter_file"},
        id="one node less, and other SQL",
    ),
]


@pytest.mark.parametrize(("change", "among"), CHANGES)
def test_a_change_runs_the_same_nodes_again_and_ends_equal(
    changing: Pair, change: Callable[[Pair], None], among: set[str]
) -> None:
    change(changing)
    plans = [_show_plan(project, changing.home) for project in (changing.mono, changing.ours)]
    assert plans[0] == plans[1]
    before = [_last_runs(changing.mono), _last_runs(changing.ours)]
    changing.run_both()
    ran = [
        {node for node, at in _last_runs(project).items() if past.get(node) != at}
        for project, past in zip((changing.mono, changing.ours), before, strict=True)
    ]
    # Seeknal also reads files again of which its hash says that they have not changed.
    assert {node for node in ran[0] - ran[1] if not node.startswith("source.")} == set()
    assert among <= ran[1] <= ran[0]
    assert len(ran[1]) < len(before[1])
    assert changing.differences() == []


def test_a_selection_runs_what_it_needs_and_the_rest_can_follow(pair: Pair, tmp_path: Path) -> None:
    with example_pair(tmp_path) as part:
        assert part.run_ours("--select", "daily_sales").returncode == 0
        ran = _last_runs(part.ours)
        assert sorted(ran) == [
            "source.order_items",
            "source.orders",
            "source.products",
            "source.web_sessions",
            "transform.booked_orders",
            "transform.daily_sales",
            "transform.order_lines",
            "transform.web_traffic",
        ]
        assert part.run_ours().returncode == 0
        again = _last_runs(part.ours)
        assert again.keys() == states(pair.mono).keys()
        assert ran.items() <= again.items()
        assert differences(part.ours, pair.mono) == []
        # The pairs' files have the same times, so also the hashes are the same.
        assert states(part.ours) == states(pair.mono)
