import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.errors import DataError, EncoreError
from training.text import (
    KNOWN_SEPARATORS,
    ChatError,
    TextRules,
    clean_label,
    clean_text,
    flatten_chat,
    learn_label_suffix,
    learn_separator,
    system_text,
)

RULES = TextRules()
HOSTED_SEPARATORS = (" ->", *(f"\n\n{mark}\n\n" for mark in ("###", "===", "---", "===>", "--->", "### =>")))


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize("separator", HOSTED_SEPARATORS)
@pytest.mark.parametrize("times", [0, 1, 2, 5])
def test_known_separators_are_stripped_however_often_they_occur(separator: str, times: int):
    assert clean_text("From: doug\n\nHi" + separator * times, RULES) == "From: doug\n\nHi"


def test_separators_may_be_mixed_stripped_or_followed_by_white_space():
    assert clean_text("Hi ->\n\n###\n\n ->  \n", RULES) == "Hi"
    assert clean_text("Hi\n\n###", RULES) == "Hi"


def test_what_only_looks_like_a_separator_stays():
    assert clean_text("  a -> b", RULES) == "  a -> b"
    assert clean_text("title\n###\nbody ###", RULES) == "title\n###\nbody ###"
    assert clean_text("x->", RULES) == "x->"


def test_own_separator_is_stripped_beside_the_known_ones():
    rules = TextRules(separator="\n%%\n")
    assert clean_text("Hi\n%%\n\n%% ->", rules) == "Hi"
    assert clean_text("Hi\n%%", RULES) == "Hi\n%%"


def test_separator_of_white_space_alone_changes_nothing():
    assert clean_text("Hi", TextRules(separator="\n\n")) == "Hi"


def test_stripping_takes_time_linear_in_the_text():
    assert clean_text("Hi" + "\n\n###" * 400_000, RULES) == "Hi"  # minutes if every step copied the text


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from([*HOSTED_SEPARATORS, *KNOWN_SEPARATORS, " ", "\n", "a", "#", "->", "~~"])).map("".join),
    st.sampled_from([None, " ~~", "~", "#", "-->", "  "]),
)
def test_cleaning_twice_changes_nothing(text: str, separator: str | None):
    rules = TextRules(separator=separator)
    once = clean_text(text, rules)
    assert clean_text(once, rules) == once
    assert text.startswith(once)


@pytest.mark.parametrize(
    ("written", "label"),
    [(" hockey", "hockey"), ("hockey\n", "hockey"), (3, "3"), (0, "0"), (1.5, "1.5"), (True, "true"), (" \n", "")],
)
def test_labels_become_text(written: object, label: str):
    assert clean_label(written, RULES) == label


@pytest.mark.parametrize("written", [None, ["a"], {"a": 1}, float("inf"), float("nan")])
def test_labels_of_other_types_are_refused(written: object):
    with pytest.raises(DataError, match=r"label is .*, expected a string; give the row a label or remove it"):
        clean_label(written, RULES)


def test_label_suffix_is_removed_with_the_white_space_before_it():
    rules = TextRules(label_suffix=" END")
    assert clean_label(" hockey END\n", rules) == "hockey"
    assert clean_label("hockey", rules) == "hockey"
    assert clean_label("WEEKEND", rules) == "WEEKEND"


def test_rules_survive_json_and_refuse_unknown_keys():
    rules = TextRules(separator=" ~~", ignore_system=True, label_suffix="###")
    assert TextRules.model_validate_json(rules.model_dump_json()) == rules
    with pytest.raises(ValueError, match="prefix"):
        TextRules.model_validate({"prefix": "x"})


