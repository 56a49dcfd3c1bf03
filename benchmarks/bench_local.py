"""Ours beside ``seeknal run``: the same projects, the same cores, whole commands, as ratios.

    python benchmarks/bench_local.py [--rounds N] [--only NAME] [--markdown]

Every round runs both commands on fresh copies, one after the other in turns, so that whatever
else the machine does hits both. Shown are medians of wall time, and of their ratio per round.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPTS = Path(sys.executable).parent
EXAMPLE = Path(__file__).parent.parent / "examples" / "shop"


def source(project: Path, name: str, rows: int) -> None:
    """Add a CSV source."""
    (project / "data").mkdir(parents=True, exist_ok=True)
    lines = [f"{row},{row % 7},{row * 37 % 1000}" for row in range(rows)]
    (project / "data" / f"{name}.csv").write_text("\n".join(["id,grp,value", *lines]))
    node(project, "source", name, f"source: csv\ntable: data/{name}.csv\n")


def transform(project: Path, name: str, inputs: list[str], sql: str) -> None:
    """Add a YAML transform."""
    refs = "\n".join(f"  - ref: {ref}" for ref in inputs)
    node(project, "transform", name, f"inputs:\n{refs}\ntransform: |\n  {sql}\n")


def node(project: Path, kind: str, name: str, body: str) -> None:
    """Add a node's file."""
    folder = project / "seeknal" / f"{kind}s"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yml").write_text(f"kind: {kind}\nname: {name}\n{body}")


def example(project: Path) -> None:
    """Copy the example: 25 nodes of every kind that works offline, two of them Python."""
    ignored = shutil.ignore_patterns("target", "exports", ".seeknal-k8s")
    shutil.copytree(EXAMPLE, project, ignore=ignored, dirs_exist_ok=True)


def wide(project: Path) -> None:
    """Make 10 sources and 200 small transforms that do not wait for each other."""
    for number in range(10):
        source(project, f"s{number}", 2000)
    for number in range(200):
        origin = f"source.s{number % 10}"
        sql = f"SELECT grp, sum(value) + {number} AS total FROM {origin} GROUP BY grp"
        transform(project, f"t{number}", [origin], sql)


def deep(project: Path) -> None:
    """Make a chain of 40 small transforms."""
    source(project, "s", 2000)
    before = "source.s"
    for number in range(40):
        transform(
            project, f"t{number}", [before], "SELECT id, grp, value + 1 AS value FROM __THIS__"
        )
        before = f"transform.t{number}"


def heavy(project: Path) -> None:
    """Make four transforms of some seconds each that do not wait for each other."""
    source(project, "s", 100)
    for number in range(4):
        sql = (
            f"SELECT count(*) AS n, sum(hash(a.range * {number + 3} + b.range) % 1000) AS h "
            "FROM range(20000) a, range(9000) b, (SELECT count(*) FROM __THIS__)"
        )
        transform(project, f"t{number}", ["source.s"], sql)


PROJECTS: dict[str, Callable[[Path], None]] = {
    "example": example,
    "wide": wide,
    "deep": deep,
    "heavy": heavy,
}
COMMANDS = {"seeknal run": ["seeknal", "run"], "ours": ["seeknal-k8s", "run", "--quiet"]}


