"""What a run of many Jobs costs, beside a loop that only posts them, and beside Prefect's own block.

    python benchmarks/fanout.py [--jobs 1000] [--block-jobs 10] [--write]

Each part gets a control plane of its own (as `make cluster-build` has compiled it); the nodes are kwok's,
so no container runs: pods end well after some seconds, and the results that they would have written
are put into the store beforehand. All parts share this machine's cores with the control plane, so
figures compare with each other, not with production. The block is cut off after ``--block-limit`` seconds,
and its figures are then those up to there. ``--write`` puts the table into docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve()
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seeknal_k8s.attempt import AttemptSpec
    from seeknal_k8s.events import Event
    from seeknal_k8s.options import Resolved
    from seeknal_k8s.plan import Plan
    from seeknal_k8s.settings import Settings
    from tests.cluster.harness import Namespace

AGENT = "fanout-bench"
PODS_PER_NODE = 250
TEN_THOUSAND = 10_000
AT_ONCE = 50
"""Requests at the same time in the bare loop."""


def pod_template(seconds: int) -> dict[str, Any]:
    """Return what sends a pod to kwok's nodes, where it ends after so many seconds."""
    return {
        "metadata": {"annotations": {"fake/duration": f"{seconds}s"}},
        "spec": {
            "nodeSelector": {"type": "kwok"},
            "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
        },
    }


# --- The parts, each in a process of its own ------------------------------------------------------


def settings_for(part: argparse.Namespace) -> Settings:
    """Return the settings of a run in this part's namespace."""
    from seeknal_k8s.settings import load  # noqa: PLC0415

    return load(
        namespace=part.namespace,
        image="localhost/none",
        store_claim="store",
        store_path=part.store,
        node_pod_template=pod_template(part.seconds),
    )


def many(jobs: int) -> Plan:
    """Return a plan of nodes that do not wait for each other."""
    from seeknal_k8s.graph import Graph, Node  # noqa: PLC0415
    from seeknal_k8s.plan import NodeRun, Plan, Reason  # noqa: PLC0415

    nodes = [Node(f"source.n{i:05}", "source", f"n{i:05}", f"{i}.yml") for i in range(jobs)]
    graph = Graph("many", "/", {node.id: node for node in nodes}, "digest")
    runs = tuple(NodeRun(node, Reason.NEW, "", options()) for node in nodes)
    return Plan(graph, runs, ())


def options() -> Resolved:
    """Return the default options."""
    from seeknal_k8s.options import NodeOptions, Resolved  # noqa: PLC0415

    return Resolved(NodeOptions(), dict.fromkeys(NodeOptions.model_fields, ""))


def order(spec: AttemptSpec) -> dict[str, Any]:
    """Return an order as the pod would read it, were there one."""
    return {"spec": spec.to_dict()}


async def ours(part: argparse.Namespace) -> dict[str, Any]:
    """Run all Jobs with the runner and the Kubernetes backend."""
    from seeknal_k8s.attempt import AttemptSpec, write_record  # noqa: PLC0415
    from seeknal_k8s.backends.kubernetes import KubernetesBackend, open_backend  # noqa: PLC0415
    from seeknal_k8s.events import NodeEnded  # noqa: PLC0415
    from seeknal_k8s.runner import Runner  # noqa: PLC0415
    from seeknal_k8s.store import Store  # noqa: PLC0415

    plan, store = many(part.jobs), Store(Path(part.store))
    store.prepare()
    folder = store.new_run("r1")
    for run in plan.runs:
        attempt = folder.bundle(run.node.id) / "1"
        attempt.mkdir(parents=True)
        spec = AttemptSpec(run.node.id, str(attempt), "/", "/")
        write_record(spec, outcome={"exit_code": 0, "rows": 1, "seconds": 0.1})
    ended: dict[str, float] = {}

    def see(event: Event) -> None:
        if isinstance(event, NodeEnded):
            ended[event.node] = time.time()

    before, began = cost(), time.monotonic()
    async with open_backend(
        settings_for(part), run_id="r1", plan=plan, order=order, kind=KubernetesBackend
    ) as backend:
        runner = Runner(plan, backend, folder, store.root, see, at_once=part.jobs)
        runner.running = {run.node.id: 1 for run in plan.runs}
        await runner.run()
    if not all(result.success for result in runner.results.values()):
        raise RuntimeError("not every Job succeeded")
    from seeknal_k8s.names import job_name  # noqa: PLC0415

    told = {job_name("r1", node, attempt=1): at for node, at in ended.items()}
    return {
        "seconds": time.monotonic() - began,
        **spent(before, part.jobs),
        "done": len(told),
        "wrong": 0,  # or this would have ended above
        "ended": told,
    }


