"""What `auto` means: the numbers used when the user names none, from the data and the model."""

import os
from typing import Literal

import torch

from training.config import TrainConfig

_REFERENCE_HIDDEN = 384
_REFERENCE_RATE = 1e-4


def resolve(config: TrainConfig, *, rows: int, hidden: int, max_length: int, on_gpu: bool) -> TrainConfig:
    """Replace every `auto` by a number.

    Measured on the embedded encoder (docs/quality.md): a rate of 1e-4 for its 384 hidden units; wider models
    take smaller steps, an adapter ten times larger ones. The head starts from a linear probe and needs no
    more than the rest. Small files get more passes, so that every run takes a few hundred optimiser steps.

    Args:
        config: the settings as given.
        rows: training rows.
        hidden: hidden units of the backbone.
        max_length: tokens a text may have, already resolved.
        on_gpu: whether there is room for large passes.
    """
    rate = _REFERENCE_RATE * _REFERENCE_HIDDEN / hidden
    if config.lora is not None:
        rate = min(10 * rate, 1e-3)
    rate = rate if config.learning_rate == "auto" else config.learning_rate
    choices = {
        "max_length": max_length,
        "batch_size": 16 if rows < 20_000 else 32,
        "epochs": _epochs(rows),
        "learning_rate": rate,
        "head_learning_rate": rate,
        "freeze_embeddings": rows < 20_000,
        "max_batch_tokens": 65_536 if on_gpu else 8_192,
        "metric": "f1_macro" if config.problem == "multi_label" else "accuracy",
    }
    numbers = {name: value for name, value in choices.items() if getattr(config, name) == "auto"}
    return config.model_copy(update=numbers | {"max_length": max_length})


def mixed_precision(config: TrainConfig) -> Literal["no", "fp16", "bf16"]:
    """Accelerate's name for the precision to train with; weights and optimiser stay in float32."""
    if config.precision != "auto":
        return {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[config.precision]  # type: ignore[return-value]
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")  # how `accelerate launch` passes it on
    if launched in ("fp16", "bf16"):
        return launched
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    able = getattr(torch.cpu, "get_capabilities", dict)()  # the oldest torch allowed may not tell
    return "bf16" if able.get("amx_bf16") or able.get("avx512_bf16") else "no"


def _epochs(rows: int) -> int:
    for limit, epochs in ((500, 10), (2_000, 6), (100_000, 3)):
        if rows < limit:
            return epochs
    return 2
