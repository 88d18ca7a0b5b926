from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.rerank_rows import RerankRow
from training.rows import ClassifyRow
from training.splits import split_off, split_queries, undersample


def make_rows(pairs: Sequence[tuple[str, Sequence[str]]]) -> list[ClassifyRow]:
    return [ClassifyRow(text, tuple(labels), tuple(labels), line) for line, (text, labels) in enumerate(pairs, 1)]


def labelled(sizes: Sequence[int]) -> list[ClassifyRow]:
    """Distinct texts, `sizes[k]` of label k."""
    return make_rows([(f"{k}-{n}", [f"label {k}"]) for k, size in enumerate(sizes) for n in range(size)])


# One label per text, texts repeated: number n has the label n % 4.
ROWS = st.lists(st.integers(0, 40), min_size=1, max_size=150).map(
    lambda numbers: make_rows([(f"text {n}", [f"label {n % 4}"]) for n in numbers])
)
MULTI_ROWS = st.lists(
    st.tuples(st.integers(0, 60).map(str), st.lists(st.sampled_from("abcde"), unique=True, max_size=4)),
    min_size=1,
    max_size=100,
).map(make_rows)
FRACTIONS = st.floats(0.02, 0.6)
SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None, derandomize=True)
@given(ROWS | MULTI_ROWS, FRACTIONS, SEEDS)
def test_each_row_is_on_one_side_in_file_order_and_copies_stay_together(
    rows: list[ClassifyRow], fraction: float, seed: int
) -> None:
    kept, taken = split_off(rows, fraction, seed)
    assert sorted(kept + taken, key=lambda row: row.line) == rows
    assert all([r.line for r in part] == sorted(r.line for r in part) for part in (kept, taken))
    assert not {row.text for row in kept} & {row.text for row in taken}
    assert kept
    assert (kept, taken) == split_off(rows, fraction, seed)


@settings(deadline=None, derandomize=True)
@given(ROWS, FRACTIONS, SEEDS)
def test_a_label_with_two_texts_is_on_both_sides(rows: list[ClassifyRow], fraction: float, seed: int) -> None:
    texts: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        texts[row.labels[0]].add(row.text)
    kept, taken = ({row.labels[0] for row in part} for part in split_off(rows, fraction, seed))
    assert kept == set(texts)
    assert taken == {label for label, found in texts.items() if len(found) >= 2}


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(20, 80), min_size=1, max_size=8), st.floats(0.06, 0.6), SEEDS)
def test_labels_are_split_within_one_row_of_the_fraction(sizes: list[int], fraction: float, seed: int) -> None:
    _, taken = split_off(labelled(sizes), fraction, seed)
    counts = Counter(row.labels[0] for row in taken)
    assert all(abs(counts[f"label {k}"] - fraction * size) <= 1 for k, size in enumerate(sizes))
    assert abs(len(taken) - fraction * sum(sizes)) <= 0.5 + 1e-9


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), FRACTIONS, SEEDS)
def test_the_whole_comes_out_at_the_fraction_but_for_one_row_per_label(
    sizes: list[int], fraction: float, seed: int
) -> None:
    _, taken = split_off(labelled(sizes), fraction, seed)
    assert abs(len(taken) - fraction * sum(sizes)) <= len(sizes) + 1


def test_rare_labels_do_not_add_up_beyond_the_fraction() -> None:
    _, taken = split_off(labelled([2, 3, 2, 3, 500]), 0.1, 0)
    assert len(taken) == 51


def test_another_seed_draws_other_rows() -> None:
    assert split_off(labelled([50, 50]), 0.2, 1)[1] != split_off(labelled([50, 50]), 0.2, 2)[1]


def test_a_multi_label_row_counts_for_its_rarest_label() -> None:
    rows = make_rows([(f"{n}", ["common", "rare"] if n < 4 else ["common"]) for n in range(100)])
    kept, taken = split_off(rows, 0.1, 0)
    assert sum("rare" in row.labels for row in taken) >= 1
    assert sum("rare" in row.labels for row in kept) >= 1
    assert len(taken) == 10


def test_rows_without_labels_are_split_too() -> None:
    kept, taken = split_off(make_rows([(f"{n}", []) for n in range(10)]), 0.3, 0)
    assert (len(kept), len(taken)) == (7, 3)


def test_undersampling_leaves_each_label_as_many_rows_as_the_rarest() -> None:
    rows = labelled([30, 4, 11])
    kept = undersample(rows, 0)
    assert Counter(row.labels[0] for row in kept) == {"label 0": 4, "label 1": 4, "label 2": 4}
    assert [row.line for row in kept] == sorted(row.line for row in kept)
    assert all(row in rows for row in kept)
    assert kept == undersample(rows, 0) != undersample(rows, 1)


@pytest.mark.parametrize("sizes", [[5], [3, 3]])
def test_balanced_rows_are_left_alone(sizes: list[int]) -> None:
    assert undersample(labelled(sizes), 0) == labelled(sizes)


RANKINGS = st.lists(st.integers(0, 60), min_size=1, max_size=120).map(
    lambda numbers: [RerankRow(f"query {n}", (f"text {line}",), (1.0,), line) for line, n in enumerate(numbers, 1)]
)


@settings(deadline=None, derandomize=True)
@given(RANKINGS, FRACTIONS, SEEDS)
def test_a_query_is_on_one_side(rows: list[RerankRow], fraction: float, seed: int) -> None:
    kept, taken = split_queries(rows, fraction, seed)
    assert sorted(kept + taken, key=lambda row: row.line) == rows
    assert all([r.line for r in part] == sorted(r.line for r in part) for part in (kept, taken))
    assert not {row.query for row in kept} & {row.query for row in taken}
    assert kept
    assert bool(taken) == (len({row.query for row in rows}) > 1)
    assert (kept, taken) == split_queries(rows, fraction, seed)


def test_queries_are_split_at_the_fraction_by_the_seed() -> None:
    rows = [RerankRow(f"query {n}", ("a",), (1.0,), n + 1) for n in range(256)]
    assert len(split_queries(rows, 0.1, 0)[1]) == 26
    assert split_queries(rows, 0.1, 0)[1] != split_queries(rows, 0.1, 1)[1]
    spaced = [RerankRow(query, ("a",), (1.0,), n) for n, query in enumerate(["a b", " a  b", "c"], 1)]
    assert {len(part) for part in split_queries(spaced, 0.4, 0)} == {1, 2}
