"""Recognising formats and reading raw records; what becomes of the records is tested in test_rows.py."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from training.errors import DataError
from training.formats import DataOptions, FileFormat
from training.records import read_records, recognise

TICKETS = [("i want my money back, please", "refund"), ("where is it", "shipping"), ("money; now", "refund")]

Write = Callable[..., Path]


@pytest.fixture
def file(tmp_path: Path) -> Write:
    def write(content: str | bytes, name: str = "data") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def table(found: FileFormat) -> tuple[str, str, bool]:
    assert found.table
    return found.table.delimiter, found.table.quotes, found.table.header


@pytest.mark.parametrize(
    ("content", "name", "container", "fields"),
    [
        ('{"text":"a","label":"x"}', "text-label", "jsonl", ("text", "label")),
        ('{"text":"a","label":3,"label_text":"x"}', "text-label", "jsonl", ("text", "label_text")),
        ('{"prompt":"a","completion":" x"}', "prompt-completion", "jsonl", ("prompt", "completion")),
        ('{"messages":[]}', "chat", "jsonl", ("messages", "messages")),
        ('{"query":"a","relevant_passages":[]}', "rerank", "jsonl", ("query", "relevant_passages")),
        ('{"Sentence":"a","INTENT":"x","id":1}', "columns", "jsonl", ("Sentence", "INTENT")),
        ('[{"text":"a","label":"x"}]', "text-label", "json", ("text", "label")),
        ('\n [\n\n {"prompt":"a","completion":"x"}]', "prompt-completion", "json", ("prompt", "completion")),
        ("text,label\na,x\n", "csv", "table", ("text", "label")),
        ("[URGENT] call me,spam\n[x] hello,ham\n", "csv", "table", ("1", "2")),
    ],
)
def test_formats_are_recognised_by_content(
    file: Write, content: str, name: str, container: str, fields: tuple[str, str]
):
    for file_name in ("upload", "data.csv", "data.jsonl")[: 2 if container != "table" else 1]:
        found = recognise(file(content, file_name))
        assert (found.name, found.container, (found.text_field, found.label_field)) == (name, container, fields)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", [True, False])
def test_delimiter_and_header_are_found(tmp_path: Path, delimiter: str, header: bool):
    path = tmp_path / "data"
    with path.open("w", newline="") as out:
        writer = csv.writer(out, delimiter=delimiter)
        writer.writerows([("Text", "Label")] * header + TICKETS)
    found = recognise(path)
    assert table(found) == (delimiter, "csv", header)
    records = list(read_records(path, found))
    assert [tuple(record.fields.values()) for record in records] == TICKETS
    assert [record.line for record in records] == [2, 3, 4] if header else [1, 2, 3]


@pytest.mark.parametrize(
    ("header", "text", "label"),
    [
        ("id,text,label_text", "text", "label_text"),
        ("label,label_text,TEXT", "TEXT", "label_text"),
        ("target,review,stars", "review", "target"),
        ("id,content,output", "content", "output"),
        (" Prompt , Completion ,", "Prompt", "Completion"),
    ],
)
def test_columns_are_found_by_name(file: Write, header: str, text: str, label: str):
    found = recognise(file(f"{header}\n1,2,3\n4,5,6\n"))
    assert (found.text_field, found.label_field) == (text, label)


def test_the_one_column_left_is_the_missing_one(file: Write):
    found = recognise(file("text,topic\na b,x\nc,x\n"))
    assert (found.text_field, found.label_field) == ("text", "topic")


def test_label_may_come_first(file: Write):
    found = recognise(file("ham\tgo until\nspam\tfree entry\nham\tok lar\n"))
    assert (found.text_field, found.label_field) == ("2", "1")
    assert found.notes[-1] == 'Column "2" is the text and "1" the label; override with text_column and label_column.'


def test_unknown_names_are_a_header_when_they_do_not_recur_below(file: Write):
    assert table(recognise(file("v1,v2\nham,go until\nspam,free\nham,ok\n")))[2] is True
    assert table(recognise(file("ham,go until\nspam,free\nham,ok\n")))[2] is False
    assert table(recognise(file("hi,greet\nbye,part\n")))[2] is False
    assert table(recognise(file("please cancel my whole order,cancel\nhi,greet\nho,greet\n")))[2] is False


def test_what_was_assumed_is_noted_with_the_way_to_override_it(file: Write):
    notes = recognise(file('v1\tv2\nham\t"a" b\nspam\tc\nham\td\n')).notes
    assert notes == (
        "Cells are separated by tab; override with delimiter.",
        'Double quotes are read as part of the text; override with quotes: "csv".',
        "The first row (v1, v2) is read as column names; override with header: false.",
        'Column "v2" is the text and "v1" the label; override with text_column and label_column.',
    )
    assert '";" would fit as well' not in notes[0]
    assert '"," would fit as well' in recognise(file("a, b;x\nc, d;y\n")).notes[0]


def test_options_override_what_would_be_recognised(file: Write):
    path = file("a;x,y\nb;z,y\n")
    assert table(recognise(path, DataOptions(delimiter=",", header=True))) == (",", "csv", True)
    options = DataOptions.model_validate({"text_column": 2, "label_column": 1, "delimiter": "tab"})
    found = recognise(file("x\ta\ny\tb\n"), options)
    assert (found.text_field, found.label_field) == ("2", "1")
    assert recognise(file('{"a":1},x\n{"b":2},x\n'), DataOptions(format="csv")).name == "csv"


@pytest.mark.parametrize("value", ["", ",,", '"', "\n"])
def test_delimiter_must_be_one_character(value: str):
    with pytest.raises(ValueError, match="expected one character"):
        DataOptions(delimiter=value)


def test_quotes_follow_csv_rules_when_cells_span_lines(file: Write):
    path = file('text,label\r\n"one,\r\ntwo ""x""",a\r\n"q",b\r\n')
    assert [(r.line, r.fields) for r in read_records(path, recognise(path))] == [
        (2, {"text": 'one,\r\ntwo "x"', "label": "a"}),
        (4, {"text": "q", "label": "b"}),
    ]


