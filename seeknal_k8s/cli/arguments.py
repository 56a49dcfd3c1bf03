"""The options of the commands, in groups that commands share, and what they mean.

A group is a dataclass; ``grouped`` makes its fields the options of a command. A group's field
has the option's name, default and help, so each is written once.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, date, datetime, timedelta
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from seeknal_k8s.errors import UsageError

BACKENDS = ("local", "kubernetes")
"""Where nodes can run."""

BROKEN_PIPE = 141
"""The exit code when nobody reads what we write any more: 128 + SIGPIPE, as for any tool."""

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_YEARS = range(2000, 2101)

_WHAT = "What to run"
_WITH = "What the project is given"
_HOW = "How to run it"

Folder = Annotated[
    Path,
    typer.Argument(metavar="PROJECT", help="The project's folder.", show_default="this folder"),
]
Project = Annotated[
    Path,
    typer.Option(
        "--project", "-C", metavar="PATH", help="The project's folder.", show_default="this folder"
    ),
]
StorePath = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="PATH",
        help="Where results and logs live.",
        show_default=".seeknal-k8s in the project",
    ),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Write one JSON document to stdout, for programs."),
]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which nodes run, and with which options of their own."""

    select: Annotated[
        list[str] | None,
        typer.Option(
            "--select",
            "-s",
            metavar="NODES",
            rich_help_panel=_WHAT,
            help="Run these nodes: an id, a name, tag:NAME, kind:NAME, a pattern such as "
            "'source.*'; +NODE with what it needs, NODE+ with what needs it. Repeatable.",
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="NODES",
            rich_help_panel=_WHAT,
            help="Leave these nodes out, unless what runs cannot do without; they run "
            "the next time. Repeatable.",
        ),
    ] = None
    full: Annotated[
        bool,
        typer.Option(
            "--full", "-f", rich_help_panel=_WHAT, help="Run cached nodes, too; everything anew."
        ),
    ] = False
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="[NODE:]KEY=VALUE",
            rich_help_panel=_HOW,
            help="Override an option of all nodes or of one, such as memory=4Gi. Repeatable.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the project is given, besides dates."""

    params: Annotated[
        str | None,
        typer.Option(
            "--params",
            metavar="JSON",
            rich_help_panel=_WITH,
            help="A JSON object; each key is available as {{ key }} in the project.",
        ),
    ] = None
    date: Annotated[
        str | None,
        typer.Option(
            "--date",
            metavar="YYYY-MM-DD",
            rich_help_panel=_WITH,
            help="The day that {{ today }}, {{ run_date }} and {{ date }} stand for.",
        ),
    ] = None
    profile: Annotated[
        Path | None,
        typer.Option(
            "--profile",
            metavar="PATH",
            rich_help_panel=_WITH,
            exists=True,
            dir_okay=False,
            help="The profiles.yml with connections and source defaults.",
            show_default="~/.seeknal/profiles.yml",
        ),
    ] = None

    def parameters(self) -> dict[str, Any]:
        """Return Seeknal's parameters: an option wins over ``--params``.

        Raises:
            UsageError: the JSON or a date is wrong.
        """
        given = _json_object(self.params) if self.params is not None else {}
        if self.date is not None:
            day = _day(self.date, "--date")
            given |= {"date": day, "run_date": day, "today": day}
        elif "today" in given:
            _day(str(given["today"]), "'today' in --params")
        return given


@dataclass(frozen=True, kw_only=True)
class Inputs(Given):
    """What the project is given: Seeknal's own parameters."""

    start_date: Annotated[
        str | None,
        typer.Option(
            "--start-date",
            metavar="DATE",
            rich_help_panel=_WITH,
            help="{{ start_date }} in the project: an ISO date or time.",
        ),
    ] = None
    end_date: Annotated[
        str | None,
        typer.Option(
            "--end-date",
            metavar="DATE",
            rich_help_panel=_WITH,
            help="{{ end_date }} in the project: an ISO date or time.",
        ),
    ] = None

    def parameters(self) -> dict[str, Any]:
        """Return them; as in ``seeknal run``, an option wins over ``--params``."""
        given = super().parameters()
        start = _moment(self.start_date, "--start-date")
        end = _moment(self.end_date, "--end-date")
        if start and end and start > end:
            raise UsageError(f"--start-date {self.start_date} is after --end-date {self.end_date}")
        if start:
            given["start_date"] = self.start_date
        if end:
            given["end_date"] = self.end_date
        return given


