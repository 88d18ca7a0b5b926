"""Reading a file into compact facts, some tens of bytes a row; the texts themselves are not kept."""

from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from training.errors import DataError
from training.formats import FileFormat, Record
from training.review.cleanup import (
    Source,
    TextPlan,
    content_of,
    ending_of,
    has_content,
    near_key,
    same_key,
    shared_start,
)
from training.review.findings import SHOWN, Which
from training.review.labels import LabelTable
from training.review.options import ReviewOptions
from training.review.rows import DROPPED, MENDED, RENAMED, TRAIN, VALID, Indices, Rows, Tally, numbered, with_usual_keys
from training.review.tokens import Encoder
from training.rows import Draft, read_draft
from training.text import ChatError, TextRules, flatten_chat, refuse_characters, system_text

SHORT = 8
"""What a row was found to be, beside the bits of `cleanup`."""
_RULES = TextRules()
_BATCH = 512
_SAMPLES, _SAMPLE_LENGTH = 8, 120
_LETTERS = 1_000
"""Characters of a text in which capitals are counted."""


class Scan(Rows):
    """The facts of one file of texts and labels."""

    def __init__(self, path: Path, found: FileFormat, which: Which, options: ReviewOptions) -> None:
        super().__init__(path, found, which, options)
        self.multi_label: bool | None = options.multi_label
        """Whether rows have lists of labels; None until the first row decides."""
        self.skipped = Tally()
        """Chat rows whose answer has weight 0."""
        self.systems: set[int] = set()
        """Keys of different system messages, two at most."""
        self.sets: array[int] = array("q")
        """The set of labels of each row, by number in the table."""

    def read(self, table: LabelTable, plan: TextPlan, encoder: Encoder | None) -> None:
        """Read the file for the first time: which rows can be used, their labels, and the facts of their texts."""
        facts = _Facts(encoder)
        part = TRAIN if self.which == "train" else VALID
        for index, (number, record) in enumerate(numbered(self.path, self.found)):
            usual = with_usual_keys(record, self.found)
            self._note_keys(usual)
            row = self._judge(number, usual, plan)
            if row is None:
                facts.skip()
            else:
                facts.add(index, *row, plan, record, usual is not record)
            self.lines.append(number)
            self.parts.append(DROPPED if row is None else part)
            self.sets.append(-1 if row is None else table.add(row[0].surfaces))
            self.mended_characters += record.mended
        self._take(facts)
        self.refuse_empty("classify")

    def again(self, plan: TextPlan, encoder: Encoder | None) -> None:
        """Read the texts of the rows that are left by another plan; one that has nothing left is dropped."""
        facts = _Facts(encoder)
        for index, (record, draft) in enumerate(self.drafts()):
            source = None if draft is None else plan.mend(draft.source)
            if draft is None or source is None or not has_content(plan.clean(plan.flatten(source[0]))):
                if draft is not None:
                    self.refuse("empty_text", self.lines[index], "the text is empty once it is repaired")
                    self.parts[index] = DROPPED
                facts.skip()
            else:
                facts.add(index, draft, *source, plan, record, renamed=False)
        kept = self.flags & (MENDED | RENAMED)
        self._take(facts)
        self.flags |= kept

    def drafts(self) -> Iterator[tuple[Record, Draft | None]]:
        """Every record again, with its text and labels if the row is left.

        Raises:
            DataError: the file is not the one that was reviewed.
        """
        for record, index in self.records():
            try:
                yield record, read_draft(record, self.found, self.options.data) if self.parts[index] else None
            except (DataError, ChatError):
                raise self.changed() from None

    def set_numbers(self, indices: Indices) -> Indices:
        """The sets of labels of these rows."""
        return np.frombuffer(self.sets, dtype=np.int64)[indices] if self.sets else np.zeros(0, np.int64)

    def _take(self, facts: "_Facts") -> None:
        facts.count()
        self.texts, self.nears = np.array(facts.texts, np.int64), np.array(facts.nears, np.int64)
        self.tokens, self.ends = np.array(facts.tokens, np.int64), np.array(facts.ends, np.int64)
        self.flags = np.array(facts.flags, np.uint8)
        self.endings, self.samples, self.prefix = facts.endings, facts.samples, facts.prefix or ""
        self.capitals, self.letters = facts.capitals, facts.letters

    def _note_keys(self, record: Record) -> None:
        if len(record.fields) > len(set(self.found.fields)):
            for name in record.fields:
                if name not in self.found.fields and (name in self.extra or len(self.extra) < SHOWN):
                    self.extra[name] = self.extra.get(name, 0) + 1

    def _judge(self, number: int, record: Record, plan: TextPlan) -> tuple[Draft, Source, int] | None:
        """The row of a record, its repaired source and what was repaired; None for one that cannot be used."""
        try:
            draft = read_draft(record, self.found, self.options.data)
            self._check(draft)
            source, bits = plan.mend(draft.source)
            if not has_content(plan.clean(plan.flatten(source))):
                raise DataError("the text is blank or nothing but punctuation", check="empty_text")
        except (DataError, ChatError) as error:
            self.refuse(error.check if isinstance(error, DataError) else "chat_shape", number, str(error))
            return None
        if not draft.used:
            self.skipped.add(number)
            return None
        return draft, source, bits

    def _check(self, draft: Draft) -> None:
        """Refuse what training would refuse, and labels of another kind than the file's."""
        if not isinstance(draft.source, str):
            flatten_chat(draft.source, _RULES)
            if len(self.systems) < 2:
                self.systems.add(hash(system_text(draft.source)))
        texts = [draft.source] if isinstance(draft.source, str) else [content_of(m) for m in draft.source]
        for name, value in (*(("text", text) for text in texts), *(("label", label) for label in draft.surfaces)):
            refuse_characters(name, value)
        if any(not label.strip() for label in draft.surfaces):
            raise DataError("the label is blank", check="empty_label")
        if self.multi_label is None:
            self.multi_label = draft.is_list
        if draft.is_list and not self.multi_label:
            raise DataError("the label is a list; expected a single label", check="columns")
        if self.multi_label and not draft.is_list and self.options.multi_label is None:
            raise DataError("the label is a single one; expected a list, as other rows have it", check="columns")


