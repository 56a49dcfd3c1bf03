"""The words of the installed Seeknal: an upgrade that rewords a complaint is seen here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.graph import build
from seeknal_k8s.parse_errors import translate

if TYPE_CHECKING:
    from pathlib import Path

    from seeknal_k8s.errors import Problem

A_SOURCE = "kind: source\nname: orders\n"
DECORATED = "from seeknal.pipeline import transform\n"


def problems_of(folder: Path, files: dict[str, str | bytes]) -> list[Problem]:
    """Return what Seeknal's own DAGBuilder says of these files, translated."""
    from seeknal.workflow.dag import DAGBuilder  # noqa: PLC0415 - it takes a second

    project = folder / "a project in here"
    for name, content in files.items():
        file = project / "seeknal" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    builder = DAGBuilder(project)
    builder.build()
    return [translate(message, str(project)) for message in builder.get_parse_errors()]


@pytest.mark.parametrize(
    ("file", "content", "key", "what", "fix"),
    [
        pytest.param(
            "a.yml",
            "kind: source\nname: [a\nx: 1\n",
            "",
            "not valid YAML: line 3: while parsing a flow sequence, expected ',' or ']'",
            "look at the indentation, quotes and brackets",
            id="YAML with an open bracket",
        ),
        pytest.param(
            "a.yml",
            "kind: source\n\tname: a\n",
            "",
            "not valid YAML: line 2: ",
            "indent with spaces",
            id="YAML with a tab",
        ),
        pytest.param(
            "a.yml",
            "kind: source\nname: a\ndescription: note: this\n",
            "",
            "not valid YAML: line 3: mapping values are not allowed here",
            "put a value that contains a colon between quotes",
            id="YAML with two colons",
        ),
        pytest.param(
            "a.yml",
            "kind: source\nname: @a\n",
            "",
            "not valid YAML: line 2: ",
            "put the value between quotes",
            id="YAML with a value that begins with an at sign",
        ),
        pytest.param(
            "a.yml",
            f"{A_SOURCE}---\n{A_SOURCE}",
            "",
            "not valid YAML: line 3: ",
            "one file holds one node",
            id="YAML with two documents",
        ),
        pytest.param(
            "a.yml",
            "kind: \a\n",
            "",
            "not valid YAML: unacceptable character",
            "look at",
            id="YAML with a control character, of which no line is told",
        ),
        pytest.param(
            "a.yml",
            b"kind: source\nname: \xe9\n",
            "",
            "not UTF-8 text: byte 0xe9 at position 19",
            "save the file as UTF-8",
            id="a file in another encoding",
        ),
        pytest.param("a.yml", "", "", "holds no node", "write these two keys", id="an empty file"),
        pytest.param("a.yml", "- 1\n", "", "holds no node", "write these two keys", id="a list"),
        pytest.param(
            "a.yml", "name: x\n", "kind", "has no `kind:`", "`kind: transform`", id="no kind"
        ),
        pytest.param(
            "daily.yml", "kind: rule\n", "name", "has no `name:`", "`name: daily`", id="no name"
        ),
        pytest.param(
            "a.yml",
            "kind: Transfrom\nname: x\n",
            "kind",
            "Seeknal has no kind 'Transfrom'",
            "write `kind: transform`",
            id="a misspelt kind",
        ),
        pytest.param(
            "a.yml",
            "kind: 5\nname: x\n",
            "kind",
            "Seeknal has no kind '5'",
            "write one of source, transform, feature_group",
            id="a kind like no other",
        ),
        pytest.param(
            "a.yml",
            f"{A_SOURCE}materialization: {{}}\nmaterializations: []\n",
            "materializations",
            "has both `materialization:` and `materializations:`",
            "keep `materializations:` alone",
            id="both materialization keys",
        ),
        pytest.param(
            "a.yml",
            f"{A_SOURCE}materializations: {{}}\n",
            "materializations",
            "`materializations:` is not a list of mappings",
            "write a list of mappings",
            id="materializations that are no list",
        ),
        pytest.param(
            "a.yml",
            f"{A_SOURCE}materialization: 3\n",
            "materialization",
            "`materialization:` is not a mapping",
            "write a mapping",
            id="a materialization that is a number",
        ),
        pytest.param(
            "a.yml",
            "kind: transform\nname: x\ninputs: source.orders\n",
            "inputs",
            "`inputs:` is not a list",
            "`- ref: kind.name`",
            id="inputs that are no list",
        ),
        pytest.param(
            "a.yml",
            f"{A_SOURCE}params: {{key: '{{{{ env:NOT_SET_ANYWHERE }}}}'}}\n",
            "",
            "the environment variable NOT_SET_ANYWHERE is not set",
            "`export NOT_SET_ANYWHERE=...`, put NOT_SET_ANYWHERE=... into .env",
            id="an environment variable that is not set",
        ),
        pytest.param(
            "a.yml",
            f"{A_SOURCE}params: [a]\n",
            "",
            "Seeknal cannot read it: ",
            "look for a value of another type or form",
            id="parameters that are no mapping",
        ),
        pytest.param(
            "a.py",
            f"import not_a_module.x\n{DECORATED}",
            "",
            "its import of not_a_module fails",
            "install not_a_module",
            id="Python that imports what is not there",
        ),
        pytest.param(
            "a.py",
            f"{DECORATED}raise RuntimeError('boom')\n",
            "",
            "running the file fails: boom",
            "what stands outside functions must work",
            id="Python that fails",
        ),
        pytest.param(
            "a.py",
            f"{DECORATED}def a(:\n",
            "",
            "not valid Python: line 2: invalid syntax",
            "`python -m py_compile seeknal/sub/a.py`",
            id="Python with a syntax error",
        ),
    ],
)
def test_seeknal_complains_in_known_words_about(
    tmp_path: Path, *, file: str, content: str | bytes, key: str, what: str, fix: str
) -> None:
    (problem,) = problems_of(tmp_path, {f"sub/{file}": content})
    assert (problem.file, problem.key) == (f"seeknal/sub/{file}", key)
    assert what in problem.what
    assert fix in problem.fix


