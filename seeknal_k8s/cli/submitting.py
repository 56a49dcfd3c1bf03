"""The command ``submit``: a run as a Job inside the cluster, followed from here."""

import asyncio
import sys
from dataclasses import dataclass
from typing import Annotated

import typer

from seeknal_k8s.cli import render, typed
from seeknal_k8s.cli.arguments import (
    AsJson,
    FailFast,
    Inputs,
    MaxParallel,
    OwnRunId,
    Selection,
    Wait,
    check_run_id,
    refuse_selection_of_resumed,
)
from seeknal_k8s.cli.jobs import There, there
from seeknal_k8s.errors import UsageError

_HOW = "How to run it"


@dataclass(frozen=True, kw_only=True)
class Coordination:
    """How the run inside the cluster goes about it, and what becomes of us meanwhile."""

    max_parallel: MaxParallel = None
    fail_fast: FailFast = False
    run_id: OwnRunId = None
    wait: Wait = 0.0
    cpu: Annotated[
        str,
        typer.Option("--runner-cpu", rich_help_panel=_HOW, help="The CPU of the coordinator."),
    ] = "500m"
    memory: Annotated[
        str,
        typer.Option(
            "--runner-memory", rich_help_panel=_HOW, help="The memory of the coordinator."
        ),
    ] = "1Gi"
    detach: Annotated[
        bool, typer.Option("--detach", help="Do not follow it; it goes on without us.")
    ] = False
    attach: Annotated[
        str | None,
        typer.Option("--attach", metavar="RUN", help="Follow a run that was submitted before."),
    ] = None
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume", metavar="RUN", help="Go on with a run that has ended, where it ended."
        ),
    ] = None


def submit(
    *,
    selection: Selection,
    inputs: Inputs,
    coordination: Coordination,
    as_json: AsJson = False,
) -> int:
    """Run the project of the image inside the cluster, and follow the run until it has ended.

    The coordinator is a Job, too: closing the laptop, or Ctrl-C, does not end it. It is started
    again when its machine goes. The exit code is the run's own.
    """
    how = coordination
    if how.attach is not None:
        if (selection, inputs) != (Selection(), Inputs()) or how != Coordination(attach=how.attach):
            raise UsageError(f"--attach {how.attach} only follows a run; leave the rest out")
        return attend(how.attach, None, how, as_json=as_json)
    if inputs.profile is not None:
        raise UsageError(
            f"--profile {inputs.profile} is a file of this machine, which pods do not see\n"
            "  → give nodes its values by a Secret: `kubernetes: {env_from: [NAME]}`"
        )
    if how.resume is not None:
        if how.run_id is not None:
            raise UsageError("--resume goes on under the run's own id, so leave --run-id out")
        refuse_selection_of_resumed(selection, inputs)
        command = ["run", "{project}", *_arguments(selection, inputs, how)]
        return attend(how.resume, command, how, as_json=as_json)
    inputs.parameters()
    from seeknal_k8s.options import parse_overrides  # noqa: PLC0415 - much comes with them
    from seeknal_k8s.request import new_run_id  # noqa: PLC0415

    parse_overrides(selection.set or ())
    run = how.run_id or new_run_id()
    check_run_id(run)
    command = ["run", "{project}", "--resume-if-started", *_arguments(selection, inputs, how)]
    return attend(run, command, how, as_json=as_json)


def _arguments(selection: Selection, inputs: Inputs, how: Coordination) -> list[str]:
    """Return the options of ``run`` that say what to run, as they were given here."""
    given = [f"--select={one}" for one in selection.select or ()]
    given += [f"--exclude={one}" for one in selection.exclude or ()]
    given += [f"--set={one}" for one in selection.set or ()]
    given += ["--full"] if selection.full else []
    given += ["--fail-fast"] if how.fail_fast else []
    values = {
        "--params": inputs.params,
        "--date": inputs.date,
        "--start-date": inputs.start_date,
        "--end-date": inputs.end_date,
        "--max-parallel": how.max_parallel,
        "--wait": how.wait or None,
    }
    return [*given, *(f"{name}={value}" for name, value in values.items() if value is not None)]


def attend(run: str, arguments: list[str] | None, how: Coordination, *, as_json: bool) -> int:
    """Submit a command under this id, if there is one; then follow it, unless told not to.

    ``{project}`` in it stands for where the project is in the pod.
    """
    told = [run]
    try:
        code = asyncio.run(_attended(told, arguments, how, as_json=as_json))
    except KeyboardInterrupt:
        lines = ["", f"run {told[0]} goes on in the cluster", *_next(told[0])]
        render.show(render.err(), lines)
        return 130
    if as_json:
        render.print_json({"run_id": told[0], "exit_code": code})
    elif how.detach:
        render.show(render.out(), [f"run {told[0]} is submitted", *_next(told[0])])
    return code or 0


def _next(run: str) -> list[str]:
    return [
        f"  → follow it: {typed()} submit --attach {run}",
        f"  → end it: {typed()} cancel {run}",
    ]


async def _attended(
    told: list[str], arguments: list[str] | None, how: Coordination, *, as_json: bool
) -> int | None:
    """Return the run's exit code, None if nobody waits for it; ``told`` is its id, also if cut short."""
    async with there() as here:
        if arguments is None or how.resume is not None:
            told[0] = await here.resolve(told[0])
        if arguments is not None:
            await _submit(here, told[0], arguments, how)
            if how.detach:
                return None
        return await _follow(here, told[0], as_json=as_json)


async def _submit(here: There, run: str, arguments: list[str], how: Coordination) -> None:
    from seeknal_k8s import submission  # noqa: PLC0415 - with the cluster's client

    settings = here.settings
    command = [settings.project_path if one == "{project}" else one for one in arguments]
    command += ["--on=kubernetes", f"--{'run-id' if how.resume is None else 'resume'}={run}"]
    if how.resume is not None:
        await submission.make_way(here.cluster, run)
    job = submission.build(run, command, settings, cpu=how.cpu, memory=how.memory)
    await submission.submit(here.cluster, job)


async def _follow(here: There, run: str, *, as_json: bool) -> int:
    from seeknal_k8s import submission  # noqa: PLC0415 - with the cluster's client

    stream = sys.stderr.buffer if as_json else sys.stdout.buffer

    def write(piece: bytes) -> None:
        stream.write(piece)
        stream.flush()

    def tell(news: str) -> None:
        render.show(render.err(), [f"run {run} is {news}"])

    return await submission.follow(here.cluster, run, write, tell)
