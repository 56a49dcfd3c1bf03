"""The one rule by which patches are merged, as a table and as laws."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal_k8s.patch import merge


@pytest.mark.parametrize(
    ("base", "patch", "expected"),
    [
        pytest.param({"a": 1}, {"b": 2}, {"a": 1, "b": 2}, id="maps merge"),
        pytest.param({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}, id="at any depth"),
        pytest.param({"a": 1, "b": 2}, {"a": None}, {"b": 2}, id="null deletes"),
        pytest.param({}, {"a": {"b": None}}, {"a": {}}, id="null deletes what is not there, too"),
        pytest.param({"a": [1, 2]}, {"a": [3]}, {"a": [3]}, id="plain lists are replaced"),
        pytest.param({"a": [1]}, {"a": []}, {"a": []}, id="also by nothing"),
        pytest.param({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}, id="a map replaces a value"),
        pytest.param({"a": {"b": 2}}, {"a": 1}, {"a": 1}, id="a value replaces a map"),
        pytest.param(
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            {"env": [{"name": "C", "value": "3"}, {"name": "A", "value": "4"}]},
            {
                "env": [
                    {"name": "A", "value": "4"},
                    {"name": "B", "value": "2"},
                    {"name": "C", "value": "3"},
                ]
            },
            id="named things merge in their place, new ones come last",
        ),
        pytest.param(
            {"volumes": [{"name": "w", "emptyDir": {}}]},
            {"volumes": [{"name": "w", "emptyDir": None, "secret": {"secretName": "s"}}]},
            {"volumes": [{"name": "w", "secret": {"secretName": "s"}}]},
            id="null deletes in a named thing",
        ),
        pytest.param(
            {"volumeMounts": [{"mountPath": "/a", "name": "v"}]},
            {"volumeMounts": [{"mountPath": "/b", "name": "v"}]},
            {"volumeMounts": [{"mountPath": "/a", "name": "v"}, {"mountPath": "/b", "name": "v"}]},
            id="one volume may be mounted twice",
        ),
        pytest.param(
            {"tolerations": [{"key": "a"}]},
            {"tolerations": [{"key": "b"}]},
            {"tolerations": [{"key": "b"}]},
            id="lists of things without names are replaced",
        ),
        pytest.param(
            {"a": [{"name": "x"}]}, {"a": [{"key": 1}]}, {"a": [{"key": 1}]}, id="also by others"
        ),
    ],
)
def test_patches_merge_by_one_rule(base: Any, patch: Any, expected: Any) -> None:
    assert merge(base, patch) == expected


KEYS = st.sampled_from(["a", "b", "name", "mountPath", "volumeMounts"])
VALUES = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["x", "y"])
WITH_LISTS = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
WITHOUT_LISTS = st.recursive(
    VALUES, lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)
MAPS = st.dictionaries(KEYS, WITH_LISTS, max_size=4)


def rfc_7386(target: Any, patch: Any) -> Any:
    """Merge as the RFC's own pseudocode does."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = rfc_7386(merged.get(name), value)
    return merged


@given(st.dictionaries(KEYS, WITHOUT_LISTS), st.dictionaries(KEYS, WITHOUT_LISTS))
def test_where_there_are_no_lists_it_is_rfc_7386(base: Any, patch: Any) -> None:
    assert merge(base, patch) == rfc_7386(base, patch)


@given(MAPS)
def test_an_empty_patch_changes_nothing(base: dict[str, Any]) -> None:
    assert merge(base, {}) == base


@given(MAPS, MAPS)
def test_a_patch_merged_twice_is_merged_once(base: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merge(base, patch)
    assert merge(once, patch) == once


@given(MAPS, MAPS)
def test_neither_base_nor_patch_is_changed(base: dict[str, Any], patch: dict[str, Any]) -> None:
    before = copy.deepcopy((base, patch))
    merge(base, patch)
    assert (base, patch) == before


@given(MAPS, MAPS)
def test_what_a_patch_does_not_name_stays(base: dict[str, Any], patch: dict[str, Any]) -> None:
    merged = merge(base, patch)
    assert {key: merged[key] for key in base.keys() - patch.keys()} == {
        key: base[key] for key in base.keys() - patch.keys()
    }
    assert merged.keys() <= base.keys() | patch.keys()


NAMED = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("abcd"), "value": st.integers(0, 3)}),
    unique_by=lambda thing: thing["name"],
)


@given(NAMED, NAMED)
def test_every_named_thing_is_there_once(base: Any, patch: Any) -> None:
    merged = merge(base, patch)
    names = [thing["name"] for thing in base]
    names += [thing["name"] for thing in patch if thing["name"] not in names]
    assert [thing["name"] for thing in merged] == names
    values = {thing["name"]: thing["value"] for thing in [*base, *patch]}
    assert {thing["name"]: thing["value"] for thing in merged} == values
