"""What is written is what is read: full weights, adapters, and folders that are not what they should be."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from tests.tiny import make_base
from training.base import EMBEDDED, hash_weights, load_backbone, load_tokenizer, resolve_base
from training.checkpoint import Checkpoint, load_base, load_checkpoint, load_embedder, save_checkpoint
from training.config import LoraSettings
from training.errors import ModelError
from training.manifest import Manifest, is_checkpoint, read_manifest
from training.model import add_lora
from training.network import Network, make_head
from training.text import TextRules

IDS = torch.tensor([[1, 9, 12, 30, 2], [1, 7, 2, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
LABELS = ("billing", "größe: 1", " shipping")


def make_checkpoint(base: Path, *, lora: bool = False, seed: int = 0) -> Checkpoint:
    """A base with a random head, and with an adapter that changes something."""
    torch.manual_seed(seed)
    backbone = load_backbone(base)
    if lora:
        backbone = add_lora(backbone, LoraSettings(r=2))
        for name, parameter in backbone.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
    manifest = Manifest(
        problem_type="multi_label_classification",
        labels=LABELS,
        surfaces={"billing": " billing"},
        rules=TextRules(separator="\n%%\n", label_suffix=" END"),
        max_length=48,
        pooling="mean",
        temperature=1.5,
        thresholds=(0.25, 0.5, 0.75),
        base_model=str(base),
        base_sha256=hash_weights(base) if lora else None,
        adapter=lora,
        created_at=datetime.now(UTC),
        versions={"torch": "2"},
        metrics={"accuracy": 0.5},
    )
    return Checkpoint(
        Network(backbone, "mean", make_head(backbone, "classify", 3)).eval(), load_tokenizer(base), manifest
    )


def saved(folder: Path, base: Path, *, lora: bool = False) -> Path:
    save_checkpoint(folder, make_checkpoint(base, lora=lora))
    return folder


def outputs(checkpoint: Checkpoint) -> Tensor:
    with torch.inference_mode():
        return checkpoint.network(IDS, MASK, torch.zeros(len(IDS), dtype=torch.long))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def own_base(tmp_path: Path) -> Path:
    """A base that a test may break."""
    return make_base(tmp_path / "base")


@pytest.mark.parametrize("lora", [False, True])
def test_what_is_saved_is_what_is_loaded(base: Path, tmp_path: Path, lora: bool) -> None:
    before = make_checkpoint(base, lora=lora)
    save_checkpoint(tmp_path / "checkpoint", before)
    after = load_checkpoint(tmp_path / "checkpoint")
    torch.testing.assert_close(outputs(after), outputs(before), atol=1e-5, rtol=0)
    assert after.manifest == before.manifest == read_manifest(tmp_path / "checkpoint")
    assert after.tokenizer("late order")["input_ids"] == before.tokenizer("late order")["input_ids"]
    assert not after.network.training


def test_an_adapter_changes_the_outputs_and_is_saved_alone(base: Path, tmp_path: Path) -> None:
    plain, adapted = make_checkpoint(base), make_checkpoint(base, lora=True)
    adapted.network.head.load_state_dict(plain.network.head.state_dict())
    assert (outputs(plain) - outputs(adapted)).abs().max() > 1e-3
    folder = saved(tmp_path / "checkpoint", base, lora=True)
    weights = {path.name for path in folder.rglob("*.safetensors")}
    assert weights == {"adapter_model.safetensors", "head.safetensors"}
    assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) < hash_size(base) / 2


def hash_size(base: Path) -> int:
    return sum(path.stat().st_size for path in base.glob("*.safetensors"))


@pytest.mark.parametrize("lora", [False, True])
def test_weights_are_safetensors_and_nothing_else(base: Path, tmp_path: Path, lora: bool) -> None:
    folder = saved(tmp_path / "checkpoint", base, lora=lora)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {".safetensors", ".json", ".md", ".txt"}


def test_extra_files_are_put_beside_the_weights(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, make_checkpoint(base), {"README.md": "größe\n", "metrics.json": "{}"})
    assert (folder / "README.md").read_text(encoding="utf-8") == "größe\n"
    assert (folder / "metrics.json").is_file()


def test_a_checkpoint_there_is_replaced_whole(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, make_checkpoint(base, lora=True), {"old.txt": "old"})
    second = make_checkpoint(base, seed=5)
    save_checkpoint(folder, second)
    torch.testing.assert_close(outputs(load_checkpoint(folder)), outputs(second), atol=1e-5, rtol=0)
    assert not (folder / "old.txt").exists() and not (folder / "adapter_model.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_failed_save_leaves_the_checkpoint_there(base: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "checkpoint", base)
    before = outputs(load_checkpoint(folder))
    with pytest.raises(FileNotFoundError):
        save_checkpoint(folder, make_checkpoint(base, seed=5), {"missing/folder.txt": "x"})
    assert torch.equal(outputs(load_checkpoint(folder)), before)


def test_transformers_alone_reads_a_full_checkpoint(base: Path, tmp_path: Path) -> None:
    before = make_checkpoint(base)
    save_checkpoint(tmp_path / "checkpoint", before)
    model: Any = AutoModel.from_pretrained(tmp_path / "checkpoint").eval()
    with torch.inference_mode():
        states = model(input_ids=IDS, attention_mask=MASK).last_hidden_state
        expected = before.network.backbone(input_ids=IDS, attention_mask=MASK).last_hidden_state
    torch.testing.assert_close(states, expected)
    assert [model.config.id2label[k] for k in range(3)] == list(LABELS)
    assert model.config.label2id == {label: k for k, label in enumerate(LABELS)}
    assert model.config.problem_type == "multi_label_classification"
    assert len(AutoTokenizer.from_pretrained(tmp_path / "checkpoint")) == len(before.tokenizer)


def test_an_adapter_is_refused_on_a_base_that_has_changed(own_base: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "checkpoint", own_base, lora=True)
    make_base(own_base, seed=9)
    assert "whose weights have changed since" in refusal(folder)


def test_an_adapter_without_its_base_says_which_is_missing(own_base: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "checkpoint", own_base, lora=True)
    shutil.rmtree(own_base)
    assert f"base model {own_base} not found" in refusal(folder)


def test_a_checkpoint_may_be_moved(base: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "checkpoint", base)
    before = outputs(load_checkpoint(folder))
    folder.rename(tmp_path / "moved")
    assert torch.equal(outputs(load_checkpoint(tmp_path / "moved")), before)


@pytest.mark.parametrize("lora", [False, True])
def test_a_checkpoint_serves_as_a_base(base: Path, tmp_path: Path, lora: bool) -> None:
    before = make_checkpoint(base, lora=lora)
    save_checkpoint(tmp_path / "checkpoint", before)
    backbone, _ = load_base(resolve_base(str(tmp_path / "checkpoint")))
    with torch.inference_mode():
        states = backbone(input_ids=IDS, attention_mask=MASK).last_hidden_state
        expected = before.network.backbone(input_ids=IDS, attention_mask=MASK).last_hidden_state
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)


def test_folders_that_are_no_checkpoint_are_named(base: Path, tmp_path: Path) -> None:
    assert "is not a checkpoint: it has no config.json" in refusal(tmp_path)
    assert "does not describe a checkpoint made by training.train" in refusal(base)
    assert not is_checkpoint(base) and not is_checkpoint(tmp_path)
    assert is_checkpoint(saved(tmp_path / "checkpoint", base))


@pytest.mark.parametrize(
    ("lora", "name", "content"),
    [
        (False, "config.json", b"{"),
        (False, "config.json", b"[]"),
        (False, "config.json", b"\xff\xfe"),
        (False, "model.safetensors", None),
        (False, "model.safetensors", b"garbage"),
        (False, "model.safetensors", 500),
        (False, "head.safetensors", None),
        (False, "head.safetensors", b"garbage"),
        (False, "tokenizer.json", b"{"),
        (True, "adapter_model.safetensors", None),
        (True, "adapter_model.safetensors", b"garbage"),
        (True, "adapter_model.safetensors", 500),
        (True, "adapter_config.json", None),
        (True, "adapter_config.json", b"{"),
    ],
)
def test_a_broken_file_is_a_line_that_names_the_folder(
    base: Path, tmp_path: Path, lora: bool, name: str, content: bytes | int | None
) -> None:
    folder = saved(tmp_path / "checkpoint", base, lora=lora)
    path = folder / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:content] if isinstance(content, int) else content)
    assert str(folder) in refusal(folder)


def test_a_manifest_with_a_wrong_value_is_refused(base: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "checkpoint", base)
    config = json.loads((folder / "config.json").read_text())
    for change in ({"pooling": "max"}, {"max_length": "many"}, {"surprise": 1}):
        (folder / "config.json").write_text(json.dumps(config | {"encore": config["encore"] | change}))
        assert "does not describe a checkpoint" in refusal(folder)


def test_a_head_of_another_shape_is_refused(base: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "checkpoint", base)
    config = json.loads((folder / "config.json").read_text())
    config["encore"]["labels"] = ["only", "two"]
    (folder / "config.json").write_text(json.dumps(config))
    assert "the head cannot be read" in refusal(folder)


def test_the_embedded_encoder_is_found_by_its_names() -> None:
    folder = resolve_base(EMBEDDED)
    assert resolve_base("all-MiniLM-L6-v2") == folder
    embedder = load_embedder(EMBEDDED)
    assert (embedder.manifest.task, embedder.manifest.pooling, embedder.manifest.max_length) == ("embed", "mean", 512)


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no-such-model", "a/b/c", "runs/x/checkpoint", ""])
def test_an_unknown_base_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as caught:
        resolve_base(name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_base_without_safetensors_is_refused(own_base: Path) -> None:
    (own_base / "model.safetensors").rename(own_base / "pytorch_model.bin")
    with pytest.raises(ModelError, match="has no safetensors weights"):
        resolve_base(str(own_base))
    (own_base / "config.json").unlink()
    with pytest.raises(ModelError, match="has no config"):
        resolve_base(str(own_base))


def test_the_hash_follows_the_weights(own_base: Path) -> None:
    before = hash_weights(own_base)
    (own_base / "README.md").write_text("new")
    assert hash_weights(own_base) == before
    make_base(own_base, seed=4)
    assert hash_weights(own_base) != before
