"""What `auto` means: the numbers used when the user names none, from the data and the model."""

import os
from typing import Literal

import torch

from training.config import TrainConfig
from training.engine.devices import has_fast_bfloat16

_REFERENCE_HIDDEN = 384
_RATES = {"classify": 1e-4, "rerank": 3e-5}
"""Learning rates for so many hidden units."""
_EPOCHS = {
    "classify": ((500, 10), (2_000, 6), (100_000, 3), (None, 2)),
    "rerank": ((1_000, 3), (100_000, 2), (None, 1)),
}
"""Passes by training rows: below the first number, the second."""
_MANY = 20_000
"""Training rows from which steps are larger, and word embeddings worth training."""


def resolve(config: TrainConfig, *, rows: int, hidden: int, max_length: int, on_gpu: bool) -> TrainConfig:
    """Replace every `auto` by a number.

    Measured on the embedded encoder (docs/quality.md): wider models take smaller steps, an adapter ten times larger
    ones. The head starts where the base is and needs no more than the rest. Small files get more passes; a query
    counts for several rows, as its candidates are each a pair, and rankings are overfitted sooner.

    Args:
        config: the settings as given.
        rows: training rows.
        hidden: hidden units of the backbone.
        max_length: tokens a text may have, already resolved.
        on_gpu: whether there is room for large passes.
    """
    rate = _RATES[config.task] * _REFERENCE_HIDDEN / hidden
    if config.lora is not None:
        rate = min(10 * rate, 1e-3)
    rate = rate if config.learning_rate == "auto" else config.learning_rate
    choices = {
        "max_length": max_length,
        "batch_size": 32 if rows >= _MANY else 8 if config.task == "rerank" else 16,
        "epochs": next(epochs for limit, epochs in _EPOCHS[config.task] if limit is None or rows < limit),
        "learning_rate": rate,
        "head_learning_rate": rate,
        "freeze_embeddings": rows < _MANY,
        "max_batch_tokens": 65_536 if on_gpu else 8_192,
        "metric": _metric(config),
    }
    numbers = {name: value for name, value in choices.items() if getattr(config, name) == "auto"}
    return config.model_copy(update=numbers | {"max_length": max_length})


def _metric(config: TrainConfig) -> str:
    if config.task == "rerank":
        return "ndcg@10"
    return "f1_macro" if config.problem == "multi_label" else "accuracy"


def mixed_precision(config: TrainConfig) -> Literal["no", "fp16", "bf16"]:
    """Accelerate's name for the precision to train with; weights and optimiser stay in float32."""
    if config.precision != "auto":
        return {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[config.precision]  # type: ignore[return-value]
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")  # how `accelerate launch` passes it on
    if launched in ("fp16", "bf16"):
        return launched
    return "bf16" if has_fast_bfloat16("cuda" if torch.cuda.is_available() else "cpu") else "no"
