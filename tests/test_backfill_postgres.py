"""Intervals written to a real PostgreSQL: none lost, none twice.

Needs PostgreSQL's programs, and DuckDB's extension for it as a Python package of the same version
(``duckdb-extension-postgres-scanner``): where there is none, these tests are skipped.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from seeknal_k8s.errors import ProjectRefused
from tests.cluster.harness import free_ports
from tests.projects import csv, node, write
from tests.running import new_project
from tests.test_backfill import FIVE, fill, ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "duckdb_extension_postgres_scanner"


@dataclass(frozen=True)
class Server:
    """A PostgreSQL of our own, on a port of this machine."""

    folder: Path
    port: int

    def control(self, *arguments: str) -> None:
        user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        command = ["pg_ctl", "-D", str(self.folder / "data"), *arguments]
        subprocess.run(command, check=True, user=user, stdout=subprocess.DEVNULL, cwd="/")

    def ask(self, query: str) -> list[str]:
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]
        command = [shutil.which("psql") or "psql", *where, "-At", "-c", query]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.split()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if shutil.which("pg_ctl") is None or importlib.util.find_spec(PACKAGE) is None:
        pytest.skip(f"no PostgreSQL here, or no {PACKAGE} for DuckDB {duckdb.__version__}")
    with tempfile.TemporaryDirectory(prefix="seeknal-k8s-pg-") as name:
        made = Server(Path(name), free_ports(1))
        if os.geteuid() == 0:
            shutil.chown(name, "postgres")
        made.control("initdb", "-o", "-A trust -U postgres")
        options = f"-p {made.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
        made.control("-w", "-o", options, "-l", f"{name}/log", "start")
        try:
            yield made
        finally:
            made.control("-m", "immediate", "stop")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where DuckDB has its extensions


def a_project(folder: Path, server: Server, mode: str, keys: str) -> Path:
    """Make a project with one node that writes to a table named after its mode."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    (extension,) = Path(spec.origin).parent.rglob("*.duckdb_extension")
    home = folder / "home"
    home.mkdir()
    with contextlib.closing(duckdb.connect(config={"home_directory": str(home)})) as connection:
        connection.execute(f"INSTALL '{extension}'")
    project = new_project(folder)
    csv(project, "a", rows=56)
    sql = """
    SELECT CAST(day AS DATE) AS day, COUNT(*) AS n FROM ref('source.a')
    WHERE day >= '{{ start_date }}' AND day < '{{ end_date }}' GROUP BY day
    """
    target = f"type: postgresql, connection: pg, table: public.{mode}, mode: {mode}, {keys}"
    body = f"transform: |\n  {sql.strip()}\nmaterializations:\n  - {{{target}}}\n"
    node(project, "transform.daily", body, inputs=("source.a",))
    write(
        project,
        "profiles.yml",
        f"""
        connections:
          pg:
            type: postgresql
            host: 127.0.0.1
            port: {server.port}
            user: postgres
            password: none
            database: postgres
        """,
    )
    return project


def days(server: Server, table: str) -> list[str]:
    return server.ask(f"SELECT day FROM public.{table} ORDER BY day")


def test_upserts_leave_every_day_once_and_again_when_restated(
    server: Server, tmp_path: Path
) -> None:
    project = a_project(tmp_path, server, "upsert_by_key", "unique_keys: [day]")
    given: dict[str, Any] = {"profile": project / "profiles.yml"}
    assert fill(project, **given).results.success
    assert days(server, "upsert_by_key") == FIVE
    assert fill(project, start="2024-01-02", restate=True, **given).results.success
    assert days(server, "upsert_by_key") == FIVE


def test_by_time_days_go_upwards_and_an_older_one_never_deletes_newer(
    server: Server, tmp_path: Path
) -> None:
    project = a_project(tmp_path, server, "incremental_by_time", "time_column: day")
    given: dict[str, Any] = {"profile": project / "profiles.yml"}
    ran = fill(project, start="2024-01-02", **given)
    assert ran.ran[-4:] == list(ran.results)
    assert days(server, "incremental_by_time") == FIVE[1:]
    with pytest.raises(ProjectRefused, match="deletes every later row"):
        fill(project, end="2024-01-01", **given)
    assert days(server, "incremental_by_time") == FIVE[1:]
    assert fill(project, restate=True, **given).results.success
    assert days(server, "incremental_by_time") == FIVE


def test_a_table_that_every_day_would_replace_is_refused(server: Server, tmp_path: Path) -> None:
    project = a_project(tmp_path, server, "full", "create_table: true")
    with pytest.raises(ProjectRefused, match="would replace the whole table"):
        fill(project, profile=project / "profiles.yml")
    assert ledger(project).done() == {}
