"""What a finished run leaves for people: curves, confusion matrix, model card, tables."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCardData
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from training.manifest import Manifest

_HEADLINES = {
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


def draw_curves(steps: Path, target: Path) -> None:
    """Plot metrics.csv: training loss, evaluation loss and accuracy over steps."""
    with steps.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    at = [int(row["step"]) for row in rows]
    loss = np.array([float(row["train_loss"]) for row in rows])
    window = max(1, len(loss) // 50)
    smooth = np.convolve(np.pad(loss, (window - 1, 0), mode="edge"), np.ones(window) / window, mode="valid")
    left.plot(at, smooth, label=f"training (mean of {window})" if window > 1 else "training")
    held = [row for row in rows if row["valid_loss"]]
    where = [int(row["step"]) for row in held]
    left.plot(where, [float(row["valid_loss"]) for row in held], "o-", label="evaluation")
    left.set(xlabel="step", ylabel="loss", ylim=(0, None))
    right.plot(where, [float(row["valid_mean_token_accuracy"]) for row in held], "o-", color="C1", label="evaluation")
    right.set(xlabel="step", ylabel="accuracy")
    for axis in (left, right):
        axis.legend()
        axis.grid(alpha=0.3)
    figure.savefig(target, dpi=120)


def draw_confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str], target: Path, *, multi_label: bool) -> None:
    """Plot a confusion matrix, rows normalised; numbers are printed while they stay readable."""
    counts = np.asarray(matrix, dtype=float)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(4 + 0.32 * len(labels), 24)
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(labels)), labels, rotation=90, parse_math=False)  # a label may hold dollar signs
    axis.set_yticks(range(len(labels)), labels, parse_math=False)
    axis.set(
        xlabel="predicted", ylabel="true", title="labels predicted together with true ones" if multi_label else None
    )
    if len(labels) <= 20:
        for i, j in zip(*np.nonzero(counts), strict=True):
            axis.text(j, i, f"{counts[i, j]:.0f}", ha="center", va="center", color="w" if share[i, j] > 0.6 else "k")
    figure.savefig(target, dpi=110)


def metrics_table(columns: dict[str, dict[str, Any]]) -> Table:
    """Headline figures side by side, one column per thing measured."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("metric")
    for name in columns:
        table.add_column(name, justify="right")
    for key, title in _HEADLINES.items():
        if any(key in figures for figures in columns.values()):
            table.add_row(title, *(f"{f[key]:.4f}" if key in f else "" for f in columns.values()))
    return table


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
    scores = {name: metrics[part][name] for name in ("accuracy", "f1_macro", "f1_weighted") if name in metrics[part]}
    data = ModelCardData(
        model_name="classifier",
        base_model=manifest.base_model
        if "/" in manifest.base_model and not Path(manifest.base_model).exists()
        else None,
        pipeline_tag="text-classification",
        tags=["encore"],
        eval_results=[
            EvalResult("text-classification", "training file", f"{part} rows", name, round(value, 4))
            for name, value in scores.items()
        ],
    )
    measured = "\n".join(f"| {_HEADLINES[k]} | {metrics[part][k]:.4f} |" for k in _HEADLINES if k in metrics[part])
    prints = "\n".join(f"- `{Path(name).name}`: sha256 `{digest}`" for name, digest in files.items())
    kind = "any number of" if manifest.multi_label else "one of"
    return f"""---
{data.to_yaml()}
---

# Text classifier

Gives a text {kind} {len(manifest.labels)} labels: {", ".join(f"`{label}`" for label in manifest.labels)}.
Fine-tuned from `{manifest.base_model}`{" (LoRA adapter)" if manifest.adapter else ""}; texts are cut to
{manifest.max_length} tokens; probabilities are calibrated with temperature {manifest.temperature:.3f}.

## Measured on the {metrics[part]["rows"]} {part} rows

| metric | value |
| --- | --- |
{measured}

## Data

{prints}

Trained on {metrics["train"]["rows"]} rows.

## Settings

```yaml
{settings}```
"""
