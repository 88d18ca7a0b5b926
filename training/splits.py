"""Rows into training, evaluation and test parts: seeded, stratified by label, copies of a text or query together."""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np

from training.config import TrainConfig
from training.rerank_rows import RerankRow
from training.rows import ClassifyRow

Row = TypeVar("Row")


def parts(
    config: TrainConfig,
    rows: list[Row],
    read: Callable[[str], list[Row]],
    split: Callable[[list[Row], float, int], tuple[list[Row], list[Row]]],
) -> tuple[list[Row], list[Row], list[Row]]:
    """Training, evaluation and test rows: each from its own file, or split off the training file's.

    Args:
        config: names the files and fractions.
        rows: of the training file.
        read: the rows of another file.
        split: rows, fraction and seed to the larger part and the part split off.

    Returns:
        The three parts; without a test file and fraction the last is empty, and with too few rows the second.
    """
    train, test, gone = rows, list[Row](), 0.0
    if config.test_file is not None:
        test = read(config.test_file)
    elif config.test_fraction:
        gone = config.test_fraction
        train, test = split(train, gone, config.seed)
    if config.eval_file is not None:
        return train, read(config.eval_file), test
    # The test part is gone by now, so the share of what is left is larger.
    train, held = split(train, config.eval_fraction / (1 - gone), config.seed + 1)
    return train, held, test


def split_off(rows: Sequence[ClassifyRow], fraction: float, seed: int) -> tuple[list[ClassifyRow], list[ClassifyRow]]:
    """Split off about `fraction` of the rows, stratified by label.

    Rows with the same text go to the same side, so that nothing is tested on what was trained on. Where each text
    has one label, every label with two or more texts appears on both sides, and one with a single text stays in
    the larger part. A multi-label row is stratified by its rarest label (Sechidis et al. 2011 distribute the
    rarest first).

    Args:
        rows: at least one row.
        fraction: share of the rows wanted in the second part.
        seed: order of the draw.

    Returns:
        The larger part and the part split off, each in file order.
    """
    taken = draw_rows([row.text for row in rows], [row.labels for row in rows], fraction, seed)
    kept = [row for index, row in enumerate(rows) if index not in taken]
    return kept, [row for index, row in enumerate(rows) if index in taken]


def draw_rows(texts: Sequence[Hashable], labels: Sequence[Sequence[str]], fraction: float, seed: int) -> set[int]:
    """Choose the rows that `split_off` splits off: their indices.

    Args:
        texts: what is equal for rows that are to stay together.
        labels: of each row, parallel to `texts`.
        fraction: share of the rows wanted.
        seed: order of the draw.
    """
    frequency: dict[str, int] = {}
    for names in labels:
        for name in names:
            frequency[name] = frequency.get(name, 0) + 1
    strata: dict[str, list[list[int]]] = {}
    for indices in _grouped(texts):
        names = labels[indices[0]]
        rarest = min(names, key=lambda name: (frequency[name], name)) if names else ""
        strata.setdefault(rarest, []).append(indices)
    taken: set[int] = set()
    rng = np.random.default_rng(seed)
    owed = 0.0  # rows that rounding in earlier strata left over, so that the whole comes out at `fraction`
    for name in sorted(strata, key=lambda key: (len(strata[key]), key)):
        owed = _draw(strata[name], fraction, owed, rng, taken)
    return taken


def split_queries(rows: Sequence[RerankRow], fraction: float, seed: int) -> tuple[list[RerankRow], list[RerankRow]]:
    """Split off about `fraction` of the rows; rows with the same query, white space apart, go to the same side.

    With two or more queries, both parts have one.

    Returns:
        The larger part and the part split off, each in file order.
    """
    taken = draw_queries([" ".join(row.query.split()) for row in rows], fraction, seed)
    kept = [row for index, row in enumerate(rows) if index not in taken]
    return kept, [row for index, row in enumerate(rows) if index in taken]


def draw_queries(queries: Sequence[Hashable], fraction: float, seed: int) -> set[int]:
    """Choose the rows that `split_queries` splits off, by what is equal for rows that are to stay together."""
    taken: set[int] = set()
    _draw(_grouped(queries), fraction, 0.0, np.random.default_rng(seed), taken)
    return taken


def _grouped(keys: Sequence[Hashable]) -> list[list[int]]:
    """The indices of each key, in order of appearance."""
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def _draw(
    groups: Sequence[list[int]], fraction: float, owed: float, rng: np.random.Generator, taken: set[int]
) -> float:
    """Add whole groups of rows to `taken`, at least one if there are two, never all; gives the rows still owed."""
    order = [groups[int(i)] for i in rng.permutation(len(groups))]
    owed += fraction * sum(map(len, order))
    for group in order[:-1]:  # the last one stays, so that training knows the label
        if group is not order[0] and owed < len(group) / 2:
            break
        taken.update(group)
        owed -= len(group)
    return owed


def undersample(rows: Sequence[ClassifyRow], seed: int) -> list[ClassifyRow]:
    """Drop single-label rows at random until every label has as many as the rarest; file order is kept."""
    by_label: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        by_label.setdefault(row.labels[0], []).append(index)
    rarest = min(map(len, by_label.values()))
    rng = np.random.default_rng(seed)
    kept = {int(i) for name in sorted(by_label) for i in rng.choice(by_label[name], rarest, replace=False)}
    return [row for index, row in enumerate(rows) if index in kept]
