"""The command people type, in this process: what it leaves, and what it says when something is wrong."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.training.conftest import WriteRows, topic_rows
from training.engine import Engine
from training.events import read_events
from training.manifest import read_manifest
from training.train import main


def train(base: Path, output: Path, file: Path, *flags: str) -> int:
    fixed = [
        "--learning_rate",
        "0.003",
        "--head_learning_rate",
        "0.01",
        "--epochs",
        "10",
        "--average_decay",
        "0",
        "--freeze_embeddings",
        "false",
    ]
    return main(["--base_model", str(base), "--train_file", str(file), "--output_dir", str(output), *fixed, *flags])


@pytest.fixture(scope="module")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    for name, count, seed in (("train", 150, 0), ("test", 30, 1)):
        rows = topic_rows(count, seed)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert train(base, folder / "run", folder / "train.jsonl", "--test_file", str(folder / "test.jsonl")) == 0
    return folder / "run"


def read_metrics(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())


def test_it_learns(finished: Path) -> None:
    metrics = read_metrics(finished)
    assert metrics["test"]["accuracy"] >= 0.8
    assert metrics["test"]["rows"] == 30


def test_metrics_hold_what_is_promised(finished: Path) -> None:
    measured = read_metrics(finished)["eval"]
    for kind in ("macro", "weighted"):
        assert {f"precision_{kind}", f"recall_{kind}", f"f1_{kind}"} <= set(measured)
    assert {"ece", "ece_uncalibrated", "loss", "accuracy"} <= set(measured)
    assert [row["label"] for row in measured["per_label"]] == ["billing", "shipping", "technical"]
    assert sum(map(sum, measured["confusion_matrix"])) == measured["rows"]


def test_step_metrics_have_a_line_a_step(finished: Path) -> None:
    rows = list(csv.DictReader((finished / "metrics.csv").open()))
    metrics = read_metrics(finished)
    assert list(rows[0])[:7] == [
        "step",
        "train_loss",
        "train_accuracy",
        "valid_loss",
        "valid_mean_token_accuracy",
        "classification/accuracy",
        "classification/weighted_f1_score",
    ]
    assert [int(row["step"]) for row in rows] == list(range(1, metrics["train"]["steps"] + 1))
    assert all(row["train_loss"] and row["train_accuracy"] for row in rows)
    last = rows[-1]
    assert float(last["classification/accuracy"]) == pytest.approx(metrics["eval"]["accuracy"], abs=1e-5)
    assert float(last["valid_loss"]) == pytest.approx(metrics["eval"]["loss"], abs=1e-4)


@pytest.mark.parametrize("labels", [("billing", "shipping"), ("billing", "shipping", "technical")])
def test_the_last_line_is_what_a_client_measures(
    base: Path, tmp_path: Path, rows_file: WriteRows, labels: tuple[str, ...]
) -> None:
    """Smoothing, weights and contradictions are for the loss that is minimised, not for the figures."""
    rows = topic_rows(90, labels=labels)
    file = rows_file([*rows, *({**row, "label": labels[0]} for row in rows[1:4])])
    held = topic_rows(40, seed=3, labels=labels)
    flags = ["--eval_file", str(rows_file(held, "eval.jsonl")), "--label_smoothing", "0.1", "--epochs", "2"]
    assert train(base, tmp_path / "run", file, *flags, "--balance", "class_weights") == 0
    engine = Engine.load(tmp_path / "run/checkpoint")
    probs = engine.probabilities(engine.score(engine.encode([row["text"] for row in held])))
    truth = [labels.index(row["label"]) for row in held]
    lines = list(csv.DictReader((tmp_path / "run/metrics.csv").open()))
    last, measured = lines[-1], read_metrics(tmp_path / "run")["eval"]
    accuracy = float((probs.argmax(axis=1) == truth).mean())
    assert float(last["classification/accuracy"]) == float(last["valid_mean_token_accuracy"]) == accuracy
    loss = -np.log(probs[np.arange(len(held)), truth]).mean()
    assert measured["loss"] == pytest.approx(loss, abs=1e-5)
    assert float(last["valid_loss"]) == pytest.approx(loss, rel=1e-4)
    binary = [f"classification/{name}" for name in ("precision", "recall", "f1.0", "auroc", "auprc")]
    assert list(last)[7:] == (binary if len(labels) == 2 else [])
    assert all(last.values())
    assert "nan" not in (tmp_path / "run/metrics.csv").read_text()


def test_tokens_are_those_of_the_rows_without_padding(finished: Path) -> None:
    effort = read_metrics(finished)["train"]
    encoder = Engine.load(finished / "checkpoint").encoder
    held = read_metrics(finished)["eval"]["rows"]
    every = sum(map(len, encoder.encode([row["text"] for row in topic_rows(150)])))
    share = effort["tokens"] / effort["epochs"] / every
    assert share == pytest.approx(1 - held / 150, abs=0.03)
    [*_, (last, _)] = read_events(finished / "events.jsonl")
    assert last.data is not None and last.data["tokens"] == effort["tokens"]


def test_it_leaves_plots_card_settings_and_no_state(finished: Path) -> None:
    for name in ("curves.png", "confusion.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    assert not (finished / "state").exists()
    settings = yaml.safe_load((finished / "checkpoint/train_config.yaml").read_text())
    assert "auto" not in {settings[name] for name in ("epochs", "batch_size", "learning_rate", "max_length", "metric")}
    assert "billing" in (finished / "checkpoint/README.md").read_text()
    assert [path.suffix for path in (finished / "checkpoint").iterdir()].count(".safetensors") == 2


def test_the_checkpoint_scores_as_measured(finished: Path) -> None:
    engine = Engine.load(finished / "checkpoint")
    probs = engine.probabilities(engine.score(engine.encode(["where is my parcel", "my card was charged"])))
    assert [engine.manifest.labels[k] for k in probs.argmax(axis=1)] == ["shipping", "billing"]


def test_the_same_command_again_changes_nothing(finished: Path, base: Path) -> None:
    before = (finished / "metrics.json").stat().st_mtime_ns
    folder = finished.parent
    assert train(base, finished, folder / "train.jsonl", "--test_file", str(folder / "test.jsonl")) == 0
    assert (finished / "metrics.json").stat().st_mtime_ns == before


def test_a_checkpoint_can_be_trained_on(finished: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    file = rows_file(topic_rows(60, seed=5))
    gently = ("--epochs", "1", "--learning_rate", "1e-4", "--head_learning_rate", "1e-4")
    assert train(finished / "checkpoint", tmp_path / "second", file, *gently) == 0
    assert read_metrics(tmp_path / "second")["history"][0]["accuracy"] >= 0.8  # it went on, it did not start anew


def test_lora_keeps_the_adapter_alone(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    flags = ("--lora.r", "4", "--epochs", "12", "--early_stopping_patience", "12")
    assert train(base, tmp_path / "run", rows_file(topic_rows(150)), *flags) == 0
    checkpoint = tmp_path / "run/checkpoint"
    names = {path.name for path in checkpoint.glob("*.safetensors")}
    assert names == {"adapter_model.safetensors", "head.safetensors"}
    assert read_manifest(checkpoint).base_sha256
    losses = [float(row["train_loss"]) for row in csv.DictReader((tmp_path / "run" / "metrics.csv").open())]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    # and an adapter may be the base of a further run, adapter or full
    again = train(checkpoint, tmp_path / "on", rows_file(topic_rows(60), "on.jsonl"), "--lora.r", "2", "--epochs", "1")
    assert again == 0
    assert Engine.load(tmp_path / "on/checkpoint").score(Engine.load(checkpoint).encode(["help"])).shape == (1, 3)


def test_dora(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    flags = ("--lora.r", "4", "--lora.use_dora", "true", "--lora.target_modules", "[query, value]", "--epochs", "1")
    assert train(base, tmp_path / "run", rows_file(topic_rows(60)), *flags) == 0


def test_multi_label(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    one, two = topic_rows(120, seed=1), topic_rows(120, seed=2, labels=("shipping", "technical", "billing"))
    rows = [{"text": a["text"], "label": [a["label"]]} for a in one]
    rows += [
        {"text": f"{a['text']} {b['text']}", "label": sorted({a["label"], b["label"]})}
        for a, b in zip(one, two, strict=True)
    ]
    rows += [{"text": "hello yes", "label": []}, {"text": "no hello a", "label": []}]
    assert train(base, tmp_path / "run", rows_file(rows)) == 0
    manifest = read_manifest(tmp_path / "run/checkpoint")
    assert manifest.multi_label
    assert manifest.thresholds is not None and len(manifest.thresholds) == 3
    assert read_metrics(tmp_path / "run")["eval"]["f1_macro"] >= 0.7


def test_prompt_and_completion_rows_keep_their_surface(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    rows = [{"prompt": row["text"] + "\n\n###\n\n", "completion": " " + row["label"]} for row in topic_rows(90)]
    assert train(base, tmp_path / "run", rows_file(rows), "--epochs", "1") == 0
    manifest = read_manifest(tmp_path / "run/checkpoint")
    assert manifest.surfaces["billing"] == " billing"
    engine = Engine.load(tmp_path / "run/checkpoint")
    plain, marked = engine.encode(["where is my parcel", "where is my parcel\n\n###\n\n\n\n###\n\n"])
    assert plain == marked


@pytest.mark.parametrize("balance", ["undersample", "class_weights"])
def test_balance(base: Path, tmp_path: Path, rows_file: WriteRows, balance: str) -> None:
    rows = topic_rows(90, labels=("billing", "shipping")) + topic_rows(10, seed=3, labels=("technical",))
    assert train(base, tmp_path / "run", rows_file(rows), "--balance", balance, "--epochs", "1") == 0
    kept = read_metrics(tmp_path / "run")["train"]["rows"]
    assert kept == (27 if balance == "undersample" else 90)


def test_parts_split_off_do_not_overlap(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    flags = ("--test_fraction", "0.2", "--eval_fraction", "0.1", "--epochs", "1")
    assert train(base, tmp_path / "run", rows_file(topic_rows(100)), *flags) == 0
    metrics = read_metrics(tmp_path / "run")
    assert metrics["train"]["rows"] + metrics["eval"]["rows"] + metrics["test"]["rows"] == 100
    assert metrics["test"]["rows"] == pytest.approx(20, abs=3)
    assert metrics["eval"]["rows"] == pytest.approx(10, abs=3)


def test_early_stopping_keeps_the_best_epoch(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    flags = ("--epochs", "30", "--early_stopping_patience", "2", "--metric", "loss")
    assert train(base, tmp_path / "run", rows_file(topic_rows(90)), *flags) == 0
    metrics = read_metrics(tmp_path / "run")
    losses = [epoch["loss"] for epoch in metrics["history"]]
    assert metrics["train"]["best_epoch"] == losses.index(min(losses)) + 1
    if len(losses) < 30:
        assert len(losses) == metrics["train"]["best_epoch"] + 2


def test_accumulated_passes_give_the_same_run(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    file = rows_file(topic_rows(60))
    losses = []
    for name, tokens in (("whole", "100000"), ("parts", "24")):
        flags = ("--dropout", "0", "--precision", "float32", "--epochs", "2", "--max_batch_tokens", tokens)
        assert train(base, tmp_path / name, file, *flags) == 0
        losses.append([float(row["train_loss"]) for row in csv.DictReader((tmp_path / name / "metrics.csv").open())])
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    status = main(list(arguments))
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert status == 1
    assert len(lines) == 1 and error.endswith(f"{lines[0]}\n")
    assert "Traceback" not in error
    return lines[0]


@pytest.fixture
def given(base: Path, tmp_path: Path, rows_file: WriteRows) -> list[str]:
    file = rows_file(topic_rows(30))
    return ["--base_model", str(base), "--train_file", str(file), "--output_dir", str(tmp_path / "run")]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--epoch", "3"], "epoch"),
        (["--epochs", "0"], "epochs"),
        (["--epochs", "many"], "epochs"),
        (["--train_file", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--eval_file", "nowhere.csv"], "nowhere.csv"),
        (["--base_model", "./no/such/folder"], "no/such/folder"),
        (["--max_length", "4096"], "4096"),
        (["--lora.target_modules", "[qkv]"], "query"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_settings(given: list[str], capsys: pytest.CaptureFixture[str], flags: list[str], said: str) -> None:
    assert said in failing(capsys, *given, *flags)


def test_base_that_the_hub_does_not_have(
    given: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "someone/something" in failing(capsys, *given, "--base_model", "someone/something")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['{"text": "a", "label": "x"}'] * 30, "only the label 'x'"),
        (['{"text": "a", "label": "x"}', "not json"], "bad.jsonl:2"),
        (['{"text": "a", "label": "x"}', '{"text": "b", "label": " "}'], "bad.jsonl:2"),
        (["[]"], "bad.jsonl"),
    ],
)
def test_unusable_rows(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], said: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines))
    assert said in failing(capsys, *given, "--train_file", str(path))


def test_evaluation_label_unknown_to_training(
    given: list[str], rows_file: WriteRows, capsys: pytest.CaptureFixture[str]
) -> None:
    path = rows_file([*topic_rows(3), {"text": "hello", "label": "greeting"}], "eval.jsonl")
    error = failing(capsys, *given, "--eval_file", str(path))
    assert f"{path}:4: " in error
    assert "greeting" in error


def test_folder_of_another_run_is_left_alone(
    finished: Path, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(str(path) for path in finished.rglob("*"))
    assert "another run" in failing(capsys, *given, "--output_dir", str(finished))
    assert "not a run folder" in failing(capsys, *given, "--output_dir", str(finished / "checkpoint"))
    assert sorted(str(path) for path in finished.rglob("*")) == before


def test_loss_that_is_not_a_number(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    error = failing(capsys, *given, "--learning_rate", "1e30", "--head_learning_rate", "1e30", "--epochs", "2")
    assert "learning_rate" in error


def test_the_error_is_the_last_line_and_one_line(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "two\nlines.jsonl"
    error = failing(capsys, *given, "--train_file", str(path))
    assert error.startswith("error: ") and "two lines.jsonl" in error


def test_out_of_memory(given: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("torch.nn.functional.cross_entropy", exhausted)
    assert "max_batch_tokens" in failing(capsys, *given)