@pytest.mark.parametrize(
    ("prompts", "separator"),
    [
        (["a cat >>>", "a dog >>>"], " >>>"),
        (["see ##>", "tree ##>"], " ##>"),
        (["cat\n%%\n", "dog\n%%\n"], "\n%%"),
        (["cat ~~ ~~", "dog ~~ ~~"], " ~~"),
        (["cat ~~\n\n###\n\n", "dog ~~\n\n###\n\n"], " ~~"),
        (["cat\n\n###\n\n", "dog\n\n###\n\n"], None),
        (["cat\nLabel:", "dog\nLabel:"], None),
        (["cat?", "dog?"], None),
        (["cat", "dog"], None),
        (["cat >>"], None),
        (["cat >>", "cat >>"], None),
        (["cat !!", "!!"], None),
        ([], None),
    ],
)
def test_learned_separator(prompts: list[str], separator: str | None):
    assert learn_separator(iter(prompts)) == separator


def test_learned_separator_makes_prompts_equal_with_and_without_it():
    prompts = [f"text {i} <=>\n" for i in range(12)]
    rules = TextRules(separator=learn_separator(prompts))
    assert [clean_text(prompt, rules) for prompt in prompts] == [f"text {i}" for i in range(12)]


@pytest.mark.parametrize(
    ("labels", "suffix"),
    [
        ([" hockey END", " baseball END"], " END"),
        (["hockey\nEND\n", "baseball\nEND\n"], "\nEND"),
        (["hockey [END]", "baseball [END]"], " [END]"),
        (["hockey###", "baseball###"], "###"),
        (["hockey ***", "lucky ***"], " ***"),
        (["hockey ### END", "lucky ### END"], " ### END"),
        (["yes\n", "no\n"], ""),
        (["play music", "stop music"], ""),
        (["positive", "negative"], ""),
        (["WEEKEND", "SPEND"], ""),
        (['{"a": "x"}', '{"a": "y"}'], ""),
        (["C++", "G++"], ""),
        (["spam END"], ""),
        (["###", "a ###"], ""),
        ([], ""),
    ],
)
def test_learned_label_suffix(labels: list[str], suffix: str):
    assert learn_label_suffix(iter(labels)) == suffix


def test_one_user_message_is_its_content():
    assert flatten_chat([user("wake me at 6\n\n###\n\n")], RULES) == "wake me at 6"


def test_text_parts_are_joined_by_newlines():
    assert flatten_chat([user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])], RULES) == "a\nb"


def test_several_messages_become_lines_with_their_roles():
    messages = [user("hi"), {"role": "assistant", "content": "yes?"}, user("wake me")]
    assert flatten_chat(messages, RULES) == "user: hi\nassistant: yes?\nuser: wake me"


def test_system_messages_are_dropped_only_if_the_rules_say_so():
    messages = [{"role": "system", "content": "classify"}, {"role": "developer", "content": "now"}, user("hi")]
    assert flatten_chat(messages, RULES) == "system: classify\ndeveloper: now\nuser: hi"
    assert flatten_chat(messages, TextRules(ignore_system=True)) == "hi"
    assert system_text(messages) == ("classify", "now")


@pytest.mark.parametrize(
    ("messages", "index", "field", "reason"),
    [
        ([], None, None, "messages has no user message"),
        ([{"role": "system", "content": "x"}], None, None, "messages has no user message"),
        (
            [user("a"), {"role": "bot", "content": "x"}],
            1,
            "role",
            r'messages\[1\]\.role is "bot", expected one of system',
        ),
        ([{"content": "x"}], 0, "role", "role is missing"),
        ([{"role": ["user"], "content": "x"}], 0, "role", "role is a list"),
        ([{"role": "user"}], 0, "content", "content is missing"),
        ([user(None)], 0, "content", "content is null"),
        ([user([{"type": "image_url", "image_url": {}}])], 0, "content", "holds a part that is not text"),
        ([user([{"type": "text", "text": 1}])], 0, "content", "holds a part that is not text"),
        ([user(["hi"])], 0, "content", "holds a part that is not text"),
        (["hi"], 0, None, r"messages\[0\] is a string"),
    ],
)
def test_messages_that_cannot_be_flattened(messages: list[object], index: int | None, field: str | None, reason: str):
    with pytest.raises(ChatError, match=reason) as caught:
        flatten_chat(messages, RULES)  # type: ignore[arg-type]
    assert (caught.value.index, caught.value.field) == (index, field)
    assert isinstance(caught.value, EncoreError)
