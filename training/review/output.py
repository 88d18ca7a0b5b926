"""Writing the rows of a review: the files are read once more, and every row that is left goes where it was sent."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import cast

from training.atomic import write_lines
from training.errors import DataError
from training.formats import Record
from training.review.classify import ClassifyReview
from training.review.cleanup import SEPARATOR, Source, content_of
from training.review.options import Family
from training.review.rows import TRAIN, VALID
from training.review.scan import Scan
from training.rows import Draft

_JOINTS = ("|", ";", ",", " / ", "\t")
"""Separators of several labels in one cell, the first that is in none of them."""


def write_parts(lines: Callable[[int], Iterable[str]], train: Path, valid: Path | None) -> None:
    """Write the rows to train on and those to validate on, each file whole or not at all.

    Args:
        lines: gives the lines of a part.
        train: where the first part goes.
        valid: where the second goes; None if there is none.

    Raises:
        OSError: a file cannot be written.
        DataError: a reviewed file is not what it was.
    """
    write_lines(train, lines(TRAIN))
    if valid is not None:
        write_lines(valid, lines(VALID))


def json_line(value: dict[str, object], fields: Iterable[str] = ()) -> str:
    """One line of JSONL; what cannot be written as it is costs the keys that are none of `fields`."""
    try:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False)
        line.encode()
    except (ValueError, RecursionError):  # infinite numbers, half surrogates or deep nesting in keys nobody reads
        line = json.dumps({name: value[name] for name in fields}, ensure_ascii=False)
    return f"{line}\n"


class ClassifyWriter:
    """Writes the rows of a review of texts and labels."""

    def __init__(self, review: ClassifyReview) -> None:
        self._review = review
        self._spellings = [self._spelling(spelling) for spelling in review.table.spellings]
        wanted = (review.options.data.label_separator, *_JOINTS)
        used = [spelling for spelling in self._spellings if spelling]
        self._joint = next((joint for joint in wanted if joint and not any(joint in name for name in used)), "")

    def lines(self, part: int) -> Iterator[str]:
        """The lines of a part."""
        if self._review.to == "csv":
            yield "text,label\n"
        for scan in self._review.scans:
            for index, (record, draft) in enumerate(scan.drafts()):
                if draft is not None and scan.parts[index] == part:
                    yield self._line(scan, index, record, draft)

    def _line(self, scan: Scan, index: int, record: Record, draft: Draft) -> str:
        review = self._review
        source, _ = review.plan.mend(draft.source)
        names = (self._spellings[i] for i in review.table.sets[scan.sets[index]])
        labels = list(dict.fromkeys(name for name in names if name is not None))
        if review.to == "openai-chat":
            return self._chat_line(record, source, labels[0])
        text = review.plan.flatten(source)
        text = review.plan.clean(text) + (SEPARATOR if review.to == "openai" else "") if review.separated else text
        if review.to == "openai":
            return json_line({"prompt": text, "completion": labels[0]})
        if review.to == "csv":
            return _csv_line(text, self._joint.join(labels) if review.multi_label else labels[0])
        return json_line({"text": text, "label": labels if review.multi_label else labels[0]})

    def _chat_line(self, record: Record, source: Source, label: str) -> str:
        review = self._review
        if isinstance(source, str):
            text = review.plan.clean(source) if review.separated else source
            answer: dict[str, object] = {"role": "assistant", "content": label}
            return json_line({"messages": [{"role": "user", "content": text}, answer]})
        answer = cast(list[dict[str, object]], record.fields["messages"])[-1]
        messages = [_plain(message) for message in [*source, answer | {"content": label}]]
        if review.separated:
            last = max(i for i, message in enumerate(source) if message["role"] not in ("system", "developer"))
            messages[last]["content"] = review.plan.clean(content_of(messages[last]))
        return json_line({"messages": messages})

    def _spelling(self, spelling: str | None) -> str | None:
        """A label as the family has it: as written if that is how it came, completions with a space if decided."""
        if spelling is None:
            return None
        if self._review.to != family_of(self._review.scans[0]):
            spelling = spelling.strip()
        return f" {spelling.lstrip()}" if self._review.spaced and not spelling.startswith(" ") else spelling


def family_of(scan: Scan) -> Family:
    """The form in which a file's rows came."""
    if scan.found.name == "chat":
        return "openai-chat"
    names = tuple(name.casefold() for name in scan.found.fields)
    return "openai" if scan.found.container != "table" and names == ("prompt", "completion") else "cohere"


def check_family(review: ClassifyReview) -> None:
    """Refuse a form that cannot hold the rows.

    Raises:
        DataError: lists of labels in a form that has one label.
    """
    if review.multi_label and review.to in ("openai", "openai-chat"):
        raise DataError(
            f"rows with lists of labels cannot be written as {review.to}, which has one; choose cohere or csv",
            review.scans[0].path,
        )


def _plain(message: dict[str, object]) -> dict[str, object]:
    """A message without what no trainer reads, which may be nothing that can be written."""
    plain = {"role": message["role"], "content": message["content"]}
    if isinstance(name := message.get("name"), str) and name.isprintable():
        plain["name"] = name
    return plain | ({"weight": message["weight"]} if message.get("weight") in (0, 1) else {})


def _csv_line(*cells: str) -> str:
    # The module quotes those line ends alone that it writes itself.
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n") + "\n"
