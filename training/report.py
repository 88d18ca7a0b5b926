"""What a finished run and a measurement say in words: tables and the model card."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from rich import box
from rich.console import Console
from rich.table import Table

from training.manifest import Manifest

FINE_TUNED = "fine-tuned"
"""The column of the checkpoint that is measured, beside those of baselines."""
_HEADLINES = {
    "ndcg@10": "ndcg@10",
    "mrr@10": "mrr@10",
    "map": "map",
    "accuracy@1": "accuracy@1",
    "accuracy@3": "accuracy@3",
    "recall@10": "recall@10",
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "f1_macro": "macro F1",
    "precision_macro": "macro precision",
    "recall_macro": "macro recall",
    "f1_weighted": "weighted F1",
    "precision_weighted": "weighted precision",
    "recall_weighted": "weighted recall",
    "f1_micro": "micro F1",
    "auroc": "AUROC",
    "loss": "log loss",
    "ece_uncalibrated": "calibration error, raw",
    "ece": "calibration error",
}


def metrics_table(columns: dict[str, dict[str, Any]]) -> Table:
    """Headline figures side by side, one column per thing measured."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("metric")
    for name in columns:
        table.add_column(name, justify="right")
    for key in _headlines(*columns.values()):
        table.add_row(_HEADLINES[key], *(f"{f[key]:.4f}" if key in f else "" for f in columns.values()))
    return table


def _headlines(*columns: dict[str, Any]) -> list[str]:
    """Names of the figures to show; a ranking's accuracy is its accuracy@1, which need not be shown twice."""
    known = {name for figures in columns for name in figures}
    return [key for key in _HEADLINES if key in known and not (key == "accuracy" and "accuracy@1" in known)]


def harm(mine: dict[str, Any], baselines: dict[str, dict[str, Any]]) -> list[tuple[str, str, float]]:
    """Baselines that do better than a fine-tuned model: each one's name, the figure that tells, and its value."""
    figure = "ndcg@10" if "ndcg@10" in mine else "accuracy"
    return [(name, figure, found[figure]) for name, found in baselines.items() if found[figure] > mine[figure]]


def label_table(per_label: Sequence[dict[str, Any]]) -> Table:
    """Precision, recall, F1 and rows of each label."""
    table = Table("label", box=box.SIMPLE_HEAD)
    for name in ("precision", "recall", "F1", "rows"):
        table.add_column(name, justify="right")
    for row in per_label:
        figures = (f"{row[k]:.3f}" for k in ("precision", "recall", "f1"))
        table.add_row(row["label"], *figures, str(row["support"]))
    return table


def show(*tables: Table) -> None:
    """Print tables to stdout, as wide as they need to be where it is not a terminal."""
    width = None if Console().is_terminal else 160
    console = Console(width=width, markup=False, emoji=False)  # labels are shown as they are
    for table in tables:
        console.print(table)


def model_card(manifest: Manifest, metrics: dict[str, Any], settings: str, files: dict[str, str]) -> str:
    """The README.md of a checkpoint: what it is, how it did, how it was made."""
    part = "test" if "test" in metrics else "eval"
    ranks = manifest.task == "rerank"
    names = ("ndcg@10", "mrr@10", "accuracy@1") if ranks else ("accuracy", "f1_macro", "f1_weighted")
    kind, unit = ("text-ranking", "queries") if ranks else ("text-classification", "rows")
    data = ModelCardData(
        model_name="reranker" if ranks else "classifier",
        base_model=manifest.base_model
        if "/" in manifest.base_model and not Path(manifest.base_model).exists()
        else None,
        pipeline_tag=kind,
        tags=["encore"],
        eval_results=[
            EvalResult(kind, "training file", f"{part} {unit}", name, round(metrics[part][name], 4)) for name in names
        ],
    )
    measured = "\n".join(f"| {_HEADLINES[k]} | {metrics[part][k]:.4f} |" for k in _headlines(metrics[part]))
    prints = "\n".join(f"- `{Path(name).name}`: sha256 `{digest}`" for name, digest in files.items())
    return f"""---
{data.to_yaml()}
---

{_what(manifest)}

## Measured on the {metrics[part]["rows"]} {part} {unit}

| metric | value |
| --- | --- |
{measured}

## Data

{prints}

Trained on {metrics["train"]["rows"]} {unit}.

## Settings

```yaml
{settings}```
"""


def _what(manifest: Manifest) -> str:
    base = f"Fine-tuned from `{manifest.base_model}`{' (LoRA adapter)' if manifest.adapter else ''}"
    if manifest.task == "rerank":
        return f"""# Reranker

Says how relevant a passage is to a query, from 0 to 1. {base}; query and passage take
{manifest.max_length} tokens together, the query at most half of them; longer passages are scored in pieces, of which
the best counts. Scores are calibrated with temperature {manifest.temperature:.3f} and bias {manifest.bias:.3f}."""
    kind = "any number of" if manifest.multi_label else "one of"
    return f"""# Text classifier

Gives a text {kind} {len(manifest.labels)} labels: {", ".join(f"`{label}`" for label in manifest.labels)}.
{base}; texts are cut to
{manifest.max_length} tokens; probabilities are calibrated with temperature {manifest.temperature:.3f}."""
