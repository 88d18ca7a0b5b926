"""The end of a run: the checkpoint measured as it was written, and what people look at."""

import json
import logging
import time
from typing import Any

from training.atomic import write_atomically
from training.base import is_embedder, resolve_base
from training.checkpoint import Checkpoint, save_checkpoint
from training.config import TrainConfig
from training.engine import EXPORT_FOLDER, Engine, bring_export
from training.events import append_event
from training.measure import measure
from training.plots import draw_confusion, draw_curves, draw_first_ranks
from training.progress import Reporter
from training.report import harm, metrics_table, model_card, show
from training.run_folder import RunFolder, fingerprints
from training.standing import Progress
from training.task import Data

log = logging.getLogger("training")

_COSINE = "cosine of the base"


def finish(
    config: TrainConfig,
    data: Data,
    rows: int,
    checkpoint: Checkpoint,
    folder: RunFolder,
    progress: Progress,
    reporter: Reporter,
    began: float,
) -> None:
    """Write the checkpoint, measure what was written, and leave metrics, plots and card.

    Args:
        config: the settings, resolved.
        data: the rows of the run to measure on.
        rows: how many there were to learn from.
        checkpoint: the best epoch's weights, calibrated.
        folder: of the run.
        progress: where the loop stopped.
        reporter: of the run.
        began: when the command started, by the monotonic clock.
    """
    settings = {"train_config.yaml": config.to_yaml()}
    save_checkpoint(folder.checkpoint, checkpoint, settings)
    bring_export(folder.checkpoint)
    engine = Engine.load(folder.checkpoint)
    metrics: dict[str, Any] = {"train": _effort(rows, progress, began), "history": progress.history}
    for name, part in (("eval", data.eval), ("test", data.test)):
        if part:
            metrics[name] = measure(engine, part)
    if checkpoint.manifest.task == "rerank" and is_embedder(resolve_base(config.base_model)):
        # A reranker that is worse than its own base is no product, and its trainer must hear of it.
        metrics[_COSINE] = measure(Engine.load_embedder(config.base_model), data.test or data.eval)
    measured = metrics.get("test", metrics["eval"])
    headline = {k: v for k, v in metrics["eval"].items() if isinstance(v, float)}
    final = checkpoint.manifest.model_copy(update={"metrics": headline})
    text = json.dumps(metrics, indent=2, ensure_ascii=False) + "\n"
    card = model_card(final, metrics, config.to_yaml(), fingerprints(config)["files"])
    extra = settings | {"metrics.json": text, "README.md": card}
    finished = Checkpoint(checkpoint.network, checkpoint.tokenizer, final)
    save_checkpoint(folder.checkpoint, finished, extra, keep=(EXPORT_FOLDER,))
    # What is measured again counts; a ranking's loss is known from its epoch alone.
    reporter.describe(progress.history[progress.best_epoch] | metrics["eval"])
    _draw(data, metrics, folder)
    append_event(folder.events, "The run has successfully completed", data={"step": progress.step} | metrics["train"])
    write_atomically(folder.metrics, text)
    folder.clean()
    show(metrics_table({name: metrics[name] for name in ("eval", "test", _COSINE) if name in metrics}))
    for name, figure, value in harm(measured, {_COSINE: metrics[_COSINE]} if _COSINE in metrics else {}):
        log.warning(
            "warning: the %s ranks better than the fine-tuned model (%s %.4f, %.4f): training did harm; add queries, "
            "lower learning_rate, or serve the base",
            name,
            figure,
            value,
            measured[figure],
        )
    log.info("checkpoint: %s", folder.checkpoint)


def _effort(rows: int, progress: Progress, began: float) -> dict[str, float]:
    seconds = time.monotonic() - began
    return {
        "rows": rows,
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch + 1,
        "steps": progress.step,
        "tokens": progress.tokens,
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows * progress.epoch / seconds, 1),
    }


def _draw(data: Data, metrics: dict[str, Any], folder: RunFolder) -> None:
    draw_curves(folder.steps, folder.path / "curves.png")
    part = metrics.get("test", metrics["eval"])
    if "first_ranks" in part:
        columns = {_COSINE: metrics.get(_COSINE), "fine-tuned": part}
        draw_first_ranks({k: v["first_ranks"] for k, v in columns.items() if v}, folder.path / "ranks.png")
    else:
        several = isinstance(part.get("exact_match"), float)
        draw_confusion(part["confusion_matrix"], data.labels, folder.path / "confusion.png", multi_label=several)