@pytest.mark.parametrize(
    "rows",
    [
        ['ham\t"Wen u miss someone" gdeve..', "spam\tfree", "ham\tok"],
        ['ham\t"Keep ur problems. -VIV- G 9t..', 'spam\twin "now"', 'ham\t"ok', 'ham\tbye"'],
    ],
)
def test_quotes_are_data_when_csv_rules_would_lose_rows(file: Write, rows: list[str]):
    path = file("\n".join(rows))
    found = recognise(path)
    assert table(found)[1] == "data"
    assert ["\t".join(map(str, r.fields.values())) for r in read_records(path, found)] == rows


def test_one_bad_row_does_not_change_how_quotes_are_read(file: Write):
    path = file('text,label\n"a, b",x\n"c "d" e",y\n"f, g",x\n')
    found = recognise(path)
    assert table(found)[1] == "csv"
    assert [bool(record.problem) for record in read_records(path, found)] == [False, True, False]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n", "\ufeff\n \n"])
def test_line_ends_blank_lines_and_byte_order_marks_do_not_matter(file: Write, end: str, last: bool, start: str):
    objects = ['{"text":"a\u2028b","label":"x"}', "", '{"text":"c","label":"y"}', "  "]
    for lines in (objects, ["text,label", "", "a\u2028b,x", "c,y", ","]):
        path = file((start + "\n".join(lines) + "\n" * last).replace("\n", end))
        values = [list(record.fields.values()) for record in read_records(path, recognise(path))]
        assert values == [["a\u2028b", "x"], ["c", "y"]]


def test_lines_are_counted_through_blank_ones(file: Write):
    path = file('\n{"text":"a","label":"x"}\n\n\n{"text":"b","label":"x"}')
    assert [record.line for record in read_records(path, recognise(path))] == [2, 5]
    path = file(json.dumps([{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], indent=1))
    assert [record.line for record in read_records(path, recognise(path))] == [2, 6]


MALFORMED = [
    (b"{oops}", "not one complete JSON object: Expecting property name"),
    (b'{"text":"a","label":"x"} x', "not one complete JSON object: Extra data"),
    (b'["a", "x"]', "the record is a list, expected a JSON object"),
    (b'{"text":"caf\xe9","label":"x"}', r"not UTF-8 \(byte 0xE9\); re-save the file as UTF-8"),
    (b'{"text":"a\0","label":"x"}', "NUL byte"),
    (b'{"text":"a","label":NaN}', "not JSON: NaN is not a JSON value"),
    (b'{"text":"a","label":-Infinity}', "not JSON: -Infinity is not a JSON value"),
    (b'{"text":"a","label":' + b"1" * 5000 + b"}", "not JSON: .*digits"),
    (b"[" * 100_000, "not JSON: nested too deeply"),
]


@pytest.mark.parametrize(("line", "problem"), MALFORMED)
def test_a_malformed_json_line_is_reported_and_reading_goes_on(file: Write, line: bytes, problem: str):
    good = b'{"text":"a","label":"x"}\n'
    records = list(read_records(path := file(good + line + b"\n" + good), recognise(path)))
    assert [record.fields for record in records] == [{"text": "a", "label": "x"}, {}, {"text": "a", "label": "x"}]
    assert re.search(problem, records[1].problem)
    assert records[1].line == 2


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"only one cell", "expected 2 cells, found 1; check the delimiters and quotes of this row"),
        (b"a,b,c", "expected 2 cells, found 3"),
        (b"caf\xe9,x", "not UTF-8"),
        (b"a\0,x", "NUL byte"),
        (b'"a"b,x', "text follows a closing quote"),
    ],
)
def test_a_malformed_table_row_is_reported_and_reading_goes_on(file: Write, line: bytes, problem: str):
    path = file(b'text,label\n"a, z",x\n' + line + b'\n"b, z",y\n')
    records = list(read_records(path, recognise(path)))
    assert [record.fields.get("text") for record in records] == ["a, z", None, "b, z"]
    assert re.search(problem, records[1].problem)
    assert records[1].line == 3


