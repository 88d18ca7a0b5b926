"""The classification task: targets, and what becomes of labels that contradict each other."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from training.classify import ClassifyTask
from training.engine.encoding import Encoder
from training.rows import ClassifyRow
from training.text import TextRules

TASK = ClassifyTask(("a", "b", "c"), multi_label=False)
ENCODER = Encoder(Tokenizer(models.WordLevel({"?": 0}, "?")), 0, 8, TextRules())


def row(text: str, *labels: str) -> ClassifyRow:
    return ClassifyRow(text, labels, labels, 1)


def softened(rows: list[ClassifyRow]) -> list[list[float]]:
    return [example.target[0].tolist() for example in TASK.softened(rows, TASK.examples(rows, ENCODER))]


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
    weighted = TASK.weighted(TASK.examples(rows, ENCODER))
    assert [e.weight for e in weighted] == pytest.approx([0.5] * 6 + [1.5] * 2 + [3.0])


def one_by_one(rows: list[ClassifyRow]) -> Any:
    """What `softened` promises, counted text by text."""
    by_text: dict[str, set[int]] = {}
    for each in rows:
        by_text.setdefault(each.text, set()).add("abc".index(each.labels[0]))
    others, texts = np.zeros((3, 3), np.float32), np.zeros(3, np.float32)
    for labels in by_text.values():
        for label in labels:
            texts[label] += 1
            for other in labels - {label}:
                others[label, other] += 1 / (len(labels) - 1)
    rates = others.sum(axis=1) / np.maximum(texts, 1)
    given = np.where(rates >= 0.5, 1, rates) / 2
    shared = others * (given / np.maximum(others.sum(axis=1), 1))[:, None]
    return (shared + np.diag(1 - given))[["abc".index(each.labels[0]) for each in rows]].tolist()


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("abc")), min_size=1, max_size=40))
def test_contradictions_and_frequencies_are_counted_as_one_by_one(pairs: list[tuple[str, str]]) -> None:
    rows = [row(text, label) for text, label in pairs]
    assert softened(rows) == one_by_one(rows)
    counts = Counter(label for _, label in pairs)
    expected = [len(rows) / len(counts) / counts[label] for _, label in pairs]
    assert [e.weight for e in TASK.weighted(TASK.examples(rows, ENCODER))] == expected


def test_a_row_may_have_several_labels_or_none() -> None:
    task = ClassifyTask(("a", "b", "c"), multi_label=True)
    rows = [row("1", "c", "a"), row("2"), row("3", "a", "c"), row("4", "b")]
    expected = [[1, 0, 1], [0, 0, 0], [1, 0, 1], [0, 1, 0]]
    assert task.targets(rows).tolist() == expected
    assert [example.target[0].tolist() for example in task.examples(rows, ENCODER)] == expected
