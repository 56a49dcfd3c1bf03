"""Atlas itself cannot run here: a server of a few lines answers as its access check would."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s import ProjectRefused, RunRequest, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _Atlas(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["content-length"])))
        allowed = "secret" not in str(question.get("resource"))
        answer = json.dumps({"allowed": allowed, "reason": "" if allowed else "not for you"})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def atlas(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Atlas) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("ATLAS_API_URL", f"http://127.0.0.1:{server.server_address[1]}")
        yield
        server.shutdown()
        thread.join()


def project(folder: Path, name: str) -> Path:
    (folder / "seeknal").mkdir(parents=True)
    (folder / f"{name}.csv").write_text("id\n1\n")
    text = f"kind: source\nname: {name}\nsource: csv\ntable: {name}.csv\n"
    (folder / "seeknal" / f"{name}.yml").write_text(text)
    return folder


@pytest.mark.usefixtures("atlas")
def test_a_source_that_atlas_forbids_is_refused_before_anything_runs(tmp_path: Path) -> None:
    forbidden = project(tmp_path / "p", "secret_orders")
    with pytest.raises(ProjectRefused) as refused:
        asyncio.run(run(RunRequest(forbidden), lambda _: None))
    assert refused.value.problems[0].node == "source.secret_orders"
    assert "not for you" in str(refused.value)
    assert not (forbidden / "target" / "run_state.json").exists()


@pytest.mark.usefixtures("atlas")
def test_a_source_that_atlas_allows_runs(tmp_path: Path) -> None:
    results = asyncio.run(run(RunRequest(project(tmp_path / "p", "orders")), lambda _: None))
    assert results.success
