"""Python nodes, made by decorators: node by node, and as ``seeknal run`` has them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.faithful import states
from tests.projects import Pair, csv, pair_of, rows, transform, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = """
    from seeknal.pipeline.decorators import source

    @source(name="py_source", source="csv", table="data/plain.csv", tags=["py"])
    def py_source():
        pass
"""
READER = """
    import sys
    import pandas as pd
    from seeknal.pipeline.decorators import transform

    @transform(name="reader", inputs=["source.py_source", "transform.doubled"], factor=3)
    def reader(ctx):
        print("reading", file=sys.stdout)
        print("a word to the side", file=sys.stderr)
        rows = ctx.ref("source.py_source").merge(ctx.ref("transform.doubled"), on="id")
        rows["times"] = rows["twice"] * ctx.get_param("factor")
        return rows

    @transform(name="sql_inside", inputs=["transform.reader"])
    def sql_inside(ctx):
        rows = ctx.ref("transform.reader")
        return ctx.duckdb.sql("SELECT grp, sum(times) AS t FROM rows GROUP BY grp ORDER BY grp").df()

    @transform(name="nothing", inputs=["transform.reader"])
    def nothing(ctx):
        return None

    @transform(name="no_rows", inputs=["transform.reader"])
    def no_rows(ctx):
        return ctx.ref("transform.reader").head(0)

    @transform(name="by_body")
    def by_body(ctx):
        return ctx.ref("transform.reader").tail(2)
"""
FEATURES = """
    from seeknal.pipeline.decorators import feature_group, second_order_aggregation

    @feature_group(name="py_group", entity="grp", inputs=["source.py_source"])
    def py_group(ctx):
        rows = ctx.ref("source.py_source").rename(columns={"grp": "grp_id", "day": "event_time"})
        return rows.groupby("grp_id", as_index=False).agg({"value": "sum", "event_time": "max"})

    @second_order_aggregation(
        name="py_second", id_col="grp", feature_date_col="day", application_date_col="day",
        features={"value": {"basic": ["sum", "max"]}},
    )
    def py_second(ctx):
        return ctx.ref("source.py_source")[["grp", "day", "value"]]
"""
SAME_NAME = """
    from seeknal.pipeline.decorators import {kind}

    @{kind}(name="dup", {arguments}inputs=["source.py_source"])
    def dup(ctx):
        rows = ctx.ref("source.py_source").rename(columns={{"grp": "grp_id", "day": "event_time"}})
        return rows[["grp_id", "event_time"]].head({count}).assign(kind="{kind}")
"""
HELPED = """
    import pandas as pd
    from seeknal.pipeline.decorators import transform

    @transform(name="helped")
    def helped(ctx):
        from helpers.sums import add  # Seeknal finds it when the node runs, not when it is read

        return pd.DataFrame({"sum": [add(2, 3)]})
"""
HEADED = """
    # /// script
    # requires-python = ">=3.11"
    # dependencies = []
    # ///
    import pandas as pd
    from seeknal.pipeline.decorators import transform

    @transform(name="headed")
    def headed(ctx):
        return pd.DataFrame({"headed": [True]})
"""
FAILING = """
    from seeknal.pipeline.decorators import transform

    @transform(name="raising")
    def raising(ctx):
        raise ValueError("on purpose")

    @transform(name="leaving")
    def leaving(ctx):
        raise SystemExit(3)
