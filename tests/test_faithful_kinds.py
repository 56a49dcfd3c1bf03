"""Features, quality, exposures and semantics: node by node, and as ``seeknal run`` has them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import duckdb
import pytest

from tests.faithful import states
from tests.projects import LONG_AGO, Pair, csv, node, pair_of, rows, transform, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GROUP = """
entity: {name: grp, join_keys: [grp_id]}
materialization: {event_time_col: event_time, offline: true, online: false}
features: [total]
"""
AGGREGATION = """
id_col: grp
feature_date_col: day
application_date_col: asof
group_by: [region, day]
features:
  - name: value
    basic: [sum, max]
"""
SECOND = """
source: aggregation.spend
id_col: region
feature_date_col: day
application_date_col: asof
features:
  value_sum:
    basic: [sum, mean]
"""
MODEL = """
model: "ref('transform.days')"
default_time_dimension: day
entities: [{name: id, type: primary}]
dimensions: [{name: region, type: string, expr: region}]
measures: [{name: sales, expr: value, agg: sum}, {name: days, expr: id, agg: count}]
"""
RANGE = "rule: {type: range, column: value, params: {min_val: 0, max_val: %s}}\n"
DAYS = """
    SELECT id, grp, 'r' || grp % 2 AS region, CAST(day AS DATE) AS day,
      DATE '2024-02-01' AS asof, value
    FROM __THIS__
"""
TOTALS = """
    SELECT grp AS grp_id, CAST(max(day) AS TIMESTAMP) AS event_time, sum(value) AS total
    FROM __THIS__ GROUP BY grp
