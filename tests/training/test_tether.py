"""A run leaves when its parent lets go of stdin or someone sends SIGTERM, wherever it is, and within seconds."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.conftest import WriteRows, topic_rows
from tests.training.test_resume import MESSAGE, ROOT, saved_step, train_command
from training.tether import STOPPED

WAIT = """
import signal, sys, time
from training import tether
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
tether.GRACE = 0.3
with tether.Tether(stdin=sys.argv[1] == "watched") as held:
    def work():
        sys.stdout.write("ready\\n")
        sys.stdout.flush()
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            if held.pulled and sys.argv[2] == "leaves":
                raise tether.Stopped
            time.sleep(0.01)
    if sys.argv[2] == "loose":
        work()
    try:
        with held.deferred():
            work()
    except tether.Stopped:
        sys.exit(3)
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, start_new_session=True)
sys.stdout.write(f"{child.pid}\\n")
sys.stdout.flush()
child.wait()
"""


def waiting(stdin: str, work: str) -> subprocess.Popen[str]:
    """A process that is tethered and works for a minute, if it is let."""
    command = [sys.executable, "-c", WAIT, stdin, work]
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.close()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    status = process.wait(timeout=20)
    assert process.stderr
    return status, process.stderr.read()


@pytest.mark.parametrize("work", ["loose", "stays"])
def test_the_end_of_stdin_ends_the_process(work: str) -> None:
    process = waiting("watched", work)
    let_go(process)
    assert ended(process) == (STOPPED, MESSAGE)


def test_what_is_written_to_stdin_means_nothing() -> None:
    process = waiting("watched", "loose")
    assert process.stdin
    process.stdin.write("hello\n")
    process.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    let_go(process)
    assert ended(process) == (STOPPED, MESSAGE)


def test_stdin_is_left_alone_unless_asked_for() -> None:
    process = waiting("unwatched", "loose")
    let_go(process)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (STOPPED, MESSAGE)


def test_other_signals_keep_their_meaning() -> None:
    process = waiting("unwatched", "loose")
    process.send_signal(signal.SIGINT)
    status, said = ended(process)
    assert status == -signal.SIGINT
    assert "KeyboardInterrupt" in said


def test_one_who_defers_may_leave_by_himself() -> None:
    process = waiting("watched", "leaves")
    let_go(process)
    assert ended(process) == (3, "")


def gone(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    # an orphan may wait for a reaper that does not come
    return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.slow
def test_nothing_outlives_a_killed_parent(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    run = tmp_path / "run"
    command = train_command(base, rows_file(topic_rows(400)), run, "--epochs", "400")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ENCORE_TETHER": "1"}
    for reached in (lambda: True, lambda: saved_step(run) > 0):  # while it imports, and while it trains
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        assert parent.stdout
        child = int(parent.stdout.readline())
        while not reached():
            assert not gone(child)
            time.sleep(0.05)
        parent.kill()
        parent.wait()
        limit = time.monotonic() + 12
        while not gone(child):
            assert time.monotonic() < limit
            time.sleep(0.05)
    assert saved_step(run) > 0


@pytest.mark.slow
def test_a_terminated_run_says_so_and_has_saved(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    run = tmp_path / "run"
    command = train_command(base, rows_file(topic_rows(400)), run, "--epochs", "400", "--save_seconds", "1000")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (run / "metrics.csv").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    status, said = ended(process)
    assert status == STOPPED
    assert said.endswith(f"\n{MESSAGE}")
    assert saved_step(run) > 0


@pytest.mark.long
def test_two_processes_stop_alike_and_go_on(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    run = tmp_path / "run"
    launch = ["-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu-ddp.yaml"]
    launch += ["--main_process_port", "0"]
    module = train_command(base, rows_file(topic_rows(400)), run, "--epochs", "3", "--keep_epochs", "2")[1:]
    command = [sys.executable, *launch, *module]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ENCORE_TETHER": "1", "ACCELERATE_USE_CPU": "true"}
    for last in (False, True):
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        while not last and process.poll() is None and saved_step(run) < 30:
            time.sleep(0.05)
        if not last:
            let_go(process)
        assert process.stderr
        said = process.stderr.read()
        process.wait()
        assert said.count(MESSAGE) == (0 if last else 1), said[-3000:]
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    assert process.returncode == 0, said[-3000:]
    assert sorted(path.name for path in (run / "epochs").iterdir()) == ["step-46", "step-69"]
