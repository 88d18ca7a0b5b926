"""Measure a checkpoint on rows: `python -m training.evaluate --checkpoint runs/x/checkpoint --file test.jsonl`."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.errors import ConfigError, EncoreError
from training.imports import lasting
from training.manifest import read_manifest
from training.plots import draw_first_ranks
from training.report import FINE_TUNED, harm, label_table, metrics_table, show


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; user errors are one line and status 1."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("--checkpoint", required=True, type=Path, help="checkpoint folder of a run")
    parser.add_argument("--file", required=True, help="labelled rows: JSONL, JSON, CSV or TSV; rankings: JSONL")
    parser.add_argument("--qrels", help="judgements of the file's candidate lists")
    parser.add_argument(
        "--baseline",
        action="append",
        default=[],
        help="measure this beside it: tfidf (classifiers), bm25, cosine or order (rerankers), or the folder of another "
        "checkpoint; may be given several times",
    )
    parser.add_argument("--plot", type=Path, help="rerankers: picture of the rank of the first relevant passage")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if options.plot and read_manifest(options.checkpoint).task != "rerank":
            raise ConfigError("--plot shows ranks, which a classifier has none of; leave it out")
        with lasting():
            from training.measure import compare  # here, since it loads torch: seconds before a word of help

        _tell(compare(options.checkpoint, options.file, options.baseline, options.qrels), options)
    except EncoreError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _tell(columns: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    if options.json:
        found = columns if options.baseline else columns[FINE_TUNED]
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
    else:
        labels = columns[FINE_TUNED].get("per_label")
        show(metrics_table(columns), *([label_table(labels)] if labels else []))
    for name, _, value in harm(columns[FINE_TUNED], columns):
        logging.warning("warning: %s is better than the fine-tuned model: %.4f", name, value)
    if options.plot:
        try:
            draw_first_ranks({name: figures["first_ranks"] for name, figures in columns.items()}, options.plot)
        except (OSError, ValueError) as error:  # no such folder, no such kind of picture
            raise ConfigError(f"--plot {options.plot} cannot be written: {error}; give a .png in a folder") from None


if __name__ == "__main__":
    sys.exit(main())