"""


def _features(project: Path) -> None:
    totals = ("transform.totals",)
    transform(project, "days", DAYS, "source.plain")
    transform(project, "totals", TOTALS, "transform.days")
    node(project, "feature_group.totals", GROUP, inputs=totals)
    node(project, "feature_group.also", GROUP.replace("total", "grp_id"), inputs=totals)
    node(project, "feature_group.text_entity", "entity: grp\n", inputs=totals)
    of_group = "SELECT max(total) AS top FROM feature_group.totals"
    transform(project, "of_group", of_group, "feature_group.totals")
    declared = "source: transform.days\n" + AGGREGATION
    node(project, "aggregation.spend", declared, inputs=("transform.days",))
    node(project, "second_order_aggregation.regions", SECOND, inputs=("aggregation.spend",))
    quoted = 'SELECT count(*) AS n FROM "aggregation.spend"'
    transform(project, "of_aggregation", quoted, "source.plain", "aggregation.spend")


def _quality(project: Path) -> None:
    plain = ("source.plain",)
    node(project, "rule.passes", RANGE % 100, inputs=plain)
    node(project, "rule.fails", RANGE % 1, inputs=plain)
    node(project, "rule.warns", RANGE % 1 + "params: {severity: warn}\n", inputs=plain)
    several = "rule:\n  - {type: uniqueness, columns: [id]}\n  - {type: 'null', columns: [grp]}\n"
    node(project, "rule.several", several, inputs=("transform.days",))
    sql = "rule: {type: sql_assertion, sql: SELECT * FROM transform_totals WHERE total < 0}\n"
    node(project, "rule.by_sql", sql, inputs=("transform.totals",))
    total = RANGE.replace("value", "total") % 9999
    node(project, "rule.on_group", total, inputs=("feature_group.totals",))
    node(project, "profile.of_source", "profile: {columns: [value, grp]}\n", inputs=plain)
    transform(project, "timeless", "SELECT id, region FROM __THIS__", "transform.days")
    # Of a time a profile tells how many hours ago it was: no two runs would ever be equal.
    node(project, "profile.of_all", "profile: {}\n", inputs=("transform.timeless",))
    check = "rule: {type: profile_check, checks: [{metric: row_count, fail: '< 5'}]}\n"
    node(project, "rule.on_profile", check, inputs=("profile.of_source",))


def _exposures(project: Path) -> None:
    paths = {
        "csv": "target/exports/days.csv",
        "json": "exports/deep/er/days.json",
        "jsonl": "exports/days.jsonl",
        "parquet": "exports/days.parquet",
    }
    for kind, path in paths.items():
        body = f"type: file\nparams: {{format: {kind}, path: {path}}}\n"
        node(project, f"exposure.as_{kind}", body, inputs=("transform.totals",))
    root = "type: file\nparams: {format: csv, path: at_the_root.csv}\n"
    node(project, "exposure.root", root, inputs=("feature_group.totals",))
    write(project, "data/reports/README", "a folder that is there already\n")
    there = "type: file\nparams: {format: csv, path: data/reports/plain.csv}\n"
    node(project, "exposure.in_data", there, inputs=("source.plain",))


def _build(project: Path) -> None:
    csv(project, "plain", rows=40)
    _features(project)
    _quality(project)
    _exposures(project)
    node(project, "semantic_model.sales", MODEL)
    metric = "type: ratio\nnumerator: sales\ndenominator: days\n"
    node(project, "metric.per_day", metric + "depends_on: [{ref: semantic_model.sales}]\n")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair_of(tmp_path_factory.mktemp("kinds"), "kinds", _build) as pair:
        pair.run_both()
        yield pair


@pytest.mark.parametrize(
    ("node_id", "status", "count"),
    [
        pytest.param("feature_group.totals", "success", 3, id="a feature group"),
        pytest.param("feature_group.also", "success", 3, id="a second one of the same entity"),
        pytest.param(
            "feature_group.text_entity", "success", 3, id="a group whose entity is a word"
        ),
        pytest.param("transform.of_group", "success", 1, id="SQL with FROM feature_group.x"),
        pytest.param("aggregation.spend", "success", 40, id="an aggregation"),
        pytest.param("second_order_aggregation.regions", "success", 2, id="a second order"),
        pytest.param("transform.of_aggregation", "success", 1, id="SQL over an aggregation"),
        pytest.param("rule.passes", "success", 40, id="a rule that holds"),
        pytest.param("rule.fails", "failed", 0, id="a rule that does not hold"),
        pytest.param("rule.warns", "success", 40, id="a rule that only warns"),
        pytest.param("rule.several", "success", 40, id="several rules in one"),
        pytest.param("rule.by_sql", "success", 0, id="a rule in SQL"),
        pytest.param("rule.on_group", "success", 3, id="a rule on a feature group"),
        pytest.param("profile.of_source", "success", 40, id="a profile of two columns"),
        pytest.param("profile.of_all", "success", 40, id="a profile of every column"),
        pytest.param("rule.on_profile", "success", 0, id="a rule on a profile"),
        pytest.param("exposure.as_csv", "success", 3, id="a CSV file in target"),
        pytest.param("exposure.as_json", "success", 3, id="a JSON file in a new sub-folder"),
        pytest.param("exposure.as_jsonl", "success", 3, id="a JSON lines file"),
        pytest.param("exposure.as_parquet", "success", 3, id="a Parquet file"),
        pytest.param("exposure.root", "success", 3, id="a file at the root of the project"),
        pytest.param("exposure.in_data", "success", 40, id="a file in a folder with others"),
        pytest.param("semantic_model.sales", "success", 0, id="a semantic model"),
        pytest.param("metric.per_day", "success", 0, id="a metric"),
    ],
)
def test_a_node_ends_as_in_seeknal(pair: Pair, node_id: str, status: str, count: int) -> None:
    assert states(pair.mono)[node_id][:2] == (status, count)
    assert states(pair.ours)[node_id] == states(pair.mono)[node_id]


def test_all_that_these_kinds_leave_is_equal(pair: Pair) -> None:
    assert pair.all_differences == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("target/exports/days.csv", id="in target"),
        pytest.param("exports/deep/er/days.json", id="in a new sub-folder"),
        pytest.param("at_the_root.csv", id="at the root"),
        pytest.param("data/reports/plain.csv", id="in a folder with others"),
    ],
)
def test_an_exported_file_is_equal_and_no_link(pair: Pair, name: str) -> None:
    assert (pair.ours / name).read_text() == (pair.mono / name).read_text()
    assert not (pair.ours / name).is_symlink()
    folders = [entry for entry in (pair.ours / name).parents if entry.is_relative_to(pair.ours)]
    assert not any(folder.is_symlink() for folder in folders)


def _one_transform(project: Path) -> None:
    csv(project, "plain", rows=40)
    transform(project, "days", DAYS, "source.plain")
    node(project, "aggregation.bare", AGGREGATION, inputs=("transform.days",))


def test_an_aggregation_that_names_no_source_reads_its_input(tmp_path: Path) -> None:
    with pair_of(tmp_path, "bare", _one_transform) as pair:
        pair.run_both()
        assert states(pair.ours)["aggregation.bare"][:2] == ("success", 40)
        assert pair.differences() == []


def _newer_transform(project: Path) -> None:
    _one_transform(project)
    # It comes after what the aggregation has declared, so its file is the newest for Seeknal.
    transform(project, "newer", "SELECT 1 AS other FROM __THIS__", "transform.days")


def test_an_aggregation_never_reads_whatever_file_is_newest(tmp_path: Path) -> None:
    with pair_of(tmp_path, "newer", _newer_transform) as pair:
        assert pair.run_ours().returncode == 0
        os.utime(pair.ours / "target" / "intermediate" / "transform_days.parquet", (LONG_AGO,) * 2)
        assert pair.run_ours("--select", "aggregation.bare").returncode == 0
        file = pair.ours / "target" / "aggregation" / "bare" / "result.parquet"
        assert len(duckdb.read_parquet(str(file)).fetchall()) == 40


def _below_an_aggregation(project: Path) -> None:
    csv(project, "plain", rows=40)
    transform(project, "days", DAYS, "source.plain")
    spend = ("aggregation.spend",)
    declared = "source: transform.days\n" + AGGREGATION
    node(project, "aggregation.spend", declared, inputs=("transform.days",))
    body = "type: file\nparams: {format: csv, path: exports/spend.csv}\n"
    node(project, "exposure.spend", body, inputs=spend)
    node(project, "profile.spend", "profile: {columns: [value_sum]}\n", inputs=spend)
    check = RANGE.replace("value", "value_sum") % 999
    node(project, "rule.spend", check, inputs=spend)
    for name, reads in {
        "this": "__THIS__",
        "numbered": "input_0",
        "by_ref": "ref('aggregation.spend')",
        "by_view": "aggregation.spend",
        "quoted": '"aggregation.spend"',
    }.items():
        sql = f"SELECT count(*) AS n FROM {reads}"
        transform(project, name, sql, *spend)


def test_what_reads_an_aggregation_reads_its_real_rows(tmp_path: Path) -> None:
    with pair_of(tmp_path, "below", _below_an_aggregation) as pair:
        done = pair.run_ours()
        assert done.returncode == 0, done.stdout + done.stderr
        pair.run_mono()
    assert "Sample Record" in (pair.mono / "exports" / "spend.csv").read_text(encoding="utf-8")
    exported = (pair.ours / "exports" / "spend.csv").read_text(encoding="utf-8").splitlines()
    assert len(exported) == 41
    assert "value_sum" in exported[0]
    ended = states(pair.ours)
    assert {ended[f"{kind}.spend"][1] for kind in ("exposure", "profile", "rule")} == {40}
    for name in ("this", "numbered", "by_ref", "by_view", "quoted"):
        assert rows(pair.ours, f"transform.{name}") == [(40,)]
