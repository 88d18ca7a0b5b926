"""The training command with rankings: it learns, leaves what it should, and says what is wrong."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from tests.tiny import make_base
from tests.training.conftest import WriteRows, candidates, topic_queries, topic_rows
from tests.training.test_resume import kill, results, saved_step, stop_when
from training.config import LossName, validate_config
from training.engine import Engine, Ranking
from training.losses import LOSSES
from training.manifest import read_manifest
from training.model import build_network
from training.ranks import ranking_figures
from training.rerank_rows import read_rerank
from training.train import main

ROOT = Path(__file__).parents[2]
RANDOM = 0.55
"""ndcg@10 of one relevant passage among six in random order."""


def command(base: Path, output: Path, file: Path, *flags: str) -> list[str]:
    fixed = {
        "task": "rerank",
        "base_model": str(base),
        "train_file": str(file),
        "output_dir": str(output),
        "negatives.mining": "none",
        "pooling": "mean",
        "precision": "float32",
        "learning_rate": "0.005",
        "epochs": "3",
        "batch_size": "16",
        "average_decay": "0",
        "freeze_embeddings": "false",
    }
    return [*(part for name, value in fixed.items() for part in (f"--{name}", value)), *flags]


def train(base: Path, output: Path, file: Path, *flags: str) -> dict[str, Any]:
    assert main(command(base, output, file, *flags)) == 0
    return json.loads((output / "metrics.json").read_text())


def steps(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").open()))


@pytest.fixture(scope="module")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    for name, count, seed in (("train", 100, 0), ("test", 30, 1)):
        lines = (json.dumps(row) + "\n" for row in topic_queries(count, seed))
        (folder / f"{name}.jsonl").write_text("".join(lines))
    train(base, folder / "run", folder / "train.jsonl", "--test_file", str(folder / "test.jsonl"))
    return folder / "run"


@pytest.mark.parametrize("wrong", [False, True])
def test_training_that_does_harm_is_told(
    wrong: bool, tmp_path: Path, rows_file: WriteRows, caplog: pytest.LogCaptureFixture
) -> None:
    base = make_base(tmp_path / "base")
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    rows = topic_queries(100)
    if wrong:
        rows = [row | dict(zip(("relevant_passages", "hard_negatives"), sides(row)[::-1], strict=True)) for row in rows]
    file, test = rows_file(rows, "train.jsonl"), rows_file(topic_queries(30, 1), "test.jsonl")
    metrics = train(base, tmp_path / "run", file, "--test_file", str(test), "--cross_layers", "0")
    assert metrics["cosine of the base"]["rows"] == 30
    assert (metrics["cosine of the base"]["ndcg@10"] > metrics["test"]["ndcg@10"]) == wrong
    assert any("training did harm" in record.message for record in caplog.records) == wrong


def sides(row: dict[str, Any]) -> tuple[list[str], list[str]]:
    return row["relevant_passages"], row["hard_negatives"]


def test_it_learns(finished: Path) -> None:
    measured = json.loads((finished / "metrics.json").read_text())["test"]
    assert measured["ndcg@10"] > 0.8
    assert measured["rows"] == measured["queries"] == len(measured["first_ranks"]) == 30
    assert measured["accuracy"] == measured["first_ranks"].count(1) / 30


def test_step_metrics_have_the_figures_of_a_ranking(finished: Path) -> None:
    rows, metrics = steps(finished), json.loads((finished / "metrics.json").read_text())
    assert list(rows[0])[5:] == ["ranking/ndcg@10", "ranking/mrr@10", "ranking/map", "ranking/accuracy@1"]
    assert [int(row["step"]) for row in rows] == list(range(1, metrics["train"]["steps"] + 1))
    assert all(row["train_loss"] and row["train_accuracy"] for row in rows)
    measured = [row for row in rows if row["valid_loss"]]
    assert len(measured) == metrics["train"]["epochs"] == len(metrics["history"])
    for name in ("ndcg@10", "mrr@10", "map", "accuracy@1"):
        assert float(rows[-1][f"ranking/{name}"]) == pytest.approx(metrics["eval"][name], abs=1e-5)
    kept = metrics["history"][metrics["train"]["best_epoch"] - 1]
    assert float(rows[-1]["valid_loss"]) == pytest.approx(kept["loss"], abs=1e-4)


def test_it_leaves_plots_card_settings_and_no_state(finished: Path) -> None:
    for name in ("curves.png", "ranks.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    assert not (finished / "state").exists()
    settings = yaml.safe_load((finished / "checkpoint/train_config.yaml").read_text())
    assert [name for name, value in settings.items() if value == "auto"] == ["problem"]  # which is a classifier's
    assert (settings["metric"], settings["pooling"], settings["cross_layers"]) == ("ndcg@10", "mean", None)
    card: Any = ModelCard((finished / "checkpoint/README.md").read_text()).data
    assert card.pipeline_tag == "text-ranking"
    assert (finished / "checkpoint/metrics.json").read_text() == (finished / "metrics.json").read_text()
    manifest = read_manifest(finished / "checkpoint")
    assert (manifest.task, manifest.labels, manifest.problem_type) == ("rerank", (), None)
    assert (manifest.temperature, manifest.bias) != (1.0, 0.0)
    assert manifest.metrics["ndcg@10"] > 0.8


def test_the_checkpoint_ranks_as_measured(finished: Path) -> None:
    engine = Engine.load(finished / "checkpoint")
    rows = read_rerank(finished.parent / "test.jsonl").rows
    scores = []
    for row in rows:
        plan = Ranking.plan(engine.encoder, engine.manifest, row.query, row.passages)
        scores.append(plan.relevance(engine.score(plan.items)))
    found = ranking_figures(scores, [row.grades for row in rows], [row.missed for row in rows])
    measured = json.loads((finished / "metrics.json").read_text())["test"]
    assert found | {"rows": 30} == measured
    relevant = np.concatenate([row.grades for row in rows]) > 0
    assert np.concatenate(scores)[relevant].mean() > 0.6
    assert np.concatenate(scores)[~relevant].mean() < 0.4


def test_the_same_command_again_changes_nothing(finished: Path, base: Path) -> None:
    before = (finished / "metrics.json").stat().st_mtime_ns
    train(base, finished, finished.parent / "train.jsonl", "--test_file", str(finished.parent / "test.jsonl"))
    assert (finished / "metrics.json").stat().st_mtime_ns == before


def test_a_second_stage_goes_on_from_the_first(finished: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    file = rows_file(topic_queries(40, seed=5))
    flags = ("--epochs", "1", "--learning_rate", "1e-9", "--pooling", "auto")
    train(finished / "checkpoint", tmp_path / "second", file, *flags)
    first, second = (Engine.load(run / "checkpoint") for run in (finished, tmp_path / "second"))
    assert second.manifest.pooling == "mean"
    items = first.encoder.encode_pairs(["my card"], [["refund the invoice", "parcel"]])[0]
    pairs = [piece for pieces in items for piece in pieces]
    assert first.score(pairs) == pytest.approx(second.score(pairs), abs=1e-4)


def test_a_classifier_may_become_a_reranker(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    classify = ["--base_model", str(base), "--train_file", str(rows_file(topic_rows(40), "texts.jsonl"))]
    classify += ["--precision", "float32", "--epochs", "1"]
    assert main([*classify, "--output_dir", str(tmp_path / "first")]) == 0
    train(tmp_path / "first/checkpoint", tmp_path / "second", rows_file(topic_queries(30)), "--epochs", "1")
    assert read_manifest(tmp_path / "second/checkpoint").task == "rerank"


def test_lora_keeps_the_adapter_alone(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    file = rows_file(topic_queries(100))
    flags = ("--lora.r", "8", "--learning_rate", "0.01", "--epochs", "6", "--dropout", "0")
    measured = train(base, tmp_path / "run", file, *flags)
    checkpoint = tmp_path / "run/checkpoint"
    assert {path.name for path in checkpoint.glob("*.safetensors")} == {"adapter_model.safetensors", "head.safetensors"}
    assert measured["eval"]["ndcg@10"] > 0.8
    again = train(checkpoint, tmp_path / "on", file, "--lora.r", "2", "--epochs", "1", "--learning_rate", "1e-9")
    assert again["eval"]["ndcg@10"] == pytest.approx(measured["eval"]["ndcg@10"])


@pytest.mark.parametrize(("flags", "layers"), [((), 0), (("--cross_layers", "1"), 1)])
def test_an_embedders_texts_are_kept_apart_and_stay_so(
    tmp_path: Path, rows_file: WriteRows, flags: tuple[str, ...], layers: int
) -> None:
    base = make_base(tmp_path / "base")
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}')
    train(base, tmp_path / "run", rows_file(topic_queries(40)), "--epochs", "1", "--pooling", "auto", *flags)
    manifest = read_manifest(tmp_path / "run/checkpoint")
    assert (manifest.cross_layers, manifest.pooling) == (layers, "mean")
    train(tmp_path / "run/checkpoint", tmp_path / "on", rows_file(topic_queries(40)), "--epochs", "1")
    assert read_manifest(tmp_path / "on/checkpoint").cross_layers == layers


@pytest.mark.parametrize(("task", "dropout"), [("classify", 0.3), ("rerank", 0.0)])
def test_attention_dropout_is_for_classifiers(tmp_path: Path, task: str, dropout: float) -> None:
    base = make_base(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"attention_probs_dropout_prob": 0.3}))
    settings = {"task": task, "train_file": "f", "output_dir": "d", "base_model": str(base)}
    start = build_network(validate_config(settings), ("a", "b"), 10)
    assert start.network.backbone.config.attention_probs_dropout_prob == dropout
    asked = validate_config(settings | {"attention_dropout": task == "rerank"})
    assert build_network(asked, ("a", "b"), 10).network.backbone.config.attention_probs_dropout_prob == 0.3 - dropout


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_falls(base: Path, tmp_path: Path, rows_file: WriteRows, loss: LossName) -> None:
    rows = [
        {"query": row["query"], "document": text, "score": grade}
        for row in topic_queries(60, others=3)
        for text, grade in zip(row["relevant_passages"] + row["hard_negatives"], (2.5, -1, -2, -1), strict=True)
    ]
    if loss != "margin_mse":
        rows = [row | {"score": max(row["score"], 0)} for row in rows]
    rows = list({(row["query"], row["document"]): row for row in rows}.values())
    measured = train(base, tmp_path / "run", rows_file(rows), "--loss", loss, "--early_stopping_patience", "null")
    losses = [float(row["train_loss"]) for row in steps(tmp_path / "run")]
    assert len(losses) == measured["train"]["steps"] == 12  # four an epoch
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])


Shape = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


def cohere(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return rows


def graded_pairs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"query": row["query"], "document": text, "score": 2 * (text in row["relevant_passages"])}
        for row in rows
        for text in [*row["relevant_passages"], *row["hard_negatives"]]
    ]


def triplets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"query": row["query"], "positive": row["relevant_passages"][0], "negative": text}
        for row in rows
        for text in row["hard_negatives"]
    ]


@pytest.mark.parametrize("shape", [cohere, graded_pairs, triplets])
def test_every_shape_of_rows(base: Path, tmp_path: Path, rows_file: WriteRows, shape: Shape) -> None:
    test = rows_file(shape(topic_queries(10, seed=1)), "test.jsonl")
    flags = ("--epochs", "1", "--test_file", str(test))
    measured = train(base, tmp_path / "run", rows_file(shape(topic_queries(40))), *flags)
    assert [measured[part]["rows"] for part in ("train", "eval", "test")] == [36, 4, 10]


def test_candidate_lists_with_judgements(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    lists, judged = candidates(topic_queries(40))
    qrels = tmp_path / "qrels.txt"
    qrels.write_text(judged + "0 0 elsewhere 1\n")
    measured = train(base, tmp_path / "run", rows_file(lists), "--qrels", str(qrels), "--epochs", "1")
    assert [measured[part]["rows"] for part in ("train", "eval")] == [36, 4]
    assert "`qrels.txt`: sha256" in (tmp_path / "run/checkpoint/README.md").read_text()


def test_passes_too_small_for_a_batch_give_the_same_run(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    file, losses = rows_file(topic_queries(40, others=12)), list[list[float]]()
    for tokens in ("100000", "300"):
        flags = ("--dropout", "0", "--epochs", "2", "--max_batch_tokens", tokens, "--learning_rate", "0.001")
        train(base, tmp_path / tokens, file, *flags)
        losses.append([float(row["train_loss"]) for row in steps(tmp_path / tokens)])
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)


@pytest.mark.long
def test_a_killed_run_ends_as_an_undisturbed_one(base: Path, tmp_path: Path, rows_file: WriteRows) -> None:
    file = rows_file(topic_queries(200))  # 180 training queries: 12 steps an epoch
    flags = ("--save_seconds", "0.05", "--learning_rate", "0.001", "--group_size", "4", "--dropout", "0.2")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(base, whole, file, *flags)
    process = subprocess.Popen(
        [sys.executable, "-m", "training.train", *command(base, broken, file, *flags)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert stop_when(process, lambda: saved_step(broken) >= 14, kill)
    train(base, broken, file, *flags)
    assert results(broken) == results(whole)


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 1
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in error
    return lines[0]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--metric", "accuracy"), "metric accuracy is not of task rerank; choose one of ndcg@10, mrr@10"),
        (("--metric", "ndcg@20"), "metric"),
        (("--qrels", "nowhere.txt"), "nowhere.txt: cannot be read"),
        (("--loss", "hinge"), "loss"),
        (("--max_length", "4"), "max_length 4 leaves no room for a query and a passage; raise it"),
        (("--cross_layers", "3"), "cross_layers 3 is more than this bert allows (2)"),
        (("--group_size", "1"), "group_size"),
    ],
)
def test_wrong_settings(
    base: Path,
    tmp_path: Path,
    rows_file: WriteRows,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    said: str,
) -> None:
    assert said in failing(capsys, *command(base, tmp_path / "run", rows_file(topic_queries(30)), *flags))
    assert not (tmp_path / "run/checkpoint").exists()


def test_rows_that_are_no_rankings(
    base: Path, finished: Path, tmp_path: Path, rows_file: WriteRows, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(rows: list[dict[str, Any]], *flags: str) -> str:
        return failing(capsys, *command(base, tmp_path / "run", rows_file(rows), *flags))

    lists, judged = candidates(topic_queries(20))
    qrels = tmp_path / "qrels.txt"
    qrels.write_text(judged.replace(" 1\n", " 0\n"))
    assert "train.jsonl: no evaluation query has both relevant passages" in said(lists, "--qrels", str(qrels))
    assert "train.jsonl: candidate lists need judgements" in said(lists)
    assert "train.jsonl" in said(topic_rows(20))
    assert "train.jsonl:2: " in said([topic_queries(1)[0], {"query": "a", "relevant_passages": []}])
    # The folder that the failures left is no reason to refuse the mended command, nor does one harm another run.
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    file = rows_file(topic_queries(30))
    assert "holds another run" in failing(capsys, *command(base, finished, file, "--epochs", "1"))
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before
    train(base, tmp_path / "run", file, "--epochs", "1")


def test_changed_judgements_are_noticed(
    base: Path,
    tmp_path: Path,
    rows_file: WriteRows,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lists, judged = candidates(topic_queries(30))
    qrels = tmp_path / "qrels.txt"
    qrels.write_text(judged)
    given = command(base, tmp_path / "run", rows_file(lists), "--qrels", str(qrels))

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("training.run.finish", interrupt)
        assert main(given) == 130
    qrels.write_text(judged + "0 0 elsewhere 1\n")
    assert "qrels.txt: the file has changed since this run began" in failing(capsys, *given)
