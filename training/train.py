"""Fine-tune a model: `accelerate launch -m training.train --config configs/classify/minilm.yaml ...`.

The same module runs in one process as `python -m training.train`. Killed at any time and started again with
the same command, it goes on from the last saved state.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from training.atomic import write_atomically
from training.base import hash_weights, resolve_base
from training.batches import Example
from training.checkpoint import Checkpoint, save_checkpoint
from training.classify import ClassifyData, ClassifyTask, read_data
from training.config import TrainConfig, parse_config
from training.engine import Engine
from training.errors import EncoreError, TrainingError
from training.evaluate import measure
from training.events import append_event
from training.loop import Loop
from training.manifest import Manifest
from training.model import build_network, choose_max_length, freeze_embeddings
from training.network import Network
from training.probe import fit_linear
from training.progress import Reporter
from training.recipe import mixed_precision, resolve
from training.report import draw_confusion, draw_curves, metrics_table, model_card, show
from training.run_folder import RunFolder, fingerprints

log = logging.getLogger("training")

_PRECISION = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}
_PROBE_ROWS = 4_000
"""Rows the first head is fitted on; more change it little."""
_PROBE_STRENGTH = 0.01
"""Regularised well below the best probe: a head that is already certain of its training rows passes no gradient on."""


def run(config: TrainConfig) -> Path:
    """Train from a config to a checkpoint.

    Returns:
        The checkpoint folder.

    Raises:
        EncoreError: anything the user can mend; nothing stored before is harmed.
    """
    accelerator = Accelerator(mixed_precision=mixed_precision(config))
    folder = RunFolder(Path(config.output_dir))
    with folder.claim(config) if accelerator.is_main_process else nullcontext():
        accelerator.wait_for_everyone()
        if folder.finished:
            log.info("%s is finished already; choose another output_dir to train again", folder.path)
        else:
            train(config, accelerator, folder)
    accelerator.end_training()
    return folder.checkpoint


def train(config: TrainConfig, accelerator: Accelerator, folder: RunFolder) -> None:
    """Everything between a claimed folder and a finished one."""
    began = time.monotonic()
    set_seed(config.seed)
    data = read_data(config)
    for note in data.notes:
        log.info(note)
    start = build_network(config, data.labels)
    network, tokenizer = start.network, start.tokenizer
    config = resolve(
        config.model_copy(
            update={
                "problem": "multi_label" if data.multi_label else "single_label",
                "precision": _PRECISION[accelerator.mixed_precision],
            }
        ),
        rows=len(data.train),
        hidden=network.backbone.config.hidden_size,
        max_length=choose_max_length(config, network.backbone, tokenizer),
        on_gpu=accelerator.device.type == "cuda",
    )
    if config.freeze_embeddings:
        freeze_embeddings(network)
    checkpoint = Checkpoint(network, tokenizer, describe(config, data, network))
    engine = Engine(checkpoint, accelerator.device)
    task = ClassifyTask(data.labels, data.multi_label, config.label_smoothing)
    seen, held = (task.examples(rows, engine.encoder) for rows in (data.train, data.eval))
    if config.balance == "class_weights":
        seen = task.weighted(seen)
    if config.conflicts == "soften" and not data.multi_label:
        seen = task.softened(data.train, seen)
    log.info(summary(config, data, network, seen))
    if start.fresh_head and folder.newest_state() is None:
        start_head(network, engine, seen, multi_label=data.multi_label, seed=config.seed)
    reporter = Reporter(folder, binary=len(data.labels) == 2 and not data.multi_label, accelerator=accelerator)
    loop = Loop(config, accelerator, task, engine, network)
    loop.run(seen, held, folder, reporter)
    logits = loop.score(held)
    if accelerator.is_main_process:
        decision = task.decide(logits, np.stack([example.target for example in held]), calibrate=True)
        chosen = checkpoint.manifest.model_copy(
            update={"temperature": decision.temperature, "thresholds": decision.thresholds}
        )
        seconds = time.monotonic() - began
        finish(config, data, Checkpoint(network, tokenizer, chosen), folder, loop, reporter, seconds)
    accelerator.wait_for_everyone()


def start_head(network: Network, engine: Engine, train: Sequence[Example], *, multi_label: bool, seed: int) -> None:
    """Give the head the weights of a linear probe on the base as it is, before any of it is trained.

    A random head sends noise back through good features in the first steps; one that fits them keeps what the
    base knows (Kumar et al. 2022, arXiv:2202.10054).
    """
    chosen = np.random.default_rng(seed).permutation(len(train))[:_PROBE_ROWS]
    head, network.head = network.head, nn.Identity()
    network.to(engine.device).eval()
    pooled = engine.score([train[i].item for i in chosen])
    found = fit_linear(
        pooled, np.stack([train[i].target for i in chosen]), multi_label=multi_label, strength=_PROBE_STRENGTH
    )
    network.head = head
    with torch.no_grad():
        for parameter, value in zip(head.parameters(), (found.weight, found.bias), strict=True):
            parameter.copy_(torch.from_numpy(value))


def describe(config: TrainConfig, data: ClassifyData, network: Network) -> Manifest:
    """The manifest of the checkpoint to be, before calibration; the config must be resolved."""
    assert isinstance(config.max_length, int)
    base = resolve_base(config.base_model).absolute()
    return Manifest(
        problem_type="multi_label_classification" if data.multi_label else "single_label_classification",
        labels=data.labels,
        surfaces=data.surfaces,
        rules=data.rules,
        max_length=config.max_length,
        pooling=network.pooling,
        # A folder is noted by its absolute path: the checkpoint will be loaded from elsewhere.
        base_model=str(base) if Path(config.base_model).is_dir() else config.base_model,
        base_sha256=hash_weights(base) if config.lora else None,
        adapter=config.lora is not None,
        created_at=datetime.now(UTC),
        versions={name: version(name) for name in ("torch", "transformers", "accelerate", "peft")},
    )


def finish(
    config: TrainConfig,
    data: ClassifyData,
    checkpoint: Checkpoint,
    folder: RunFolder,
    loop: Loop,
    reporter: Reporter,
    seconds: float,
) -> None:
    """Write the checkpoint, measure what was written, and leave metrics, plots and card."""
    settings = {"train_config.yaml": config.to_yaml()}
    save_checkpoint(folder.checkpoint, checkpoint, settings)
    engine = Engine.load(folder.checkpoint)
    seen = len(data.train) * loop.progress.epoch
    metrics: dict[str, Any] = {
        "train": {
            "rows": len(data.train),
            "epochs": loop.progress.epoch,
            "best_epoch": loop.progress.best_epoch + 1,
            "steps": loop.progress.step,
            "seconds": round(seconds, 1),
            "rows_per_second": round(seen / seconds, 1),
        },
        "history": loop.progress.history,
    }
    for name, rows in (("eval", data.eval), ("test", data.test)):
        if rows:
            metrics[name] = measure(engine, rows)
    headline = {k: v for k, v in metrics["eval"].items() if isinstance(v, float)}
    final = checkpoint.manifest.model_copy(update={"metrics": headline})
    text = json.dumps(metrics, indent=2, ensure_ascii=False) + "\n"
    card = model_card(final, metrics, config.to_yaml(), fingerprints(config)["files"])
    extra = settings | {"metrics.json": text, "README.md": card}
    save_checkpoint(folder.checkpoint, Checkpoint(checkpoint.network, checkpoint.tokenizer, final), extra)
    reporter.describe(loop.progress.step, metrics["eval"])
    draw_curves(folder.steps, folder.path / "curves.png")
    part = metrics.get("test", metrics["eval"])
    draw_confusion(part["confusion_matrix"], data.labels, folder.path / "confusion.png", multi_label=data.multi_label)
    append_event(folder.events, "The run has successfully completed", data={"step": loop.progress.step})
    write_atomically(folder.metrics, text)
    folder.clean()
    show(metrics_table({name: metrics[name] for name in ("eval", "test") if name in metrics}))
    log.info("checkpoint: %s", folder.checkpoint)


def summary(config: TrainConfig, data: ClassifyData, network: Network, train: Sequence[Example]) -> str:
    """One line about what is going to happen."""
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return (
        f"{len(data.train)} training, {len(data.eval)} evaluation, {len(data.test)} test rows; "
        f"{len(data.labels)} labels{' (multi-label)' if data.multi_label else ''}; "
        f"{trained / 1e6:.1f} M of {sum(p.numel() for p in network.parameters()) / 1e6:.1f} M weights trained; "
        f"{config.epochs} epochs, batch size {config.batch_size}, learning rate {config.learning_rate:.3g}, "
        f"{config.precision}, mean length {sum(len(e.item) for e in train) / len(train):.0f} tokens"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; user errors are one line and status 1."""
    first = os.environ.get("RANK", "0") == "0"  # set by the launcher in each process
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s", stream=sys.stderr)
    for chatty in ("accelerate", "transformers", "datasets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        run(parse_config(arguments))
    except EncoreError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        sys.stderr.write(f"error: {TrainingError('out of memory; lower max_batch_tokens or max_length')}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on from the last saved state\n")
        return 130
    return 0


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


if __name__ == "__main__":
    sys.exit(main())
