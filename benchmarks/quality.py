"""Quality of the default configuration on public data sets, with the TF-IDF baseline beside it.

    python benchmarks/quality.py --data ../shared/data --work runs/quality atis sport intents sms_spam goemotions

Each data set is trained by the command a user types, `python -m training.train`, with no setting changed but
the files and the seed; `training.evaluate --baseline tfidf` measures. Results are added to
benchmarks/quality.json; the tables in README.md and docs/quality.md are written from that file.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.model_selection import train_test_split

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Prepared:
    """One data set, ready to be trained on."""

    flags: list[str]
    test_file: Path
    further: dict[str, Path]
    """Other files to measure the checkpoint on."""


def write_jsonl(path: Path, rows: Any) -> Path:
    """Write rows and return the path."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def atis(data: Path, work: Path) -> Prepared:
    """800 training and 200 test rows, the hosted notebook's split."""
    return Prepared(["--train_file", str(data / "atis/train.jsonl")], data / "atis/test.jsonl", {})


def sport(data: Path, work: Path) -> Prepared:
    """sport2.jsonl 80/20 stratified; the by-date test file besides."""
    rows = [json.loads(line) for line in (data / "sport/sport2.jsonl").open(encoding="utf-8")]
    train, valid = train_test_split(rows, test_size=0.2, random_state=42, stratify=[r["completion"] for r in rows])
    files = write_jsonl(work / "sport-train.jsonl", train), write_jsonl(work / "sport-valid.jsonl", valid)
    return Prepared(
        ["--train_file", str(files[0]), "--eval_file", str(files[1])],
        files[1],
        {"test by date": data / "sport/test.jsonl"},
    )


def intents(data: Path, work: Path) -> Prepared:
    """train.csv 80/20 by `train_test_split(random_state=42)`, as the hosted notebook."""
    with (data / "intents/train.csv").open(newline="", encoding="utf-8") as file:
        rows = [{"text": row["text"], "label": row["label_text"]} for row in csv.DictReader(file)]
    train, test = train_test_split(rows, test_size=0.2, random_state=42)
    files = write_jsonl(work / "intents-train.jsonl", train), write_jsonl(work / "intents-test.jsonl", test)
    return Prepared(["--train_file", str(files[0])], files[1], {})


def sms_spam(data: Path, work: Path, seed: int = 123) -> Prepared:
    """Balanced by undersampling, then 70/10/20, shuffled with the seed that the published exercise uses (123).

    S. Raschka, "Build a Large Language Model (From Scratch)", chapter 6.
    """
    lines = (data / "sms_spam/SMSSpamCollection").read_text(encoding="utf-8").splitlines()
    frame = pd.DataFrame([line.split("\t", 1) for line in lines], columns=["label", "text"])
    spam = frame[frame.label == "spam"]
    ham = frame[frame.label == "ham"].sample(len(spam), random_state=seed)
    mixed = pd.concat([ham, spam]).sample(frac=1, random_state=seed)
    rows = [{"text": text, "label": label} for label, text in zip(mixed.label, mixed.text, strict=True)]
    train, valid = int(0.7 * len(rows)), int(0.8 * len(rows))
    parts = (("train", rows[:train]), ("valid", rows[train:valid]), ("test", rows[valid:]))
    files = [write_jsonl(work / f"sms-{seed}-{name}.jsonl", part) for name, part in parts]
    return Prepared(["--train_file", str(files[0]), "--eval_file", str(files[1])], files[2], {})


def sms_spam_splits(data: Path, work: Path) -> Prepared:
    """The same with another draw, to show how much the 300 test rows decide."""
    return sms_spam(data, work, seed=42)


def goemotions(data: Path, work: Path) -> Prepared:
    """Multi-label; the development file is the test, so evaluation rows are split off the training file."""
    return Prepared(["--train_file", str(data / "goemotions/train.jsonl")], data / "goemotions/dev.jsonl", {})


SETS: dict[str, Callable[[Path, Path], Prepared]] = {
    f.__name__: f for f in (atis, sport, intents, sms_spam, sms_spam_splits, goemotions)
}


def train_and_measure(name: str, prepared: Prepared, seed: int, work: Path, config: str) -> list[dict[str, Any]]:
    """One run of one seed; one record per file measured."""
    folder = work / f"{name}-{seed}"
    command = [sys.executable, "-m", "training.train", "--config", config, *prepared.flags]
    subprocess.run([*command, "--output_dir", str(folder), "--seed", str(seed)], check=True)
    train = json.loads((folder / "metrics.json").read_text())["train"]
    records = []
    for part, path in {"": prepared.test_file, **prepared.further}.items():
        command = [sys.executable, "-m", "training.evaluate", "--checkpoint", str(folder / "checkpoint")]
        command += ["--file", str(path), "--baseline", "tfidf", "--json"]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        keys = ("accuracy", "f1_weighted", "f1_macro")
        record: dict[str, Any] = {"data": f"{name} {part}".strip(), "seed": seed, "config": config}
        record |= {key: found["fine-tuned"][key] for key in (*keys, "ece", "ece_uncalibrated")}
        record |= {f"tfidf_{key}": found["tfidf"][key] for key in keys}
        records.append(record | {"seconds": train["seconds"], "rows_per_second": train["rows_per_second"]})
    return records


