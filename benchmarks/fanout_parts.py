"""The ways to run many Jobs that ``fanout.py`` compares, each in a process of its own.

Each prints its figures as one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect_kubernetes.credentials import KubernetesCredentials

    from seeknal_k8s.attempt import AttemptSpec
    from seeknal_k8s.events import Event
    from seeknal_k8s.options import Resolved
    from seeknal_k8s.plan import Plan
    from seeknal_k8s.settings import Settings

POOL = "bench"
NO_KUBELET = 500
"""The answer to who asks for the log of a pod that has ended: nothing ran in it."""
AGENT = "fanout-bench"
AT_ONCE = 50
"""Requests at the same time, of those who do not pace themselves."""


def pod_template(seconds: int) -> dict[str, Any]:
    """Return what sends a pod to kwok's nodes, where it ends after so many seconds."""
    return {
        "metadata": {"annotations": {"fake/duration": f"{seconds}s"}},
        "spec": {
            "nodeSelector": {"type": "kwok"},
            "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
        },
    }


def admitted(template: dict[str, Any]) -> dict[str, Any]:
    """Return a peer's pod template, with what Pod Security *restricted* asks of a pod besides."""
    pod, (container,) = template["spec"], template["spec"]["containers"]
    pod["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    return template


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
        **spent(before),
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
    return {"seconds": time.monotonic() - began, **spent(before)}


async def block(part: argparse.Namespace) -> dict[str, Any]:
    """Run the Jobs with Prefect's block, one block per Job, all at once."""
    import logging  # noqa: PLC0415

    from prefect_kubernetes.credentials import (  # noqa: PLC0415
        KubernetesClusterConfig,
        KubernetesCredentials,
    )

    logging.disable(logging.CRITICAL)
    config = KubernetesClusterConfig.from_file(path=Path(part.kubeconfig))
    credentials = KubernetesCredentials(cluster_config=config)
    before, began = cost(), time.monotonic()
    ended: dict[str, float] = {}
    wrong: list[str] = []

    async def one(number: int) -> None:
        name = f"block-{number}"
        if not await ended_well(name, part, credentials):
            wrong.append(name)
        ended[name] = time.time()

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(part.limit):
            await asyncio.gather(*(one(number) for number in range(part.jobs)))
    return {
        "seconds": time.monotonic() - began,
        **spent(before),
        "done": len(ended),
        "wrong": len(wrong),
        "ended": ended,
    }


async def ended_well(
    name: str, part: argparse.Namespace, credentials: KubernetesCredentials
) -> bool:
    """Run one Job with Prefect's block; return what it says of it."""
    from kubernetes_asyncio.client import ApiException  # noqa: PLC0415
    from prefect_kubernetes.jobs import KubernetesJob  # noqa: PLC0415

    template = pod_template(part.seconds)
    container = {"name": "node", "image": "localhost/none"}
    template["spec"] |= {"restartPolicy": "Never", "containers": [container]}
    body = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": admitted(template)},
    }
    job = KubernetesJob(v1_job=body, namespace=part.namespace, credentials=credentials)
    running = await job.trigger()
    try:
        await running.wait_for_completion()
    except RuntimeError:
        return False
    except ApiException as error:
        if error.status != NO_KUBELET:
            raise
    return True


async def worker(part: argparse.Namespace) -> dict[str, Any]:
    """Let a Prefect worker start one flow run per Job, until its observer has told of all their ends.

    A flow in a pod would tell Prefect of itself; here nothing runs in them.
    """
    from prefect.client.orchestration import get_client  # noqa: PLC0415
    from prefect_kubernetes import KubernetesWorker  # noqa: PLC0415

    async with get_client() as client:
        deployment = await deployed(client, part)
        before, began = cost(), time.monotonic()
        at_once = asyncio.Semaphore(AT_ONCE)

        async def ask() -> None:
            async with at_once:
                await client.create_flow_run_from_deployment(deployment)

        await asyncio.gather(*(ask() for _ in range(part.jobs)))
        working = asyncio.create_task(KubernetesWorker(work_pool_name=POOL).start())
        ended: dict[str, float] = {}
        while len(ended) < part.jobs and time.monotonic() - began < part.limit:
            await asyncio.sleep(2)
            ended = await ends(client)
        took, spending = time.monotonic() - began, spent(before)
        working.cancel()
        await asyncio.wait([working])
    return {"seconds": took, **spending, "done": len(ended), "wrong": 0, "ended": ended}


async def deployed(client: PrefectClient, part: argparse.Namespace) -> UUID:
    """Make a pool whose pods go to kwok's nodes, and a deployment for it."""
    from prefect.client.schemas.actions import WorkPoolCreate  # noqa: PLC0415
    from prefect_kubernetes import KubernetesWorker  # noqa: PLC0415

    template = KubernetesWorker.get_default_base_job_template()
    pod = template["job_configuration"]["job_manifest"]["spec"]["template"]
    ours = pod_template(part.seconds)
    pod["metadata"] = {**pod.get("metadata", {}), **ours["metadata"]}
    pod["spec"].update(ours["spec"])
    admitted(pod)
    pool = WorkPoolCreate(name=POOL, type="kubernetes", base_job_template=template)
    await client.create_work_pool(pool)
    flow = await client.create_flow_from_name("node")
    return await client.create_deployment(
        flow,
        "node",
        work_pool_name=POOL,
        path="/",
        entrypoint="none.py:node",
        job_variables={"namespace": part.namespace, "image": "localhost/none"},
    )


async def ends(client: PrefectClient) -> dict[str, float]:
    """Return when the server was told of the end of each Job's pod, by the pod's name."""
    from prefect.events.filters import EventFilter, EventNameFilter  # noqa: PLC0415

    wanted = EventFilter(event=EventNameFilter(name=["prefect.kubernetes.pod.succeeded"]))
    page = await client.read_events(wanted, limit=50)
    found = {}
    while True:
        for event in page.events:
            found[event.resource.name or ""] = event.received.timestamp()
        if page.next_page is None:
            return found
        page = await client.read_events_page(page.next_page)


def cost() -> float:
    """Return the CPU seconds of this process so far."""
    return time.process_time()


def spent(before: float) -> dict[str, float]:
    """Return the CPU seconds since then, and the largest resident set in MiB."""
    return {
        "cpu": cost() - before,
        "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


PARTS = {"bare": bare, "ours": ours, "block": block, "worker": worker}


def main() -> None:
    """Run one part and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    for number in ("--jobs", "--seconds", "--limit"):
        parser.add_argument(number, type=int)
    for word in ("--namespace", "--kubeconfig", "--store"):
        parser.add_argument(word)
    given = parser.parse_args()
    print(json.dumps(asyncio.run(PARTS[given.part](given))))


if __name__ == "__main__":
    main()
