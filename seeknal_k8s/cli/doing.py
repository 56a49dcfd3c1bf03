"""The commands that read a project: ``run`` and ``plan``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from seeknal_k8s.cli import render
from seeknal_k8s.cli.arguments import (
    AsJson,
    Execution,
    Folder,
    Inputs,
    Selection,
    StorePath,
    refuse_selection_of_resumed,
)
from seeknal_k8s.progress import warning_lines

if TYPE_CHECKING:
    from seeknal_k8s.request import RunRequest

_HERE = Path()


def run(
    context: typer.Context,
    project: Folder = _HERE,
    *,
    selection: Selection,
    inputs: Inputs,
    execution: Execution,
    store: StorePath = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing unless something fails.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Run what has changed, each node in a process of its own.

    Exit codes: 0 every node succeeded, 1 a node failed, 130 interrupted,
    2 the command line is wrong, 78 the project or its options are refused.
    """
    execution.check()
    if execution.resume is not None:
        refuse_selection_of_resumed(selection, inputs)
    request = _request(project, selection, inputs, execution, store)
    from seeknal_k8s.cli import running  # noqa: PLC0415 - --help does without the coordinator

    console = render.err() if as_json else render.out()
    view = running.view_on(console, quiet=quiet)
    results = running.run(request, view, context.obj)
    here = render.Here(project, store)
    if as_json:
        render.print_json(render.results_document(results, seconds=round(view.took, 3)))
    if not quiet or not results.success:
        lines = [Text(), *render.summary(results, here, took=view.took)]
        if results.success:
            lines += render.what_next(view.plan, results, here)
        render.show(console, lines)
    return 0 if results.success else 1


def plan(
    context: typer.Context,
    project: Folder = _HERE,
    *,
    selection: Selection,
    inputs: Inputs,
    explain: Annotated[
        str | None,
        typer.Option("--explain", metavar="NODE", help="Show where a node's options come from."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Show what would run and why, without running anything."""
    request = _request(project, selection, inputs, Execution())
    from seeknal_k8s.cli import planning, running  # noqa: PLC0415 - as above

    planned = running.plan(request, context.obj)
    if explain is not None:
        explained = planning.explain(planned.plan, explain, request)
        document, lines = planning.explanation(explained), planning.explanation_lines(explained)
    else:
        render.show(render.err(), warning_lines(planned.warnings))
        document, lines = planning.document(planned), planning.lines(planned.plan)
    if as_json:
        render.print_json(document)
    else:
        render.show(render.out(), lines)
    return 0


def _request(
    project: Path,
    selection: Selection,
    inputs: Inputs,
    execution: Execution,
    store: Path | None = None,
) -> "RunRequest":
    params = inputs.parameters()
    # Much comes with them, and a wrong date is told sooner without.
    from seeknal_k8s.options import parse_overrides  # noqa: PLC0415
    from seeknal_k8s.request import RunRequest  # noqa: PLC0415

    settings = None
    if execution.on == "kubernetes":
        from seeknal_k8s.settings import load  # noqa: PLC0415 - the environment counts only then

        settings = load()
        settings.ensure_runnable()
    return RunRequest(
        project=project,
        store=store,
        run_id=execution.run_id,
        resume=execution.resume,
        select=tuple(selection.select or ()),
        exclude=tuple(selection.exclude or ()),
        full=selection.full,
        options=parse_overrides(selection.set or ()),
        params=params,
        profile=inputs.profile,
        on=execution.backend,
        settings=settings,
        at_once=execution.max_parallel,
        fail_fast=execution.fail_fast,
        wait=execution.wait,
    )
