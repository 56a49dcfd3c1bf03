"""Projects whose nodes run as Jobs: a volume that this machine and the pods share, and a run on it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import uuid
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pytest

from seeknal_k8s import coordinator
from seeknal_k8s.coordinator import RunRequest
from seeknal_k8s.errors import Interrupted
from seeknal_k8s.events import RunStarted
from seeknal_k8s.settings import PREFIX, load
from tests.cluster.harness import until
from tests.faithful import environment
from tests.small import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from seeknal_k8s.events import Event
    from seeknal_k8s.results import PrefectRunResult, RunResults
    from tests.cluster.harness import Namespace

CLAIM = "store"
NO_REQUESTS = {"containers": [{"name": "node", "resources": {"requests": {"cpu": 0, "memory": 0}}}]}
"""A patch to pods that lets any number of them run, whatever else the machine has promised."""

LONG = 240.0
"""Seconds to wait for what many pods on two cores do at once."""

_Event = TypeVar("_Event")


@dataclass(frozen=True)
class Volume:
    """A store that the pods of a namespace mount where this machine has it: below ``path``."""

    path: Path
    namespace: Namespace
    image: str

    @property
    def marks(self) -> Path:
        """A folder in which nodes and tests leave files for each other."""
        return self.path / "marks"

    def environment(self, **settings: str) -> dict[str, str]:
        """Return the environment of a coordinator outside of the cluster, with these settings.

        Nodes request nothing: what other tests run at the same time could keep them waiting.
        """
        given = {
            "namespace": self.namespace.name,
            "image": self.image,
            "store_claim": CLAIM,
            "store_path": str(self.path),
            "project_path": str(self.path / "project"),
            "node_pod_template": json.dumps({"spec": NO_REQUESTS}),
            **settings,
        }
        ours = {f"{PREFIX}{name.upper()}": value for name, value in given.items()}
        kubeconfig = {"KUBECONFIG": str(self.namespace.cluster.kubeconfig)}
        return {**environment(self.path / "home"), **kubeconfig, **ours}

    def jobs(self, node_id: str = "") -> list[dict[str, Any]]:
        """Return the Jobs that are there, of one node or of all."""
        labels = f"seeknal.io/node={node_id}" if node_id else "seeknal.io/run"
        return list(self.namespace.get("jobs", "-l", labels)["items"])

    def pods(self, node_id: str = "") -> list[dict[str, Any]]:
        """Return the pods that are there, of one node or of all."""
        labels = f"seeknal.io/node={node_id}" if node_id else "seeknal.io/run"
        return list(self.namespace.get("pods", "-l", labels)["items"])

    def pod(self, node_id: str) -> str:
        """Return the name of a node's one pod."""
        (pod,) = self.pods(node_id)
        return str(pod["metadata"]["name"])

    def job(self, node_id: str) -> str:
        """Return the name of a node's one Job."""
        (job,) = self.jobs(node_id)
        return str(job["metadata"]["name"])

    def created(self) -> Counter[str]:
        """Return how often each Job was created, as the API server's audit log has it."""
        return Counter(self._made("create jobs"))

    def begun(self, prefix: str = "") -> Counter[str]:
        """Return how often a pod of each Job, or index, was given to a machine, by the same log."""
        bound = self._made("create pods/binding")
        return Counter(name.rpartition("-")[0] for name in bound if name.startswith(prefix))

    def _made(self, call: str) -> list[str]:
        """Return the name in each request of this kind that has made something."""
        requests = self.namespace.requests()
        return [r.name for r in requests if r.call == call and r.code == HTTPStatus.CREATED]

    def wait_for_mark(self, name: str) -> None:
        """Wait until a node has left this file."""
        until((self.marks / name).exists, f"the mark of {name}", seconds=LONG)

    def mark(self, name: str) -> None:
        """Leave a file for a node that waits for it."""
        (self.marks / name).touch()

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        """Start a run of the project, as a process of its own."""
        command = ("run", str(self.path / "project"), "--on", "kubernetes", *arguments)
        return self.begin(*command, **settings)

    def begin(self, *command: str, **settings: str) -> subprocess.Popen[str]:
        """Start the program, as a process of its own."""
        return subprocess.Popen(
            [*PROGRAM, *command],
            env=self.environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            umask=0,
        )

    def run(self, *, settings: dict[str, str] | None = None, **request: Any) -> Running:
        """Run the project in a thread, which is over when the ``with`` block is."""
        return Running(self, settings or {}, request)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a coordinator as a power cut does, and see that it is gone."""
    process.kill()
    process.communicate()


@contextlib.contextmanager
def volume(namespace: Namespace, image: str) -> Iterator[Volume]:
    """Give an empty volume in a namespace, and remove it in the end."""
    if namespace.cluster.audit is None:
        pytest.skip("only our own cluster has this machine's folders as volumes")
    # Not below /tmp, which pods have one of their own of.
    path = Path(tempfile.mkdtemp(prefix="seeknal-k8s-", dir="/var/tmp"))
    ours = Volume(path, namespace, image)
    ours.marks.mkdir()
    for folder in (path, ours.marks):
        folder.chmod(0o777)  # root writes here, and so does user 10001
    try:
        with claim(namespace, path):
            yield ours
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def claim(namespace: Namespace, path: Path) -> Iterator[None]:
    """Give the namespace the claim of a volume that is a folder of the machine."""
    name = bind(namespace, path)
    try:
        yield
    finally:
        namespace.kubectl("delete", "job,pod", "--all", "--wait=false")
        namespace.kubectl("delete", "pvc", CLAIM, "--ignore-not-found", "--wait=false")
        namespace.cluster.kubectl("delete", "pv", name, "--ignore-not-found", "--wait=false")


def bind(namespace: Namespace, path: Path) -> str:
    """Make that volume and its claim; return the volume's name."""
    name = f"seeknal-k8s-{uuid.uuid4().hex[:10]}"
    size = {"storage": "1Gi"}
    modes = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                **modes,
                "capacity": size,
                "hostPath": {"path": str(path), "type": "Directory"},
                "claimRef": {"namespace": namespace.name, "name": CLAIM},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM},
            "spec": {**modes, "resources": {"requests": size}, "volumeName": name},
        },
    )
    return name