async def bare(part: argparse.Namespace) -> dict[str, Any]:
    """Post the same manifests, and nothing else."""
    import aiohttp  # noqa: PLC0415

    from seeknal_k8s import manifest  # noqa: PLC0415
    from seeknal_k8s.backends import Attempt, Share  # noqa: PLC0415
    from tests.real_cluster import Admin  # noqa: PLC0415

    settings = settings_for(part)
    owner = manifest.Owner("r1", "many", "none", "0" * 8)
    bodies = []
    for run in many(part.jobs).runs:
        attempt = Attempt(run.node, 1, Path("/"), run.options, Share(0.0, 0))
        body = manifest.build(attempt, owner, settings, order="/none")
        del body["metadata"]["ownerReferences"]  # that owner does not exist
        bodies.append(json.dumps(body).encode())
    there = Admin(Path(part.kubeconfig)).upstream
    url = f"https://{there.host}:{there.port}/apis/batch/v1/namespaces/{part.namespace}/jobs"
    headers = {"Content-Type": "application/json", "User-Agent": AGENT}
    at_once, before = asyncio.Semaphore(AT_ONCE), cost()
    began = time.monotonic()
    async with aiohttp.ClientSession(headers=headers) as session:

        async def post(body: bytes) -> None:
            async with at_once, session.post(url, data=body, ssl=there.tls) as answer:
                await answer.read()
                answer.raise_for_status()

        await asyncio.gather(*(post(body) for body in bodies))
    return {"seconds": time.monotonic() - began, **spent(before, part.jobs)}


async def block(part: argparse.Namespace) -> dict[str, Any]:
    """Run the Jobs with Prefect's block, one block per Job, all at once."""
    import logging  # noqa: PLC0415

    from prefect_kubernetes.credentials import (  # noqa: PLC0415
        KubernetesClusterConfig,
        KubernetesCredentials,
    )
    from prefect_kubernetes.jobs import KubernetesJob  # noqa: PLC0415

    logging.disable(logging.CRITICAL)
    config = KubernetesClusterConfig.from_file(path=Path(part.kubeconfig))
    credentials = KubernetesCredentials(cluster_config=config)
    before, began = cost(), time.monotonic()

    async def one(number: int) -> bool:
        container = {"name": "node", "image": "localhost/none"}
        template = pod_template(part.seconds)
        template["spec"] |= {"restartPolicy": "Never", "containers": [container]}
        body = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": f"block-{number}"},
            "spec": {"backoffLimit": 0, "template": template},
        }
        job = KubernetesJob(v1_job=body, namespace=part.namespace, credentials=credentials)
        running = await job.trigger()
        try:
            await running.wait_for_completion()
        except RuntimeError:
            return False  # it takes the condition SuccessCriteriaMet for a failure
        return True

    done: list[bool] = []

    def figures() -> dict[str, Any]:
        return {
            "seconds": time.monotonic() - began,
            **spent(before, part.jobs),
            "done": len(done),
            "wrong": done.count(False),
        }

    def cut_off(*_: object) -> None:
        # It asks without a pause, so only a signal is sure to be heard.
        print(json.dumps(figures()), flush=True)
        os._exit(0)

    async def counted(number: int) -> None:
        done.append(await one(number))

    signal.signal(signal.SIGALRM, cut_off)
    signal.alarm(part.block_limit)
    await asyncio.gather(*(counted(number) for number in range(part.jobs)))
    signal.alarm(0)
    return figures()


