"""A Seeknal project as a graph: its nodes, what each reads, and what is wrong with it."""

from __future__ import annotations

import difflib
import functools
import heapq
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seeknal_k8s import names, parse_errors, sqlrefs
from seeknal_k8s.errors import Problem, ProjectRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MAX_ID = 200
"""Bytes in a node id. File systems allow 255 in a name, and Seeknal adds to it."""

MAX_CYCLES = 20
"""How many cycles to name. In a tangle there are more of them than nodes."""

INVENTS_ROWS = "exports invented sample rows"
FINDS_NONE = "finds no rows"
BLIND_TO_AGGREGATIONS = {"exposure": INVENTS_ROWS, "profile": FINDS_NONE, "rule": FINDS_NONE}
"""Kinds that look for their input where Seeknal's aggregations do not write, and what they do."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the project.

    ``file`` is relative to the project. ``inputs`` are the ids it reads, the declared ones in
    their order and then the ``undeclared`` ones its SQL refers to. ``digest`` is Seeknal's own
    hash of what the node does, empty where Seeknal cannot compute one. ``outputs`` are the files,
    relative to the project, without which a finished node has to run again. ``options`` is the
    node's own ``kubernetes:`` mapping, as written.
    """

    id: str
    kind: str
    name: str
    file: str
    inputs: tuple[str, ...] = ()
    undeclared: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    digest: str = ""
    python: bool = False
    outputs: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Graph:
    """The nodes of one project, in an order in which every node follows its inputs.

    ``name`` is the project folder's name, ``root`` its absolute path. ``digest`` is the same in
    every process that reads the same project in the same way.
    """

    name: str
    root: str
    nodes: dict[str, Node]
    digest: str = ""

    def downstream_of(self, ids: Iterable[str], depth: int | None = None) -> set[str]:
        """Return what reads any of ``ids``, directly or at most ``depth`` steps away."""
        return _reach(ids, _readers(self.nodes), depth)

    def upstream_of(self, ids: Iterable[str], depth: int | None = None) -> set[str]:
        """Return what any of ``ids`` reads, directly or at most ``depth`` steps away."""
        return _reach(ids, {node.id: node.inputs for node in self.nodes.values()}, depth)

    def find(self, text: str) -> Node:
        """Return the node with this id, or with this name if only one node has it.

        Raises:
            ProjectRefused: no node, or more than one, is called that. The problem says which are.
        """
        if text in self.nodes:
            return self.nodes[text]
        named = [node for node in self.nodes.values() if node.name == text]
        if len(named) == 1:
            return named[0]
        if named:
            fix = f"give the whole id: {_either(node.id for node in named)}"
            raise ProjectRefused([Problem(f"{len(named)} nodes are called {text!r}", fix)])
        near = nearest(text, self.nodes)
        some = f"the project has {len(self.nodes)} nodes, such as {next(iter(self.nodes), 'none')}"
        fix = f"did you mean {_either(near)}?" if near else some
        raise ProjectRefused([Problem(f"no node is called {text!r}", fix)])


def nearest(text: str, ids: Iterable[str]) -> list[str]:
    """Return up to three ids that ``text`` may have meant, the likeliest first.

    The same name under another kind, or under none, comes before a similar name; kinds are not
    compared, or every source would be like every other.
    """
    kind, _, name = text.casefold().partition(".")
    meant = name or kind
    ids_by_name: dict[str, list[str]] = defaultdict(list)
    for node_id in ids:
        ids_by_name[node_id.partition(".")[2].casefold()].append(node_id)
    same = [name for name in (meant, text.casefold()) if name in ids_by_name]
    close = same or difflib.get_close_matches(meant, ids_by_name, cutoff=0.7)
    found = [node_id for name in dict.fromkeys(close) for node_id in ids_by_name[name]]
    return sorted(found, key=lambda node_id: node_id.partition(".")[0] != kind)[:3]


def build(raw: Mapping[str, Any]) -> tuple[Graph, tuple[Problem, ...]]:
    """Return the graph of a project that ``engine`` has described, and what to warn about.

    Raises:
        ProjectRefused: with everything that is wrong with the project, not just the first.
    """
    root = str(raw["root"])
    unread = [parse_errors.translate(message, root) for message in raw["parse_errors"]]
    nodes = _nodes(raw["nodes"])
    if not unread and not (raw["is_project"] and nodes):
        raise ProjectRefused([_not_a_project(root, is_project=bool(raw["is_project"]))])
    order, cycles = _sorted(nodes)
    problems = [
        *unread,
        *(problem for node in raw["nodes"] for problem in _bad_name(node)),
        *_collisions(nodes),
        *_missing_inputs(nodes, unread),
        *cycles,
    ]
    if problems:
        raise ProjectRefused(problems)
    ordered = {node_id: nodes[node_id] for node_id in order}
    graph = Graph(name=str(raw["name"]), root=root, nodes=ordered, digest=_digest(nodes))
    return graph, tuple(_warnings(ordered.values()))


