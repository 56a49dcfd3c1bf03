"""The Prefect API: which one it is, and what becomes of its errors. Never a server of our own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import get_current_settings
from pydantic import ValidationError

from seeknal_k8s.errors import PrefectRefused, PrefectUnavailable, SeeknalK8sError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import WorkPool

_UNKNOWN = (401, 403)
_NO_API = (
    "What answers at {} is not a Prefect API of this version\n"
    "  → PREFECT_API_URL usually ends in /api"
)


def api_url() -> str:
    """Return the URL of the Prefect API, without a name and password in it.

    Raises:
        PrefectRefused: none is set. Prefect would start a server that nobody else can see.
    """
    url = get_current_settings().api.url
    if not url:
        raise PrefectRefused(
            "PREFECT_API_URL is not set, so there is no Prefect server to speak to\n"
            "  → name it: export PREFECT_API_URL=http://HOST:4200/api\n"
            "  → or start one on this machine first: prefect server start"
        )
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


@asynccontextmanager
async def connected() -> AsyncIterator[PrefectClient]:
    """Give a client of the Prefect API; whatever fails within the block is an error of ours.

    Raises:
        PrefectRefused: no API is named, it does not know us, or it does not do what we ask.
        PrefectUnavailable: it does not answer, or what answers is no Prefect API.
    """
    url = api_url()
    try:
        async with get_client() as client:
            await client.api_version()  # who is not let in, or is not at an API, learns it here
            yield client
    except SeeknalK8sError:
        raise
    except PrefectHTTPStatusError as error:
        raise _refusal(url, error) from error
    except ObjectNotFound as error:
        raise PrefectRefused(f"The Prefect API at {url} does not have it: {error}") from error
    except httpx.TransportError as error:
        raise PrefectUnavailable(
            f"The Prefect API at {url} does not answer: {str(error) or type(error).__name__}\n"
            f"  → see whether it runs: curl {url}/health\n"
            "  → if it is elsewhere, set PREFECT_API_URL"
        ) from error
    except (JSONDecodeError, ValidationError) as error:
        raise PrefectUnavailable(_NO_API.format(url)) from error


def _refusal(url: str, error: PrefectHTTPStatusError) -> SeeknalK8sError:
    status = error.response.status_code
    if error.request.url.path.endswith("/admin/version") and status == httpx.codes.NOT_FOUND:
        return PrefectUnavailable(_NO_API.format(url))
    if status in _UNKNOWN:
        return PrefectRefused(
            f"The Prefect API at {url} does not let us in ({status})\n"
            "  → a server with a password: export PREFECT_API_AUTH_STRING=USER:PASSWORD\n"
            "  → Prefect Cloud: export PREFECT_API_KEY=KEY"
        )
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return PrefectUnavailable(f"The Prefect API at {url} failed ({status}); try again")
    return PrefectRefused(f"The Prefect API at {url} refused ({status}): {_detail(error)}")


def _detail(error: PrefectHTTPStatusError) -> str:
    try:
        said: Any = error.response.json()
    except ValueError:
        return "it said nothing of its own"
    if isinstance(said, dict):
        return str(said.get("detail") or said.get("exception_detail") or said)[:1000]
    return str(said)[:1000]


async def pool_named(client: PrefectClient, name: str) -> WorkPool | None:
    """Return a work pool, None if there is none of this name."""
    try:
        return await client.read_work_pool(name)
    except ObjectNotFound:
        return None
