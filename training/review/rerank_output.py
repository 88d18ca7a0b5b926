"""Writing the rows of a review of rankings, in the shape in which they came."""

from collections.abc import Iterator
from typing import cast

from training.formats import Record
from training.rerank_rows import RankingDraft, is_negative
from training.review.output import json_line
from training.review.rankings import RankingScan, list_keys, passage_key, query_key
from training.review.rerank import RerankReview

_NEGATIVES = "hard_negatives"


class RerankWriter:
    """Writes the rows of a review of rankings."""

    def __init__(self, review: RerankReview) -> None:
        self._review = review

    def lines(self, part: int) -> Iterator[str]:
        """The lines of a part."""
        for scan in self._review.scans:
            merged = _merged(scan)
            for index, (record, draft) in enumerate(scan.drafts()):
                if draft is not None and scan.parts[index] == part:
                    yield json_line(self._row(scan, record, draft, merged.get(index, [])), scan.found.fields)

    def _row(
        self, scan: RankingScan, record: Record, draft: RankingDraft, more: list[dict[str, list[str]]]
    ) -> dict[str, object]:
        query = query_key(draft.query)
        if scan.found.name == "triplets":
            return {
                name: value
                for name, value in record.fields.items()
                if not (is_negative(name) and (query, passage_key(cast(str, value))) in scan.contradicted)
            }
        if scan.found.name != "rerank":
            return record.fields
        fields = dict(record.fields)
        lists = _lists(record, scan)
        for other in more:
            for name, passages in other.items():
                lists[name] = lists.get(name, []) + passages
        keys = dict(zip((scan.found.fields[1], _NEGATIVES), list_keys(record, scan.found), strict=False))
        for name, passages in lists.items():
            kept = [p for p in passages if name != _NEGATIVES or (query, passage_key(p)) not in scan.contradicted]
            if scan.unrepeated:
                kept = list({passage_key(passage): passage for passage in reversed(kept)}.values())[::-1]
            fields[keys.get(name, name)] = kept
        return fields


def _lists(record: Record, scan: RankingScan) -> dict[str, list[str]]:
    """The relevant passages and, if given, the hard negatives of a row."""
    keys = zip((scan.found.fields[1], _NEGATIVES), list_keys(record, scan.found), strict=False)
    return {name: cast(list[str], record.fields[key]) for name, key in keys if record.fields[key] is not None}


def _merged(scan: RankingScan) -> dict[int, list[dict[str, list[str]]]]:
    """What rows take in from later ones, by their index; these alone are held in memory."""
    if not scan.taken_in:
        return {}
    into = {later: first for first, rows in scan.taken_in.items() for later in rows}
    found: dict[int, list[dict[str, list[str]]]] = {}
    for index, record in enumerate(scan.mended_records()):
        if index in into:
            found.setdefault(into[index], []).append(_lists(record, scan))
    return found
