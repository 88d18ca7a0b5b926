"""Ranking rows: reads every accepted file format into queries with graded passages."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from training.errors import DataError, located
from training.formats import RERANK_FORMATS, ROWS, DataOptions, FileFormat, Record, rerank_shape_of
from training.qrels import Qrels, grade_of, identifier, read_qrels
from training.records import read_records, recognise
from training.text import json_type, listed, refuse_characters


@dataclass(frozen=True, slots=True)
class RerankRow:
    """One query with its candidates."""

    query: str
    """As written; never blank."""
    passages: tuple[str, ...]
    """As written, never blank, distinct but for surrounding white space. Candidate lists keep their order; elsewhere
    relevant passages may all come first, so nothing may follow from the order."""
    grades: tuple[float, ...]
    """Parallel to `passages`: above 0 is relevant, 0 a hard negative; a teacher's scores may be any number."""
    line: int
    """Line of the file on which the query first appears, counted from 1."""
    missed: tuple[float, ...] = ()
    """Grades above 0 of judged documents that are not among the candidates: the ideal ranking has them too."""


@dataclass(frozen=True, slots=True)
class RerankFile:
    """The rows of one file and how they were read."""

    path: Path
    format: str
    rows: list[RerankRow]
    graded: bool
    """Whether there are other grades than 0 and 1."""
    notes: tuple[str, ...]
    """What was assumed about the file, merged or left out, one sentence each."""


@dataclass(frozen=True, slots=True)
class RankingDraft:
    """What one record says about one query."""

    key: str
    """What makes two records speak of the same query."""
    query: str
    graded: list[tuple[str, float]]
    missed: tuple[float, ...] = ()


@dataclass(slots=True)
class _Candidates:
    """One query's passages while the file is read."""

    query: str
    line: int
    missed: tuple[float, ...]
    found: dict[str, tuple[str, float, int]] = field(default_factory=dict[str, tuple[str, float, int]])
    """Passage, grade and line by the passage without surrounding white space."""


def read_rerank(path: Path | str, options: DataOptions | None = None, qrels: Path | str | None = None) -> RerankFile:
    """Read a file of rankings, in any of the rerank formats of `DataOptions.format`.

    The rows of a query are put together wherever they stand, candidate lists apart: those have one per query id.

    Args:
        path: the file.
        options: what to read differently than recognised.
        qrels: judgements of candidate lists, as `read_qrels` takes them; a candidate without one has grade 0.

    Raises:
        DataError: the file or one of its rows cannot be used; names the line.
    """
    path, options = Path(path), options or DataOptions()
    if options.format not in (None, "csv", *RERANK_FORMATS):
        names = ", ".join(RERANK_FORMATS)
        raise DataError(f"the format {options.format} is for texts with labels; expected one of {names}, csv", path)
    found = recognise(path, options, "rerank")
    if found.name == "candidates" and qrels is None:
        raise DataError("candidate lists need judgements; give a qrels file of qid, docid and grade", path)
    if found.name != "candidates" and qrels is not None:
        raise DataError(f"the rows are {found.name}, which hold their grades; leave out the qrels file", path)
    judged = {} if qrels is None else read_qrels(qrels)
    queries, records, repeats = dict[str, _Candidates](), 0, 0
    for record in read_records(path, found):
        with located(path, record.line):
            repeats += _add(queries, read_ranking(record, found, options, judged), record.line, found)
        records += 1
    if not queries:
        raise DataError(f"the file has no rows; expected {ROWS['rerank']}", path)
    unjudged = 0 if qrels is None else sum(qid not in judged for qid in queries)
    if qrels is not None and unjudged == len(queries):
        raise DataError(f"no query id occurs in {qrels}; expected the judgements of these queries", path)
    teacher = any(grade < 0 for query in queries.values() for _, grade, _ in query.found.values())
    rows = [_row(path, query, found, teacher) for query in queries.values()]
    graded = any(grade not in (0, 1) for row in rows for grade in (*row.grades, *row.missed))
    notes = (*found.notes, *_notes(found, records - len(queries), repeats, unjudged, teacher))
    return RerankFile(path, found.name, rows, graded, notes)


def read_ranking(record: Record, found: FileFormat, options: DataOptions, judged: Qrels) -> RankingDraft:
    """Find the query and the passages of a record.

    Raises:
        DataError: the record is malformed, or lacks one of them.
    """
    if record.problem:
        raise DataError(record.problem, check=record.check)
    if missing := [name for name in found.fields if name not in record.fields]:
        raise _missing(record, found, options, missing[0])
    query, *values = (record.fields[name] for name in found.fields)
    query = _text(query, f'"{found.fields[0]}" is', "empty_query")
    if found.name == "candidates":
        return _candidate_list(query, values, found, judged)
    if found.name == "graded-pairs":
        grade = grade_of(values[1], found.fields[2])
        return RankingDraft(query.strip(), query, [(_text(values[0], f'"{found.fields[1]}" is', "empty_text"), grade)])
    if found.name == "triplets":
        relevant = [_text(values[0], f'"{found.fields[1]}" is', "no_relevant")]
        negatives = [_text(value, f'"{name}" is') for name, value in record.fields.items() if is_negative(name)]
    else:
        relevant = _texts(values[0], found.fields[1])
        name = next((name for name in record.fields if name.strip().casefold() == "hard_negatives"), "")
        negatives = [] if record.fields.get(name) is None else _texts(record.fields[name], name)
    return RankingDraft(query.strip(), query, [(text, 1.0) for text in relevant] + [(text, 0.0) for text in negatives])


