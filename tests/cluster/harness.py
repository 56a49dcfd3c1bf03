"""A real Kubernetes for the tests: one of our own, made by the programs beside this file, or any other."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.audit import AuditLog, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
PROJECT = "examples/shop"
"""The project in the image that the tests run."""

PATIENCE = 60.0
"""Seconds to wait for what a quiet cluster does in one to five."""

NEEDED = ("kube-apiserver", "kubelet", "coredns", "buildkitd")
"""One program of each component of ``build`` that the tests need."""

RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/warn": "restricted",
}


def root() -> Path:
    """Return where our cluster is kept, as ``env.sh`` finds it."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CLUSTER_ROOT") or Path(cache) / "seeknal-k8s-cluster")


HELM = root() / "bin" / "helm"


def missing() -> list[str]:
    """Return what this machine lacks to run a cluster of our own; empty if nothing."""
    lacks = []
    if os.geteuid() != 0:
        lacks.append("root, for containers and their network")
    if unbuilt := [name for name in NEEDED if not (root() / "bin" / name).exists()]:
        lacks.append(f"{', '.join(unbuilt)}, which `make cluster-build` compiles")
    if tools := [name for name in ("containerd", "runc", "iptables") if not shutil.which(name)]:
        lacks.append(f"{', '.join(tools)}, which `make cluster-build` installs")
    return lacks


def until(condition: Callable[[], Any], what: str, *, seconds: float = PATIENCE) -> Any:
    """Repeat ``condition`` until it returns something true; return that."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.1)
    return value


def program(name: str, *arguments: str | Path, **env: str) -> str:
    """Run one of the programs beside this file, one at a time on this machine; return its output."""
    root().mkdir(parents=True, exist_ok=True)
    with (root() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _output([str(HERE / name), *map(str, arguments)], env={**os.environ, **env})


def _output(command: list[str], *, env: dict[str, str], stdin: str = "") -> str:
    done = subprocess.run(
        command, env=env, input=stdin, capture_output=True, text=True, check=False, timeout=1500
    )
    if done.returncode != 0:
        raise CommandFailed(command, done.stdout, done.stderr)
    return done.stdout


class CommandFailed(AssertionError):
    """A program has ended with an error; what it said is the message."""

    def __init__(self, command: list[str], stdout: str, stderr: str) -> None:
        super().__init__(f"{' '.join(command)}\n{stdout[-2000:]}{stderr[-4000:]}")
        self.stderr = stderr


@dataclass(frozen=True)
class Cluster:
    """A cluster that answers. ``audit`` is the API server's log, where that is ours to read."""

    kubeconfig: Path
    kubectl_program: str
    audit: AuditLog | None = None

    @property
    def env(self) -> dict[str, str]:
        """Return an environment in which kubectl, and every client, talks to this cluster."""
        path = f"{Path(self.kubectl_program).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl; return its output.

        Raises:
            CommandFailed: with what it said.
        """
        return _output([self.kubectl_program, *arguments], env=self.env, stdin=stdin)

    @contextlib.contextmanager
    def namespace(self, name: str = "test") -> Iterator[Namespace]:
        """Make a namespace that enforces Pod Security *restricted*; delete it in the end.

        Its name is a new one each time: for 30 s after a namespace has been deleted, every write
        to the next one of that name costs the API server a read more.
        """
        unique = f"{name[:40].strip('-')}-{uuid.uuid4().hex[:8]}"
        made = {"apiVersion": "v1", "kind": "Namespace"}
        metadata = {"name": unique, "labels": RESTRICTED}
        self.kubectl("create", "-f", "-", stdin=json.dumps({**made, "metadata": metadata}))
        try:
            namespace = Namespace(unique, self)
            until(namespace.is_ready, f"the service account of namespace {unique}")
            yield Namespace(unique, self, self.audit.mark() if self.audit else 0)
        finally:
            self.kubectl("delete", "namespace", unique, "--wait=false")


@dataclass(frozen=True)
class Namespace:
    """A namespace of one test; ``mark`` is where its part of the audit log begins."""

    name: str
    cluster: Cluster
    mark: int = 0

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl in this namespace; return its output."""
        return self.cluster.kubectl("--namespace", self.name, *arguments, stdin=stdin)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create or change objects."""
        listed = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    def get(self, *arguments: str) -> Any:
        """Return an object, or a list of them."""
        return json.loads(self.kubectl("get", *arguments, "--output", "json"))

    def described(self) -> str:
        """Return its Jobs, pods and events, for a person who asks why a test has failed."""
        try:
            soon = "--request-timeout=10s"
            events = self.kubectl("events", "--types", "Warning", soon)
            return f"{self.kubectl('get', 'jobs,pods', '--output', 'wide', soon)}\n{events}"
        except (CommandFailed, subprocess.TimeoutExpired) as error:
            return str(error)

    def is_ready(self) -> bool:
        """Whether pods can be created: they need the service account that a controller makes."""
        with contextlib.suppress(CommandFailed):
            return bool(self.get("serviceaccount", "default"))
        return False

    def ended(self, job: str, *, seconds: float = PATIENCE) -> str:
        """Wait for a Job to end; return how, as in ``Complete`` or ``Failed``."""

        def how() -> str | None:
            status = self.get("job", job).get("status", {})
            types = {c["type"] for c in status.get("conditions", []) if c["status"] == "True"}
            return next(iter(types & {"Complete", "Failed"}), None)

        return str(until(how, f"the end of Job {job}", seconds=seconds))

    def requests(self, *, agent: str = "") -> list[Request]:
        """Return what was asked of the API server here, by user agents that begin with ``agent``."""
        assert self.cluster.audit, "this cluster's audit log is not ours to read"
        found = self.cluster.audit.since(self.mark, namespace=self.name)
        return [request for request in found if request.agent.startswith(agent)]


def own() -> Cluster:
    """Start our cluster, or what of it does not run, and return it."""
    program("up")
    return _cluster(root())


@dataclass(frozen=True)
class ControlPlane:
    """A cluster of a test's own without a kubelet, whose parts may be killed; its nodes are kwok's."""

    folder: Path
    port: int
    kwok: int

    @property
    def env(self) -> dict[str, str]:
        """Return what the programs beside this file need to know of it."""
        return {
            "CLUSTER_BIN": str(root() / "bin"),
            "CLUSTER_PORT": str(self.port),
            "CLUSTER_ROOT": str(self.folder),
        }

    def up(self) -> Cluster:
        """Start it, or what of it does not run."""
        program("up", "--control-plane-only", "--kwok", str(self.kwok), **self.env)
        return _cluster(self.folder)

    def down(self) -> None:
        """End it, and forget its state."""
        program("down", **self.env)

    def kill(self, name: str) -> None:
        """Kill one of its processes; ``up`` starts it again."""
        pid = int((self.folder / "run" / f"{name}.pid").read_text(encoding="ascii"))
        os.kill(pid, signal.SIGKILL)

    def compact(self) -> None:
        """Have etcd forget all versions of all objects but the last."""
        now = self._etcd("/v3/kv/range", {"key": base64.b64encode(b"/").decode()})
        self._etcd("/v3/kv/compaction", {"revision": now["header"]["revision"], "physical": True})

    def _etcd(self, path: str, body: dict[str, Any]) -> Any:
        link = http.client.HTTPConnection("127.0.0.1", self.port + 1, timeout=30)
        with contextlib.closing(link):
            link.request("POST", path, json.dumps(body))
            return json.load(link.getresponse())


def free_ports(count: int) -> int:
    """Return the first of so many ports in a row that nobody uses."""
    for first in range(16443, 60000, 10):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise RuntimeError(f"there are no {count} free ports in a row")


def _cluster(folder: Path) -> Cluster:
    kubectl = root() / "bin" / "kubectl"
    plain = Cluster(folder / "kubeconfig", str(kubectl))
    audit = AuditLog(
        folder / "audit.log",
        lambda text: plain.kubectl("get", "--raw", f"/version?{text}"),
    )
    return Cluster(plain.kubeconfig, str(kubectl), audit)


def other(folder: Path, *, kubeconfig: str | None, context: str | None) -> Cluster:
    """Return somebody else's cluster, its kubeconfig reduced to the one context."""
    kubectl = shutil.which("kubectl") or str(root() / "bin" / "kubectl")
    command = [kubectl, "config", "view", "--raw", "--minify", "--flatten"]
    command += ["--kubeconfig", kubeconfig] if kubeconfig else []
    command += ["--context", context] if context else []
    file = folder / "kubeconfig"
    file.touch(mode=0o600)
    file.write_text(_output(command, env=dict(os.environ)), encoding="utf-8")
    return Cluster(file, kubectl)