def _not_a_project(root: str, *, is_project: bool) -> Problem:
    lacks = "no node in its seeknal/ folder" if is_project else "no seeknal/ folder with node files"
    return Problem(
        what=f"{root} is not a Seeknal project: it has {lacks}",
        fix="go to the project's folder, or name it; `seeknal init` makes a new one, and "
        "`seeknal draft source NAME` its first node",
    )


def _nodes(described: Sequence[Mapping[str, Any]]) -> dict[str, Node]:
    known = {str(node["id"]).casefold(): str(node["id"]) for node in described}
    nodes = {}
    for node in described:
        node_id, inputs = str(node["id"]), dict.fromkeys(node["inputs"])
        read = sqlrefs.references(node["sql"], known)
        undeclared = tuple(ref for ref in read if ref not in inputs and ref != node_id)
        nodes[node_id] = Node(
            id=node_id,
            kind=node["kind"],
            name=str(node["name"]),
            file=node["file"],
            inputs=(*inputs, *undeclared),
            undeclared=undeclared,
            tags=tuple(node["tags"]),
            digest=node["digest"],
            python=node["python"],
            outputs=tuple(node["outputs"]),
            options=node["options"],
        )
    return nodes


def _bad_name(node: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what keeps a name from being part of a path, a view and a Job.

    Seeknal checks none of this: an aggregation named ``../../x`` writes outside the project.
    """
    name, node_id, fix = node["name"], str(node["id"]), "give it another `name:`"
    what = ""
    if not isinstance(name, str):
        written = str(name).lower() if isinstance(name, bool) else str(name)
        what = f"its name is not text: YAML reads {written} as {_yaml_type(name)}"
        fix = f'put it between quotes: `name: "{written}"`'
    elif not name.strip():
        what = "its name is empty"
    elif "/" in name or "\\" in name or ".." in name:
        what = "its name would be a path: it has a slash or two dots in a row"
    elif not name.isprintable():
        what = f"its name holds a character that cannot be seen: {name!a}"
    if what:
        yield Problem(what, fix, file=node["file"], node=ascii(node_id)[1:-1], key="name")
    length = len(node_id.encode(errors="replace"))
    if length > MAX_ID:
        what = f"its id is {length} bytes long; at most {MAX_ID} make safe file names"
        yield Problem(
            what, "give it a shorter `name:`", file=node["file"], node=node_id, key="name"
        )


def _yaml_type(value: object) -> str:
    types = ((bool, "yes or no"), (int | float, "a number"), (list, "a list"), (dict, "a mapping"))
    return next((words for of, words in types if isinstance(value, of)), type(value).__name__)


def _collisions(nodes: Mapping[str, Node]) -> Iterator[Problem]:
    alike: dict[str, list[str]] = defaultdict(list)
    for node_id in nodes:
        alike[names.folded(node_id)].append(node_id)
    for ids in alike.values():
        if len(ids) > 1:
            first, *others = sorted(ids)
            files = _either((nodes[other].file for other in others), last="and")
            yield Problem(
                what=f"{_either([first, *others], last='and')} would share files and views: "
                "dots count as underscores there, and case does not count",
                fix=f"rename all but one; the others are in {files}",
                file=nodes[first].file,
                node=first,
                key="name",
            )


def _missing_inputs(nodes: Mapping[str, Node], unread: Sequence[Problem]) -> Iterator[Problem]:
    unread_files = {_stem(problem.file): problem.file for problem in unread if problem.file}
    nearest_to = functools.cache(lambda ref: nearest(ref, nodes))  # a misspelling is often copied
    for node in nodes.values():
        for ref in (ref for ref in node.inputs if ref not in nodes):
            near = [f"`{_spelt(node, other)}`" for other in nearest_to(ref) if other != node.id]
            if file := unread_files.get(ref.partition(".")[2] or ref):
                fix = f"it may be the node of {file}, which could not be read: correct that first"
            else:
                fix = f"write {_either(near)}" if near else "add that node, or take the line out"
            what = f"reads {ref}, which is not in the project"
            yield Problem(what, fix, file=node.file, node=node.id, key=_inputs_key(node))


def _stem(file: str) -> str:
    return file.rpartition("/")[2].rpartition(".")[0]


def _inputs_key(node: Node) -> str:
    return {"exposure": "depends_on", "semantic_model": "model"}.get(node.kind, "inputs")


def _spelt(node: Node, ref: str) -> str:
    """Return how this node's file would name ``ref`` as an input."""
    if node.python:
        return f'ctx.ref("{ref}")'
    return f"model: ref('{ref}')" if node.kind == "semantic_model" else f"- ref: {ref}"


def _warnings(nodes: Iterable[Node]) -> Iterator[Problem]:
    for node in nodes:
        for ref in node.undeclared:
            yield Problem(
                what=f"its SQL reads {ref}, which its inputs do not list: it runs after {ref} "
                "here, but with `seeknal run` only by luck",
                fix=f"add `- ref: {ref}` under `inputs:`",
                file=node.file,
                node=node.id,
                key="inputs",
            )
        seeknal = BLIND_TO_AGGREGATIONS.get(node.kind, "")
        for ref in node.inputs if seeknal else ():
            if ref.startswith("aggregation."):
                yield Problem(
                    what=f"reads {ref}: its real rows here, but `seeknal run` {seeknal}",
                    fix="for the same from both, let it read a transform that reads "
                    f'`"{ref}"`, in double quotes',
                    file=node.file,
                    node=node.id,
                    key=_inputs_key(node),
                )


def _sorted(nodes: Mapping[str, Node]) -> tuple[list[str], list[Problem]]:
    """Return the ids in order, of equals the alphabetically first, and the cycles in the way."""
    inputs = {
        node.id: {ref for ref in node.inputs if ref in nodes and ref != node.id}
        for node in nodes.values()
    }
    problems = [_reads_itself(node) for node in nodes.values() if node.id in node.inputs]
    order = _kahn(inputs)
    while len(order) < len(inputs) and len(problems) < MAX_CYCLES:
        done = set(order)
        stuck = {key: refs - done for key, refs in inputs.items() if key not in done}
        cycle = _cycle(stuck)
        problems.append(_cycle_problem(cycle, nodes))
        # Taken apart at one place, the rest shows whether there is another cycle.
        inputs[cycle[0]] = inputs[cycle[0]] - {cycle[-1]}
        order = _kahn(inputs)
    return order, problems


def _kahn(inputs: Mapping[str, set[str]]) -> list[str]:
    readers = _reverse(inputs)
    waiting = {node_id: len(refs) for node_id, refs in inputs.items()}
    ready = sorted(node_id for node_id, count in waiting.items() if not count)
    order = []
    while ready:
        node_id = heapq.heappop(ready)
        order.append(node_id)
        for reader in readers[node_id]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    return order


def _cycle(stuck: Mapping[str, set[str]]) -> list[str]:
    """Return one cycle in the direction of the data, from its alphabetically first node.

    Every node of ``stuck`` has an input in it, so going upstream must come back somewhere.
    """
    path: dict[str, int] = {}
    node_id = min(stuck)
    while node_id not in path:
        path[node_id] = len(path)
        node_id = min(stuck[node_id])
    cycle = [*path][path[node_id] :][::-1]
    start = cycle.index(min(cycle))
    return cycle[start:] + cycle[:start]


def _cycle_problem(cycle: Sequence[str], nodes: Mapping[str, Node]) -> Problem:
    return Problem(
        what=f"nodes wait for each other: {' → '.join([*cycle, cycle[0]])}",
        fix="take one of these out of the `inputs:`, or the SQL, of the node after it",
        file=nodes[cycle[0]].file,
        node=cycle[0],
        key=_inputs_key(nodes[cycle[0]]),
    )


def _reads_itself(node: Node) -> Problem:
    fix = f"take `{_spelt(node, node.id)}` out"
    return Problem("reads itself", fix, file=node.file, node=node.id, key=_inputs_key(node))


def _digest(nodes: Mapping[str, Node]) -> str:
    parts = ((key, nodes[key].digest, "\n".join(nodes[key].inputs)) for key in sorted(nodes))
    return names.digest(*(part for three in parts for part in three), length=64)


def _readers(nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    return _reverse({node.id: node.inputs for node in nodes.values()})


def _reverse(inputs: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    readers: dict[str, list[str]] = {node_id: [] for node_id in inputs}
    for node_id, refs in inputs.items():
        for ref in refs:
            readers[ref].append(node_id)
    return readers


def _reach(ids: Iterable[str], steps: Mapping[str, Iterable[str]], depth: int | None) -> set[str]:
    """Return everything that ``steps`` lead to from ``ids``, in at most ``depth`` of them."""
    reached: set[str] = set()
    edge = set(ids)
    while edge and (depth is None or depth > 0):
        edge = {to for node_id in edge for to in steps[node_id]} - reached
        reached |= edge
        depth = None if depth is None else depth - 1
    return reached


def _either(words: Iterable[str], last: str = "or") -> str:
    """Return ``a, b or c``."""
    *head, tail = words
    return f"{', '.join(head)} {last} {tail}" if head else tail
