"""What README and docs show is run: commands on the example, options through the options file."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import duckdb
import pytest

from seeknal_k8s import exitcodes
from seeknal_k8s.options import OptionsFile
from tests.faithful import EXAMPLE, copy_project, ours

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks(README, "console") for line in block.splitlines()]
    typed = [line.removeprefix("$ ").partition("  #")[0].strip() for line in lines]
    return [command for command in typed if command.startswith("seeknal-k8s ")]


def test_the_readme_shows_the_commands_there_are() -> None:
    shown = {command.split()[1] for command in commands()}
    assert shown == {"plan", "run", "show", "runs", "logs"}


def test_every_command_of_the_readme_works_on_the_example(tmp_path: Path) -> None:
    project = copy_project(EXAMPLE, tmp_path / "shop")
    for command in sorted(set(commands()), key=commands().index):
        done = ours(project, tmp_path / "home", *shlex.split(command)[1:])
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_every_command_of_the_page_on_backfills_works_on_the_example(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "backfill.md").read_text(encoding="utf-8")
    project = copy_project(EXAMPLE, tmp_path / "shop")
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    assert len(lines) == 3
    for line in lines:
        done = ours(project, tmp_path / "home", *shlex.split(line.removeprefix("$ "))[1:])
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    query = next(block for block in blocks(page, "sql") if "read_parquet" in block)
    with duckdb.connect(":memory:", config={"file_search_path": str(project)}) as connection:
        days = {row[-1] for row in connection.execute(query).fetchall()}
    assert len(days) == 90


def test_the_options_of_the_readme_are_options_of_the_example(tmp_path: Path) -> None:
    (text,) = [block for block in blocks(README, "yaml") if "defaults:" in block]
    (tmp_path / "seeknal-k8s.yml").write_text(text, encoding="utf-8")
    file = OptionsFile.load(tmp_path)
    assert file != OptionsFile.load(tmp_path / "nowhere")


def test_every_exit_code_of_a_node_stands_in_the_readme() -> None:
    codes = {value for name, value in vars(exitcodes).items() if name.isupper() and value}
    table = set(re.findall(r"-?\d+", "\n".join(re.findall(r"^\|([^|]*)\|", README, re.MULTILINE))))
    internal = {exitcodes.USAGE}  # only a pod's own command line can be wrong
    assert {str(code) for code in codes - internal if isinstance(code, int)} <= table


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_of_the_repository_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
