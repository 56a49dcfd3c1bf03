"""The command ``doctor``: is everything in place for a run, and if not, what to type."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from seeknal_k8s.cli import render
from seeknal_k8s.cli.arguments import AsJson, Project
from seeknal_k8s.progress import plural

if TYPE_CHECKING:
    from seeknal_k8s.doctor import Finding

_HERE = Path()
_SIGNS = {"ok": ("✓", "green"), "failed": ("✗", "red"), "skipped": ("\N{EN DASH}", "dim")}


def doctor(
    context: typer.Context,
    *,
    project: Project = _HERE,
    offline: Annotated[
        bool, typer.Option("--offline", help="Look at the project and its options only.")
    ] = False,
    pods: Annotated[
        bool,
        typer.Option("--pods", help="Start two pods, too: is the image there, the store shared?"),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Check that everything is in place for a run: project, cluster, Prefect. Creates nothing.

    Only --pods creates something, a Job that is deleted again. Exit code 1 if a check fails.
    """
    from seeknal_k8s import doctor as doctors  # noqa: PLC0415 - much comes with it
    from seeknal_k8s.request import RunRequest  # noqa: PLC0415

    request = RunRequest(project=project, full=True)
    found = asyncio.run(doctors.examine(request, context.obj, offline=offline, pods=pods))
    failed = [one for one in found if one.state is doctors.State.FAILED]
    if as_json:
        render.print_json({"ok": not failed, "checks": [asdict(one) for one in found]})
    else:
        render.show(render.out(), [*_lines(found), Text(), _verdict(len(failed), len(found))])
    return 1 if failed else 0


def _lines(found: "tuple[Finding, ...]") -> list[Text]:
    width = max(len(one.check) for one in found)
    lines, group = [], ""
    for one in found:
        if one.group != group:
            lines += [Text()] if group else []
            lines.append(Text(one.group, style="bold"))
            group = one.group
        sign, style = _SIGNS[one.state]
        first, *rest = one.reason.splitlines() or [""]
        lines.append(Text.assemble("  ", (sign, style), f" {one.check:<{width}}  {first}"))
        lines += [Text(f"    {'':<{width}}  {line}") for line in rest]
        lines += [
            Text(f"    {'':<{width}}  → {line}", style="cyan") for line in one.fix.splitlines()
        ]
    return lines


def _verdict(failed: int, count: int) -> Text:
    if failed:
        return Text(f"{failed} of {plural(count, 'check')} failed", style="bold red")
    return Text(f"{plural(count, 'check')}, none failed", style="bold green")
