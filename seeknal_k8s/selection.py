"""Which nodes the user means: the syntax of ``--select`` and ``--exclude``.

``transform.orders``   a node, by its id, or ``orders`` if only one node is called that
``node:a+b``           exactly the node of that id or name, whatever signs are in it
``transform.stg_*``    every node whose id, or name, matches: ``*``, ``?``, ``[abc]``
``kind:rule``          every node of a kind
``tag:daily``          every node with a tag
``+x`` ``x+`` ``+x+``  and all that x reads, all that reads x, or both
``1+x`` ``x+2``        no more than so many steps away

Several selectors together mean all that any of them means.
"""

from __future__ import annotations

import difflib
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from seeknal_k8s.errors import Problem, ProjectRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from seeknal_k8s.graph import Graph, Node

_SELECTOR = re.compile(r"(?:(?P<up>\d*)(?P<plus>\+))?(?P<core>.+?)(?:(?P<and>\+)(?P<down>\d*))?")


def select(graph: Graph, selectors: Sequence[str], exclude: Sequence[str] = ()) -> set[str]:
    """Return the ids that the selectors mean, or every id if there are none, less ``exclude``.

    Raises:
        ProjectRefused: selectors that mean no node, or more than one by the same name, all of
            them at once; or a selection of which nothing is left.
    """
    problems: list[Problem] = []
    wanted = _union(graph, selectors, problems) if selectors else set(graph.nodes)
    unwanted = _union(graph, exclude, problems)
    if not problems and not wanted - unwanted:
        what = "the selection is empty: everything in it is excluded too"
        problems.append(Problem(what, "drop one of the selectors to exclude"))
    if problems:
        raise ProjectRefused(problems)
    return wanted - unwanted


def _union(graph: Graph, selectors: Iterable[str], problems: list[Problem]) -> set[str]:
    meant: set[str] = set()
    for selector in dict.fromkeys(selectors):
        try:
            meant |= _meant_by(graph, selector)
        except ProjectRefused as refused:
            problems += refused.problems
    return meant


def _meant_by(graph: Graph, selector: str) -> set[str]:
    if selector.startswith("node:") and selector not in graph.nodes:
        return {graph.find(selector.removeprefix("node:")).id}
    parts = _SELECTOR.fullmatch(selector)
    if parts is None or selector in graph.nodes:  # an id may itself hold a plus
        return _core(graph, selector)
    core = _core(graph, parts["core"])
    meant = set(core)
    if parts["plus"]:
        meant |= graph.upstream_of(core, _depth(parts["up"]))
    if parts["and"]:
        meant |= graph.downstream_of(core, _depth(parts["down"]))
    return meant


def _depth(digits: str) -> int | None:
    return int(digits) if digits else None


def _core(graph: Graph, text: str) -> set[str]:
    """Return the ids meant by a selector without its pluses.

    Raises:
        ProjectRefused: it means no node, or a name that several nodes have.
    """
    nodes = graph.nodes.values()
    if text in graph.nodes:
        return {text}
    if text.startswith(("kind:", "tag:")):
        found = {node.id for node in nodes if text in _labels(node)}
    elif any(sign in text for sign in "*?["):
        found = {n.id for n in nodes if fnmatchcase(n.id, text) or fnmatchcase(n.name, text)}
    else:
        found = {graph.find(text).id}
    if not found:
        raise ProjectRefused([_means_nothing(text, nodes)])
    return found


def _labels(node: Node) -> set[str]:
    return {f"kind:{node.kind}", *(f"tag:{tag}" for tag in node.tags)}


def _means_nothing(text: str, nodes: Iterable[Node]) -> Problem:
    method, colon, value = text.partition(":")
    labels = sorted({label for node in nodes for label in _labels(node)})
    values = [label.partition(":")[2] for label in labels if label.startswith(f"{method}:")]
    near = difflib.get_close_matches(value, values, n=1)
    if not colon:
        fix = "it has to match whole ids, or whole names"
    elif near:
        fix = f"did you mean {method}:{near[0]}?"
    else:
        fix = f"the {method}s are {', '.join(values)}" if values else f"no node has a {method}"
    return Problem(f"{text!r} means no node", fix)
