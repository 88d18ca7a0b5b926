"""The figures of a checkpoint on rows, and of what it is compared with; `training.evaluate` is the command."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.baseline import bm25_metrics, order_metrics, tfidf_metrics
from training.classify import ClassifyTask, Decision
from training.classify_data import check_labels, read_data
from training.config import TrainConfig, load_config
from training.engine import Engine, Ranking
from training.errors import ConfigError, DataError
from training.manifest import Manifest, is_checkpoint, read_manifest
from training.ranks import ranking_figures
from training.report import FINE_TUNED
from training.rerank_rows import RerankRow, read_rerank
from training.rows import ClassifyRow, read_classify

_BASELINES = {"classify": ("tfidf",), "rerank": ("bm25", "cosine", "order")}


def measure(engine: Engine, rows: Sequence[Any]) -> dict[str, Any]:
    """All figures of a checkpoint on the rows of its task, with the number of rows; an embedder ranks by cosine."""
    return _classified(engine, rows) if engine.manifest.task == "classify" else _ranked(engine, rows)


def _classified(engine: Engine, rows: Sequence[ClassifyRow]) -> dict[str, Any]:
    manifest = engine.manifest
    task = ClassifyTask(manifest.labels, manifest.multi_label)
    targets = task.targets(rows)
    logits = engine.score(engine.encode([row.text for row in rows]))
    raw = task.figures(logits, targets, Decision(1.0, manifest.thresholds))
    figures = task.figures(logits, targets, Decision(manifest.temperature, manifest.thresholds))
    return {"rows": len(rows), **figures, "ece_uncalibrated": raw["ece"]}


def _ranked(engine: Engine, rows: Sequence[RerankRow]) -> dict[str, Any]:
    plans = [Ranking.plan(engine.encoder, engine.manifest, row.query, row.passages) for row in rows]
    outputs = engine.score([item for plan in plans for item in plan.items])
    parts = np.split(outputs, np.cumsum([len(plan.items) for plan in plans])[:-1])
    scores = [plan.relevance(part) for plan, part in zip(plans, parts, strict=True)]
    figures = ranking_figures(scores, [row.grades for row in rows], [row.missed for row in rows])
    return {"rows": len(rows), **figures}


def compare(
    checkpoint: Path, file: str, baselines: Sequence[str] = (), qrels: str | None = None
) -> dict[str, dict[str, Any]]:
    """Figures of a checkpoint, and beside it those of baselines.

    Args:
        checkpoint: the folder.
        file: labelled rows.
        baselines: for a classifier `tfidf`, trained on the run's own training rows; for a reranker `bm25`, `cosine`
            (of the base's embeddings) and `order` (in which candidate lists come); or the folder of another
            checkpoint of the same task.
        qrels: judgements of the file's candidate lists.

    Raises:
        ModelError: `checkpoint` is not a checkpoint.
        DataError: the file, or the run's training file that the baseline needs, cannot be used.
        ConfigError: a baseline that does not fit the checkpoint or the file.
    """
    manifest = read_manifest(checkpoint)
    for name in baselines:
        _check_baseline(name, manifest, qrels)
    engine = Engine.load(checkpoint)
    config = load_config(checkpoint / "train_config.yaml")
    rows = _read(file, qrels, config, manifest)
    columns = {FINE_TUNED: measure(engine, rows)}
    for name in baselines:
        columns[name] = _baseline(name, config, manifest, rows)
    return columns


def _read(file: str, qrels: str | None, config: TrainConfig, manifest: Manifest) -> Sequence[Any]:
    if manifest.task == "rerank":
        rows = read_rerank(file, config.data, qrels).rows
        if not any(max((*row.grades, *row.missed)) > 0 for row in rows):
            raise DataError(f"none of {len(rows)} queries has a relevant passage, so no order can be measured", file)
        return rows
    if qrels is not None:
        raise ConfigError("--qrels is for rerankers; leave it out, the rows of a classifier hold their labels")
    found = read_classify(file, config.data, manifest.rules, multi_label=manifest.multi_label)
    check_labels(found, manifest.labels)
    return found.rows


def _check_baseline(name: str, manifest: Manifest, qrels: str | None) -> None:
    """Refuse what cannot be measured before anything is, which may take long."""
    own = ", ".join(_BASELINES[manifest.task])
    if name == "order" and manifest.task == "rerank" and qrels is None:
        raise ConfigError("--baseline order is for candidate lists with --qrels; other files have relevant ones first")
    if name in _BASELINES[manifest.task]:
        return
    if any(name in names for names in _BASELINES.values()):
        raise ConfigError(f"--baseline {name} is not for a model of task {manifest.task}; use {own}, or a checkpoint")
    if not is_checkpoint(Path(name)):
        raise ConfigError(f"--baseline {name} is not known and not a checkpoint folder; use {own}, or a checkpoint")
    other = read_manifest(Path(name))
    if (other.task, other.labels) != (manifest.task, manifest.labels):
        raise ConfigError(f"--baseline {name} is a checkpoint of another task or of other labels; give one like it")


def _baseline(name: str, config: TrainConfig, manifest: Manifest, rows: Sequence[Any]) -> dict[str, Any]:
    if name == "tfidf":
        return tfidf_metrics(read_data(config), rows)
    if name == "bm25":
        return bm25_metrics(rows)
    if name == "order":
        return order_metrics(rows)
    if name == "cosine":
        return measure(Engine.load_embedder(manifest.base_model), rows)
    return measure(Engine.load(Path(name)), rows)
