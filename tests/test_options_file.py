"""``seeknal-k8s.yml``: what every mistake in it is told, and all nodes of a project at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from seeknal_k8s.errors import Problem, ProjectRefused
from seeknal_k8s.graph import Node
from seeknal_k8s.options import NodeOptions, OptionsFile, parse_overrides, resolve_all

if TYPE_CHECKING:
    from pathlib import Path

GOOD_FILE = """\
defaults:
  memory: 1Gi
  env: {REGION: eu, LEVEL: info}
  pod_template: {metadata: {labels: {team: shop, tier: batch}}}
kinds:
  transform: {memory: 2048Mi, retries: 1}
  source:
tags:
  nightly: {memory: 3Gi, timeout: 90m}
  heavy: {memory: 16Gi, cpu: 4, tolerations: [{key: big, operator: Exists}]}
nodes:
  transform.orders: {memory: 20Gi, gpu: 1}
"""


def a_node(node_id: str = "transform.orders", **changes: Any) -> Node:
    kind, _, name = node_id.partition(".")
    node = Node(node_id, kind, name, file=f"seeknal/{kind}s/{name}.yml")
    return replace(node, **changes)


def a_file(folder: Path, text: str) -> OptionsFile:
    (folder / "seeknal-k8s.yml").write_text(text)
    return OptionsFile.load(folder)


def refusal(folder: Path, text: str) -> tuple[Problem, ...]:
    with pytest.raises(ProjectRefused) as refused:
        a_file(folder, text)
    return refused.value.problems


@pytest.mark.parametrize(
    "text",
    [None, "", "# nothing yet\n", "defaults:\nkinds:\ntags:\nnodes:\n", "tags: {heavy: }"],
    ids=["no file", "an empty file", "only a comment", "empty sections", "an empty entry"],
)
def test_a_file_that_says_nothing_changes_nothing(tmp_path: Path, text: str | None) -> None:
    file = OptionsFile.load(tmp_path) if text is None else a_file(tmp_path, text)
    assert file.resolve(a_node(tags=("heavy",))).options == NodeOptions()


@pytest.mark.parametrize(
    ("text", "key", "what", "fix"),
    [
        pytest.param(
            "defaults:\n  memory: [1\n  cpu: 1\n",
            "",
            "line 3, column 6: expected ',' or ']', but got ':'",
            "repair the YAML",
            id="YAML that does not parse, with its line",
        ),
        pytest.param(
            "defaults: {cpu: 1}\ntags:\ndefaults: {cpu: 2}\n",
            "",
            "line 3, column 1: the key `defaults` is written twice",
            "repair the YAML",
            id="a key written twice, of which YAML would lose one",
        ),
        pytest.param(
            "a: \0",
            "",
            "is not YAML: unacceptable character #x0000: special characters are not allowed",
            "repair the YAML",
            id="a character that YAML does not know",
        ),
        pytest.param(
            "defaults: {image: 2024-13-01}",
            "",
            "is not YAML: month must be in 1..12",
            "repair the YAML",
            id="a date that is none",
        ),
        pytest.param(
            "defaults: []",
            "defaults",
            "has to be a mapping of options, but is a list",
            "write it like `defaults: {memory: 4Gi}`",
            id="defaults that are a list, be it empty",
        ),
        pytest.param(
            "- memory: 4Gi\n",
            "",
            "has to be a mapping, but is a list",
            "write the sections defaults, kinds, tags, nodes",
            id="a list",
        ),
        pytest.param(
            "default: {}",
            "default",
            "there is no section `default`",
            "did you mean `defaults`?",
            id="a mistyped section",
        ),
        pytest.param(
            "memory: 4Gi",
            "memory",
            "there is no section `memory`",
            "put it below `defaults:`",
            id="an option outside of every section",
        ),
        pytest.param(
            "tags: [heavy]",
            "tags",
            "has to be a mapping of tags, but is a list",
            "write it like `tags: {…: {memory: 4Gi}}`",
            id="a section that is a list",
        ),
        pytest.param(
            "kinds: {transfrom: {}}",
            "kinds.transfrom",
            "there is no kind `transfrom`",
            "did you mean `transform`?",
            id="a mistyped kind",
        ),
        pytest.param(
            "tags: {heavy: 4Gi}",
            "tags.heavy",
            "has to be a mapping of options, but is a str",
            "write it like `tags.heavy: {memory: 4Gi}`",
            id="an entry that is not a mapping",
        ),
        pytest.param(
            "tags: {gpu: {memry: 4Gi}}",
            "tags.gpu.memry",
            "there is no option `memry`",
            "did you mean `memory`?",
            id="a mistyped option below a tag that is named like an option",
        ),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place(
    tmp_path: Path, text: str, key: str, what: str, fix: str
) -> None:
    (problem,) = refusal(tmp_path, text)
    assert (problem.file, problem.key, problem.fix) == ("seeknal-k8s.yml", key, fix)
    assert problem.what.startswith(what)


def test_all_mistakes_of_the_file_are_told_at_once(tmp_path: Path) -> None:
    text = "defaults: {cpu: x, memory: 0}\nkinds: {rul: {cpu: y}}\nnodes: {a.b: {retries: many}}\n"
    keys = [problem.key for problem in refusal(tmp_path, text)]
    assert keys == [
        "defaults.cpu",
        "defaults.memory",
        "kinds.rul",
        "kinds.rul.cpu",
        "nodes.a.b.retries",
    ]


def test_a_file_under_the_other_ending_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    (tmp_path / "seeknal-k8s.yaml").write_text("")
    with pytest.raises(ProjectRefused, match="rename it to"):
        OptionsFile.load(tmp_path)


def test_a_folder_in_the_file_s_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "seeknal-k8s.yml").mkdir()
    with pytest.raises(ProjectRefused, match="cannot be read"):
        OptionsFile.load(tmp_path)


def test_anchors_and_merge_keys_of_yaml_work(tmp_path: Path) -> None:
    text = "tags:\n  a: &a {cpu: 2, memory: 4Gi}\n  b: &b {<<: *a, cpu: 3}\n  c: {<<: *b, cpu: 4}\n"
    file = a_file(tmp_path, text)
    options = file.resolve(a_node(tags=("c",))).options
    assert (options.cpu, options.memory) == ("4", "4Gi")


# --- All nodes at once ----------------------------------------------------------------------------


def test_all_nodes_are_resolved_by_their_ids(tmp_path: Path) -> None:
    file = a_file(tmp_path, GOOD_FILE)
    nodes = [a_node(tags=("heavy", "nightly")), a_node("source.raw")]
    resolved = resolve_all(file, iter(nodes), parse_overrides(["retries=3"]))
    assert {node_id: r.options.memory for node_id, r in resolved.items()} == {
        "transform.orders": "20Gi",
        "source.raw": "1Gi",
    }
    assert {r.options.retries for r in resolved.values()} == {3}


def test_the_mistakes_of_all_nodes_are_told_at_once() -> None:
    nodes = [
        a_node("transform.a", options={"cpu": 0}),
        a_node("transform.b", options={"retries": "x"}),
    ]
    with pytest.raises(ProjectRefused) as refused:
        resolve_all(OptionsFile(), nodes)
    assert [(problem.node, problem.key) for problem in refused.value.problems] == [
        ("transform.a", "kubernetes.cpu"),
        ("transform.b", "kubernetes.retries"),
    ]


def test_an_override_may_say_a_name_that_only_one_node_has() -> None:
    nodes = [a_node(), a_node("rule.paid"), a_node("source.paid")]
    resolved = resolve_all(OptionsFile(), nodes, parse_overrides(["orders:cpu=2"]))
    assert {key: one.options.cpu for key, one in resolved.items() if one.options.cpu == "2"} == {
        "transform.orders": "2"
    }
    with pytest.raises(ProjectRefused, match="2 nodes are called `paid`"):
        resolve_all(OptionsFile(), nodes, parse_overrides(["paid:cpu=2"]))


def test_an_entry_that_matches_nothing_is_a_mistake() -> None:
    file = OptionsFile(tags={"heavvy": {}}, nodes={"transform.order": {}})
    nodes = [a_node(tags=("heavy",))]
    with pytest.raises(ProjectRefused) as refused:
        resolve_all(file, nodes, parse_overrides(["transfrom.orders:cpu=2"]))
    assert refused.value.problems == (
        Problem(
            "the project has no node `transform.order`",
            "did you mean `transform.orders`?",
            "seeknal-k8s.yml",
            key="nodes.transform.order",
        ),
        Problem(
            "the project has no tag `heavvy`",
            "did you mean `heavy`?",
            "seeknal-k8s.yml",
            key="tags.heavvy",
        ),
        Problem(
            "the project has no node `transfrom.orders`",
            "did you mean `transform.orders`?",
            key="--set transfrom.orders:cpu",
        ),
    )
