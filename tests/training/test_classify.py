"""The classification task: targets, and what becomes of labels that contradict each other."""

import numpy as np
import pytest

from training.batches import Example
from training.classify import ClassifyTask
from training.engine.encoding import Encoded
from training.rows import ClassifyRow

TASK = ClassifyTask(("a", "b", "c"), multi_label=False)


def row(text: str, label: str) -> ClassifyRow:
    return ClassifyRow(text, (label,), (label,), 1)


def softened(rows: list[ClassifyRow]) -> list[list[float]]:
    examples = [Example((Encoded([1]),), target[None]) for target in TASK.targets(rows)]
    return [example.target[0].tolist() for example in TASK.softened(rows, examples)]


def test_contradicted_labels_share_their_target() -> None:
    # One of the four texts labelled a also occurs as b, and that is the only one labelled b.
    rows = [row("1", "a"), row("1", "b"), row("2", "a"), row("3", "a"), row("4", "a"), row("5", "c")]
    found = softened(rows)
    assert found[0] == pytest.approx([0.875, 0.125, 0])
    assert found[1] == pytest.approx([0.5, 0.5, 0])
    assert found[2] == pytest.approx([0.875, 0.125, 0])  # its own text is not contradicted, its label is
    assert found[5] == [0, 0, 1]


def test_a_label_that_is_mostly_contradicted_keeps_half() -> None:
    # Of a's texts two occur as b as well, one as c, and one as nothing else.
    rows = [row("1", "a"), row("1", "b"), row("2", "a"), row("2", "b"), row("3", "a"), row("3", "c"), row("4", "a")]
    found = softened(rows)
    assert found[6] == found[0] == pytest.approx([1 / 2, 1 / 3, 1 / 6])


def test_a_file_without_contradictions_stays_as_it_is() -> None:
    rows = [row("1", "a"), row("1", "a"), row("2", "b"), row("3", "c")]
    assert softened(rows) == TASK.targets(rows).tolist()


def test_every_target_sums_to_one() -> None:
    rng = np.random.default_rng(0)
    rows = [row(str(rng.integers(20)), "abc"[rng.integers(3)]) for _ in range(100)]
    assert np.sum(softened(rows), axis=1) == pytest.approx(np.ones(100), abs=1e-6)


def test_weights_make_labels_count_alike() -> None:
    rows = [row(str(i), "a") for i in range(6)] + [row("x", "b"), row("y", "b"), row("z", "c")]
    weighted = TASK.weighted([Example((Encoded([1]),), target[None]) for target in TASK.targets(rows)])
    assert [e.weight for e in weighted] == pytest.approx([0.5] * 6 + [1.5] * 2 + [3.0])
