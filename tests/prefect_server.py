"""A Prefect server of the tests' own, with an empty database, as a process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.cluster.harness import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 180.0
"""Seconds to wait for a server that takes ten to twenty to start."""


@dataclass(frozen=True)
class PrefectServer:
    """Where the API is, and how a program is told so."""

    url: str
    home: Path

    @property
    def env(self) -> dict[str, str]:
        """Return the environment of a client, without any setting of our own in it."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PREFECT_", "SEEKNAL_K8S_"))
        }
        quiet = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        return {**kept, **quiet, "PREFECT_HOME": str(self.home), "PREFECT_API_URL": self.url}

    def prefect(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run Prefect's own command line; return what it said."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
            env=self.env,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextlib.contextmanager
def running(folder: Path, host: str = "127.0.0.1") -> Iterator[PrefectServer]:
    """Give a server at an address of this machine, and end it."""
    with socket.create_server((host, 0)) as free:
        port = free.getsockname()[1]
    url = f"http://{host}:{port}/api"
    server = PrefectServer(url, folder)
    command = [sys.executable, "-m", "prefect", "server", "start"]
    command += ["--host", host, "--port", str(port)]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=server.env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: _answers(url, process), f"the Prefect server ({log})", seconds=PATIENCE)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the Prefect server has ended"
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310 - our own
        return bool(answer.status == 200)
    return False
