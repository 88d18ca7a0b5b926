"""The rows of one file under review, whatever they are: where they stand, what is wrong with them, where they go."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from training.errors import DataError
from training.formats import ROWS, FileFormat, Record, Task
from training.records import read_records
from training.review.findings import SHOWN, Which
from training.review.options import ReviewOptions

Indices = npt.NDArray[np.int64]
DROPPED, TRAIN, VALID = 0, 1, 2
"""Where a row goes."""
MOST_VALID = 1_000
"""Rows that are split off to validate on at most, as OpenAI's tool had it."""
MENDED, RENAMED = 16, 32
"""What was done to read a row: bytes decoded as Windows-1252, keys spelt as in the other rows; bits."""


def ints(values: Indices) -> list[int]:
    """The values as Python's numbers, which is quicker to go through."""
    return cast(list[int], values.tolist())


@dataclass
class Tally:
    """Rows that have one thing in common: how many, and the first of them."""

    count: int = 0
    rows: list[int] = field(default_factory=list[int])
    reasons: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    def add(self, row: int, reason: str = "") -> None:
        """Count a row."""
        self.count += 1
        if len(self.rows) < SHOWN:
            self.rows.append(row)
            self.reasons.append((row, reason))


def numbered(path: Path, found: FileFormat) -> Iterator[tuple[int, Record]]:
    """The records of a file with their row numbers: lines of JSONL, elsewhere counted from 1 without the header."""
    for ordinal, record in enumerate(read_records(path, found), 1):
        yield (record.line if found.container == "jsonl" else ordinal), record


def with_usual_keys(record: Record, found: FileFormat) -> Record:
    """A record whose keys differ from the file's in case or outer white space alone, with those of the file."""
    if record.problem or all(name in record.fields for name in found.fields):
        return record
    folded = {name.strip().casefold(): name for name in reversed(record.fields)}
    wanted = {name: folded.get(name.strip().casefold(), "") for name in found.fields if name not in record.fields}
    if not all(wanted.values()):
        return record
    fields = {name: value for name, value in record.fields.items() if name not in wanted.values()}
    return replace(record, fields=fields | {name: record.fields[old] for name, old in wanted.items()})


class Rows:
    """What is known of the rows of one file."""

    def __init__(self, path: Path, found: FileFormat, which: Which, options: ReviewOptions) -> None:
        self.path, self.found, self.options = path, found, options
        self.which: Which = which
        self.problems: dict[str, Tally] = {}
        """Rows that cannot be used, by check."""
        self.mended_characters = 0
        self.extra: dict[str, int] = {}
        """Keys that say nothing, with the number of rows that have them."""
        self.lines: array[int] = array("q")
        """Row numbers."""
        self.parts = bytearray()
        """Where each row goes."""
        self.flags = np.zeros(0, np.uint8)

    def records(self) -> Iterator[tuple[Record, int]]:
        """Every record again, with its index.

        Raises:
            DataError: the file is not the one that was reviewed.
        """
        index = -1
        for index, (_, record) in enumerate(numbered(self.path, self.found)):
            if index >= len(self.parts):
                raise self.changed()
            yield with_usual_keys(record, self.found), index
        if index + 1 != len(self.parts):
            raise self.changed()

    def changed(self) -> DataError:
        """The error of a file that is not the one that was reviewed."""
        return DataError("changed while it was reviewed; run the review again", self.path)

    def refuse(self, check: str, number: int, reason: str) -> None:
        """Count a row that cannot be used."""
        self.problems.setdefault(check, Tally()).add(number, reason)

    def refuse_empty(self, task: Task) -> None:
        """Refuse a file without rows.

        Raises:
            DataError: there is not one record.
        """
        if not self.lines:
            raise DataError(f"the file has no rows; expected {ROWS[task]}", self.path)

    def where(self, part: int | None = None) -> Indices:
        """Indices of the rows that go to a part, or of all that are left."""
        parts = np.frombuffer(self.parts, dtype=np.uint8)
        return np.flatnonzero(parts != DROPPED if part is None else parts == part)

    def drop(self, indices: Indices) -> None:
        """Leave rows out."""
        self.move(indices, DROPPED)

    def move(self, indices: Indices, part: int) -> None:
        """Send rows to a part."""
        for index in ints(indices):
            self.parts[index] = part

    def flagged(self, bit: int) -> Indices:
        """Indices of the rows left that have a bit."""
        left = self.where()
        return left[self.flags[left] & bit > 0]

    def numbers(self, indices: Indices) -> tuple[int, ...]:
        """Row numbers of the first of these rows."""
        return tuple(self.lines[index] for index in ints(indices[:SHOWN]))
