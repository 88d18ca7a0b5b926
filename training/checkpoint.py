"""Writer and reader of a checkpoint folder; `training.manifest` says what lies in it."""

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from training.atomic import replace_folder
from training.base import default_pooling, hash_weights, load_backbone, load_tokenizer, longest_input, resolve_base
from training.errors import ModelError
from training.manifest import Manifest, is_checkpoint, read_manifest
from training.network import Network, UnitLength, make_head


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory."""

    network: Network
    tokenizer: Any
    manifest: Manifest


def save_checkpoint(
    folder: Path, checkpoint: Checkpoint, extra: dict[str, str] | None = None, keep: tuple[str, ...] = ()
) -> None:
    """Write a checkpoint folder in one step: readers see the old one or the new one, whole.

    Args:
        folder: where it goes; a checkpoint already there is replaced.
        checkpoint: network, tokenizer and manifest.
        extra: further text files by name, such as the model card.
        keep: subfolders of the checkpoint already there that belong to the new one too.
    """

    def write(staged: Path) -> None:
        network, manifest = checkpoint.network, checkpoint.manifest
        backbone: Any = network.backbone
        backbone.save_pretrained(staged)
        if manifest.adapter:
            backbone.get_base_model().config.save_pretrained(staged)
        save_file({k: v.contiguous() for k, v in network.head.state_dict().items()}, staged / "head.safetensors")
        checkpoint.tokenizer.save_pretrained(staged)
        _describe(staged, manifest)
        for name, text in (extra or {}).items():
            (staged / name).write_text(text, encoding="utf-8")
        for name in keep:
            if (folder / name).is_dir():
                shutil.copytree(folder / name, staged / name)

    replace_folder(folder, write)


def _describe(folder: Path, manifest: Manifest) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if manifest.labels:
        config["id2label"] = {str(i): label for i, label in enumerate(manifest.labels)}
        config["label2id"] = {label: i for i, label in enumerate(manifest.labels)}
    config["problem_type"] = manifest.problem_type
    config["encore"] = manifest.model_dump(mode="json")
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder; a LoRA adapter is merged into its base.

    Raises:
        ModelError: not a checkpoint, incomplete, or an adapter whose base has changed or is gone.
    """
    manifest = read_manifest(folder)
    backbone = _adapted(folder, manifest) if manifest.adapter else load_backbone(folder)
    head = make_head(backbone, manifest.task, len(manifest.labels))
    network = Network(backbone, manifest.pooling, head, cross_layers=manifest.cross_layers)
    load_head(network.head, folder)
    return Checkpoint(network.eval(), load_tokenizer(folder), manifest)


def load_head(head: nn.Module, folder: Path) -> None:
    """Fill a head with the weights of a checkpoint folder.

    Raises:
        ModelError: they are missing, broken, or of another shape.
    """
    try:
        head.load_state_dict(load_file(folder / "head.safetensors"))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{folder}: the head cannot be read ({str(error).splitlines()[0]})") from None


def load_base(folder: Path, *, attention_dropout: bool = True) -> tuple[Any, Any]:
    """Backbone and tokenizer of a base folder; an earlier checkpoint may serve as one, its adapter merged.

    A checkpoint has the attention dropout it was trained with.

    Raises:
        ModelError: the folder cannot be loaded.
    """
    if is_checkpoint(folder):
        earlier = load_checkpoint(folder)
        return earlier.network.backbone, earlier.tokenizer
    return load_backbone(folder, attention_dropout=attention_dropout), load_tokenizer(folder)


def _adapted(folder: Path, manifest: Manifest) -> Any:
    base = resolve_base(manifest.base_model)
    if manifest.base_sha256:
        manifest.check_base(folder, hash_weights(base))
    backbone = load_base(base)[0]
    try:
        # An absolute path, since PEFT asks the Hub for what it does not find under a relative one.
        model: Any = PeftModel.from_pretrained(backbone, str(folder.resolve()))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: the adapter cannot be read ({str(error).splitlines()[0]})") from None
    return model.merge_and_unload()


def load_embedder(base_model: str) -> Checkpoint:
    """Load a frozen base, or the base under an earlier checkpoint's head: its network gives vectors of length one.

    Raises:
        ModelError: the base is not found or not loadable.
    """
    folder = resolve_base(base_model)
    backbone, tokenizer = load_base(folder)
    pooling = read_manifest(folder).pooling if is_checkpoint(folder) else default_pooling(folder)
    manifest = Manifest(
        task="embed",
        problem_type=None,
        labels=(),
        max_length=min(longest_input(backbone, tokenizer), 512),
        pooling=pooling,
        base_model=base_model,
        created_at=datetime.now(UTC),
    )
    return Checkpoint(Network(backbone, pooling, UnitLength()).eval(), tokenizer, manifest)
