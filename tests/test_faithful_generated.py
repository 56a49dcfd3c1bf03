"""Random graphs of sources and transforms: node by node, and as ``seeknal run`` has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from seeknal_k8s.names import folded
from tests.faithful import states
from tests.projects import csv, pair_of, rows, transform

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class Step(NamedTuple):
    """A transform: its name, its inputs as numbers of earlier nodes, and how its SQL names them."""

    name: str
    inputs: tuple[int, ...]
    style: int


class Draft(NamedTuple):
    """A graph: the names of its sources, and its transforms in an order that can run."""

    sources: tuple[str, ...]
    steps: tuple[Step, ...]

    def ids(self) -> list[str]:
        """Return the id of every node, in the order that inputs count in."""
        return [
            *(f"source.{name}" for name in self.sources),
            *(f"transform.{step.name}" for step in self.steps),
        ]


# Every form of name that Seeknal takes for SQL: `_`, capitals, digits, letters of any script.
NAMES = st.from_regex(r"(?:[a-zA-Z]|_|ü|Ñ|数|据)(?:[a-zA-Z0-9]|_|ü|ï|数|据){1,9}", fullmatch=True)


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    width = draw(st.integers(8, 30))
    names = draw(st.lists(NAMES, min_size=8, max_size=width + 3, unique_by=folded))
    count = draw(st.integers(1, 3))
    steps = []
    for index, name in enumerate(names[count:], start=count):
        inputs = st.lists(st.integers(0, index - 1), min_size=1, max_size=3, unique=True)
        steps.append(Step(name, tuple(draw(inputs)), draw(st.integers(0, 2))))
    return Draft(tuple(names[:count]), tuple(steps))


FAN = Draft(
    ("Ünï_1",),
    (
        Step("数据", (0,), 0),
        *(Step(f"t_{number:02}", (number % 2,), number % 3) for number in range(30)),
        Step("All", (2, 31, 0), 1),
    ),
)
"""Thirty transforms side by side, and one below them that also reads what is above them."""


def _sql(step: Step, ids: list[str]) -> str:
    parts = []
    for position, number in enumerate(step.inputs):
        named = (
            f"ref('{ids[number]}')" if ids[number].isascii() else ids[number]
        )  # as Seeknal has it
        own = "__THIS__" if len(step.inputs) == 1 else f"input_{position}"
        table = (own, named, ids[number])[(step.style + position) % 3]
        part = f"SELECT id, CAST(value * 2 AS BIGINT) + {position} AS value FROM {table}"
        parts.append(part)
    union = " UNION ALL ".join(parts)
    total = "CAST(sum(value) AS BIGINT) % 997 AS value"
    return f"SELECT id, {total} FROM ({union}) GROUP BY id"


def _build(project: Path, draft: Draft) -> None:
    ids = draft.ids()
    for number, name in enumerate(draft.sources):
        csv(project, name, rows=5 + 7 * number)
    for step in draft.steps:
        transform(project, step.name, _sql(step, ids), *(ids[number] for number in step.inputs))


@settings(
    max_examples=3,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # an example costs seconds: no shrinking
    suppress_health_check=list(HealthCheck),
)
@example(FAN)
@given(drafts())
def test_any_graph_ends_as_in_seeknal(
    tmp_path_factory: pytest.TempPathFactory, draft: Draft
) -> None:
    folder = tmp_path_factory.mktemp("generated")
    with pair_of(folder, "generated", lambda project: _build(project, draft)) as pair:
        pair.run_both()
        assert {status for status, _, _ in states(pair.mono).values()} == {"success"}
        assert states(pair.ours).keys() == set(draft.ids())
        assert pair.differences() == []
        assert all(rows(pair.ours, node_id) for node_id in draft.ids())
