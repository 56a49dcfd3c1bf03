"""The command line: parse, call one function, print, exit code.

The console scripts import this module, so it is cheap. Seeknal takes most of a second to import;
``main`` has that begin in the engine process before it imports what reads the command line here.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seeknal_k8s.engine_process import EngineProcess

NAMES = ("seeknal-k8s", "kubectl-seeknal")
"""What the program may be called. The first is its own name, the second makes it a plug-in."""


def program() -> str:
    """Return the name the program was called by."""
    name = os.path.basename(sys.argv[0])  # noqa: PTH119 - pathlib is not needed for anything else here
    return name if name in NAMES else NAMES[0]


def typed() -> str:
    """Return how to call the program again from here: by its name, or by path where that is needed."""
    name = program()
    if name == NAMES[1]:
        return "kubectl seeknal"
    called = sys.argv[0]
    on_path = any(
        os.access(os.path.join(folder, name), os.X_OK)  # noqa: PTH118 - see above
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)
    )
    by_path = os.path.basename(called) == name and os.sep in called  # noqa: PTH119 - see above
    return called if by_path and not on_path else name


def main() -> None:
    """Run the program: the entry point of the console scripts."""
    engine = None
    try:
        arguments = sys.argv[1:]
        engine = _early_engine(arguments)
        from seeknal_k8s.cli.app import execute  # noqa: PLC0415 - after the engine has begun

        code = execute(arguments, engine)
    except KeyboardInterrupt:
        code = 130
    finally:
        if engine is not None:
            engine.process.kill()  # a command that came to use it has already ended it in good order
            engine.close()
    sys.exit(code)


def _early_engine(arguments: Sequence[str]) -> EngineProcess | None:
    """Start the engine if the command is going to need it."""
    if arguments[:1] not in (["run"], ["plan"], ["render"], ["doctor"]) or {"-h", "--help"} & set(
        arguments
    ):
        return None
    from seeknal_k8s.engine_process import EngineProcess  # noqa: PLC0415 - looking at runs needs none

    return EngineProcess()
