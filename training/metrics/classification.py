"""Everything said about a classifier's answers, over scikit-learn."""

from functools import partial
from typing import Any, cast

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    hamming_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from training.calibration import Floats

# 0 for a label never predicted or never true, without scikit-learn's warning; its stubs know only strings here.
_precision_recall: Any = partial(precision_recall_fscore_support, zero_division=cast(Any, 0))

_DESCRIPTION = "Accuracy, precision, recall and F1 (macro, weighted, per label), log loss and calibration error."


class ClassificationMetrics(evaluate.Metric):
    """Single- or multi-label figures from probabilities (n, labels) and 0/1 references (n, labels).

    Use: `ClassificationMetrics().compute(predictions=probabilities, references=targets, labels=[...])`, with
    `thresholds=[...]` for multi-label. All figures are fractions of one.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions: probabilities per label; references: 1 per label a row has, else 0",
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float32")),
                    "references": datasets.Sequence(datasets.Value("float32")),
                }
            ),
        )

    # `evaluate` passes by keyword what its base class takes as *; every module narrows the signature so.
    def _compute(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, predictions: Any, references: Any, labels: list[str], thresholds: list[float] | None = None
    ) -> dict[str, Any]:
        probs = np.asarray(predictions, dtype=np.float32)
        targets = np.asarray(references, dtype=np.float32)
        if thresholds is None:
            return single_label(probs, targets.argmax(axis=1), labels)
        return multi_label(probs, targets, labels, thresholds)


def single_label(probs: Floats, targets: NDArray[np.int64], labels: list[str]) -> dict[str, Any]:
    """Figures for one label per row; `targets` (n,) are positions in `labels`."""
    predicted = probs.argmax(axis=1)
    picked = np.clip(probs[np.arange(len(targets)), targets], 1e-12, 1)
    figures = {
        "accuracy": float(accuracy_score(targets, predicted)),
        **_averages(targets, predicted, ("macro", "weighted")),
        "loss": float(-np.log(picked).mean()),
        "ece": calibration_error(probs.max(axis=1), predicted == targets),
    }
    if len(labels) == 2:
        figures |= _binary(probs, targets)
    every = list(range(len(labels)))
    table = _precision_recall(targets, predicted, labels=every)
    return figures | {
        "per_label": _per_label(labels, table),
        "confusion_matrix": confusion_matrix(targets, predicted, labels=every).tolist(),
    }


def multi_label(probs: Floats, targets: Floats, labels: list[str], thresholds: list[float]) -> dict[str, Any]:
    """Figures for any number of labels per row. `accuracy` is the Hamming score, `exact_match` whole rows."""
    predicted = probs >= np.asarray(thresholds, dtype=np.float32)
    truth = targets > 0.5
    clipped = np.clip(probs.astype(np.float64), 1e-12, 1 - 1e-12)
    table = _precision_recall(truth, predicted)
    return {
        "accuracy": float(1 - hamming_loss(truth, predicted)),
        "exact_match": float((truth == predicted).all(axis=1).mean()),
        **_averages(truth, predicted, ("macro", "weighted", "micro")),
        "loss": float(-np.where(truth, np.log(clipped), np.log1p(-clipped)).mean()),
        "ece": calibration_error(probs.ravel(), truth.ravel()),
        "per_label": _per_label(labels, table),
        "confusion_matrix": [
            [int((truth[:, i] & predicted[:, j]).sum()) for j in range(len(labels))] for i in range(len(labels))
        ],
    }


def calibration_error(confidence: Floats, correct: NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error: mean gap of confidence and accuracy over equal-width bins (arXiv:1706.04599)."""
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    total = 0.0
    for number in np.unique(which):
        inside = which == number
        total += inside.mean() * abs(float(confidence[inside].mean()) - float(correct[inside].mean()))
    return float(total)


def _averages(truth: Any, predicted: Any, kinds: tuple[str, ...]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for kind in kinds:
        values = _precision_recall(truth, predicted, average=kind)
        figures |= {f"{name}_{kind}": float(v) for name, v in zip(("precision", "recall", "f1"), values, strict=False)}
    return figures


def _binary(probs: Floats, targets: NDArray[np.int64]) -> dict[str, float]:
    """Figures of the positive class, which is the more frequent one (as OpenAI's 2021 metrics had it)."""
    positive = int(np.bincount(targets, minlength=2).argmax())
    truth, score = targets == positive, probs[:, positive]
    predicted = probs.argmax(axis=1) == positive
    precision, recall, f1, _ = _precision_recall(truth, predicted, average="binary")
    figures = {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
    if 0 < truth.sum() < len(truth):
        figures |= {
            "auroc": float(roc_auc_score(truth, score)),
            "auprc": float(average_precision_score(truth, score)),
        }
    return figures


def _per_label(labels: list[str], table: Any) -> list[dict[str, Any]]:
    precision, recall, f1, support = table
    return [
        {
            "label": label,
            "precision": float(precision[k]),
            "recall": float(recall[k]),
            "f1": float(f1[k]),
            "support": int(support[k]),
        }
        for k, label in enumerate(labels)
    ]
