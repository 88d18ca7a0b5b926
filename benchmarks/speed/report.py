"""Records of measurements: merged by name into one file, and shown as Markdown."""

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.speed.harness import Line

Store = dict[str, dict[str, Any]]
"""By benchmark: its lines, when and on what they were measured."""


def load(path: Path) -> Store:
    """All records of a file; none where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def merge(path: Path, name: str, record: dict[str, Any]) -> Store:
    """Put a benchmark's record in place of an earlier one, and give all of them."""
    store = load(path) | {name: record}
    path.write_text(json.dumps(store, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return store


def lines(store: Store, names: list[str]) -> list[Line]:
    """The lines of all benchmarks, in the order of `names`."""
    return [Line(**line) for name in names if name in store for line in store[name]["lines"]]


def full_table(store: Store, names: list[str]) -> str:
    """Everything, as Markdown, with what it was measured on."""
    rows = [
        "| work | ours | against | theirs | ratio (lowest to highest, turns) | wanted | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for line in lines(store, names):
        theirs = _number(line.theirs, line.unit) if line.theirs else ""
        rows.append(
            f"| {line.work} | {_number(line.ours, line.unit)} | {line.against} | {theirs} | {_ratio(line)} "
            f"| {_wanted(line)} | {line.note} |"
        )
    return "\n".join([*rows, "", *sorted({_circumstances(record) for record in store.values()})])


def short_table(store: Store, names: list[str]) -> str:
    """The comparisons in which something particular is wanted, as Markdown."""
    rows = [
        f"| {line.work} | {_number(line.ours, line.unit)} | {line.against} | {_number(line.theirs, line.unit)} "
        f"| {line.ratio:.2f} |"
        for line in lines(store, names)
        if line.wanted is not None and line.theirs
    ]
    return "\n".join(["| work | ours | against | theirs | ratio |", "| --- | --- | --- | --- | --- |", *rows])


def _circumstances(record: dict[str, Any]) -> str:
    small = "" if record["size"] == 1 else f", tried with {record['size']:g} of the work"
    return f"Measured on {record['machine']}, {record['date']}{small}."


def _number(values: list[float], unit: str) -> str:
    value = statistics.median(values)
    digits = 4 if unit in ("ndcg@10", "accuracy") else 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}".strip()


def _ratio(line: Line) -> str:
    if line.ratio is None or line.spread is None:
        return ""
    low, high = line.spread
    turns = min(len(line.ours), len(line.theirs))
    return f"{line.ratio:.2f} ({low:.2f} to {high:.2f}, {turns})"


def _wanted(line: Line) -> str:
    if line.wanted is None:
        return ""
    sign = "≥" if line.theirs else "<"
    return f"{sign} {line.wanted:g}{'' if line.reached else ', missed'}"
