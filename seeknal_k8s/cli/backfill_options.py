"""The options of ``backfill`` and ``intervals``, in groups."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from seeknal_k8s.cli.arguments import OwnRunId, Wait, check_run_id
from seeknal_k8s.errors import UsageError

_RANGE = "Which intervals"
_HOW = "How to run it"


@dataclass(frozen=True, kw_only=True)
class Range:
    """Which intervals."""

    start: Annotated[
        str | None,
        typer.Option(metavar="DATE", rich_help_panel=_RANGE, help="The first day, or time."),
    ] = None
    end: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            rich_help_panel=_RANGE,
            help="The last day, which belongs to the range, or the time before which it ends.",
        ),
    ] = None
    last: Annotated[
        str | None,
        typer.Option(
            metavar="7d",
            rich_help_panel=_RANGE,
            help="Instead of both: whole intervals of the last 7d, 12h, 4w or 90min.",
        ),
    ] = None
    schedule: Annotated[
        str,
        typer.Option(
            metavar="CRON",
            rich_help_panel=_RANGE,
            help="@hourly, @daily, @weekly, @monthly, @yearly, or five fields of cron.",
        ),
    ] = "@daily"
    timezone: Annotated[
        str,
        typer.Option(
            metavar="ZONE", rich_help_panel=_RANGE, help="Whose clock the schedule is read on."
        ),
    ] = "UTC"
    end_exclusive: Annotated[
        bool,
        typer.Option(
            "--end-exclusive/--end-inclusive",
            rich_help_panel=_RANGE,
            help="Whether an end that is a day is the first one that is left out.",
        ),
    ] = False

    def as_request(self) -> dict[str, Any]:
        """Return the fields of a request."""
        return {
            "start": self.start,
            "end": self.end,
            "last": self.last,
            "schedule": self.schedule,
            "timezone": self.timezone,
            "end_inclusive": not self.end_exclusive,
        }


@dataclass(frozen=True, kw_only=True)
class Carrying:
    """How the intervals are run."""

    on: Annotated[
        str | None,
        typer.Option(
            metavar="BACKEND",
            rich_help_panel=_HOW,
            help="Where: local or kubernetes.",
            show_default="SEEKNAL_K8S_ON, or local",
        ),
    ] = None
    submit: Annotated[
        bool,
        typer.Option(
            "--submit",
            rich_help_panel=_HOW,
            help="Start it inside the cluster, from the project in the image, and follow it.",
        ),
    ] = False
    detach: Annotated[
        bool,
        typer.Option("--detach", rich_help_panel=_HOW, help="With --submit: do not follow it."),
    ] = False
    max_parallel: Annotated[
        int | None,
        typer.Option(
            "--max-parallel",
            metavar="N",
            min=1,
            rich_help_panel=_HOW,
            help="How many attempts run at once at most.",
            show_default="as many as fit",
        ),
    ] = None
    chunk: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, rich_help_panel=_HOW, help="How many intervals one attempt runs."
        ),
    ] = 1
    indexed: Annotated[
        bool | None,
        typer.Option(
            "--indexed/--no-indexed",
            rich_help_panel=_HOW,
            help="On Kubernetes: one Job with an index for each attempt, or a Job for each.",
            show_default="indexed, unless they run one at a time",
        ),
    ] = None
    max_failures: Annotated[
        int | None,
        typer.Option(
            "--max-failures",
            metavar="N",
            min=1,
            rich_help_panel=_HOW,
            help="Stop everything when so many attempts have failed for good.",
            show_default="never",
        ),
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", rich_help_panel=_HOW, help="Say what would run, and run nothing."
        ),
    ] = False
    restate: Annotated[
        bool,
        typer.Option("--restate", rich_help_panel=_HOW, help="Run finished intervals again."),
    ] = False
    rerun_changed: Annotated[
        bool,
        typer.Option(
            "--rerun-changed",
            rich_help_panel=_HOW,
            help="Run those again that ran with other logic.",
        ),
    ] = False
    accept_partial: Annotated[
        bool,
        typer.Option(
            "--accept-partial",
            rich_help_panel=_HOW,
            help="Count a last interval that the end cuts short as finished.",
        ),
    ] = False
    upper: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            rich_help_panel=_HOW,
            help="What {{ end_date }} is: exclusive, for SQL with <, or inclusive, the last day.",
            show_default="as the node's SQL compares",
        ),
    ] = None
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway", rich_help_panel=_HOW, help="Run a node that does not use the interval."
        ),
    ] = False
    combine: Annotated[
        bool,
        typer.Option(
            "--combine",
            rich_help_panel=_HOW,
            help="In the end, put all intervals together as the node's output in target/.",
        ),
    ] = False
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", rich_help_panel=_HOW, help="Even over 100,000 intervals."),
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
    run_id: OwnRunId = None
    wait: Wait = 0.0

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UsageError: it does not.
        """
        if self.on not in {None, "local", "kubernetes"}:
            raise UsageError(f"there is no backend '{self.on}'; there is: local, kubernetes")
        if self.upper not in {None, "exclusive", "inclusive"}:
            raise UsageError(f"--upper {self.upper}: it is exclusive or inclusive")
        if self.run_id is not None:
            check_run_id(self.run_id)
        if self.detach and not self.submit:
            raise UsageError("--detach is for --submit: there is nobody else to go on with it")
        if self.detach and self.dry_run:
            raise UsageError(
                "--detach follows nothing, and a --dry-run is nothing but what it says"
            )
