"""The published JSON schema of ``seeknal-k8s.yml``: it is up to date, and says what the code says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from seeknal_k8s.options import NodeOptions
from seeknal_k8s.options.__main__ import schema
from seeknal_k8s.options.file import KINDS

PUBLISHED = Path(__file__).parent.parent / "docs" / "seeknal-k8s.schema.json"

GOOD_FILE = """\
defaults: {memory: 4Gi, cpu: 0.5, gpu: 1, backoff: 90, env: {LEVEL: debug, PORT: 1, OLD: null}}
kinds:
  transform: {retries: null, tolerations: [{key: a, tolerationSeconds: 5}]}
tags:
  heavy:
nodes:
  transform.orders: {pod_template: {spec: {hostNetwork: true}}, timeout: 1h30m}
"""


def accepts(document: object) -> bool:
    return Draft202012Validator(schema()).is_valid(document)


def test_the_published_schema_is_the_one_of_the_code() -> None:
    assert json.loads(PUBLISHED.read_text()) == schema(), "run `make schema`"


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("text", ["", "defaults:\n", GOOD_FILE])
def test_a_good_file_is_accepted(text: str) -> None:
    assert accepts(yaml.safe_load(text))


@pytest.mark.parametrize("field", sorted(NodeOptions.model_fields))
def test_every_example_and_null_is_accepted_by_the_schema_and_by_the_code(field: str) -> None:
    examples = NodeOptions.model_fields[field].examples
    assert examples
    for value in [*examples, None]:
        assert accepts({"defaults": {field: value}})
        NodeOptions.model_validate({field: value})


@pytest.mark.parametrize(
    "document",
    [
        pytest.param([], id="a list"),
        pytest.param({"default": {}}, id="an unknown section"),
        pytest.param({"defaults": {"memroy": "4Gi"}}, id="an unknown option"),
        pytest.param({"defaults": {"memory": "4GB"}}, id="an unknown unit"),
        pytest.param({"defaults": {"timeout": "1d"}}, id="an unknown unit of time"),
        pytest.param({"defaults": {"retries": 21}}, id="too many retries"),
        pytest.param({"defaults": {"gpu": 0}}, id="no GPU, which is null"),
        pytest.param({"defaults": {"env": {"1A": "x"}}}, id="a name that cannot be"),
        pytest.param({"kinds": {"transfrom": {}}}, id="an unknown kind"),
    ],
)
def test_a_bad_file_is_refused(document: object) -> None:
    assert not accepts(document)


def test_everything_has_a_description_that_ends_as_a_sentence() -> None:
    described: dict[str, Any] = {**schema()["properties"]}
    for definition in schema()["$defs"].values():
        described |= definition.get("properties", {})
    assert [name for name, item in described.items() if not item["description"].endswith(".")] == []


def test_all_kinds_of_the_engine_are_known() -> None:
    # Seeknal reads the working folder and the environment on import, so not in this process.
    script = "from seeknal.workflow.dag import DAGBuilder; print(*DAGBuilder.KIND_MAP)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert set(done.stdout.split()) == set(KINDS)
