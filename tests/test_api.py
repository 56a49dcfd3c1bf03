from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import seeknal_k8s


def test_every_public_name_can_be_imported() -> None:
    assert all(getattr(seeknal_k8s, name) is not None for name in seeknal_k8s.__all__)


def test_there_are_few_public_names() -> None:
    assert len(seeknal_k8s.__all__) <= 15


def test_importing_the_package_imports_no_framework() -> None:
    code = (
        "import sys, seeknal_k8s; heavy = {'seeknal', 'duckdb', 'pandas', 'pydantic', 'rich', "
        "'typer', 'prefect', 'kubernetes'}; print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_the_results_can_be_had_without_loading_seeknal() -> None:
    code = (
        "import sys; from seeknal_k8s import PrefectRunResult, RunResults; "
        "print('seeknal' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def test_the_version_is_the_one_of_the_distribution() -> None:
    assert seeknal_k8s.__version__ == metadata.version("seeknal-k8s")
