"""Every family trains, saves, loads and scores, with all its weights and with an adapter."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import DECODERS, FAMILIES, make_base
from tests.training.conftest import topic_rows
from training.config import LoraSettings, TrainConfig
from training.engine import Engine
from training.train import run

STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260k"


def train(base: Path, folder: Path, lora: LoraSettings | None) -> Engine:
    file = folder / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in topic_rows(40)))
    config = TrainConfig(
        train_file=str(file),
        output_dir=str(folder / "run"),
        base_model=str(base),
        lora=lora,
        epochs=2,
        learning_rate=1e-3,
    )
    return Engine.load(run(config))


@pytest.mark.parametrize("lora", [None, LoraSettings(r=2)], ids=["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_family(family: str, lora: LoraSettings | None, tmp_path: Path) -> None:
    engine = train(make_base(tmp_path / "base", family), tmp_path, lora)
    assert engine.manifest.pooling == ("last" if family in DECODERS else "first")
    texts = ["where is my parcel", "refund", "the screen is slow and stuck and slow " * 12]
    items = engine.encode(texts)
    assert max(map(len, items)) <= engine.manifest.max_length
    together = engine.forward(items)
    alone = np.concatenate([engine.forward([item]) for item in items])
    assert np.isfinite(together).all()
    assert np.abs(together - alone).max() <= 1e-4
    history = json.loads((tmp_path / "run" / "metrics.json").read_text())["history"]
    assert history[-1]["loss"] < 1.2  # it was 1.1 for a guess among three


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs the real tiny Llama in ../shared/models/stories260k")
@pytest.mark.parametrize("lora", [None, LoraSettings(r=8)], ids=["full", "lora"])
def test_a_real_decoder(lora: LoraSettings | None, tmp_path: Path) -> None:
    engine = train(STORIES, tmp_path, lora)
    assert engine.manifest.pooling == "last"
    probs = engine.probabilities(engine.score(engine.encode(["where is my parcel", ""])))
    assert probs.sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
