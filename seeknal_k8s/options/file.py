"""``seeknal-k8s.yml``, the options of a project's nodes in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import yaml

from seeknal_k8s.errors import Problem, ProjectRefused
from seeknal_k8s.options.layers import COMMAND_LINE, Layer, Resolved, merge, override_layers
from seeknal_k8s.options.model import NodeOptions, did_you_mean, problems_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from seeknal_k8s.graph import Node
    from seeknal_k8s.options.layers import Override

FILE = "seeknal-k8s.yml"
SECTIONS = ("defaults", "kinds", "tags", "nodes")
KINDS = (
    "source",
    "transform",
    "feature_group",
    "second_order_aggregation",
    "aggregation",
    "model",
    "rule",
    "profile",
    "exposure",
    "semantic_model",
    "metric",
)

_Layers = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class OptionsFile:
    """What ``seeknal-k8s.yml`` says: options for all nodes, by kind, by tag and by node id."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    kinds: _Layers = field(default_factory=dict)
    tags: _Layers = field(default_factory=dict)
    nodes: _Layers = field(default_factory=dict)

    @classmethod
    def load(cls, project_root: Path) -> OptionsFile:
        """Return the options file of a project, empty where there is none.

        Raises:
            ProjectRefused: with everything wrong in the file, each problem with its dotted key.

        """
        content = _read(project_root)
        if problems := _problems(content):
            raise ProjectRefused(problems)
        defaults = content.get("defaults") or {}
        by_name = [_entries(content.get(section)) for section in SECTIONS[1:]]
        return cls(defaults, *by_name)

    def resolve(self, node: Node, overrides: Sequence[Override] = ()) -> Resolved:
        """Return the options of one node.

        Raises:
            ProjectRefused: with everything wrong in the node's own ``kubernetes:``.

        """
        if problems := _own_problems(node):
            raise ProjectRefused(problems)
        layers = [
            Layer(f"{FILE} defaults", self.defaults),
            Layer(f"{FILE} kinds.{node.kind}", self.kinds.get(node.kind, {})),
            *(
                Layer(f"{FILE} tags.{tag}", values)
                for tag, values in self.tags.items()
                if tag in node.tags
            ),
            Layer(f"{FILE} nodes.{node.id}", self.nodes.get(node.id, {})),
            Layer(node.file, node.options or {}),
            *override_layers(overrides, node),
        ]
        merged, origins = merge(layers)
        return Resolved(NodeOptions.model_validate(merged), origins)


def resolve_all(
    file: OptionsFile, nodes: Iterable[Node], overrides: Sequence[Override] = ()
) -> dict[str, Resolved]:
    """Return the options of all nodes of a project by node id.

    An override may say a node's name, where only one has it, instead of its id.

    Raises:
        ProjectRefused: with everything wrong in all nodes' own ``kubernetes:``, and every entry
            of the file or of ``--set`` that names a node or a tag which the project does not have.

    """
    nodes = list(nodes)
    overrides = [_of_one_node(override, nodes) for override in overrides]
    problems = _unmatched(file, nodes, overrides)
    resolved = {}
    for node in nodes:
        try:
            resolved[node.id] = file.resolve(node, overrides)
        except ProjectRefused as refused:
            problems += refused.problems
    if problems:
        raise ProjectRefused(problems)
    return resolved


class _Loader(yaml.SafeLoader):
    """YAML in which a key written twice is an error, not a value lost."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                problem = f"the key `{name}` is written twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(name)
        return node


def _read(project_root: Path) -> Any:
    path = project_root / FILE
    try:
        content = yaml.load(path.read_bytes(), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        misnamed = path.with_suffix(".yaml")
        if not misnamed.exists():
            return {}
        problem = Problem("is not read under this name", f"rename it to {FILE}", misnamed.name)
    except OSError as error:
        problem = Problem(f"cannot be read: {error.strerror}", "make it a readable file", FILE)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-01
        problem = Problem(_yaml_sentence(error), "repair the YAML", FILE)
    else:
        return {} if content is None else content
    raise ProjectRefused([problem])


def _yaml_sentence(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"is not YAML: {error}"
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"


def _problems(content: object) -> list[Problem]:
    if not isinstance(content, Mapping):
        fix = f"write the sections {', '.join(SECTIONS)}"
        return [Problem(f"has to be a mapping, but is a {type(content).__name__}", fix, FILE)]
    problems = []
    for section, value in content.items():
        if section not in SECTIONS:
            problems.append(_unknown_section(str(section)))
        elif section == "defaults":
            problems += problems_of(_written(value), key=section, file=FILE)
        else:
            problems += _section_problems(section, _written(value))
    return problems


def _unknown_section(name: str) -> Problem:
    in_defaults = name in NodeOptions.model_fields
    fix = "put it below `defaults:`" if in_defaults else did_you_mean(name, SECTIONS)
    return Problem(f"there is no section `{name}`", fix, FILE, key=name)


def _section_problems(section: str, entries: object) -> list[Problem]:
    if not isinstance(entries, Mapping):
        what = f"has to be a mapping of {section}, but is a {type(entries).__name__}"
        return [
            Problem(what, f"write it like `{section}: {{…: {{memory: 4Gi}}}}`", FILE, "", section)
        ]
    problems = []
    for name, layer in entries.items():
        key = f"{section}.{name}"
        if section == "kinds" and name not in KINDS:
            what = f"there is no kind `{name}`"
            problems.append(Problem(what, did_you_mean(str(name), KINDS), FILE, key=key))
        problems += problems_of(_written(layer), key=key, file=FILE)
    return problems


def _written(value: object) -> object:
    # A key whose every line below is a comment has the value null in YAML.
    return {} if value is None else value


def _entries(section: Mapping[Any, Mapping[str, Any] | None] | None) -> _Layers:
    return {str(name): layer or {} for name, layer in (section or {}).items()}


def _own_problems(node: Node) -> list[Problem]:
    return problems_of(_written(node.options), key="kubernetes", file=node.file, node=node.id)


def _of_one_node(override: Override, nodes: Sequence[Node]) -> Override:
    """Return the override with its node's id, where it has a name that only one node has."""
    found = _called(override.node, nodes)
    return replace(override, node=found[0]) if len(found) == 1 else override


def _called(name: str, nodes: Sequence[Node]) -> list[str]:
    """Return the ids of the nodes of this name, or of the one with this id."""
    return [node.id for node in nodes if name in {node.id, node.name}]


def _unmatched(
    file: OptionsFile, nodes: Sequence[Node], overrides: Sequence[Override]
) -> list[Problem]:
    ids = [node.id for node in nodes]
    tags = sorted({tag for node in nodes for tag in node.tags})
    named = [(FILE, f"nodes.{name}", "node", name, ids) for name in file.nodes]
    named += [(FILE, f"tags.{name}", "tag", name, tags) for name in file.tags]
    named += [
        ("", f"{COMMAND_LINE} {o.node}:{o.key}", "node", o.node, ids) for o in overrides if o.node
    ]
    problems = []
    for place, key, what, name, known in named:
        if name in known:
            continue
        same = _called(name, nodes) if not place else []
        if len(same) > 1:
            said, fix = f"{len(same)} nodes are called `{name}`", f"write {' or '.join(same)}"
        else:
            said, fix = f"the project has no {what} `{name}`", did_you_mean(name, known)
        problems.append(Problem(said, fix, place, key=key))
    return problems
