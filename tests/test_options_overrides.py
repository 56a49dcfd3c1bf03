"""``--set KEY=VALUE`` and ``--set NODE:KEY=VALUE``."""

import pytest

from seeknal_k8s.errors import UsageError
from seeknal_k8s.options import Override, parse_overrides


@pytest.mark.parametrize(
    ("text", "override"),
    [
        pytest.param("memory=4Gi", Override("memory", "4Gi"), id="for all nodes"),
        pytest.param(
            "transform.big:memory=8Gi",
            Override("memory", "8Gi", "transform.big"),
            id="for one node",
        ),
        pytest.param("retries=2", Override("retries", 2), id="a number"),
        pytest.param("timeout=null", Override("timeout", None), id="back to built-in"),
        pytest.param("env_from=[a, b]", Override("env_from", ["a", "b"]), id="a list"),
        pytest.param("env={A: b=c}", Override("env", {"A": "b=c"}), id="a whole map"),
        pytest.param("env.A=01:x=y", Override("env", {"A": "01:x=y"}), id="one entry, as it is"),
        pytest.param("env.A=", Override("env", {"A": ""}), id="one empty entry"),
        pytest.param(
            "source.a:node_selector.kubernetes.io/arch=arm64",
            Override("node_selector", {"kubernetes.io/arch": "arm64"}, "source.a"),
            id="a label with dots, for one node",
        ),
    ],
)
def test_a_set_is_read(text: str, override: Override) -> None:
    assert parse_overrides([text]) == (override,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("memory", "--set memory: write KEY=VALUE", id="no value"),
        pytest.param("memory=", "--set memory: there is no value", id="an empty value"),
        pytest.param("env.A", "--set env.A: write KEY=VALUE", id="an entry without a value"),
        pytest.param("image=2024-13-01", "the value is not YAML", id="a date that is none"),
        pytest.param("=4Gi", "--set : write KEY=VALUE", id="no key"),
        pytest.param(
            ":memory=4Gi", "--set :memory: write KEY=VALUE", id="no node before the colon"
        ),
        pytest.param(
            "memroy=4Gi",
            "--set memroy: there is no such option; did you mean `memory`?",
            id="a mistyped key",
        ),
        pytest.param("memory=4GB", "--set memory: '4GB' is not a quantity", id="a bad value"),
        pytest.param(
            "gpu={cuont: 1}", "there is no option `cuont`; did you mean `count`?", id="a bad map"
        ),
        pytest.param("env_from=[a", "--set env_from: the value is not YAML", id="bad YAML"),
        pytest.param("env.1A=x", "--set env.1A: what is written here", id="a bad name"),
    ],
)
def test_a_set_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_overrides([text])
    assert message in str(refused.value)


def test_all_sets_that_make_no_sense_are_told_at_once() -> None:
    with pytest.raises(UsageError) as refused:
        parse_overrides(["cpu=x", "memory=4Gi", "nope=1"])
    assert [line.split(":")[0] for line in str(refused.value).splitlines()] == [
        "--set cpu",
        "--set nope",
    ]
