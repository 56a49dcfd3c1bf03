"""The nodes that a transform's SQL reads, found in its text.

Seeknal knows only the inputs that a file declares, but SQL may name any other node's view, and
``seeknal run`` lets it, as long as that node happened to run earlier in the same process.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TOKEN = re.compile(
    r"""
      --[^\n]* | /\*.*?\*/                                              # comments
    | [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | \$\$.*?\$\$           # strings
    | "(?:[^"]|"")*" | \w+ | [^\s\w]                                    # names, words, signs
    """,
    re.VERBOSE | re.DOTALL,
)

_ROLES = (
    dict.fromkeys(("from", "join", "using", "lateral"), "table")
    | dict.fromkeys(("pivot", "unpivot", "summarize", "describe"), "table")
    | dict.fromkeys(("where", "select", "group", "having", "qualify", "window", "order"), "end")
    | dict.fromkeys(("limit", "offset", "union", "except", "intersect", "set", ";"), "end")
    | {",": "comma", "(": "open", ")": "close"}
)

_TAKE_FROM = frozenset({"extract", "substring", "trim", "overlay"})
"""Functions whose FROM is no FROM clause: ``extract(year FROM orders.day)``."""


def references(sql: str, known: Mapping[str, str]) -> tuple[str, ...]:
    """Return the ids of the nodes that the SQL reads, each once, in their order.

    A name counts where a table stands, ``ref('kind.name')`` wherever it stands. ``known`` maps
    every id of the project, case-folded as DuckDB does, to the id as it is written.
    """
    words = [word for word in _TOKEN.findall(sql) if word[:2] not in {"--", "/*"}]
    found: dict[str, None] = {}
    clauses = _Clauses()
    before = ""
    for at, word in enumerate(words):
        role = _ROLES.get(word.lower())
        if role and before != ".":
            clauses.enter(role, before.lower())
        else:
            name = _argument(words, at) if word == "ref" else ""
            if clauses.table_expected:
                name = name or _table_name(words, at)
                clauses.table_expected = False
            if name and (node_id := known.get(name.casefold())):
                found[node_id] = None
        before = word
    return tuple(found)


def _table_name(words: Sequence[str], at: int) -> str:
    """Return ``kind.name`` if that stands here, as two names or as one quoted one, else nothing."""
    first, dot, second, after = (*words[at : at + 4], "", "", "")[:4]
    if dot != ".":
        return first.strip('"')
    parts = (first.strip('"'), second.strip('"'))
    return "" if after in {".", "("} else ".".join(parts)


def _argument(words: Sequence[str], at: int) -> str:
    """Return what ``ref(...)`` names here, else nothing."""
    opening, name, closing = (*words[at + 1 : at + 4], "", "", "")[:3]
    is_call = opening == "(" and closing == ")" and name[0] in "'\""
    return name[1:-1].strip() if is_call else ""


class _Clauses:
    """Whether a table's name may stand at the next token.

    That is after FROM, JOIN and their like, and after a comma in a FROM list. Anywhere else
    ``source.id`` is a column, of a table or an alias that is called like a kind of node.
    """

    def __init__(self) -> None:
        self.table_expected = False
        # For each open parenthesis: is this a FROM list? None where FROM starts none.
        self._lists: list[bool | None] = [False]

    def enter(self, role: str, before: str) -> None:
        """Take note of a keyword or sign, and of the token before it."""
        was_expected, self.table_expected = self.table_expected, False
        innermost = self._lists[-1]
        if role == "table" and innermost is not None and before != "distinct":
            self._lists[-1] = self.table_expected = True
        elif role == "comma":
            self.table_expected = innermost is True
        elif role == "open":
            self._lists.append(None if before in _TAKE_FROM else False)
            self.table_expected = was_expected
        elif role == "close" and len(self._lists) > 1:
            self._lists.pop()
        elif role == "end" and innermost:
            self._lists[-1] = False
