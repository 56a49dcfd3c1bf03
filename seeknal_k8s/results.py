"""What the user gets back: one ``PrefectRunResult`` per node, in a ``RunResults``."""

from __future__ import annotations

import html
import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

NO_EXIT_CODE = -1
"""The exit code of a node whose process never ended by itself: skipped, or never started."""


@dataclass
class PrefectRunResult:
    """How one node ended. The first five fields are Seeknal's documented ones.

    ``exit_code`` is the node process's own, ``-1`` when there was none.
    ``stdout`` and ``stderr`` are the last lines; ``log_path`` names the folder with the whole of
    both. ``reason`` is one word (``Succeeded``, ``Cached``, ``NodeFailed``, ``UpstreamFailed`` …)
    and ``message`` a sentence. ``started`` is an ISO 8601 time in UTC, ``rows`` what Seeknal
    counted, ``peak_memory_bytes`` the largest resident set of the node's processes.
    """

    success: bool
    exit_code: int
    stdout: str
    stderr: str
    duration_seconds: float
    reason: str = ""
    message: str = ""
    attempts: int = 0
    started: str | None = None
    rows: int | None = None
    peak_memory_bytes: int | None = None
    log_path: str | None = None


def skipped(result: PrefectRunResult) -> bool:
    """Return whether a node never ran, and was not cached either."""
    return not result.success and result.attempts == 0


_FIELDS = frozenset(field.name for field in fields(PrefectRunResult))


class RunResults(dict[str, PrefectRunResult]):
    """The results of a run: a dict from node id to ``PrefectRunResult``, in plan order."""

    def __init__(self, results: dict[str, PrefectRunResult] | None = None, *, run_id: str = ""):
        super().__init__(results or {})
        self.run_id = run_id

    def wait(self) -> RunResults:
        """Return itself: the run is over by the time there are results."""
        return self

    def __await__(self) -> Generator[Any, None, RunResults]:
        """Give itself to ``await``, for those who call a flow of ours as they call an async one."""
        yield from ()
        return self

    @property
    def success(self) -> bool:
        """Whether every node succeeded."""
        return all(result.success for result in self.values())

    @property
    def failed(self) -> dict[str, PrefectRunResult]:
        """The nodes that did not succeed, skipped ones included."""
        return {node: result for node, result in self.items() if not result.success}

    def to_json(self) -> str:
        """Return the results as JSON text; ``from_json`` reads it back."""
        body = {"run_id": self.run_id, "results": {k: asdict(v) for k, v in self.items()}}
        return json.dumps(body, indent=2)

    @classmethod
    def from_json(cls, text: str) -> RunResults:
        """Read what ``to_json`` wrote; fields that a newer version has added are passed over.

        Raises:
            ValueError: the text is not JSON, or not results.
        """
        body = json.loads(text)
        try:
            nodes = {node: _result(raw) for node, raw in body["results"].items()}
            return cls(nodes, run_id=body["run_id"])
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not the results of a run: {error!r}") from error

    def __repr__(self) -> str:
        done = sum(result.success for result in self.values())
        rows = [f"  {_line(node, result)}" for node, result in self.items()]
        head = f"RunResults({self.run_id!r}, {done} of {len(self)} succeeded)"
        return "\n".join([head, *rows])

    def _repr_html_(self) -> str:
        heads = ("node", "result", "exit", "seconds", "rows", "attempts")
        rows = [
            (
                node,
                result.reason,
                result.exit_code,
                f"{result.duration_seconds:.2f}",
                "" if result.rows is None else result.rows,
                result.attempts,
            )
            for node, result in self.items()
        ]
        head = "".join(f"<th>{name}</th>" for name in heads)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
            for row in rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _result(raw: dict[str, Any]) -> PrefectRunResult:
    return PrefectRunResult(**{key: value for key, value in raw.items() if key in _FIELDS})


def _line(node: str, result: PrefectRunResult) -> str:
    mark = "✓" if result.success else "✗"
    return (
        f"{mark} {node}  {result.reason}  exit {result.exit_code}  {result.duration_seconds:.2f}s"
    )