def test_seeknal_complains_in_known_words_about_a_second_node_of_the_same_id(
    tmp_path: Path,
) -> None:
    (problem,) = problems_of(tmp_path, {"sub/a.yml": A_SOURCE, "sub/b.yml": A_SOURCE})
    first, second = sorted(["seeknal/sub/a.yml", "seeknal/sub/b.yml"], key=problem.file.__eq__)
    assert (problem.file, problem.node) == (second, "source.orders")
    assert f"already defined in {first}" in problem.what


@pytest.mark.parametrize(
    ("key", "fix"),
    [
        pytest.param("rules.activ", "write `{{ rules.active }}`", id="nearly one that is there"),
        pytest.param("zz.zz", "define it there; it has rules.active", id="like no other"),
    ],
)
def test_seeknal_complains_in_known_words_about_a_common_key(
    key: str, fix: str, tmp_path: Path
) -> None:
    files: dict[str, str | bytes] = {
        "common/rules.yml": "rules:\n  - {id: active, value: 'x > 1'}\n",
        "a.yml": f"kind: transform\nname: a\ntransform: SELECT 1 WHERE {{{{ {key} }}}}\n",
    }
    (problem,) = problems_of(tmp_path, files)
    assert problem.file == "seeknal/a.yml"
    assert problem.what == f"seeknal/common/ does not define `{{{{ {key} }}}}`"
    assert problem.fix == fix


def test_seeknal_orders_nodes_as_we_do(tmp_path: Path) -> None:
    from seeknal.workflow.dag import DAGBuilder  # noqa: PLC0415 - it takes a second

    inputs = {
        "transform.z": ["source.b"],
        "transform.a": ["transform.z", "source.c"],
        "source.c": [],
        "source.b": [],
        "rule.m": ["transform.z"],
    }
    nodes = []
    for node_id, refs in inputs.items():
        kind, name = node_id.split(".")
        file = tmp_path / "seeknal" / f"{name}.yml"
        file.parent.mkdir(exist_ok=True)
        lines = "".join(f"  - ref: {ref}\n" for ref in refs)
        file.write_text(f"kind: {kind}\nname: {name}\n" + (f"inputs:\n{lines}" if refs else ""))
        described = {"id": node_id, "kind": kind, "name": name, "inputs": refs, "digest": ""}
        rest = {
            "file": "f.yml",
            "tags": [],
            "python": False,
            "outputs": [],
            "options": {},
            "sql": "",
        }
        nodes.append(described | rest)
    builder = DAGBuilder(tmp_path)
    builder.build()
    graph, _ = build(
        {
            "name": "shop",
            "root": str(tmp_path),
            "nodes": nodes,
            "parse_errors": [],
            "is_project": True,
            "yaml_files": [],
        }
    )
    assert list(graph.nodes) == builder.topological_sort()
