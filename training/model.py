"""A network ready to be trained: backbone, fresh or inherited head, optional LoRA."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from training.base import default_pooling, is_embedder, longest_input, resolve_base
from training.checkpoint import load_base, load_head
from training.config import LoraSettings, TrainConfig
from training.errors import ConfigError
from training.manifest import Pooling, is_checkpoint, read_manifest
from training.network import Network, make_head
from training.separation import default_cross_layers, separable_layers

_LONGEST = {"classify": 256, "rerank": 512}
"""Tokens of a text, of a pair, unless said otherwise: most of a long text's end adds time but nothing to its label."""


@dataclass(frozen=True)
class Start:
    """Where training starts from."""

    network: Network
    tokenizer: Any
    fresh_head: bool
    """Whether the head is new, rather than that of the checkpoint continued from."""


def build_network(config: TrainConfig, labels: tuple[str, ...], rows: int) -> Start:
    """Load the base named in the config and put a head on it; `labels` are a classifier's, `rows` are to train on.

    A base that is itself a checkpoint of this project is continued from: its adapter is merged, and its head
    is kept when it is of the same task and has the same labels in the same order.

    A fresh head's weights follow torch's global seed.

    Raises:
        ModelError: the base is not found or not loadable.
        ConfigError: LoRA target modules that the backbone does not have.
    """
    folder = resolve_base(config.base_model)
    backbone, tokenizer = load_base(folder, attention_dropout=has_attention_dropout(config))
    if backbone.config.pad_token_id is None:
        backbone.config.pad_token_id = tokenizer.pad_token_id
    if config.lora is not None:
        backbone = add_lora(backbone, config.lora)
    head = make_head(backbone, config.task, len(labels))
    earlier = read_manifest(folder) if is_checkpoint(folder) else None
    inherits = earlier is not None and (earlier.task, earlier.labels) == (config.task, labels)
    if inherits:
        load_head(head, folder)
    elif isinstance(head, nn.Linear):
        nn.init.normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
    cross_layers = choose_cross_layers(config, backbone, folder, rows) if config.task == "rerank" else None
    network = Network(backbone, choose_pooling(config, folder), head, config.dropout, cross_layers)
    return Start(network, tokenizer, not inherits)


def has_attention_dropout(config: TrainConfig) -> bool:
    """Whether to train with the base's attention dropout: as asked, else for classifiers, whose texts are short."""
    return config.task == "classify" if config.attention_dropout == "auto" else config.attention_dropout


def choose_pooling(config: TrainConfig, folder: Path) -> Pooling:
    """The pooling asked for, that of the checkpoint continued from, or what the base was made for."""
    if config.pooling != "auto":
        return config.pooling
    return read_manifest(folder).pooling if is_checkpoint(folder) else default_pooling(folder)


def choose_cross_layers(config: TrainConfig, backbone: Any, folder: Path, queries: int) -> int | None:
    """In how many layers a pair's texts see each other: what was asked for, as the checkpoint has it, or as suits.

    Raises:
        ConfigError: a number was given for a backbone that cannot keep texts apart, or has fewer layers.
    """
    if config.cross_layers == "auto":
        if is_checkpoint(folder) and read_manifest(folder).task == "rerank":
            return read_manifest(folder).cross_layers
        return default_cross_layers(backbone, queries, embedder=is_embedder(folder))
    layers = separable_layers(backbone)
    kind = backbone.config.model_type
    if config.cross_layers is not None and not layers:
        raise ConfigError(f"cross_layers {config.cross_layers}: texts cannot be kept apart in this {kind}; set null")
    if config.cross_layers is not None and config.cross_layers > layers:
        raise ConfigError(f"cross_layers {config.cross_layers} is more than this {kind} allows ({layers}); set null")
    return config.cross_layers


def choose_max_length(config: TrainConfig, backbone: Any, tokenizer: Any) -> int:
    """Tokens a text may have.

    Raises:
        ConfigError: more was asked for than the base's position embeddings allow.
    """
    limit = longest_input(backbone, tokenizer)
    if config.max_length == "auto":
        return min(limit, _LONGEST[config.task])
    if config.max_length > limit:
        raise ConfigError(f"max_length {config.max_length} is more than {config.base_model} takes ({limit}); lower it")
    return config.max_length


def add_lora(backbone: Any, settings: LoraSettings) -> Any:
    """Freeze a backbone and give its linear layers adapters.

    Raises:
        ConfigError: a target module that the backbone does not have; the message lists those it has.
    """
    names = sorted({name.rsplit(".", 1)[-1] for name, module in backbone.named_modules() if _is_linear(module)})
    wanted = names if settings.target_modules == "auto" else list(settings.target_modules)
    if missing := sorted(set(wanted) - set(names)):
        raise ConfigError(f"lora.target_modules: {', '.join(missing)} not in this backbone; it has {', '.join(names)}")
    return get_peft_model(
        backbone,
        LoraConfig(
            r=settings.r,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=wanted,
            use_dora=settings.use_dora,
        ),
    )


def freeze_embeddings(network: Network) -> None:
    """Keep the word embeddings out of training: half of a small encoder's weights, and most of them never seen."""
    network.backbone.get_input_embeddings().requires_grad_(False)


def _is_linear(module: nn.Module) -> bool:
    # GPT-2 writes its linear layers as Conv1D, a transposed nn.Linear.
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def decay_groups(network: Network, weight_decay: float, rate: float, head_rate: float) -> list[dict[str, Any]]:
    """AdamW's parameter groups: the head by its own rate, decay on matrices only (norms and biases are vectors)."""
    groups: dict[tuple[bool, bool], list[torch.Tensor]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("head."), parameter.dim() >= 2), []).append(parameter)
    return [
        {
            "params": members,
            "lr": head_rate if is_head else rate,
            "weight_decay": weight_decay if is_matrix else 0.0,
        }
        for (is_head, is_matrix), members in groups.items()
    ]
