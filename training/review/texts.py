"""Checks of what all texts have in common, and of what they should not hold."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from training.review.cleanup import MARKUP, MOJIBAKE, SEPARATOR, TAGS, TextPlan, shared_start
from training.review.findings import Case, Ledger
from training.review.labels import LabelTable
from training.review.options import Family
from training.review.rows import Indices, ints
from training.review.scan import SHORT, Scan
from training.review.tokens import Encoder
from training.text import TextRules, clean_text, learn_separator, listed

_PREFIX = 12
"""A shared beginning up to this length wastes few tokens."""


def settle_repairs(scans: Sequence[Scan], table: LabelTable, plan: TextPlan, ledger: Ledger) -> TextPlan:
    """Decide about wrongly decoded texts and labels, entities, control characters and tags."""
    labels = table.repaired()
    sets = {number for number, ids in enumerate(table.sets) if any(i in labels for i in ids)}
    wrong = [
        np.array([i for i in ints(scan.where()) if scan.flags[i] & MOJIBAKE or scan.sets[i] in sets], np.int64)
        for scan in scans
    ]
    said = "{row} were|was decoded wrongly (â€™, Ã©)"
    mojibake = _together(scans, wrong, Case("mojibake", "warning", 0, said, "repair"), ledger)
    if mojibake:
        table.rename(labels)
    said = "{row} hold|holds entities such as &amp; or control characters"
    case = Case("markup", "suggestion", 0, said, "unescape and drop them")
    markup = _together(scans, [scan.flagged(MARKUP) for scan in scans], case, ledger)
    case = Case("markup", "suggestion", 0, "{row} hold|holds HTML tags", "remove the tags", safe=False)
    tags = _together(scans, [scan.flagged(TAGS) for scan in scans], case, ledger)
    # What there is none of is repaired as assumed: in no row.
    mojibake, markup = (decided is not False for decided in (mojibake, markup))
    return replace(plan, mojibake=mojibake, markup=markup, tags=bool(tags))


def _together(scans: Sequence[Scan], found: Sequence[Indices], case: Case, ledger: Ledger) -> bool | None:
    """Ask once about rows of both files, which are repaired alike; None if there are none."""
    decided: bool | None = None
    for scan, rows in zip(scans, found, strict=True):
        if len(rows):
            own = replace(case, count=len(rows), file=scan.which, rows=scan.numbers(rows))
            if decided is None:
                decided = ledger.settle(own)
            else:
                ledger.record(own, decided)
    return decided


def learn_plan(scans: Sequence[Scan], plan: TextPlan) -> TextPlan:
    """What training will learn from the texts that are left: a common ending, and whether system messages vary."""
    several = len(np.unique(np.concatenate([scan.texts[scan.where()] for scan in scans]))) > 1
    # The letters in front stand for texts that differ; a text without letters or digits is all ending.
    cleaned = {end if whole else start + end for end, whole in _endings(scans) for start in ("a", "b")}
    systems = set[int]().union(*(scan.systems for scan in scans))
    separator = learn_separator(cleaned) if several else None
    return replace(plan, separator=separator, ignore_system=len(systems) < 2)


def settle_separator(scans: Sequence[Scan], plan: TextPlan, to: Family, ledger: Ledger) -> bool:
    """Decide about the ending of prompts: whether to write one, or, for other families, whether to remove them."""
    endings = _endings(scans)
    if to == "openai":
        shared = reduce(shared_start, (ending[::-1] for ending, _ in endings))[::-1] if endings else ""
        chats = any(scan.found.name == "chat" for scan in scans)  # whose text has lost its ending
        if not endings or (_is_separated(shared, plan) and not chats):
            return False
        count, said, fix = endings.total(), "prompts have no common separator", f"add {_shown(SEPARATOR)}"
        return ledger.settle(Case("separator", "suggestion", count, said, fix), anew=True)
    found = Counter({ending: count for (ending, _), count in endings.items() if _is_separated(ending, plan)})
    if not found:
        return False
    details = tuple(_shown(ending) for ending, _ in found.most_common(3))
    said = "{text} end|ends in a separator"
    return ledger.settle(Case("separator", "suggestion", found.total(), said, "remove", details=details), anew=True)


def _endings(scans: Sequence[Scan]) -> Counter[tuple[str, bool]]:
    """What the texts that are left end in after the last letter, and whether that is all; with their number."""
    counts = Counter[tuple[str, bool]]()
    for scan in scans:
        names = list(scan.endings)
        for number, count in enumerate(np.bincount(scan.ends[scan.where()], minlength=len(names)).tolist()):
            if count:
                counts[names[number]] += count
    return counts


def _is_separated(ending: str, plan: TextPlan) -> bool:
    text = f"a{ending}"
    return clean_text(text, TextRules(separator=plan.separator)) != text.rstrip()


def _shown(text: str) -> str:
    return f'"{listed([text])}"'


def settle_prefix(scans: Sequence[Scan], plan: TextPlan, ledger: Ledger) -> TextPlan:
    """Decide about words that all texts begin with."""
    left = [scan for scan in scans if len(scan.where())]
    shared = reduce(shared_start, (scan.prefix for scan in left)) if left else ""
    end = next((i for i in range(len(shared), 0, -1) if not shared[i - 1].isalnum()), 0)  # not within a word
    if end <= _PREFIX or sum(len(scan.where()) for scan in left) < 2:
        return plan
    said = "all texts begin alike; queries must then omit it, too"
    count = sum(len(scan.where()) for scan in left)
    case = Case("text_prefix", "suggestion", count, said, "remove", safe=False, details=(_shown(shared[:end]),))
    return replace(plan, prefix=shared[:end]) if ledger.settle(case) else plan


def settle_capitals(scans: Sequence[Scan], plan: TextPlan, ledger: Ledger) -> TextPlan:
    """Decide about texts in capitals, which a cased encoder knows less well."""
    capitals, letters = sum(scan.capitals for scan in scans), sum(scan.letters for scan in scans)
    if capitals * 3 <= letters:
        return plan
    said = f"{capitals / letters:.0%} of the letters are capitals, and the encoder is cased"
    fix = "write in lower case; queries must be, too"
    case = Case("upper_case", "suggestion", sum(len(scan.where()) for scan in scans), said, fix, safe=False)
    return replace(plan, lower=ledger.settle(case))


def settle_lengths(scan: Scan, encoder: Encoder | None, drop_long: bool, ledger: Ledger) -> None:
    """Report texts that are too short or too long; drop the latter if that was asked for."""
    short = scan.flagged(SHORT)
    if len(short):
        said = "{text} have|has fewer than 3 characters"
        case = Case("too_short", "suggestion", len(short), said, file=scan.which, rows=scan.numbers(short))
        ledger.settle(case)
    left = scan.where()
    long = left[scan.tokens[left] > encoder.limit] if encoder else left[:0]
    if encoder and len(long):
        tokens = scan.tokens[long]
        cut, longest = float(np.mean(1 - encoder.limit / tokens)), long[int(np.argmax(tokens))]
        said = f"{{row}} exceed|exceeds {encoder.limit} tokens; on average {cut:.0%} of the text is cut"
        details = (f"longest is row {scan.lines[longest]} with {int(tokens.max()):,} tokens",)
        fix = "drop {row}" if drop_long else None
        case = Case("too_long", "warning", len(long), said, fix, True, scan.which, scan.numbers(long), (), details)
        if drop_long:
            ledger.record(case, True)
            scan.drop(long)
        else:
            ledger.settle(case)