def timed(command: list[str], project: Path, home: Path) -> float:
    """Run a command in a project and return its seconds; a failing one ends the benchmark."""
    env = os.environ | {
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(SCRIPTS.parent),
        "SEEKNAL_BASE_CONFIG_PATH": str(home),
    }
    began = time.perf_counter()
    done = subprocess.run(
        [str(SCRIPTS / command[0]), *command[1:]],
        cwd=project,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return seconds


def rounds(name: str, count: int, scratch: Path) -> Iterator[dict[str, float]]:
    """Yield the seconds of each command, round by round, the order turned about each time."""
    for number in range(count):
        order = list(COMMANDS)[:: 1 if number % 2 == 0 else -1]
        seconds = {}
        for label in order:
            project = scratch / f"{name}{number}{'o' if label == 'ours' else 's'}" / name
            project.mkdir(parents=True)
            PROJECTS[name](project)
            seconds[label] = timed(COMMANDS[label], project, scratch / "home")
            shutil.rmtree(project.parent)
        yield seconds


def thousand(project: Path) -> None:
    """Make 20 sources and 1,000 transforms, each over two nodes of the layer before it."""
    for number in range(20):
        source(project, f"s{number}", 1)
    before = [f"source.s{number}" for number in range(20)]
    for number in range(1000):
        inputs = [before[-1 - number % 20], before[-1 - (number * 7) % 20]]
        transform(project, f"t{number}", list(dict.fromkeys(inputs)), "SELECT * FROM input_0")
        before.append(f"transform.t{number}")


MEASURE = """
import asyncio, json, resource, statistics, sys, time
from pathlib import Path
from seeknal_k8s import RunRequest, run
from seeknal_k8s.events import NodeEnded, NodeStarted
starts, over = {}, []
def watch(event):
    if isinstance(event, NodeStarted):
        starts[event.node] = time.perf_counter()
    elif isinstance(event, NodeEnded):
        took = time.perf_counter() - starts[event.node]
        over.append(took - event.result.duration_seconds)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
asyncio.run(run(RunRequest(Path.cwd(), at_once=1), watch))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([1000 * statistics.median(over), after / 1024, (after - before) / 1024]))
"""


def overhead(scratch: Path) -> tuple[float, float, float]:
    """Return per-node overhead (median ms), coordinator's peak MiB, and what the run added to it.

    Overhead is all but the executor's own time, from the decision to start a node to its
    accepted outputs, with one node at a time.
    """
    project = scratch / "overhead" / "wide"
    wide(project)
    env = os.environ | {"SEEKNAL_BASE_CONFIG_PATH": str(scratch / "home")}
    said = subprocess.run(
        [sys.executable, "-c", MEASURE],
        cwd=project,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    milliseconds, peak, added = json.loads(said.stdout)
    return milliseconds, peak, added


def cached(count: int, scratch: Path) -> list[tuple[str, float, float]]:
    """Return ``plan`` and an all-cached ``run`` beside the bare import of Seeknal's executors."""
    project = scratch / "cached" / "shop"
    example(project)
    home = scratch / "home"
    timed(COMMANDS["ours"], project, home)
    bare = ["python", "-c", "import seeknal.workflow.executors, os; os._exit(0)"]
    lines = []
    for label, command in (
        ("plan", ["seeknal-k8s", "plan"]),
        ("all cached", ["seeknal-k8s", "run", "--quiet"]),
    ):
        pairs = [(timed(command, project, home), timed(bare, project, home)) for _ in range(count)]
        ratio = statistics.median(one / other for one, other in pairs)
        lines.append((label, statistics.median(one for one, _ in pairs), ratio))
    return lines


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=[*PROJECTS, "cached", "thousand", "overhead"])
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, {arguments.rounds} rounds, medians\n")
    print("| project | `seeknal run` | ours | ratio |")
    print("|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name in PROJECTS:
            if arguments.only in (None, name):
                measured = list(rounds(name, arguments.rounds, scratch))
                one, other = (statistics.median(m[k] for m in measured) for k in COMMANDS)
                ratio = statistics.median(m["ours"] / m["seeknal run"] for m in measured)
                print(f"| {name} | {one:.2f} s | {other:.2f} s | **{ratio:.2f}** |", flush=True)
        if arguments.only in (None, "cached"):
            print("\n| command | seconds | ÷ bare import of Seeknal's executors |\n|---|--:|--:|")
            for label, seconds, ratio in cached(arguments.rounds, scratch):
                print(f"| {label} | {seconds:.2f} s | **{ratio:.2f}** |")
        if arguments.only in (None, "thousand"):
            project = scratch / "thousand"
            thousand(project)
            seconds = timed(["seeknal-k8s", "plan"], project, scratch / "home")
            print(f"\nplan of 1,020 nodes: {seconds:.2f} s")
        if arguments.only in (None, "overhead"):
            milliseconds, peak, added = overhead(scratch)
            print(f"\noverhead per node, one at a time: {milliseconds:.0f} ms median")
            print(f"coordinator: {peak:.0f} MiB at most, {added:.0f} MiB beyond its imports")


if __name__ == "__main__":
    main()
