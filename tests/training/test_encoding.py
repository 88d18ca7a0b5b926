from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import make_tokenizer
from training.engine.encoding import Encoded, Encoder, TooLongError
from training.errors import ModelError
from training.text import TextRules

TEXT = "please refund my late order today"


def encoder(family: str = "bert", max_length: int = 64, rules: TextRules | None = None) -> Encoder:
    tokenizer = make_tokenizer(family)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Encoder.of(tokenizer, max_length, rules or TextRules())


def words(made: Encoder, ids: list[int]) -> list[str]:
    return [made.tokenizer.id_to_token(token) or "" for token in ids]


def test_short_texts_are_as_the_tokenizer_has_them() -> None:
    made = encoder()
    texts = [TEXT, "is it late?", "x" * 9]
    expected = make_tokenizer("bert")(texts)["input_ids"]
    assert [item.ids for item in made.encode(texts)] == expected
    assert [len(item) for item in made.encode(texts)] == [len(ids) for ids in expected]


@pytest.mark.parametrize(
    ("truncate", "kept"), [("END", ["please", "refund", "my"]), ("START", ["late", "order", "today"])]
)
def test_truncation_keeps_special_tokens(truncate: str, kept: list[str]) -> None:
    made = encoder(max_length=5)
    [item] = made.encode([TEXT], truncate)  # type: ignore[arg-type]
    assert words(made, item.ids) == ["<s>", *kept, "</s>"]


def test_a_text_of_exactly_the_limit_is_left_whole() -> None:
    made = encoder(max_length=8)
    whole = make_tokenizer("bert")(TEXT)["input_ids"]
    assert len(whole) == 8
    for truncate in ("END", "START", "NONE"):
        assert made.encode([TEXT], truncate)[0].ids == whole


def test_none_refuses_a_text_that_is_too_long() -> None:
    with pytest.raises(TooLongError, match="text 1 has 8 tokens, the model takes 5") as caught:
        encoder(max_length=5).encode(["my order", TEXT], "NONE")
    assert (caught.value.index, caught.value.tokens, caught.value.limit) == (1, 8, 5)


@pytest.mark.parametrize(("family", "expected"), [("bert", ["<s>", "</s>"]), ("gpt2", ["</s>"])])
def test_an_empty_text_has_at_least_one_token(family: str, expected: list[str]) -> None:
    made = encoder(family)
    assert [words(made, item.ids) for item in made.encode(["", " \n"])] == [expected, expected]


def test_decoders_without_special_tokens_use_all_of_the_length() -> None:
    made = encoder("llama", max_length=3)
    assert words(made, made.encode([TEXT])[0].ids) == ["please", "refund", "my"]
    assert words(made, made.encode([TEXT], "START")[0].ids) == ["late", "order", "today"]


def test_text_rules_are_applied() -> None:
    made = encoder(rules=TextRules(separator="\n%%\n"))
    plain, separated, own = made.encode(["my order", "my order\n\n###\n\n", "my order\n%%\n"])
    assert plain == separated == own
    assert encoder().encode(["my order\n%%\n"]) != [plain]


def test_no_texts_give_no_items() -> None:
    assert encoder().encode([]) == []


def test_an_earlier_truncation_or_padding_setting_of_the_tokenizer_is_undone() -> None:
    tokenizer = make_tokenizer("bert")
    tokenizer(TEXT, truncation=True, max_length=4, padding="max_length")
    made = Encoder.of(tokenizer, 64, TextRules())
    assert [len(item) for item in made.encode([TEXT, "late"])] == [8, 3]


def test_threads_may_share_an_encoder() -> None:
    made = encoder(max_length=12)
    texts = [f"please refund order {n} " + "today " * (n % 17) for n in range(400)]
    expected = made.encode(texts)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: made.encode(texts[n : n + 7])[0], range(len(texts))))
    assert found == expected


def test_a_tokenizer_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(ModelError, match="slow/model has no fast tokenizer"):
        Encoder.of(SimpleNamespace(name_or_path="slow/model"), 16, TextRules())
    with pytest.raises(ModelError, match="max_length 2 leaves no room"):
        encoder(max_length=2)


def tokens(made: Encoder, text: str) -> list[int]:
    return made.tokenizer.encode(text, add_special_tokens=False).ids


def parts(made: Encoder, pair: Encoded) -> tuple[list[str], list[str]]:
    return words(made, pair.ids[: pair.split]), words(made, pair.ids[pair.split :])


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_pair_is_two_texts_each_encoded_alone(family: str) -> None:
    made = encoder(family)
    queries, passages = ["my order", "is it late?", ""], [["refund today", ""], [TEXT], ["hello"]]
    found = made.encode_pairs(queries, passages)
    assert [len(group) for group in found] == [2, 1, 1]
    for query, texts, group in zip(queries, passages, found, strict=True):
        for text, pieces in zip(texts, group, strict=True):
            first, second = made.encode([query, text])
            assert pieces == [Encoded(first.ids + second.ids, len(first))]