def cost() -> float:
    """Return the CPU seconds of this process so far."""
    return time.process_time()


def spent(before: float, jobs: int) -> dict[str, float]:
    """Return the CPU per Job in milliseconds, and the largest resident set in MiB."""
    return {
        "cpu_ms": (time.process_time() - before) * 1000 / jobs,
        "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


PARTS = {"ours": ours, "bare": bare, "block": block}


# --- What the API server saw ----------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What one part asked of the API server, by its audit log."""

    requests: int
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
    terminal: dict[str, float] = {}
    for request in asked:
        if request.resource == "jobs/status" and request.verb in {"update", "patch"}:
            terminal[request.name] = moment(request.received)
    late = [at - terminal[name] for name, at in ended.items() if name in terminal]
    return Seen(
        requests=len(mine),
        watching=len(others) / max(span, 1.0),
        creates=(len(creates) - 1) / max(creates[-1] - creates[0], 0.001),
        late=late,
    )


def measure(
    name: str, jobs: int, given: argparse.Namespace, *, agent: str, namespace: Namespace
) -> dict[str, Any]:
    """Run one part in a process of its own, and return its figures."""
    kubeconfig = namespace.cluster.kubeconfig
    with tempfile.TemporaryDirectory(dir="/var/tmp") as store:
        told = subprocess.run(
            [
                *(sys.executable, str(HERE), "--part", name, "--jobs", str(jobs)),
                *("--seconds", str(given.seconds), "--namespace", namespace.name),
                *("--block-limit", str(given.block_limit)),
                *("--kubeconfig", str(kubeconfig), "--store", f"{store}/store"),
            ],
            env={
                **os.environ,
                "KUBECONFIG": str(kubeconfig),
                "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
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
        "Jobs": lambda f: f"{f['jobs']}",
        "whole run, s": lambda f: f"{f['seconds']:.1f}",
        "Jobs created per second": lambda f: (
            f"{f['seen'].creates:.0f}"
            if f["jobs"] > AT_ONCE
            else "-"  # of one burst it says nothing
        ),
        "requests per Job": lambda f: f"{f['seen'].requests / f['jobs']:.3f}",
        "requests per second that are no creates": lambda f: f"{f['seen'].watching:.2f}",
        "CPU per Job, ms": lambda f: f"{f['cpu_ms']:.1f}",
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
    parser.add_argument("--block-jobs", type=int, default=10)
    parser.add_argument("--block-limit", type=int, default=90, help="seconds for the block")
    parser.add_argument("--seconds", type=int, default=20, help="how long a pod lasts")
    parser.add_argument("--write", action="store_true")
    for hidden in ("--part", "--namespace", "--kubeconfig", "--store"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(asyncio.run(PARTS[given.part](given))))
        return
    sys.path.insert(0, str(HERE.parent))
    from decode import sentence  # noqa: PLC0415
    from page import machine, put  # noqa: PLC0415

    from tests.cluster import harness  # noqa: PLC0415
    from tests.on_kubernetes import bind  # noqa: PLC0415

    if lacks := harness.missing():
        raise SystemExit(f"this needs {'; '.join(lacks)}")
    nodes = max(1, -(-given.jobs // PODS_PER_NODE))
    figures = {}
    for title, name, jobs, agent in (
        ("bare loop", "bare", given.jobs, AGENT),
        ("seeknal-k8s", "ours", given.jobs, "seeknal-k8s/"),
        ("KubernetesJob block", "block", given.block_jobs, "OpenAPI-Generator"),
    ):
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
