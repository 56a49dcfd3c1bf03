"""What a run of many Jobs costs, beside a loop that only posts them, and beside Prefect's own ways.

    python benchmarks/fanout.py [--jobs 1000] [--worker-jobs 50] [--block-jobs 100] [--write]

Each part gets a control plane of its own (as `make cluster-build` has compiled it); the nodes are kwok's,
so no container runs: pods end well after some seconds, and the results that they would have written
are put into the store beforehand. All parts share this machine's cores with the control plane, so
figures compare with each other, not with production. Prefect's ways are cut off after ``--limit`` seconds,
and their figures are then those up to there. ``--write`` puts the table into docs/performance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve()
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from decode import sentence  # noqa: E402
from fanout_parts import AGENT, AT_ONCE  # noqa: E402
from page import machine, put  # noqa: E402

from tests import prefect_server  # noqa: E402
from tests.cluster import harness  # noqa: E402
from tests.on_kubernetes import bind  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.harness import Namespace

PODS_PER_NODE = 250
TEN_THOUSAND = 10_000


# --- What the API server saw ----------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What one part asked of the API server, by its audit log."""

    requests: int
    created: int
    watching: float
    creates: float
    late: list[float]


def moment(text: str) -> float:
    """Return a time of the audit log as Unix time."""
    return datetime.fromisoformat(text).timestamp()


def look(namespace: Namespace, agent: str, ended: dict[str, float]) -> Seen:
    """Read the audit log of a part."""
    asked = namespace.requests()
    mine = [r for r in asked if re.match(agent, r.agent)]
    creates = sorted(moment(r.received) for r in mine if r.call == "create jobs")
    others = [moment(r.received) for r in mine if r.call != "create jobs"]
    span = max((*others, creates[-1])) - creates[0]
    terminal: dict[str, float] = {}  # of Jobs and of pods: what tells of an end knows only one
    for request in asked:
        if request.resource.endswith("s/status") and request.verb in {"update", "patch"}:
            terminal[request.name] = moment(request.received)
    late = [at - terminal[name] for name, at in ended.items() if name in terminal]
    return Seen(
        requests=len(mine),
        created=len(creates),
        watching=len(others) / max(span, 1.0),
        creates=(len(creates) - 1) / max(creates[-1] - creates[0], 0.001),
        late=late,
    )


def measure(
    name: str, jobs: int, given: argparse.Namespace, *, agent: str, namespace: Namespace
) -> dict[str, Any]:
    """Run one part in a process of its own, and return its figures."""
    kubeconfig = namespace.cluster.kubeconfig
    with tempfile.TemporaryDirectory(dir="/var/tmp") as store, contextlib.ExitStack() as stack:
        api = {}
        if name == "worker":
            api = stack.enter_context(prefect_server.running(Path(store))).env
        told = subprocess.run(
            [
                *(sys.executable, str(HERE.parent / "fanout_parts.py"), name, "--jobs", str(jobs)),
                *("--seconds", str(given.seconds), "--limit", str(given.limit)),
                *("--namespace", namespace.name),
                *("--kubeconfig", str(kubeconfig), "--store", f"{store}/store"),
            ],
            env={
                **os.environ,
                **api,
                "KUBECONFIG": str(kubeconfig),
                "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
                "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES": namespace.name,
            },
            capture_output=True,
            text=True,
            check=False,
        )
    if told.returncode != 0:
        raise SystemExit(f"{name}: {told.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    seen = look(namespace, agent, figures.pop("ended", {}))
    return {**figures, "jobs": jobs, "seen": seen}


# --- The table ------------------------------------------------------------------------------------


def lines(figures: dict[str, dict[str, Any]], decoding: str) -> Iterator[str]:
    """Yield the table, in Markdown."""
    heads = list(figures)
    yield f"| | {' | '.join(heads)} |"
    yield f"|---|{'--:|' * len(heads)}"
    rows = {
        "Jobs asked for": lambda f: f"{f['jobs']}",
        "Jobs created": lambda f: f"{f['seen'].created}",
        "whole run, s": lambda f: f"{f['seconds']:.1f}",
        "Jobs created per second": lambda f: (
            f"{f['seen'].creates:.0f}"
            if f["jobs"] > AT_ONCE
            else "-"  # of one burst it says nothing
        ),
        "requests per Job": lambda f: f"{f['seen'].requests / f['seen'].created:.3f}",
        "requests per second that are no creates": lambda f: f"{f['seen'].watching:.2f}",
        "CPU per Job, ms": lambda f: f"{f['cpu'] * 1000 / f['seen'].created:.1f}",
        "largest memory, MiB": lambda f: f"{f['rss']:.0f}",
        "from a Job's end to its result, median, ms": lambda f: late(f, 50),
        "the same, 99th percentile, ms": lambda f: late(f, 99),
        "Jobs whose end was told": lambda f: str(f["done"]) if "done" in f else "-",
        "of them told as failed, although they ended well": lambda f: str(f.get("wrong", "-")),
    }
    for label, cell in rows.items():
        yield f"| {label} | {' | '.join(cell(figure) for figure in figures.values())} |"
    yield ""
    ratio = figures["seeknal-k8s"]["seen"].creates / figures["bare loop"]["seen"].creates
    yield f"Creation beside the bare loop: {ratio:.2f} of its rate. {decoding}"


def late(figures: dict[str, Any], percent: int) -> str:
    """Return a percentile of the delays, in milliseconds."""
    found = sorted(figures["seen"].late)
    if not found:
        return "-"
    value = median(found) if percent == 50 else quantiles(found, n=100)[percent - 1]  # noqa: PLR2004
    return f"{value * 1000:.0f}"


def main() -> None:
    """Measure, print the table, and write the page if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--block-jobs", type=int, default=100)
    parser.add_argument("--worker-jobs", type=int, default=50, help="0 leaves it out, as below")
    parser.add_argument("--limit", type=int, default=240, help="seconds for each way of Prefect's")
    parser.add_argument("--seconds", type=int, default=20, help="how long a pod lasts")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if lacks := harness.missing():
        raise SystemExit(f"this needs {'; '.join(lacks)}")
    nodes = max(1, -(-given.jobs // PODS_PER_NODE))
    figures = {}
    for title, name, jobs, agent in (
        ("bare loop", "bare", given.jobs, AGENT),
        ("seeknal-k8s", "ours", given.jobs, "seeknal-k8s/"),
        ("Prefect worker", "worker", given.worker_jobs, "OpenAPI-Generator|kopf"),
        ("KubernetesJob block", "block", given.block_jobs, "OpenAPI-Generator"),
    ):
        if jobs == 0:
            continue
        # A cluster of its own each, for what a part leaves behind would slow down the next one.
        with tempfile.TemporaryDirectory(prefix="sk8s-", dir="/var/tmp") as folder:
            plane = harness.ControlPlane(Path(folder), harness.free_ports(5), kwok=nodes)
            try:
                with plane.up().namespace(name) as namespace:
                    bind(namespace, Path("/nowhere"))
                    figures[title] = measure(name, jobs, given, agent=agent, namespace=namespace)
            finally:
                plane.down()
        print(f"{title}: {figures[title]['seconds']:.0f} s", file=sys.stderr)
    table = "\n".join(lines(figures, sentence(TEN_THOUSAND)))
    text = f"{machine()}, shared with the control plane.\n\n{table}"
    print(text)
    if given.write:
        put("fanout-10000" if given.jobs == TEN_THOUSAND else "fanout", text)


if __name__ == "__main__":
    main()
