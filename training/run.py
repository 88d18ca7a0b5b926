"""One run from its settings to a finished folder; `training.train` is the command around it."""

import logging
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed

from training import classify_data, rerank_data
from training.base import hash_weights, resolve_base
from training.checkpoint import Checkpoint
from training.classify import ClassifyTask
from training.config import TrainConfig
from training.engine import Engine
from training.finish import finish
from training.loop import Loop
from training.manifest import Manifest
from training.model import build_network, choose_max_length, freeze_embeddings, has_attention_dropout
from training.network import Network
from training.padding import choose_unpadded
from training.progress import Reporter
from training.recipe import mixed_precision, resolve
from training.rerank import RerankTask
from training.run_folder import RunFolder
from training.store import ExampleStore
from training.task import Data, Task
from training.tether import Tether

log = logging.getLogger("training")

_PRECISION = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


def run(config: TrainConfig, tether: Tether | None = None) -> Path:
    """Train from a config to a checkpoint.

    Args:
        config: the settings, some of them `auto`.
        tether: who may tell the run to stop; by default no one.

    Returns:
        The checkpoint folder.

    Raises:
        EncoreError: anything the user can mend; nothing stored before is harmed.
        Stopped: the order to stop came; the state is saved.
    """
    accelerator = Accelerator(mixed_precision=mixed_precision(config))
    folder = RunFolder(Path(config.output_dir))
    with folder.claim(config) if accelerator.is_main_process else nullcontext():
        accelerator.wait_for_everyone()
        if folder.finished:
            log.info("%s is finished already; choose another output_dir to train again", folder.path)
        else:
            train(config, accelerator, folder, tether or Tether())
    accelerator.end_training()
    return folder.checkpoint


def train(config: TrainConfig, accelerator: Accelerator, folder: RunFolder, tether: Tether) -> None:
    """Everything between a claimed folder and a finished one."""
    began = time.monotonic()
    set_seed(config.seed)
    data, task = open_task(config)
    for note in data.notes:
        log.info(note)
    start = build_network(config, data.labels, len(data.train))
    network, tokenizer = start.network, start.tokenizer
    found: dict[str, Any] = {"pooling": network.pooling, "precision": _PRECISION[accelerator.mixed_precision]}
    found["attention_dropout"] = has_attention_dropout(config)
    if config.task == "rerank":
        found["cross_layers"] = network.cross_layers
    config = resolve(
        config.model_copy(update=data.resolved() | found),
        rows=len(data.train),
        hidden=network.backbone.config.hidden_size,
        max_length=choose_max_length(config, network.backbone, tokenizer),
        on_gpu=accelerator.device.type == "cuda",
    )
    if config.freeze_embeddings:
        freeze_embeddings(network)
    config = config.model_copy(update={"unpadded": choose_unpadded(config, network, accelerator)})
    checkpoint = Checkpoint(network, tokenizer, describe(config, data, network))
    exact = config.precision != "bfloat16"
    engine = Engine.on_torch(checkpoint, accelerator.device, "float32" if exact else "bfloat16")
    with accelerator.main_process_first():  # which writes what the others then find
        seen = task.prepared(data.train, engine.encoder, folder.tokens("train"))
        held = task.examples(data.eval, engine.encoder, folder.tokens("eval"))
    several = f"; {accelerator.num_processes} processes" if accelerator.num_processes > 1 else ""
    log.info(summary(config, data, network, seen) + several)
    data.train.clear()  # their tokens are all that is needed from here on
    if start.fresh_head and folder.newest_state() is None:
        task.start_head(network, engine, seen)
    reporter = Reporter(folder, task.columns, accelerator=accelerator)
    loop = Loop(config, accelerator, task, engine, checkpoint, tether)
    loop.run(seen, held, folder, reporter)
    outputs = loop.score(held)
    if accelerator.is_main_process:
        chosen = task.calibrated(checkpoint.manifest, outputs, held)
        finished = Checkpoint(network, tokenizer, chosen)
        finish(config, data, len(seen), finished, folder, loop.progress, reporter, began)
    accelerator.wait_for_everyone()


def open_task(config: TrainConfig) -> tuple[Data, Task]:
    """Read the files of a run, and say what the loop is to do with them; errors as in the tasks' `read_data`."""
    if config.task == "rerank":
        ranked = rerank_data.read_data(config)
        return ranked, RerankTask(config.loss, config.group_size, config.seed)
    labelled = classify_data.read_data(config)
    soften = config.conflicts == "soften" and not labelled.multi_label
    return labelled, ClassifyTask(
        labelled.labels,
        labelled.multi_label,
        label_smoothing=config.label_smoothing,
        weigh=config.balance == "class_weights",
        soften=soften,
        seed=config.seed,
    )


def describe(config: TrainConfig, data: Data, network: Network) -> Manifest:
    """The manifest of the checkpoint to be, before calibration; the config must be resolved."""
    assert isinstance(config.max_length, int)
    base = resolve_base(config.base_model).absolute()
    return Manifest(
        **data.described(),
        max_length=config.max_length,
        pooling=network.pooling,
        cross_layers=network.cross_layers,
        # A folder is noted by its absolute path: the checkpoint will be loaded from elsewhere.
        base_model=str(base) if Path(config.base_model).is_dir() else config.base_model,
        base_sha256=hash_weights(base) if config.lora else None,
        adapter=config.lora is not None,
        created_at=datetime.now(UTC),
        versions={name: version(name) for name in ("torch", "transformers", "accelerate", "peft")},
    )


def summary(config: TrainConfig, data: Data, network: Network, train: ExampleStore) -> str:
    """One line about what is going to happen."""
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return (
        f"{data.summary}; "
        f"{trained / 1e6:.1f} M of {sum(p.numel() for p in network.parameters()) / 1e6:.1f} M weights trained; "
        f"{config.epochs} epochs, batch size {config.batch_size}, learning rate {config.learning_rate:.3g}, "
        f"{config.precision}, mean length {train.items.lengths.mean():.0f} tokens"
    )