MaxParallel = Annotated[
    int | None,
    typer.Option(
        "--max-parallel",
        metavar="N",
        min=1,
        rich_help_panel=_HOW,
        help="How many nodes run at once at most.",
        show_default="as many as fit",
    ),
]
FailFast = Annotated[
    bool,
    typer.Option(
        "--fail-fast", rich_help_panel=_HOW, help="Stop everything when the first node fails."
    ),
]
OwnRunId = Annotated[
    str | None,
    typer.Option(
        "--run-id", metavar="ID", rich_help_panel=_HOW, help="Give the run an id of your own."
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        "--wait",
        metavar="[SECONDS]",
        min=0.0,
        rich_help_panel=_HOW,
        help="Wait while another run is at work on the store; without a number, until it ends.",
        show_default=False,
    ),
]


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a run goes about it."""

    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="BACKEND",
            rich_help_panel=_HOW,
            help="Where nodes run: local or kubernetes.",
            show_default="SEEKNAL_K8S_ON, or local",
        ),
    ] = None
    max_parallel: MaxParallel = None
    fail_fast: FailFast = False
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            rich_help_panel=_HOW,
            help="Go on with a run: its id, the beginning of it, or 'latest'.",
        ),
    ] = None
    run_id: OwnRunId = None
    resume_if_started: Annotated[
        bool,
        typer.Option(
            "--resume-if-started",
            rich_help_panel=_HOW,
            help="Go on with --run-id if there is such a run: a command that may be repeated.",
        ),
    ] = False
    wait: Wait = 0.0

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UsageError: it does not.
        """
        if self.on not in {None, *BACKENDS}:
            raise UsageError(f"there is no backend '{self.on}'; there is: {', '.join(BACKENDS)}")
        if self.run_id is not None:
            check_run_id(self.run_id)
        if self.resume is not None and self.run_id is not None:
            raise UsageError("--resume goes on under the run's own id, so leave --run-id out")
        if self.resume_if_started and self.run_id is None:
            raise UsageError("--resume-if-started needs the run's id: --run-id ID")


def check_run_id(run_id: str) -> None:
    """Refuse an id that no run can have.

    Raises:
        UsageError: it is one.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise UsageError(
            f"--run-id {run_id!r}: use at most 63 letters, digits, '.', '_' and '-', "
            "with a letter or a digit first"
        )


def refuse_selection_of_resumed(selection: Selection, inputs: Inputs) -> None:
    """Refuse to resume a run with another selection, or with other parameters.

    Raises:
        UsageError: there is one.
    """
    options = {
        "--select": selection.select,
        "--exclude": selection.exclude,
        "--full": selection.full,
        "--params": inputs.params,
        "--date": inputs.date,
        "--start-date": inputs.start_date,
        "--end-date": inputs.end_date,
        "--profile": inputs.profile,
    }
    given = [name for name, value in options.items() if value]
    if given:
        raise UsageError(
            f"--resume goes on with what the run was started with, so leave {', '.join(given)} out"
        )


def grouped(command: Callable[..., int]) -> Callable[..., int]:
    """Return a command that has the fields of its dataclass parameters as options."""
    hints = get_type_hints(command, include_extras=True)
    groups = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)
    }
    parameters: list[Parameter] = []
    for parameter in signature(command).parameters.values():
        if parameter.name in groups:
            parameters += _parameters_of(groups[parameter.name])
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))

    def ungrouped(**given: Any) -> int:
        built = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        try:
            return command(**given, **built)
        except BrokenPipeError:  # typer would make it 1, which is for failed nodes
            return BROKEN_PIPE

    ungrouped.__name__ = command.__name__
    ungrouped.__doc__ = command.__doc__
    ungrouped.__signature__ = Signature(parameters)  # type: ignore[attr-defined] # what typer reads
    return ungrouped


def _parameters_of(group: type[Any]) -> list[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


def _json_object(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--params is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise UsageError('--params has to be a JSON object, such as \'{"region": "EU"}\'')
    return given


def _day(text: str, option: str) -> str:
    """Return a day as written, if Seeknal would take it: 2000 to 2100, and a year ahead at most."""
    wrong = UsageError(f"{option} {text!r} is not a day; write it like 2025-01-31")
    if not _DAY.fullmatch(text):
        raise wrong
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise wrong from None
    if day.year not in _YEARS:
        raise UsageError(f"{option} {text}: the year has to be from 2000 to 2100")
    latest = datetime.now().astimezone().date() + timedelta(days=365)
    if day > latest:
        raise UsageError(f"{option} {text} is more than a year ahead")
    return text


def _moment(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option} {text!r} is not an ISO date or time; write it like 2025-01-31"
        ) from None
    # Only compared with its like, and the two have to be comparable if one has a zone.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
