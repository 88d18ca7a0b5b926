"""Two processes give the run of one: the same batches, losses and metrics."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.conftest import WriteRows, topic_queries, topic_rows

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("task", "tokens"),
    [
        pytest.param("classify", "100000", id="one pass", marks=pytest.mark.long),
        pytest.param("classify", "40", id="several passes", marks=pytest.mark.slow),
        pytest.param("rerank", "300", id="rankings in several passes", marks=pytest.mark.long),
    ],
)
def test_two_processes_give_the_losses_of_one(
    base: Path, tmp_path: Path, rows_file: WriteRows, task: str, tokens: str
) -> None:
    # 45 training rows in batches of 11: shares are unequal, and the last batch of an epoch has a single row,
    # so that one of the two processes has none.
    file = rows_file(topic_rows(50) if task == "classify" else topic_queries(50))
    found = {}
    for name, settings in (("one", "cpu.yaml"), ("two", "cpu-ddp.yaml")):
        command = [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--config_file",
            f"configs/accelerate/{settings}",
        ]
        command += ["--main_process_port", "0", "-m", "training.train", "--task", task, "--base_model", str(base)]
        command += ["--train_file", str(file), "--output_dir", str(tmp_path / name), "--dropout", "0"]
        command += ["--precision", "float32"]
        command += ["--epochs", "2", "--batch_size", "11", "--learning_rate", "0.001", "--max_batch_tokens", tokens]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert ("; 2 processes" in done.stderr) == (name == "two")
        found[name] = [dict(row) for row in csv.DictReader((tmp_path / name / "metrics.csv").open())]
    assert [row["step"] for row in found["one"]] == [row["step"] for row in found["two"]]
    for column, tolerance in (("train_loss", 2e-4), ("train_accuracy", 1e-6)):
        one, two = ([float(row[column]) for row in found[name]] for name in ("one", "two"))
        assert one == pytest.approx(two, abs=tolerance)
    last = [json.loads((tmp_path / name / "metrics.json").read_text())["history"][-1] for name in ("one", "two")]
    assert last[0]["accuracy"] == last[1]["accuracy"]
    assert last[0]["loss"] == pytest.approx(last[1]["loss"], abs=1e-3)
