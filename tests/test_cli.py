"""The command line without a run: help, options, errors, exit codes, start-up."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.cli.app import execute, with_wait_value
from seeknal_k8s.cli.arguments import Inputs
from seeknal_k8s.cli.render import Here, size, table
from seeknal_k8s.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRIPTS = Path(sys.executable).parent


def program(
    *arguments: str | Path, name: str = "seeknal-k8s", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the program as its console script does."""
    command = [SCRIPTS / name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.mark.parametrize("name", ["seeknal-k8s", "kubectl-seeknal"])
def test_help_shows_the_name_it_was_called_by(name: str) -> None:
    found = program("run", "--help", name=name)
    assert found.returncode == 0
    assert f"Usage: {name} run " in found.stdout
    assert f" {name} run --resume latest" in found.stdout


@pytest.mark.parametrize("command", ["run", "plan", "show", "runs", "logs"])
def test_every_command_has_help_with_examples(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute([command, "-h"]) == 0
    said = capsys.readouterr().out
    assert "Examples" in said
    assert f"seeknal-k8s {command} " in said
    assert "--json" in said


def test_without_a_command_there_is_help_and_the_exit_code_of_wrong_usage() -> None:
    found = program()
    assert found.returncode == 2
    assert "Usage: seeknal-k8s [OPTIONS] COMMAND" in found.stdout


def test_the_version_names_what_matters() -> None:
    found = program("--version")
    assert found.returncode == 0
    assert re.fullmatch(
        r"seeknal-k8s \d+\.\d+\.\d+\S* \(Seeknal 2\.13\.\d+, Python 3\.\d+\.\d+\)\n", found.stdout
    )


def test_the_shell_can_complete_commands() -> None:
    # It asks which shell it was called from; a test is called from whatever make uses.
    env = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    found = program("--show-completion", "bash", env=env)
    assert found.returncode == 0
    assert "_SEEKNAL_K8S_COMPLETE=complete_bash" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["fly"], "No such command 'fly'", id="an unknown command"),
        pytest.param(["run", "--ful"], "No such option: --ful", id="an unknown option"),
        pytest.param(
            ["run", "--on", "mars"],
            "there is no backend 'mars'; there is: local, kubernetes",
            id="a backend that does not exist",
        ),
        pytest.param(["run", "--max-parallel", "0"], "'--max-parallel'", id="room for no node"),
        pytest.param(["run", "--wait", "-1"], "'--wait'", id="a wait that is over already"),
        pytest.param(
            ["run", "--profile", "nope.yml"], "nope.yml", id="a profile that is not there"
        ),
        pytest.param(["run", "--run-id", "-x"], "--run-id '-x'", id="a run id like an option"),
        pytest.param(["run", "--run-id", "a/b"], "--run-id 'a/b'", id="a run id with a slash"),
        pytest.param(["run", "--run-id", "a" * 64], "at most 63", id="a run id that is too long"),
        pytest.param(["run", "--resume", "a", "--run-id", "b"], "--resume", id="two run ids"),
        pytest.param(
            ["run", "--resume", "a", "-s", "x", "--full"],
            "leave --select, --full out",
            id="another selection for a resumed run",
        ),
        pytest.param(["run", "--set", "memry=1Gi"], "`memory`", id="an option of no node"),
        pytest.param(
            ["run", "--params", "{"], "--params is not JSON", id="params that are not JSON"
        ),
        pytest.param(["run", "--params", "[]"], "JSON object", id="params that are a list"),
        pytest.param(["run", "--params", '{"today": "x"}'], "'today' in", id="a bad day in params"),
        pytest.param(["run", "--date", "2025-02-30"], "not a day", id="a day that does not exist"),
        pytest.param(["run", "--date", "20250201"], "not a day", id="a day without dashes"),
        pytest.param(["run", "--date", "1999-12-31"], "2000 to 2100", id="a day of last century"),
        pytest.param(["run", "--date", "2100-01-01"], "a year ahead", id="a day far ahead"),
        pytest.param(["run", "--start-date", "soon"], "not an ISO date", id="a start in words"),
        pytest.param(
            ["run", "--start-date", "2025-02-01", "--end-date", "2025-01-31"],
            "--start-date 2025-02-01 is after --end-date 2025-01-31",
            id="a start after the end",
        ),
        pytest.param(["show", "-C", "nowhere"], "there is no folder nowhere", id="no such project"),
        pytest.param(["logs"], "NODE", id="logs of nothing"),
    ],
)
def test_wrong_usage_is_told_in_a_line_and_exits_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert message in told.err


