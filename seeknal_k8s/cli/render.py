"""Plans, results and problems as text for people."""

from __future__ import annotations

import codecs
import json
import shlex
import sys
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from typing import TYPE_CHECKING, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from seeknal_k8s import verdict
from seeknal_k8s.attempt import Ending
from seeknal_k8s.cli import typed
from seeknal_k8s.errors import ProjectRefused
from seeknal_k8s.progress import RUNS, STYLES, clean, duration, first_line, mark, plural
from seeknal_k8s.results import skipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from seeknal_k8s.plan import Plan
    from seeknal_k8s.results import PrefectRunResult, RunResults

_IN_FULL = 5
"""How many failed nodes are told about in full; of the others there is a line each."""

_LISTED = 20
_SKIPPED = "UpstreamFailed"

_SEEKNALS_OWN = "/seeknal/workflow/"
"""A traceback that ends in here tells the user nothing that the message does not."""

_MESSAGE_LINES = 12
_LOG_LINES = 8
_ASCII = str.maketrans("✓✗\N{EN DASH}↻▸→·…│", "+x-~>>;.|")
_HANDLER = "seeknal_k8s.ascii"


def console(stream: TextIO) -> Console:
    """Return a console for a stream: colours and wrapping only where somebody looks at it.

    What the stream's encoding cannot show becomes ASCII that means the same.
    """
    if isinstance(stream, TextIOWrapper):
        codecs.register_error(_HANDLER, _in_ascii)
        stream.reconfigure(errors=_HANDLER)
    return _Console(file=stream, highlight=False, markup=False, emoji=False)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raise what happened; rich would end the program, in the middle of a run."""
        raise BrokenPipeError


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_ASCII)
    return text.encode("ascii", "backslashreplace"), error.end


def out() -> Console:
    """Return the console on stdout."""
    return console(sys.stdout)


def err() -> Console:
    """Return the console on stderr."""
    return console(sys.stderr)


def show(target: Console, lines: Iterable[Text | str]) -> None:
    """Print lines as they are: the terminal may wrap them, nothing else does."""
    for line in lines:
        target.print(line, soft_wrap=True)


def print_json(document: object) -> None:
    """Print one JSON document to stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False, default=str))  # noqa: T201


def results_document(results: RunResults, **facts: object) -> dict[str, object]:
    """Return results as JSON-able data; ``RunResults.from_json`` reads it."""
    nodes = {node: asdict(result) for node, result in results.items()}
    return {"run_id": results.run_id, **facts, "success": results.success, "results": nodes}


@dataclass(frozen=True, slots=True)
class Here:
    """Where the user is: what has to be added to a command so that it can be typed as shown."""

    project: Path
    store: Path | None = None
    on: str = "local"

    def command(self, text: str) -> str:
        """Return a command of ours, completed: ``logs transform.a`` with ``-C`` where needed."""
        words = [typed(), text]
        elsewhere = str(self.project) != "."
        if elsewhere and text.split(maxsplit=1)[0] in {"run", "plan"}:
            words.append(shlex.quote(str(self.project)))
        elif elsewhere:
            words.append(f"-C {shlex.quote(str(self.project))}")
        if self.on != "local" and text.split(maxsplit=1)[0] == "run":
            return " ".join([*words, "--on", self.on])
        if self.store is not None and not text.startswith("plan"):
            words.append(f"--store {shlex.quote(str(self.store))}")
        return " ".join(words)

    def completed(self, hint: str) -> str:
        """Return a hint: a command of ours is completed, a sentence stays as it is."""
        ours = "seeknal-k8s "
        return self.command(hint.removeprefix(ours)) if hint.startswith(ours) else hint


