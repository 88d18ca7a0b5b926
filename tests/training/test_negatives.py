from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.negatives import Mining, fill_negatives
from training.rerank_rows import RerankRow, read_rerank

DATA = Path(__file__).parents[2].parent / "shared" / "data"

ROWS = [
    RerankRow("red apple pie", ("bake a red apple pie slowly",), (1.0,), 1),
    RerankRow("green apple", ("a green apple tastes sour", "sour milk"), (1.0, 0.0), 2),
    RerankRow("fast cars", ("cars that drive fast", "a red apple car"), (1.0, 0.0), 3),
    RerankRow("???", ("!!!",), (1.0,), 4),
]
TEXTS = [passage for row in ROWS for passage in row.passages]


def added(rows: list[RerankRow], index: int) -> tuple[str, ...]:
    """What a row has beyond the row it was made of."""
    before, after = ROWS[index], rows[index]
    assert after.passages[: len(before.passages)] == before.passages
    assert after.grades == before.grades + (0.0,) * (len(after.passages) - len(before.passages))
    assert (after.query, after.line) == (before.query, before.line)
    return after.passages[len(before.passages) :]


def embed(texts: list[str]) -> np.ndarray[Any, Any]:
    """Counts of the letters."""
    return np.array([[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])


def test_bm25_takes_the_passages_most_like_the_query():
    rows, notes = fill_negatives(ROWS, 2, "bm25", 0.0, 0)
    assert added(rows, 0) == ("a red apple car", "a green apple tastes sour")
    assert added(rows, 1) == ("a red apple car",)
    assert len(added(rows, 2)) == 1
    assert len(added(rows, 3)) == 2
    assert notes == [
        "Hard negatives added: 6, to 4 of 4 queries, chosen by BM25 from the file's 6 passages; 3 of them at random."
    ]


def test_passages_near_the_best_relevant_one_are_left_out():
    rows = [
        RerankRow("one two three four", ("one two three four",), (1.0,), 1),
        RerankRow("x", ("one two three four five", "one two seven eight nine"), (1.0, 0.0), 2),
    ]
    close, notes = fill_negatives(rows, 1, "bm25", 0.3, 0)
    assert close[0].passages[1:] == ("one two seven eight nine",)
    assert notes[1] == "Passages not taken because they may be relevant without a label: 1."
    without_margin, notes = fill_negatives(rows, 1, "bm25", 0.0, 0)
    assert without_margin[0].passages[1:] == ("one two three four five",)
    assert len(notes) == 1
    nothing, notes = fill_negatives(rows, 1, "bm25", 1.0, 0)
    assert nothing[0] == rows[0]
    assert notes[-1] == "Queries for which the file has fewer than 1 hard negatives: 1."


def test_what_is_drawn_at_random_has_no_likeness_to_the_query():
    for seed in range(20):
        rows, _ = fill_negatives(ROWS, 3, "bm25", 0.5, seed)
        assert all("fast" not in text and "cars" not in text for text in added(rows, 2))


def test_the_encoder_takes_the_nearest_by_cosine():
    rows, notes = fill_negatives(ROWS, 1, "encoder", 0.0, 0, embed)
    vectors = embed([ROWS[0].query, *TEXTS])
    cosine = vectors[1:] @ vectors[0] / np.maximum(np.linalg.norm(vectors[1:], axis=1), 1e-9)
    allowed = [index for index in range(1, len(TEXTS)) if cosine[index] <= cosine[0]]
    assert added(rows, 0) == (TEXTS[max(allowed, key=lambda index: cosine[index])],)
    assert "by the cosine of embeddings" in notes[0]
    with pytest.raises(ValueError, match="needs embed"):
        fill_negatives(ROWS, 1, "encoder", 0.0, 0)


@pytest.mark.parametrize("how", ["bm25", "encoder", "random"])
def test_own_passages_are_not_taken_and_the_seed_decides(how: Mining):
    twice = [*ROWS, RerankRow("Green  APPLE", ("Sour Milk", "granny smith"), (1.0, 0.0), 5)]
    rows, notes = fill_negatives(twice, 4, how, 0.0, 3, embed)
    for row in rows:
        assert len({" ".join(text.casefold().split()) for text in row.passages}) == len(row.passages)
    assert not {"granny smith", "Sour Milk"} & set(rows[1].passages)
    assert "a green apple tastes sour" not in rows[4].passages
    assert (rows, notes) == fill_negatives(twice, 4, how, 0.0, 3, embed)


def test_random_ones():
    rows, notes = fill_negatives(ROWS, 2, "random", 0.0, 0)
    assert [len(added(rows, index)) for index in range(4)] == [2, 1, 1, 2]
    assert rows != fill_negatives(ROWS, 2, "random", 0.0, 1)[0]
    assert notes == ["Hard negatives added: 6, to 4 of 4 queries, drawn at random from the file's 6 passages."]


def test_a_small_file_gives_what_it_has():
    rows, notes = fill_negatives(ROWS, 50, "random", 0.0, 0)
    assert all(set(row.passages) == set(TEXTS) for row in rows)
    assert notes[-1] == "Queries for which the file has fewer than 50 hard negatives: 4."


def test_rows_that_are_left_alone():
    assert fill_negatives(ROWS, 2, "none", 0.1, 0) == (ROWS, ["Queries without any hard negative: 2 of 4."])
    assert fill_negatives(ROWS[1:3], 1, "bm25", 0.1, 0) == (ROWS[1:3], [])
    assert fill_negatives([], 1, "bm25", 0.1, 0) == ([], [])
    taught = [*ROWS, RerankRow("q", ("a",), (-3.0,), 5)]
    rows, notes = fill_negatives(taught, 4, "bm25", 0.1, 0)
    assert rows == taught
    assert "a teacher's scores" in notes[0]


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the public data sets in ../shared/data")
def test_wikiqa_gets_negatives_of_its_own():
    before = read_rerank(DATA / "wikiqa/dev.jsonl").rows
    after, notes = fill_negatives(before, 8, "bm25", 0.1, 0)
    assert all(row.grades.count(0.0) >= 8 for row in after)
    relevant = sum(sum(row.grades) for row in before)
    assert sum(sum(row.grades) for row in after) == relevant
    assert notes[0].startswith("Hard negatives added: ")
