"""The commands ``backfill`` and ``intervals``."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from seeknal_k8s.cli import render, submitting
from seeknal_k8s.cli.arguments import AsJson, Given, Project, StorePath
from seeknal_k8s.cli.backfill_options import Carrying, Range
from seeknal_k8s.cli.doing import require_store
from seeknal_k8s.errors import UsageError
from seeknal_k8s.progress import duration, first_line, plural, warning_lines

if TYPE_CHECKING:
    from seeknal_k8s.backfill import BackfillRequest
    from seeknal_k8s.backfill.planning import BackfillPlan
    from seeknal_k8s.results import RunResults

_HERE = Path()
_SHOWN = 5

NodeId = Annotated[
    str,
    typer.Argument(metavar="NODE", help="The node: an id or a name; NODE+ with what reads it."),
]


def backfill(
    context: typer.Context,
    node: NodeId,
    *,
    project: Project = _HERE,
    range_: Range,
    carrying: Carrying,
    given: Given,
    store: StorePath = None,
    as_json: AsJson = False,
) -> int:
    """Run a node for every interval of a schedule between two dates, each exactly once.

    What is done is not run again: the same command goes on where the last one stopped.
    {{ start_date }} and {{ end_date }} in the node are the interval's. Exit codes are those of run.
    """
    carrying.check()
    if carrying.submit:
        return _submit(node, range_, carrying, given, as_json=as_json)
    request = _request(node, project, range_, given, store=store, carrying=carrying)
    request.intervals()
    from seeknal_k8s import backfill as backfills  # noqa: PLC0415 - --help does without
    from seeknal_k8s.cli import running  # noqa: PLC0415
    from seeknal_k8s.cli.backfill_view import BackfillView  # noqa: PLC0415

    if carrying.dry_run:
        made = asyncio.run(backfills.plan(request, context.obj))
        return _show_plan(made, request, as_json=as_json)
    if request.on == "kubernetes":
        require_store(request.shares, "the same command with --submit")
    view = BackfillView(render.err() if as_json else render.out())
    results = running.until_ended(lambda: backfills.run(request, view, context.obj), view)
    if as_json:
        render.print_json(render.results_document(results, seconds=round(view.took, 3)))
    else:
        here = render.Here(project, store)
        render.show(render.out(), summary(results, node, view.took, here))
        if carrying.combine:
            whole = "all finished intervals are put together as the node's output in target/"
            not_yet = "nothing is put together in target/ while intervals are missing"
            render.show(render.out(), [whole if results.success else not_yet])
    return 0 if results.success else 1


def intervals(
    context: typer.Context,
    node: NodeId,
    *,
    project: Project = _HERE,
    range_: Range,
    given: Given,
    store: StorePath = None,
    as_json: AsJson = False,
) -> int:
    """Show which intervals of a node are done, failed, missing, or done with other logic."""
    request = _request(node, project, range_, given, store=store)
    from seeknal_k8s import backfill as backfills  # noqa: PLC0415 - --help does without
    from seeknal_k8s.cli import calendar  # noqa: PLC0415

    node_id, standings = asyncio.run(backfills.status(request, context.obj))
    if as_json:
        render.print_json({"node": node_id, "intervals": calendar.document(standings)})
    else:
        render.show(render.out(), calendar.lines(node_id, standings))
    return 0


def _request(
    node: str,
    project: Path,
    range_: Range,
    given: Given,
    *,
    store: Path | None,
    carrying: Carrying | None = None,
) -> "BackfillRequest":
    how = carrying or Carrying()
    params = given.parameters()
    from seeknal_k8s.backfill.request import BackfillRequest  # noqa: PLC0415 - much comes with it
    from seeknal_k8s.options import parse_overrides  # noqa: PLC0415

    settings = None
    on: Literal["local", "kubernetes"] = "local"
    if carrying is not None and how.on != "local" and not how.submit:
        from seeknal_k8s.settings import load  # noqa: PLC0415 - much comes with it

        settings = load()
        if (how.on or settings.on) == "kubernetes":
            on = "kubernetes"
            settings.ensure_runnable()
        else:
            settings = None
    return BackfillRequest(
        project=project,
        node=node,
        **range_.as_request(),
        upper="inclusive" if how.upper == "inclusive" else "exclusive" if how.upper else None,
        restate=how.restate,
        rerun_changed=how.rerun_changed,
        accept_partial=how.accept_partial,
        anyway=how.anyway,
        yes=how.yes,
        chunk=how.chunk,
        combine=how.combine,
        max_failures=how.max_failures,
        indexed=None if how.submit else how.indexed,
        store=store,
        run_id=how.run_id,
        options=parse_overrides(how.set or ()),
        params=params,
        profile=given.profile,
        on=on,
        settings=settings,
        at_once=how.max_parallel,
        wait=how.wait,
    )


def _submit(node: str, range_: Range, how: Carrying, given: Given, *, as_json: bool) -> int:
    """Have a coordinator in the cluster do it."""
    if given.profile is not None:
        raise UsageError(
            f"--profile {given.profile} is a file of this machine, which pods do not see\n"
            "  → give nodes its values by a Secret: `kubernetes: {env_from: [NAME]}`"
        )
    if how.dry_run and as_json:
        raise UsageError("with --submit a --dry-run is told by a pod, as text: leave --json out")
    # What is wrong is told here, not in a pod's log.
    _request(node, _HERE, range_, given, store=None, carrying=how).intervals()
    from seeknal_k8s.request import new_run_id  # noqa: PLC0415

    values = {
        "--start": range_.start,
        "--end": range_.end,
        "--last": range_.last,
        "--schedule": range_.schedule,
        "--timezone": range_.timezone,
        "--max-parallel": how.max_parallel,
        "--chunk": how.chunk,
        "--max-failures": how.max_failures,
        "--upper": how.upper,
        "--params": given.params,
        "--date": given.date,
        "--wait": how.wait or None,
    }
    flags = {
        "--end-exclusive": range_.end_exclusive,
        "--restate": how.restate,
        "--rerun-changed": how.rerun_changed,
        "--accept-partial": how.accept_partial,
        "--anyway": how.anyway,
        "--combine": how.combine,
        "--yes": how.yes,
        "--dry-run": how.dry_run,
        "--indexed": how.indexed is True,
        "--no-indexed": how.indexed is False,
    }
    command = ["backfill", node, "--project", "{project}"]
    command += [f"{name}={value}" for name, value in values.items() if value is not None]
    command += [name for name, wanted in flags.items() if wanted]
    command += [f"--set={one}" for one in how.set or ()]
    coordination = submitting.Coordination(detach=how.detach)
    # The Job of a dry run stays for a while, and must not be in the way of the real one.
    run_id = new_run_id() if how.dry_run else how.run_id or new_run_id()
    return submitting.attend(run_id, command, coordination, as_json=as_json)


def _show_plan(made: "BackfillPlan", request: "BackfillRequest", *, as_json: bool) -> int:
    scope, todo = made.scope, [interval.key for interval in made.todo]
    if as_json:
        render.print_json(
            {
                "node": scope.node.id,
                "intervals": len(made.intervals),
                "todo": todo,
                "done": len(made.done),
                "changed": list(made.changed),
                "chain": [each.id for each in scope.chain],
                "once": list(scope.outdated),
                "end_date": scope.upper,
                "one_at_a_time": made.policy.serial,
                "indexed": made.indexed,
                "warnings": [str(problem) for problem in made.warnings],
            }
        )
        return 0
    shown = [f"  {key}" for key in todo[:_SHOWN]]
    shown += [f"  … and {len(todo) - _SHOWN:,} more"] if len(todo) > _SHOWN else []
    attempts = -(-len(todo) // request.chunk)
    of = f"{plural(len(todo), 'interval')} of {len(made.intervals):,}"
    if not todo:
        done = f"nothing is to be run: all {plural(len(made.intervals), 'interval')} are done"
        render.show(render.out(), [*warning_lines(made.warnings), done])
        return 0
    lines: list[Text | str] = [
        *warning_lines(made.warnings),
        f"{of} to run, in {plural(attempts, 'attempt')}:",
        *shown,
        f"for each: {', '.join(each.id for each in scope.chain)}",
        f"once, before: {', '.join(scope.outdated) or 'nothing'}",
        f"{{{{ end_date }}}} is {_UPPER[scope.upper]}",
    ]
    lines += ["one at a time, as the target wants it"] if made.policy.serial else []
    lines += ["as the indexes of one Job"] if made.indexed else []
    render.show(render.out(), lines)
    return 0


_UPPER = {
    "exclusive": "the first moment after the interval",
    "inclusive": "the last day of the interval",
}


def summary(
    results: "RunResults", node: str, took: float | None, here: render.Here
) -> list[Text | str]:
    """Return how a backfill went, failures first, and what to type next."""
    reasons = [result.reason for result in results.values()]
    ran = sum(result.success and result.reason != "Cached" for result in results.values())
    failed = {key: one for key, one in results.failed.items() if one.attempts}
    left = len(results.failed) - len(failed)
    counts = [f"{ran:,} done"]
    counts += [f"{reasons.count('Cached'):,} done before"] if "Cached" in reasons else []
    counts += [f"{len(failed):,} failed"] if failed else []
    counts += [f"{left:,} not run"] if left else []
    lines: list[Text | str] = [""]
    for key, result in list(failed.items())[:_SHOWN]:
        lines.append(Text(f"✗ {key}  {result.reason}", style="bold red"))
        lines.append(f"  {first_line(result.message)}")
    lines += [f"… and {len(failed) - _SHOWN:,} more"] if len(failed) > _SHOWN else []
    within = "" if took is None else f"  in {duration(took)}"
    lines.append(f"{plural(len(results), 'interval')}: {', '.join(counts)}{within}")
    if failed:
        lines.append(f"  → what it said: {here.command(f'logs {next(iter(failed))}')}")
    if results.failed:
        lines.append(f"  → see which: {here.command(f'intervals {node}')}")
        lines.append("  → run what is missing: the same command again")
    return lines
