"""Nodes that misbehave, all in one run: how each ends, what is kept of it, and what is left."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING

import psutil
import pytest

from seeknal_k8s.supervisor import GRACE
from tests.projects import rows, transform
from tests.running import Ran, attempts, log, new_project, python, run

if TYPE_CHECKING:
    from pathlib import Path

    from seeknal_k8s.results import PrefectRunResult

OPTIONS = """
    defaults: {cpu: 400m, memory: 256Mi, timeout: 60s}
    nodes:
      transform.hangs: {timeout: 2s}
      transform.hangs_with_daemon: {timeout: 2s}
      transform.hangs_in_sql: {timeout: 2s}
      transform.deaf: {timeout: 2s}
      transform.tidy: {timeout: 2s}
      transform.has_env: {env: {GREETING: "hello, $HOME", NUMBER: 7}}
      transform.fitted: {cpu: 2, memory: 1Gi, ephemeral_storage: 1Gi}
      transform.half_a_core: {cpu: 500m}
      transform.greedy: {memory: 64Mi, ephemeral_storage: 1Mi}
      transform.spilling: {memory: 64Mi, ephemeral_storage: 1Mi}
      transform.greedy_python: {memory: 64Mi, ephemeral_storage: 1Mi}
"""
DAEMON = """
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            quiet = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(quiet, stream)
            with open("{file}.new", "w") as file:
                file.write(str(os.getpid()))
            os.rename("{file}.new", "{file}")
            time.sleep(1000)
        os._exit(0)
    os.wait()
    while not os.path.exists("{file}"):
        time.sleep(0.01)
    {then}
"""
SETTINGS = """
    SELECT current_setting('threads') AS threads, current_setting('memory_limit') AS memory,
      current_setting('max_temp_directory_size') AS spill
