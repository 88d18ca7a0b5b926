"""Review of texts with labels: the checks in their order, repeated until what was dropped brings up nothing new."""

from collections.abc import Sequence

import numpy as np

from training.review.cleanup import TextPlan
from training.review.findings import Case, Ledger, counted
from training.review.labels import LabelTable
from training.review.naming import merge_labels, set_numbers, settle_label_space, settle_spellings, settle_typos
from training.review.options import Family, ReviewOptions
from training.review.overlaps import (
    report_near,
    settle_conflicts,
    settle_duplicates,
    settle_leaks,
    settle_rare,
    settle_unseen,
)
from training.review.rows import MOST_VALID, VALID, Indices, ints
from training.review.scan import Scan
from training.review.texts import (
    learn_plan,
    settle_capitals,
    settle_lengths,
    settle_prefix,
    settle_repairs,
    settle_separator,
)
from training.review.tokens import Encoder
from training.review.unreadable import settle_problem, settle_rows
from training.splits import draw_rows
from training.text import listed

COHERE_ROWS = 40
"""Cohere's least number of examples (docs, preparing the data of Classify)."""


class ClassifyReview:
    """One review while it is made; afterwards what is needed to write its rows."""

    def __init__(self, scans: Sequence[Scan], to: Family, encoder: Encoder | None, options: ReviewOptions) -> None:
        self.scans, self.encoder, self.options = scans, encoder, options
        self.to: Family = to
        self.table, self.plan = LabelTable(), TextPlan()
        self.table.completions = to in ("openai", "openai-chat") or all(
            scan.found.name == "chat" or scan.found.label_field.casefold() == "completion" for scan in scans
        )
        self.separated = self.spaced = False
        """Whether separators, and the space in front of completions, are written as the family has them."""
        self.multi_label = False
        self.read_counts: dict[str, int] = {}
        """Rows of each label before anything was decided."""

    def judge(self, ledger: Ledger) -> None:
        """Read the files, make every check, and decide which rows go where."""
        train, *others = self.scans
        train.read(self.table, self.plan, self.encoder)
        for scan in others:
            scan.multi_label = train.multi_label
            scan.read(self.table, self.plan, self.encoder)
        self.multi_label = bool(train.multi_label)
        self.read_counts = self.label_counts(train, train.where())
        for scan in self.scans:
            settle_rows(scan, ledger)
        self._settle_texts(ledger)
        merge_labels(self.scans, self.table, self.options.merge, ledger)
        self._settle_rows(ledger)
        self._report(ledger)
        if len(self.scans) == 1:
            self._split(ledger)

    def _settle_texts(self, ledger: Ledger) -> None:
        wanted = learn_plan(self.scans, settle_repairs(self.scans, self.table, self.plan, ledger))
        self._read_by(wanted, ledger)
        self.separated = settle_separator(self.scans, self.plan, self.to, ledger)
        wanted = settle_prefix(self.scans, self.plan, ledger)
        self._read_by(settle_capitals(self.scans, wanted, ledger), ledger)

    def _read_by(self, wanted: TextPlan, ledger: Ledger) -> None:
        """Read the texts again if they are to be repaired in another way than they were at first."""
        if wanted != self.plan:
            self.plan = wanted
            for scan in self.scans:
                scan.again(wanted, self.encoder)
                settle_problem(scan.problems.get("empty_text"), "empty_text", scan.which, ledger)

    def _settle_rows(self, ledger: Ledger) -> None:
        """Make the checks that drop rows; again if that changed what all texts or labels have in common."""
        train, *others = self.scans
        while True:
            before = self._state()
            settle_spellings(self.scans, self.table, ledger)
            if self._is_no_classification(ledger):
                return
            settle_typos(self.scans, self.table, ledger)
            for scan in self.scans:
                settle_conflicts(scan, self.table, ledger)
                settle_duplicates(scan, self.table, ledger)
            for valid in others:
                settle_leaks(train, valid, ledger)
            settle_rare(self.scans, self.table, self.options.min_per_label, self.multi_label, ledger)
            for valid in others:
                settle_unseen(train, valid, self.table, ledger)
            if self.options.drop_long:
                for scan in self.scans:
                    settle_lengths(scan, self.encoder, True, ledger)
            wanted = learn_plan(self.scans, self.plan)
            if wanted != self.plan:
                self._read_by(wanted, ledger)
                self.separated = settle_separator(self.scans, self.plan, self.to, ledger)
            if self._state() == before:
                return

    def _state(self) -> tuple[object, ...]:
        return self.plan, tuple(self.table.spellings), *(len(scan.where()) for scan in self.scans)

    def _is_no_classification(self, ledger: Ledger) -> bool:
        """Whether texts or labels are such that no row should be dropped on their account."""
        left = self.scans[0].where()
        if len(left) > 1 and len(np.unique(self.scans[0].texts[left])) == 1:
            said = "{text} are|is the same once separators are removed"
            ledger.settle(Case("same_text", "error", len(left), said))
            return True
        names = {name for name, count in self._named() if count}
        rows = sum(len(scan.where()) for scan in self.scans)
        if len(names) * 3 > rows:
            said = f"{{label}} in {counted(rows)}: looks like text generation, not classes"
            ledger.settle(Case("not_classes", "error", len(names), said))
            return True
        return False

    def _named(self) -> list[tuple[str, int]]:
        counts = self.table.counts(set_numbers(self.scans))
        return [(name, count) for name, count in zip(self.table.names(), counts, strict=True) if name]

    def _report(self, ledger: Ledger) -> None:
        self.spaced = settle_label_space(self.scans, self.table, self.to, ledger)
        train = self.scans[0]
        self._settle_single(ledger)
        for scan in self.scans:
            report_near(scan, ledger)
            if not self.options.drop_long:
                settle_lengths(scan, self.encoder, False, ledger)
        self._report_labels(train, ledger)
        self._report_few(len(train.where()), ledger)

    def _report_labels(self, train: Scan, ledger: Ledger) -> None:
        rows = train.where()
        counts = list(self.label_counts(train, rows).items())
        if len(counts) < 2:
            ledger.settle(Case("few_labels", "error", len(counts), "{label} in all; a classifier needs at least two"))
            return
        (often, most), (seldom, least) = counts[0], counts[-1]
        if most > 10 * least:
            said = f"labels are {'strongly ' if most > 100 * least else ''}unequal"
            details = (
                f'"{listed([often])}" has {most:,} rows, "{listed([seldom])}" {least:,}',
                f"always answering the first is right in {most / len(rows):.1%}",
            )
            ledger.settle(Case("imbalance", "warning", len(counts), said, details=details))

    def _settle_single(self, ledger: Ledger) -> None:
        """Decide about lists of labels all of which hold one."""
        if self.multi_label and all(
            len(self.table.written(n)) == 1 for n in np.unique(set_numbers(self.scans)).tolist()
        ):
            count = sum(len(scan.where()) for scan in self.scans)
            said = "{row}, each with a list of exactly one label"
            case = Case("multi_as_single", "suggestion", count, said, "write single labels", safe=False)
            if count and ledger.settle(case):
                self.multi_label = False

    def _report_few(self, rows: int, ledger: Ledger) -> None:
        needed = self.needed()
        if rows < needed:
            ledger.settle(Case("few_rows", "error", rows, f"{{row}} in all; at least {needed} are needed"))
        elif rows < 100:
            ledger.settle(Case("few_rows", "suggestion", rows, "{row} in all; a hundred and more are better"))
        for valid in self.scans[1:]:
            if not len(valid.where()):
                ledger.settle(Case("few_rows", "error", 0, "{row} left of the validation file", file="valid"))

    def needed(self) -> int:
        """Rows below which there are too few: as asked for, else as the family's own service has it."""
        own = self.options.to == "cohere" and "min_rows" not in self.options.model_fields_set
        return COHERE_ROWS if own else self.options.min_rows

    def _split(self, ledger: Ledger) -> None:
        """Decide about splitting off validation rows; not where too few would be left."""
        train = self.scans[0]
        left = train.where()
        wanted = self._drawn(train, left) if self.options.split else left[:0]
        fix = None
        if len(wanted) and len(left) - len(wanted) >= self.needed():
            fix = f"split off {counted(len(wanted))}, stratified by label"
        if ledger.settle(Case("no_valid", "suggestion", len(left), "no validation file", fix)):
            train.move(wanted, VALID)

    def _drawn(self, train: Scan, left: Indices) -> Indices:
        """Rows to validate on: near-duplicates stay together, and no label is all of them."""
        if len(left) < 2 or self.options.split is None:
            return left[:0]
        numbers, names = self.table.classes()
        labels = [names[i] for i in ints(numbers[train.set_numbers(left)])]
        share = min(self.options.split, MOST_VALID / len(left))
        texts = train.nears[left].tolist()
        taken = draw_rows(texts, labels, share, self.options.seed)
        known = {name for i, row in enumerate(labels) if i not in taken for name in row}
        for i in sorted(taken):
            if i in taken and any(name not in known for name in labels[i]):
                back = {j for j in taken if texts[j] == texts[i]}
                taken -= back
                known |= {name for j in back for name in labels[j]}
        return left[sorted(taken)]

    def label_counts(self, scan: Scan, rows: Indices) -> dict[str, int]:
        """Rows of each label, the most frequent first."""
        numbers, names = self.table.classes()
        counts: dict[str, int] = {}
        per_class = ints(np.bincount(numbers[scan.set_numbers(rows)], minlength=len(names))) if len(rows) else []
        for number, times in enumerate(per_class):
            for name in names[number] if times else ():
                counts[name] = counts.get(name, 0) + times
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
