"""Names: the same for the same node, different for different ones, and fit for where they go."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal_k8s.names import bundle_name, digest, file_id, folded, slug

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("transform.daily_sales", "transform-daily-sales", id="a node id"),
        pytest.param("transform.SELECT", "transform-select", id="upper case"),
        pytest.param("__a..b  c__", "a-b-c", id="runs of other characters"),
        pytest.param("数据", "node", id="nothing that fits"),
        pytest.param("", "node", id="nothing at all"),
        pytest.param("ä1", "1", id="a digit is enough"),
        pytest.param("a" * 50, "a" * 40, id="too long"),
        pytest.param("a" * 39 + "-b", "a" * 39, id="never a dash at the end"),
    ],
)
def test_a_slug_is_readable_and_fits(text: str, expected: str) -> None:
    assert slug(text) == expected


@given(st.text())
def test_every_text_has_a_slug_that_kubernetes_takes(text: str) -> None:
    assert DNS_LABEL.fullmatch(slug(text))
    assert len(slug(text)) <= 40


@given(st.text(), st.text())
def test_every_bundle_name_is_a_dns_label(node_id: str, interval: str) -> None:
    name = bundle_name(node_id, interval)
    assert DNS_LABEL.fullmatch(name)
    assert len(name) <= 49
    assert name == bundle_name(node_id, interval)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(("transform.a", ""), ("transform.A", ""), id="case"),
        pytest.param(("transform.a_b", ""), ("transform.a.b", ""), id="dots"),
        pytest.param(("transform.ä", ""), ("transform.ö", ""), id="letters that no slug has"),
        pytest.param(("transform.a", ""), ("transform.a", "2024-01-01"), id="intervals"),
        pytest.param(("a", "bc"), ("ab", "c"), id="where the node ends and the interval begins"),
    ],
)
def test_bundles_have_different_names_that_differ_only_in(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    assert bundle_name(*one) != bundle_name(*other)


def test_a_bundle_name_stays_what_it_is_from_version_to_version() -> None:
    # Stores that exist have it, and a resumed run looks for it.
    assert bundle_name("transform.daily_sales") == "transform-daily-sales-fedb7419"


def test_a_digest_has_as_many_digits_as_asked() -> None:
    assert len(digest("a")) == 8
    assert digest("a", length=64).startswith(digest("a"))


@pytest.mark.parametrize(
    ("node_id", "as_file", "as_folded"),
    [
        pytest.param("transform.a.b", "transform_a_b", "transform_a_b", id="dots"),
        pytest.param("source.ORDERS", "source_ORDERS", "source_orders", id="case"),
        pytest.param("source.STRASSE", "source_STRASSE", "source_strasse", id="double s"),
        pytest.param("source.straße", "source_straße", "source_strasse", id="sharp s"),
    ],
)
def test_ids_are_compared_as_files_and_views_are(
    node_id: str, as_file: str, as_folded: str
) -> None:
    assert file_id(node_id) == as_file
    assert folded(node_id) == as_folded