"""
LINES = 500_000
LINE = 100


def _talkers(project: Path) -> None:
    loud = f"""
        for number in range({LINES}):
            sys.stdout.write(f"{{number:>{LINE - 1}}}\\n")
            if number % 10 == 0:
                sys.stderr.write(f"to the side {{number:>{LINE - 13}}}\\n")
    """
    python(project, "loud", loud)
    python(project, "silent", "os.dup2(os.open(os.devnull, os.O_WRONLY), 1)")
    python(project, "binary", "sys.stdout.buffer.write(bytes(range(256)) * 4)")
    python(project, "shell", 'subprocess.run(["sh", "-c", "echo out; echo err >&2"], check=True)')
    late = 'subprocess.Popen(["sh", "-c", "sleep 0.2; echo late"])'
    python(project, "leaves_a_child", late)
    python(project, "has_env", 'print(os.environ["GREETING"], os.environ["NUMBER"])')
    python(project, "has_no_env", 'print(os.environ.get("GREETING"), os.environ.get("NUMBER"))')


def _leavers(project: Path) -> None:
    for name in ("SIGKILL", "SIGSEGV"):
        body = f'print("before", flush=True); os.kill(os.getpid(), signal.{name})'
        python(project, name.lower(), body)
    python(project, "kills_its_worker", "os.kill(os.getppid(), signal.SIGKILL); time.sleep(1000)")
    python(project, "exits_3", "print('before', flush=True); os._exit(3)")
    python(project, "exits_with_text", "sys.exit('this is why')")
    python(project, "raises", "raise ValueError('on purpose')")
    transform(project, "below_raises", "SELECT * FROM __THIS__", "transform.raises")
    transform(project, "far_below", "SELECT * FROM __THIS__", "transform.below_raises")
    transform(project, "beside", "SELECT 1 AS one")


def _stayers(project: Path, daemons: Path) -> None:
    python(project, "daemon", DAEMON.format(file=daemons / "daemon", then=""))
    hangs = DAEMON.format(file=daemons / "hangs_with_daemon", then="time.sleep(1000)")
    python(project, "hangs_with_daemon", hangs)
    fails = DAEMON.format(file=daemons / "fails_with_daemon", then="raise ValueError")
    python(project, "fails_with_daemon", fails)
    python(project, "hangs", "print('started', flush=True); time.sleep(1000)")
    endless = "SELECT max(hash(a.range + b.range)) AS m FROM range(100000000) a, range(100000000) b"
    transform(project, "hangs_in_sql", endless)
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"
    python(project, "deaf", deaf)
    tidy = """
        def end(number, frame):
            print("tidied up", flush=True)
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        time.sleep(1000)
    """
    python(project, "tidy", tidy)


def _eaters(project: Path) -> None:
    transform(project, "fitted", SETTINGS)
    transform(project, "half_a_core", SETTINGS)
    transform(project, "greedy", "SELECT list(range) AS l FROM range(50000000)")
    transform(project, "spilling", "SELECT * FROM range(20000000) t(i) ORDER BY hash(i)")
    greedy = "return ctx.duckdb.sql('SELECT list(range) AS l FROM range(50000000)').df()"
    python(project, "greedy_python", greedy)


class Misbehaved:
    """The run of all those nodes."""

    def __init__(self, folder: Path) -> None:
        self.daemons = folder
        self.project = new_project(folder, OPTIONS)
        _talkers(self.project)
        _leavers(self.project)
        _stayers(self.project, self.daemons)
        _eaters(self.project)
        tracemalloc.start()
        self.ran: Ran = run(self.project, run_id="r1")
        self.memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    def __getitem__(self, name: str) -> PrefectRunResult:
        return self.ran[f"transform.{name}"]


@pytest.fixture(scope="module")
def misbehaved(tmp_path_factory: pytest.TempPathFactory) -> Misbehaved:
    return Misbehaved(tmp_path_factory.mktemp("misbehaved"))


def test_fifty_megabytes_are_kept_whole_and_apart(misbehaved: Misbehaved) -> None:
    result = misbehaved["loud"]
    assert result.success
    numbers = (f"{number:>{LINE - 1}}\n" for number in range(LINES))
    assert log(result).decode() == "".join(numbers) + "Executed loud successfully\n"
    side = [f"to the side {number:>{LINE - 13}}\n" for number in range(0, LINES, 10)]
    assert log(result, "stderr").decode() == "".join(side)


def test_a_result_has_only_the_last_lines(misbehaved: Misbehaved) -> None:
    result = misbehaved["loud"]
    assert len(result.stdout) <= 10_000
    assert len(result.stderr) <= 10_000
    *last, end = result.stdout.splitlines()
    assert end == "Executed loud successfully"
    assert [int(line) for line in last] == list(range(LINES - len(last), LINES))
    assert len(last) >= 99


def test_what_nodes_print_does_not_fill_the_memory_of_the_coordinator(
    misbehaved: Misbehaved,
) -> None:
    assert misbehaved.memory < 10 << 20  # 55 MB were printed


def test_what_a_node_prints_does_not_fill_its_own_memory(misbehaved: Misbehaved) -> None:
    loud, shell = misbehaved["loud"].peak_memory_bytes, misbehaved["shell"].peak_memory_bytes
    assert loud
    assert shell
    assert loud - shell < 30 << 20


@pytest.mark.parametrize(
    ("node", "stdout", "stderr"),
    [
        pytest.param("silent", b"", b"", id="nothing"),
        pytest.param(
            "binary", bytes(range(256)) * 4 + b"Executed binary successfully\n", b"", id="bytes"
        ),
        pytest.param(
            "shell", b"out\nExecuted shell successfully\n", b"err\n", id="what a subprocess prints"
        ),
        pytest.param(
            "leaves_a_child",
            b"Executed leaves_a_child successfully\nlate\n",
            b"",
            id="what a subprocess prints afterwards, as Seeknal waits for it too",
        ),
        pytest.param(
            "has_env",
            b"hello, $HOME 7\nExecuted has_env successfully\n",
            b"",
            id="its own environment, as it was written",
        ),
        pytest.param(
            "has_no_env",
            b"None None\nExecuted has_no_env successfully\n",
            b"",
            id="nothing of another node's environment",
        ),
    ],
)
def test_a_node_prints(misbehaved: Misbehaved, node: str, stdout: bytes, stderr: bytes) -> None:
    result = misbehaved[node]
    assert result.success, result.message
    assert log(result) == stdout
    assert log(result, "stderr") == stderr
    assert result.stdout == stdout.decode(errors="replace")


@pytest.mark.parametrize(
    ("node", "code", "reason", "message"),
    [
        pytest.param("sigkill", 1, "NodeFailed", "exited with code -9", id="by SIGKILL"),
        pytest.param("sigsegv", 1, "NodeFailed", "exited with code -11", id="by SIGSEGV"),
        pytest.param(
            "kills_its_worker", 137, "Killed", "ended by signal 9 (SIGKILL)", id="with its worker"
        ),
        pytest.param("exits_3", 1, "NodeFailed", "exited with code 3", id="with os._exit"),
        pytest.param("exits_with_text", 1, "NodeFailed", "this is why", id="with sys.exit"),
        pytest.param("raises", 1, "NodeFailed", "ValueError: on purpose", id="with an exception"),
        pytest.param("hangs", 124, "Timeout", "longer than its timeout of 2 s", id="never"),
        pytest.param("hangs_in_sql", 124, "Timeout", "its timeout of 2 s", id="never, in SQL"),
        pytest.param("deaf", 124, "Timeout", "its timeout of 2 s", id="not by SIGTERM"),
        pytest.param("tidy", 124, "Timeout", "its timeout of 2 s", id="by SIGTERM, with code 0"),
        pytest.param("greedy", 77, "OutOfMemory", "Out of Memory", id="without memory"),
        pytest.param(
            "spilling", 77, "OutOfMemory", "max_temp_directory_size", id="without room to spill"
        ),
        pytest.param(
            "greedy_python", 77, "OutOfMemory", "exited with code 1", id="without memory in Python"
        ),
    ],
)
def test_a_node_ends(
    misbehaved: Misbehaved, node: str, code: int, reason: str, message: str
) -> None:
    result = misbehaved[node]
    assert (result.success, result.exit_code, result.reason) == (False, code, reason)
    assert message in result.message
    assert result.attempts == 1


@pytest.mark.parametrize("node", ["sigkill", "sigsegv", "exits_3"])
def test_what_a_node_printed_before_it_died_is_kept(misbehaved: Misbehaved, node: str) -> None:
    assert misbehaved[node].stdout == "before\n"


def test_what_a_node_printed_before_its_time_was_up_is_kept(misbehaved: Misbehaved) -> None:
    assert misbehaved["hangs"].stdout == "started\n"
    assert 2 <= misbehaved["hangs"].duration_seconds < 30


def test_a_node_may_tidy_up_when_its_time_is_up(misbehaved: Misbehaved) -> None:
    assert misbehaved["tidy"].stdout == "tidied up\n"
    assert 2 <= misbehaved["tidy"].duration_seconds < 30


def test_a_node_that_ignores_sigterm_is_killed_after_the_grace(misbehaved: Misbehaved) -> None:
    assert 2 + GRACE <= misbehaved["deaf"].duration_seconds < 30


@pytest.mark.parametrize(
    "node",
    [
        pytest.param("daemon", id="that succeeds"),
        pytest.param("fails_with_daemon", id="that fails"),
        pytest.param("hangs_with_daemon", id="that runs out of time"),
    ],
)
def test_no_daemon_outlives_a_node(misbehaved: Misbehaved, node: str) -> None:
    pid = int((misbehaved.daemons / node).read_text())
    assert not psutil.pid_exists(pid)
    assert misbehaved[node].success == (node == "daemon")


def test_no_process_outlives_the_run(misbehaved: Misbehaved) -> None:
    here = str(misbehaved.project)
    left = [
        process.info
        for process in psutil.process_iter(["pid", "cwd", "cmdline"])
        if here in f"{process.info['cwd']} {process.info['cmdline']}"
    ]
    assert left == []


def test_no_workspace_outlives_its_attempt(misbehaved: Misbehaved) -> None:
    found = list(attempts(misbehaved.project, misbehaved.ran.results))
    assert len(found) == len(misbehaved.ran.results) - 2  # two were skipped
    for attempt in found:
        assert {entry.name for entry in attempt.iterdir()} <= {"stdout", "stderr", "result.json"}


@pytest.mark.parametrize(
    "node",
    [
        pytest.param("below_raises", id="directly below"),
        pytest.param("far_below", id="far below"),
    ],
)
def test_what_is_below_a_failure_is_skipped_and_names_it(misbehaved: Misbehaved, node: str) -> None:
    result = misbehaved[node]
    assert (result.success, result.reason, result.exit_code) == (False, "UpstreamFailed", -1)
    assert result.message == "skipped, because transform.raises failed"
    assert (result.attempts, result.log_path) == (0, None)


def test_what_is_not_below_a_failure_runs(misbehaved: Misbehaved) -> None:
    assert misbehaved["beside"].success
    assert rows(misbehaved.project, "transform.beside") == [(1,)]


def test_only_what_succeeded_is_published(misbehaved: Misbehaved) -> None:
    folder = misbehaved.project / "target" / "intermediate"
    made = {file.name for file in folder.glob("*.parquet")}
    succeeded = {node for node, result in misbehaved.ran.results.items() if result.success}
    assert made == {f"{node.replace('.', '_')}.parquet" for node in succeeded}


def test_duckdb_keeps_to_what_the_node_asked_for(misbehaved: Misbehaved) -> None:
    # 70 % of 1Gi each; as many threads as cores, at most those of this machine.
    ((threads, memory, spill),) = rows(misbehaved.project, "transform.fitted")
    cores = min(2, len(psutil.Process().cpu_affinity() or [1]))
    assert (threads, memory, spill) == (cores, "716.7 MiB", "716.7 MiB")
    ((threads, memory, _),) = rows(misbehaved.project, "transform.half_a_core")
    assert (threads, memory) == (1, "179.1 MiB")


def test_seeknals_state_says_the_same(misbehaved: Misbehaved) -> None:
    state = json.loads((misbehaved.project / "target" / "run_state.json").read_text())
    for node_id, result in misbehaved.ran.results.items():
        if result.reason == "UpstreamFailed":
            assert node_id not in state["nodes"]
        else:
            expected = "success" if result.success else "failed"
            assert state["nodes"][node_id]["status"] == expected, node_id