def _candidate_list(query: str, values: list[object], found: FileFormat, judged: Qrels) -> RankingDraft:
    _, qid_field, ids_field, texts_field = found.fields
    qid, texts = identifier(values[0], qid_field), _texts(values[2], texts_field)
    docids = [identifier(docid, ids_field) for docid in _list(values[1], ids_field)]
    if len(docids) != len(texts) or not texts:
        counts = f'"{ids_field}" has {len(docids)} and "{texts_field}" {len(texts)} entries'
        raise DataError(f"{counts}; expected as many ids as texts, at least one")
    grades, listed_ids = judged.get(qid, {}), set(docids)
    missed = tuple(grade for docid, grade in grades.items() if grade > 0 and docid not in listed_ids)
    return RankingDraft(
        qid, query, [(text, grades.get(docid, 0.0)) for docid, text in zip(docids, texts, strict=True)], missed
    )


def _add(queries: dict[str, _Candidates], draft: RankingDraft, line: int, found: FileFormat) -> int:
    """Add what a record says to its query; gives the number of passages that the query had already."""
    if found.name == "candidates" and draft.key in queries:
        raise DataError(f'query id "{listed([draft.key])}" is on line {queries[draft.key].line} already; expected once')
    query = queries.setdefault(draft.key, _Candidates(draft.query, line, draft.missed))
    repeats = 0
    for text, grade in draft.graded:
        repeats += text.strip() in query.found
        known = query.found.setdefault(text.strip(), (text, grade, line))
        if known[1] != grade and found.name == "candidates":  # one text under two ids: the better judgement holds
            query.found[text.strip()] = (known[0], max(known[1], grade), line)
        elif known[1] != grade:
            raise DataError(_conflict(text, known, grade, line, found))
    return repeats


def _conflict(text: str, known: tuple[str, float, int], grade: float, line: int, found: FileFormat) -> str:
    lines = "on this line" if known[2] == line else f"see line {known[2]}"
    if found.name == "graded-pairs":
        grades = f"the grades {known[1]:g} and {grade:g}"
        return f'passage "{listed([text])}" has {grades} for one query ({lines}); keep one of them'
    return f'passage "{listed([text])}" is both relevant and a hard negative of its query ({lines}); keep one of them'


def _row(path: Path, query: _Candidates, found: FileFormat, teacher: bool) -> RerankRow:
    texts, grades, _ = zip(*query.found.values(), strict=True) if query.found else ((), (), ())
    if found.name != "candidates" and not teacher and not any(grade > 0 for grade in grades):
        relevant = "a passage with a grade above 0" if found.name == "graded-pairs" else "a relevant passage"
        raise DataError(
            f'query "{listed([query.query])}" has no relevant passage; give it {relevant} or remove it',
            path,
            query.line,
        )
    return RerankRow(query.query, texts, grades, query.line, query.missed)


def _notes(found: FileFormat, merged: int, repeats: int, unjudged: int, teacher: bool) -> Iterator[str]:
    if merged and found.name == "rerank":
        yield f"Rows merged into an earlier row with the same query: {merged}."
    if repeats and found.name != "triplets":
        yield f"Passages left out because their query has them already: {repeats}."
    if unjudged:
        yield f"Queries without any judgement, all of whose passages count as not relevant: {unjudged}."
    if teacher:
        yield "Some grades are below 0: read as a teacher's scores, under which a query may lack a relevant passage."


def _missing(record: Record, found: FileFormat, options: DataOptions, missing: str) -> DataError:
    keys = list(record.fields)
    if not (options.query_column or options.text_column or options.label_column):
        shape = rerank_shape_of(keys, options.model_copy(update={"format": None}))
        if shape and shape[0] != found.name:
            mixed = f"the row is {shape[0]}, but line {found.line} is {found.name}; a file holds one shape"
            return DataError(mixed, check="columns")
    check = "malformed" if found.name in ("candidates", "graded-pairs") else "no_relevant"
    check = "empty_query" if missing == found.fields[0] else check
    return DataError(f'"{missing}" is missing; found the keys {listed(keys)}', check=check)


def is_negative(name: str) -> bool:
    """Whether the key of a triplet is `negative`, or `negative_1` and so on, as mined n-tuples have them."""
    start, _, number = name.strip().casefold().partition("_")
    return start == "negative" and (not number or number.isdecimal())


def _list(value: object, name: str) -> list[object]:
    if not isinstance(value, list):
        way_out = "; wrap it in a list" if isinstance(value, str) else ""
        raise DataError(f'"{name}" is {json_type(value)}, expected a list{way_out}')
    return cast(list[object], value)


def _texts(value: object, name: str) -> list[str]:
    return [_text(item, f'"{name}" holds') for item in _list(value, name)]


def _text(value: object, what: str, blank: str = "malformed") -> str:
    """Check a text; `what` begins the message, such as `"query" is`, `blank` is the check of one that is not there."""
    if not isinstance(value, str):
        check = blank if value is None else "malformed"
        raise DataError(f"{what} {json_type(value)}, expected a string", check=check)
    if not value.strip():
        raise DataError(f"{what} an empty text; remove it or write one", check=blank)
    refuse_characters(what.rpartition(" ")[0], value)
    return value
