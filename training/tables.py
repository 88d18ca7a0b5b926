"""Delimited tables (CSV, TSV): how their lines become cells, and which columns hold what a row is made of.

Nothing here trusts the file's name. The delimiter is the one that gives most rows the same number of cells, quotes
follow the CSV rules unless that loses rows, and a first row is a header unless it looks like the rows below it.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal

from training.errors import DataError
from training.formats import ROWS, DataOptions, RerankFormat, Table, Task, pick_columns, rerank_shape_of
from training.text import listed

Lines = Callable[[], Iterator[str]]
"""Opens a file and gives its lines, line ends included."""
# Rarest in prose first, which decides between delimiters that fit equally well.
DELIMITERS = "\t|;,"
_NAMES = {"\t": "tab", "|": '"|"', ";": '";"', ",": '","'}
_SAMPLE = 10_000
_CELL_LIMIT = 2**31 - 1


def split_rows(lines: Iterable[str], delimiter: str, quotes: str) -> Iterator[tuple[int, list[str], str]]:
    """Split lines into rows: first line (from 1), cells, and what is wrong ("" if nothing). Blank rows are left out."""
    csv.field_size_limit(_CELL_LIMIT)
    quoting = csv.QUOTE_MINIMAL if quotes == "csv" else csv.QUOTE_NONE
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, [], _explain(error)
            continue
        if any(cell.strip() for cell in cells):
            yield line, cells, ""


def sniff_table(lines: Lines, options: DataOptions) -> tuple[Table, str, str, tuple[str, ...]]:
    """Find out how a table is written: the table, its text column, its label column, and notes on what was assumed.

    Raises:
        DataError: no delimiter fits, or the columns cannot be told apart.
    """
    table, rows, notes = _sniff_layout(lines, options, "classify")
    text, label = _choose_columns(table.columns, rows, options)
    if not table.header or (text, label) != ("text", "label"):  # those go without saying
        notes += _header_notes(table, options)
        found = f'Column "{listed([text])}" is the text and "{listed([label])}" the label'
        notes.append(f"{found}; override with text_column and label_column.")
    return table, text, label, tuple(notes)


def sniff_rerank_table(
    lines: Lines, options: DataOptions
) -> tuple[Table, RerankFormat, tuple[str, ...], tuple[str, ...]]:
    """Find out how a table of pairs or triplets is written: the table, its shape, the fields of the shape, and notes.

    Raises:
        DataError: no delimiter fits, or the columns are not named as those of a ranking.
    """
    table, rows, notes = _sniff_layout(lines, options, "rerank")
    shape = _rerank_columns(table.columns, options)
    if shape is None:
        first = listed(table.columns if table.header or not rows else rows[0])
        raise DataError(
            f"the first row is {first}; expected the columns query, document and score, or query, positive and "
            "negative; name others with query_column, text_column and label_column"
        )
    return table, *shape, (*notes, *_header_notes(table, options))


def _rerank_columns(
    columns: Sequence[str], options: DataOptions
) -> tuple[Literal["graded-pairs", "triplets"], tuple[str, ...]] | None:
    """Recognise a ranking by its columns; the other shapes hold lists, which cells cannot."""
    shape = rerank_shape_of(columns, _numbers_to_names(columns, options))
    return (shape[0], shape[1]) if shape and shape[0] in ("graded-pairs", "triplets") else None


def _sniff_layout(lines: Lines, options: DataOptions, task: Task) -> tuple[Table, list[list[str]], list[str]]:
    """Find out how a table is written: the table, the first of its data rows, and notes on what was assumed."""
    sample = list(islice(lines(), _SAMPLE))
    delimiter, notes = _sniff_delimiter(sample, options, task)
    quotes = options.quotes or _sniff_quotes(lines, delimiter)
    if quotes == "data" and options.quotes is None:
        notes.append('Double quotes are read as part of the text; override with quotes: "csv".')
    rows = [cells for _, cells, problem in split_rows(sample, delimiter, quotes) if not problem]
    if not rows:
        raise DataError(f"no row can be read as a table; expected {ROWS[task]}")
    width = _usual_width(rows)
    rows = [cells for index, cells in enumerate(rows) if index == 0 or len(cells) == width]
    header = _has_header(rows, options, task) if options.header is None else options.header
    columns = _column_names(rows[0]) if header else tuple(str(number + 1) for number in range(width))
    return Table(delimiter, quotes, header, columns), rows[1:] if header else rows, notes


def _explain(error: csv.Error) -> str:
    reason = str(error)
    if "unexpected end of data" in reason:
        return "a quoted cell starts here and is never closed; double the quotes inside it or set quotes: data"
    if "expected after" in reason:
        return "text follows a closing quote; double the quotes inside a quoted cell or set quotes: data"
    return f"not a row of a table ({reason})"


def _usual_width(rows: list[list[str]]) -> int:
    return Counter(map(len, rows)).most_common(1)[0][0] if rows else 0


def _sniff_delimiter(sample: list[str], options: DataOptions, task: Task) -> tuple[str, list[str]]:
    if options.delimiter:
        return options.delimiter, []
    scores = {delimiter: _fit(sample, delimiter, options, task) for delimiter in DELIMITERS}
    best = max(scores, key=lambda delimiter: scores[delimiter])  # the first of equals
    if scores[best] == (False, 0.0):
        raise DataError(
            f'only one column found with any of tab, "|", ";" and ","; expected {ROWS[task]}, or set delimiter'
        )
    others = [_NAMES[d] for d in DELIMITERS if d != best and scores[d] == scores[best]]
    if best == "," and not others:
        return best, []  # what everyone expects of a CSV goes without saying
    also = f"; {' or '.join(others)} would fit as well" if others else ""
    return best, [f"Cells are separated by {_NAMES[best]}{also}; override with delimiter."]


def _fit(sample: list[str], delimiter: str, options: DataOptions, task: Task) -> tuple[bool, float]:
    """Rate a delimiter: whether the first row names the columns, then the share of rows of the usual width."""
    readings = [list(split_rows(sample, delimiter, quotes)) for quotes in ("csv", "data")]
    first = next((cells for _, cells, problem in readings[0] if not problem), list[str]())
    share = max(map(_regular_share, readings))
    return share > 0 and _names_columns(first, options, task), share


def _regular_share(rows: list[tuple[int, list[str], str]]) -> float:
    widths = Counter(len(cells) for _, cells, problem in rows if not problem)
    width, count = widths.most_common(1)[0] if widths else (0, 0)
    return count / len(rows) if width > 1 else 0.0


def _names_columns(cells: list[str], options: DataOptions, task: Task) -> bool:
    try:
        found = pick_columns(cells, options) if task == "classify" else (_rerank_columns(cells, options),)
    except DataError:
        return False
    return None not in found


def _sniff_quotes(lines: Lines, delimiter: str) -> Literal["csv", "data"]:
    """Follow the CSV rules unless fewer rows are out of shape when quotes are data.

    When both readings are regular but the CSV one has fewer rows, either cells span lines or stray quotes have
    swallowed line ends. Programs that write commas or semicolons quote; files with tabs or bars mostly do not.
    """
    if not any('"' in line for line in lines()):
        return "csv"
    csv_rows, csv_bad = _tally(lines(), delimiter, "csv")
    data_rows, data_bad = _tally(lines(), delimiter, "data")
    swallowed = csv_bad == data_bad == 0 and csv_rows < data_rows and delimiter in "\t|"
    return "data" if data_bad < csv_bad or swallowed else "csv"


def _tally(lines: Iterable[str], delimiter: str, quotes: str) -> tuple[int, int]:
    """Count the rows, and those that are malformed or not of the usual width."""
    widths = Counter(0 if problem else len(cells) for _, cells, problem in split_rows(lines, delimiter, quotes))
    usual = max((count for width, count in widths.items() if width > 1), default=0)
    return widths.total(), widths.total() - usual


def _has_header(rows: list[list[str]], options: DataOptions, task: Task) -> bool:
    """Judge the first row: known column names, or short cells that do not recur where the cells below them do."""
    first, rest = rows[0], rows[1:]
    wanted = (options.query_column, options.text_column, options.label_column)
    named = {name.strip().casefold() for name in wanted if name}
    cells = {cell.strip().casefold() for cell in first if not _is_number(cell)}
    if _names_columns(first, DataOptions(), task) or named & cells:
        return True
    columns = [Counter(cells) for cells in zip(*(row for row in rest if len(row) == len(first)), strict=True)]
    recurs = any(cell.strip() and cell in below for cell, below in zip(first, columns, strict=False))
    repetitive = any(len(below) < below.total() for below in columns)
    if recurs or not repetitive or any(_is_number(cell) for cell in first):
        return False
    return all(len(cell.split()) <= 3 and not cell.strip().endswith((".", "!", "?")) for cell in first)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _header_notes(table: Table, options: DataOptions) -> list[str]:
    if options.header is not None:
        return []
    if table.header:
        return [f"The first row ({listed(table.columns)}) is read as column names; override with header: false."]
    return ["The first row is read as data, columns are numbered from 1; override with header: true."]


def _column_names(cells: list[str]) -> tuple[str, ...]:
    names: list[str] = []
    for number, cell in enumerate(map(str.strip, cells), 1):
        name = cell or str(number)
        names.append(f"{name}#{number}" if name in names else name)
    return tuple(names)


def _choose_columns(columns: tuple[str, ...], rows: list[list[str]], options: DataOptions) -> tuple[str, str]:
    text, label = pick_columns(columns, _numbers_to_names(columns, options))
    rest = [name for name in columns if name not in (text, label)]
    if text is None and label is None and len(columns) == 2:
        return _columns_by_shape(columns, rows)
    if len(rest) == 1 and (text or label):
        text, label = text or rest[0], label or rest[0]
    if text is None or label is None:
        raise DataError(
            f"cannot tell text and label among the columns {listed(columns)}; set text_column, label_column"
        )
    return text, label


def _numbers_to_names(columns: Sequence[str], options: DataOptions) -> DataOptions:
    def name(wanted: str | None) -> str | None:
        by_number = dict(zip(map(str, range(1, len(columns) + 1)), columns, strict=True))
        return wanted if wanted in columns or wanted is None else by_number.get(wanted, wanted)

    wanted = ("query_column", "text_column", "label_column")
    return options.model_copy(update={option: name(getattr(options, option)) for option in wanted})


def _columns_by_shape(columns: tuple[str, ...], rows: list[list[str]]) -> tuple[str, str]:
    """Take the column of fewer distinct and then of shorter values as the label; the second one if they are alike."""
    cells = [[row[i] for row in rows if len(row) == 2] for i in (0, 1)]
    first, second = ((len(set(column)), sum(map(len, column))) for column in cells)
    return (columns[1], columns[0]) if first < second else (columns[0], columns[1])
