"""Models of the last epochs beside the finished one."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import topic_queries, topic_rows
from training.engine import Engine
from training.events import read_events
from training.manifest import read_manifest
from training.train import main

FIGURES = {"step", "epoch", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy"}


def train(base: Path, folder: Path, *flags: str, task: str = "classify") -> Path:
    """A run of four epochs of 6 steps each, with evaluation rows of its own."""
    for name, count, seed in (("train", 96, 0), ("eval", 30, 1)):
        rows = topic_rows(count, seed) if task == "classify" else topic_queries(count, seed)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fixed = ["--task", task, "--epochs", "4", "--batch_size", "16", "--learning_rate", "0.002"]
    fixed += ["--train_file", str(folder / "train.jsonl"), "--eval_file", str(folder / "eval.jsonl")]
    assert main(["--base_model", str(base), "--output_dir", str(folder / "run"), *fixed, *flags]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(base, tmp_path_factory.mktemp("epochs"), "--keep_epochs", "3", "--average_decay", "0")


def figures(epoch: Path) -> dict[str, float]:
    return json.loads((epoch / "metrics.json").read_text())


def test_the_last_epochs_are_kept(run: Path) -> None:
    assert sorted(path.name for path in (run / "epochs").iterdir()) == ["step-12", "step-18", "step-24"]
    found = [figures(run / "epochs" / f"step-{step}") for step in (12, 18, 24)]
    assert all(set(each) == FIGURES for each in found)
    assert [(each["epoch"], each["step"]) for each in found] == [(2, 12), (3, 18), (4, 24)]
    lines = {int(row["step"]): row for row in csv.DictReader((run / "metrics.csv").open())}
    assert [each["train_loss"] for each in found] == [float(lines[step]["train_loss"]) for step in (12, 18, 24)]
    messages = [event.message for event, _ in read_events(run / "events.jsonl")]
    assert [m for m in messages if m.startswith("Checkpoint")] == [
        f"Checkpoint created at step {step}" for step in (6, 12, 18, 24)
    ]


def test_a_kept_epoch_answers_as_its_figures_say(run: Path) -> None:
    rows = topic_rows(30, seed=1)
    for epoch in (run / "epochs").iterdir():
        engine = Engine.load(epoch)
        probs = engine.probabilities(engine.score(engine.encode([row["text"] for row in rows])))
        truth = [engine.manifest.labels.index(row["label"]) for row in rows]
        assert (probs.argmax(axis=1) == truth).mean() == pytest.approx(figures(epoch)["valid_accuracy"])
        loss = -np.log(probs[np.arange(len(rows)), truth]).mean()
        assert loss == pytest.approx(figures(epoch)["valid_loss"], abs=1e-4)
        assert engine.manifest.metrics["accuracy"] == figures(epoch)["valid_accuracy"]
        assert engine.manifest.temperature != 1
        assert (epoch / "train_config.yaml").is_file()


def test_the_epochs_differ_and_one_of_them_is_the_finished_model(run: Path) -> None:
    weights = [(epoch / "head.safetensors").read_bytes() for epoch in (run / "epochs").iterdir()]
    assert len(set(weights)) == 3
    assert (run / "checkpoint/head.safetensors").read_bytes() in weights


def test_keeping_epochs_does_not_change_the_run(base: Path, run: Path, tmp_path: Path) -> None:
    other = train(base, tmp_path, "--average_decay", "0")
    assert not (other / "epochs").exists()
    for name in ("model.safetensors", "head.safetensors"):
        assert (other / "checkpoint" / name).read_bytes() == (run / "checkpoint" / name).read_bytes()


def test_adapters_are_kept_alone(base: Path, tmp_path: Path) -> None:
    run = train(base, tmp_path, "--lora.r", "4", "--keep_epochs", "1")
    [epoch] = (run / "epochs").iterdir()
    assert {path.name for path in epoch.glob("*.safetensors")} == {"adapter_model.safetensors", "head.safetensors"}
    ours, theirs = Engine.load(epoch), Engine.load(run / "checkpoint")
    assert ours.score(ours.encode(["help"])).shape == (1, 3)
    if figures(epoch)["epoch"] == json.loads((run / "metrics.json").read_text())["train"]["best_epoch"]:
        assert (ours.score(ours.encode(["help"])) == theirs.score(theirs.encode(["help"]))).all()


def test_rerankers_keep_epochs_too(base: Path, tmp_path: Path) -> None:
    run = train(base, tmp_path, "--keep_epochs", "9", "--early_stopping_patience", "4", task="rerank")
    epochs = sorted((run / "epochs").iterdir())
    assert len(epochs) == 4
    for epoch in epochs:
        assert set(figures(epoch)) == FIGURES
        assert read_manifest(epoch).metrics["ndcg@10"] > 0
