"""Who we are and where the API server is: kubeconfig, context, exec plugins, service account."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from seeknal_k8s.errors import NoCluster
from seeknal_k8s.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_DEFAULT = "default"


async def sign_in(kubeconfig: str | None, context: str | None) -> tuple[ApiClient, str]:
    """Return a client with fresh credentials, and the namespace it is at home in.

    ``kubeconfig`` is a path or several; None is what ``KUBECONFIG`` says now, or
    ``~/.kube/config``. Where there is no such file, a pod's service account is used.

    Raises:
        NoCluster: there is neither, or it cannot be used.
    """
    paths = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    configuration = Configuration()
    if _exists(paths):
        namespace = await _from_kubeconfig(configuration, paths, context)
    elif kubeconfig is None and context is None:
        namespace = _from_pod(configuration, paths)
    else:
        raise NoCluster(
            f"There is no kubeconfig at {paths}.\n  → set KUBECONFIG to the path of one"
        )
    # Certificates of clusters older than Python's strict mode (on by default since 3.13) lack
    # fields it asks for; kubectl takes them too. Chain and host name are verified as ever.
    configuration.disable_strict_ssl_verification = True
    configuration.connection_pool_maxsize = 0  # no limit: streams would use up what calls need
    # Left to itself, aiohttp sends a thread for the environment's proxy and one for ~/.netrc before
    # each request: a third of what a create costs us.
    configuration.client_session_kwargs = {"trust_env": False}
    configuration.proxy = configuration.proxy or _proxy(configuration.host)
    client = _usable(lambda: ApiClient(configuration), paths)
    client.user_agent = f"seeknal-k8s/{__version__}"  # by which an audit log knows us
    return client, namespace


def _proxy(server: str) -> str | None:
    """Return the environment's proxy for this server, if it wants one to be used."""
    url = urlsplit(server)
    return None if proxy_bypass(url.netloc) else getproxies().get(url.scheme)


def _exists(paths: str) -> bool:
    return any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep) if path)


async def _from_kubeconfig(configuration: Configuration, paths: str, context: str | None) -> str:
    try:
        loader = await config.load_kube_config(  # type: ignore[no-untyped-call]
            paths, context, configuration, persist_config=False
        )
        return str(loader.current_context["context"].get("namespace") or _DEFAULT)
    except Exception as error:  # the library reads the file as it goes and fails as Python does
        raise _unusable(paths, error) from error


def _from_pod(configuration: Configuration, paths: str) -> str:
    try:
        # Reads the token again every minute, as the kubelet renews it.
        config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        return _NAMESPACE.read_text(encoding="ascii").strip() or _DEFAULT
    except (config.ConfigException, OSError) as error:
        raise NoCluster(
            f"There is no kubeconfig at {paths}, and this is no pod with a service account: {error}"
            "\n  → set KUBECONFIG to the path of one"
        ) from error


def _usable(make: Callable[[], Any], paths: str) -> Any:
    try:
        return make()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError: a broken certificate
        raise _unusable(paths, error) from error


def _unusable(paths: str, error: Exception) -> NoCluster:
    return NoCluster(
        f"The kubeconfig {paths} cannot be used: {error}"
        "\n  → see what kubectl makes of it: kubectl config get-contexts"
    )
