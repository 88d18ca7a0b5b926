"""Texts without padding give what padded texts give, in every family."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.tiny import DECODERS, FAMILIES, make_base
from training.attention import attend
from training.base import load_backbone
from training.config import LoraSettings
from training.engine.encoding import Encoded
from training.engine.tensors import pad
from training.model import add_lora
from training.network import Network, PairHead
from training.unpadded import flatten, may_be_unpadded

CPU = torch.device("cpu")
UNPADDED = [family for family in FAMILIES if family != "deberta-v2"]
LENGTHS = (3, 60, 5, 31, 5, 1, 40)


def items(pairs: bool) -> list[Encoded]:
    return [
        Encoded([5 + (7 * n + k) % 60 for k in range(length)], max(1, length // 3) if pairs else 0)
        for n, length in enumerate(LENGTHS)
        if length > 1 or not pairs
    ]


def outcome(network: Network, texts: list[Encoded], unpadded: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits, and the gradient of each weight."""
    network.zero_grad()
    if unpadded:
        logits = network(flatten([text.ids for text in texts], [text.split for text in texts], CPU))
    else:
        logits = network(*pad(texts, 1, CPU))
    (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
    return logits.detach(), [p.grad.clone() for p in network.parameters() if p.grad is not None]


def check(network: Network, texts: list[Encoded]) -> None:
    padded, wanted = outcome(network.eval(), texts, unpadded=False)
    found, gradients = outcome(network, texts, unpadded=True)
    assert torch.allclose(found, padded, atol=1e-5)
    assert len(gradients) == len(wanted) > 1
    for mine, theirs in zip(gradients, wanted, strict=True):
        # A gradient sums over many tokens: what rounding leaves of it goes with its largest number.
        assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max().clamp(min=1)


def network_of(folder: Path, family: str, head: nn.Module, *given: Any, lora: bool = False) -> Network:
    backbone = load_backbone(make_base(folder, family))
    if backbone.config.pad_token_id is None:
        backbone.config.pad_token_id = 1
    # Weights as far from nothing as trained ones, so that what a token sees tells in its state.
    torch.manual_seed(1)
    for parameter in backbone.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.2)
    return Network(add_lora(backbone, LoraSettings(r=2)) if lora else backbone, *given[:1], head, 0.0, *given[1:])


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("family", UNPADDED)
def test_texts(family: str, lora: bool, tmp_path: Path) -> None:
    pooling = "last" if family in DECODERS else "mean" if lora else "first"
    check(network_of(tmp_path, family, nn.Linear(32, 3), pooling, lora=lora), items(pairs=False))


@pytest.mark.parametrize("family", UNPADDED)
def test_pairs(family: str, tmp_path: Path) -> None:
    check(network_of(tmp_path, family, PairHead(32), "last" if family in DECODERS else "mean"), items(pairs=True))


@pytest.mark.parametrize("cross_layers", [0, 1])
@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "distilbert", "electra"])
def test_pairs_kept_apart(family: str, cross_layers: int, tmp_path: Path) -> None:
    check(network_of(tmp_path, family, PairHead(32), "mean", cross_layers), items(pairs=True))


def test_deberta_is_padded(tmp_path: Path) -> None:
    assert not may_be_unpadded(load_backbone(make_base(tmp_path, "deberta-v2")))


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=9),
    st.booleans(),
    st.sampled_from([None, 1, 3, 100]),
    st.sampled_from([1, 2]),
)
def test_attention_is_that_of_each_text_alone(lengths: list[int], causal: bool, window: int | None, fewer: int) -> None:
    torch.manual_seed(0)
    total, heads, width = sum(lengths), 4, 8
    query, key, value = (torch.randn(1, n, total, width) for n in (heads, heads // fewer, heads // fewer))
    runs = flatten([[1] * length for length in lengths], [0] * len(lengths), CPU).together
    found, _ = attend(nn.Module(), query, key, value, None, runs=runs, is_causal=causal, sliding_window=window)
    start = 0
    for length in lengths:
        here = slice(start, start + length)
        distance = torch.arange(length)[:, None] - torch.arange(length)
        seen = (distance >= 0) | (not causal)
        seen &= torch.tensor(True) if window is None else distance.abs() < window
        parts = (each[:, :, here] for each in (query, key, value))
        wanted = nn.functional.scaled_dot_product_attention(*parts, attn_mask=seen, enable_gqa=True)
        assert torch.allclose(found[:, here], wanted.transpose(1, 2), atol=1e-5)
        start += length
