"""Encoded rows on disk: what comes back is what was encoded, from a file that is whole and of these very rows."""

import tracemalloc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import make_tokenizer
from training.classify import ClassifyTask
from training.engine.encoding import Encoded, Encoder
from training.rerank import RerankTask
from training.rerank_rows import RerankRow
from training.rows import ClassifyRow
from training.store import ExampleStore, TokenStore, store_tokens
from training.text import TextRules

ENCODER = Encoder.of(make_tokenizer("bert"), 12, TextRules())
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
ITEMS = st.builds(Encoded, st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=30), st.integers(0, 30))


def plain(items: Iterable[Encoded]) -> list[tuple[list[int], int]]:
    return [([int(number) for number in item.ids], item.split) for item in items]


@dataclass
class Counting:
    """Encodes texts, and counts how many."""

    encoder: Encoder
    done: int = 0

    def __call__(self, texts: Sequence[str]) -> list[Encoded]:
        self.done += len(texts)
        return self.encoder.encode(texts)


def keep(texts: Sequence[str], path: Path, encoder: Encoder = ENCODER) -> tuple[TokenStore, int]:
    """The store of some texts, and how many of them had to be encoded for it."""
    counting = Counting(encoder)
    return store_tokens(texts, lambda text: (text,), counting, encoder, path), counting.done


@settings(deadline=None, derandomize=True)
@given(st.lists(ITEMS, max_size=60), st.data())
def test_items_come_back_as_they_were(items: list[Encoded], data: st.DataObject) -> None:
    store = store_tokens(items, lambda _: ("",) * 500, list, ENCODER)  # a few items fill a record batch
    assert plain(store) == plain(items)
    assert store.lengths.tolist() == list(map(len, items))
    assert len(store) == len(items)
    if items:
        chosen = data.draw(st.lists(st.integers(0, len(items) - 1)))
        part = store.take(np.array(chosen, np.int64))
        assert plain(part) == plain(items[number] for number in chosen)
        assert part.lengths.tolist() == [len(items[number]) for number in chosen]


@settings(deadline=None, derandomize=True)
@given(texts=st.lists(TEXT, min_size=1, max_size=9))
def test_classified_rows_are_the_encodings_of_their_texts(texts: list[str]) -> None:
    task = ClassifyTask(("a", "b"), multi_label=False)
    rows = [ClassifyRow(text, ("ab"[len(text) % 2],), ("",), 1) for text in texts]
    store = task.examples(rows, ENCODER)
    assert [plain(example.items) for example in store] == [plain([item]) for item in ENCODER.encode(texts)]
    assert [example.target.tolist() for example in store] == [[target.tolist()] for target in task.targets(rows)]
    assert store.lengths.tolist() == [example.longest for example in store]


GROUPS = st.lists(st.tuples(TEXT, st.floats(-9, 9, width=32)), min_size=1, max_size=5)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(TEXT, GROUPS, st.lists(st.just(1.0), max_size=2)), min_size=1, max_size=6))
def test_ranked_rows_are_the_encodings_of_their_pairs(
    queries: list[tuple[str, list[tuple[str, float]], list[float]]],
) -> None:
    rows = [
        RerankRow(query, tuple(text for text, _ in found), tuple(grade for _, grade in found), 1, tuple(missed))
        for query, found, missed in queries
    ]
    store = RerankTask().examples(rows, ENCODER)
    expected = ENCODER.encode_pairs([row.query for row in rows], [row.passages for row in rows])
    assert [plain(example.items) for example in store] == [plain(p[0] for p in group) for group in expected]
    assert [tuple(example.target.tolist()) for example in store] == [row.grades for row in rows]
    assert [example.missed for example in store] == [row.missed for row in rows]
    assert store.lengths.tolist() == [example.longest for example in store]


def test_rows_are_found_by_number_and_not_beyond() -> None:
    store = ClassifyTask(("a",), multi_label=False).examples([ClassifyRow("card", ("a",), ("a",), 1)] * 3, ENCODER)
    assert plain(store[-1].items) == plain(store[2].items)
    with pytest.raises(IndexError):
        store[3]
    with pytest.raises(IndexError):
        store.items[3]


