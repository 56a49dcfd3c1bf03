"""The commands that speak to Prefect: ``deploy``, ``deployments`` and ``pool apply``."""

import asyncio
import json
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from seeknal_k8s.cli import render, typed
from seeknal_k8s.cli.arguments import AsJson
from seeknal_k8s.errors import PrefectRefused, UsageError

if TYPE_CHECKING:
    from seeknal_k8s.deployments import Deployed, Listed
    from seeknal_k8s.deployments.wanted import Request

_FLOW = "seeknal-run-pipeline"
_WHEN, _HOW = "When it runs", "How it runs"
_DIFF = {"+": "green", "-": "red", "@": "cyan"}

PoolName = Annotated[
    str | None,
    typer.Option(
        "--pool", metavar="NAME", help="The work pool.", show_default="SEEKNAL_K8S_WORK_POOL"
    ),
]


@dataclass(frozen=True, kw_only=True)
class When:
    """When a deployment runs, and what becomes of runs that overlap."""

    schedule: Annotated[
        str | None,
        typer.Option(
            "--schedule",
            metavar="TEXT",
            rich_help_panel=_WHEN,
            help="Cron ('0 2 * * *', '@daily'), 'every 30m', or a rule such as 'FREQ=DAILY'.",
            show_default="none; one that was there is removed",
        ),
    ] = None
    timezone: Annotated[
        str,
        typer.Option(
            "--timezone",
            metavar="ZONE",
            rich_help_panel=_WHEN,
            help="The schedule's time zone, such as Europe/Berlin.",
        ),
    ] = "UTC"
    limit: Annotated[
        int,
        typer.Option(
            "--limit",
            metavar="N",
            min=0,
            rich_help_panel=_WHEN,
            help="How many runs of it there are at once; 0 is any number.",
        ),
    ] = 1
    overlap: Annotated[
        str,
        typer.Option(
            "--overlap",
            metavar="WHAT",
            rich_help_panel=_WHEN,
            help="What becomes of a run beyond the limit: skip or queue.",
        ),
    ] = "skip"
    paused: Annotated[
        bool, typer.Option("--paused", rich_help_panel=_WHEN, help="Let its schedule rest.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class What:
    """What a deployment gives its runs."""

    project: Annotated[
        str | None,
        typer.Option(
            "--project",
            "-C",
            metavar="PATH",
            rich_help_panel=_HOW,
            help="Where the project is in the pod; for a pool of processes, a folder from here.",
            show_default="SEEKNAL_K8S_PROJECT_PATH",
        ),
    ] = None
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            metavar="KEY=VALUE",
            rich_help_panel=_HOW,
            help="A parameter of the flow; the value is JSON or a text. Repeatable.",
        ),
    ] = None
    job_variable: Annotated[
        list[str] | None,
        typer.Option(
            "--job-variable",
            metavar="KEY=VALUE",
            rich_help_panel=_HOW,
            help="A variable of the work pool, such as memory_limit=2Gi. Repeatable.",
        ),
    ] = None
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            metavar="NAME",
            rich_help_panel=_HOW,
            help="The image of the flow's pod and of its nodes' Jobs.",
            show_default="SEEKNAL_K8S_IMAGE, else the pool's",
        ),
    ] = None
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="NAME", rich_help_panel=_HOW, help="A tag. Repeatable."),
    ] = None


