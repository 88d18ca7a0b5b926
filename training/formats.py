"""The file formats of labelled data: their names, the options that override recognition, one record of a file.

Column names are matched without regard to case, the first name of a list that is present wins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from training.errors import DataError
from training.text import listed

FormatName = Literal["text-label", "prompt-completion", "chat", "rerank", "columns", "csv"]
TEXT_COLUMNS = tuple("text prompt query sentence review content message utterance input body".split())
LABEL_COLUMNS = tuple("label_text label target completion intent category class sentiment output".split())
EXPECTED = (
    "expected text and label, prompt and completion, messages, or query and relevant_passages; "
    "name other columns with text_column and label_column"
)


class DataOptions(BaseModel):
    """How to read a data file where recognising it by content is wrong or impossible; None means recognise."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, coerce_numbers_to_str=True)

    format: FormatName | None = None
    """Format of the file: JSON objects of one of the named shapes, or csv for any delimited table."""
    text_column: str | None = None
    """Column or JSON key of the text; in a table without a header its number, counted from 1."""
    label_column: str | None = None
    """Column or JSON key of the label; in a table without a header its number, counted from 1."""
    delimiter: str | None = None
    """One character that separates the cells of a table, "tab" for the tabulator."""
    header: bool | None = None
    """Whether the first row of a table holds column names."""
    quotes: Literal["csv", "data"] | None = None
    """Whether double quotes in a table follow the CSV rules or are part of the text."""
    label_separator: Annotated[str, Field(min_length=1)] | None = None
    """Separator of the labels in one cell, such as "|": makes the data multi-label."""

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        value = "\t" if value in ("tab", "\\t") else value
        if value is not None and (len(value) != 1 or value in '"\r\n'):
            raise ValueError(f'delimiter is {value!r}, expected one character such as "," or ";", or "tab"')
        return value


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file, not yet judged: its fields by name, or the reason why it could not be read."""

    line: int
    """Line of the file on which the record starts, counted from 1."""
    fields: dict[str, object]
    problem: str = ""
    """Why the record is malformed, as one clause; then `fields` is empty. "" for a well-formed record."""


@dataclass(frozen=True, slots=True)
class Table:
    """How the lines of a delimited file become cells."""

    delimiter: str
    quotes: Literal["csv", "data"]
    header: bool
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileFormat:
    """What a file was recognised as. For chat both fields are "messages"; for rerank query and relevant_passages."""

    name: FormatName
    container: Literal["jsonl", "json", "table"]
    text_field: str
    label_field: str
    line: int
    """Line of the record by which the shape was recognised."""
    table: Table | None = None
    notes: tuple[str, ...] = ()
    """What was assumed and how to override it, one sentence each."""


def pick_columns(names: Sequence[str], options: DataOptions) -> tuple[str | None, str | None]:
    """Find the text and the label column: the ones the options name, else the first known names; None when absent.

    Raises:
        DataError: a column that the options name is not there.
    """
    folded = {name.strip().casefold(): name for name in reversed(names)}
    wanted: dict[str, str | None] = {"text_column": options.text_column, "label_column": options.label_column}
    for option, name in wanted.items():
        if name is not None:
            wanted[option] = name if name in names else folded.get(name.strip().casefold())
            if wanted[option] is None:
                raise DataError(f'{option} "{name}" is not in the file; found {listed(names)}')
    text, label = wanted.values()
    if text is not None and text == label:
        raise DataError(f'text_column and label_column are both "{text}"; expected two columns')
    label = label or next((folded[n] for n in LABEL_COLUMNS if n in folded and folded[n] != text), None)
    text = text or next((folded[n] for n in TEXT_COLUMNS if n in folded and folded[n] != label), None)
    return text, label


def shape_of(keys: Sequence[str], options: DataOptions) -> tuple[FormatName, str, str] | None:
    """Recognise the shape of a JSON object by its keys: the shape, the key of the text and that of the label."""
    text, label = pick_columns(keys, options)
    if options.text_column is None and options.label_column is None and options.format != "columns":
        for name, text_key, label_key in _FIXED_SHAPES:
            if text_key in keys and label_key in keys and options.format in (None, name):
                return name, text_key, "label_text" if name == "text-label" and "label_text" in keys else label_key
    return ("columns", text, label) if text and label and options.format in (None, "columns") else None


_FIXED_SHAPES: tuple[tuple[FormatName, str, str], ...] = (
    ("chat", "messages", "messages"),
    ("prompt-completion", "prompt", "completion"),
    ("text-label", "text", "label"),
    ("rerank", "query", "relevant_passages"),
)
