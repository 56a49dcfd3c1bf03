"""The checks that ask Prefect: the API, the work pool, its worker, the flow."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING

from seeknal_k8s.doctor.findings import Finding, Judgement, bad, from_error, good, unknown
from seeknal_k8s.errors import PrefectRefused, SeeknalK8sError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from seeknal_k8s.deployments.health import Api, WorkerSeen
    from seeknal_k8s.settings import Settings

GROUP = "prefect"


def _unused() -> Judgement | None:
    """Return why nothing is asked of Prefect, None if it is used here."""
    if find_spec("prefect") is None or find_spec("prefect_kubernetes") is None:
        return unknown("Prefect is not installed", "pip install 'seeknal-k8s[prefect]'")
    from seeknal_k8s.deployments.api import api_url  # noqa: PLC0415 - Prefect need not be there

    try:
        api_url()
    except PrefectRefused as error:
        said = from_error(error)
        return unknown(said.reason, said.fix)
    return None


async def examine(settings: Settings) -> list[Finding]:
    """Return what there is to say about Prefect and our pool in it."""
    if why := _unused():
        return [why.of(GROUP, "API")]
    from seeknal_k8s.deployments import health  # noqa: PLC0415 - as above

    try:
        found = [versions(await health.api()).of(GROUP, "API")]
    except SeeknalK8sError as error:
        return [from_error(error).of(GROUP, "API")]
    return [
        *found,
        (await _asked(lambda: _pool(settings))).of(GROUP, "work pool"),
        (await _asked(lambda: _workers(settings.work_pool))).of(GROUP, "worker"),
        flow().of(GROUP, "flow"),
    ]


def versions(api: Api) -> Judgement:
    """Judge whether this Prefect can speak to that server."""
    ours, theirs = _numbers(api.client), _numbers(api.server)
    told = f"{api.url} is Prefect {api.server}, and this machine has {api.client}"
    if not ours or not theirs:
        return unknown(told)
    if ours[0] != theirs[0] or theirs < ours:
        return bad(
            f"{told}: a server has to be as new as its clients",
            f"upgrade the server, or here: pip install 'prefect~={'.'.join(map(str, theirs))}.0'",
        )
    return good(told)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else ()


async def _asked(check: Callable[[], Awaitable[Judgement]]) -> Judgement:
    try:
        return await check()
    except SeeknalK8sError as error:
        return from_error(error)


async def _pool(settings: Settings) -> Judgement:
    from seeknal_k8s.deployments import pool, template  # noqa: PLC0415 - they take 4 s

    name = settings.work_pool
    wanted = template.build(settings, name)
    state = await pool.look(name, wanted)
    apply = f"seeknal-k8s pool apply --pool {name}"
    if not state.there:
        return bad(f"there is no work pool {name}", apply)
    if template.sizes_apart(state.template, wanted):
        return good(f"{name} has our template, with sizes of its own")
    if state.edited:
        return bad(
            f"{name}: its template was changed by hand", f"{apply} --check; {apply} --overwrite"
        )
    if state.drift:
        return bad(
            f"{name}: its template is not that of these settings", f"{apply} --check; {apply}"
        )
    return good(f"{name} has our template")


async def _workers(pool: str) -> Judgement:
    from seeknal_k8s.deployments import health  # noqa: PLC0415 - as above

    return at_work(pool, await health.workers(pool))


def at_work(pool: str, found: Sequence[WorkerSeen]) -> Judgement:
    """Judge whether somebody takes the pool's runs."""
    online = [one.name for one in found if one.online]
    if online:
        return good(f"{', '.join(online)} takes runs of {pool}")
    fix = f"kubectl get pods -l app.kubernetes.io/component=worker; or: prefect worker start --pool {pool}"
    if found:
        last = max((one.last for one in found if one.last), default=None)
        since = f", the last was heard of at {last:%Y-%m-%d %H:%M:%S %Z}" if last else ""
        return bad(f"no worker of {pool} is online{since}: runs stay Late", fix)
    return bad(f"{pool} has never had a worker: runs stay Late", fix)


def flow() -> Judgement:
    """Judge whether a worker's pod of this version can load the flow."""
    from seeknal_k8s.deployments import known  # noqa: PLC0415 - as above

    try:
        found = known.find(known.RUN)
    except (ImportError, ValueError, KeyError) as error:
        return bad(
            f"{known.RUN} cannot be loaded: {error}", "pip install --force-reinstall seeknal-k8s"
        )
    return good(f"{found.name} can be deployed: {found.entrypoint}")
