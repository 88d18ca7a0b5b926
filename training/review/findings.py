"""What the checks of a review find, and what is decided about it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

Severity = Literal["error", "warning", "suggestion"]
Which = Literal["train", "valid"]
SHOWN = 20
"""Rows, reasons and details that a finding names."""

ORDER: tuple[str, ...] = (
    *"encoding mojibake malformed not_a_list columns chat_shape empty_query empty_text empty_label no_relevant".split(),
    *"separator text_prefix upper_case markup label_suffix label_prefix label_variants label_typo label_space".split(),
    *"multi_as_single same_text not_classes duplicate_query positive_as_negative duplicate_passage conflict".split(),
    *"duplicate near_duplicate leak rare_label unseen_label few_rows few_labels few_queries no_negatives".split(),
    "imbalance",
    *"too_long too_short no_valid".split(),
)
"""The checks, in the order in which they are made and reported."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found in one file."""

    id: str
    severity: Severity
    file: Which
    count: int
    """Rows concerned; labels or queries where the check is about those."""
    rows: tuple[int, ...]
    """The first of them, counted from 1; lines of a JSONL file."""
    reasons: tuple[tuple[int, str], ...]
    """For rows that cannot be used: row and reason, the first of them."""
    message: str
    """One line."""
    fix: str | None
    """What can be done about it, or was."""
    safe: bool
    """Whether the fix needs no judgement of a person."""
    applied: bool

    def as_json(self) -> dict[str, object]:
        """The finding as `--json` prints it."""
        where = "validation file: " if self.file == "valid" else ""
        return {
            "id": self.id,
            "severity": self.severity,
            "count": self.count,
            "rows": list(self.rows),
            "message": where + self.message,
            "fix": self.fix,
            "applied": self.applied,
        }


@dataclass(frozen=True, slots=True)
class Case:
    """What a check saw, before it is worded and decided upon."""

    id: str
    severity: Severity
    count: int
    said: str
    """What is the matter, such as "{row} repeat|repeats an earlier row": the count with its noun, and a word for many
    and one."""
    fix: str | None = None
    """As `said`."""
    safe: bool = True
    file: Which = "train"
    rows: tuple[int, ...] = ()
    reasons: tuple[tuple[int, str], ...] = ()
    details: tuple[str, ...] = ()
    """What to add to the message instead of the row numbers."""

    def at(self, rows: tuple[int, ...]) -> "Case":
        """This case, in these rows."""
        return replace(self, rows=rows)

    def join(self, later: "Case") -> "Case":
        """This case and what a later round of the same check saw."""
        return replace(
            self,
            count=self.count + later.count,
            rows=(self.rows + later.rows)[:SHOWN],
            reasons=(self.reasons + later.reasons)[:SHOWN],
            details=(self.details + later.details)[:SHOWN],
        )

    def finding(self, applied: bool) -> Finding:
        """The case in words."""
        message = _worded(self.said, self.count)
        shown = self.details or [f"{row}" for row in self.rows]
        if shown:
            more = "" if self.count <= len(shown) or self.details else ", …"
            message += f": {'; '.join(shown) if self.details else ', '.join(shown)}{more}"
        fix = None if self.fix is None else _worded(self.fix, self.count)
        return Finding(
            self.id,
            self.severity,
            self.file,
            self.count,
            self.rows,
            self.reasons,
            " ".join(message.split()),
            fix,
            self.safe and fix is not None,
            applied,
        )


def counted(count: int, noun: str = "row") -> str:
    """A number with its noun: "1 row", "1,188 rows", "2 queries"."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def _worded(template: str, count: int) -> str:
    """Fill in the count and choose between "many|one"."""
    words = [
        word.split("|")[count == 1] if "|" in word and not word.startswith("{") else word
        for word in template.split(" ")
    ]
    text = " ".join(words)
    for noun in ("row", "label", "query", "text"):
        text = text.replace(f"{{{noun}}}", counted(count, noun))
    return text


class Ledger:
    """Asks for decisions, once for each check, and keeps what was found."""

    def __init__(self, decide: Callable[[Finding], bool]) -> None:
        self._decide = decide
        self._cases: dict[tuple[str, ...], tuple[Case, bool]] = {}

    def settle(self, case: Case, *, anew: bool = False) -> bool:
        """File a case and tell whether its fix is to be applied.

        A later case of the same check, file and severity follows the decision on the first. What was fixed is added
        up; what was not, or is looked at `anew`, is replaced.
        """
        key = (case.id, case.file, case.severity, str(case.safe))
        known = self._cases.get(key)
        if known is None:
            applied = case.fix is not None and self._decide(case.finding(applied=False))
        else:
            applied = known[1]
            case = known[0].join(case) if applied and not anew else case
        self._cases[key] = case, applied
        return applied

    def record(self, case: Case, applied: bool) -> None:
        """File a case that was decided already: by an option, or together with the same check of another file."""
        self._cases[(case.id, case.file, case.severity, str(case.safe), "decided")] = case, applied

    def findings(self) -> list[Finding]:
        """Everything found, in the order of the checks."""
        found = [case.finding(applied) for case, applied in self._cases.values()]
        return sorted(found, key=lambda finding: (ORDER.index(finding.id), finding.file))
