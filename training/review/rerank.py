"""Review of rankings: queries with relevant passages and hard negatives."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from training.review.findings import Case, Ledger, counted
from training.review.options import ReviewOptions
from training.review.rankings import BLANK, WRAPPED, RankingScan
from training.review.rows import MOST_VALID, VALID, Indices, ints
from training.review.tokens import Encoder
from training.review.unreadable import settle_columns, settle_encoding, settle_problem
from training.splits import draw_queries

_MANY = 256
"""Queries that Cohere asks for (docs, preparing the data of Rerank)."""
_NEGATIVES = 5
"""Hard negatives of a query that are advised there."""


class RerankReview:
    """One review while it is made; afterwards what is needed to write its rows."""

    def __init__(self, scans: Sequence[RankingScan], encoder: Encoder | None, options: ReviewOptions) -> None:
        self.scans, self.encoder, self.options = scans, encoder, options

    def judge(self, ledger: Ledger) -> None:
        """Read the files, make every check, and decide which rows go where."""
        for scan in self.scans:
            scan.read(self.encoder)
            self._settle_rows(scan, ledger)
        train, *others = self.scans
        for valid in others:
            _settle_leaks(train, valid, ledger)
        for scan in self.scans:
            self._settle_lengths(scan, ledger)
        self._report(train, ledger)
        for valid in others:
            if not len(valid.where()):
                ledger.settle(Case("few_queries", "error", 0, "{query} left of the validation file", file="valid"))
        if not others:
            self._split(train, ledger)

    def _settle_rows(self, scan: RankingScan, ledger: Ledger) -> None:
        settle_encoding(scan, ledger)
        settle_problem(scan.problems.get("malformed"), "malformed", scan.which, ledger)
        wrapped = scan.flagged(WRAPPED)
        if len(wrapped):
            said = "{row} give|gives passages as one string"
            case = Case("not_a_list", "error", len(wrapped), said, "wrap it in a list", file=scan.which)
            if not ledger.settle(case.at(scan.numbers(wrapped))):
                scan.drop(wrapped)
        settle_columns(scan, ledger)
        for check in ("empty_query", "empty_text", "no_relevant"):
            settle_problem(scan.problems.get(check), check, scan.which, ledger)
        if scan.found.name == "graded-pairs":
            _settle_irrelevant(scan, ledger)
        if scan.found.name == "rerank":
            _settle_queries(scan, ledger)
        _settle_contradictions(scan, ledger)
        _settle_repeats(scan, ledger)

    def _settle_lengths(self, scan: RankingScan, ledger: Ledger) -> None:
        left = scan.where()
        longest = np.frombuffer(scan.longest, dtype=np.int64)[left]
        long = left[longest > self.encoder.limit] if self.encoder else left[:0]
        if self.encoder and len(long):
            said = f"{{row}} have|has a pair of query and passage over {self.encoder.limit} tokens"
            worst = left[int(np.argmax(longest))]
            details = (f"longest is in row {scan.lines[worst]} with {int(longest.max()):,} tokens",)
            fix = "drop {row}" if self.options.drop_long else None
            case = Case("too_long", "warning", len(long), said, fix, file=scan.which, details=details)
            case = case.at(scan.numbers(long))
            if self.options.drop_long:
                ledger.record(case, True)
                scan.drop(long)
            else:
                ledger.settle(case)

    def _report(self, train: RankingScan, ledger: Ledger) -> None:
        left = train.where()
        queries = len({train.queries[i] for i in ints(left)})
        if queries < self.options.min_queries:
            said = f"{{query}} in all; at least {self.options.min_queries} are needed"
            ledger.settle(Case("few_queries", "error", queries, said))
        elif queries < _MANY:
            said = f"{{query}} in all; Cohere asks for {_MANY}, and more are better"
            ledger.settle(Case("few_queries", "warning", queries, said))
        if train.found.name == "candidates" or not queries:
            return
        negatives = Counter[int]()
        for index in ints(left):
            negatives[train.queries[index]] += sum(grade <= 0 for _, grade in train.left_passages(index))
        fewer = sum(count < _NEGATIVES for count in negatives.values())
        if not any(negatives.values()):
            said = "no query has hard negatives; training draws them from other queries"
            ledger.settle(Case("no_negatives", "warning", queries, said))
        elif fewer:
            said = f"{{query}} have|has fewer than {_NEGATIVES} hard negatives; training adds from other queries"
            ledger.settle(Case("no_negatives", "suggestion", fewer, said))

    def _split(self, train: RankingScan, ledger: Ledger) -> None:
        """Decide about splitting off validation queries; not where too few would be left."""
        left = train.where()
        wanted = left[:0]
        if self.options.split and len(left):
            share = min(self.options.split, MOST_VALID / len(left))
            taken = draw_queries([train.queries[i] for i in ints(left)], share, self.options.seed)
            wanted = left[sorted(taken)]
        kept = {train.queries[i] for i in ints(np.setdiff1d(left, wanted))}
        fix = None
        if len(wanted) and len(kept) >= self.options.min_queries:
            fix = f"split off {counted(len(wanted))}, by query"
        if ledger.settle(Case("no_valid", "suggestion", len(left), "no validation file", fix)):
            train.move(wanted, VALID)

    def part_counts(self, scan: RankingScan, rows: Indices) -> tuple[int, int, int, int]:
        """Tokens, queries, relevant passages and hard negatives of these rows."""
        tokens = sum(scan.tokens[i] for index in ints(rows) for i in scan.bundle(index))
        grades = Counter[bool]()
        for index in ints(rows):
            found = scan.left_passages(index)
            grades.update(grade > 0 for _, grade in (set(found) if scan.unrepeated else found))
        return tokens, len({scan.queries[i] for i in ints(rows)}), grades[True], grades[False]


def _settle_irrelevant(scan: RankingScan, ledger: Ledger) -> None:
    """Decide about queries none of whose pairs is relevant; not where grades below 0 show a teacher's scores."""
    good = {scan.queries[i] for i in ints(scan.where()) if any(grade > 0 for _, grade in scan.graded(i))}
    if any(grade < 0 for grade in scan.grades):
        return
    rows = np.array([i for i in ints(scan.where()) if scan.queries[i] not in good], dtype=np.int64)
    if len(rows):
        said = "{row} belong|belongs to a query without a relevant passage"
        case = Case("no_relevant", "error", len(rows), said, "drop {row}", file=scan.which).at(scan.numbers(rows))
        if ledger.settle(case):
            scan.drop(rows)


