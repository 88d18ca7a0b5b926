from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from training.manifest import Manifest
from training.plots import draw_confusion, draw_curves, draw_first_ranks
from training.report import label_table, metrics_table, model_card, show

COLUMNS = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
FIGURES = {"rows": 30, "accuracy": 0.91234, "f1_macro": 0.9, "f1_weighted": 0.89, "loss": 0.3, "ece": 0.02}


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "problem_type": "single_label_classification",
        "labels": ("a", "b: c", "#d"),
        "max_length": 64,
        "pooling": "mean",
        "temperature": 1.25,
        "base_model": "sentence-transformers/all-MiniLM-L6-v2",
        "created_at": datetime(2026, 1, 2, tzinfo=UTC),
    }
    return Manifest(**(values | changes))


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        low, high = image.convert("L").getextrema()
        assert (low, high) != (255, 255)
        return image.size


@pytest.mark.parametrize("lines", [["1,0.9,0.5,0.8,0.6"], [f"{n},{1 / n},0.5,," for n in range(1, 300)]])
def test_curves_are_drawn(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "metrics.csv").write_text("\n".join([COLUMNS, *lines, "300,0.1,1,0.2,0.9"]) + "\n")
    draw_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert min(size_of(tmp_path / "curves.png")) > 300


@pytest.mark.parametrize("count", [2, 60])
@pytest.mark.parametrize("multi_label", [False, True])
def test_a_confusion_matrix_is_drawn(tmp_path: Path, count: int, multi_label: bool) -> None:
    matrix = np.random.default_rng(0).integers(0, 9, (count, count))
    matrix[0] = 0  # a label without rows
    labels = [f"label_{n} $x^ {{$" for n in range(count)]  # not a formula, whatever Matplotlib thinks
    draw_confusion(matrix.tolist(), labels, tmp_path / "confusion.png", multi_label=multi_label)
    assert min(size_of(tmp_path / "confusion.png")) > 400


@pytest.mark.parametrize("base", ["sentence-transformers/all-MiniLM-L6-v2", "folder/of/mine"])
def test_the_card_is_one_the_hub_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder/of/mine").mkdir(parents=True)
    metrics = {"train": {"rows": 270}, "eval": FIGURES | {"accuracy": 0.5}, "test": FIGURES}
    settings = yaml.safe_dump({"epochs": 3, "lora": None})
    text = model_card(manifest(base_model=base), metrics, settings, {"/home/me/rows.jsonl": "abc123"})
    card = ModelCard(text)
    data: Any = card.data
    assert data.base_model == (base if base.startswith("sentence") else None)
    assert data.pipeline_tag == "text-classification"
    assert {r.metric_type: r.metric_value for r in data.eval_results} == {
        "accuracy": 0.9123,
        "f1_macro": 0.9,
        "f1_weighted": 0.89,
    }
    for said in (
        "one of 3 labels",
        "`b: c`",
        "64 tokens",
        "1.250",
        "30 test rows",
        "| accuracy | 0.9123 |",
        "270 rows",
    ):
        assert said in card.text
    assert "- `rows.jsonl`: sha256 `abc123`" in card.text and "/home/me" not in card.text
    assert yaml.safe_load(card.text.split("```yaml\n")[1].split("```")[0]) == {"epochs": 3, "lora": None}


def test_the_card_without_test_rows_shows_the_evaluation() -> None:
    metrics = {"train": {"rows": 270}, "eval": FIGURES}
    changes = {"problem_type": "multi_label_classification", "adapter": True}
    card = ModelCard(model_card(manifest(**changes), metrics, "epochs: 3\n", {}))
    assert "30 eval rows" in card.text and "any number of 3 labels" in card.text and "(LoRA adapter)" in card.text


