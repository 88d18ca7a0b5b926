"""The sides of `benchmarks/gpu.py`: training and scoring, by this project and by transformers."""

import tempfile
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from transformers import Trainer, TrainerCallback, TrainingArguments, get_scheduler

from benchmarks import gpu_models as models
from training.batches import Example, epoch_batches
from training.checkpoint import Checkpoint
from training.classify import ClassifyTask
from training.config import TrainConfig
from training.engine import Limits
from training.engine.batching import plan
from training.engine.encoding import Encoded
from training.engine.torch_backend import TorchBackend
from training.loop import Loop
from training.padding import choose_unpadded
from training.tether import Tether

WARM = 3
"""Steps before the clock starts."""
_PEER_BATCH = 32
"""Pairs that sentence-transformers scores at once unless told otherwise."""


def settle(device: torch.device) -> None:
    """Wait for what was asked of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def our_training(config: Any, texts: list[list[int]], batch: int, lora: bool) -> tuple[Callable[[int], float], float]:
    """A side that trains by our loop, and the operations a token takes."""
    accelerator = Accelerator(mixed_precision="bf16", cpu=not torch.cuda.is_available())
    network = models.ours(config, lora=lora)
    settings = TrainConfig(
        train_file="", output_dir="", learning_rate=1e-5, head_learning_rate=1e-5, max_batch_tokens=65_536
    )
    choose_unpadded(settings, network, accelerator)
    parts = Checkpoint(network, None, cast(Any, None))
    # Of the engine, which evaluates, the loop's steps need only what fills texts up.
    engine = cast(Any, SimpleNamespace(encoder=SimpleNamespace(pad_token=models.PAD)))
    task = ClassifyTask(tuple(map(str, range(models.LABELS))), multi_label=False)
    loop = Loop(settings, accelerator, task, engine, parts, Tether())
    loop.scheduler = get_scheduler("constant", loop.optimizer)
    target = np.array([[1, 0]], np.float32)
    examples = [Example((Encoded(text),), target) for text in texts]
    lengths = np.array([len(text) for text in texts], np.int32)

    def side(turn: int) -> float:
        network.train()
        batches = [[examples[i] for i in chosen] for chosen in epoch_batches(lengths, batch, 0, turn)]
        for chosen in batches[:WARM]:
            loop.step(chosen)
        settle(accelerator.device)
        began = time.perf_counter()
        for chosen in batches[WARM:]:
            loop.step(chosen)
        settle(accelerator.device)
        return sum(one.tokens for chosen in batches[WARM:] for one in chosen) / (time.perf_counter() - began)

    return side, models.operations(network, training=True)


def padded(batch: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Rows side by side, as `DataCollatorWithPadding` puts them."""
    rows = [torch.tensor(row["input_ids"]) for row in batch]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=models.PAD)
    mask = (torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.zeros(len(rows), dtype=torch.long)}


class _Clock(TrainerCallback):
    """Notes when the first of the steps begins that count."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.began = device, 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == WARM:
            settle(self.device)
            self.began = time.perf_counter()


def their_training(config: Any, texts: list[list[int]], batch: int, lora: bool) -> Callable[[int], float]:
    """A side that trains by transformers' Trainer."""
    model, rows = models.plain(config, lora=lora), [{"input_ids": text} for text in texts]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def side(turn: int) -> float:
        # Which rows the first steps took is not known: they are held to have taken their share of the tokens.
        clock, steps = _Clock(device), -(-len(texts) // batch)
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=batch,
                bf16=True,
                use_cpu=device.type == "cpu",
                learning_rate=1e-5,
                seed=turn,
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            )
            trainer = Trainer(
                model=model, args=arguments, train_dataset=cast(Any, rows), data_collator=padded, callbacks=[clock]
            )
            trainer.train()
            settle(device)
            taken = time.perf_counter() - clock.began
        return sum(map(len, texts)) * (steps - WARM) / steps / taken

    return side


def our_scoring(config: Any, texts: list[list[int]], device: torch.device) -> Callable[[int], float]:
    """A side that scores as the engine does on a GPU."""
    network = models.ours(config, lora=False).eval()
    tokenizer = SimpleNamespace(pad_token_id=models.PAD)
    backend = TorchBackend.placed(Checkpoint(network, tokenizer, cast(Any, None)), device.type, "bfloat16")
    items = [Encoded(text) for text in texts]
    limits = Limits.for_device(cast(Any, device.type))

    def side(turn: int) -> float:
        began = time.perf_counter()
        for chosen in plan([len(item) for item in items], limits):
            backend.forward([items[i] for i in chosen])
        return len(items) / (time.perf_counter() - began)

    return side


def their_scoring(config: Any, texts: list[list[int]], device: torch.device) -> Callable[[int], float]:
    """A side that scores padded batches, the longest first, as sentence-transformers' CrossEncoder does."""
    model = models.plain(config, lora=False).to(device, torch.bfloat16).eval()
    rows = [{"input_ids": text} for text in sorted(texts, key=len, reverse=True)]

    @torch.inference_mode()
    def side(turn: int) -> float:
        began, found = time.perf_counter(), list[torch.Tensor]()
        for start in range(0, len(rows), _PEER_BATCH):
            given = padded(rows[start : start + _PEER_BATCH])
            del given["labels"]
            found.append(model(**{name: value.to(device) for name, value in given.items()}).logits)
        torch.cat(found).float().cpu()
        return len(rows) / (time.perf_counter() - began)

    return side
