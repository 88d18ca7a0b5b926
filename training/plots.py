"""What a finished run and a measurement show: training curves, confusion matrix, ranks."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RANKS = (1, 2, 3, 5, 10, 20, 50)
"""First ranks of the bars of `draw_first_ranks`."""


def draw_curves(steps: Path, target: Path) -> None:
    """Plot metrics.csv: training loss, evaluation loss and accuracy over steps."""
    with steps.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure = _figure(9, 3.6)
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
    figure = _figure(side, side)
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


def draw_first_ranks(columns: Mapping[str, Sequence[int]], target: Path) -> None:
    """Plot at which rank each query's first relevant passage stands, side by side for what is compared.

    Args:
        columns: for each thing compared, the rank of each query that has a relevant passage; 0: it was not found.
        target: the picture's file.
    """
    deepest = max(1, *(max(ranks) for ranks in columns.values()))
    starts = [rank for rank in _RANKS if rank <= deepest]
    ends = [*(start - 1 for start in starts[1:]), max(deepest, starts[-1])]
    names = [str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)] + ["not found"]
    figure = _figure(7, 3.6)
    axis, width = figure.subplots(), 0.8 / len(columns)
    for number, (name, ranks) in enumerate(columns.items()):
        found = np.asarray(ranks)
        shares = [np.mean((found >= a) & (found <= b)) for a, b in zip(starts, ends, strict=True)]
        places = np.arange(len(names)) + (number - (len(columns) - 1) / 2) * width
        axis.bar(places, [*shares, np.mean(found == 0)], width, label=name)
    axis.set_xticks(range(len(names)), names)
    axis.set(xlabel="rank of the first relevant passage", ylabel="share of queries")
    for text in axis.legend().get_texts():
        text.set_parse_math(False)  # a folder's name may hold dollar signs
    axis.grid(axis="y", alpha=0.3)
    figure.savefig(target, dpi=120)


def _figure(width: float, height: float) -> "Figure":
    """An empty picture, sides in inches."""
    from matplotlib.figure import Figure  # half a second, at the end of a run instead of before its first step

    return Figure(figsize=(width, height), layout="constrained")
