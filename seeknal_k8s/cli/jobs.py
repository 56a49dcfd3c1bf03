"""The commands that look after Jobs: ``cancel``, ``reap`` and ``why``. None of them needs Seeknal."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from seeknal_k8s.cli import render, typed
from seeknal_k8s.cli.arguments import AsJson, Project, StorePath
from seeknal_k8s.cli.looking import NODE_HELP, store_of
from seeknal_k8s.errors import UsageError
from seeknal_k8s.names import anchor_name
from seeknal_k8s.progress import duration, plural
from seeknal_k8s.store import LATEST, Store

if TYPE_CHECKING:
    from seeknal_k8s.cleaning import Leftover
    from seeknal_k8s.cluster import Cluster
    from seeknal_k8s.settings import Settings
    from seeknal_k8s.store import RunFolder

_RUN_HELP = "A run: its id, the beginning of it, or 'latest'."
_HERE = Path()


@dataclass(frozen=True, slots=True)
class There:
    """A namespace of a cluster, and the store of its runs where this machine sees it."""

    cluster: "Cluster"
    settings: "Settings"
    store: Store | None

    async def resolve(self, text: str) -> str:
        """Return the id of the run that ``text`` means."""
        from seeknal_k8s import cleaning  # noqa: PLC0415 - with the cluster's client

        return await cleaning.resolve(self.cluster, self.store, text)


@asynccontextmanager
async def there(store: Path | None = None) -> AsyncIterator[There]:
    """Give the namespace of the settings.

    Raises:
        UsageError: the settings are wrong, or the store that was named is not there.
        NoCluster: there is no usable kubeconfig.
    """
    from seeknal_k8s.cluster import Cluster  # noqa: PLC0415 - 0.3 s that --help does without
    from seeknal_k8s.settings import load  # noqa: PLC0415

    settings = load()
    root = (store or Path(settings.store_path)).absolute()
    if store is not None and not (root / "runs").is_dir():
        raise UsageError(f"there is no store in {store}")
    async with Cluster(namespace=settings.namespace, context=settings.context) as cluster:
        yield There(cluster, settings, Store(root) if (root / "runs").is_dir() else None)


def cancel(
    run: Annotated[str, typer.Argument(metavar="RUN", help=_RUN_HELP)],
    *,
    store: StorePath = None,
    as_json: AsJson = False,
) -> int:
    """End a run on Kubernetes: all of its Jobs and pods, wherever its coordinator is, if it lives.

    What was accepted is kept. Cancelling again does no harm.
    """
    run_id, count, where = asyncio.run(_cancel(run, store))
    if as_json:
        render.print_json({"run_id": run_id, "namespace": where, "ended": count, "left": 0})
        return 0
    ended = f"ended {plural(count, 'Job')}" if count else "there was no Job to end"
    lines = [f"run {run_id}: {ended}, none is left in namespace {where}"]
    render.show(render.out(), lines)
    return 0


async def _cancel(text: str, store: Path | None) -> tuple[str, int, str]:
    from seeknal_k8s import cleaning  # noqa: PLC0415 - with the cluster's client

    async with there(store) as here:
        run = await here.resolve(text)
        count = await cleaning.cancel(here.cluster, run, anchor_name(run))
        return run, count, here.cluster.namespace


def reap(
    *,
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than", metavar="TIME", help="Leave what was created since then alone."
        ),
    ] = "1h",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove it.")] = False,
    store: StorePath = None,
    as_json: AsJson = False,
) -> int:
    """List what runs have left behind whose coordinator is gone; with --yes, remove it.

    A run whose coordinator lives, or of which that cannot be told from here, is never touched.
    """
    from seeknal_k8s.quantity import parse_duration  # noqa: PLC0415

    try:
        age = timedelta(seconds=parse_duration(older_than))
    except ValueError as error:
        raise UsageError(f"--older-than {older_than}: {error}") from None
    found = asyncio.run(_reap(age, store, remove=yes))
    if as_json:
        render.print_json({"removed": yes, "runs": [_document(one, due=due) for one, due in found]})
        return 0
    if not found:
        render.show(render.err(), ["there is nothing of a run in the namespace"])
        return 0
    word = "removed" if yes else "to remove"
    rows: list[list[Text | str]] = [
        [
            one.run,
            Text(word, "yellow") if due else "kept",
            str(len(one.jobs)),
            str(one.unfinished or ""),
            _age(one),
            one.why if due or not one.dead else f"{one.why}, but it is younger than {older_than}",
        ]
        for one, due in found
    ]
    lines = render.table(("RUN", "", "JOBS", "UNFINISHED", "AGE", "WHY"), rows, "  rrr")
    if not yes and any(due for _, due in found):
        lines += [Text(), Text(f"remove it: {typed()} reap --older-than {older_than} --yes")]
    render.show(render.out(), lines)
    return 0


async def _reap(
    age: timedelta, path: Path | None, *, remove: bool
) -> list[tuple["Leftover", bool]]:
    """Return what there is of every run, and whether it is, or was, to be removed."""
    from seeknal_k8s import cleaning  # noqa: PLC0415 - with the cluster's client

    async with there(path) as here:
        found = await cleaning.survey(here.cluster, here.store)
        oldest = datetime.now(UTC) - age

        def due(one: "Leftover") -> bool:
            return one.dead and (one.since is None or one.since <= oldest)

        if remove and any(due(one) for one in found):
            # With the lock in our hands no run can come back to life between looking and removing.
            with here.store.lock("(reap)") if here.store else nullcontext():
                found = await cleaning.survey(here.cluster, here.store)
                for one in filter(due, found):
                    await cleaning.cancel(here.cluster, one.run, anchor_name(one.run))
        return [(one, due(one)) for one in found]


def _age(one: "Leftover") -> str:
    if one.since is None:
        return ""
    return duration(max(0.0, (datetime.now(UTC) - one.since).total_seconds()))


def _document(one: "Leftover", *, due: bool) -> dict[str, object]:
    return {
        "run_id": one.run,
        "dead": one.dead,
        "due": due,
        "why": one.why,
        "created": one.since.isoformat() if one.since else None,
        "jobs": [job.name for job in one.jobs],
        "unfinished": one.unfinished,
    }


def why(
    node: Annotated[str, typer.Argument(metavar="NODE", help=NODE_HELP)],
    *,
    run: Annotated[str, typer.Option("--run", metavar="RUN", help=_RUN_HELP)] = LATEST,
    attempt: Annotated[
        int | None,
        typer.Option("--attempt", metavar="N", min=1, help="Which try.", show_default="the last"),
    ] = None,
    project: Project = _HERE,
    store: StorePath = None,
    as_json: AsJson = False,
) -> int:
    """Show what happened to a node, when, what it used, and what to do about it.

    Of a run on Kubernetes the cluster is asked; 'latest' is one of those where there are settings
    of a cluster, else the last one of the project.
    """
    from seeknal_k8s.cli import reasons  # noqa: PLC0415 - with the cluster's client

    async def asked() -> reasons.Reasons:
        async with there(store) as here:
            run_id = await here.resolve(run)
            return await reasons.find(here.cluster, here.store, run_id, node, attempt=attempt)

    of_this_machine = _local(project, store, run)
    if of_this_machine is not None:
        found = reasons.kept(*of_this_machine, node, attempt=attempt)
    else:
        found = asyncio.run(asked())
    if as_json:
        render.print_json(reasons.document(found))
    else:
        here, latest = render.Here(project, store), run == LATEST
        render.show(render.out(), reasons.lines(found, here, latest=latest))
    return 0


def _local(project: Path, root: Path | None, text: str) -> tuple[Store, "RunFolder"] | None:
    """Return the run that is meant and its store, if its nodes were processes of this machine.

    Raises:
        UsageError: there is no such run in the project, and no cluster to ask.
    """
    if text == LATEST and root is None and _has_a_cluster():
        return None
    store = store_of(project, root)
    try:
        run = store.run(text)
    except UsageError:
        if (project / "seeknal").is_dir() and not _has_a_cluster():
            raise
        return None
    on = run.about().get("on") or ("" if _has_a_cluster() else "local")
    return (store, run) if on == "local" else None


def _has_a_cluster() -> bool:
    """Whether the settings name something in a cluster."""
    from seeknal_k8s.settings import load  # noqa: PLC0415

    settings = load()
    of_a_cluster = {"namespace", "image", "context", "store_claim", "store_path"}
    return settings.on == "kubernetes" or bool(of_a_cluster & settings.model_fields_set)
