import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.errors import DataError
from training.rows import ClassifyRow, DataOptions, read_classify, surface_forms
from training.text import TextRules

Write = Callable[..., Path]


@pytest.fixture
def file(tmp_path: Path) -> Write:
    def write(*lines: object, name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        return path

    return write


def labelled(text: object, label: object) -> dict[str, object]:
    return {"text": text, "label": label}


def chat(*contents: str, system: str | None = None, weight: int | None = None) -> dict[str, object]:
    """A conversation of user and assistant turns that ends with the assistant's."""
    roles = ["assistant" if (len(contents) - i) % 2 else "user" for i in range(len(contents))]
    messages: list[dict[str, object]] = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
    if weight is not None:
        messages[-1]["weight"] = weight
    return {"messages": ([{"role": "system", "content": system}] if system else []) + messages}


def pairs(path: Path, **how: object) -> list[tuple[str, tuple[str, ...]]]:
    return [(row.text, row.labels) for row in read_classify(path, **how).rows]  # type: ignore[arg-type]


def test_text_and_label(file: Write):
    found = read_classify(path := file(labelled(" fly to boston \n", "flight"), "", labelled("price ->", 3)))
    assert found.rows == [
        ClassifyRow(" fly to boston", ("flight",), ("flight",), 1),
        ClassifyRow("price", ("3",), ("3",), 3),
    ]
    assert (found.path, found.format, found.multi_label, found.notes) == (path, "text-label", False, ())


def test_prompts_and_completions_lose_separators_and_end_marks(file: Write):
    rows = [{"prompt": f"text {i} >>\n\n###\n\n", "completion": f" {name} END\n"} for i, name in enumerate("aba")]
    found = read_classify(file(*rows))
    assert found.rules == TextRules(separator=" >>", ignore_system=True, label_suffix=" END")
    assert [row.text for row in found.rows] == ["text 0", "text 1", "text 2"]
    assert [row.labels for row in found.rows] == [("a",), ("b",), ("a",)]
    assert surface_forms(found.rows) == {"a": " a END\n", "b": " b END\n"}


def test_a_common_ending_of_labels_that_are_no_completions_stays(file: Write):
    assert read_classify(file(labelled("x", "front END"), labelled("y", "back END"))).rules.label_suffix == ""
    path = file("prompt,completion", "x, front END", "y, back END", name="data.csv")
    assert pairs(path) == [("x", ("front",)), ("y", ("back",))]


def test_chat_rows(file: Write):
    found = read_classify(file(chat("wake me", "alarm"), chat("hi", "yes?", "play it", "music")))
    assert [(row.text, row.labels) for row in found.rows] == [
        ("wake me", ("alarm",)),
        ("user: hi\nassistant: yes?\nuser: play it", ("music",)),
    ]
    assert found.format == "chat"


def test_a_system_message_that_never_varies_is_dropped(file: Write):
    constant = read_classify(file(chat("a", "x", system="be brief"), chat("b", "y", system="be brief")))
    assert constant.rules.ignore_system
    assert [row.text for row in constant.rows] == ["a", "b"]
    varying = read_classify(file(chat("a", "x", system="be brief"), chat("b", "y")))
    assert not varying.rules.ignore_system
    assert [row.text for row in varying.rows] == ["system: be brief\nuser: a", "b"]


def test_chat_rows_of_weight_0_are_skipped_and_noted(file: Write):
    found = read_classify(file(chat("a", "x", weight=0), chat("b", "y", weight=1), chat("c", "z")))
    assert [row.line for row in found.rows] == [2, 3]
    assert found.notes == ("Rows skipped because the weight of their last assistant message is 0: 1.",)


def test_an_evaluation_file_is_read_by_the_rules_of_training(file: Write):
    rules = TextRules(separator=" >>", label_suffix=" END")
    path = file(labelled("a >>", "x END"), labelled("b", "y"))
    assert pairs(path, rules=rules) == [("a", ("x",)), ("b", ("y",))]
    assert read_classify(path, rules=rules).rules == rules


def test_lists_of_labels(file: Write):
    found = read_classify(file(labelled("a", ["x", "y ", "x"]), labelled("b", []), labelled("c", [1])))
    assert found.multi_label
    assert [row.labels for row in found.rows] == [("x", "y"), (), ("1",)]
    assert [row.surfaces for row in found.rows] == [("x", "y "), (), ("1",)]


def test_labels_in_one_cell(file: Write):
    path = file("text,label", "a,x|y", "b,", "c, y", name="data.csv")
    found = read_classify(path, DataOptions(label_separator="|"))
    assert found.multi_label
    assert [row.labels for row in found.rows] == [("x", "y"), (), ("y",)]


def test_single_labels_count_as_lists_only_when_asked(file: Write):
    path = file(labelled("a", ["x"]), labelled("b", "y"))
    assert pairs(path, multi_label=True) == [("a", ("x",)), ("b", ("y",))]
    message = r"data.jsonl:2: label is a single label, but line 1 has a list of labels; a file holds one kind"
    with pytest.raises(DataError, match=message):
        read_classify(path)
    with pytest.raises(DataError, match=r"data.jsonl:1: label is a list; expected a single label"):
        read_classify(path, multi_label=False)
    assert read_classify(file(labelled("b", "y")), multi_label=True).multi_label


def test_a_table_with_the_label_first_and_quotes_as_data(file: Write):
    rows = [
        'ham\t"Gimme a few" was  &lt;#&gt;  minutes ago',
        'spam\t"URGENT! You have won',
        "ham\tok, lar",
        "ham\tu dun say",
    ]
    found = read_classify(file(*rows, name="messages"))
    assert [f"{row.labels[0]}\t{row.text}" for row in found.rows] == rows
    assert found.format == "csv"
    assert len(found.notes) == 4


def test_forced_columns(file: Write):
    path = file({"id": 1, "text": "a", "label": "x", "topic": "t"}, {"id": 2, "text": "b", "label": "y", "topic": "u"})
    assert pairs(path, options=DataOptions(label_column="topic")) == [("a", ("t",)), ("b", ("u",))]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (labelled("", "x"), "text is empty; remove the row or give it a text"),
        (labelled(" ->\n\n###\n\n", "x"), "text is empty"),
        (labelled("a", " "), "label is empty; remove the row or give it a label"),
        (labelled("a", None), "label is null, expected a string; give the row a label or remove it"),
        (labelled("a", {"x": 1}), "label is an object"),
        (labelled(None, "x"), "'text' is null, expected a string"),
        (labelled(5, "x"), "'text' is a number, expected a string"),
        ({"text": "a", "labels": "x"}, "'label' is missing; found the keys text, labels"),
        ({"label": "a"}, "'text' is missing; found the keys label"),
        (
            {"prompt": "a", "completion": "b"},
            "the row is prompt-completion, but line 1 is text-label; a file holds one",
        ),
        (chat("a", "b"), "the row is chat, but line 1 is text-label"),
        ('{"text":"a","label":1e999}', "label is not a finite number"),
        ('{"text":"a","label":"\\ud83d"}', "label holds half of a surrogate pair"),
        ('{"text":"a \\udcff","label":"x"}', "text holds half of a surrogate pair"),
        ('{"text":"a\\u0000","label":"x"}', "text holds a NUL character"),
        ("[1]", "the record is a list, expected a JSON object"),
    ],
)
def test_the_first_bad_row_is_reported_with_file_and_line(file: Write, row: object, message: str):
    path = file(labelled("good", "x"), "", row, labelled("", ""))
    with pytest.raises(DataError, match=message) as caught:
        read_classify(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert (caught.value.path, caught.value.line) == (path, 3)


@pytest.mark.parametrize(
    ("label", "message"),
    [(["x", ""], "label is empty"), (["x", None], "label is null"), ([["x"]], "label is a list, expected a string")],
)
def test_bad_labels_in_a_list(file: Write, label: object, message: str):
    with pytest.raises(DataError, match=f":1: {message}"):
        read_classify(file(labelled("a", label)))


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "'messages' is empty, expected a list of messages"),
        ("hi", "'messages' is a string"),
        ([{"role": "assistant", "content": "x"}], "messages has no user message"),
        (
            [{"role": "user", "content": "x"}],
            "the last message has the role user, expected the answer of the assistant",
        ),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": None}], r"messages\[1\].content is null"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}], "label is empty"),
        ([{"role": "user", "content": " "}, {"role": "assistant", "content": "x"}], "text is empty"),
        ([{"role": "me", "content": "a"}, {"role": "assistant", "content": "x"}], r'messages\[0\].role is "me"'),
        ([{"role": "user", "content": "a"}, "x"], r"messages\[1\] is a string"),
    ],
)
def test_bad_chat_rows(file: Write, messages: object, message: str):
    with pytest.raises(DataError, match=f":2: {message}"):
        read_classify(file(chat("a", "b"), {"messages": messages}))


