"""Options of nodes: what may be written, which place wins, and what every mistake is told."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal_k8s.errors import Problem, ProjectRefused
from seeknal_k8s.graph import Node
from seeknal_k8s.options import (
    Gpu,
    NodeOptions,
    OptionsFile,
    Resolved,
    parse_overrides,
)

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


def own_refusal(options: Any) -> tuple[Problem, ...]:
    with pytest.raises(ProjectRefused) as refused:
        OptionsFile().resolve(a_node(options=options))
    return refused.value.problems


def own(**options: Any) -> NodeOptions:
    return OptionsFile().resolve(a_node(options=options)).options


# --- What comes out -------------------------------------------------------------------------------


def test_without_a_word_from_anybody_a_node_has_the_built_in_options() -> None:
    resolved = OptionsFile().resolve(a_node())
    assert resolved.options == NodeOptions()
    assert (resolved.cpu_cores, resolved.memory_bytes) == (1.0, 2 * 2**30)
    assert resolved.ephemeral_storage_bytes == 2 * 2**30
    assert (resolved.backoff_seconds, resolved.timeout_seconds) == (10.0, None)
    assert all(resolved.is_default(field) for field in NodeOptions.model_fields)


def test_quantities_and_durations_are_kept_in_canonical_form() -> None:
    options = own(cpu=0.5, memory="1536Mi", memory_max=2**33, timeout=5400, backoff="90")
    assert (options.cpu, options.memory, options.memory_max) == ("500m", "1.5Gi", "8Gi")
    assert (options.timeout, options.backoff) == ("1h30m", "1m30s")


def test_memory_grows_up_to_its_cap_and_never_shrinks() -> None:
    def most(**options: str) -> int:
        return OptionsFile().resolve(a_node(options=options)).memory_max_bytes

    assert most(memory="4Gi", memory_max="16Gi") == 16 * 2**30
    assert most(memory="4Gi", memory_max="1Gi") == 4 * 2**30
    assert most(memory="4Gi") == 4 * 2**30


def test_a_count_of_gpus_is_short_for_the_usual_resource() -> None:
    assert own(gpu=2).gpu == Gpu(count=2, resource="nvidia.com/gpu")
    assert own(gpu={"count": 1, "resource": "amd.com/gpu"}).gpu == Gpu(
        count=1, resource="amd.com/gpu"
    )


def test_numbers_in_env_become_the_texts_that_kubernetes_wants() -> None:
    assert own(env={"PORT": 5432, "RATE": 0.5, "NAME": "x"}).env == {
        "PORT": "5432",
        "RATE": "0.5",
        "NAME": "x",
    }


def test_tolerations_go_into_a_manifest_as_they_were_written() -> None:
    written = [{"key": "big", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}]
    dumped = own(tolerations=written).model_dump(by_alias=True, exclude_none=True)
    assert list(dumped["tolerations"]) == written


# --- Which place wins -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "overrides", "memory", "origin"),
    [
        pytest.param(a_node("rule.x"), [], "1Gi", "seeknal-k8s.yml defaults", id="defaults"),
        pytest.param(
            a_node("transform.x"), [], "2Gi", "seeknal-k8s.yml kinds.transform", id="then the kind"
        ),
        pytest.param(
            a_node("transform.x", tags=("nightly",)),
            [],
            "3Gi",
            "seeknal-k8s.yml tags.nightly",
            id="then a tag",
        ),
        pytest.param(
            a_node("transform.x", tags=("heavy", "nightly")),
            [],
            "16Gi",
            "seeknal-k8s.yml tags.heavy",
            id="then the tag that stands last in the file, not in the node",
        ),
        pytest.param(
            a_node(tags=("heavy",)),
            [],
            "20Gi",
            "seeknal-k8s.yml nodes.transform.orders",
            id="then the node's entry in the file",
        ),
        pytest.param(
            a_node(options={"memory": "24Gi"}),
            [],
            "24Gi",
            "seeknal/transforms/orders.yml",
            id="then the node's own YAML",
        ),
        pytest.param(
            a_node(options={"memory": "24Gi"}),
            ["memory=28Gi"],
            "28Gi",
            "--set",
            id="then the command line",
        ),
        pytest.param(
            a_node(options={"memory": "24Gi"}),
            ["transform.orders:memory=32Gi", "memory=28Gi"],
            "32Gi",
            "--set",
            id="and last the command line that names the node, wherever it stands",
        ),
        pytest.param(
            a_node(),
            ["transform.other:memory=32Gi"],
            "20Gi",
            "seeknal-k8s.yml nodes.transform.orders",
            id="but not the one that names another node",
        ),
    ],
)
def test_the_nearer_place_wins_and_is_named(
    tmp_path: Path, node: Node, overrides: list[str], memory: str, origin: str
) -> None:
    resolved = a_file(tmp_path, GOOD_FILE).resolve(node, parse_overrides(overrides))
    assert (resolved.options.memory, resolved.origins["memory"]) == (memory, origin)
    assert not resolved.is_default("memory")


def test_maps_merge_key_by_key_and_name_all_their_places(tmp_path: Path) -> None:
    node = a_node(
        options={
            "env": {"LEVEL": "debug"},
            "pod_template": {"metadata": {"labels": {"tier": None, "cost": "a"}}},
        }
    )
    resolved = a_file(tmp_path, GOOD_FILE).resolve(node, parse_overrides(["env.A=1", "env.B=2"]))
    assert resolved.options.env == {"REGION": "eu", "LEVEL": "debug", "A": "1", "B": "2"}
    places = "seeknal-k8s.yml defaults + seeknal/transforms/orders.yml"
    assert resolved.origins["env"] == f"{places} + --set"
    labels = {"team": "shop", "tier": None, "cost": "a"}
    assert resolved.options.pod_template == {"metadata": {"labels": labels}}
    assert resolved.origins["pod_template"] == places


def test_lists_and_gpus_are_replaced_as_a_whole(tmp_path: Path) -> None:
    file = a_file(tmp_path, "defaults: {env_from: [a, b], gpu: {count: 2, resource: amd.com/gpu}}")
    resolved = file.resolve(a_node(options={"env_from": ["c"], "gpu": {"count": 1}}))
    assert resolved.options.env_from == ("c",)
    assert resolved.options.gpu == Gpu(count=1)


def test_null_takes_one_key_out_of_a_map(tmp_path: Path) -> None:
    resolved = a_file(tmp_path, GOOD_FILE).resolve(a_node(options={"env": {"REGION": None}}))
    assert resolved.options.env == {"LEVEL": "info"}


@pytest.mark.parametrize("field", sorted(NodeOptions.model_fields))
def test_null_brings_the_built_in_default_back(field: str) -> None:
    example, *_ = NodeOptions.model_fields[field].examples or []
    file = OptionsFile(defaults={field: example})
    assert not file.resolve(a_node()).is_default(field)
    resolved = file.resolve(a_node(options={field: None}))
    assert getattr(resolved.options, field) == getattr(NodeOptions(), field)
    assert resolved.origins[field] == "built-in, reset by seeknal/transforms/orders.yml"
    assert resolved.is_default(field)


def test_after_null_a_nearer_place_starts_anew(tmp_path: Path) -> None:
    overrides = parse_overrides(["env=null", "env.A=1"])
    resolved = a_file(tmp_path, GOOD_FILE).resolve(a_node(), overrides)
    assert (resolved.options.env, resolved.origins["env"]) == ({"A": "1"}, "--set")


memories = st.none() | st.sampled_from(["1Gi", "2Gi", "4Gi", "512Mi"])


@given(st.lists(memories, min_size=5, max_size=5), st.sets(st.integers(0, 4)))
def test_the_last_place_that_says_anything_decides(
    values: list[str | None], silent: set[int]
) -> None:
    said = [{} if place in silent else {"memory": value} for place, value in enumerate(values)]
    file = OptionsFile(said[0], {"transform": said[1]}, {"t": said[2]}, {"transform.a": said[3]})
    node = a_node("transform.a", tags=("t",), options=said[4])
    last = next((layer["memory"] for layer in reversed(said) if layer), None)
    assert file.resolve(node).options.memory == (last or "2Gi")


def test_what_one_node_is_given_never_reaches_another(tmp_path: Path) -> None:
    file = a_file(tmp_path, GOOD_FILE)
    before = file.resolve(a_node("rule.x"))
    file.resolve(
        a_node(options={"env": {"X": "1"}, "pod_template": {"metadata": {"labels": {"x": "1"}}}})
    )
    assert file.resolve(a_node("rule.x")) == before


def test_explain_names_every_option_its_value_and_its_place(tmp_path: Path) -> None:
    node = a_node(options={"env": {"API_TOKEN": "abc", "LEVEL": "é"}, "env_from": ["wh"]})
    rows = {row[0]: row[1:] for row in a_file(tmp_path, GOOD_FILE).resolve(node).explain()}
    assert list(rows) == list(NodeOptions.model_fields)
    assert rows["cpu"] == ("1", "built-in")
    assert rows["queue"] == ("none", "built-in")
    assert rows["memory"] == ("20Gi", "seeknal-k8s.yml nodes.transform.orders")
    assert rows["env_from"] == ('["wh"]', "seeknal/transforms/orders.yml")
    assert rows["env"][0] == '{"REGION": "eu", "LEVEL": "é", "API_TOKEN": "•••"}'
    assert rows["gpu"][0] == '{"count": 1, "resource": "nvidia.com/gpu"}'


def test_asking_for_an_unknown_option_is_an_error_of_the_caller() -> None:
    with pytest.raises(KeyError):
        Resolved(NodeOptions(), {}).is_default("memroy")


# --- A node's own YAML ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "key", "what", "fix"),
    [
        pytest.param(
            {"memory": "4GB"},
            "kubernetes.memory",
            "'4GB' is not a quantity; write bytes with a unit, such as 4Gi, 512Mi or 500M",
            "",
            id="a quantity with an unknown unit",
        ),
        pytest.param(
            {"memory": 4},
            "kubernetes.memory",
            "4 is not between 16Mi and 64Ti",
            "",
            id="four bytes of memory",
        ),
        pytest.param(
            {"memroy": "4Gi"},
            "kubernetes.memroy",
            "there is no option `memroy`",
            "did you mean `memory`?",
            id="a mistyped option",
        ),
        pytest.param(
            {"gpu": {"count": 1, "resorce": "x/y"}},
            "kubernetes.gpu.resorce",
            "there is no option `resorce`",
            "did you mean `resource`?",
            id="a mistyped key within an option",
        ),
        pytest.param(
            {"retries": 2.5},
            "kubernetes.retries",
            "2.5 should be a valid integer",
            "write it like `retries: 2`",
            id="half a retry",
        ),
        pytest.param(
            {"env": {"PASSWORD": True}},
            "kubernetes.env.PASSWORD",
            "what is written here should be a text, so put it in quotes",
            'write it like `env: {"LOG_LEVEL": "debug"}`',
            id="a bool in env, whose value is not repeated",
        ),
        pytest.param(
            {"env_from": "warehouse"},
            "kubernetes.env_from",
            "'warehouse' should be a list",
            'write it like `env_from: ["warehouse-credentials"]`',
            id="one Secret that is not in a list",
        ),
        pytest.param(
            {"env": {"1ST": "x"}},
            "kubernetes.env.1ST",
            "what is written here should match pattern '^[A-Za-z_][A-Za-z0-9_]*$'",
            'write it like `env: {"LOG_LEVEL": "debug"}`',
            id="a name that no environment can hold",
        ),
        pytest.param(
            ["memory"],
            "kubernetes",
            "has to be a mapping of options, but is a list",
            "write it like `kubernetes: {memory: 4Gi}`",
            id="a list instead of a mapping",
        ),
    ],
)
def test_a_mistake_in_a_node_is_told_with_its_place(
    options: Any,
    key: str,
    what: str,
    fix: str,
) -> None:
    place = ("seeknal/transforms/orders.yml", "transform.orders", key)
    assert own_refusal(options) == (Problem(what, fix, *place),)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"cpu": "8192"}, id="more cores than any machine has"),
        pytest.param({"ephemeral_storage": "1k"}, id="hardly any disk"),
        pytest.param({"timeout": "1000h"}, id="a timeout of weeks"),
        pytest.param({"backoff": "0.1s"}, id="hardly any wait"),
        pytest.param({"retries": -1}, id="fewer than no retries"),
        pytest.param({"retries": True}, id="a bool for a count"),
        pytest.param({"gpu": 0}, id="no GPU, which is null"),
        pytest.param({"gpu": True}, id="a bool for a GPU"),
        pytest.param({"gpu": "one"}, id="a word for a GPU"),
        pytest.param({"gpu": {"resource": "amd.com/gpu"}}, id="GPUs without a count"),
        pytest.param({"env": "A=1"}, id="env as a text"),
        pytest.param({"env_from": ["Ware House"]}, id="a Secret's name that cannot be"),
        pytest.param({"image": "shop 1"}, id="an image with a space"),
        pytest.param({"node_selector": {"pool": "a b"}}, id="a label that cannot be"),
        pytest.param({"queue": "q" * 64}, id="a queue's name that is too long"),
        pytest.param({"tolerations": [{"effect": "Never"}]}, id="an unknown effect"),
        pytest.param({"pod_template": {"containers": []}}, id="a patch below no section"),
        pytest.param({"allow_failed_materialization": "no"}, id="a text for a bool"),
        pytest.param({1: 2}, id="a key that is not a text"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any]) -> None:
    assert len(own_refusal(options)) == 1


def test_a_node_whose_kubernetes_key_is_empty_has_said_nothing() -> None:
    assert OptionsFile().resolve(a_node(options=None)).options == NodeOptions()


def test_a_secret_in_a_broken_env_is_never_repeated() -> None:
    problems = own_refusal({"env": "PASSWORD=hunter2", "pod_template": "hunter2"})
    assert "hunter2" not in str(ProjectRefused(problems))


def test_options_load_neither_seeknal_nor_kubernetes_nor_prefect() -> None:
    script = (
        "import sys, seeknal_k8s.options\n"
        "print([m for m in ('seeknal', 'duckdb', 'kubernetes', 'prefect') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert done.stdout == "[]\n"
