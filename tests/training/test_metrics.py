from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sk

from training.calibration import Floats
from training.metrics import ClassificationMetrics
from training.metrics.classification import calibration_error

LABELS = ["a", "b", "c"]


def one_hot(classes: Any, width: int) -> NDArray[np.float32]:
    return np.eye(width, dtype=np.float32)[np.asarray(classes)]


def compute(probs: Any, targets: Any, labels: list[str], thresholds: list[float] | None = None) -> dict[str, Any]:
    found = ClassificationMetrics().compute(
        predictions=np.asarray(probs, np.float32),
        references=np.asarray(targets, np.float32),
        labels=labels,
        thresholds=thresholds,
    )
    assert found is not None
    return found


def random_rows(rows: int = 200, width: int = 3) -> tuple[Floats, NDArray[np.int64]]:
    rng = np.random.default_rng(3)
    probs = rng.dirichlet(np.ones(width), rows).astype(np.float32)
    classes = np.where(rng.random(rows) < 0.5, probs.argmax(axis=1), rng.integers(0, width, rows))
    return probs, classes


def test_single_label_figures_are_scikit_learns() -> None:
    probs, truth = random_rows()
    found, predicted = compute(probs, one_hot(truth, 3), LABELS), probs.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
    for kind in ("macro", "weighted"):
        assert found[f"f1_{kind}"] == pytest.approx(sk.f1_score(truth, predicted, average=kind))
        assert found[f"precision_{kind}"] == pytest.approx(sk.precision_score(truth, predicted, average=kind))
        assert found[f"recall_{kind}"] == pytest.approx(sk.recall_score(truth, predicted, average=kind))
    assert found["loss"] == pytest.approx(sk.log_loss(truth, probs), abs=1e-5)
    assert [row["f1"] for row in found["per_label"]] == pytest.approx(
        [sk.f1_score(truth == k, predicted == k) for k in range(3)]
    )
    assert [row["support"] for row in found["per_label"]] == np.bincount(truth).tolist()
    assert "auroc" not in found


def test_figures_by_hand() -> None:
    probs = [[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.1, 0.2, 0.7]]
    found = compute(probs, one_hot([0, 1, 1, 2], 3), LABELS)
    assert found["accuracy"] == 0.75
    assert found["per_label"][0] == {
        "label": "a",
        "precision": 0.5,
        "recall": 1.0,
        "f1": pytest.approx(2 / 3),
        "support": 1,
    }
    assert found["f1_macro"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found["loss"] == pytest.approx(-np.log([0.8, 0.2, 0.6, 0.7]).mean(), abs=1e-6)


def test_rows_of_the_confusion_matrix_are_the_truth() -> None:
    probs = one_hot([0, 0, 1, 2], 3)
    assert compute(probs, one_hot([0, 1, 1, 1], 3), LABELS)["confusion_matrix"] == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]


def test_a_label_without_rows_is_listed_with_zeros() -> None:
    found = compute(one_hot([0, 1], 3), one_hot([0, 1], 3), LABELS)
    assert found["per_label"][2] == {"label": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert len(found["confusion_matrix"]) == 3


def test_a_certain_mistake_keeps_the_loss_finite() -> None:
    assert np.isfinite(compute([[1.0, 0.0]], [[0, 1]], ["a", "b"])["loss"])
    assert np.isfinite(compute([[1.0, 0.0]], [[0, 1]], ["a", "b"], [0.5, 0.5])["loss"])


@pytest.mark.parametrize("positive", [0, 1])
def test_the_more_frequent_of_two_labels_is_the_positive_one(positive: int) -> None:
    rng = np.random.default_rng(5)
    truth = np.where(rng.random(60) < 0.7, positive, 1 - positive)
    score = np.clip(0.5 + 0.2 * (truth == positive) - 0.1 + rng.normal(scale=0.2, size=60), 0.01, 0.99)
    probs = np.empty((60, 2), np.float32)
    probs[:, positive], probs[:, 1 - positive] = score, 1 - score
    found, predicted = compute(probs, one_hot(truth, 2), ["x", "y"]), probs.argmax(axis=1)
    assert found["precision"] == pytest.approx(sk.precision_score(truth, predicted, pos_label=positive))
    assert found["recall"] == pytest.approx(sk.recall_score(truth, predicted, pos_label=positive))
    assert found["f1"] == pytest.approx(sk.f1_score(truth, predicted, pos_label=positive))
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(truth == positive, score), abs=1e-6)
    assert found["auprc"] == pytest.approx(sk.average_precision_score(truth == positive, score), abs=1e-6)


