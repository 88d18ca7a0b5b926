"""Stopped at any instant and started again, a run ends as an undisturbed one does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import topic_rows
from training.engine import Engine
from training.tether import STOPPED

ROOT = Path(__file__).parents[2]
MESSAGE = "stopped; the same command goes on from the last saved state\n"


def train_command(base: Path, file: Path, output: Path, *flags: str) -> list[str]:
    command = [sys.executable, "-m", "training.train", "--base_model", str(base), "--train_file", str(file)]
    command += ["--output_dir", str(output), "--learning_rate", "0.002", "--dropout", "0.2", "--save_seconds", "0.05"]
    return [*command, "--early_stopping_patience", "4", *flags]


def start(base: Path, file: Path, output: Path) -> subprocess.Popen[bytes]:
    command = train_command(base, file, output, "--epochs", "4", "--keep_epochs", "2")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ENCORE_TETHER": "1"}
    log = (output.parent / f"{output.name}.log").open("ab")
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log)


def results(run: Path) -> tuple[Any, str, dict[str, bytes]]:
    metrics = json.loads((run / "metrics.json").read_text())
    for timing in ("seconds", "rows_per_second"):
        del metrics["train"][timing]
    weights = {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*.safetensors")}
    figures = {str(path.relative_to(run)): path.read_bytes() for path in run.glob("epochs/*/metrics.json")}
    return metrics, (run / "metrics.csv").read_text(), weights | figures


def stop_when(process: subprocess.Popen[bytes], reached: Any, stop: Callable[[subprocess.Popen[bytes]], None]) -> bool:
    """Stop the process as soon as `reached()` holds; whether it was still running."""
    while process.poll() is None and not reached():
        time.sleep(0.002)
    alive = process.poll() is None
    stop(process)
    process.wait(timeout=20)
    return alive


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)


def let_go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    process.stdin.close()


def saved_step(run: Path) -> int:
    return max((int(path.name.split("-")[1]) for path in (run / "state").glob("step-*")), default=0)


INSTANTS: dict[str, Callable[[Path], bool]] = {
    "before anything was saved": lambda run: (run / "run.json").exists(),
    "encoded, not yet trained": lambda run: (run / ".tokens" / "eval.arrow").exists(),
    "within an epoch": lambda run: saved_step(run) >= 8,
    "while a state is written": lambda run: bool(list((run / "state").glob(".step-*"))),
    "while an epoch's model is written": lambda run: bool(list((run / "epochs").glob(".step-*"))),
    "trained, but not yet measured": lambda run: (run / "checkpoint").exists(),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 rows, of which 360 are trained on: 23 steps an epoch, 92 in all."""
    path = tmp_path_factory.mktemp("rows") / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in topic_rows(400)))
    return path


@pytest.fixture(scope="module")
def whole(base: Path, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    run = tmp_path_factory.mktemp("undisturbed") / "whole"
    assert start(base, file, run).wait() == 0
    return run


def check_end(base: Path, file: Path, broken: Path, whole: Path) -> None:
    """Let a broken run come to its end, which must be that of the whole one."""
    final = start(base, file, broken)
    assert final.wait() == 0, (broken.parent / "broken.log").read_text()[-2000:]
    assert results(broken) == results(whole)
    assert not (broken / "state").exists()
    assert not (broken / ".tokens").exists()
    assert sorted(path.name for path in (broken / "epochs").iterdir()) == ["step-69", "step-92"]
    questions = [row["text"] for row in topic_rows(30, seed=9)]
    theirs, ours = (Engine.load(run / "checkpoint") for run in (broken, whole))
    assert (theirs.score(theirs.encode(questions)) == ours.score(ours.encode(questions))).all()
    assert theirs.manifest.temperature == ours.manifest.temperature


@pytest.mark.parametrize(
    "instants",
    [
        pytest.param(("within an epoch", "trained, but not yet measured"), id="few", marks=pytest.mark.slow),
        pytest.param(INSTANTS, id="every", marks=pytest.mark.long),
    ],
)
def test_killed_runs_end_as_an_undisturbed_one(
    base: Path, file: Path, whole: Path, tmp_path: Path, instants: Iterable[str]
) -> None:
    broken = tmp_path / "broken"
    killed = [stop_when(start(base, file, broken), partial(INSTANTS[name], broken), kill) for name in instants]
    missed = {name for name, stopped in zip(instants, killed, strict=True) if not stopped}
    assert all("written" in name for name in missed)  # the window of a write is short
    check_end(base, file, broken, whole)


@pytest.mark.long
def test_stopped_runs_end_as_an_undisturbed_one(base: Path, file: Path, whole: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    instants = (
        lambda: True,  # while it imports
        lambda: saved_step(broken) >= 12,
        lambda: saved_step(broken) >= 55,
        lambda: (broken / "checkpoint").exists(),
    )
    for reached in instants:
        process = start(base, file, broken)
        before = saved_step(broken)
        assert stop_when(process, reached, let_go)
        assert process.returncode == STOPPED
        assert (tmp_path / "broken.log").read_text().endswith(MESSAGE)
        assert saved_step(broken) >= before
    check_end(base, file, broken, whole)