@dataclass
class Running:
    """A run in a thread: what it has told so far and, when the block is over, its results."""

    volume: Volume
    settings: dict[str, str]
    request: dict[str, Any]
    events: list[Event] = field(default_factory=list)
    _results: RunResults | None = None
    _error: BaseException | None = None

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        patch = self._stack.enter_context(pytest.MonkeyPatch.context())
        wanted = self.volume.environment(**self.settings)
        for name in os.environ.keys() - wanted.keys():
            patch.delenv(name)
        for name, value in wanted.items():
            patch.setenv(name, value)
        self._stack.callback(os.umask, os.umask(0))
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._run())
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._wait()])
        self._thread.start()
        return self

    async def _run(self) -> None:
        asked = RunRequest(
            project=self.volume.path / "project", on="kubernetes", settings=load(), **self.request
        )
        self._results = await coordinator.run(asked, self.events.append)

    async def _wait(self) -> None:
        try:
            await self._task
        except BaseException as error:  # noqa: BLE001 - of another thread; raised at the block's end
            self._error = error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()
        self._loop.close()
        self._stack.close()
        if self._error is not None and not isinstance(self._error, Interrupted):
            raise self._error
        if error is not None:  # shown where pytest shows why the test failed
            told = [event for event in self.events if not isinstance(event, RunStarted)]
            print(*told, sep="\n")  # noqa: T201

    @property
    def results(self) -> RunResults:
        """The results of a run that is over."""
        assert self._results is not None
        return self._results

    def __getitem__(self, node_id: str) -> PrefectRunResult:
        return self.results[node_id]

    def told(self, kind: type[_Event], node_id: str) -> list[_Event]:
        """Return the events of one kind about one node, in order."""
        return [e for e in self.events if isinstance(e, kind) and getattr(e, "node", "") == node_id]


def evict(namespace: Namespace, pod: str) -> None:
    """Ask the API server to evict a pod, as ``kubectl drain`` does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    path = f"/api/v1/namespaces/{namespace.name}/pods/{pod}/eviction"
    namespace.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))
