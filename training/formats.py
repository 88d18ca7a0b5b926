"""The file formats of labelled data and of rankings: names, options that override recognition, one record of a file.

Column names are matched without regard to case, the first name of a list that is present wins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from training.errors import DataError
from training.text import listed

Task = Literal["classify", "rerank"]
RerankFormat = Literal["rerank", "graded-pairs", "triplets", "candidates"]
Encoding = Literal["utf-8", "windows-1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
"""How a file's bytes become characters; windows-1252: UTF-8, but for single bytes that are not."""
FormatName = Literal["text-label", "prompt-completion", "chat", RerankFormat, "columns", "csv"]
RERANK_FORMATS: tuple[RerankFormat, ...] = get_args(RerankFormat)
TEXT_COLUMNS = tuple("text prompt query sentence review content message utterance input body".split())
LABEL_COLUMNS = tuple("label_text label target completion intent category class sentiment output".split())
EXPECTED: dict[Task, str] = {
    "classify": "expected text and label, prompt and completion, messages, or query and relevant_passages; "
    "name other columns with text_column and label_column",
    "rerank": "expected query and relevant_passages; query, document and score; query, positive and negative; or qid, "
    "query, docids and texts; name other columns of graded pairs with query_column, text_column and label_column",
}
ROWS: dict[Task, str] = {"classify": "rows with a text and a label", "rerank": "rows with a query and passages"}
"""What a file of a task is expected to hold."""


class DataOptions(BaseModel):
    """How to read a data file where recognising it by content is wrong or impossible; None means recognise."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, coerce_numbers_to_str=True)

    format: FormatName | None = None
    """Format of the file: JSON objects of one of the named shapes, or csv for any delimited table."""
    text_column: str | None = None
    """Column or JSON key of the text; in a table without a header its number, counted from 1."""
    label_column: str | None = None
    """Column or JSON key of the label; in a table without a header its number, counted from 1."""
    query_column: str | None = None
    """Rerank pairs: column or JSON key of the query; the text is then the passage and the label its grade."""
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
    check: str = "malformed"
    """The id under which a review counts the problem."""
    mended: int = 0
    """Bytes that were not UTF-8 and were read as Windows-1252."""


@dataclass(frozen=True, slots=True)
class Table:
    """How the lines of a delimited file become cells."""

    delimiter: str
    quotes: Literal["csv", "data"]
    header: bool
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileFormat:
    """What a file was recognised as."""

    name: FormatName
    container: Literal["jsonl", "json", "table"]
    fields: tuple[str, ...]
    """The keys of a row: text and label (for chat both are "messages"), or those of `RERANK_FIELDS` in that order."""
    line: int
    """Line of the record by which the shape was recognised."""
    table: Table | None = None
    encoding: Encoding = "utf-8"
    notes: tuple[str, ...] = ()
    """What was assumed and how to override it, one sentence each."""

    @property
    def text_field(self) -> str:
        """The key of the text, or of the query."""
        return self.fields[0]

    @property
    def label_field(self) -> str:
        """The key of the label."""
        return self.fields[1]


def pick_columns(names: Sequence[str], options: DataOptions) -> tuple[str | None, str | None]:
    """Find the text and the label column: the ones the options name, else the first known names; None when absent.

    Raises:
        DataError: a column that the options name is not there.
    """
    folded = _folded(names)
    text, label = _chosen(names, {"text_column": options.text_column, "label_column": options.label_column})
    label = label or next((folded[n] for n in LABEL_COLUMNS if n in folded and folded[n] != text), None)
    text = text or next((folded[n] for n in TEXT_COLUMNS if n in folded and folded[n] != label), None)
    return text, label


def shape_of(keys: Sequence[str], options: DataOptions) -> tuple[FormatName, tuple[str, ...]] | None:
    """Recognise the shape of a JSON object by its keys: the shape and `FileFormat.fields`."""
    text, label = pick_columns(keys, options)
    if options.text_column is None and options.label_column is None and options.format != "columns":
        for name, text_key, label_key in _FIXED_SHAPES:
            if text_key in keys and label_key in keys and options.format in (None, name):
                return name, (text_key, "label_text" if name == "text-label" and "label_text" in keys else label_key)
    if text and label and options.format in (None, "columns"):
        return "columns", (text, label)
    return rerank_shape_of(keys, options)


def rerank_shape_of(names: Sequence[str], options: DataOptions) -> tuple[RerankFormat, tuple[str, ...]] | None:
    """Recognise a ranking by the keys of a JSON object or the columns of a table: its shape and `FileFormat.fields`.

    Raises:
        DataError: a column that the options name is not there.
    """
    folded = _folded(names)
    wanted = {"query_column": options.query_column, "text_column": options.text_column}
    chosen = _chosen(names, wanted | {"label_column": options.label_column})
    for shape, roles in RERANK_FIELDS.items():
        known = [next((folded[name] for name in role if name in folded), None) for role in roles]
        if any(chosen):
            known = (
                [own or name for own, name in zip(chosen, known, strict=False)] if shape == "graded-pairs" else [None]
            )
        fields = tuple(name for name in known if name is not None)
        if options.format in (None, "csv", shape) and len(set(fields)) == len(known):
            return shape, fields
    return None


def _folded(names: Sequence[str]) -> dict[str, str]:
    return {name.strip().casefold(): name for name in reversed(names)}


def _chosen(names: Sequence[str], wanted: dict[str, str | None]) -> list[str | None]:
    """Find the columns that options name; None where the option is not set."""
    folded, found = _folded(names), dict[str, str]()
    for option, name in wanted.items():
        if name is None:
            continue
        column = name if name in names else folded.get(name.strip().casefold())
        if column is None:
            raise DataError(f'{option} "{name}" is not in the file; found {listed(names)}')
        if twin := next((other for other, taken in found.items() if taken == column), None):
            raise DataError(f'{twin} and {option} are both "{column}"; expected two columns')
        found[option] = column
    return [found.get(option) for option in wanted]


RERANK_FIELDS: dict[RerankFormat, tuple[tuple[str, ...], ...]] = {
    "rerank": (("query",), ("relevant_passages",)),
    "candidates": (("query",), ("qid",), ("docids",), ("texts", "passages", "docs")),
    "triplets": (("query", "anchor"), ("positive",)),
    "graded-pairs": (("query",), ("document", "passage", "text"), ("score", "label", "grade", "relevance")),
}
"""The fields by which each shape is recognised and the names each may have; shapes and names in order of preference."""
_FIXED_SHAPES: tuple[tuple[FormatName, str, str], ...] = (
    ("chat", "messages", "messages"),
    ("prompt-completion", "prompt", "completion"),
    ("text-label", "text", "label"),
    ("rerank", "query", "relevant_passages"),
)
