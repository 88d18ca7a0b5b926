"""Reading a file of rankings into compact facts: of queries and passages only what tells them apart is kept."""

from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from training.errors import DataError
from training.formats import FileFormat, Record
from training.rerank_rows import RankingDraft, read_ranking
from training.review.findings import Which
from training.review.options import ReviewOptions
from training.review.rows import DROPPED, MENDED, RENAMED, TRAIN, VALID, Rows, numbered, with_usual_keys
from training.review.tokens import Encoder

WRAPPED, BLANK = 1, 2
"""What a row was found to be: a list that was a string, or held blank passages; bits."""
_BATCH = 64


class RankingScan(Rows):
    """The facts of one file of rankings."""

    def __init__(self, path: Path, found: FileFormat, which: Which, options: ReviewOptions) -> None:
        super().__init__(path, found, which, options)
        self.queries: array[int] = array("q")
        self.starts: array[int] = array("q", [0])
        """Where the passages of each row begin and, one further, end."""
        self.passages: array[int] = array("q")
        self.grades: array[float] = array("d")
        self.longest: array[int] = array("q")
        self.tokens: array[int] = array("q")
        """Tokens of each row's longest pair of query and passage, and of all, each truncated."""
        self.taken_in: dict[int, list[int]] = {}
        """Rows of the same query that a row takes in, by its index; they themselves are dropped."""
        self.contradicted: set[tuple[int, int]] = set()
        """Keys of query and passage: hard negatives that are left out, as they are relevant."""
        self.unrepeated = False
        """Whether repeated passages are left out."""

    def read(self, encoder: Encoder | None) -> None:
        """Read the file."""
        flags, waiting = bytearray(), list[RankingDraft | None]()
        for number, record in numbered(self.path, self.found):
            usual = with_usual_keys(record, self.found)
            mended, bits = with_lists(usual, self.found)
            draft = self._judge(number, mended)
            bits |= (RENAMED if usual is not record else 0) | (MENDED if record.mended else 0)
            flags.append(bits if draft else 0)
            self._add(number, draft, record.mended)
            waiting.append(draft)
            if len(waiting) == _BATCH:
                self._count(waiting, encoder)
        self._count(waiting, encoder)
        self.flags = np.array(flags, np.uint8)
        self.refuse_empty("rerank")

    def drafts(self) -> Iterator[tuple[Record, RankingDraft | None]]:
        """Every record again, its lists being lists, with its query and passages if it can be used.

        Raises:
            DataError: the file is not the one that was reviewed.
        """
        for index, mended in enumerate(self.mended_records()):
            try:
                yield mended, read_ranking(mended, self.found, self.options.data, {}) if self.parts[index] else None
            except DataError:
                raise self.changed() from None

    def mended_records(self) -> Iterator[Record]:
        """Every record again, its lists being lists."""
        return (with_lists(usual, self.found)[0] for usual, _ in self.records())

    def bundle(self, index: int) -> list[int]:
        """A row and those that it takes in."""
        return [index, *self.taken_in.get(index, ())]

    def graded(self, index: int) -> Iterator[tuple[int, float]]:
        """The passages of a row, as keys, and their grades."""
        first, last = self.starts[index], self.starts[index + 1]
        return zip(self.passages[first:last], self.grades[first:last], strict=True)

    def bundled(self, index: int) -> Iterator[tuple[int, float]]:
        """The passages of a row and of those that it takes in, as keys, and their grades."""
        return (pair for i in self.bundle(index) for pair in self.graded(i))

    def left_passages(self, index: int) -> list[tuple[int, float]]:
        """As `bundled`, without contradictions that are left out."""
        query = self.queries[index]
        return [(p, grade) for p, grade in self.bundled(index) if grade > 0 or (query, p) not in self.contradicted]

    def _judge(self, number: int, record: Record) -> RankingDraft | None:
        try:
            draft = read_ranking(record, self.found, self.options.data, {})
            if self.found.name == "rerank" and not any(grade > 0 for _, grade in draft.graded):
                raise DataError("no relevant passage is given", check="no_relevant")
        except DataError as error:
            self.refuse(error.check, number, str(error))
            return None
        return draft

    def _add(self, number: int, draft: RankingDraft | None, mended: int) -> None:
        self.lines.append(number)
        self.parts.append(DROPPED if draft is None else TRAIN if self.which == "train" else VALID)
        self.mended_characters += mended
        self.queries.append(0 if draft is None else query_key(draft.query))
        if draft and self.found.name != "candidates":  # whose grades are not known
            self.passages.extend(passage_key(text) for text, _ in draft.graded)
            self.grades.extend(grade for _, grade in draft.graded)
        self.starts.append(len(self.passages))

    def _count(self, drafts: list[RankingDraft | None], encoder: Encoder | None) -> None:
        """Count the tokens of each pair."""
        texts = [text for d in drafts if d for text in (d.query, *(passage for passage, _ in d.graded))]
        counts = iter(encoder.count(texts, special=False) if encoder else [0] * len(texts))
        for draft in drafts:
            own = next(counts) if draft else 0
            pairs = [own + next(counts) + (encoder.pair_extra if encoder else 0) for _ in draft.graded] if draft else []
            self.longest.append(max(pairs, default=0))
            self.tokens.append(sum(min(pair, encoder.limit) for pair in pairs) if encoder else 0)
        drafts.clear()


def with_lists(record: Record, found: FileFormat) -> tuple[Record, int]:
    """A row of Cohere's shape whose passages are lists without blanks, and what had to be done (bits)."""
    if found.name != "rerank" or record.problem:
        return record, 0
    changed, bits = dict[str, object](), 0
    for name in list_keys(record, found):
        value = record.fields.get(name)
        if isinstance(value, str):
            value, bits = [value], bits | WRAPPED
            changed[name] = value
        if isinstance(value, list):
            items = cast(list[object], value)
            kept = [item for item in items if not isinstance(item, str) or item.strip()]
            if len(kept) < len(items):
                changed[name], bits = kept, bits | BLANK
    return (replace(record, fields=record.fields | changed) if changed else record), bits


def list_keys(record: Record, found: FileFormat) -> list[str]:
    """The keys of a row's relevant passages and, if it has any, of its hard negatives."""
    negatives = next((name for name in record.fields if name.strip().casefold() == "hard_negatives"), None)
    return [found.fields[1], *([negatives] if negatives else [])]


def query_key(query: str) -> int:
    """What is equal for queries that differ in white space at most."""
    return hash(" ".join(query.split()))


def passage_key(passage: str) -> int:
    """What is equal for passages that differ in outer white space at most."""
    return hash(passage.strip())
