"""What all tests share: the cluster, for those that ask for one."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests import prefect_server
from tests.cluster import harness

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.cluster.harness import Cluster, Namespace
    from tests.prefect_server import PrefectServer

SLOW = 1500
"""Seconds for a test on the cluster: the first one waits until cluster and image are made."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cluster", "where tests that need a Kubernetes find one")
    group.addoption("--kubeconfig", metavar="FILE", help="use this cluster, not one of our own")
    group.addoption("--kube-context", metavar="NAME", help="use the cluster of this context")
    group.addoption("--image", metavar="NAME", help="an image that this cluster has already")


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background job ignores Ctrl-C, and would hand that on to every program under test.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "cluster: needs a Kubernetes; given to whoever asks for one")
    config.addinivalue_line("markers", "last(n): at the end of its file, the n-th of those")


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before `-m cluster` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    for item in items:
        if {"cluster", "control_plane", "helm"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("cluster")
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(SLOW))
    yield
    _put_last(items)


def _put_last(items: list[pytest.Item]) -> None:
    """Move what is marked ``last`` to the end of its file, whatever the order of the others is."""
    marked = [(mark.args, item) for item in items if (mark := item.get_closest_marker("last"))]
    for _, item in sorted(marked, key=lambda one: one[0]):
        items.remove(item)
        same = [at for at, other in enumerate(items) if other.path == item.path]
        items.insert(same[-1] + 1 if same else len(items), item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failed test what its namespace was like, before that is gone."""
    report = yield
    namespace = getattr(item, "funcargs", {}).get("namespace")
    if isinstance(namespace, harness.Namespace) and report.when != "teardown" and report.failed:
        report.sections.append(("its namespace", namespace.described()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured, that is, ``record_property("measured", …)``."""
    reports = [
        report
        for found in terminalreporter.stats.values()
        for report in found
        if isinstance(report, pytest.TestReport) and report.when == "call"
    ]
    for report in reports:
        for key, value in report.user_properties:
            if key == "measured":
                terminalreporter.write_line(f"measured: {value}")


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Return a cluster that answers: the one asked for, or our own, which stays up."""
    kubeconfig, context = (pytestconfig.getoption(name) for name in ("kubeconfig", "kube_context"))
    if kubeconfig or context:
        folder = tmp_path_factory.mktemp("cluster")
        return harness.other(folder, kubeconfig=kubeconfig, context=context)
    if lacks := harness.missing():
        _not_here(f"no cluster: this needs {'; '.join(lacks)}")
    return harness.own()


def _not_here(reason: str) -> NoReturn:
    """Skip a test that cannot run here, but not where nobody would notice."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def helm() -> Path:
    """Return the helm that comes with the tests' own cluster."""
    if not harness.HELM.exists():
        _not_here(f"{harness.HELM} is missing: make cluster-build")
    return harness.HELM


@pytest.fixture(scope="module")
def control_plane() -> Iterator[harness.ControlPlane]:
    """Give a cluster without a kubelet that tests may harm: nobody else uses it."""
    if lacks := harness.missing():
        _not_here(f"no control plane: this needs {'; '.join(lacks)}")
    with tempfile.TemporaryDirectory(prefix="sk8s-", dir="/var/tmp") as folder:
        plane = harness.ControlPlane(Path(folder), harness.free_ports(5), kwok=4)
        plane.up()
        try:
            yield plane
        finally:
            plane.down()


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """Make a namespace for one test, named after it."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    with cluster.namespace(name) as made:
        yield made


@pytest.fixture
def audited(namespace: Namespace) -> Namespace:
    """Return the test's namespace, where the API server's audit log can be read."""
    if namespace.cluster.audit is None:
        pytest.skip("only our own cluster's audit log can be read")
    return namespace


@pytest.fixture(scope="session")
def image(cluster: Cluster, pytestconfig: pytest.Config) -> str:
    """Return the name of an image that the cluster can run, with the example as its project."""
    given = pytestconfig.getoption("image")
    if given:
        return str(given)
    if cluster.audit is None:
        pytest.skip("--image has to say which image this cluster has")
    return harness.build_image()


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """Give a Prefect server, which all tests of a process share."""
    with prefect_server.running(tmp_path_factory.mktemp("prefect")) as server:
        yield server
