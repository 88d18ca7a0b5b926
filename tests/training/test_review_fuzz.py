"""Whatever a file holds: no traceback, no row lost without a word, and nothing left to fix after a review."""

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from training.errors import DataError, EncoreError
from training.formats import DataOptions
from training.review import Review, ReviewOptions, review

fuzz = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LOSING = (
    "encoding malformed columns chat_shape empty_query empty_text empty_label no_relevant duplicate_query "
    "positive_as_negative duplicate_passage conflict duplicate leak rare_label unseen_label too_long"
).split()
"""Findings under which rows are left out."""
PIECES = [
    *(char.encode() for char in '"\n\r,;\t|{}[]: \\a\0é\ufeff<&'),
    *(b"\xff\xfe", b"\xe9", b"\x81", b"\\ud800", b"\\u0000", b"NaN", b"1e999", b"null", b'"text"', b'"label"'),
    *(b'{"text": "a b", "label": "x"}\n', b'{"prompt": "c", "completion": "y"}\n', b"[" * 100_000, b"x" * 300_000),
    *(b'{"query": "q", "relevant_passages": ["a"]}\n', b"text,label\n", b"a,b\n", b"query,positive,negative\n"),
]


def options(base: Path, **more: Any) -> ReviewOptions:
    """Without limits on small files."""
    return ReviewOptions(**({"min_rows": 0, "min_queries": 0, "max_length": 8, "encoder": str(base)} | more))


def account(found: Review) -> None:
    """Every row is left or named."""
    left = found.train.rows
    if found.valid and any(finding.id == "no_valid" for finding in found.findings):
        left += found.valid.rows
    lost = sum(f.count for f in found.findings if f.id in LOSING and f.file == "train")
    assert left <= found.read <= left + lost


def lines(path: Path) -> int:
    return sum(1 for _ in path.open(encoding="utf-8", newline="\n"))


@fuzz
@given(
    content=st.binary() | st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join),
    name=st.sampled_from(["data", "data.csv", "data.json", "data.jsonl"]),
    task=st.sampled_from([None, "classify", "rerank"]),
    safe=st.booleans(),
)
@example(b'{"text": "a", "label": ' + b"[" * 100_000, "data.jsonl", None, True)
@example(b'{"text": "a b", "label": "x", "more": 1e999}\n', "data.jsonl", None, True)
@example(b'{"query": "a", "relevant_passages": ["b"], "more": 1e999, "n": "\\ud800"}\n', "data.jsonl", None, True)
@example(b'{"messages": [{"role": "user", "content": "a", "name": "\\ud800", "weight": 1e999}, '
         b'{"role": "assistant", "content": "b"}]}\n', "data.jsonl", None, True)  # fmt: skip
def test_any_bytes_give_a_review_or_a_data_error(
    tmp_path: Path, base: Path, content: bytes, name: str, task: Any, safe: bool
) -> None:
    path, train, valid = tmp_path / name, tmp_path / "train", tmp_path / "valid"
    path.write_bytes(content)
    try:
        found = review(path, path, options(base, task=task), lambda finding: safe and finding.safe)
    except EncoreError as error:
        assert isinstance(error, DataError)
        assert "\n" not in str(error)
        return
    assert "\n" not in "".join(finding.message for finding in found.findings)
    json.dumps([finding.as_json() for finding in found.findings]).encode()
    account(found)
    found.write(train, valid)
    assert found.valid
    assert (lines(train), lines(valid)) == (found.train.rows, found.valid.rows)


ODD_TEXTS = [
    *("a b", "A b", "a  b", "a b!", "a b ->", "a b ->  ->", "c >>", "c >> >>", "e??", "f >>\n\n###\n\n", "", " ", "?!"),
    *("&amp;", "&amp;amp;lt;", "g &nbsp;", "<br>", "<b>h</b>", "cafÃ©", "itâ€™s", "Ã\x81", "&Atilde;&copy;", "i\x07j"),
    *(
        "\rk\n",
        "Classify this text: l",
        "😀😀",
        "😀😀😀😀",
        "m😀😀",
        "x" * 40,
        "1",
        "2",
        'say "n", o',
        "p\tq;r|s,t",
        "[u",
    ),
]
LABELS = [
    *("x", "X", " x", "x ", "x_y", "x y", "X-Y", "Label: x", "Label: y", "Label: x y", "y", "y END", "x END", "z###"),
    *(
        "x###",
        "hockey",
        "hocky",
        "Ã©",
        "é",
        "",
        " ",
        "-",
        "+",
        "_",
        "class 1",
        "class 2",
        "a|b",
        "a, b",
        "play x",
        "&amp;",
    ),
]
ENDINGS = ["", " ->", " >>", " >> >>", "\n\n###\n\n", "??", "!", "😀😀", " &amp;&amp;", "\n"]
WORDS = [first + second for first in "bcdfgh" for second in ("an", "en", "in", "on", "un")]


