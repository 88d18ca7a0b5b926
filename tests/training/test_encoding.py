from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from tests.tiny import make_tokenizer
from training.engine.encoding import Encoder, TooLongError
from training.errors import ModelError
from training.text import TextRules

TEXT = "please refund my late order today"


def encoder(family: str = "bert", max_length: int = 64, rules: TextRules | None = None) -> Encoder:
    tokenizer = make_tokenizer(family)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Encoder(tokenizer, max_length, rules or TextRules())


def words(made: Encoder, ids: list[int]) -> list[str]:
    return made.tokenizer.convert_ids_to_tokens(ids)


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
    made = Encoder(tokenizer, 64, TextRules())
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
        Encoder(SimpleNamespace(name_or_path="slow/model"), 16, TextRules())
    with pytest.raises(ModelError, match="max_length 2 leaves no room"):
        encoder(max_length=2)
