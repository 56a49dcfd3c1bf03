"""The program: its commands, and what becomes of an error."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal_k8s.cli import (
    backfilling,
    deploying,
    doctoring,
    doing,
    jobs,
    looking,
    program,
    render,
    submitting,
)
from seeknal_k8s.cli.arguments import BROKEN_PIPE, grouped
from seeknal_k8s.errors import ProjectRefused, SeeknalK8sError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seeknal_k8s.engine_process import EngineProcess
    from seeknal_k8s.errors import Problem

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run a Seeknal project node by node: every node in a process of its own.",
    epilog=f"Begin with [bold]{program()} plan[/bold], then [bold]{program()} run[/bold].",
    rich_markup_mode="rich",
)

FOREVER = "inf"
"""What ``--wait`` without a number stands for."""

# Each version of typer keeps click's classes in another place; BadParameter is public in all.
_ParseError: type[Any] = typer.BadParameter.__bases__[0]


def execute(arguments: Sequence[str], engine: EngineProcess | None = None) -> int:
    """Run one command line and return its exit code. ``engine`` has begun to import Seeknal."""
    try:
        code = typer.main.get_command(app).main(
            args=with_wait_value(arguments),
            prog_name=program(),
            standalone_mode=False,
            obj=engine,
        )
        sys.stdout.flush()
    except BrokenPipeError:
        code = BROKEN_PIPE
    except typer.Abort:
        return 130
    except (SeeknalK8sError, _ParseError) as error:
        return _refuse(error, as_json="--json" in arguments)
    if code == BROKEN_PIPE:
        # What is still buffered is flushed at exit, and would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(code or 0)


def with_wait_value(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with a value for each bare ``--wait``: typer's options need one."""
    completed = []
    for index, argument in enumerate(arguments):
        following = arguments[index + 1 : index + 2]
        bare = argument == "--wait" and not (following and _is_number(following[0]))
        completed.append(f"--wait={FOREVER}" if bare else argument)
    return completed


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _refuse(error: Exception, *, as_json: bool) -> int:
    """Say what is wrong, to people and, if asked for, to programs; return the exit code."""
    if isinstance(error, _ParseError):
        command = error.ctx.command_path if error.ctx else program()
        error = UsageError(f"{error.format_message()}\n  → {command} --help")
    render.show(render.err(), render.error_lines(error))
    if as_json:
        problems = error.problems if isinstance(error, ProjectRefused) else ()
        body = {
            "type": type(error).__name__,
            "message": str(error),
            "problems": [_problem(problem) for problem in problems],
        }
        render.print_json({"error": body})
    return error.exit_code if isinstance(error, SeeknalK8sError) else 1


def _problem(problem: Problem) -> dict[str, str]:
    return {**asdict(problem), "where": problem.where}


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls back like this
    if wanted:
        ours, seeknal = (metadata.version(name) for name in ("seeknal-k8s", "seeknal"))
        print(f"{program()} {ours} (Seeknal {seeknal}, Python {platform.python_version()})")  # noqa: T201
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - its callback has done everything
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the versions."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())  # noqa: T201
        raise typer.Exit(UsageError.exit_code)


def _examples(*lines: str) -> str:
    return "\n".join(["[bold]Examples[/bold]", *(f"  {program()} {line}" for line in lines)])


app.command(
    epilog=_examples(
        "run",
        "run examples/shop --full",
        "run --select +transform.daily_sales --set memory=2Gi",
        "run --date 2025-01-31 --max-parallel 4 --fail-fast",
        "run --resume latest",
    )
)(grouped(doing.run))
app.command(
    epilog=_examples("plan", "plan --select tag:daily", "plan --explain transform.daily_sales")
)(grouped(doing.plan))
app.command(epilog=_examples("show", "show 20251124 -C examples/shop", "show --json"))(
    grouped(looking.show)
)
app.command(epilog=_examples("runs", "runs -C examples/shop --json"))(grouped(looking.runs))
app.command(
    epilog=_examples(
        "logs transform.daily_sales",
        "logs daily_sales --stderr --attempt 1",
        "logs transform.daily_sales --follow",
    )
)(grouped(looking.logs))
app.command(epilog=_examples("scale latest --max-parallel 8"))(grouped(looking.scale))
app.command(
    "render",
    epilog=_examples(
        "render -C examples/shop",
        "render transform.daily_sales --set memory=2Gi",
        "render | kubectl apply --dry-run=server -f -",
    ),
)(grouped(doing.render_manifests))
app.command(
    epilog=_examples(
        "submit",
        "submit --select +transform.daily_sales --detach",
        "submit --attach latest",
    )
)(grouped(submitting.submit))
app.command(
    epilog=_examples(
        "backfill category_sales --start 2025-01-01 --end 2025-03-31",
        "backfill category_sales --last 7d --chunk 7",
        "backfill category_sales --start 2025-01-01 --end 2025-12-31 --schedule @monthly --dry-run",
    )
)(grouped(backfilling.backfill))
app.command(epilog=_examples("intervals category_sales", "intervals category_sales --json"))(
    grouped(backfilling.intervals)
)
app.command(epilog=_examples("why transform.daily_sales", "why daily_sales --run 20251124 --json"))(
    grouped(jobs.why)
)
app.command(epilog=_examples("cancel latest", "cancel 20251124-101500-ab12"))(grouped(jobs.cancel))
app.command(epilog=_examples("reap", "reap --older-than 24h --yes"))(grouped(jobs.reap))
app.command(
    epilog=_examples(
        "deploy daily --schedule '0 2 * * *' --timezone Europe/Berlin",
        "deploy shop/production --project /project --image shop:1 --tag etl",
        "deploy daily --schedule @daily --print >prefect.yaml",
    )
)(grouped(deploying.deploy))
app.command(epilog=_examples("deployments", "deployments --json"))(grouped(deploying.deployments))
deploying.pool_commands.command(
    "apply", epilog=_examples("pool apply", "pool apply --pool nightly --runner-memory 2Gi --check")
)(grouped(deploying.pool_apply))
app.add_typer(deploying.pool_commands, name="pool")
app.command(epilog=_examples("doctor", "doctor -C examples/shop --offline", "doctor --pods"))(
    grouped(doctoring.doctor)
)