@st.composite
def labelled(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Rows of few labels, mostly with one ending, some odd."""
    labels = draw(st.lists(st.sampled_from(LABELS), min_size=2, max_size=4, unique=True))
    usual = draw(st.sampled_from(ENDINGS))
    endings = st.just(usual) | st.sampled_from([usual] * 6 + ENDINGS)
    plain = st.builds(lambda word, end: word + end, st.sampled_from(WORDS), endings)
    texts = plain | plain | plain | st.sampled_from(ODD_TEXTS)
    return draw(st.lists(st.tuples(texts, st.sampled_from(labels)), min_size=10, max_size=45))


FAMILIES = ("openai", "openai-chat", "cohere", "csv")


def shaped(shape: str, text: str, label: str) -> dict[str, Any]:
    if shape == "prompt":
        return {"prompt": text, "completion": label}
    if shape == "chat":
        system = [{"role": "system", "content": "s"}] if len(text) % 2 else []
        return {"messages": [*system, {"role": "user", "content": text}, {"role": "assistant", "content": label}]}
    return {"text": text, "label": [label, *(["x"] if "b" in text else [])] if shape == "lists" else label}


@fuzz
@given(
    pairs=labelled(),
    held=st.none() | labelled(),
    shape=st.sampled_from(["text", "prompt", "chat", "lists"]),
    to=st.sampled_from([None, *FAMILIES]),
    drop_long=st.booleans(),
)
def test_a_reviewed_file_needs_no_second_review(
    tmp_path: Path,
    base: Path,
    pairs: list[tuple[str, str]],
    held: list[tuple[str, str]] | None,
    shape: str,
    to: Any,
    drop_long: bool,
) -> None:
    if shape == "lists" and to in ("openai", "openai-chat"):
        to = "cohere"
    path, valid = tmp_path / "data.jsonl", tmp_path / "valid.jsonl"
    for target, some in ((path, pairs), (valid, (held or [])[:8])):
        target.write_text("".join(json.dumps(shaped(shape, *pair)) + "\n" for pair in some))
    data = DataOptions(label_separator="~") if to == "csv" and shape == "lists" else DataOptions()
    settled = options(base, to=to, drop_long=drop_long, data=data, multi_label=shape == "lists")
    found = review(path, valid if held else None, settled)
    account(found)
    train, second = tmp_path / "t.out", tmp_path / "v.out"
    found.write(train, second)
    if not found.ready or not found.train.rows:
        return
    held_out = second if found.valid and found.valid.rows else None
    again = review(train, held_out, settled)
    left = [f for f in again.findings if f.fix and (f.safe or f.applied) and not (f.id == "no_valid" and not held_out)]
    assert left == []
    assert (again.ready, again.train.rows, again.read) == (True, found.train.rows, found.train.rows)
    again.write(tmp_path / "t2.out", tmp_path / "v2.out" if held_out else None)
    assert (tmp_path / "t2.out").read_bytes() == train.read_bytes()
    if held_out:
        assert (tmp_path / "v2.out").read_bytes() == second.read_bytes()


PASSAGES = st.lists(st.sampled_from(["a", "b", "a ", "c", "", " "]), max_size=4)


@fuzz
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"query": st.sampled_from(["q", "r", " q", "s", "t", ""]), "relevant_passages": PASSAGES | st.just("a")},
            optional={"hard_negatives": PASSAGES | st.none() | st.just("b"), "more": st.just(1)},
        ),
        min_size=1,
        max_size=12,
    ),
    held=st.lists(st.sampled_from(["q", "v"]), max_size=2, unique=True),
    shape=st.sampled_from(["lists", "pairs", "triplets"]),
)
def test_reviewed_rankings_need_no_second_review(
    tmp_path: Path, base: Path, rows: list[dict[str, Any]], held: list[str], shape: str
) -> None:
    def reshaped(row: dict[str, Any]) -> dict[str, Any]:
        good, bad = [*row["relevant_passages"], ""][0], [*(row.get("hard_negatives") or ()), ""][0]
        if shape == "pairs":
            return {"query": row["query"], "document": good, "score": len(row) - 2}
        return {"query": row["query"], "positive": good} | ({"negative": bad} if bad else {})

    path, valid = tmp_path / "data.jsonl", tmp_path / "valid.jsonl"
    path.write_text("".join(json.dumps(row if shape == "lists" else reshaped(row)) + "\n" for row in rows))
    whole = [{"query": query, "relevant_passages": ["a"], "hard_negatives": ["b"]} for query in held]
    valid.write_text("".join(json.dumps(row if shape == "lists" else reshaped(row)) + "\n" for row in whole))
    found = review(path, valid if held else None, options(base, task="rerank"))
    account(found)
    train, second = tmp_path / "t.jsonl", tmp_path / "v.jsonl"
    found.write(train, second)
    if not found.ready or not found.train.rows:
        return
    held_out = second if found.valid and found.valid.rows else None
    again = review(train, held_out, options(base, task="rerank"))
    assert [f for f in again.findings if f.safe and not (f.id == "no_valid" and not held_out)] == []
    assert (again.ready, again.train.rows) == (True, found.train.rows)