def test_two_labels_of_which_one_occurs_have_no_curve() -> None:
    found = compute([[0.9, 0.1], [0.4, 0.6]], one_hot([0, 0], 2), ["x", "y"])
    assert (found["precision"], found["recall"]) == (1.0, 0.5)
    assert "auroc" not in found and "auprc" not in found


def test_multi_label_figures_are_scikit_learns() -> None:
    rng = np.random.default_rng(7)
    probs, truth = rng.random((80, 3)).astype(np.float32), rng.random((80, 3)) < 0.4
    thresholds = [0.3, 0.5, 0.8]
    found, predicted = compute(probs, truth, LABELS, thresholds), probs >= np.array(thresholds, np.float32)
    assert found["accuracy"] == pytest.approx(1 - sk.hamming_loss(truth, predicted))
    assert found["exact_match"] == pytest.approx(sk.accuracy_score(truth, predicted))
    for kind in ("macro", "weighted", "micro"):
        assert found[f"f1_{kind}"] == pytest.approx(sk.f1_score(truth, predicted, average=kind))
        assert found[f"recall_{kind}"] == pytest.approx(sk.recall_score(truth, predicted, average=kind))
    losses = [sk.log_loss(truth[:, k], probs[:, k]) for k in range(3)]
    assert found["loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    together = truth.astype(int).T @ predicted.astype(int)
    assert found["confusion_matrix"] == together.tolist()


def test_multi_label_by_hand() -> None:
    probs = [[0.9, 0.6, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.1]]
    found = compute(probs, [[1, 0, 0], [0, 1, 0], [0, 0, 0]], LABELS, [0.5, 0.5, 0.5])
    assert found["accuracy"] == pytest.approx(8 / 9)
    assert found["exact_match"] == pytest.approx(2 / 3)
    assert found["f1_micro"] == pytest.approx(4 / 5)
    assert found["confusion_matrix"] == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_a_probability_that_equals_its_threshold_counts_as_reached() -> None:
    threshold = float(np.float32(0.1))
    assert compute([[0.1, 0.9]], [[1, 1]], ["a", "b"], [threshold, 0.5])["exact_match"] == 1


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.95, 0.97, 0.55, 0.57, 1.0], np.float32)
    correct = np.array([True, False, True, True, True])
    # 15 bins: 0.55 and 0.57 share [8/15, 9/15); 0.95, 0.97 and 1.0 share the last.
    by_hand = 0.4 * abs(0.56 - 1) + 0.6 * abs((0.95 + 0.97 + 1.0) / 3 - 2 / 3)
    assert calibration_error(confidence, correct) == pytest.approx(by_hand, abs=1e-6)
    assert calibration_error(np.ones(4, np.float32), np.ones(4, np.bool_)) == 0


def test_two_processes_gather_to_the_figures_of_one(tmp_path: Path) -> None:
    probs, truth = random_rows(31)
    targets = one_hot(truth, 3)

    def process(rank: int) -> dict[str, Any] | None:
        metric = ClassificationMetrics(
            num_process=2, process_id=rank, experiment_id="two", cache_dir=str(tmp_path), timeout=30
        )
        metric.add_batch(predictions=probs[rank::2], references=targets[rank::2])
        return metric.compute(labels=LABELS)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(process, range(2))
    assert second is None
    assert _close(first, compute(probs, targets, LABELS))


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_close(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_close, one, other))
    return one == pytest.approx(other)