# The file


def test_the_same_texts_are_encoded_once(tmp_path: Path) -> None:
    path = tmp_path / "run" / "train.arrow"
    path.parent.mkdir()
    first, done = keep(["my card", "refund", "late"], path)
    again, more = keep(["my card", "refund", "late"], path)
    assert (done, more) == (3, 0)
    assert plain(again) == plain(first)
    assert [each.name for each in path.parent.iterdir()] == ["train.arrow"]


@pytest.mark.parametrize("texts", [["my card", "late"], ["my card", "refund", "late"], ["my", "card refund"]])
def test_other_texts_are_encoded_anew(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "train.arrow"
    old, _ = keep(["my card", "refund"], path)
    before = plain(old)
    store, done = keep(texts, path)
    assert done == len(texts)
    assert plain(store) == plain(ENCODER.encode(texts))
    assert plain(old) == before  # who has the old file open keeps it


def test_another_tokenizer_length_or_rule_encodes_anew(tmp_path: Path) -> None:
    path, texts = tmp_path / "train.arrow", ["my card was charged twice ##"]
    keep(texts, path)
    for encoder in (
        Encoder.of(make_tokenizer("bert"), 5, TextRules()),
        Encoder.of(make_tokenizer("bert"), 5, TextRules(separator="##")),
        Encoder(make_tokenizer("gpt2").backend_tokenizer, 0, 5, TextRules(separator="##")),
    ):
        store, done = keep(texts, path, encoder)
        assert done == 1
        assert plain(store) == plain(encoder.encode(texts))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_half_a_file_is_written_again(tmp_path: Path, share: float) -> None:
    path, texts = tmp_path / "train.arrow", ["my card", "refund"] * 40
    keep(texts, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    store, done = keep(texts, path)
    assert done == len(texts)
    assert plain(store) == plain(ENCODER.encode(texts))


def test_an_error_while_encoding_leaves_no_file(tmp_path: Path) -> None:
    def encode(texts: Sequence[str]) -> list[Encoded]:
        raise KeyError

    with pytest.raises(KeyError):
        store_tokens(["card"], lambda text: (text,), encode, ENCODER, tmp_path / "train.arrow")
    assert list(tmp_path.iterdir()) == []


def memory(rows: Sequence[ClassifyRow], path: Path) -> tuple[int, ExampleStore]:
    """The most memory that encoding takes at a time, in bytes."""
    tracemalloc.start()
    store = ClassifyTask(("a", "b"), multi_label=False).prepared(rows, ENCODER, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, store


def test_memory_does_not_grow_with_the_tokens(tmp_path: Path) -> None:
    encoder_limits = {"short": "card", "long": "card " * 9}
    found: dict[tuple[str, int], int] = {}
    for name, text in encoder_limits.items():
        for count in (4_000, 12_000):
            rows = [ClassifyRow(text, ("ab"[number % 2],), ("",), 1) for number in range(count)]
            found[name, count], store = memory(rows, tmp_path / "train.arrow")
            tokens = int(store.items.lengths.sum())
            assert tokens == count * (3 if name == "short" else 11)
    # 8,000 more rows may take a few numbers each, but not their tokens, which as a list would take 8 bytes apiece.
    for name in encoder_limits:
        assert found[name, 12_000] - found[name, 4_000] < 8_000 * 50
    more = [found[name, 12_000] - found[name, 4_000] for name in ("short", "long")]
    assert more[1] - more[0] < 8_000 * 10


def test_weights_and_targets_change_without_touching_tokens(tmp_path: Path) -> None:
    task = ClassifyTask(("a", "b"), multi_label=False)
    store = task.examples([ClassifyRow("card", (name,), ("",), 1) for name in "aab"], ENCODER, tmp_path / "t.arrow")
    changed = replace(task.weighted(store), targets=store.targets * 2)
    assert [example.weight for example in changed] == [0.75, 0.75, 1.5]
    assert changed.items is store.items
    assert changed[0].target.tolist() == [[2, 0]]
