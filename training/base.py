"""Base models: loading the backbone and tokenizer of one; `hub` finds it by name."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING
from transformers.utils import logging as transformers_logging

from training.errors import ModelError
from training.hub import EMBEDDED, resolve_base
from training.manifest import Pooling

__all__ = [
    "EMBEDDED",
    "default_pooling",
    "hash_weights",
    "is_decoder",
    "is_embedder",
    "load_backbone",
    "load_tokenizer",
    "longest_input",
    "resolve_base",
]

_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
"""The families' names for it."""


def load_backbone(folder: Path, *, attention_dropout: bool = True) -> Any:
    """Load the transformer of a base model or checkpoint folder in float32, without any task head.

    Without `attention_dropout` training leaves it out; that of hidden states stays.
    """
    transformers_logging.disable_progress_bar()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # a head left behind, or a pooler not found, is meant
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        for name in _ATTENTION_DROPOUT:
            if not attention_dropout and hasattr(config, name):
                setattr(config, name, 0.0)
        return AutoModel.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder} cannot be loaded as a transformer: {str(error).splitlines()[0]}") from None
    finally:
        transformers_logging.set_verbosity(verbosity)


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a folder; a missing pad token is set (right side), as decoders need for batches."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder} has no usable tokenizer: {str(error).splitlines()[0]}") from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    tokenizer.padding_side = "right"
    return tokenizer


def is_decoder(config: Any) -> bool:
    """Whether attention is causal, so that only the last token has seen the whole text."""
    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING


def is_embedder(folder: Path) -> bool:
    """Whether a base was made for similarity, as its sentence-transformers file tells."""
    return (folder / "1_Pooling" / "config.json").is_file()


def default_pooling(folder: Path) -> Pooling:
    """The pooling a base was made for: its sentence-transformers file, last token of a decoder, else the first."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if is_decoder(config):
        return "last"
    if is_embedder(folder):
        modes = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
        return "mean" if modes.get("pooling_mode_mean_tokens") else "first"
    return "mean" if getattr(config, "classifier_pooling", "cls") == "mean" else "first"


def longest_input(backbone: Any, tokenizer: Any) -> int:
    """Tokens a text may have, special tokens included: the tighter of tokenizer and position embeddings."""
    positions = getattr(backbone.config, "max_position_embeddings", None) or tokenizer.model_max_length
    table: Any = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    first = getattr(table, "padding_idx", None)
    if first is not None:
        positions -= first + 1  # RoBERTa's positions start after the padding index
    return int(min(tokenizer.model_max_length, positions))


def hash_weights(folder: Path) -> str:
    """SHA-256 over a folder's safetensors files in name order."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