def test_wrong_usage_is_json_too_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["run", "--on", "moon", "--json"]) == 2
    message = "there is no backend 'moon'; there is: local, kubernetes"
    told = capsys.readouterr()
    assert told.err == f"error: {message}\n"
    assert json.loads(told.out) == {
        "error": {"type": "UsageError", "message": message, "problems": []}
    }


def test_a_wrong_option_names_the_help_to_read(capsys: pytest.CaptureFixture[str]) -> None:
    execute(["plan", "--explian", "x"])
    assert capsys.readouterr().err.endswith("\n  → seeknal-k8s plan --help\n")


def test_a_date_is_given_under_the_three_names_that_seeknal_knows() -> None:
    given = Inputs(params='{"region": "EU", "date": "2020-01-01"}', date="2025-01-31").parameters()
    assert given == {
        "region": "EU",
        "date": "2025-01-31",
        "run_date": "2025-01-31",
        "today": "2025-01-31",
    }


def test_start_and_end_are_given_as_written() -> None:
    given = Inputs(start_date="2025-01-01", end_date="2025-01-31T12:00:00+07:00").parameters()
    assert given == {"start_date": "2025-01-01", "end_date": "2025-01-31T12:00:00+07:00"}


def test_a_wrong_date_in_the_parameters_is_refused_as_seeknal_does() -> None:
    with pytest.raises(UsageError, match="more than a year ahead"):
        Inputs(params='{"today": "2099-01-01"}').parameters()


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        (["--wait"], ["--wait=inf"]),
        (["--wait", "--json"], ["--wait=inf", "--json"]),
        (["--wait", "shop"], ["--wait=inf", "shop"]),
        (["--wait", "30", "shop"], ["--wait", "30", "shop"]),
        (["--wait=5"], ["--wait=5"]),
    ],
)
def test_wait_may_stand_without_a_number(given: list[str], completed: list[str]) -> None:
    assert with_wait_value(given) == completed


@pytest.mark.parametrize(
    ("here", "hint", "command"),
    [
        pytest.param(
            Here(Path()),
            "seeknal-k8s logs transform.a",
            "seeknal-k8s logs transform.a",
            id="nothing is added in the project's own folder",
        ),
        pytest.param(
            Here(Path("a shop")),
            "seeknal-k8s logs transform.a",
            "seeknal-k8s logs transform.a -C 'a shop'",
            id="elsewhere the project is named",
        ),
        pytest.param(
            Here(Path("shop"), Path("/store")),
            "seeknal-k8s run --select +transform.a",
            "seeknal-k8s run --select +transform.a shop --store /store",
            id="a run takes its project as an argument",
        ),
        pytest.param(
            Here(Path(), Path("/store")),
            "seeknal-k8s plan",
            "seeknal-k8s plan",
            id="a plan needs no store",
        ),
        pytest.param(
            Here(Path("shop")),
            "make room on the disk, then resume",
            "make room on the disk, then resume",
            id="a sentence stays a sentence",
        ),
    ],
)
def test_commands_to_type_next_can_be_typed_as_they_are(
    here: Here, hint: str, command: str
) -> None:
    assert here.completed(hint) == command


def test_tables_line_up_also_with_wide_letters() -> None:
    lines = table(("NODE", "N", "WHY"), [["東京", "1", ""], ["a", "1,000", "new"]], " r")
    assert [line.plain for line in lines] == [
        "NODE      N  WHY",
        "東京      1",
        "a     1,000  new",
    ]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, ""),
        (0, "0 B"),
        (1023, "1,023 B"),
        (2900, "2.83 KiB"),
        (1 << 29, "512 MiB"),
        (3 << 40, "3.0 TiB"),
    ],
)
def test_sizes_read_well(count: int | None, text: str) -> None:
    assert size(count) == text


def imported_by(script: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has after a script."""
    ending = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    found = subprocess.run(
        [sys.executable, "-c", f"{script}\n{ending}"], capture_output=True, text=True, check=True
    )
    return set(found.stdout.splitlines()[-1].split())


def test_the_program_imports_next_to_nothing_before_the_engine_has_begun() -> None:
    extra = imported_by("import seeknal_k8s.cli") - imported_by("pass")
    assert extra - {"seeknal_k8s", "__future__"} <= set(sys.stdlib_module_names)
    assert not extra & {"asyncio", "dataclasses", "inspect", "json", "subprocess"}


def test_looking_at_runs_imports_neither_seeknal_nor_what_only_a_run_needs(tmp_path: Path) -> None:
    script = f"from seeknal_k8s.cli.app import execute\nexecute(['runs', '-C', {str(tmp_path)!r}])"
    assert not imported_by(script) & {"seeknal", "duckdb", "pyarrow", "yaml", "psutil"}
