"""Killed at any instant and started again, a run ends as an undisturbed one does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import WriteRows, topic_rows

ROOT = Path(__file__).parents[2]


def start(base: Path, file: Path, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "training.train", "--base_model", str(base), "--train_file", str(file)]
    command += ["--output_dir", str(output), "--epochs", "4", "--learning_rate", "0.002", "--dropout", "0.2"]
    command += ["--save_seconds", "0.05", "--early_stopping_patience", "4"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    log = (output.parent / f"{output.name}.log").open("ab")
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def results(run: Path) -> tuple[Any, str]:
    metrics = json.loads((run / "metrics.json").read_text())
    for timing in ("seconds", "rows_per_second"):
        del metrics["train"][timing]
    return metrics, (run / "metrics.csv").read_text()


def kill_when(process: subprocess.Popen[bytes], reached: Any) -> bool:
    """SIGKILL the process as soon as `reached()` holds; whether it was still running."""
    while process.poll() is None and not reached():
        time.sleep(0.002)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return alive


def saved_step(run: Path) -> int:
    return max((int(path.name.split("-")[1]) for path in (run / "state").glob("step-*")), default=0)


@pytest.mark.slow
def test_killed_runs_end_as_an_undisturbed_one(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    file = rows_file(topic_rows(400))  # 360 training rows: 23 steps an epoch, 92 in all
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(base, file, whole).wait() == 0

    instants = (
        lambda: (broken / "run.json").exists(),  # before anything was saved
        lambda: saved_step(broken) >= 8,  # within an epoch
        lambda: bool(list((broken / "state").glob(".step-*"))),  # while a state is being written
        lambda: saved_step(broken) >= 50,
        lambda: (broken / "checkpoint").exists(),  # trained, but not yet measured
    )
    killed = sum(kill_when(start(base, file, broken), reached) for reached in instants)
    assert killed >= 4  # the window of a save is short; the others cannot be missed
    final = start(base, file, broken)
    assert final.wait() == 0, (tmp_path / "broken.log").read_text()[-2000:]

    assert results(broken) == results(whole)
    theirs, ours = (run / "checkpoint/model.safetensors" for run in (broken, whole))
    assert theirs.read_bytes() == ours.read_bytes()
    assert not (broken / "state").exists()
