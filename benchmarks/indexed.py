"""A backfill of many days as Jobs, and as the indexes of one Job, on the real cluster of the tests.

    python benchmarks/indexed.py [--days 1000] [--chunk 5] [--max-parallel 6]

Both ways run the same days of an example node, one after the other, each in a namespace and a store
of its own, with real pods: what is compared is everything between the command and its last result.
Requests are those in the API server's audit log; the server's own controllers are counted apart.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.cluster import harness  # noqa: E402
from tests.faithful import EXAMPLE, copy_project  # noqa: E402
from tests.on_kubernetes import volume  # noqa: E402
from tests.small import PROGRAM  # noqa: E402
from tests.test_backfill_kubernetes import KEPT, ledger  # noqa: E402

if TYPE_CHECKING:
    from tests.cluster.harness import Cluster

PARENTS = "+transform.category_sales"


def measure(cluster: Cluster, image: str, given: argparse.Namespace, how: str) -> dict[str, Any]:
    """Return what one way costs."""
    last = date(2023, 1, 1) + timedelta(days=given.days - 1)
    with (
        cluster.namespace(how[2:]) as namespace,
        volume(namespace, image) as store,
    ):
        copy_project(EXAMPLE, store.path / "project")
        where = ["--on", "kubernetes"]
        command = [*PROGRAM, "run", str(store.path / "project"), "--select", PARENTS, *where]
        env = store.environment(**KEPT)
        subprocess.run(command, env=env, check=True, capture_output=True, umask=0)
        before = len(namespace.requests())
        asked = ["--start", "2023-01-01", "--end", f"{last}", "--chunk", str(given.chunk)]
        asked += ["--max-parallel", str(given.max_parallel), *where, how]
        command = [*PROGRAM, "backfill", "category_sales", "-C", str(store.path / "project")]
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        subprocess.run([*command, *asked], env=env, check=True, capture_output=True, umask=0)
        seconds = time.monotonic() - began
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = len(ledger(store.path).done())
        if done != given.days:
            raise SystemExit(f"{done} of {given.days} days are done")
        requests = namespace.requests()[before:]
        ours = [one for one in requests if one.agent.startswith("seeknal-k8s/")]
        return {
            "whole backfill, s": f"{seconds:.0f}",
            "our requests": str(len(ours)),
            "per interval": f"{len(ours) / given.days:.3f}",
            "requests of the cluster itself": str(len(requests) - len(ours)),
            "CPU of the coordinator, s": f"{_cpu(now) - _cpu(spent):.1f}",
            "objects that are left": str(
                sum(len(namespace.get(kind)["items"]) for kind in ("jobs", "pods", "configmaps"))
            ),
        }


def _cpu(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure both ways and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--days", type=int, default=1000)
    parser.add_argument("--chunk", type=int, default=5)
    parser.add_argument("--max-parallel", type=int, default=6)
    given = parser.parse_args()
    if lacks := harness.missing():
        raise SystemExit(f"this needs {'; '.join(lacks)}")
    cluster, image = harness.own(), harness.build_image()
    ways = {
        "a Job for each attempt": measure(cluster, image, given, "--no-indexed"),
        "one Indexed Job": measure(cluster, image, given, "--indexed"),
    }
    attempts = -(-given.days // given.chunk)
    print(f"{given.days} days in {attempts} attempts, {given.max_parallel} at once.\n")
    print(f"| | {' | '.join(ways)} |\n|---|{'--:|' * len(ways)}")
    for label in next(iter(ways.values())):
        print(f"| {label} | {' | '.join(way[label] for way in ways.values())} |")


if __name__ == "__main__":
    main()