@pytest.mark.parametrize(
    ("family", "query", "passage"),
    [
        ("bert", ["<s>", "please", "refund", "my", "</s>"], ["<s>", "is", "it", "late", "</s>"]),
        ("gpt2", ["please", "refund", "my", "late", "order"], ["is", "it", "late", "?", "hello"]),
    ],
)
def test_a_long_query_is_cut_to_half_and_the_passage_to_the_rest(
    family: str, query: list[str], passage: list[str]
) -> None:
    made = encoder(family, max_length=10)
    [[[pair]]] = made.encode_pairs([TEXT], [["is it late? hello"]])
    assert parts(made, pair) == (query, passage)


def test_a_short_query_leaves_its_room_to_the_passage() -> None:
    made = encoder(max_length=10)
    [[[pair]]] = made.encode_pairs(["my"], [[TEXT]])
    assert parts(made, pair) == (["<s>", "my", "</s>"], ["<s>", "please", "refund", "my", "late", "order", "</s>"])


def test_a_long_passage_is_divided_into_consecutive_pieces() -> None:
    made = encoder(max_length=8)
    pieces = ["please refund my", "late order today", "is it late", "?"]

    def divided(chunks: int, cut: int | None = None) -> list[str]:
        [[pairs]] = made.encode_pairs(["a"], [[f"{TEXT} is it late?"]], chunks, cut)
        assert all(pair.ids[:3] == pairs[0].ids[:3] and pair.split == 3 for pair in pairs)
        return [" ".join(parts(made, pair)[1][1:-1]) for pair in pairs]

    assert divided(9) == divided(4) == pieces
    assert divided(2) == pieces[:2]
    assert divided(1) == pieces[:1]
    assert divided(9, cut=6) == pieces[:2]
    assert divided(9, cut=4) == ["please refund my", "late"]
    assert divided(9, cut=2) == ["please refund"]
    assert divided(1, cut=100) == pieces[:1]


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_text_alone_is_divided_as_a_passage_is(family: str) -> None:
    made = encoder(family, max_length=5)
    short, long, empty = made.encode_pieces(["my order", TEXT, ""], chunks=3)
    assert [short, empty] == [[item] for item in made.encode(["my order", ""])]
    assert [item.split for item in long] == [0] * len(long)
    special = 2 if family == "bert" else 0
    inner = [item.ids[special // 2 : len(item) - special // 2] for item in long]
    assert list(chain(*inner)) == tokens(made, TEXT)
    assert [made.encode_pieces([TEXT], 1)[0], made.encode_pieces([TEXT], 3, cut=2)[0]] == [
        long[:1],
        made.encode(["please refund"]),
    ]


TEXTS = st.lists(st.sampled_from([*TEXT.split(), "?", "abc", "x1"]), max_size=40).map(" ".join)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@settings(deadline=None, derandomize=True, max_examples=60)
@given(TEXTS, TEXTS, st.integers(6, 40), st.integers(1, 5), st.none() | st.integers(1, 30))
def test_pairs_fit_and_pieces_make_up_the_passage(
    family: str, query: str, passage: str, max_length: int, chunks: int, cut: int | None
) -> None:
    made = ENCODERS[family]
    made.max_length = max_length
    special = 2 if family == "bert" else 0
    [[every]] = made.encode_pairs([query], [[passage]], chunks=99)
    [[kept]] = made.encode_pairs([query], [[passage]], chunks, cut)
    for pair in (*every, *kept):
        assert len(pair) <= max_length
        assert 0 < pair.split < len(pair)
        assert pair.split <= max(max_length // 2, special + 1)
    if passage:
        middle = [pair.ids[pair.split + special // 2 : len(pair) - special // 2] for pair in every]
        assert list(chain(*middle)) == tokens(made, passage)
        assert {len(pair) for pair in every[:-1]} <= {max_length}
    assert 1 <= len(kept) <= chunks
    if cut is None:
        assert kept == every[:chunks]
    else:
        assert sum(len(pair) - pair.split - special for pair in kept) <= max(cut, 1)


ENCODERS = {family: encoder(family) for family in ("bert", "gpt2")}


@pytest.mark.parametrize(("family", "max_length"), [("bert", 5), ("gpt2", 1)])
def test_a_length_without_room_for_two_texts_is_refused(family: str, max_length: int) -> None:
    with pytest.raises(ModelError, match=f"max_length {max_length} leaves no room for a query and a passage"):
        encoder(family, max_length).encode_pairs(["a"], [["b"]])
    [[[pair]]] = encoder(family, max_length + 1).encode_pairs(["a b c"], [["b c"]])
    assert len(pair) == max_length + 1
