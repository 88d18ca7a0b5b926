"""The GPU benchmark, tried out with tiny models."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from benchmarks import gpu, gpu_models

LAYER = re.compile(r"\.layers?\.\d")


@pytest.fixture(autouse=True)
def new_state() -> None:
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_every_kind_of_work_is_measured(tmp_path: Path) -> None:
    flags = ["--tiny", "--lengths", "atis", "--batch", "4", "--steps", "2", "--runs", "2", "--out", str(tmp_path)]
    assert gpu.main([*flags, "--models", "MiniLM-L6", "Qwen2-0.5B"]) == 0
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert len(record["lines"]) == 2 * 3  # full, LoRA, scoring
    for line in record["lines"]:
        assert len(line["ours"]) == len(line["theirs"]) == 2
        assert min(line["ours"] + line["theirs"]) > 0
    table = (tmp_path / "gpu.md").read_text()
    assert table.count("| Trainer |") == 4
    assert table.count("| padded SDPA |") == 2


@pytest.mark.parametrize("name", gpu_models.CONFIGS)
def test_both_sides_train_the_same_number_of_matrices(name: str) -> None:
    config = gpu_models.configuration(name, tiny=True)
    for lora in (False, True):
        mine, theirs = gpu_models.ours(config, lora=lora), gpu_models.plain(config, lora=lora)
        counts = [sum(bool(LAYER.search(name)) for name, _ in model.named_parameters()) for model in (mine, theirs)]
        assert counts[0] == counts[1] > 0
        assert any(p.requires_grad for p in theirs.parameters())
        full = gpu_models.operations(mine, training=True) / gpu_models.operations(mine, training=False)
        assert full == pytest.approx(3) if not lora else 2 < full < 3


def test_lengths_are_drawn_as_the_data_has_them() -> None:
    lengths = gpu_models.drawn_lengths("wikiqa", 20_000, np.random.default_rng(1))
    assert lengths.mean() == pytest.approx(38.7, abs=1)
    assert lengths.max() <= 339
