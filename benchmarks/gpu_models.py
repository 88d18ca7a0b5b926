"""The models and texts of `benchmarks/gpu.py`: random weights and random tokens, of sizes and lengths as real ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from training.config import LoraSettings
from training.model import add_lora
from training.network import Network, make_head

LABELS = 2
PAD = 0
_FIRST_WORD = 5

CONFIGS: dict[str, dict[str, Any]] = {
    "MiniLM-L6": {
        "model_type": "bert",
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "BERT-base": {"model_type": "bert"},
    "ModernBERT-base": {"model_type": "modernbert"},
    "Qwen2-0.5B": {
        "model_type": "qwen2",
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
    },
}
"""What differs from the family's own defaults."""
_TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 500,
}
"""Instead, to try the benchmark."""

LENGTHS = {"atis": (2.57, 0.32, 42), "wikiqa": (3.58, 0.38, 339), "trec_dl19": (4.51, 0.36, 268)}
"""Mean and deviation of the logarithm of the tokens of a text or pair, and the most of them, by MiniLM's tokenizer."""
_FILES = {"atis": "atis/train.jsonl", "wikiqa": "wikiqa/train.jsonl", "trec_dl19": "trec_dl19/bm25_top100.jsonl"}


def configuration(name: str, *, tiny: bool) -> Any:
    """The configuration of one of `CONFIGS`; its attention leaves nothing out, as that of the decoders never does."""
    given = CONFIGS[name] | {"pad_token_id": PAD, "num_labels": LABELS, "attention_probs_dropout_prob": 0.0}
    if given["model_type"] == "modernbert":
        given |= {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    if tiny:
        given |= _TINY | ({"num_key_value_heads": 1} if "num_key_value_heads" in given else {})
    return AutoConfig.for_model(given.pop("model_type"), **given)


def ours(config: Any, *, lora: bool) -> Network:
    """A network of this project."""
    torch.manual_seed(0)
    backbone: Any = AutoModel.from_config(config)
    backbone = add_lora(backbone, LoraSettings(lora_dropout=0.0)) if lora else backbone
    pooling = "last" if config.model_type == "qwen2" else "first"
    return Network(backbone, pooling, make_head(backbone, "classify", LABELS))


def plain(config: Any, *, lora: bool) -> Any:
    """The same by transformers, as its Trainer is given it."""
    torch.manual_seed(0)
    model: Any = AutoModelForSequenceClassification.from_config(config)
    if lora:
        within = model.base_model_prefix
        setattr(model, within, add_lora(getattr(model, within), LoraSettings(lora_dropout=0.0)))
    return model


def texts(name: str, count: int, vocabulary: int, data: Path | None) -> list[list[int]]:
    """Token ids of texts or pairs as long as those of a data set: of its files, or drawn."""
    rng = np.random.default_rng(0)
    lengths = drawn_lengths(name, count, rng) if data is None else real_lengths(name, count, data)
    return [rng.integers(_FIRST_WORD, vocabulary, length).tolist() for length in lengths]


def drawn_lengths(name: str, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Lengths by the distribution in `LENGTHS`."""
    mean, deviation, most = LENGTHS[name]
    return np.exp(rng.normal(mean, deviation, count)).round().clip(4, most).astype(np.int64)


def real_lengths(name: str, count: int, data: Path) -> NDArray[np.int64]:
    """Lengths of the texts in a data set's file, from words: MiniLM makes about 1.3 tokens of one."""
    words: list[int] = []
    with (data / _FILES[name]).open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            query = len(row["query"].split()) if "query" in row else 0
            passages = row.get("docs") or [*row.get("relevant_passages", ()), *row.get("hard_negatives", ())]
            words += [query + len(passage.split()) for passage in passages] or [len(row["text"].split())]
    chosen = np.random.default_rng(0).choice(words, count)
    return (1.3 * chosen + 2).round().clip(4, LENGTHS[name][2]).astype(np.int64)


def operations(network: Network, *, training: bool) -> float:
    """Floating-point operations for a token: two for each weight of a matrix that a product uses, and as many again
    for the gradient of the inputs, and of each weight that is trained. Attention's own products are left out."""
    matrices = [m.weight for m in network.backbone.modules() if isinstance(m, torch.nn.Linear)]
    passes = [1 + training + (training and weight.requires_grad) for weight in matrices]
    return float(sum(2 * count * weight.numel() for count, weight in zip(passes, matrices, strict=True)))
