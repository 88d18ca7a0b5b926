"""Labelled rows: reads every accepted file format into texts and labels, and writes rows back.

What a row looks like in a file is `formats`, `tables` and `records`; what becomes of its text and label is `text`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

from training.errors import DataError, located
from training.formats import RERANK_FORMATS, DataOptions, FileFormat, Record, shape_of
from training.records import read_records, recognise
from training.text import (
    TextRules,
    clean_label,
    clean_text,
    flatten_chat,
    json_type,
    label_text,
    learn_label_suffix,
    learn_separator,
    listed,
    message_text,
    refuse_characters,
    system_text,
)

_LabelsOf = Callable[[tuple[str, ...]], tuple[tuple[str, ...], tuple[str, ...]]]
"""From labels as written to the labels of `ClassifyRow` and one way each is written."""

__all__ = ["ClassifyFile", "ClassifyRow", "DataOptions", "Draft", "read_classify", "read_draft", "surface_forms"]


@dataclass(frozen=True, slots=True)
class ClassifyRow:
    """One labelled text."""

    text: str
    """Cleaned by the file's rules; never blank."""
    labels: tuple[str, ...]
    """Cleaned, without repetition; exactly one unless the data is multi-label, where none is legal."""
    surfaces: tuple[str, ...]
    """The labels as written, parallel to `labels`."""
    line: int
    """Line of the file on which the row starts, counted from 1."""


@dataclass(frozen=True, slots=True)
class ClassifyFile:
    """The rows of one file and how they were read."""

    path: Path
    format: str
    rows: list[ClassifyRow]
    multi_label: bool
    rules: TextRules
    notes: tuple[str, ...]
    """What was assumed about the file and how to override it, one sentence each."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A row as it was found, before the rules are known."""

    line: int
    source: str | list[dict[str, object]]
    """The text, or the chat messages before the answer."""
    surfaces: tuple[str, ...]
    is_list: bool
    """Whether the label was written as a list of labels."""
    used: bool
    """False for a chat row whose answer has weight 0."""


def read_classify(
    path: Path | str,
    options: DataOptions | None = None,
    rules: TextRules | None = None,
    multi_label: bool | None = None,
) -> ClassifyFile:
    """Read a file of labelled texts, in any of the formats of `DataOptions.format` but those of rankings.

    Args:
        path: the file.
        options: what to read differently than recognised.
        rules: None for a training file, whose rules are learned; other files are read by the rules of training.
        multi_label: None lets the file decide; False refuses lists of labels; True takes a single label as a list.

    Raises:
        DataError: the file or one of its rows cannot be used; names the line.
    """
    path, options = Path(path), options or DataOptions()
    found = recognise(path, options)
    if found.name in RERANK_FORMATS:
        raise DataError("the rows are queries with passages; expected texts with labels", path, found.line)
    drafts = list(_read_drafts(path, found, options, rules or TextRules(), multi_label))
    used = [draft for draft in drafts if draft.used]
    if not used:
        raise DataError("the file has no rows; expected rows with a text and a label", path)
    notes = list(found.notes)
    if len(used) < len(drafts):
        notes.append(
            f"Rows skipped because the weight of their last assistant message is 0: {len(drafts) - len(used)}."
        )
    rules = rules or _learn(used, found)
    multi = any(draft.is_list for draft in used) if multi_label is None else multi_label
    rows, labels = list[ClassifyRow](), _labels_by(rules)
    del drafts
    used.reverse()
    while used:  # each draft makes room for its row
        draft = used.pop()
        with located(path, draft.line):
            rows.append(_row(draft, rules, labels))
    return ClassifyFile(path, found.name, rows, multi, rules, tuple(notes))


