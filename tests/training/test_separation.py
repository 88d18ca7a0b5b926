"""Pairs in layers where their texts do not see each other."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import make_base
from training.base import load_backbone, load_tokenizer
from training.config import validate_config
from training.engine.encoding import Encoder
from training.engine.tensors import pad
from training.errors import ConfigError
from training.model import choose_cross_layers
from training.network import Network, PairHead
from training.separation import default_cross_layers, layers_of, separable_layers
from training.text import TextRules

FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert", "electra")
PAIRS = [("my card was charged twice", "refund the invoice please"), ("hello", "where is my parcel today"), ("a", "an")]


def states(backbone: Any, encoder: Encoder, texts: list[str]) -> torch.Tensor:
    inputs = pad(encoder.encode(texts), 1, torch.device("cpu"))
    found = backbone(input_ids=inputs.ids, attention_mask=inputs.mask).last_hidden_state
    weights = inputs.mask[..., None].float()
    return (found * weights).sum(1) / weights.sum(1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_texts_kept_apart_throughout_score_their_cosine(family: str, attention: str, tmp_path: Path) -> None:
    folder = make_base(tmp_path / family, family)
    backbone = load_backbone(folder).eval()
    backbone.set_attn_implementation(attention)
    encoder = Encoder.of(load_tokenizer(folder), 40, TextRules())
    with torch.inference_mode():
        first, second = (states(backbone, encoder, list(side)) for side in zip(*PAIRS, strict=True))
        head = PairHead(32)
        wanted = head.scale * torch.nn.functional.cosine_similarity(first, second)
        pairs = encoder.encode_pairs([a for a, _ in PAIRS], [[b] for _, b in PAIRS])
        items = [group[0][0] for group in pairs]
        for cross_layers, same in ((0, True), (1, False), (None, False)):
            network = Network(load_backbone(folder), "mean", head, cross_layers=cross_layers).eval()
            network.backbone.set_attn_implementation(attention)
            found = network(*pad(items, 1, torch.device("cpu")))[:, 0]
            assert torch.allclose(found, wanted, atol=1e-4) == same, cross_layers


@pytest.mark.parametrize(("family", "layers"), [("bert", 2), ("gpt2", 0), ("deberta-v2", 0), ("modernbert", 0)])
def test_only_an_embedder_of_a_known_family_is_kept_apart(family: str, layers: int, tmp_path: Path) -> None:
    backbone = load_backbone(make_base(tmp_path / family, family))
    assert len(layers_of(backbone)) == 2
    assert separable_layers(backbone) == layers
    assert default_cross_layers(backbone, 300, embedder=True) == (0 if layers else None)
    assert default_cross_layers(backbone, 300_000, embedder=True) == (1 if layers else None)
    assert default_cross_layers(backbone, 300, embedder=False) is None


@pytest.mark.parametrize(("family", "asked"), [("bert", 3), ("bert", -1), ("gpt2", 0), ("gpt2", 1)])
def test_more_than_a_backbone_allows_is_refused(family: str, asked: int, tmp_path: Path) -> None:
    folder = make_base(tmp_path / family, family)
    settings = {"task": "rerank", "train_file": "f", "output_dir": "d", "cross_layers": asked}
    with pytest.raises(ConfigError, match="cross_layers"):
        choose_cross_layers(validate_config(settings), load_backbone(folder), folder, 10)
