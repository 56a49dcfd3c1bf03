"""A private project folder for one NodeRun: the project linked, its inputs linked, the rest its own.

A node finds everything where ``seeknal run`` would have put it, and can write nothing that
others see: what it makes is collected when it has ended well.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from seeknal_k8s.names import file_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OWN = frozenset({"target", ".seeknal-k8s"})
"""Entries of a project that a workspace never shares."""

_LEFTOVERS = ("_runner_", "tmp_", ".")
"""How the names of files begin that Seeknal and DuckDB leave behind and nobody reads."""


def artifacts(node_id: str) -> tuple[str, ...]:
    """Return where in ``target/`` the files of a node can be, those its readers look for."""
    kind, _, name = node_id.partition(".")
    return (
        f"intermediate/{file_id(node_id)}.parquet",
        f"intermediate/{file_id(node_id)}_meta.json",
        f"cache/{kind}/{name}.parquet",
        f"{kind}/{name}",
        f"models/{name}",
    )


def build(
    workspace: Path, project: Path, target: Path, *, node_id: str, inputs: Iterable[str], made: str
) -> None:
    """Make the workspace of ``node_id``.

    ``project`` is linked entry by entry, ``inputs`` are linked from ``target`` (the published
    outputs). ``made`` is the file in the project that the node will write outside ``target/``,
    if any: the folders down to it become the workspace's own.

    Raises:
        OSError: the workspace could not be written.
    """
    (workspace / "target" / "intermediate").mkdir(parents=True)
    (workspace / "tmp").mkdir()
    _link_project(workspace, project, PurePosixPath(made).parts)
    own = workspace / "target"
    for upstream in inputs:
        for name in artifacts(upstream):
            _link(own / name, target / name)
        if upstream.startswith("aggregation."):
            # A rule, profile, exposure or transform looks for it here, where Seeknal 2.13 never
            # puts an aggregation: it would read nothing, or invent sample rows.
            result = target / "aggregation" / upstream.partition(".")[2] / "result.parquet"
            _link(own / f"intermediate/{file_id(upstream)}.parquet", result)
    _link(own / "feature_store", target / "feature_store")
    remembered = f"pipeline_state/{file_id(node_id)}.json"  # a Python node's ctx.state
    if (target / remembered).is_file():
        (own / "pipeline_state").mkdir(exist_ok=True)
        shutil.copy2(target / remembered, own / remembered)


def _link_project(workspace: Path, project: Path, made: tuple[str, ...]) -> None:
    """Link every entry of the project, but make the folders that lead to ``made`` real ones."""
    head, *rest = made or ("",)
    taken = OWN if workspace.joinpath("target").is_dir() else frozenset()
    for entry in os.scandir(project):
        if entry.name in taken:
            continue
        if entry.name != head:
            (workspace / entry.name).symlink_to(entry.path)
        elif rest and entry.is_dir():
            (workspace / head).mkdir()
            _link_project(workspace / head, Path(entry.path), tuple(rest))


def _link(link: Path, existing: Path) -> None:
    if existing.exists() and not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(existing)


def collect(workspace: Path, out: Path) -> list[str]:
    """Move what the node made from the workspace to ``out``; return the files' relative paths.

    Everything that is not a link was made by the node. Folders are made as needed.

    Raises:
        OSError: a file could not be moved.
    """
    made = sorted(_made(workspace, workspace))
    for name in made:
        destination = out / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).replace(destination)
    return made


def _made(folder: Path, workspace: Path) -> Iterator[str]:
    for entry in os.scandir(folder):
        if entry.is_symlink():
            continue
        path = Path(entry.path)
        if entry.is_dir():
            if path != workspace / "tmp":
                yield from _made(path, workspace)
        elif entry.is_file() and not entry.name.startswith(_LEFTOVERS):
            yield path.relative_to(workspace).as_posix()


def remove(workspace: Path) -> None:
    """Remove a workspace, with whatever a failed node left in it; what links point to stays."""
    shutil.rmtree(workspace, ignore_errors=True)


def accept(out: Path, home: Path, files: Iterable[str]) -> None:
    """Publish an attempt's files below ``home``: each replaces its predecessor at once.

    A file that is there already is not moved again: accepting twice does no harm.

    Raises:
        OSError: a file could not be moved.
    """
    for name in files:
        if (out / name).exists():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            _move(out / name, home / name)
    shutil.rmtree(out, ignore_errors=True)


def _move(source: Path, destination: Path) -> None:
    try:
        source.replace(destination)
    except OSError as error:
        if error.errno != 18:  # noqa: PLR2004 - EXDEV: the store is on another file system
            raise
        beside = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
        try:
            shutil.copy2(source, beside)
            beside.replace(destination)
        except OSError:
            beside.unlink(missing_ok=True)  # half a file, on a disk that is full already
            raise
        source.unlink()