def table(
    heads: Sequence[str], rows: Sequence[Sequence[Text | str]], right: str = ""
) -> list[Text]:
    """Return a table as lines. ``right`` has an ``r`` at the columns that are aligned right."""
    cells = [[Text(head, style="bold") for head in heads]]
    cells += [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    widths = [max(cell_len(row[column].plain) for row in cells) for column in range(len(heads))]
    lines = []
    for row in cells:
        line = Text()
        for column, cell in enumerate(row):
            room = " " * (widths[column] - cell_len(cell.plain))
            line.append("  " if column else "")
            line = line + room + cell if right[column : column + 1] == "r" else line + cell + room
        line.rstrip()
        lines.append(line)
    return lines


def size(count: float | None) -> str:
    """Return bytes for people: ``512 MiB``."""
    if count is None:
        return ""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:  # noqa: PLR2004 - by definition
            return f"{count:,.0f} {unit}" if count >= 100 else f"{count:.3g} {unit}"  # noqa: PLR2004 - three digits either way
        count /= 1024
    return f"{count:,.1f} TiB"


def results_table(results: Mapping[str, PrefectRunResult], *, of: str = "NODE") -> list[Text]:
    """Return how every node, or whatever these are ``of``, ended, a line each, in plan order."""
    heads = ("", of, "RESULT", "EXIT", "TIME", "ROWS", "ATTEMPTS", "MEMORY")
    rows = [_row(node, result) for node, result in results.items()]
    return table(heads, rows, "   rrrrr")


def _row(node: str, result: PrefectRunResult) -> list[Text | str]:
    sign = mark(result)
    ran = result.attempts > 0 and sign != RUNS
    return [
        Text(sign, style=STYLES[sign]),
        node,
        result.reason,
        str(result.exit_code) if ran else "",
        duration(result.duration_seconds) if ran else "",
        "" if result.rows is None else f"{result.rows:,}",
        str(result.attempts or ""),
        size(result.peak_memory_bytes),
    ]


def summary(
    results: RunResults, here: Here, *, took: float | None = None, unfinished: bool = False
) -> list[Text]:
    """Return how a run went, failures first, and what to type next."""
    failed = [node for node, result in results.failed.items() if not skipped(result)]
    left = [node for node, result in results.failed.items() if result.reason == _SKIPPED]
    lines: list[Text] = []
    for node in failed[:_IN_FULL]:
        lines += _failure(node, results[node], here)
    lines += _brief(failed[_IN_FULL:], results)
    lines += _brief(left, results)
    if lines and lines[-1].plain:
        lines.append(Text())
    lines.append(_counts(results, len(failed), len(left)))
    if took is not None:
        lines.append(_times(results, took))
    if results.failed or unfinished:
        commands = {_logs(node, here): "what it said" for node in failed[:1]}
        commands[here.command(f"run --resume {results.run_id}")] = "go on, the project unchanged"
        commands[here.command("run")] = "after a change; what is still good is cached"
        lines += _next(commands)
    return lines


def _failure(node: str, result: PrefectRunResult, here: Here) -> list[Text]:
    tries = f", {plural(result.attempts, 'attempt')}" if result.attempts > 1 else ""
    head = f" {node}  {result.reason} (exit code {result.exit_code}{tries})"
    lines = [Text.assemble(("✗", STYLES["✗"]), (head, "bold"))]
    message = clean(result.message).strip().splitlines()
    lines += [Text(f"    {line}") for line in message[:_MESSAGE_LINES]]
    said = [line for line in clean(result.stderr).splitlines() if line.strip()]
    told = {line.strip() for line in message}  # a node's stderr ends with its message
    said = [line for line in said if line.strip() not in told]
    frames = [line for line in said if line.lstrip().startswith('File "')]
    if frames and _SEEKNALS_OWN in frames[-1]:
        said = []
    lines += [Text(f"    stderr │ {line}", style="dim") for line in said[-_LOG_LINES:]]
    hint = verdict.read(Ending(result.exit_code)).hint.format(node=node)
    commands = dict.fromkeys([_logs(node, here), here.completed(hint)] if hint else [])
    return [*lines, *(Text(f"    → {command}", style="cyan") for command in commands), Text()]


def _brief(nodes: Sequence[str], results: RunResults) -> list[Text]:
    lines = []
    for node in nodes[:_LISTED]:
        sign, what = mark(results[node]), first_line(results[node].message)
        words = what if results[node].reason == _SKIPPED else f"{results[node].reason}: {what}"
        lines.append(Text.assemble((sign, STYLES[sign]), f" {node}  {words}"))
    if len(nodes) > _LISTED:
        lines.append(Text(f"  … and {len(nodes) - _LISTED} more", style="dim"))
    return lines


def _logs(node: str, here: Here) -> str:
    return here.command(f"logs {shlex.quote(node)}")


def _counts(results: RunResults, failed: int, left: int) -> Text:
    cached = sum(result.reason == "Cached" for result in results.values())
    good = sum(result.success for result in results.values()) - cached
    not_run = len(results) - failed - left - cached - good
    rest = [f"{left} skipped" if left else "", f"{not_run} not run" if not_run else ""]
    if failed or left:
        line = Text(f"{failed} of {plural(len(results), 'node')} failed", style="bold red")
        rest.append(f"{good} succeeded" if good else "")
    elif not_run:
        line = Text(f"{good} of {plural(len(results), 'node')} succeeded", style="bold yellow")
    elif good:
        line = Text(f"{plural(good, 'node')} succeeded", style="bold green")
    else:
        line = Text("nothing had to run", style="bold green")
    rest.append(f"{cached} cached" if cached else "")
    return Text(", ").join([line, *(Text(part) for part in rest if part)])


def _times(results: RunResults, took: float) -> Text:
    one_by_one = sum(result.duration_seconds for result in results.values())
    words = f"{duration(took)} in all"
    if one_by_one > took:
        saved = duration(one_by_one - took)
        words += f"; one after the other the nodes take {duration(one_by_one)}: {saved} saved"
    return Text(words, style="dim")


def _next(commands: Mapping[str, str]) -> list[Text]:
    """Return commands to type next, each with what it is for."""
    width = max(map(cell_len, commands), default=0)
    lines = [Text("next:")]
    for command, purpose in commands.items():
        line = Text.assemble("  ", (command, "cyan"), " " * (width - cell_len(command)))
        lines.append(line.append(f"  # {purpose}", style="dim"))
    return lines


def what_next(plan: Plan | None, results: RunResults, here: Here) -> list[Text]:
    """Return what to try after a run that went well."""
    if plan is None:
        return []
    ran = [run.node for run in plan.runs if run.node.id in results]
    if not ran:
        return _next({here.command("run --full"): "run everything anew"})
    commands = {here.command("show"): "this again", _logs(ran[-1].id, here): "what a node said"}
    for node in reversed(ran):
        if any("target/intermediate" in file for file in node.outputs):
            where = (
                ""
                if str(here.project) == "."
                else f" --project-path {shlex.quote(str(here.project))}"
            )
            commands[f"seeknal inspect {shlex.quote(node.id)}{where}"] = "what a node made"
            break
    return _next(commands)


def error_lines(error: BaseException) -> list[Text]:
    """Return an error: what, and for each problem where and what to do."""
    if not isinstance(error, ProjectRefused):
        first, *rest = clean(str(error)).splitlines() or [type(error).__name__]
        return [Text.assemble(("error: ", "bold red"), first), *(Text(line) for line in rest)]
    count = plural(len(error.problems), "problem")
    lines = [Text.assemble(("error: ", "bold red"), f"{count}; nothing was run")]
    for problem in error.problems:
        if problem.where:
            lines.append(Text(f"  {clean(problem.where)}", style="bold"))
        indent = "    " if problem.where else "  "
        lines += [Text(f"{indent}{line}") for line in clean(problem.what).splitlines()]
        lines += [Text(f"{indent}→ {line}", "cyan") for line in clean(problem.fix).splitlines()]
    return lines