"""


def _build(project: Path) -> None:
    csv(project, "plain")
    transform(project, "doubled", "SELECT id, value * 2 AS twice FROM __THIS__", "source.plain")
    write(project, "seeknal/py/py_source.py", SOURCE)
    write(project, "seeknal/py/reader.py", READER)
    write(project, "seeknal/py/features.py", FEATURES)
    write(project, "helpers/__init__.py", "")
    write(project, "helpers/sums.py", "def add(a, b):\n    return a + b\n")
    write(project, "seeknal/py/helped.py", HELPED)
    write(project, "seeknal/py/headed.py", HEADED)
    write(project, "seeknal/py/failing.py", FAILING)
    one = SAME_NAME.format(kind="transform", arguments="", count=2)
    other = SAME_NAME.format(kind="feature_group", arguments='entity="grp", ', count=5)
    write(project, "seeknal/one/dup.py", one)
    write(project, "seeknal/other/dup.py", other)
    transform(project, "below_python", "SELECT count(*) AS n FROM __THIS__", "transform.reader")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair_of(tmp_path_factory.mktemp("python"), "python", _build) as pair:
        pair.run_both()
        yield pair


@pytest.mark.parametrize(
    ("node_id", "status", "count"),
    [
        pytest.param("source.py_source", "success", 12, id="a source"),
        pytest.param("transform.reader", "success", 12, id="ctx.ref, a parameter and prints"),
        pytest.param("transform.sql_inside", "success", 3, id="ctx.duckdb"),
        pytest.param("transform.nothing", "success", 0, id="a node that returns None"),
        pytest.param("transform.no_rows", "success", 0, id="a node that returns no rows"),
        pytest.param("transform.by_body", "success", 2, id="an input found in the body"),
        pytest.param("transform.below_python", "success", 1, id="SQL that reads a Python node"),
        pytest.param("feature_group.py_group", "success", 3, id="a feature group"),
        pytest.param("second_order_aggregation.py_second", "success", 3, id="a second order"),
        pytest.param("transform.dup", "success", 2, id="one of two with the same name"),
        pytest.param("feature_group.dup", "success", 5, id="the other of the same name"),
        pytest.param("transform.helped", "success", 1, id="a helper of the project"),
        pytest.param("transform.headed", "success", 1, id="a PEP 723 header, offline"),
        pytest.param("transform.raising", "failed", 0, id="an exception"),
        pytest.param("transform.leaving", "failed", 0, id="an exit code of its own"),
    ],
)
def test_a_node_ends_as_in_seeknal(pair: Pair, node_id: str, status: str, count: int) -> None:
    assert states(pair.mono)[node_id][:2] == (status, count)
    assert states(pair.ours)[node_id] == states(pair.mono)[node_id]


def test_all_that_python_nodes_leave_is_equal(pair: Pair) -> None:
    assert pair.all_differences == []
    for kind, count in (("transform", 2), ("feature_group", 5)):
        assert [row[-1] for row in rows(pair.ours, f"{kind}.dup")] == [kind] * count


@pytest.mark.parametrize(
    ("node_id", "key"),
    [
        pytest.param("transform.reader", "stdout", id="what a node prints"),
        pytest.param("transform.raising", "error", id="the error of a failed one"),
        pytest.param("transform.leaving", "returncode", id="the exit code of a failed one"),
    ],
)
def test_seeknal_keeps_the_same_about_a_script(pair: Pair, node_id: str, key: str) -> None:
    kept = [
        json.loads((project / "target" / "run_state.json").read_text(encoding="utf-8"))
        for project in (pair.mono, pair.ours)
    ]
    one, other = (state["nodes"][node_id]["metadata"][key] for state in kept)
    assert one
    assert one == other


COUNTER = """
    import pandas as pd
    from seeknal.pipeline.decorators import transform

    @transform(name="counter", inputs=["source.plain"])
    def counter(ctx):
        seen = ctx.state.get("seen", []) + [len(ctx.ref("source.plain"))]
        ctx.state.set("seen", seen)
        return pd.DataFrame({"seen": seen})
"""


def _counting(project: Path) -> None:
    csv(project, "plain", rows=3)
    write(project, "seeknal/py/counter.py", COUNTER)


def test_a_nodes_own_state_lives_on_to_the_next_run(tmp_path: Path) -> None:
    with pair_of(tmp_path, "counting", _counting) as pair:
        pair.run_both()
        pair.write("data/plain.csv", "id,grp\n1,1\n")
        pair.run_both()
        assert pair.differences() == []
        assert rows(pair.ours, "transform.counter") == [(1,), (3,)]


DICE = """
    import random
    import tempfile
    import uuid
    import numpy as np
    import pandas as pd
    from seeknal.pipeline.decorators import transform

    @transform(name="{name}")
    def {name}(ctx):
        drawn = [np.random.rand(), np.random.default_rng().random(), random.random()]
        names = [uuid.uuid4().hex, next(tempfile._get_candidate_names())]
        return pd.DataFrame({{"drawn": [str(one) for one in [*drawn, *names]]}})
"""


def _dice(project: Path) -> None:
    csv(project, "plain")
    for name in ("one", "two", "three"):
        write(project, f"seeknal/py/{name}.py", DICE.format(name=name))


def test_two_nodes_never_throw_the_same_dice(tmp_path: Path) -> None:
    with pair_of(tmp_path, "pydice", _dice) as pair:
        assert pair.run_ours().returncode == 0
    drawn = [
        row for name in ("one", "two", "three") for row in rows(pair.ours, f"transform.{name}")
    ]
    assert len(drawn) == 15
    assert len(set(drawn)) == 15
