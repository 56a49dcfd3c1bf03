"""A backfill of ten thousand intervals as a flow on a real Prefect server: is every state there, at what cost?

    python benchmarks/intervals_in_prefect.py [--hours 10000] [--chunk 10]

The same hours of a small node run twice on this machine: by the command alone, and as the flow. What
is counted is what the server has of the flow run when it is over.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from seeknal_k8s import seeknal_backfill_flow  # noqa: E402
from tests import prefect_server  # noqa: E402
from tests.projects import csv, transform  # noqa: E402
from tests.running import new_project  # noqa: E402
from tests.small import PROGRAM  # noqa: E402

HOURLY = """
    SELECT '{{ start_date }}' AS hour, COUNT(*) AS n FROM ref('source.a') WHERE day < '{{ end_date }}'
"""
SETTLED = 60.0


def a_project(folder: Path) -> Path:
    """Make a project with one node that has its dates."""
    folder.mkdir()
    project = new_project(folder)
    csv(project, "a", rows=28)
    transform(project, "hourly", HOURLY, "source.a")
    return project


def asked(hours: int) -> tuple[str, str]:
    """Return the first moment of the range, and the one after its last."""
    start = datetime(2023, 1, 1)  # noqa: DTZ001 - the schedule's zone is UTC
    return (
        start.isoformat(timespec="minutes"),
        (start + timedelta(hours=hours)).isoformat(timespec="minutes"),
    )


def by_command(project: Path, given: argparse.Namespace) -> float:
    """Return the seconds that the command takes."""
    start, end = asked(given.hours)
    range_ = ["--start", start, "--end", end, "--schedule", "@hourly", "--chunk", str(given.chunk)]
    command = [*PROGRAM, "backfill", "hourly", "-C", str(project), *range_]
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began


def by_flow(project: Path, given: argparse.Namespace, url: str) -> dict[str, Any]:
    """Return what the flow takes, and what the server knows in the end."""
    start, end = asked(given.hours)
    began = time.monotonic()
    results = seeknal_backfill_flow(
        str(project), "hourly", start, end, "@hourly", chunk=given.chunk
    )
    took = time.monotonic() - began
    with httpx.Client(base_url=url, timeout=SETTLED) as client:
        states = _states(client, results.run_id)
        table = _table(client, results.run_id)
    return {
        "seconds": took,
        "intervals that succeeded": sum(result.success for result in results.values()),
        "task runs by their state": dict(states),
        "rows of the table": table,
    }


def _states(client: httpx.Client, flow_run: str) -> Counter[str]:
    """Return how many task runs are in which state, once no more come."""
    until = time.monotonic() + SETTLED
    found: Counter[str] = Counter()
    while True:
        before, found = found, Counter()
        offset = 0
        while page := _page(client, flow_run, offset):
            found.update(run["state_name"] for run in page)
            offset += len(page)
        if found == before or time.monotonic() > until:
            return found
        time.sleep(2)


def _page(client: httpx.Client, flow_run: str, offset: int) -> list[dict[str, Any]]:
    query = {"flow_runs": {"id": {"any_": [flow_run]}}, "limit": 200, "offset": offset}
    found: list[dict[str, Any]] = (
        client.post("/task_runs/filter", json=query).raise_for_status().json()
    )
    return found


def _table(client: httpx.Client, flow_run: str) -> int:
    query = {
        "artifacts": {"flow_run_id": {"any_": [flow_run]}, "key": {"any_": ["seeknal-intervals"]}}
    }
    found = client.post("/artifacts/filter", json=query).raise_for_status().json()
    return sum(one["data"].count('"interval"') for one in found)


def main() -> None:
    """Measure both ways and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--hours", type=int, default=10_000)
    parser.add_argument("--chunk", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="seeknal-k8s-", dir="/var/tmp") as name:
        folder = Path(name)
        alone = by_command(a_project(folder / "alone"), given)
        home = folder / "prefect"
        home.mkdir()
        with (
            prefect_server.running(home) as server,
            temporary_settings({PREFECT_API_URL: server.url, PREFECT_HOME: home}),
        ):
            shown = by_flow(a_project(folder / "flow"), given, server.url)
    print(f"{given.hours:,} hours, {given.chunk} in an attempt.\n")
    print(f"| | |\n|---|--:|\n| the command alone, s | {alone:.0f} |")
    print(f"| as a flow, s | {shown.pop('seconds'):.0f} |")
    for label, value in shown.items():
        print(f"| {label} | {value} |")


if __name__ == "__main__":
    main()
