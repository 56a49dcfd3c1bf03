"""A private project folder for one NodeRun: the project linked, its inputs linked, the rest its own.

A node finds everything where ``seeknal run`` would have put it. What it makes is its own until it
has ended well and is collected. It reads inputs through links, so it could write through them; that is
noticed (``inputs_of``, before and after) and fails the node.
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

_RUNNER = "target/_runner_"
"""How Seeknal's own scripts for Python nodes begin; nobody reads them afterwards."""


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
    _link_project(workspace, project, PurePosixPath(made).parts)
    own = workspace / "target"
    link_outputs(own, target, inputs)
    for upstream in inputs:
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


def _link_project(
    workspace: Path, project: Path, made: tuple[str, ...], *, top: bool = True
) -> None:
    """Link every entry of the project, but make the folders that lead to ``made`` real ones."""
    head, *rest = made or ("",)
    for entry in os.scandir(project):
        if top and entry.name in OWN:
            continue
        if entry.name != head:
            (workspace / entry.name).symlink_to(entry.path)
        elif rest and entry.is_dir():
            (workspace / head).mkdir()
            _link_project(workspace / head, Path(entry.path), tuple(rest), top=False)


def link_outputs(own: Path, target: Path, node_ids: Iterable[str]) -> None:
    """Link what nodes have left in one ``target/`` into another.

    Raises:
        OSError: a link could not be made.
    """
    for node_id in node_ids:
        for name in artifacts(node_id):
            _link(own / name, target / name)


def _link(link: Path, existing: Path) -> None:
    if existing.exists() and not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(existing)


def inputs_of(workspace: Path) -> dict[str, tuple[int, int, int]]:
    """Return every input file of a workspace with what tells whether it is still the same."""
    found = {}
    for folder, folders, files in os.walk(workspace / "target", followlinks=True):
        folders.sort()
        for name in files:
            path = Path(folder, name)
            if path.is_symlink() or path.parent.is_symlink():
                about = path.stat()
                found[path.relative_to(workspace).as_posix()] = (
                    about.st_ino,
                    about.st_size,
                    about.st_mtime_ns,
                )
    return found


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
        name = path.relative_to(workspace).as_posix()
        if entry.is_dir():
            yield from _made(path, workspace)
        elif entry.is_file() and not name.startswith(_RUNNER):
            yield name


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
            move(out / name, home / name)
    shutil.rmtree(out, ignore_errors=True)


def move(source: Path, destination: Path) -> None:
    """Move a file so that it replaces its predecessor at once, also from another file system.

    Raises:
        OSError: it could not be moved.
    """
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
