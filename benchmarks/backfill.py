"""A year of daily intervals of an example node, beside the same days one after the other.

    python benchmarks/backfill.py [--days N] [--chunk N] [--loop N]

``backfill`` is one command for all days. The loop is one ``seeknal run --start-date --end-date`` a day,
as far as anybody waits for it: ``--loop`` days are timed, and the year is reckoned from them. Both
begin with what they read up to date. Planning is timed at 100,000 intervals and more.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

from seeknal_k8s import intervals

SCRIPTS = Path(sys.executable).parent
EXAMPLE = Path(__file__).parent.parent / "examples" / "shop"
NODE = "transform.category_sales"


def example(folder: Path) -> Path:
    """Copy the example."""
    ignored = shutil.ignore_patterns("target", "exports", ".seeknal-k8s")
    shutil.copytree(EXAMPLE, folder, ignore=ignored)
    return folder


def seconds(project: Path, program: str, *arguments: str) -> float:
    """Run a command in the project and return how long it took."""
    env = {**os.environ, "SEEKNAL_BASE_CONFIG_PATH": str(project.parent / "home")}
    env["PATH"] = f"{SCRIPTS}{os.pathsep}{env['PATH']}"
    began = time.monotonic()
    done = subprocess.run(
        [str(SCRIPTS / program), *arguments],
        cwd=project,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{program} {' '.join(arguments)}\n{done.stdout}\n{done.stderr}")
    return time.monotonic() - began


def of_days(folder: Path, days: int, chunk: int) -> float:
    """Return the seconds of one backfill of so many days."""
    project = example(folder / f"chunk{chunk}")
    seconds(project, "seeknal-k8s", "run", "--select", f"+{NODE}")
    last = date(2025, 1, 1) + timedelta(days=days - 1)
    asked = ["backfill", NODE, "--start", "2025-01-01", "--end", last.isoformat()]
    return seconds(project, "seeknal-k8s", *asked, "--chunk", str(chunk))


def of_loop(folder: Path, days: int) -> float:
    """Return the seconds of a day of plain ``seeknal run``, the median of so many days."""
    project = example(folder / "loop")
    seconds(project, "seeknal", "run")
    took = []
    for number in range(days):
        day = date(2025, 1, 1) + timedelta(days=number)
        dates = ["--start-date", f"{day}", "--end-date", f"{day + timedelta(days=1)}"]
        took.append(seconds(project, "seeknal", "run", *dates))
    return statistics.median(took)


def planning() -> None:
    """Print how long many intervals take to plan, keys included."""
    for zone in ("UTC", "Europe/Berlin"):
        began = time.monotonic()
        made = intervals.between("2012-01-01", "2023-12-31", schedule="@hourly", timezone=zone)
        keys = {interval.key for interval in made}
        print(f"{len(keys):,} hours of {zone} planned in {time.monotonic() - began:.2f} s")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--chunk", type=int, nargs="*", default=[1, 30])
    parser.add_argument("--loop", type=int, default=5)
    given = parser.parse_args()
    planning()
    with tempfile.TemporaryDirectory(prefix="seeknal-k8s-", dir="/var/tmp") as name:
        folder = Path(name)
        day = of_loop(folder, given.loop)
        loop = day * given.days
        print(f"seeknal run, {day:.2f} s a day: {loop:.0f} s for {given.days} days, reckoned")
        for chunk in given.chunk:
            took = of_days(folder, given.days, chunk)
            print(
                f"backfill --chunk {chunk}: {took:.1f} s for {given.days} days, "
                f"{took / given.days * 1000:.0f} ms a day, {loop / took:.0f} times as fast"
            )


if __name__ == "__main__":
    main()
