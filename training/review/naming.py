"""Checks of how labels are written."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from training.errors import DataError
from training.review.findings import SHOWN, Case, Ledger
from training.review.labels import LabelTable, typos
from training.review.options import Family
from training.review.rows import Indices
from training.review.scan import Scan
from training.text import listed


def set_numbers(scans: Sequence[Scan]) -> Indices:
    """The sets of labels of all rows that are left."""
    return np.concatenate([scan.set_numbers(scan.where()) for scan in scans])


def merge_labels(scans: Sequence[Scan], table: LabelTable, merge: dict[str, str], ledger: Ledger) -> None:
    """Rename labels as the user ordered.

    Raises:
        DataError: there is no label of that name.
    """
    for old, new in merge.items():
        counts, names = table.counts(set_numbers(scans)), table.names()
        meant = [i for i, name in enumerate(names) if name == old.strip() and counts[i]]
        if not meant:
            known = listed(sorted({name for i, name in enumerate(names) if counts[i]}))
            raise DataError(f'merge: no row has the label "{listed([old])}"; found {known}', scans[0].path)
        spelling = table.representative(new.strip(), counts)
        table.rename(dict.fromkeys(meant, spelling))
        count = sum(counts[i] for i in meant)
        details = (f'"{listed([old])}" ({count:,}) becomes "{listed([new])}"',)
        said = "{row} have|has a label that is renamed"
        ledger.record(Case("label_typo", "warning", count, said, "merge", details=details), True)


def settle_spellings(scans: Sequence[Scan], table: LabelTable, ledger: Ledger) -> None:
    """Decide about common endings and beginnings of labels, and about several spellings of one; until none is left."""
    before: list[str | None] = []
    while before != table.spellings:
        before = list(table.spellings)
        counts = table.counts(set_numbers(scans))
        used = table.used(counts)
        for check, (shared, shorter) in (
            ("label_suffix", table.without_suffix(used)),
            ("label_prefix", table.without_prefix(used)),
        ):
            if shorter:
                said = f"all labels {'end' if check == 'label_suffix' else 'begin'} alike"
                details = (f'"{listed([shared])}"',)
                case = Case(check, "suggestion", len(shorter), said, "remove", details=details)
                if ledger.settle(case, anew=True):
                    table.rename(shorter)
                    break
        else:
            _settle_variants(table, counts, ledger)
    table.without_suffix(table.used(table.counts(set_numbers(scans))))


def _settle_variants(table: LabelTable, counts: list[int], ledger: Ledger) -> None:
    renamed, details, rows = dict[int, str | None](), list[str](), 0
    for best, *others in table.variants(counts):
        for other in others:
            if table.spellings[other] != table.spellings[best]:
                renamed[other] = table.spellings[best]
                rows += counts[other]
                one, two = (f'"{listed([(table.spellings[i] or "").strip()])}" ({counts[i]:,})' for i in (other, best))
                details.append(f"{one} looks like {two}")
    if renamed:
        said = "{row} have|has a label that differs from another one in spelling alone"
        case = Case("label_variants", "warning", rows, said, "merge", details=tuple(details[:SHOWN]))
        if ledger.settle(case):
            table.rename(renamed)


def settle_typos(scans: Sequence[Scan], table: LabelTable, ledger: Ledger) -> None:
    """Decide about labels that may be others misspelt."""
    counts, names = table.counts(set_numbers(scans)), table.names()
    totals = Counter[str]()
    for name, count in zip(names, counts, strict=True):
        if name and count:
            totals[name] += count
    found = dict(typos(totals))
    if not found:
        return
    details = tuple(
        f'"{listed([old])}" ({totals[old]:,}) looks like "{listed([new])}" ({totals[new]:,})'
        for old, new in list(found.items())[:SHOWN]
    )
    rows = sum(totals[old] for old in found)
    said = "{row} have|has a label that may be misspelt"
    case = Case("label_typo", "warning", rows, said, "merge", safe=False, details=details)
    if ledger.settle(case):
        for i, name in enumerate(names):
            if name in found and counts[i]:
                table.rename({i: table.representative(found[name], counts)})


def settle_label_space(scans: Sequence[Scan], table: LabelTable, to: Family, ledger: Ledger) -> bool:
    """Decide about the space in front of completions."""
    counts = table.counts(set_numbers(scans))
    rows = sum(counts[i] for i in table.used(counts) if not (table.spellings[i] or "").startswith(" "))
    if to != "openai" or not rows:
        return False
    said = "{row} have|has a completion that does not start with a space"
    return ledger.settle(Case("label_space", "suggestion", rows, said, "add"), anew=True)
