"""Measure a checkpoint on rows: `python -m training.evaluate --checkpoint runs/x/checkpoint --file test.jsonl`."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.baseline import tfidf_metrics
from training.classify import ClassifyTask, Decision, check_labels, read_data
from training.config import load_config
from training.engine import Engine
from training.errors import EncoreError
from training.report import label_table, metrics_table, show
from training.rows import ClassifyRow, read_classify


def measure(engine: Engine, rows: Sequence[ClassifyRow]) -> dict[str, Any]:
    """All figures of a checkpoint on rows, with the number of rows and the calibration error before scaling."""
    manifest = engine.manifest
    task = ClassifyTask(manifest.labels, manifest.multi_label)
    targets = task.targets(rows)
    logits = engine.score(engine.encode([row.text for row in rows]))
    raw = task.figures(logits, targets, Decision(1.0, manifest.thresholds))
    figures = task.figures(logits, targets, Decision(manifest.temperature, manifest.thresholds))
    return {"rows": len(rows), **figures, "ece_uncalibrated": raw["ece"]}


def evaluate(checkpoint: Path, file: str, baseline: str | None = None) -> dict[str, dict[str, Any]]:
    """Figures of a checkpoint, and of a baseline trained on the same training rows.

    Raises:
        ModelError: `checkpoint` is not a checkpoint.
        DataError: the file, or the run's training file that the baseline needs, cannot be used.
    """
    engine = Engine.load(checkpoint)
    config = load_config(checkpoint / "train_config.yaml")
    rows = read_classify(file, config.data, engine.manifest.rules, multi_label=engine.manifest.multi_label)
    check_labels(rows, engine.manifest.labels)
    columns = {"fine-tuned": measure(engine, rows.rows)}
    if baseline == "tfidf":
        columns["tf-idf baseline"] = tfidf_metrics(read_data(config), rows.rows)
    return columns


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; user errors are one line and status 1."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("--checkpoint", required=True, type=Path, help="checkpoint folder of a run")
    parser.add_argument("--file", required=True, help="labelled rows: JSONL, JSON, CSV or TSV")
    parser.add_argument("--baseline", choices=["tfidf"], help="measure this beside it, trained on the run's rows")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        columns = evaluate(options.checkpoint, options.file, options.baseline)
    except EncoreError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if options.json:
        sys.stdout.write(json.dumps(columns if options.baseline else columns["fine-tuned"], ensure_ascii=False) + "\n")
    else:
        show(metrics_table(columns), label_table(columns["fine-tuned"]["per_label"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
