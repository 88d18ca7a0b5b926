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

from training.errors import DataError
from training.formats import (
    EXPECTED,
    ROWS,
    DataOptions,
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

_SIGNATURES = {
    b"\xff\xfe": "UTF-16 or UTF-32 text; re-save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; re-save it as UTF-8",
    b"\x00\x00\xfe\xff": "UTF-32 text; re-save it as UTF-8",
    b"PK\x03\x04": "a zip archive or Excel workbook; export the rows as CSV",
    b"\x1f\x8b": "gzip-compressed; unpack it first",
    b"PAR1": "a Parquet file; export the rows as JSONL or CSV",
}
# Bytes that are not UTF-8 are decoded to these surrogates, which no valid UTF-8 decodes to.
_UNDECODED = re.compile("[\udc80-\udcff]")
_SPACE = re.compile(r"[ \t\r\n]*")
_ARRAY = re.compile(r"\[\s*(\{|\]\s*$|$)")


def recognise(path: Path | str, options: DataOptions | None = None, task: Task = "classify") -> FileFormat:
    """Find out how a file is written, by its content; the ending of its name only breaks ties.

    Keys such as query, text and label fit both tasks, hence `task`. For classify, a file that can only be a ranking
    is recognised as one.

    Raises:
        DataError: the file cannot be opened, is empty, is not text, or has no known shape.
    """
    path, options = Path(path), options or DataOptions()
    _refuse_binary(path)
    container = _container(path, options, task)
    try:
        if container == "table":
            return _recognise_table(path, options, task)
        return _recognise_json(path, container, options, task)
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
        return _read_table(Path(path), found.table)
    return _read_array(Path(path)) if found.container == "json" else _read_jsonl(Path(path))


def read_lines(path: Path) -> Iterator[str]:
    """Give the lines of a file with their line ends; a byte that is not UTF-8 becomes a low surrogate."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from file
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError | ValueError) -> DataError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return DataError(f"cannot be read ({reason}); expected a data file", path)


def _refuse_binary(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    kind = next((kind for start, kind in _SIGNATURES.items() if head.startswith(start)), None)
    if kind is None and head.count(0) * 4 > len(head):
        kind = _SIGNATURES[b"\xff\xfe"]
    if kind:
        raise DataError(f"the file is {kind}", path)


def _container(path: Path, options: DataOptions, task: Task) -> Literal["jsonl", "json", "table"]:
    lines = [line.strip() for line in islice(filter(str.strip, read_lines(path)), 2)]
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


def _recognise_table(path: Path, options: DataOptions, task: Task) -> FileFormat:
    if task == "classify":
        table, text, label, notes = sniff_table(partial(read_lines, path), options)
        return FileFormat("csv", "table", (text, label), 1, table, notes)
    table, name, fields, notes = sniff_rerank_table(partial(read_lines, path), options)
    notes += _column_notes(name, fields)
    return FileFormat(name, "table", fields, 1, table, notes)


def _recognise_json(path: Path, container: Literal["jsonl", "json"], options: DataOptions, task: Task) -> FileFormat:
    read = _read_array if container == "json" else _read_jsonl
    first = next((record for record in read(path) if not record.problem), None)
    if first is None:
        broken = next(read(path), Record(1, {}, f"no record found; expected {ROWS[task]}"))
        raise DataError(broken.problem, path, broken.line)
    keys = list(first.fields)
    shape = shape_of(keys, options) if task == "classify" else rerank_shape_of(keys, options)
    if shape is None:
        raise DataError(f"found the keys {listed(keys)}; {EXPECTED[task]}", path, first.line)
    name, fields = shape
    notes = ("The file is a JSON array; its objects are read as rows.",) if container == "json" else ()
    notes += _column_notes(name, fields)
    return FileFormat(name, container, fields, first.line, notes=notes)


def _column_notes(name: FormatName, fields: tuple[str, ...]) -> tuple[str, ...]:
    if name == "graded-pairs":
        query, passage, grade = (f'"{listed([field])}"' for field in fields)
        way_out = "override with query_column, text_column and label_column"
        return (f"{query} is the query, {passage} the passage and {grade} its grade; {way_out}.",)
    if name == "columns" or fields[1] == "label_text":
        chosen = f'"{listed([fields[0]])}" is the text and "{listed([fields[1]])}" the label'
        return (f"{chosen}; override with text_column and label_column.",)
    return ()


def _read_table(path: Path, table: Table) -> Iterator[Record]:
    header, width = table.header, len(table.columns)
    for line, cells, problem in split_rows(read_lines(path), table.delimiter, table.quotes):
        if header and not problem:
            header = False
            continue
        problem = problem or _unusable("".join(cells))
        if not problem and len(cells) != width:
            problem = f"expected {width} cells, found {len(cells)}; check the delimiters and quotes of this row"
        yield Record(line, {}, problem) if problem else Record(line, dict(zip(table.columns, cells, strict=True)))


def _read_jsonl(path: Path) -> Iterator[Record]:
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            yield _parse(number, line.strip())


def _parse(line: int, text: str) -> Record:
    if problem := _unusable(text):
        return Record(line, {}, problem)
    try:
        return _record(line, _DECODER.decode(text))
    except (ValueError, RecursionError) as error:
        return Record(line, {}, _not_json(error))


def _read_array(path: Path) -> Iterator[Record]:
    """Decode an array element by element: the text is held once, the objects one at a time."""
    text = "".join(read_lines(path))
    position = _skip_space(text, text.index("[") + 1)
    line = 1 + text.count("\n", 0, position)
    while not text.startswith("]", position):
        try:
            value, end = cast(tuple[object, int], _DECODER.raw_decode(text, position))
        except (ValueError, RecursionError) as error:
            at = error.lineno if isinstance(error, json.JSONDecodeError) else line
            raise DataError(_not_json(error), path, at) from None
        problem = _unusable(text[position:end])
        yield Record(line, {}, problem) if problem else _record(line, value)
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


def _record(line: int, value: object) -> Record:
    if isinstance(value, dict):
        return Record(line, cast(dict[str, object], value))
    return Record(line, {}, f"the record is {json_type(value)}, expected a JSON object")


def _unusable(text: str) -> str:
    if "\0" in text:
        return "the row holds a NUL byte; remove it"
    if not text.isascii() and (found := _UNDECODED.search(text)):
        return f"not UTF-8 (byte 0x{ord(found[0]) - 0xDC00:02X}); re-save the file as UTF-8"
    return ""


def _not_json(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not one complete JSON object: {error.msg} at column {error.colno}"
    if isinstance(error, RecursionError):
        return "not JSON: nested too deeply"
    return f"not JSON: {str(error).partition(';')[0]}"  # what follows advises a Python programmer


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