def deploy(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help=f"The deployment's name, or FLOW/NAME; the flow is {_FLOW} without one.",
        ),
    ],
    *,
    when: When,
    what: What,
    pool: PoolName = None,
    print_file: Annotated[
        bool,
        typer.Option("--print", help="Print a prefect.yaml with it instead; nothing is deployed."),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Deploy the flow that runs a project, or make its deployment what is said here.

    What is left out is taken away: the command line is the whole truth about the deployment.
    """
    _require_prefect()
    request = _request(name, when, what, pool)
    if print_file:
        from seeknal_k8s.deployments.file import prefect_yaml  # noqa: PLC0415 - Prefect takes 2 s
        from seeknal_k8s.options.text import documents  # noqa: PLC0415

        document = prefect_yaml(request)
        if as_json:
            render.print_json(document)
        else:
            print(documents([document]), end="")  # noqa: T201
        return 0
    from seeknal_k8s.deployments.deploy import apply  # noqa: PLC0415 - as above

    done = asyncio.run(apply(request))
    if as_json:
        render.print_json(asdict(done))
    else:
        render.show(render.out(), _deployed(done))
    return 0


def _request(name: str, when: When, what: What, pool: str | None) -> "Request":
    from seeknal_k8s.deployments.deploy import checked  # noqa: PLC0415 - Prefect takes 2 s
    from seeknal_k8s.settings import load  # noqa: PLC0415

    flow, slash, own = name.partition("/")
    return checked(
        flow if slash else _FLOW,
        own if slash else name,
        what.project or load().project_path,
        schedule=when.schedule,
        timezone=when.timezone,
        tags=tuple(what.tag or ()),
        image=what.image,
        work_pool=pool,
        parameters=_pairs(what.param, "--param"),
        job_variables=_pairs(what.job_variable, "--job-variable"),
        concurrency_limit=when.limit or None,
        overlap=when.overlap,
        paused=when.paused,
    )


def _pairs(given: Iterable[str] | None, option: str) -> dict[str, Any]:
    pairs = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} {text!r}: write KEY=VALUE")
        try:
            pairs[key] = json.loads(value)
        except ValueError:
            pairs[key] = value
    return pairs


def _deployed(done: "Deployed") -> list[Text]:
    lines = [Text.assemble(("✓", "green"), f" {done.change} {done.name}")]
    lines += [Text(f"    {change}") for change in done.changes]
    lines += [Text(f"    {done.url}", style="dim")] if done.url else []
    command = f"prefect deployment run {shlex.quote(done.name)} --watch"
    return [*lines, Text("next:"), Text.assemble("  ", (command, "cyan"), "  # run it now")]


def deployments(*, as_json: AsJson = False) -> int:
    """List the deployments of our flows: when they run, and how they ran last."""
    _require_prefect()
    from seeknal_k8s.deployments import listed  # noqa: PLC0415 - Prefect takes 2 s

    found = asyncio.run(listed())
    if as_json:
        render.print_json({"deployments": [asdict(one) for one in found]})
    elif not found:
        lines = ["there is no deployment of ours", f"  → create one: {typed()} deploy NAME"]
        render.show(render.err(), lines)
    else:
        heads = ("NAME", "SCHEDULE", "NEXT RUN", "LAST RUN", "STATE", "PAUSED", "POOL")
        render.show(render.out(), render.table(heads, [_row(one) for one in found]))
    return 0


def _row(one: "Listed") -> list[Text | str]:
    state = Text(one.last_state, _STATES.get(one.last_state, ""))
    paused = Text("paused", "yellow") if one.paused else ""
    return [
        one.name,
        one.schedule,
        _moment(one.next_run),
        _moment(one.last_run),
        state,
        paused,
        one.work_pool,
    ]


_STATES = {"Completed": "green", "Failed": "red", "Crashed": "red", "Running": "cyan"}


def _moment(when: datetime | None) -> str:
    return f"{when.astimezone():%Y-%m-%d %H:%M}" if when else ""


pool_commands = typer.Typer(help="Look after the work pool that flows run in.")


@pool_commands.callback()
def _pool() -> None:
    """Look after the work pool that flows run in."""


def pool_apply(
    *,
    name: PoolName = None,
    cpu: Annotated[str, typer.Option("--runner-cpu", help="The CPU of a flow's pod.")] = "500m",
    memory: Annotated[
        str, typer.Option("--runner-memory", help="The memory of a flow's pod.")
    ] = "1Gi",
    env_from: Annotated[
        list[str] | None,
        typer.Option(
            "--env-from", metavar="SECRET", help="A Secret for a flow's environment. Repeatable."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 if there is a difference.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also replace what was changed by hand.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Create the work pool for Kubernetes, or bring its template up to date.

    The template is the installed worker's own, with our settings in it. The difference is shown
    first. A template that somebody has edited is left alone, as is a pool of another type.
    """
    _require_prefect()
    from seeknal_k8s.deployments import pool, template  # noqa: PLC0415 - they take 4 s
    from seeknal_k8s.settings import load  # noqa: PLC0415

    settings = load()
    pool_name = name or settings.work_pool
    wanted = template.build(settings, pool_name, cpu=cpu, memory=memory, env_from=env_from or ())
    if check:
        state = asyncio.run(pool.look(pool_name, wanted))
        change, drift = _checked(there=state.there, drift=state.drift), state.drift
    else:
        done = asyncio.run(pool.apply(pool_name, wanted, overwrite=overwrite))
        change, drift = done.change, done.drift
    if as_json:
        render.print_json({"name": pool_name, "change": change, "drift": list(drift)})
    else:
        lines = [Text(line, _DIFF.get(line[:1], "")) for line in drift]
        render.show(render.out(), [] if change == "created" else lines)
        render.show(render.out(), [f"work pool {pool_name}: {change}"])
    return 1 if check and drift else 0


def _checked(*, there: bool, drift: tuple[str, ...]) -> str:
    if not there:
        return "missing"
    return "drifted" if drift else "unchanged"


def _require_prefect() -> None:
    """Refuse where Prefect is not installed.

    Raises:
        PrefectRefused: it is not.
    """
    if find_spec("prefect") is None or find_spec("prefect_kubernetes") is None:
        raise PrefectRefused(
            "Prefect is not installed\n  → install it: pip install 'seeknal-k8s[prefect]'"
        )
