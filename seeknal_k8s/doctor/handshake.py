"""Two pods at once find each other's file in the store: what ``doctor --pods`` runs in each of them.

The pods are given this text, so that it does not depend on the version in their image: it imports
nothing but the standard library.
"""

import os
import shutil
import sys
import time
from pathlib import Path

PATIENCE = 120.0
"""Seconds to wait for the other pod, whose machine may still pull the image."""


def meet(folder: Path, mine: str, other: str) -> None:
    """Leave a file, find the other's, and see that the other has found ours; then remove it all.

    Raises:
        TimeoutError: the other's file never came.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / mine).write_text("here", encoding="ascii")
    _await(folder, other)
    (folder / f"{mine}.seen").touch()
    _await(folder, f"{other}.seen")
    shutil.rmtree(folder, ignore_errors=True)  # the other may be at it, too


def _await(folder: Path, name: str) -> None:
    until = time.monotonic() + PATIENCE
    while folder.exists() and name not in os.listdir(folder):  # noqa: PTH208 - asks NFS anew
        if time.monotonic() > until:
            raise TimeoutError(f"{folder / name}: the other pod does not see what this one writes")
        time.sleep(0.1)


if __name__ == "__main__":
    number = int(os.environ["JOB_COMPLETION_INDEX"])
    try:
        meet(Path(sys.argv[1]), str(number), str(1 - number))
    except (OSError, TimeoutError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
