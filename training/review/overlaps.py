"""Checks of rows against each other: the same text twice, under two labels, in both files, or a label too seldom."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from training.review.findings import SHOWN, Case, Ledger, Severity
from training.review.labels import LabelTable
from training.review.rows import Indices, ints
from training.review.scan import Scan
from training.text import listed


def settle_conflicts(scan: Scan, table: LabelTable, ledger: Ledger) -> None:
    """Decide about texts with several labels; a validation file stays as it is."""
    left = scan.where()
    _, places, times = np.unique(scan.texts[left], return_inverse=True, return_counts=True)
    left = left[times[places] > 1]
    numbers, names = table.classes()
    classes = ints(_classes(scan, left, numbers))
    torn, losing = _torn(ints(scan.texts[left]), classes)
    if not losing:
        return
    shown = ", ".join(
        f"{scan.lines[left[i]]} ({listed([' + '.join(names[classes[i]]) or 'no label'])})" for i in torn[:SHOWN]
    )
    rows = left[losing]
    said = "{row} have|has a text that other rows have with another label"
    fix = "drop {row}, all copies without a strict majority" if scan.which == "train" else None
    details = (shown + (", …" if len(torn) > SHOWN else ""),)
    case = Case("conflict", "warning", len(rows), said, fix, file=scan.which, details=details).at(scan.numbers(rows))
    if ledger.settle(case):
        scan.drop(rows)


def _torn(texts: list[int], classes: list[int]) -> tuple[list[int], list[int]]:
    """The places of texts with several classes, and those of them whose class has no strict majority there."""
    only, votes = dict[int, int](), dict[int, Counter[int]]()
    for text, label in zip(texts, classes, strict=True):
        if only.setdefault(text, label) != label:
            votes[text] = Counter()
    torn = [i for i, text in enumerate(texts) if text in votes]
    for i in torn:
        votes[texts[i]][classes[i]] += 1
    winners = {text: _majority(counter) for text, counter in votes.items()}
    return torn, [i for i in torn if winners[texts[i]] != classes[i]]


def _majority(votes: Counter[int]) -> int:
    """The class that more than half of the copies have, or -1."""
    best, count = votes.most_common(1)[0]
    return best if count * 2 > votes.total() else -1


def _classes(scan: Scan, rows: Indices, numbers: Indices) -> Indices:
    return numbers[scan.set_numbers(rows)] if len(rows) else np.zeros(0, np.int64)


def _labels(scan: Scan, rows: Indices, table: LabelTable) -> set[str]:
    numbers, names = table.classes()
    return {name for i in ints(np.unique(_classes(scan, rows, numbers))) for name in names[i]}


def settle_duplicates(scan: Scan, table: LabelTable, ledger: Ledger) -> None:
    """Decide about rows that say what an earlier one says; a validation file stays as it is."""
    left = scan.where()
    numbers, names = table.classes()
    texts = np.unique(scan.texts[left], return_inverse=True)[1]
    first = np.unique(texts * (len(names) + 1) + _classes(scan, left, numbers), return_index=True)[1]
    rows = np.delete(left, first)
    if not len(rows):
        return
    fix = "drop {row}" if scan.which == "train" else None
    said = "{row} repeat|repeats an earlier row"
    case = Case("duplicate", "warning", len(rows), said, fix, True, scan.which, scan.numbers(rows))
    if ledger.settle(case):
        scan.drop(rows)


def report_near(scan: Scan, ledger: Ledger) -> None:
    """Report texts that are the same as an earlier one but for case, digits and punctuation."""
    left = scan.where()
    left = left[np.sort(np.unique(scan.texts[left], return_index=True)[1])]
    rows = np.delete(left, np.unique(scan.nears[left], return_index=True)[1])
    if len(rows):
        said = "{row} differ|differs from an earlier row in case, digits or punctuation alone"
        ledger.settle(Case("near_duplicate", "suggestion", len(rows), said, file=scan.which, rows=scan.numbers(rows)))


def settle_leaks(train: Scan, valid: Scan, ledger: Ledger) -> None:
    """Decide about training rows whose text is in the validation file, too."""
    left = train.where()
    rows = left[np.isin(train.texts[left], valid.texts[valid.where()])]
    if len(rows):
        said = "{row} have|has a text that the validation file has, too"
        case = Case("leak", "warning", len(rows), said, "drop {row} of training", rows=train.numbers(rows))
        if ledger.settle(case):
            train.drop(rows)


def settle_unseen(train: Scan, valid: Scan, table: LabelTable, ledger: Ledger) -> None:
    """Decide about validation rows with a label that training lacks."""
    numbers, names = table.classes()
    known = _labels(train, train.where(), table)
    strange = np.array([any(name not in known for name in labels) for labels in names], dtype=bool)
    left = valid.where()
    rows = left[strange[_classes(valid, left, numbers)]] if len(left) else left
    if not len(rows):
        return
    unseen = _labels(valid, rows, table) - known
    said = "{row} have|has a label that training lacks"
    details = (listed(sorted(unseen)),)
    case = Case(
        "unseen_label", "warning", len(rows), said, "drop {row}", True, "valid", valid.numbers(rows), (), details
    )
    if ledger.settle(case):
        valid.drop(rows)


def distinct_texts(scans: Sequence[Scan], table: LabelTable) -> Counter[str]:
    """In how many different texts each label occurs, both files together."""
    numbers, names = table.classes()
    rows = [(scan, scan.where()) for scan in scans]
    texts = np.unique(np.concatenate([scan.texts[left] for scan, left in rows]), return_inverse=True)[1]
    classes = np.concatenate([_classes(scan, left, numbers) for scan, left in rows])
    pairs = np.unique(texts * (len(names) + 1) + classes)
    counts = Counter[str]()
    for number, times in enumerate(np.bincount(pairs % (len(names) + 1), minlength=len(names)).tolist()):
        for name in names[number] if times else ():
            counts[name] += times
    return counts


def settle_rare(scans: Sequence[Scan], table: LabelTable, minimum: int, multi_label: bool, ledger: Ledger) -> None:
    """Decide about labels with one text, which cannot be both trained and tested, and with few.

    A single-label row goes with its label; of several labels only the rare one goes.
    """
    counts = distinct_texts(scans, table)
    trained = _labels(scans[0], scans[0].where(), table)
    once = sorted(name for name in trained if counts[name] == 1)
    few = sorted(name for name in trained if 1 < counts[name] < minimum)
    severities: tuple[tuple[list[str], Severity, str, bool], ...] = (
        (once, "error", "{label} have|has one text only", True),
        (few, "warning", f"{{label}} have|has fewer than {minimum} texts", False),
    )
    for names, severity, said, safe in severities:
        if not names:
            continue
        gone = {i for i, name in enumerate(table.names()) if name in set(names)}
        sets = {number for number, ids in enumerate(table.sets) if gone.intersection(ids)}
        rows = np.array([i for i in scans[0].where().tolist() if scans[0].sets[i] in sets], dtype=np.int64)
        fix = "leave them out" if multi_label else "drop their|its rows"
        numbers = scans[0].numbers(rows)
        details = (listed([f"{name} ({counts[name]})" for name in names]),)
        if ledger.settle(Case("rare_label", severity, len(names), said, fix, safe, rows=numbers, details=details)):
            if multi_label:
                table.rename(dict.fromkeys(gone))
            for scan in () if multi_label else scans:
                scan.drop(np.array([i for i in scan.where().tolist() if scan.sets[i] in sets], dtype=np.int64))