class _Facts:
    """Facts of texts while they are gathered."""

    def __init__(self, encoder: Encoder | None) -> None:
        self._encoder = encoder
        self._waiting = list[str]()
        self.texts: array[int] = array("q")
        self.nears: array[int] = array("q")
        self.tokens: array[int] = array("q")
        self.ends: array[int] = array("q")
        self.flags = bytearray()
        self.endings: dict[tuple[str, bool], int] = {}
        """What texts end in after the last letter, and whether that is all of the text, by number."""
        self.samples: dict[tuple[str, ...], list[tuple[int, str]]] = {}
        """By labels as written: index and beginning of the first texts."""
        self.prefix: str | None = None
        self.capitals = self.letters = 0

    def skip(self) -> None:
        """A row that is not used."""
        for values in (self.texts, self.nears, self.ends):
            values.append(0)
        self.flags.append(0)
        self._wait("")

    def add(
        self, index: int, draft: Draft, source: Source, bits: int, plan: TextPlan, record: Record, renamed: bool
    ) -> None:
        """The row of a record and its repaired source."""
        text = plan.clean(plan.flatten(source))
        first, last = (source, source) if isinstance(source, str) else _ends(source)
        self.prefix = first if self.prefix is None else shared_start(self.prefix, first)
        ending = ending_of(last)
        key = (ending, ending == last)
        self.ends.append(self.endings.setdefault(key, len(self.endings)))
        self.texts.append(same_key(text))
        self.nears.append(near_key(text))
        short = SHORT if len(text.strip()) < 3 else 0
        self.flags.append(bits | short | (MENDED if record.mended else 0) | (RENAMED if renamed else 0))
        samples = self.samples.setdefault(draft.surfaces, [])
        if len(samples) < _SAMPLES:
            samples.append((index, text.strip()[:_SAMPLE_LENGTH]))
        if self._encoder and self._encoder.cased:
            self.capitals += sum(map(str.isupper, text[:_LETTERS]))
            self.letters += sum(map(str.isalpha, text[:_LETTERS]))
        self._wait(text)

    def count(self) -> None:
        """Count the tokens of the texts that wait."""
        counts = self._encoder.count(self._waiting) if self._encoder else [0] * len(self._waiting)
        self.tokens.extend(counts)
        self._waiting.clear()

    def _wait(self, text: str) -> None:
        self._waiting.append(text)
        if len(self._waiting) == _BATCH:
            self.count()


def _ends(messages: list[dict[str, object]]) -> tuple[str, str]:
    """The first user message and the last message that is not a system's: where prefixes and separators are."""
    said = [message for message in messages if message.get("role") not in ("system", "developer")]
    user = next(message for message in said if message["role"] == "user")
    return content_of(user), content_of(said[-1])
