"""Files to records: recognises a file's format by its content and reads its records without judging them.

`recognise` looks at the beginning of a file, and at all of it where quotes in a table must be understood;
`read_records` then streams it. A record that cannot be read is given with its problem, so that its reader may stop
there or go on.
"""

import json
import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, NoReturn, cast

from training.encodings import UNDECODED, mend, mended_lines, read_lines, refuse_binary
from training.errors import DataError
from training.formats import (
    EXPECTED,
    ROWS,
    DataOptions,
    Encoding,
    FileFormat,
    FormatName,
    Record,
    Table,
    Task,
    rerank_shape_of,
    shape_of,
)
from training.tables import sniff_rerank_table, sniff_table, split_rows
from training.text import json_type, listed

_SPACE = re.compile(r"[ \t\r\n]*")
_ARRAY = re.compile(r"\[\s*(\{|\]\s*$|$)")


def recognise(
    path: Path | str, options: DataOptions | None = None, task: Task = "classify", encoding: Encoding = "utf-8"
) -> FileFormat:
    """Find out how a file is written, by its content; the ending of its name only breaks ties.

    Keys such as query, text and label fit both tasks, hence `task`. For classify, a file that can only be a ranking
    is recognised as one. `encoding` is what `find_encoding` says, for a reader that takes more than UTF-8.

    Raises:
        DataError: the file cannot be opened, is empty, is not text, or has no known shape.
    """
    path, options = Path(path), options or DataOptions()
    refuse_binary(path, encoding)
    container = _container(path, options, task, encoding)
    try:
        if container == "table":
            return _recognise_table(path, options, task, encoding)
        return _recognise_json(path, container, options, task, encoding)
    except DataError as error:
        if error.path:
            raise
        raise DataError(str(error), path) from None


def read_records(path: Path | str, found: FileFormat) -> Iterator[Record]:
    """Stream the records of a file that `recognise` has looked at, the malformed ones included.

    Raises:
        DataError: the file cannot be opened, or is a JSON array that is malformed beyond one record.
    """
    if found.table:
        return _read_table(Path(path), found.table, found.encoding)
    read = _read_array if found.container == "json" else _read_jsonl
    return read(Path(path), found.encoding)


def _container(path: Path, options: DataOptions, task: Task, encoding: Encoding) -> Literal["jsonl", "json", "table"]:
    lines = [line.strip() for line in islice(filter(str.strip, read_lines(path, encoding)), 2)]
    if not lines:
        raise DataError(f"the file is empty; expected {ROWS[task]}", path)
    if options.format == "csv":
        return "table"
    suffix = path.suffix.lower()
    if _ARRAY.match("".join(lines)[:4096]):
        return "json"
    if options.format or suffix in (".jsonl", ".ndjson", ".json"):
        return "jsonl"
    tabular = suffix in (".csv", ".tsv") and _parse(1, lines[0]).problem
    return "jsonl" if lines[0].startswith("{") and not tabular else "table"


def _recognise_table(path: Path, options: DataOptions, task: Task, encoding: Encoding) -> FileFormat:
    lines = partial(mended_lines, path, encoding)
    if task == "classify":
        table, text, label, notes = sniff_table(lines, options)
        return FileFormat("csv", "table", (text, label), 1, table, encoding, notes)
    table, name, fields, notes = sniff_rerank_table(lines, options)
    notes += _column_notes(name, fields)
    return FileFormat(name, "table", fields, 1, table, encoding, notes)


def _recognise_json(
    path: Path, container: Literal["jsonl", "json"], options: DataOptions, task: Task, encoding: Encoding
) -> FileFormat:
    read = _read_array if container == "json" else _read_jsonl
    first = next((record for record in read(path, encoding) if not record.problem), None)
    if first is None:
        broken = next(read(path, encoding), Record(1, {}, f"no record found; expected {ROWS[task]}"))
        raise DataError(broken.problem, path, broken.line)
    keys = list(first.fields)
    shape = shape_of(keys, options) if task == "classify" else rerank_shape_of(keys, options)
    if shape is None:
        raise DataError(f"found the keys {listed(keys)}; {EXPECTED[task]}", path, first.line)
    name, fields = shape
    notes = ("The file is a JSON array; its objects are read as rows.",) if container == "json" else ()
    notes += _column_notes(name, fields)
    return FileFormat(name, container, fields, first.line, encoding=encoding, notes=notes)