def surface_forms(rows: Iterable[ClassifyRow]) -> dict[str, str]:
    """Map each label, in order of appearance, to the way it is written most often; the first seen among equals."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        for label, surface in zip(row.labels, row.surfaces, strict=True):
            counts.setdefault(label, Counter())[surface] += 1
    return {label: counter.most_common(1)[0][0] for label, counter in counts.items()}


def _read_drafts(
    path: Path, found: FileFormat, options: DataOptions, rules: TextRules, multi_label: bool | None
) -> Iterator[Draft]:
    """Read and check the rows one by one, so that the first bad one is the one reported."""
    first, labels = None, _labels_by(rules)
    for record in read_records(path, found):
        with located(path, record.line):
            draft = read_draft(record, found, options)
            first = first or draft
            if multi_label is False and draft.is_list:
                raise DataError("label is a list; expected a single label")
            if multi_label is None and draft.is_list != first.is_list:
                kinds = ("a single label", "a list of labels")
                raise DataError(
                    f"label is {kinds[draft.is_list]}, but line {first.line} has {kinds[first.is_list]}; "
                    "a file holds one kind"
                )
            _row(draft, rules, labels)
        yield draft


def read_draft(record: Record, found: FileFormat, options: DataOptions) -> Draft:
    """Find the text and the labels of a record, as written.

    Raises:
        DataError: the record is malformed, lacks one of them, or holds them in a form that cannot be used.
        ChatError: a chat message is not one.
    """
    if record.problem:
        raise DataError(record.problem, check=record.check)
    if found.text_field not in record.fields or found.label_field not in record.fields:
        raise _missing(record, found, options)
    text, label = record.fields[found.text_field], record.fields[found.label_field]
    if found.name == "chat":
        return _chat_draft(record.line, text)
    if not isinstance(text, str):
        check = "empty_text" if text is None else "malformed"
        raise DataError(f"'{found.text_field}' is {json_type(text)}, expected a string", check=check)
    if isinstance(label, str) and options.label_separator:
        label = label.split(options.label_separator) if label.strip() else []
    items = cast(list[object], label) if isinstance(label, list) else [label]
    return Draft(record.line, text, tuple(map(label_text, items)), isinstance(label, list), used=True)


def _chat_draft(line: int, value: object) -> Draft:
    if not isinstance(value, list) or not value:
        found = "empty" if value == [] else json_type(cast(object, value))
        raise DataError(f"'messages' is {found}, expected a list of messages", check="chat_shape")
    *source, answer = cast(list[dict[str, object]], value)
    label = message_text(answer, len(source))
    if answer["role"] != "assistant":
        expected = "expected the answer of the assistant"
        raise DataError(f"the last message has the role {answer['role']}, {expected}", check="chat_shape")
    return Draft(line, source, (label,), is_list=False, used=answer.get("weight") != 0)


def _missing(record: Record, found: FileFormat, options: DataOptions) -> DataError:
    keys = list(record.fields)
    if options.text_column is None and options.label_column is None:
        shape = shape_of(keys, options.model_copy(update={"format": None}))
        if shape and shape[0] != found.name:
            mixed = f"the row is {shape[0]}, but line {found.line} is {found.name}; a file holds one shape"
            return DataError(mixed, check="columns")
    has_text = found.text_field in record.fields
    missing, check = (found.label_field, "empty_label") if has_text else (found.text_field, "empty_text")
    check = "chat_shape" if found.name == "chat" else check
    return DataError(f"'{missing}' is missing; found the keys {listed(keys)}", check=check)


def _learn(drafts: Sequence[Draft], found: FileFormat) -> TextRules:
    chats = [draft.source for draft in drafts if not isinstance(draft.source, str)]
    rules = TextRules(ignore_system=len({system_text(source) for source in chats}) <= 1)
    separator = learn_separator(_raw_text(draft, rules) for draft in drafts)
    completions = found.name == "chat" or found.label_field.casefold() == "completion"
    suffix = learn_label_suffix(surface for draft in drafts for surface in draft.surfaces) if completions else ""
    return rules.model_copy(update={"separator": separator, "label_suffix": suffix})


def _raw_text(draft: Draft, rules: TextRules) -> str:
    return draft.source if isinstance(draft.source, str) else flatten_chat(draft.source, rules)


def _row(draft: Draft, rules: TextRules, labels: _LabelsOf) -> ClassifyRow:
    text = clean_text(_raw_text(draft, rules), rules)
    if not text.strip():
        raise DataError("text is empty; remove the row or give it a text")
    names, surfaces = labels(draft.surfaces)
    refuse_characters("text", text)
    return ClassifyRow(text, names, surfaces, draft.line)


def _labels_by(rules: TextRules) -> _LabelsOf:
    """What labels as written are under these rules; asked for the same ones again, it gives the same objects."""

    @cache
    def labels(written: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        surfaces: dict[str, str] = {}
        for surface in written:
            surfaces.setdefault(clean_label(surface, rules), surface)
        if "" in surfaces:
            raise DataError("label is empty; remove the row or give it a label")
        for surface in written:
            refuse_characters("label", surface)
        return tuple(surfaces), tuple(surfaces.values())

    return labels