def test_tables_show_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    labels = [{"label": "a" * 60, "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "support": 7}]
    show(metrics_table({"eval": FIGURES, "test": {"accuracy": 1.0, "auroc": 0.75}}), label_table(labels))
    out = capsys.readouterr().out
    rows = {line.strip().split("  ")[0]: line.split()[-2:] for line in out.splitlines() if line.strip()}
    assert rows["accuracy"] == ["0.9123", "1.0000"]
    assert rows["AUROC"][-1] == "0.7500"
    assert "exact match" not in out
    assert "a" * 60 in out and "0.667" in out


@pytest.mark.parametrize("label", ["[/closed]", "[red]", ":smile:"])
def test_labels_are_shown_as_they_are(capsys: pytest.CaptureFixture[str], label: str) -> None:
    show(label_table([{"label": label, "precision": 0.5, "recall": 1.0, "f1": 0.5, "support": 7}]))
    assert label in capsys.readouterr().out


RANKING = {
    "rows": 30,
    "ndcg@10": 0.74321,
    "mrr@10": 0.7,
    "map": 0.65,
    "accuracy@1": 0.6,
    "accuracy@3": 0.8,
    "recall@10": 0.9,
    "accuracy": 0.6,
    "queries": 30,
    "queries_without_relevant": 0,
    "first_ranks": [1, 2, 0],
}


@pytest.mark.parametrize(
    "columns",
    [
        {"fine-tuned": [1, 1, 2, 5, 0], "bm25": [1, 3, 30, 1000, 0]},
        {"fine-tuned": [1]},
        {"fine-tuned": [0, 0]},
        {"fine-tuned": [50], "order": [49]},
        {"fine-tuned": [1, 0], "runs/$x^{$ _a": [3, 1], "_b": [2, 2], "c": [1, 1], "d": [9, 8]},
    ],
)
def test_first_ranks_are_drawn(tmp_path: Path, columns: dict[str, list[int]]) -> None:
    draw_first_ranks(columns, tmp_path / "ranks.png")
    assert min(size_of(tmp_path / "ranks.png")) > 300


def reranker(**changes: Any) -> Manifest:
    return manifest(task="rerank", problem_type=None, labels=(), bias=-0.5, **changes)


def test_the_card_of_a_reranker() -> None:
    metrics = {"train": {"rows": 270}, "eval": RANKING | {"ndcg@10": 0.1}, "test": RANKING}
    card = ModelCard(model_card(reranker(adapter=True), metrics, "epochs: 3\n", {"rows.jsonl": "abc", "q.txt": "def"}))
    data: Any = card.data
    assert data.pipeline_tag == "text-ranking"
    assert {r.metric_type: r.metric_value for r in data.eval_results} == {
        "ndcg@10": 0.7432,
        "mrr@10": 0.7,
        "accuracy@1": 0.6,
    }
    for said in (
        "# Reranker",
        "(LoRA adapter)",
        "64 tokens together",
        "temperature 1.250 and bias -0.500",
        "30 test queries",
        "Trained on 270 queries",
        "| ndcg@10 | 0.7432 |",
        "- `q.txt`: sha256 `def`",
    ):
        assert said in card.text
    rows = [line.split(" | ")[0] for line in card.text.splitlines() if line.startswith("| ")]
    assert rows[2:] == ["| ndcg@10", "| mrr@10", "| map", "| accuracy@1", "| accuracy@3", "| recall@10"]


def test_a_table_of_rankings(capsys: pytest.CaptureFixture[str]) -> None:
    show(metrics_table({"fine-tuned": RANKING, "bm25": {"ndcg@10": 0.5, "accuracy": 0.25, "accuracy@1": 0.25}}))
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert rows[0] == ["metric", "fine-tuned", "bm25"]
    assert rows[2] == ["ndcg@10", "0.7432", "0.5000"]
    assert rows[3] == ["mrr@10", "0.7000"]
    assert [row[0] for row in rows[2:]] == ["ndcg@10", "mrr@10", "map", "accuracy@1", "accuracy@3", "recall@10"]
