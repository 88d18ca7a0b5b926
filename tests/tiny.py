"""Tiny, real, randomly initialised models of every family, made in a moment on disk."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

FAMILIES = (
    "bert",
    "roberta",
    "xlm-roberta",
    "distilbert",
    "electra",
    "deberta-v2",
    "modernbert",
    "gpt2",
    "llama",
    "qwen2",
    "qwen3",
)
DECODERS = ("gpt2", "llama", "qwen2", "qwen3")

WORDS = (
    "a an and at be bill broken card charge charged closes crash do for friday from hello help i in invoice is it late "
    "my no not of on open order package parcel pay please refund screen ship slow stuck the this to today track twice "
    "want was week where with yes you your"
).split()

_SHAPE: dict[str, dict[str, Any]] = {
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "electra": {"embedding_size": 32},
    "roberta": {"type_vocab_size": 1, "max_position_embeddings": 66},
    "xlm-roberta": {"type_vocab_size": 1, "max_position_embeddings": 66},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
    "modernbert": {"local_attention": 16, "global_attn_every_n_layers": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "llama": {"num_key_value_heads": 1},
    "qwen2": {"num_key_value_heads": 1},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 16},
}


def make_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A word tokenizer with letters as fall-back; encoders put their special tokens around a text."""
    pieces = [*WORDS, *"abcdefghijklmnopqrstuvwxyz0123456789.,!?'-", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    first = ["<s>", "<pad>", "</s>", "<unk>"] if "roberta" in family else ["<pad>", "<s>", "</s>", "<unk>"]
    first += ["<|endoftext|>"]  # the pad token that transformers gives every Qwen tokenizer
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*first, *pieces]))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if family not in DECODERS:
        ids = [("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> $B </s>", ids)
    pad = {} if family in DECODERS else {"pad_token": "<pad>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", model_max_length=64, **pad
    )


def make_base(folder: Path, family: str = "bert", seed: int = 0) -> Path:
    """Save a base model with its tokenizer, some tens of thousands of weights, and return its folder."""
    tokenizer = make_tokenizer(family)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    shape |= {"max_position_embeddings": 64}
    if family in ("distilbert", "gpt2"):
        shape = {}
    special = {"pad_token_id": None} if family in DECODERS else {"pad_token_id": tokenizer.pad_token_id}
    special |= {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    if family == "modernbert":
        special |= {"cls_token_id": 1, "sep_token_id": 2}
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **{**shape, **special, **_SHAPE[family]})
    torch.manual_seed(seed)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
