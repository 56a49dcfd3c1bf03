"""The repository's own promises: its targets, its layers, its example."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

ROOT = Path(__file__).parent.parent
SHOP = ROOT / "examples" / "shop"


@pytest.fixture(scope="module")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that make_data.py has just filled."""
    folder = tmp_path_factory.mktemp("shop") / "data"
    subprocess.run([sys.executable, str(SHOP / "make_data.py"), str(folder)], check=True)
    return folder


def make(*arguments: str) -> str:
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_make_alone_lists_every_target_with_a_sentence() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed = dict(line.split(maxsplit=1) for line in make().splitlines())
    assert list(listed) == phony.split()


def test_continuous_integration_runs_the_targets_a_contributor_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert (
        script.read_text().splitlines()[-1].startswith("exec make --no-print-directory check test")
    )


def test_every_module_imports_only_what_its_floor_allows() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(program), "--no-cache", "--no-logo"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "name",
    [path.name for path in sorted((SHOP / "data").iterdir()) if path.suffix != ".parquet"],
)
def test_a_text_file_of_the_shop_is_what_make_data_writes(name: str, made_data: Path) -> None:
    assert (SHOP / "data" / name).read_bytes() == (made_data / name).read_bytes()


def test_the_products_of_the_shop_are_what_make_data_writes(made_data: Path) -> None:
    """Rows and types are compared: the bytes carry the version of DuckDB that wrote them."""
    with duckdb.connect() as connection:
        committed, made = (
            connection.read_parquet(str(folder / "products.parquet"))
            for folder in (SHOP / "data", made_data)
        )
        assert committed.description == made.description
        assert committed.fetchall() == made.fetchall()


def test_make_data_writes_every_file_of_the_shop_and_no_other(made_data: Path) -> None:
    committed = {path.name for path in (SHOP / "data").iterdir()}
    assert committed == {path.name for path in made_data.iterdir()}
