"""The commands that look at runs: ``show``, ``runs`` and ``logs``, and ``scale``. None of them needs Seeknal."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from seeknal_k8s.cli import past, program, render
from seeknal_k8s.cli.arguments import AsJson, Project, StorePath
from seeknal_k8s.errors import UsageError
from seeknal_k8s.progress import duration, plural
from seeknal_k8s.store import LATEST, Store

if TYPE_CHECKING:
    from seeknal_k8s.results import RunResults
    from seeknal_k8s.store import RunFolder

_HERE = Path()
_NEWEST = 20
_ALL = 100
"""So many intervals are shown one by one."""

NODE_HELP = "A node's id, or its name; of a backfill a day or an interval."
"""What NODE is for commands that look at one."""
_RUN_HELP = "A run: its id, the beginning of it, or 'latest'."


def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help=_RUN_HELP)] = LATEST,
    *,
    project: Project = _HERE,
    store: StorePath = None,
    as_json: AsJson = False,
) -> int:
    """Show how the nodes of a run, or the intervals of a backfill, ended, or how far they are."""
    if (Path(run) / "seeknal").is_dir():
        raise UsageError(f"{run} is a project, not a run\n  → {program()} show -C {run}")
    where = store_of(project, store)
    folder = where.run(run)
    about, state = folder.about(), past.status(where, folder)
    results = past.results_so_far(folder, state)
    if as_json:
        facts = {key: about.get(key) for key in ("project", "started", "ended")}
        render.print_json(render.results_document(results, status=state, **facts))
        return 0
    seconds = past.took(about, state)
    if about.get("kind") == "backfill":
        shown = _backfill(folder, state, results, render.Here(project, store))
        render.show(render.out(), shown)
        return 0
    lines = [_headline(folder.id, state, seconds, about), Text(), *render.results_table(results)]
    if state == past.RUNNING:
        lines += [Text(), Text(_so_far(results))]
    else:
        unfinished = state in {past.DIED, past.INTERRUPTED}
        here = render.Here(project, store)
        lines += [Text(), *render.summary(results, here, took=seconds, unfinished=unfinished)]
    render.show(render.out(), lines)
    return 0


def _backfill(
    folder: "RunFolder", state: str, results: "RunResults", here: render.Here
) -> list[Text | str]:
    """Return a backfill as it is: all its intervals, or of many those that are not done."""
    from seeknal_k8s.cli import backfilling  # noqa: PLC0415 - much comes with it

    about = folder.about()
    node, seconds = str(about["node"]), past.took(about, state)
    head = _headline(f"{folder.id} of {node}", state, seconds, about)
    shown = dict(results) if len(results) <= _ALL else dict(results.failed)
    some = dict(list(shown.items())[:_ALL])
    lines: list[Text | str] = [head, Text(), *render.results_table(some, of="INTERVAL")]
    if more := len(results) - len(some):
        where = here.command(f"intervals {node}")
        lines.append(Text(f"… and {more:,} more; which are done: {where}", "dim"))
    if state == past.RUNNING:
        done = sum(result.success for result in results.values())
        return [*lines, "", f"{done:,} of {plural(len(results), 'attempt')} are done"]
    return [*lines, *backfilling.summary(results, node, seconds, here)]


def _headline(name: str, state: str, seconds: float | None, about: dict[str, Any]) -> Text:
    words = [state]
    if about.get("started"):
        words.append(f"started {about['started']}")
    if seconds is not None and state == past.RUNNING:
        words.append(f"{duration(seconds)} so far")
    kind = about.get("kind", "run")
    return Text.assemble((f"{kind} {name}", "bold"), f"  {', '.join(words)}")


def _so_far(results: "RunResults") -> str:
    done = sum(result.success for result in results.values())
    return f"{done} of {len(results)} nodes are done"


def runs(
    *,
    project: Project = _HERE,
    store: StorePath = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, help="How many, newest first.")
    ] = _NEWEST,
    as_json: AsJson = False,
) -> int:
    """List the runs, the newest first."""
    where = store_of(project, store)
    folders = where.runs()
    found = []
    for folder in folders[:limit]:
        about, state = folder.about(), past.status(where, folder)
        facts = {
            "id": folder.id,
            "kind": about.get("kind", "run"),
            "node": about.get("node"),
            "status": state,
            "started": about.get("started"),
        }
        counts = past.counts(past.results_so_far(folder, state))
        found.append({**facts, "seconds": past.took(about, state), **counts})
    if as_json:
        render.print_json({"runs": found})
        return 0
    if not found:
        render.show(render.err(), [f"there are no runs in {where.root} yet"])
        return 0
    heads = ("RUN", "STATUS", "STARTED", "TIME", *(name.upper() for name in past.COUNTED), "KIND")
    lines = render.table(heads, [_cells(one) for one in found], "   rrrrr ")
    if len(folders) > limit:
        lines.append(Text(f"… and {len(folders) - limit} older: --limit {len(folders)}", "dim"))
    render.show(render.out(), lines)
    return 0


def _cells(run: dict[str, Any]) -> list[str]:
    time = "" if run["seconds"] is None else duration(run["seconds"])
    counts = [str(run[name] or "") for name in past.COUNTED]
    kind = f"{run['kind']} of {run['node']}" if run["node"] else run["kind"]
    return [run["id"], run["status"], run["started"] or "", time, *counts, kind]


def scale(
    run: Annotated[str, typer.Argument(metavar="RUN", help=_RUN_HELP)] = LATEST,
    *,
    max_parallel: Annotated[
        int,
        typer.Option(
            "--max-parallel", metavar="N", min=1, help="How many attempts run at once from now on."
        ),
    ],
    project: Project = _HERE,
    store: StorePath = None,
) -> int:
    """Make a run or a backfill that is going on faster or slower.

    What runs is left alone, but of an Indexed Job Kubernetes ends the newest pods, which run again later.
    Beginning it anew begins with its own --max-parallel again.
    """
    where = store_of(project, store)
    folder = where.run(run)
    state = past.status(where, folder)
    if state != past.RUNNING:
        raise UsageError(f"run {folder.id} does not go on: its status is {state}")
    if folder.about().get("one_at_a_time"):
        raise UsageError(f"run {folder.id} runs one at a time, because its target wants it so")
    folder.set_max_parallel(max_parallel)
    render.show(render.out(), [f"run {folder.id}: at most {max_parallel} at once from now on"])
    return 0


def logs(
    node: Annotated[str, typer.Argument(metavar="NODE", help=NODE_HELP)],
    *,
    run: Annotated[str, typer.Option("--run", metavar="RUN", help=_RUN_HELP)] = LATEST,
    project: Project = _HERE,
    store: StorePath = None,
    attempt: Annotated[
        int | None,
        typer.Option("--attempt", metavar="N", min=1, help="Which try.", show_default="the last"),
    ] = None,
    stderr: Annotated[
        bool, typer.Option("--stderr", help="Only its stderr, written to stdout.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the attempt has ended.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Write what a node wrote, byte for byte: stdout to stdout, stderr to stderr."""
    where = store_of(project, store)
    folder = where.run(run)
    log = past.NodeLog(where, folder, past.node_in(folder, node), attempt)
    place = log.wait_for_folder() if follow else log.folder()
    if as_json:
        render.print_json(log.document(place))
        return 0
    streams = {place / "stderr": sys.stdout.buffer}
    if not stderr:
        streams = {place / "stdout": sys.stdout.buffer, place / "stderr": sys.stderr.buffer}
    if follow:
        log.follow(streams)
    else:
        wrote = [past.copy(file, target) for file, target in streams.items()]
        if not any(wrote):
            render.show(render.err(), [Text(f"{log.node} wrote nothing", "dim")])
    return 0


def store_of(project: Path, root: Path | None) -> Store:
    """Return the store of a project, or the one that was named.

    Raises:
        UsageError: there is no such project.
    """
    if not project.is_dir():
        raise UsageError(f"there is no folder {project}; name the project's with --project")
    return Store.of(project, root)
