"""The commands that read a project: ``run``, ``plan`` and ``render``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from seeknal_k8s.cli import render, typed
from seeknal_k8s.cli.arguments import (
    AsJson,
    Execution,
    Folder,
    Inputs,
    Project,
    Selection,
    StorePath,
    refuse_selection_of_resumed,
)
from seeknal_k8s.errors import StoreUnavailable, UsageError
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
    if request.on == "kubernetes":
        require_store(request, f"{typed()} submit")
    from seeknal_k8s.cli import running  # noqa: PLC0415 - --help does without the coordinator

    console = render.err() if as_json else render.out()
    view = running.view_on(console, quiet=quiet)
    results = running.run(request, view, context.obj)
    here = _here(request)
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
    request = _request(project, selection, inputs, Execution(on="local"))
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


def render_manifests(
    context: typer.Context,
    node: Annotated[
        str | None,
        typer.Argument(
            metavar="NODE", help="One node, cached or not.", show_default="all that run"
        ),
    ] = None,
    *,
    project: Project = _HERE,
    selection: Selection,
    inputs: Inputs,
    run_id: Annotated[
        str | None,
        typer.Option("--run-id", metavar="ID", help="The run's id.", show_default="preview"),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Print the manifests that a run on Kubernetes would create: the run's anchor, then its Jobs.

    The cluster is not asked. The anchor's uid, which only the API server gives, is a row of zeros.
    """
    execution = Execution(on="kubernetes", run_id=run_id)
    execution.check()
    request = _request(project, selection, inputs, execution)
    from seeknal_k8s.cli import manifests, planning, running  # noqa: PLC0415 - as above
    from seeknal_k8s.manifest import Draft  # noqa: PLC0415
    from seeknal_k8s.options.text import documents  # noqa: PLC0415

    planned = running.plan(request, context.obj)
    render.show(render.err(), warning_lines(planned.warnings))
    drafts = [Draft(run.node, run.options) for run in planned.plan.runs]
    if node is not None:
        explained = planning.explain(planned.plan, node, request)
        drafts = [Draft(explained.node, explained.options)]
    assert request.settings is not None  # noqa: S101 - it is for kubernetes
    objects = manifests.objects(
        drafts,
        project=planned.plan.graph.name,
        run_id=run_id or manifests.RUN_ID,
        settings=request.settings,
    )
    if as_json:
        render.print_json({"apiVersion": "v1", "kind": "List", "items": objects})
    else:
        print(documents(objects), end="")  # noqa: T201
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
    if execution.on != "local":
        from seeknal_k8s.settings import load  # noqa: PLC0415 - as above

        settings = load()
        if (execution.on or settings.on) == "kubernetes":
            settings.ensure_runnable()
        else:
            settings = None
    return RunRequest(
        project=project,
        store=store,
        run_id=execution.run_id,
        resume_if_started=execution.resume_if_started,
        resume=execution.resume,
        select=tuple(selection.select or ()),
        exclude=tuple(selection.exclude or ()),
        full=selection.full,
        options=parse_overrides(selection.set or ()),
        params=params,
        profile=inputs.profile,
        on="local" if settings is None else "kubernetes",
        settings=settings,
        at_once=execution.max_parallel,
        fail_fast=execution.fail_fast,
        wait=execution.wait,
    )


def _here(request: "RunRequest") -> render.Here:
    store = request.store if request.on == "local" else request.store_root
    return render.Here(request.project, store, request.on)


def require_store(request: "RunRequest", instead: str) -> None:
    """Refuse to coordinate where the volume that the pods share is not to be seen; ``instead`` helps.

    Raises:
        UsageError: the store is another folder than the pods'.
        StoreUnavailable: it is not here, or cannot be written.
    """
    settings = request.settings
    assert settings is not None  # noqa: S101 - it is for kubernetes
    if request.store is not None and request.store.absolute() != Path(settings.store_path):
        raise UsageError(
            f"--store {request.store}: every pod has the store at {settings.store_path}, and so has "
            "the coordinator\n  → leave it out, or set SEEKNAL_K8S_STORE_PATH"
        )
    store = Path(settings.store_path)
    what = "is not there" if not store.is_dir() else "cannot be written"
    if not os.access(store, os.W_OK):
        raise StoreUnavailable(
            f"the store {store} {what} on this machine: it is a volume of the cluster "
            f"({settings.store_claim or settings.store_host_path}), which only pods mount\n"
            f"  → start it inside the cluster: {instead}"
        )
