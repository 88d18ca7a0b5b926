"""Review of texts with labels: every check, what its fix does, and what is written."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from training.errors import DataError, ModelError
from training.formats import DataOptions
from training.review import Finding, Review, ReviewOptions, review
from training.rows import read_classify

Write = Callable[..., Path]
NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()
QUIET: dict[str, Any] = {"min_rows": 0, "split": None}


@pytest.fixture
def file(tmp_path: Path) -> Write:
    def write(*lines: object, name: str = "data.jsonl", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_bytes("".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines).encode(encoding))
        return path

    return write


def rows(count: int = 12, labels: Sequence[str] = ("cat", "dog"), **more: object) -> list[dict[str, Any]]:
    """So many rows of different texts, near-duplicates of none."""
    return [
        {"text": f"{NUMBERS[i % 12]} {NUMBERS[i // 12]} lives", "label": labels[i % len(labels)]} | more
        for i in range(count)
    ]


def prompts(count: int = 12, end: str = "", labels: Sequence[str] = (" cat", " dog")) -> list[dict[str, Any]]:
    return [{"prompt": row["text"] + end, "completion": row["label"]} for row in rows(count, labels)]


def find(found: Review, check: str, file: str = "train", **wanted: object) -> Finding:
    (one,) = (
        f
        for f in found.findings
        if (f.id, f.file) == (check, file) and all(getattr(f, k) == v for k, v in wanted.items())
    )
    return one


def ids(found: Review) -> set[str]:
    return {finding.id for finding in found.findings}


def look(path: Path, valid: Path | None = None, **options: Any) -> Review:
    return review(path, valid, ReviewOptions(**(QUIET | options)))


def written(found: Review, tmp_path: Path) -> list[Any]:
    target = tmp_path / "out.jsonl"
    found.write(target, None)
    return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]


def test_a_good_file_has_nothing_to_fix(file: Write, tmp_path: Path) -> None:
    found = look(path := file(*rows()))
    assert (ids(found), found.ready, found.read) == ({"few_rows", "no_valid"}, True, 12)
    assert found.train.label_counts == {"cat": 6, "dog": 6}
    assert found.train.samples["cat"][0] == "one one lives"
    assert found.train.tokens > 12
    assert written(found, tmp_path) == rows()
    assert path.read_text() == "".join(json.dumps(row) + "\n" for row in rows())


@pytest.mark.parametrize(
    ("line", "check", "reason"),
    [
        ("{broken", "malformed", "not one complete JSON object"),
        ("[1]", "malformed", "the record is a list"),
        ('{"text": "a\\u0000b", "label": "cat"}', "malformed", "NUL"),
        ('{"text": "a \\ud800 b", "label": "cat"}', "encoding", "surrogate"),
        ({"text": 5, "label": "cat"}, "malformed", "'text' is a number"),
        ({"text": "x y", "label": {}}, "malformed", "label is an object"),
        ({"label": "cat"}, "empty_text", "'text' is missing"),
        ({"text": " ", "label": "cat"}, "empty_text", "blank"),
        ({"text": "?!", "label": "cat"}, "empty_text", "punctuation"),
        ({"text": "&nbsp;", "label": "cat"}, "empty_text", "blank"),
        ({"text": "x y"}, "empty_label", "'label' is missing"),
        ({"text": "x y", "label": None}, "empty_label", "label is null"),
        ({"text": "x y", "label": " "}, "empty_label", "blank"),
    ],
)
def test_rows_that_cannot_be_used_are_dropped_and_named(
    file: Write, tmp_path: Path, line: object, check: str, reason: str
) -> None:
    found = look(file(*rows()[:6], "", line, *rows()[6:]))
    finding = find(found, check)
    assert (finding.count, finding.rows, finding.severity, finding.applied) == (1, (8,), "error", True)
    assert finding.reasons[0][0] == 8
    assert reason in finding.reasons[0][1]
    assert found.ready
    assert written(found, tmp_path) == rows()


def test_an_error_that_is_not_fixed_remains(file: Write) -> None:
    found = review(file(*rows(), "{"), None, ReviewOptions(**QUIET), lambda finding: False)
    assert not found.ready
    assert found.train.rows == 12


def test_each_fix_is_asked_once_in_the_order_of_the_checks(file: Write) -> None:
    asked: list[tuple[str, int]] = []

    def decide(finding: Finding) -> bool:
        asked.append((finding.id, finding.count))
        return finding.safe

    lines = [*rows(), rows()[0], {"text": "", "label": "cat"}, rows()[0], "{", {"text": "z &amp; q", "label": "Cat"}]
    review(file(*lines), None, ReviewOptions(min_rows=0), decide)
    assert asked == [
        ("malformed", 1),
        ("empty_text", 1),
        ("markup", 1),
        ("label_variants", 1),
        ("duplicate", 2),
        ("no_valid", 13),
    ]


def test_without_fixes_texts_and_labels_stay_as_written(file: Write, tmp_path: Path) -> None:
    lines = prompts(end=" &amp; ->\n\n###\n\n")
    lines[0]["completion"] = " Cat"
    found = review(file(*lines), None, ReviewOptions(**QUIET), lambda finding: False)
    assert {"markup", "label_variants"} <= ids(found)
    assert written(found, tmp_path) == lines


def test_windows_1252_is_read_and_utf_16_too(file: Write, tmp_path: Path) -> None:
    lines = [json.dumps(row | {"text": f"{row['text']} “é”"}, ensure_ascii=False) for row in rows()]
    for encoding in ("cp1252", "utf-16", "utf-16-le", "utf-32"):
        found = look(file(*lines, encoding=encoding))
        assert find(found, "encoding").count == 12
        assert written(found, tmp_path)[0]["text"] == "one one lives “é”"
    path = file(*lines)
    path.write_bytes(path.read_bytes() + b'{"text": "a\x81b c", "label": "cat"}\n')
    found = look(path)
    assert (find(found, "encoding").count, find(found, "encoding").rows, found.train.rows) == (1, (13,), 12)
    declined = review(file(*lines, encoding="cp1252"), None, ReviewOptions(**QUIET), lambda finding: False)
    assert (declined.ready, declined.train.rows) == (False, 0)


def test_a_byte_order_mark_is_noted(file: Write) -> None:
    found = look(file(*rows(), encoding="utf-8-sig"))
    assert any("byte order mark" in note for note in found.notes)
    assert "encoding" not in ids(found)


def test_mojibake_is_repaired_where_all_of_a_text_decodes(file: Write, tmp_path: Path) -> None:
    lines = rows(14)
    lines[0]["text"] = "itâ€™s a cafÃ©"
    lines[1]["text"] = "„Spaß“ on 5 Ã"
    lines[2]["label"] = "cafÃ©"
    lines[4]["label"] = "café"
    found = look(file(*lines))
    assert (find(found, "mojibake").rows, find(found, "mojibake").severity) == ((1, 3), "warning")
    out = written(found, tmp_path)
    assert [out[0]["text"], out[1]["text"], out[2]["label"]] == ["it’s a café", "„Spaß“ on 5 Ã", "café"]


def test_entities_and_control_characters_go_and_tags_stay(file: Write, tmp_path: Path) -> None:
    lines = rows()
    lines[0]["text"] = "a &amp;lt; b\x07 ?x=1&copy=2"
    lines[1]["text"] = "<p>fish</p> and a <thing> by <mail@host.com>"
    found = look(file(*lines))
    assert find(found, "markup", safe=True).rows == (1,)
    assert (find(found, "markup", safe=False).rows, find(found, "markup", safe=False).applied) == ((2,), False)
    assert [row["text"] for row in written(found, tmp_path)[:2]] == ["a < b ?x=1&copy=2", lines[1]["text"]]
    found = review(file(*lines), None, ReviewOptions(**QUIET), lambda finding: True)
    assert written(found, tmp_path)[1]["text"].split() == "fish and a <thing> by <mail@host.com>".split()


def test_a_row_that_is_nothing_but_tags_is_dropped_with_them(file: Write) -> None:
    found = review(file(*rows(), {"text": "<br>", "label": "cat"}), None, ReviewOptions(**QUIET), lambda finding: True)
    assert (find(found, "empty_text").rows, found.train.rows, found.ready) == ((13,), 12, True)


def test_columns_too_many_differently_spelt_and_of_another_shape(file: Write, tmp_path: Path) -> None:
    found = look(file(*rows(10, id=3), *({k.title(): v for k, v in row.items()} for row in rows()[10:])))
    assert (find(found, "columns", severity="error").rows, find(found, "columns", severity="error").fix) == (
        (11, 12),
        "rename",
    )
    assert find(found, "columns", severity="suggestion").message.endswith(": id")
    assert written(found, tmp_path) == rows()
    mixed = look(file(*rows(), *prompts(1)))
    assert (find(mixed, "columns").rows, find(mixed, "columns").safe, mixed.ready) == ((13,), False, False)
    assert "a file holds one shape" in find(mixed, "columns").reasons[0][1]


def test_a_file_without_text_and_label_is_unreadable(file: Write) -> None:
    with pytest.raises(DataError, match="found the keys a, b"):
        look(file({"a": 1, "b": 2}))
    with pytest.raises(DataError, match="is empty"):
        look(file())
    with pytest.raises(DataError, match="cannot be read"):
        look(Path("nowhere.jsonl"))
    with pytest.raises(ModelError, match="nowhere"):
        look(file(*rows()), encoder="/nowhere/at/all")


def test_chat_rows(file: Write, tmp_path: Path) -> None:
    def chat(*turns: tuple[str, object]) -> dict[str, Any]:
        return {"messages": [{"role": role, "content": content} for role, content in turns]}

    system = ("system", "be brief")
    good = [chat(system, ("user", f"{r['text']} ->"), ("assistant", r["label"])) for r in rows()]
    bad = [
        chat(system, ("assistant", "cat")),
        chat(("user", "a b"), ("user", "c d")),
        chat(("bot", "a b"), ("assistant", "cat")),
        chat(("user", 5), ("assistant", "cat")),
        {"messages": "a"},
    ]
    skipped = chat(("user", "never mind"), ("assistant", "cat"))
    skipped["messages"][-1]["weight"] = 0
    found = look(file(*good, *bad, skipped))
    assert (find(found, "chat_shape", severity="error").count, found.to) == (5, "openai-chat")
    assert find(found, "chat_shape", severity="suggestion").rows == (18,)
    assert written(found, tmp_path)[0] == chat(system, ("user", "one one lives"), ("assistant", "cat"))
    assert written(look(file(*good), to="openai"), tmp_path)[0] == {
        "prompt": "one one lives\n\n###\n\n",
        "completion": " cat",
    }


def test_separators(file: Write, tmp_path: Path) -> None:
    end = "\n\n###\n\n"
    assert "separator" not in ids(look(file(*prompts(end=end))))
    assert "separator" not in ids(look(file(*prompts(end=" ->"))))
    some = prompts(end=" ->")
    some[3]["prompt"] = some[3]["prompt"].removesuffix(" ->")
    found = look(file(*some))
    assert find(found, "separator").fix == 'add "\\n\\n###\\n\\n"'
    assert written(found, tmp_path) == prompts(end=end)
    found = look(file(*some), to="cohere")
    assert (find(found, "separator").count, find(found, "separator").fix) == (11, "remove")
    assert written(found, tmp_path) == rows()
    assert written(look(file(*prompts(end=" >>|")), to="cohere"), tmp_path) == rows()


def test_label_space_prefix_and_suffix(file: Write, tmp_path: Path) -> None:
    found = look(file(*prompts(end=" ->", labels=("Label: cat END", "Label: dog END"))))
    assert {"label_space", "label_prefix", "label_suffix"} <= ids(found)
    assert written(found, tmp_path)[0]["completion"] == " cat"
    plain = look(file(*rows(labels=("atis_flight", "atis_fare"))))
    assert "label_prefix" not in ids(plain)


def test_label_variants_are_merged_into_the_most_frequent_spelling(file: Write, tmp_path: Path) -> None:
    found = look(file(*rows(24, labels=("red cat", "dog", "red cat", "dog", "Red_Cat", "dog"))))
    assert find(found, "label_variants").message.endswith('"Red_Cat" (4) looks like "red cat" (8)')
    assert {row["label"] for row in written(found, tmp_path)} == {"red cat", "dog"}


def test_typos_are_offered_and_merged_on_request(file: Write, tmp_path: Path) -> None:
    lines = rows(120, labels=("hockey", "class_1"))
    lines[0]["label"] = lines[2]["label"] = "hocky"
    lines[1]["label"] = lines[3]["label"] = "class_2"
    found = look(file(*lines))
    assert (find(found, "label_typo").applied, find(found, "label_typo").safe) == (False, False)
    assert find(found, "label_typo").message.endswith('"hocky" (2) looks like "hockey" (58)')
    merged = look(file(*lines), merge={"hocky": "hockey"})
    assert merged.train.label_counts["hockey"] == 60
    assert {row["label"] for row in written(merged, tmp_path)} == {"hockey", "class_1", "class_2"}
    with pytest.raises(DataError, match='no row has the label "puck"; found class_1'):
        look(file(*lines), merge={"puck": "hockey"})


def test_conflicts_keep_a_strict_majority(file: Write, tmp_path: Path) -> None:
    lines = [
        {"text": t, "label": x}
        for t, x in (("a b", "cat"), ("a  b", "cat"), ("a b", "dog"), ("c d", "cat"), ("c d", "dog"))
    ]
    found = look(file(*rows(), *lines))
    assert find(found, "conflict").rows == (15, 16, 17)
    assert "15 (dog), 16 (cat), 17 (dog)" in find(found, "conflict").message
    assert find(found, "duplicate").rows == (14,)
    assert written(found, tmp_path) == [*rows(), lines[0]]


def test_rare_labels(file: Write) -> None:
    rare = [{"text": text, "label": text[:3]} for text in ("emu alone", "fox by two", "fox and another")]
    lines = [*rows(36), *rare]
    found = look(file(*lines))
    once, few = find(found, "rare_label", severity="error"), find(found, "rare_label", severity="warning")
    assert (once.count, once.rows, once.applied, few.count, few.applied) == (1, (37,), True, 1, False)
    assert set(found.train.label_counts) == {"cat", "dog", "fox"}
    several = look(
        file(*(row | {"label": [row["label"]]} for row in rows(36)), {"text": "x y", "label": ["cat", "emu"]})
    )
    assert (several.train.rows, several.train.label_counts) == (37, {"cat": 19, "dog": 18})


def test_a_validation_file(file: Write, tmp_path: Path) -> None:
    valid = file(
        rows()[0], {"text": "new one", "label": "Dog"}, {"text": "new two", "label": "emu"}, "{", name="valid.jsonl"
    )
    found = look(file(*rows()), valid)
    assert find(found, "leak").rows == (1,)
    assert find(found, "unseen_label", "valid").rows == (3,)
    assert find(found, "malformed", "valid").as_json()["message"] == "validation file: 1 row cannot be read: 4"
    assert "no_valid" not in ids(found)
    found.write(tmp_path / "t", tmp_path / "v")
    assert [json.loads(line)["label"] for line in (tmp_path / "v").read_text().splitlines()] == ["cat", "dog"]
    assert (found.train.rows, found.valid and found.valid.rows) == (11, 2)


def test_too_little_of_anything(file: Write) -> None:
    assert not look(file(*rows(9)), min_rows=10).ready
    assert find(look(file(*rows(36)), min_rows=40), "few_rows").message == "36 rows in all; at least 40 are needed"
    assert not review(file(*rows(36)), None, ReviewOptions(to="cohere")).ready
    assert find(look(file(*rows(labels=("cat",)))), "few_labels").severity == "error"
    assert "same_text" in ids(look(file(*({"text": "a b", "label": "xy"[i % 2]} for i in range(9)))))
    many = look(file(*({"text": f"{row['text']}", "label": row["text"]} for row in rows())))
    assert find(many, "not_classes").count == 12
    assert many.train.rows == 12


def test_what_is_only_reported(file: Write) -> None:
    lines = rows(40, labels=["cat"] * 13 + ["dog"])
    lines[0]["text"], lines[1]["text"], lines[2]["text"] = "ok", "ONE four lives!", "word " * 300
    found = look(file(*lines))
    assert find(found, "too_short").rows == (1,)
    assert find(found, "near_duplicate").fix is None
    assert "302 tokens" in find(found, "too_long").message
    assert "always answering the first is right in 95.0%" in find(found, "imbalance").message
    assert look(file(*lines), drop_long=True).train.rows == 39
    assert look(file(*lines), max_length=400).ready


def test_prefix_and_capitals_are_offered(file: Write, tmp_path: Path) -> None:
    lines = [row | {"text": f"Classify this e-mail: {row['text']}"} for row in rows()]
    assert not find(look(file(*lines)), "text_prefix").applied
    found = review(file(*lines), None, ReviewOptions(**QUIET), lambda finding: True)
    assert written(found, tmp_path) == rows()
    assert "upper_case" not in ids(look(file(*(row | {"text": row["text"].upper()} for row in rows()))))  # uncased


def test_capitals_matter_to_a_cased_encoder(file: Write, base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cased"
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tokenizer = json.loads((folder / "tokenizer.json").read_text()) | {"normalizer": None}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    path = file(*(row | {"text": row["text"].upper()} for row in rows()))
    found = review(path, None, ReviewOptions(encoder=str(folder), **QUIET), lambda finding: True)
    assert "100%" in find(found, "upper_case").message
    assert written(found, tmp_path) == rows()


def test_several_labels(file: Write, tmp_path: Path) -> None:
    lines = [row | {"label": [row["label"]]} for row in rows()]
    found = look(file(*lines))
    assert (found.multi_label, find(found, "multi_as_single").applied) == (True, False)
    assert written(found, tmp_path) == lines
    assert written(review(file(*lines), None, ReviewOptions(**QUIET), lambda finding: True), tmp_path) == rows()
    empty = look(file(*lines, {"text": "none at all", "label": []}))
    assert (empty.train.rows, empty.ready) == (13, True)
    mixed = look(file(*lines, *rows(1)))
    assert (find(mixed, "columns").rows, mixed.ready) == ((13,), False)
    refused = look(file(*rows(), lines[0]), multi_label=False)
    assert find(refused, "columns").reasons == ((13, "the label is a list; expected a single label"),)
    with pytest.raises(DataError, match="cannot be written as openai"):
        look(file(*lines), to="openai")


def test_tables_and_csv(file: Write, tmp_path: Path) -> None:
    lines = ["text,label,id", '"one, ""two""\rnext",a|b,1', "three four,b,2", *(f"{r['text']},a,3" for r in rows())]
    options = {"data": DataOptions(label_separator="|"), "to": "csv"}
    found = look(file(*lines, name="data.csv"), **options)
    found.write(tmp_path / "out.csv", None)
    assert (tmp_path / "out.csv").read_bytes().startswith(b'text,label\n"one, ""two""\rnext",a|b\nthree four,b\n')
    again = look(tmp_path / "out.csv", **options)
    assert (again.train.rows, again.multi_label) == (14, True)


def test_the_split_is_stratified_and_keeps_near_duplicates_together(file: Write, tmp_path: Path) -> None:
    lines = [*rows(100, labels=["cat"] * 9 + ["dog"]), {"text": f"{rows(100)[5]['text']}!", "label": "cat"}]
    found = review(file(*lines))
    assert found.valid
    assert (found.train.rows + found.valid.rows, found.valid.label_counts["dog"]) == (101, 2)
    found.write(tmp_path / "t", tmp_path / "v")
    texts = [{json.loads(x)["text"].rstrip("!") for x in (tmp_path / n).read_text().splitlines()} for n in "tv"]
    assert not texts[0] & texts[1]
    assert written(review(file(*lines)), tmp_path) == [json.loads(x) for x in (tmp_path / "t").read_text().splitlines()]
    assert review(file(*rows(11))).valid is None  # which would leave too few


def test_a_file_that_changes_meanwhile_is_refused(file: Write, tmp_path: Path) -> None:
    found = look(file(*rows()))
    file(*rows(11))
    with pytest.raises(DataError, match="changed while it was reviewed"):
        found.write(tmp_path / "out", None)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.part").exists()


def test_training_reads_what_a_review_writes(file: Write, tmp_path: Path) -> None:
    found = review(file(*prompts(40, end=" ->"), "{", prompts(1)[0]))
    found.write(tmp_path / "t.jsonl", tmp_path / "v.jsonl")
    source = read_classify(tmp_path / "t.jsonl")
    assert {row.labels for row in source.rows} == {("cat",), ("dog",)}
    assert len(source.rows) == found.train.rows
