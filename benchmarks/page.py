"""Run a benchmark and put what it prints into docs/performance.md, between that script's markers.

python benchmarks/page.py bench_local [ARGUMENTS OF THE SCRIPT]
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"


def machine() -> str:
    """Return what the figures were measured on."""
    load = os.getloadavg()[0]
    return (
        f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, "
        f"{datetime.now(UTC).date().isoformat()}, load average {load:.0f}"
    )


def put(name: str, text: str) -> None:
    """Replace what stands between the markers of a benchmark."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, rest = PAGE.read_text(encoding="utf-8").split(begin)
    tail = rest.split(end)[1]
    PAGE.write_text(f"{head}{begin}\n{text.strip()}\n{end}{tail}", encoding="utf-8")


def main() -> None:
    """Run the script, and write its output if it has ended well."""
    name, *arguments = sys.argv[1:]
    where = machine()
    script = [sys.executable, str(HERE / f"{name}.py"), *arguments]
    done = subprocess.run(script, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout)
    put(name, f"{where}.\n\n{done.stdout}")


if __name__ == "__main__":
    main()