def _settle_queries(scan: RankingScan, ledger: Ledger) -> None:
    """Decide about rows with the query of an earlier row."""
    first, taken = dict[int, int](), dict[int, list[int]]()
    for index in ints(scan.where()):
        known = first.setdefault(scan.queries[index], index)
        if known != index:
            taken.setdefault(known, []).append(index)
    rows = np.array(sorted(i for indices in taken.values() for i in indices), dtype=np.int64)
    if len(rows):
        said = "{row} repeat|repeats an earlier query"
        case = Case("duplicate_query", "warning", len(rows), said, "merge their passages", file=scan.which)
        if ledger.settle(case.at(scan.numbers(rows))):
            scan.taken_in = taken
            scan.drop(rows)


def _settle_leaks(train: RankingScan, valid: RankingScan, ledger: Ledger) -> None:
    """Decide about training queries that are in the validation file, too."""
    known = {valid.queries[i] for i in ints(valid.where())}
    rows = np.array([i for i in ints(train.where()) if train.queries[i] in known], dtype=np.int64)
    if len(rows):
        said = "{row} have|has a query that the validation file has, too"
        case = Case("leak", "warning", len(rows), said, "drop {row} of training").at(train.numbers(rows))
        if ledger.settle(case):
            train.drop(rows)


def _settle_contradictions(scan: RankingScan, ledger: Ledger) -> None:
    """Decide about passages that are relevant and not, for one query."""
    best = dict[tuple[int, int], float]()
    for index in ints(scan.where()):
        for passage, grade in scan.bundled(index):
            key = scan.queries[index], passage
            best[key] = max(grade, best.get(key, grade))
    torn, keys = list[int](), set[tuple[int, int]]()
    for index in ints(scan.where()):
        lower = {p for p, grade in scan.bundled(index) if grade < best[scan.queries[index], p]}
        keys.update((scan.queries[index], passage) for passage in lower)
        torn += [index] * bool(lower)
    if not torn:
        return
    pairs = scan.found.name == "graded-pairs"
    rows = np.array(torn, dtype=np.int64)
    said = "{row} have|has a passage that is relevant and a hard negative of its query"
    said = "{row} give|gives a passage a lower grade than another row of its query" if pairs else said
    fix = "drop {row}" if pairs else "remove it from the negatives"
    if ledger.settle(
        Case("positive_as_negative", "error", len(torn), said, fix, file=scan.which).at(scan.numbers(rows))
    ):
        if pairs:
            scan.drop(rows)
        else:
            scan.contradicted = keys


def _settle_repeats(scan: RankingScan, ledger: Ledger) -> None:
    """Decide about passages that a query has twice, and blank ones."""
    seen, again = set[tuple[object, ...]](), list[int]()
    for index in ints(scan.where()):
        passages = scan.left_passages(index)
        if scan.found.name == "rerank":
            if len(set(passages)) < len(passages) or any(scan.flags[i] & BLANK for i in scan.bundle(index)):
                again.append(index)
        elif scan.found.name != "candidates":
            key = (scan.queries[index], *passages)
            again += [index] * (key in seen)
            seen.add(key)
    if again:
        rows = np.array(again, dtype=np.int64)
        lists = scan.found.name == "rerank"
        said = "{query} repeat|repeats a passage or have|has a blank one" if lists else "{row} repeat|repeats another"
        fix = "leave it out" if lists else "drop {row}"
        case = Case("duplicate_passage", "warning", len(rows), said, fix, file=scan.which).at(scan.numbers(rows))
        scan.unrepeated = ledger.settle(case)
        if scan.unrepeated and not lists:
            scan.drop(rows)