def test_files_without_rows(file: Write):
    for path in (file("text,label", name="data.csv"), file("[]", name="data.json"), file(chat("a", "b", weight=0))):
        with pytest.raises(DataError, match="no r"):
            read_classify(path)


def test_rerank_files_are_not_for_classification(file: Write):
    with pytest.raises(DataError, match=":1: the rows are queries with passages; expected texts with labels"):
        read_classify(file({"query": "a", "relevant_passages": ["b"], "hard_negatives": []}))


def test_surface_forms_are_the_most_frequent_ones_the_first_seen_among_equals(file: Write):
    path = file(*(labelled("t", label) for label in ("a ", " b", "a", "b", "c", "a", "\tc", "\tc")))
    assert surface_forms(read_classify(path).rows) == {"a": "a", "b": " b", "c": "\tc"}


fuzz = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PIECES = [
    *(char.encode() for char in '"\n\r,;\t|{}[]: \\a\0é\ufeff'),
    *(b"\xff\xfe", b"\xe9", b"\\ud800", b"\\u0000", b"NaN", b"1e999", b"null", b"text", b"label", b"[" * 3000),
]
JSONL = [json.dumps(labelled(f"text {i} of {i * 7}", "xyz"[i % 3])) for i in range(8)]
CHAT = [json.dumps(chat(f"text {i} of {i * 7}", "xyz"[i % 3])) for i in range(8)]
CSV = ["text,label"] + [f"text {i} of {i * 7},{'xyz'[i % 3]}" for i in range(8)]


