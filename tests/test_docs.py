"""What README and docs show is run: commands on the example, options through the options file."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import duckdb
import pytest
import typer.main

from seeknal_k8s import exitcodes
from seeknal_k8s.cli.app import app
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
    assert shown == {"plan", "run", "show", "runs", "logs", "why"}


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


def shown_commands(page: str) -> list[list[str]]:
    """Return the words of every seeknal-k8s command of a page: in its blocks, and in its lines."""
    fences = r"^```(\w*)\n(.*?)^```"
    fenced = [
        line.removeprefix("$ ")
        for language, block in re.findall(fences, page, re.MULTILINE | re.DOTALL)
        if language in {"console", "sh"}
        for line in block.replace("\\\n", " ").splitlines()
    ]
    prose = re.sub(fences, "", page, flags=re.MULTILINE | re.DOTALL)
    inline = [" ".join(span.split()) for span in re.findall(r"`(seeknal-k8s\s[^`]+)`", prose)]
    return [
        shlex.split(line, comments=True)
        for line in fenced + inline
        if line.startswith("seeknal-k8s ")
    ]


def unknown_words(words: list[str]) -> list[str]:
    """Return what a command line names that the program does not have."""
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        found = command.commands.get(rest[0])
        if found is None:
            return [rest[0]]
        command, rest = found, rest[1:]
    options = {
        name for option in command.params for name in (*option.opts, *option.secondary_opts)
    } | {"--help", "-h"}
    return [word for word in rest if word.startswith("-") and word.partition("=")[0] not in options]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_exists_with_its_options(page: Path) -> None:
    shown = shown_commands(page.read_text(encoding="utf-8"))
    wrong = {" ".join(words): unknown for words in shown if (unknown := unknown_words(words))}
    assert wrong == {}


def test_commands_and_options_that_do_not_exist_are_noticed() -> None:
    assert unknown_words(["seeknal-k8s", "walk"]) == ["walk"]
    assert unknown_words(["seeknal-k8s", "pool", "drain"]) == ["drain"]
    assert unknown_words(["seeknal-k8s", "run", "--fulll"]) == ["--fulll"]
    text = "```sh\nseeknal-k8s run \\\n  --no\n```\nSee `seeknal-k8s\nplan`.\n"
    assert shown_commands(text) == [["seeknal-k8s", "run", "--no"], ["seeknal-k8s", "plan"]]
