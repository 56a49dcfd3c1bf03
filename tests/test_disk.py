"""Full disks and read-only ones: never a success, nothing half-written, and a way to go on."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from shutil import which
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.errors import StoreUnavailable
from seeknal_k8s.events import NodeRetrying
from seeknal_k8s.store import Store
from tests.projects import rows, transform
from tests.running import new_project, python, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BIG = "SELECT i, hash(i) AS h FROM range(2000000) t(i)"  # 18 MB of parquet


def mount(folder: Path, *options: str) -> None:
    """Mount something over ``folder``; where that is forbidden, skip, but not in CI."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(which("mount")), *options, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"mounting takes root and CAP_SYS_ADMIN: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


def unmount(folder: Path) -> None:
    """Take it away again, which fails as long as any process uses it."""
    subprocess.run([str(which("umount")), str(folder)], check=True)


@contextmanager
def a_disk(folder: Path, size: str) -> Iterator[Path]:
    """Be a disk of this size at ``folder``."""
    mount(folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs")
    try:
        yield folder
    finally:
        unmount(folder)


def fill(folder: Path) -> Path:
    """Fill the disk of ``folder`` until one block is left: room for one small file at a time."""
    disk = os.statvfs(folder)
    filler = folder / "filler"
    filler.write_bytes(b"x" * ((disk.f_bavail - 1) * disk.f_frsize))
    return filler


def made(project: Path) -> set[str]:
    """Return the names of all files in ``target/``, those of the run itself aside."""
    return {file.name for file in (project / "target").rglob("*") if file.is_file()}


def test_an_output_that_the_stores_disk_cannot_hold_is_a_failure(tmp_path: Path) -> None:
    project = new_project(tmp_path, "defaults: {backoff: 1s}\n")
    transform(project, "big", BIG)
    transform(project, "below", "SELECT count(*) AS n FROM __THIS__", "transform.big")
    transform(project, "small", "SELECT 1 AS one")
    with a_disk(tmp_path / "store", "4m") as store:
        ran = run(project, store=store)
        result = ran["transform.big"]
        assert (result.success, result.reason, result.exit_code) == (False, "StoreUnavailable", 69)
        assert "No space left on device" in result.message
        assert str(store) in result.message  # which disk it is
        assert len(ran.told(NodeRetrying, "transform.big")) == 3  # a disk may be emptied
        assert ran["transform.below"].reason == "UpstreamFailed"
        assert ran["transform.small"].success
    assert made(project) == {"transform_small.parquet", "run_state.json", "manifest.json"}


def test_a_log_that_the_stores_disk_cannot_hold_is_a_failure(tmp_path: Path) -> None:
    project = new_project(tmp_path, "defaults: {backoff: 1s}\n")
    python(project, "loud", "for _ in range(100_000): print('x' * 99)")
    with a_disk(tmp_path / "store", "4m") as store:
        with pytest.raises(StoreUnavailable, match="No space left on device") as stopped:
            run(project, store=store)
        assert stopped.value.exit_code == 69
        assert "make room" in str(stopped.value)
    assert "transform_loud.parquet" not in made(project)


def test_a_full_disk_under_the_project_ends_the_run_and_nothing_is_lost(tmp_path: Path) -> None:
    with a_disk(tmp_path / "disk", "4m") as disk:
        project = new_project(disk)
        transform(project, "big", BIG)
        transform(project, "small", "SELECT 1 AS one")
        transform(project, "below", "SELECT count(*) AS n FROM __THIS__", "transform.big")
        store = tmp_path / "store"
        with pytest.raises(StoreUnavailable, match="No space left on device") as stopped:
            run(project, store=store, run_id="r1")
        assert stopped.value.exit_code == 69
        assert str(project / "target") in str(stopped.value)
        whole = {"transform_small.parquet", "run_state.json", "manifest.json"}
        assert made(project) <= whole
        assert Store.of(project, store).run("r1").about()["status"] == "failed"

        mount(disk, "-o", "remount,size=64m")
        resumed = run(project, store=store, resume="r1")
        assert resumed.results.success
        assert resumed["transform.big"].attempts == 1  # its output had been kept
        assert rows(project, "transform.below") == [(2_000_000,)]


def test_a_state_that_the_disk_cannot_hold_leaves_the_old_one_whole(tmp_path: Path) -> None:
    with a_disk(tmp_path / "disk", "4m") as disk:
        project = new_project(disk)
        transform(project, "one", "SELECT 1 AS one")
        store = tmp_path / "store"
        assert run(project, store=store).results.success
        state = project / "target" / "run_state.json"
        before = state.read_text()
        transform(project, "one", "SELECT 2 AS one")
        filler = fill(disk)  # an output replaces the old one, but Seeknal keeps the old state too
        with pytest.raises(StoreUnavailable, match="--resume r2"):
            run(project, store=store, run_id="r2")
        assert state.read_text() == before
        filler.unlink()
        assert run(project, store=store, resume="r2").results.success
        assert rows(project, "transform.one") == [(2,)]
        assert json.loads(state.read_text())["nodes"]["transform.one"]["status"] == "success"


def test_a_store_that_is_read_only_is_said_before_anything_runs(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    transform(project, "one", "SELECT 1 AS one")
    folder = tmp_path / "store"
    mount(folder, "--bind", str(folder))
    try:
        mount(folder, "-o", "remount,ro,bind")
        with pytest.raises(StoreUnavailable, match="read-only") as refused:
            run(project, store=folder)
    finally:
        unmount(folder)
    assert refused.value.exit_code == 69
    assert "--store" in str(refused.value)
    assert not (project / "target").exists()


@pytest.mark.parametrize(
    "below", [pytest.param("", id="in its place"), pytest.param("deeper", id="above its place")]
)
def test_a_store_that_is_a_file_is_said_before_anything_runs(tmp_path: Path, below: str) -> None:
    project = new_project(tmp_path)
    transform(project, "one", "SELECT 1 AS one")
    file = tmp_path / "file"
    file.write_text("keep me")
    with pytest.raises(StoreUnavailable, match="Not a directory") as refused:
        run(project, store=file / below)
    assert refused.value.exit_code == 69
    assert "--store" in str(refused.value)
    assert file.read_text() == "keep me"
    assert not (project / "target").exists()
