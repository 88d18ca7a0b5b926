"""The rows that are worked on: public data sets where they are at hand, else the project's sample of tickets."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklearn.model_selection import train_test_split

from benchmarks.quality import sms_spam, write_jsonl
from benchmarks.speed.harness import Options
from training.ranks import ranking_figures
from training.rerank_rows import RerankRow, read_rerank

SAMPLE = Path(__file__).parents[2] / "examples" / "support"
GROUP = 8
"""Documents of a query to learn from: as many as `training.train` takes of longer lists unless told otherwise."""


@dataclass(frozen=True)
class Labelled:
    """Files of texts with labels."""

    name: str
    train: Path
    valid: Path
    test: Path


def classify_sets(options: Options) -> list[Labelled]:
    """Short texts with labels: atis and sms_spam, or the sample."""
    options.work.mkdir(parents=True, exist_ok=True)
    if options.data is None:
        return [_split("sample", _tickets("train"), _tickets("test"), options.work)]
    found: list[Labelled] = []
    if (options.data / "atis").is_dir():
        train, test = (read(options.data / "atis" / f"{part}.jsonl") for part in ("train", "test"))
        found.append(_split("atis", train, test, options.work))
    if (options.data / "sms_spam").is_dir():
        prepared = sms_spam(options.data, options.work)
        found.append(Labelled("sms_spam", Path(prepared.flags[1]), Path(prepared.flags[3]), prepared.test_file))
    return found


def texts(options: Options) -> list[str]:
    """Different short texts."""
    first = classify_sets(options)[0]
    return list(dict.fromkeys(row["text"].strip() for path in (first.test, first.train) for row in read(path)))


def rankings(options: Options) -> tuple[str, list[RerankRow]]:
    """Queries with about a hundred graded documents each, and what they are called."""
    if options.data and (options.data / "trec_dl19").is_dir():
        folder = options.data / "trec_dl19"
        return "trec_dl19", read_rerank(folder / "bm25_top100.jsonl", qrels=folder / "qrels.jsonl").rows
    documents, rows = _tickets("train"), list[RerankRow]()
    for number, asked in enumerate(_tickets("test")):
        offered = documents[number % 6 :: 6]
        grades = tuple(float(ticket["label"] == asked["label"]) for ticket in offered)
        rows.append(RerankRow(asked["text"], tuple(ticket["text"] for ticket in offered), grades, number + 1))
    return "sample", rows


def learning(options: Options, queries: int) -> tuple[str, Path, Path]:
    """Files of queries with up to `GROUP` documents each, to learn from and to measure on, and what they are called."""
    options.work.mkdir(parents=True, exist_ok=True)
    if options.data and (options.data / "wikiqa").is_dir():
        rows, held = (read(options.data / "wikiqa" / f"{part}.jsonl") for part in ("train", "dev"))
        name, rows = "wikiqa", [_cut(row) for row in rows if row["relevant_passages"] and row["hard_negatives"]]
    else:
        tickets, name = _tickets("train"), "sample"
        made = [_ranked(row, tickets[number + 1 :: 7]) for number, row in enumerate(tickets)]
        made = [_cut(row) for row in made if row["relevant_passages"] and row["hard_negatives"]]
        rows, held = made[: len(made) * 4 // 5], made[len(made) * 4 // 5 :]
    rows = rows[:queries]
    return (
        name,
        write_jsonl(options.work / f"{name}-{len(rows)}-queries.jsonl", rows),
        write_jsonl(options.work / f"{name}-held-queries.jsonl", held),
    )


def ndcg(scores: Sequence[Sequence[float]], rows: Sequence[RerankRow]) -> float:
    """Mean ndcg@10 of the scores of each query's documents."""
    return float(ranking_figures(scores, [row.grades for row in rows], [row.missed for row in rows])["ndcg@10"])


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pages(rows: Sequence[RerankRow], size: int) -> list[tuple[str, list[str]]]:
    """Queries with `size` of their documents each, as often as there are so many of them."""
    return [
        (row.query, list(row.passages[start : start + size]))
        for start in range(0, max(len(row.passages) for row in rows), size)
        for row in rows
        if len(row.passages) >= start + size
    ]


def _tickets(part: str) -> list[dict[str, str]]:
    with (SAMPLE / f"{part}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _split(name: str, rows: list[dict[str, Any]], test: list[dict[str, Any]], work: Path) -> Labelled:
    """Every tenth part of the training rows is held out to choose the best epoch on."""
    train, held = train_test_split(rows, test_size=0.1, random_state=42)
    known = {row["label"] for row in train}
    valid = [row for row in held if row["label"] in known]
    parts = {"train": train + [row for row in held if row["label"] not in known], "valid": valid, "test": test}
    return Labelled(name, *(write_jsonl(work / f"{name}-{part}.jsonl", rows) for part, rows in parts.items()))


def _ranked(row: dict[str, str], others: list[dict[str, str]]) -> dict[str, Any]:
    alike = [other["text"] for other in others if other["label"] == row["label"]]
    unlike = [other["text"] for other in others if other["label"] != row["label"]]
    return {"query": row["text"], "relevant_passages": alike[:2], "hard_negatives": unlike}


def _cut(row: dict[str, Any]) -> dict[str, Any]:
    relevant = row["relevant_passages"][: GROUP // 2]
    others = [text for text in row["hard_negatives"] if text not in relevant][: GROUP - len(relevant)]
    return {"query": row["query"], "relevant_passages": relevant, "hard_negatives": others}
