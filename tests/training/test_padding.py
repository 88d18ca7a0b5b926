"""Which networks are trained without padding."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from tests.tiny import make_base
from training.base import load_backbone
from training.config import validate_config
from training.engine.trial import difference, why_padded
from training.errors import ConfigError
from training.network import Network, make_head
from training.padding import choose_unpadded

CPU = torch.device("cpu")


def network(folder: Path, family: str, task: Any = "classify") -> Network:
    backbone = load_backbone(make_base(folder, family))
    return Network(backbone, "mean", make_head(backbone, task, 3), cross_layers=1 if task == "rerank" else None)


def config(unpadded: Any) -> Any:
    return validate_config({"train_file": "f", "output_dir": "d", "unpadded": unpadded})


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_family_that_gives_the_same_is_trained_without(precision: torch.dtype, tmp_path: Path) -> None:
    for task in ("classify", "rerank"):
        assert why_padded(network(tmp_path / task, "bert", task), CPU, precision) is None


def test_the_choice_is_said_and_can_be_overridden(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "training")
    accelerator = Accelerator(cpu=True)
    bert, deberta = (network(tmp_path / family, family) for family in ("bert", "deberta-v2"))
    assert choose_unpadded(config("auto"), bert, accelerator)
    assert not choose_unpadded(config("auto"), deberta, accelerator)
    assert [record.message for record in caplog.records] == [
        "batches are unpadded",
        "batches are padded: deberta-v2 brings its own attention",
    ]
    assert not choose_unpadded(config(False), bert, accelerator)
    assert not bert.unpadded
    with pytest.raises(ConfigError, match="unpadded true: deberta-v2 brings its own attention"):
        choose_unpadded(config(True), deberta, accelerator)


def test_a_base_that_gives_something_else_is_padded(tmp_path: Path) -> None:
    one = network(tmp_path, "gpt2")
    assert difference(one, CPU) < 1e-4
    for parameter in one.backbone.parameters():
        torch.nn.init.normal_(parameter)
    one.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, "position_ids": None}), with_kwargs=True
    )  # as a family that counts tokens itself
    assert "something else" in str(why_padded(one, CPU, torch.float32))


def test_a_base_that_fails_is_padded(tmp_path: Path) -> None:
    one = network(tmp_path, "bert")

    def refuse(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if "runs" in kwargs:
            raise TypeError("no such keyword")

    one.backbone.register_forward_pre_hook(refuse, with_kwargs=True)
    assert "fails (no such keyword)" in str(why_padded(one, CPU, torch.float32))


def test_the_trial_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    one, state = network(tmp_path, "modernbert").train(), torch.get_rng_state()
    assert difference(one, CPU) < 1e-4
    assert one.training
    assert all(parameter.grad is None for parameter in one.parameters())
    assert torch.equal(state, torch.get_rng_state())
