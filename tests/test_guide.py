"""The guide is true: every Python block in it is run, on a real Prefect server and a real project."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from tests.projects import csv, transform
from tests.running import isolate, new_project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.prefect_server import PrefectServer

GUIDE = Path(__file__).parent.parent / "docs" / "guide.md"
BLOCKS = re.findall(
    r"^(#+ [^\n]*)\n|^```python\n(.*?)^```", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)


def blocks() -> list[Any]:
    """Return the blocks, each under its heading."""
    found: list[Any] = []
    heading = ""
    for title, code in BLOCKS:
        heading = title.lstrip("# ") or heading
        if code:
            found.append(pytest.param(code, id=f"{heading} {len(found)}"))
    return found


@pytest.fixture
def project(
    prefect: PrefectServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Path]:
    """Make a project with the nodes that the guide names, and a pool for its deployments."""
    isolate(monkeypatch, tmp_path / "home")
    project = new_project(tmp_path)
    csv(project, "source_node", rows=3)
    transform(project, "transform_node", "SELECT * FROM __THIS__", "source.source_node")
    for name in ("my_node", "backfill_node"):
        dated = "SELECT '{{ start_date }}' AS day, count(*) AS n FROM __THIS__"
        transform(project, name, dated, "source.source_node")
    monkeypatch.chdir(project)
    with temporary_settings({PREFECT_API_URL: prefect.url, PREFECT_HOME: prefect.home}):
        asyncio.run(_with_pool("seeknal"))
        yield project


async def _with_pool(name: str) -> None:
    async with get_client() as client:
        if name not in {pool.name for pool in await client.read_work_pools()}:
            await client.create_work_pool(WorkPoolCreate(name=name, type="kubernetes"))


@pytest.mark.parametrize("code", blocks())
def test_a_block_of_the_guide_runs(code: str, project: Path) -> None:
    """Only the project's place is another, and what a block only defines is called afterwards."""
    placed = code.replace("/path/to/project", str(project)).replace("/data/etl", str(project))
    there: dict[str, Any] = {}
    exec(compile(placed, "docs/guide.md", "exec"), there)  # noqa: S102 - our own page
    if "results" in there:
        assert there["results"].success
    if "custom_etl" in there:
        states = there["custom_etl"](str(project), ["source_node"])
        assert states["source_node"].result().success
    if "conditional_flow" in there:
        assert there["conditional_flow"](str(project)).success
    if "execute_node" in there:
        result = there["execute_node"].fn("source_node", str(project))
        assert (result.success, result.exit_code) == (True, 0), result.stderr
    if "watched" in there:
        there["watched"]()


def test_the_guide_has_all_that_seeknal_documents() -> None:
    code = "\n".join(block for _, block in BLOCKS)
    names = ("seeknal_run_flow", "seeknal_backfill_flow", "run_seeknal_node", "PrefectRunResult")
    assert all(name in code for name in (*names, "create_prefect_deployment"))


def test_every_example_of_the_guide_has_its_block() -> None:
    headings = {str(block.id).rpartition(" ")[0] for block in blocks()}
    assert {
        "A scheduled pipeline",
        "A backfill with retries",
        "A task of your own",
        "A flow of your own",
        "On a condition",
    } <= headings