@fuzz
@given(
    content=st.binary() | st.lists(st.sampled_from(PIECES)).map(b"".join),
    name=st.sampled_from(["data", "data.csv", "data.json", "data.jsonl"]),
    options=st.builds(
        DataOptions,
        format=st.sampled_from([None, None, "csv", "chat"]),
        header=st.sampled_from([None, True, False]),
        quotes=st.sampled_from([None, "csv", "data"]),
        delimiter=st.sampled_from([None, " "]),
        text_column=st.sampled_from([None, None, "1"]),
    ),
)
def test_any_bytes_give_rows_or_a_data_error(tmp_path: Path, content: bytes, name: str, options: DataOptions):
    path = tmp_path / name
    path.write_bytes(content)
    try:
        assert read_classify(path, options).rows
    except DataError as error:
        assert error.path == path
        assert "\n" not in str(error)


@fuzz
@given(
    lines=st.sampled_from([JSONL, CHAT, CSV]),
    which=st.integers(1, 8),
    edits=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3), st.sampled_from(PIECES)), min_size=1, max_size=3),
)
def test_a_damaged_row_gives_an_error_or_costs_no_other_row(
    tmp_path: Path, lines: list[str], which: int, edits: list[tuple[int, int, bytes]]
):
    which = min(which, len(lines) - 1)
    damaged = lines[which].encode()
    for position, deleted, inserted in edits:
        damaged = damaged[:position] + inserted + damaged[position + deleted :]
    path, whole = tmp_path / "data", tmp_path / "whole"
    path.write_bytes(b"\n".join([*map(str.encode, lines[:which]), damaged, *map(str.encode, lines[which + 1 :])]))
    whole.write_text("\n".join(lines[:which] + lines[which + 1 :]))
    try:
        found = pairs(path)
    except DataError as error:
        more = damaged.count(b"\n") + damaged.count(b"\r")
        assert error.line is None or which + 1 <= error.line <= len(lines) + more
        return
    expected = pairs(whole)
    assert [pair for pair in found if pair in expected] == expected
