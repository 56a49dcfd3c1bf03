"""Python nodes that count how often they run, and that stop at a gate until a test opens it."""

from __future__ import annotations

import contextlib
import os
import select
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from tests.projects import write

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

PATIENCE = 60.0
"""Seconds to wait for something that takes one or two."""

NODE = """
    import os
    from seeknal.pipeline.decorators import transform

    @transform(name="{name}", inputs={inputs})
    def {name}(ctx):
        with open("{outside}/ran", "a") as ran:
            ran.write("{name}\\n")
        rows = ctx.ref("{first}").assign(by="{name}")
        if os.path.exists("{outside}/{name}.closed"):
            ctx._store_output("transform.{name}", rows.head(1))
            half_way = ctx.target_dir / "half_way"
            half_way.touch()
            with open("{outside}/{name}.reached", "w") as reached:
                reached.write(str(os.getpid()))
            open("{outside}/{name}.open").read()
            half_way.unlink()
        if os.path.exists("{outside}/{name}.broken"):
            raise RuntimeError("the world outside is not as it should be")
        return rows
"""


@dataclass(frozen=True)
class Outside:
    """A folder outside the project, through which nodes and tests talk."""

    folder: Path

    def node(self, project: Path, name: str, *inputs: str) -> None:
        """Add a Python transform that counts, stops at its gate, or fails."""
        text = NODE.format(name=name, inputs=inputs, first=inputs[0], outside=self.folder)
        write(project, f"seeknal/py/{name}.py", text)

    def close(self, name: str) -> None:
        """Let the node stop at its gate."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / f"{name}.closed").touch()
        for end in ("reached", "open"):
            os.mkfifo(self.folder / f"{name}.{end}")

    def reached(self, name: str) -> psutil.Process:
        """Wait until the node stands at its gate; return the process it runs in."""
        pipe = os.open(self.folder / f"{name}.reached", os.O_RDONLY | os.O_NONBLOCK)
        try:
            poll = select.poll()
            poll.register(pipe, select.POLLIN)
            assert poll.poll(PATIENCE * 1000), f"{name} has not come to its gate"
            return psutil.Process(int(os.read(pipe, 32)))
        finally:
            os.close(pipe)

    def open(self, name: str) -> None:
        """Let the node go on."""
        (self.folder / f"{name}.closed").unlink()
        with (self.folder / f"{name}.open").open("w", encoding="utf-8"):
            pass

    def take_away(self, name: str) -> None:
        """Let the next attempt of the node pass; the one at the gate stays there."""
        (self.folder / f"{name}.closed").unlink()

    def breaks(self, name: str) -> None:
        """Let the node fail."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / f"{name}.broken").touch()

    def mend(self, name: str) -> None:
        """Let the node succeed."""
        (self.folder / f"{name}.broken").unlink()

    def ran(self) -> Counter[str]:
        """Return how often each node has run."""
        return Counter((self.folder / "ran").read_text(encoding="utf-8").split())


def below(process: subprocess.Popen[str] | psutil.Process) -> list[psutil.Process]:
    """Return every process that this one has started, directly or not."""
    return psutil.Process(process.pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    """Wait for the processes to end; return whether all have."""
    return not psutil.wait_procs(processes, timeout=PATIENCE)[1]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run; a zombie does not, it waits for its parent to notice."""
    running = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                running.append(process)
    return running
