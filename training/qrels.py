"""Relevance judgements (qrels): which document is how relevant to which query, by their ids."""

import math
from collections.abc import Iterator
from pathlib import Path

from training.encodings import read_lines
from training.errors import DataError, located
from training.formats import FileFormat
from training.records import read_records
from training.text import json_type, listed

Qrels = dict[str, dict[str, float]]
"""Grades by query id and document id; 0 is not relevant."""


def read_qrels(path: Path | str) -> Qrels:
    """Read judgements: JSONL of qid, docid and grade, or TREC's four columns `qid 0 docid grade` as text.

    Grades below 0 (TREC's mark for spam) become 0, as trec_eval counts them.

    Raises:
        DataError: the file or one of its rows cannot be used; names the line.
    """
    path, qrels = Path(path), Qrels()
    first = next((line for line in read_lines(path) if line.strip()), "")
    if not first:
        raise DataError("the file is empty; expected judgements such as: qid 0 docid grade", path)
    rows = _read_json(path) if first.lstrip().startswith("{") else _read_trec(path)
    for line, qid, docid, value in rows:
        with located(path, line):
            judged, grade = qrels.setdefault(qid, {}), max(grade_of(value, "grade"), 0.0)
            if judged.setdefault(docid, grade) != grade:
                raise DataError(
                    f'document "{listed([docid])}" has the grades {judged[docid]:g} and {grade:g} for query '
                    f'"{listed([qid])}"; expected one'
                )
    return qrels


def grade_of(value: object, name: str) -> float:
    """Read a grade, a number or a text that is one; `name` is what the message calls it.

    Raises:
        DataError: it is anything else, or not finite.
    """
    if not isinstance(value, (str, int, float)):
        raise DataError(f'"{name}" is {json_type(value)}, expected a number')
    try:
        grade = float(value)
    except (ValueError, OverflowError):
        found = f'"{listed([value])}"' if isinstance(value, str) else "too large"
        raise DataError(f'"{name}" is {found}, expected a number') from None
    if not math.isfinite(grade):
        raise DataError(f'"{name}" is not a finite number; correct it or remove the row')
    return grade


def identifier(value: object, name: str) -> str:
    """Read the id of a query or document, a string or a whole number, as a string.

    Raises:
        DataError: it is anything else, or blank.
    """
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise DataError(f'"{name}" is {"empty" if isinstance(value, str) else json_type(value)}, expected an id')


def _read_json(path: Path) -> Iterator[tuple[int, str, str, object]]:
    keys = ("qid", "docid", "grade")
    for record in read_records(path, FileFormat("candidates", "jsonl", keys, 1)):
        with located(path, record.line):
            if record.problem:
                raise DataError(record.problem)
            if missing := [key for key in keys if key not in record.fields]:
                raise DataError(f'"{missing[0]}" is missing; expected qid, docid and grade')
            qid, docid = (identifier(record.fields[key], key) for key in keys[:2])
        yield record.line, qid, docid, record.fields["grade"]


def _read_trec(path: Path) -> Iterator[tuple[int, str, str, object]]:
    for number, line in enumerate(read_lines(path), 1):
        cells = line.split()
        if cells and len(cells) != 4:
            raise DataError(f"found {len(cells)} columns; expected four: qid 0 docid grade", path, number)
        if cells:
            yield number, cells[0], cells[2], cells[3]
