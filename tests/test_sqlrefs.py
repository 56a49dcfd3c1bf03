"""Which nodes SQL reads, however it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal_k8s.sqlrefs import references

KNOWN = ("source.orders", "source.Users", "aggregation.daily", "transform.with space")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        pytest.param("SELECT * FROM source.orders", ["source.orders"], id="after FROM"),
        pytest.param("from Source.ORDERS", ["source.orders"], id="in any case"),
        pytest.param("FROM source.users", ["source.Users"], id="spelt as the id is"),
        pytest.param(
            "SELECT 1 FROM a JOIN source.orders o ON o.id = a.id", ["source.orders"], id="JOIN"
        ),
        pytest.param(
            "SELECT 1 FROM a, source.orders o, (source.users)",
            ["source.orders", "source.Users"],
            id="after commas in a FROM list",
        ),
        pytest.param(
            "SELECT 1 FROM a JOIN b ON f(a.x, b.y), source.orders",
            ["source.orders"],
            id="after a comma behind a join",
        ),
        pytest.param('FROM "source"."orders"', ["source.orders"], id="two quoted names"),
        pytest.param('FROM source."orders"', ["source.orders"], id="one quoted name of two"),
        pytest.param('FROM transform."with space"', ["transform.with space"], id="a blank in it"),
        pytest.param('FROM "aggregation.daily"', ["aggregation.daily"], id="one quoted identifier"),
        pytest.param("SELECT ref('source.orders')", ["source.orders"], id="ref anywhere"),
        pytest.param('FROM ref( "source.orders" )', ["source.orders"], id="ref in double quotes"),
        pytest.param("FROM ref('source.nope')", [], id="no such node"),
        pytest.param(
            "FROM source /* x */ . -- y\n orders", ["source.orders"], id="comments within"
        ),
        pytest.param("FROM /* a */ source.orders", ["source.orders"], id="a comment between"),
        pytest.param("SELECT 1 -- FROM source.orders", [], id="only in a line comment"),
        pytest.param("SELECT 1 /* FROM\n source.orders */", [], id="only in a block comment"),
        pytest.param("SELECT ' FROM source.orders '", [], id="only in a string"),
        pytest.param("SELECT 'it''s FROM source.orders '", [], id="a doubled quote in a string"),
        pytest.param(r"SELECT e'it\'s FROM source.orders '", [], id="an escaped quote in a string"),
        pytest.param("SELECT $$ FROM source.orders $$", [], id="only in a dollar string"),
        pytest.param("SELECT 'a' FROM source.orders", ["source.orders"], id="after a string"),
        pytest.param('SELECT "--" FROM source.orders', ["source.orders"], id="a quoted dash dash"),
        pytest.param("SELECT source.orders FROM t AS source", [], id="a column"),
        pytest.param("SELECT a, source.orders FROM t AS source", [], id="a column after a comma"),
        pytest.param("FROM t source SELECT a, source.orders", [], id="a column of a late SELECT"),
        pytest.param("SELECT 1 FROM t WHERE f(1, source.orders)", [], id="an argument"),
        pytest.param("SELECT 1 FROM range(1, source.orders) t", [], id="an argument in FROM"),
        pytest.param("SELECT 1 FROM t GROUP BY a, source.orders", [], id="a column to group by"),
        pytest.param("SELECT extract(day FROM source.orders) FROM t", [], id="EXTRACT ... FROM"),
        pytest.param("SELECT 1 WHERE a IS DISTINCT FROM source.orders", [], id="DISTINCT FROM"),
        pytest.param("FROM lake.source.orders", [], id="in another catalog"),
        pytest.param("FROM source.orders.x", [], id="a longer name"),
        pytest.param("FROM source.orders(1)", [], id="a function"),
        pytest.param("FROM 'source.orders'", [], id="a file's name"),
        pytest.param("FROM mysource.orders", [], id="a longer kind"),
        pytest.param(
            "WITH a AS (SELECT * FROM source.orders) SELECT * FROM a, (SELECT * FROM source.users)",
            ["source.orders", "source.Users"],
            id="in subqueries",
        ),
        pytest.param(
            "CREATE TABLE a AS FROM source.orders; SELECT a, source.users FROM a",
            ["source.orders"],
            id="the second statement starts anew",
        ),
        pytest.param("FROM source.orders, source.orders", ["source.orders"], id="once when twice"),
        pytest.param("PIVOT source.orders ON day", ["source.orders"], id="PIVOT"),
        pytest.param("FROM", [], id="nothing after FROM"),
        pytest.param("FROM source.", [], id="half a name"),
        pytest.param("ref(", [], id="half a ref"),
        pytest.param(")) , source.orders '", [], id="nonsense"),
        pytest.param("", [], id="nothing"),
    ],
)
def test_sql_reads(sql: str, expected: list[str]) -> None:
    known = {node_id.casefold(): node_id for node_id in KNOWN}
    assert list(references(sql, known)) == expected


@given(st.text("fromjinselct source.orders,()'\"-/*;$ \n", max_size=60))
def test_no_sql_however_broken_is_too_much(sql: str) -> None:
    assert set(references(sql, {"source.orders": "source.orders"})) <= {"source.orders"}
