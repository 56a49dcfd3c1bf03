"""The API server's audit log: what was asked, by whom, and how often."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 20.0
"""Seconds to wait for the log to show a request that was answered."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, whatever the number of its lines in the log: a watch has two.

    ``code`` is None for a request that the API server did not live to answer.
    """

    verb: str
    resource: str
    name: str
    agent: str
    user: str
    code: int | None
    received: str

    @property
    def call(self) -> str:
        """Return verb and resource, as in ``create jobs``."""
        return f"{self.verb} {self.resource}"


@dataclass(frozen=True, slots=True)
class AuditLog:
    """The log's file, and a function that asks the API server something with a text in its URL."""

    file: Path
    ask: Callable[[str], Any]

    def mark(self) -> int:
        """Return where the log ends now."""
        return self.file.stat().st_size

    def since(self, mark: int, *, namespace: str) -> list[Request]:
        """Return what was asked in a namespace after ``mark`` and answered before now.

        In the order in which the API server received it.
        """
        needle = f'"namespace":"{namespace}"'.encode()
        events: dict[str, dict[str, Any]] = {}
        for line in self._until_now(mark):
            if needle in line:
                event = json.loads(line)
                events[event["auditID"]] = event
        found = [
            _request(event)
            for event in events.values()
            if event.get("objectRef", {}).get("namespace") == namespace
        ]
        return sorted(found, key=lambda request: request.received)

    def _until_now(self, mark: int) -> Iterator[bytes]:
        """Yield the lines after ``mark``, up to that of a question asked here and now."""
        text = uuid.uuid4().hex
        self.ask(text)
        deadline = time.monotonic() + PATIENCE
        with self.file.open("rb") as log:
            log.seek(mark)
            rest = b""
            while text.encode() not in (line := rest + log.readline()):
                if line.endswith(b"\n"):
                    rest = b""
                    yield line
                elif time.monotonic() > deadline:
                    raise TimeoutError(f"{self.file} does not show a request that was answered")
                else:
                    rest = line
                    time.sleep(0.01)


def _request(event: dict[str, Any]) -> Request:
    ref = event["objectRef"]
    sub = ref.get("subresource")
    return Request(
        verb=event["verb"],
        resource=f"{ref['resource']}/{sub}" if sub else ref["resource"],
        name=ref.get("name", ""),
        agent=event.get("userAgent", ""),
        user=event["user"].get("username", ""),
        code=event.get("responseStatus", {}).get("code"),
        received=event["requestReceivedTimestamp"],
    )
