"""In which Python the scripts of Python nodes run, where ``uv run`` would take another one than ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faithful import environment
from tests.running import new_project, python
from tests.small import PROGRAM

MINE = sys.version_info[:2]


def folder_of_another() -> Path:
    """Return the folder of a Python whose version is not ours, or skip the test."""
    for folder in sorted(Path(sys.base_prefix).parent.glob("*/bin")):
        program = folder / "python3"
        if not program.exists():
            continue
        asked = "import sys; print(sys.version_info[1])"
        done = subprocess.run([program, "-c", asked], capture_output=True, text=True, check=False)
        if done.returncode == 0 and int(done.stdout) not in {MINE[1], 6, 7}:  # which uv cannot use
            return folder
    pytest.skip("there is no other Python beside ours")


HEADER = "# /// script\n# dependencies = []\n# ///\n"


@pytest.mark.parametrize("header", ["", HEADER], ids=["plain", "with a header"])
@pytest.mark.parametrize("way", ["in a fork", "by uv"])
def test_a_script_runs_in_our_python_where_nothing_says_which(
    tmp_path: Path, way: str, header: str
) -> None:
    project = new_project(tmp_path)
    python(project, "mine", "print('python', *sys.version_info[:2])")
    file = project / "seeknal/py/mine.py"
    file.write_text(header + file.read_text())
    if way == "by uv":  # a module that is imported already, so no fork of ours can run the script
        (project / "seeknal_k8s.py").write_text("")
    env = environment(tmp_path / "home")
    env["PATH"] = f"{folder_of_another()}{os.pathsep}{env['PATH']}"
    del env["VIRTUAL_ENV"]
    ran = subprocess.run(
        [*PROGRAM, "run", str(project)], env=env, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    logs = subprocess.run(
        [*PROGRAM, "logs", "mine", "-C", str(project)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"python {MINE[0]} {MINE[1]}\n" in logs.stdout
