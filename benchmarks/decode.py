"""How long it takes to read a list of pods, as after every 410: ours beside json and the typed client.

Usage: python benchmarks/decode.py [PODS], by default 10,000. The pods are copies of one that was
recorded. The typed client takes some 13 s for them and so gets only a tenth, scaled up.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from seeknal_k8s.views import PODS

if TYPE_CHECKING:
    from collections.abc import Callable

RECORDED = Path(__file__).parent.parent / "tests" / "recorded" / "pods.json"


def body_of(pods: int) -> bytes:
    """Return a list of so many pods, as bytes."""
    listed = json.loads(RECORDED.read_bytes())
    listed["items"] *= pods
    return json.dumps(listed, separators=(",", ":")).encode()


def seconds(read: Callable[[], object], times: int = 3) -> float:
    """Return the CPU seconds of the fastest of some attempts."""
    taken = []
    for _ in range(times):
        began = time.process_time()
        read()
        taken.append(time.process_time() - began)
    return min(taken)


def sentence(pods: int) -> str:
    """Say how long a full list of pods takes to read."""
    body = body_of(pods)
    taken = seconds(lambda: PODS.page.decode(body))
    return f"A list of {pods:,} pods, {len(body) / 1e6:.0f} MB, is read in {taken:.3f} CPU seconds."


def typed(body: bytes) -> None:
    """Read it as the official client does."""
    from kubernetes.aio.client import ApiClient, Configuration, V1PodList  # noqa: PLC0415

    client = ApiClient(Configuration())
    client.deserialize(body.decode(), V1PodList.__name__, "application/json")


def main() -> None:
    """Print a table."""
    pods = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    body, tenth = body_of(pods), body_of(pods // 10)
    print(f"{pods} pods, {len(body) / 1e6:.1f} MB; CPU seconds")
    print(f"{'views':<14}{seconds(lambda: PODS.page.decode(body)):8.3f}")
    print(f"{'json.loads':<14}{seconds(lambda: json.loads(body)):8.3f}")
    print(f"{'typed client':<14}{10 * seconds(lambda: typed(tenth), times=1):8.3f}")


if __name__ == "__main__":
    main()