def _column_notes(name: FormatName, fields: tuple[str, ...]) -> tuple[str, ...]:
    if name == "graded-pairs":
        query, passage, grade = (f'"{listed([field])}"' for field in fields)
        way_out = "override with query_column, text_column and label_column"
        return (f"{query} is the query, {passage} the passage and {grade} its grade; {way_out}.",)
    if name == "columns" or fields[1] == "label_text":
        chosen = f'"{listed([fields[0]])}" is the text and "{listed([fields[1]])}" the label'
        return (f"{chosen}; override with text_column and label_column.",)
    return ()


def _read_table(path: Path, table: Table, encoding: Encoding) -> Iterator[Record]:
    header, width = table.header, len(table.columns)
    for line, cells, problem in split_rows(read_lines(path, encoding), table.delimiter, table.quotes):
        if header and not problem:
            header = False
            continue
        if problem:
            yield Record(line, {}, problem)
            continue
        mended = [mend(cell, encoding) for cell in cells]
        cells, count = [cell for cell, _ in mended], sum(number for _, number in mended)
        if len(cells) != width:
            problem = f"expected {width} cells, found {len(cells)}; check the delimiters and quotes of this row"
        fields: dict[str, object] = {} if problem else dict(zip(table.columns, cells, strict=True))
        yield _unusable(line, "".join(cells)) or Record(line, fields, problem, mended=count)


def _read_jsonl(path: Path, encoding: Encoding) -> Iterator[Record]:
    for number, line in enumerate(read_lines(path, encoding), 1):
        if line.strip():
            yield _parse(number, line.strip(), encoding)


def _parse(line: int, text: str, encoding: Encoding = "utf-8") -> Record:
    text, count = mend(text, encoding)
    if unusable := _unusable(line, text):
        return unusable
    try:
        return _record(line, _DECODER.decode(text), count)
    except (ValueError, RecursionError) as error:
        return Record(line, {}, _not_json(error))


def _read_array(path: Path, encoding: Encoding) -> Iterator[Record]:
    """Decode an array element by element: the text is held once, the objects one at a time."""
    text = "".join(read_lines(path, encoding))
    unclean = "\0" in text or (not text.isascii() and UNDECODED.search(text) is not None)
    position = _skip_space(text, text.index("[") + 1)
    line = 1 + text.count("\n", 0, position)
    while not text.startswith("]", position):
        try:
            value, end = cast(tuple[object, int], _DECODER.raw_decode(text, position))
        except (ValueError, RecursionError) as error:
            at = error.lineno if isinstance(error, json.JSONDecodeError) else line
            raise DataError(_not_json(error), path, at) from None
        yield _parse(line, text[position:end], encoding) if unclean else _record(line, value)
        after = _skip_space(text, end)
        if text[after : after + 1] not in ("]", ","):
            raise DataError("the array is not closed; expected , or ] after this object", path, line)
        after = _skip_space(text, after + 1) if text[after] == "," else after
        line, position = line + text.count("\n", position, after), after
    if text[position + 1 :].strip():
        raise DataError("text follows the array's closing ]", path, line)


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _record(line: int, value: object, mended: int = 0) -> Record:
    if isinstance(value, dict):
        return Record(line, cast(dict[str, object], value), mended=mended)
    return Record(line, {}, f"the record is {json_type(value)}, expected a JSON object")


def _unusable(line: int, text: str) -> Record | None:
    """The record of a text that holds what no text should, or None."""
    if "\0" in text:
        return Record(line, {}, "the row holds a NUL byte; remove it")
    if not text.isascii() and (found := UNDECODED.search(text)):
        byte = f"not UTF-8 (byte 0x{ord(found[0]) - 0xDC00:02X}); re-save the file as UTF-8"
        return Record(line, {}, byte, "encoding")
    return None


def _not_json(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not one complete JSON object: {error.msg} at column {error.colno}"
    if isinstance(error, RecursionError):
        return "not JSON: nested too deeply"
    return f"not JSON: {str(error).partition(';')[0]}"  # what follows advises a Python programmer


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