def grouped(records: list[dict[str, Any]]) -> list[tuple[str, str, dict[str, float], list[float]]]:
    """Per data set and configuration: its name, the configuration, means over seeds, accuracies."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["data"], Path(record["config"]).stem), []).append(record)
    order = list(SETS)
    found = sorted(groups.items(), key=lambda item: (order.index(item[0][0].split()[0]), item[0]))
    return [
        (name, config, {k: statistics.mean(r[k] for r in group) for k in FIGURES}, [r["accuracy"] for r in group])
        for (name, config), group in found
    ]


FIGURES = (
    "accuracy",
    "f1_weighted",
    "f1_macro",
    "ece",
    "ece_uncalibrated",
    "tfidf_accuracy",
    "tfidf_f1_weighted",
    "tfidf_f1_macro",
    "seconds",
    "rows_per_second",
)


def full_table(records: list[dict[str, Any]]) -> str:
    """Everything, as Markdown."""
    lines = [
        "| data | config | seeds | accuracy | weighted F1 | macro F1 | TF-IDF accuracy, weighted, macro F1 "
        "| calibration error, raw → calibrated | training seconds | rows/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, config, mean, accuracies in grouped(records):
        spread = f" ({min(accuracies):.4f} to {max(accuracies):.4f})" if len(accuracies) > 1 else ""
        lines.append(
            f"| {name} | {config} | {len(accuracies)} | {mean['accuracy']:.4f}{spread} | {mean['f1_weighted']:.4f} "
            f"| {mean['f1_macro']:.4f} | {mean['tfidf_accuracy']:.4f}, {mean['tfidf_f1_weighted']:.4f}, "
            f"{mean['tfidf_f1_macro']:.4f} | {mean['ece_uncalibrated']:.3f} → {mean['ece']:.3f} "
            f"| {mean['seconds']:.0f} | {mean['rows_per_second']:.0f} |"
        )
    return "\n".join(lines)


def short_table(records: list[dict[str, Any]]) -> str:
    """The headline figures, as Markdown."""
    lines = ["| data | accuracy | macro F1 | TF-IDF accuracy | TF-IDF macro F1 |", "| --- | --- | --- | --- | --- |"]
    for name, config, mean, _ in grouped(records):
        if config == "minilm":
            lines.append(
                f"| {name} | {mean['accuracy']:.4f} | {mean['f1_macro']:.4f} | {mean['tfidf_accuracy']:.4f} "
                f"| {mean['tfidf_f1_macro']:.4f} |"
            )
    return "\n".join(lines)


def include(text: str, page: Path, name: str = "quality") -> None:
    """Put text between the page's two marks of that name."""
    mark = f"<!-- {name} -->\n"
    before, _, after = page.read_text(encoding="utf-8").split(mark)
    page.write_text(f"{before}{mark}{text}\n{mark}{after}", encoding="utf-8")


def ask(description: str | None, sets: Iterable[str], config: str) -> argparse.Namespace:
    """What to measure, from the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=sorted(sets))
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per data set")
    parser.add_argument("--work", type=Path, required=True, help="folder for splits and runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--config", default=config)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    return options


def add(new: list[dict[str, Any]], store: Path) -> list[dict[str, Any]]:
    """Put records into a file, in place of those of the same data, seed and configuration, and give all of them."""
    old = json.loads(store.read_text()) if store.exists() else []
    same = {(r["data"], r["seed"], r["config"]) for r in new}
    records = [r for r in old if (r["data"], r["seed"], r["config"]) not in same] + new
    store.write_text(json.dumps(records, indent=1) + "\n")
    return records


def main() -> None:
    """Train, measure, write the table."""
    options = ask(__doc__, SETS, "configs/classify/minilm.yaml")
    for name in options.sets:
        prepared = SETS[name](options.data, options.work)
        for seed in options.seeds:
            new = train_and_measure(name, prepared, seed, options.work, options.config)
            records = add(new, HERE / "quality.json")
            include(full_table(records), HERE.parent / "docs/quality.md")
            include(short_table(records), HERE.parent / "README.md")


if __name__ == "__main__":
    main()
