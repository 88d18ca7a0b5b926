"""The first checks: rows that cannot be read, and what had to be done to read the others."""

from training.review.findings import SHOWN, Case, Ledger, Which, counted
from training.review.rows import MENDED, RENAMED, Rows, Tally
from training.review.scan import Scan
from training.text import listed

_SAID = {
    "malformed": "{row} cannot|cannot be read",
    "chat_shape": "{row} are|is not a conversation that ends with an answer",
    "empty_query": "{row} have|has no query",
    "empty_text": "{row} have|has no text",
    "empty_label": "{row} have|has no label",
    "no_relevant": "{row} have|has no relevant passage",
}


def settle_rows(scan: Scan, ledger: Ledger) -> None:
    """Decide about the rows of a file of texts and labels that cannot be used as they are."""
    settle_encoding(scan, ledger)
    settle_problem(scan.problems.get("malformed"), "malformed", scan.which, ledger)
    settle_columns(scan, ledger)
    for check in ("chat_shape", "empty_text", "empty_label"):
        settle_problem(scan.problems.get(check), check, scan.which, ledger)
    if scan.skipped.count:
        said = "{row} are|is skipped, as the weight of the answer is 0"
        ledger.settle(_case(scan.skipped, "chat_shape", said, scan.which, severity_error=False))


def settle_problem(tally: Tally | None, check: str, which: Which, ledger: Ledger) -> None:
    """Decide about dropping the rows of which one thing is wrong."""
    if tally is not None:
        ledger.settle(_case(tally, check, _SAID[check], which, fix="drop {row}"), anew=True)


def encoding_case(
    which: Which, bad: Tally | None, mended: tuple[int, ...], count: int, characters: int, name: str
) -> Case | None:
    """The case of a file that is not, or not everywhere, UTF-8.

    Args:
        which: the file.
        bad: rows that are no text in any encoding.
        mended: the first rows that had to be decoded differently.
        count: how many those are.
        characters: how many characters of them.
        name: the other encoding.
    """
    bad = bad or Tally()
    if not count and not bad.count:
        return None
    changed = f" ({counted(characters, 'character')} re-encoded)" if characters else ""
    fixes = [f"read as {name}"] * (count > 0) + [f"drop {counted(bad.count)} of no known encoding"] * (bad.count > 0)
    reasons = (*bad.reasons, *((row, f"not UTF-8; taken for {name}") for row in mended))
    rows = tuple(sorted({*bad.rows, *mended})[:SHOWN])
    said = f"{{row}} are|is not UTF-8{changed}"
    return Case(
        "encoding",
        "error",
        count + bad.count,
        said,
        " and ".join(fixes),
        file=which,
        rows=rows,
        reasons=reasons[:SHOWN],
    )


def settle_encoding(scan: Rows, ledger: Ledger) -> None:
    """Decide about bytes that are not UTF-8."""
    wide = scan.found.encoding.startswith(("utf-16", "utf-32"))
    mended = scan.where() if wide else scan.flagged(MENDED)
    name = scan.found.encoding[:6].upper() if wide else "Windows-1252"
    case = encoding_case(
        scan.which,
        scan.problems.get("encoding"),
        scan.numbers(mended),
        len(mended),
        scan.mended_characters,
        name,
    )
    if case and not ledger.settle(case):
        scan.drop(mended)


def settle_columns(scan: Rows, ledger: Ledger) -> None:
    """Decide about keys that are spelt differently, of another shape, or more than are needed."""
    renamed = scan.flagged(RENAMED)
    if len(renamed):
        said = "{row} spell|spells the keys differently"
        names = (f"expected {listed(scan.found.fields)}",)
        case = Case("columns", "error", len(renamed), said, "rename", file=scan.which, details=names)
        case = case.at(scan.numbers(renamed))
        if not ledger.settle(case):
            scan.drop(renamed)
    if tally := scan.problems.get("columns"):
        said = "{row} have|has another shape than the first"
        ledger.settle(_case(tally, "columns", said, scan.which, fix="drop {row}", safe=False))
    if scan.extra:
        count = max(scan.extra.values())
        said = "{row} have|has more columns than text and label"
        names = (listed(list(scan.extra)),)
        ledger.settle(Case("columns", "suggestion", count, said, "leave them out", file=scan.which, details=names))


def _case(
    tally: Tally,
    check: str,
    said: str,
    which: Which,
    *,
    fix: str | None = None,
    safe: bool = True,
    severity_error: bool = True,
) -> Case:
    return Case(
        check,
        "error" if severity_error else "suggestion",
        tally.count,
        said,
        fix,
        safe,
        which,
        tuple(tally.rows),
        tuple(tally.reasons),
    )