def test_an_unclosed_quote_names_the_row_that_opens_it(file: Write):
    path = file('text,label\n"a, b",x\n"c,y\n"d, e",x\n"f, g",z\n')
    assert next(record.line for record in read_records(path, recognise(path)) if record.problem) == 3


def test_a_cell_may_be_longer_than_the_csv_module_allows_by_default(file: Write):
    path = file(f"text,label\n{'a' * 300_000},x\n")
    assert not next(read_records(path, recognise(path))).problem


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("\ufeff \n\n", "the file is empty"),
        ("text\na\nb\n", 'only one column found with any of tab, "|", ";" and ","'),
        ("id,day,hour\n1,2,3\n4,5,6\n", "cannot tell text and label among the columns 1, 2, 3"),
        ("a b,day,hour\nfoo,2,x\nbar,5,x\n", "cannot tell text and label among the columns a b, day, hour"),
        ('{"foo":"a","bar":"x"}', r":1: found the keys foo, bar; expected text and label, prompt and completion"),
        ('{"text":"a"}', ":1: found the keys text; expected text and label"),
        ("{}", ":1: found the keys nothing"),
        ("{\n", ":1: not one complete JSON object"),
        ('[{"text":"a"', ":1: not one complete JSON object"),
        ("[{}]".encode("utf-16"), "the file is UTF-16 or UTF-32 text; re-save it as UTF-8"),
        ("text,label\n".encode("utf-16-le"), "the file is UTF-16 or UTF-32 text"),
        (b"PK\x03\x04....", "Excel"),
        (b"PAR1....", "Parquet"),
        (b"\x1f\x8b....", "gzip"),
    ],
)
def test_files_that_cannot_be_recognised(file: Write, content: str | bytes, message: str):
    path = file(content)
    with pytest.raises(DataError, match=message) as caught:
        list(read_records(path, recognise(path)))
    assert caught.value.path == path


@pytest.mark.parametrize("content", ['{"text":"a","label":"x"}', "text,label\na,x\n"])
def test_a_named_column_must_exist(file: Write, content: str):
    with pytest.raises(DataError, match='label_column "kind" is not in the file; found text, label'):
        recognise(file(content), DataOptions(label_column="kind"))
    with pytest.raises(DataError, match='text_column "kind" is not in the file; found text, label'):
        recognise(file(content), DataOptions(text_column="kind", label_column="label"))
    with pytest.raises(DataError, match='text_column and label_column are both "text"'):
        recognise(file(content), DataOptions(text_column="text", label_column="Text"))


def test_a_forced_format_must_fit(file: Write):
    with pytest.raises(DataError, match=":1: found the keys text, label"):
        recognise(file('{"text":"a","label":"x"}'), DataOptions(format="chat"))
    with pytest.raises(DataError, match=":1: not one complete JSON object"):
        recognise(file("text,label\n"), DataOptions(format="chat"))


@pytest.mark.parametrize(
    ("tail", "line", "message"),
    [("", 3, "is not closed"), (", nope]", 3, "Expecting value"), ("] x", 3, "text follows")],
)
def test_a_broken_array_names_the_line(file: Write, tail: str, line: int, message: str):
    path = file('[\n{"text":"a","label":"x"},\n{"text":"b","label":"x"}' + tail)
    with pytest.raises(DataError, match=message) as caught:
        list(read_records(path, recognise(path)))
    assert caught.value.line == line


def test_missing_files_and_folders(tmp_path: Path):
    for path in (tmp_path / "none.csv", tmp_path, "nul\0"):
        with pytest.raises(DataError, match="cannot be read"):
            recognise(path)
