"""Rankings by the default reranker on public data sets, with BM25 and the base's cosine beside it.

    python benchmarks/ranking.py --data ../shared/data --work runs/ranking casehold wikiqa --seeds 1 2 3

Each data set is trained by the command a user types, `python -m training.train`, with no setting changed but the files
and the seed; `training.evaluate` measures. The reranker of wikiqa is measured on trec_dl19 besides. Results are added
to benchmarks/ranking.json; the tables in README.md and docs/quality.md are written from that file.
"""

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quality import HERE, add, ask, include

FIGURES = ("ndcg@10", "mrr@10", "accuracy@1")
HEADLINES = {"casehold": "accuracy@1", "wikiqa": "mrr@10", "trec_dl19": "ndcg@10"}
COLUMNS = ("fine-tuned", "cosine", "bm25", "order")


@dataclass(frozen=True)
class Collection:
    """One data set: files by their role, relative to the data folder."""

    train: dict[str, str]
    measured: dict[str, dict[str, str]]
    """Name of a result, and the files of its measurement."""


SETS = {
    "casehold": Collection(
        {"train_file": "casehold/train.jsonl", "eval_file": "casehold/valid.jsonl"},
        {"casehold": {"file": "casehold/test.jsonl"}},
    ),
    "wikiqa": Collection(
        {"train_file": "wikiqa/train.jsonl"},
        {
            "wikiqa": {"file": "wikiqa/dev.jsonl"},
            "trec_dl19": {"file": "trec_dl19/bm25_top100.jsonl", "qrels": "trec_dl19/qrels.jsonl"},
        },
    ),
}


def flags(files: dict[str, str], data: Path) -> list[str]:
    """Files as command-line flags."""
    return [text for name, path in files.items() for text in (f"--{name}", str(data / path))]


def train_and_measure(name: str, seed: int, data: Path, work: Path, config: str) -> list[dict[str, Any]]:
    """One run of one seed; one record per result."""
    folder, collection = work / f"{name}-{Path(config).stem}-{seed}", SETS[name]
    command = [sys.executable, "-m", "training.train", "--config", config, *flags(collection.train, data)]
    subprocess.run([*command, "--output_dir", str(folder), "--seed", str(seed)], check=True)
    effort = json.loads((folder / "metrics.json").read_text())["train"]
    records: list[dict[str, Any]] = []
    for result, files in collection.measured.items():
        command = [sys.executable, "-m", "training.evaluate", "--checkpoint", str(folder / "checkpoint"), "--json"]
        command += [*flags(files, data), "--baseline", "cosine", "--baseline", "bm25"]
        command += ["--baseline", "order"] if "qrels" in files else []
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        record: dict[str, Any] = {"data": result, "seed": seed, "config": config}
        record |= {f"{column} {key}": found[column][key] for column in COLUMNS if column in found for key in FIGURES}
        records.append(record | {"queries": found["fine-tuned"]["queries"], "seconds": effort["seconds"]})
    return records


def table(records: list[dict[str, Any]]) -> str:
    """Means over seeds, as Markdown."""
    head = "| data | queries | config | seeds | figure | fine-tuned | cosine | BM25 | order given | training seconds |"
    lines = [head, "| --- " * 10 + "|"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["data"], Path(record["config"]).stem), []).append(record)
    for (name, config), group in sorted(groups.items()):
        for figure in FIGURES:
            cells = [_cell([r[f"{column} {figure}"] for r in group if f"{column} {figure}" in r]) for column in COLUMNS]
            seconds = statistics.mean(r["seconds"] for r in group)
            lines.append(
                f"| {name} | {group[0]['queries']} | {config} | {len(group)} | {figure} | {' | '.join(cells)} "
                f"| {seconds:.0f} |"
            )
    return "\n".join(lines)


def short_table(records: list[dict[str, Any]]) -> str:
    """The figure by which each data set is known, as Markdown."""
    lines = ["| data | figure | fine-tuned | cosine of the base | BM25 |", "| --- " * 5 + "|"]
    for name, figure in HEADLINES.items():
        group = [r for r in records if r["data"] == name and Path(r["config"]).stem == "minilm"]
        if group:
            means = [statistics.mean(r[f"{column} {figure}"] for r in group) for column in COLUMNS[:3]]
            lines.append(f"| {name} | {figure} | {' | '.join(f'{mean:.4f}' for mean in means)} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ({min(values):.4f} to {max(values):.4f})" if max(values) - min(values) > 5e-5 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def main() -> None:
    """Train, measure, write the table."""
    options = ask(__doc__, SETS, "configs/rerank/minilm.yaml")
    for name in options.sets:
        for seed in options.seeds:
            records = add(
                train_and_measure(name, seed, options.data, options.work, options.config), HERE / "ranking.json"
            )
            include(table(records), HERE.parent / "docs/quality.md", "ranking")
            include(short_table(records), HERE.parent / "README.md", "ranking")


if __name__ == "__main__":
    main()