def sources(repository: Path = REPOSITORY) -> list[Path]:
    """Return the files that make the image, in order."""
    single = ("Dockerfile", ".dockerignore", "pyproject.toml", "uv.lock", "README.md", "LICENSE")
    left_behind = {"__pycache__", "target", ".seeknal-k8s", "exports"}
    found = [repository / name for name in single]
    for folder in ("seeknal_k8s", PROJECT):
        files = [path for path in (repository / folder).rglob("*") if path.is_file()]
        found += [f for f in files if not left_behind & set(f.relative_to(repository).parts)]
    return sorted(found)


def build_image(repository: Path = REPOSITORY) -> str:
    """Build the image with the example in it, unless there is one of this content; return its name."""
    content = sha256()
    for file in sources(repository):
        content.update(f"{file.relative_to(repository)}\0".encode())
        content.update(sha256(file.read_bytes()).digest())
    tag = f"localhost/seeknal-k8s:{content.hexdigest()[:16]}"
    with contextlib.suppress(CommandFailed):
        layers(tag)
        return tag
    program("image", tag, repository, "--opt", f"build-arg:PROJECT={PROJECT}")
    return tag


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of an image."""

    size: int
    digest: str


def layers(tag: str) -> list[Layer]:
    """Return the layers of an image of our cluster, the base first."""
    lines = [line.split() for line in program("layers", tag).splitlines()]
    return [Layer(int(size), digest) for size, digest in lines]
