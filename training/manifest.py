"""What a checkpoint says about itself, readable without loading a weight.

A checkpoint is a folder:

    config.json          the backbone's Hugging Face configuration, with the manifest under "encore"
    model.safetensors    the backbone (full fine-tuning), or
    adapter_*            the PEFT adapter alone (LoRA); the base is named, with its hash, in the manifest
    head.safetensors     the head
    tokenizer.json, ...  the tokenizer
    train_config.yaml    the run's settings with every `auto` resolved
    metrics.json         what was measured
    README.md            the model card
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.errors import ModelError
from training.text import TextRules

Task = Literal["classify", "rerank", "embed"]
ProblemType = Literal["single_label_classification", "multi_label_classification"]
Pooling = Literal["first", "mean", "last"]


class Manifest(BaseModel):
    """Everything scoring needs beside the weights: the same values for evaluation and serving."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task = "classify"
    problem_type: ProblemType | None
    labels: tuple[str, ...]
    surfaces: dict[str, str] = Field(default_factory=dict)
    """Label to the form it most often had in the training file, e.g. " hockey" for "hockey"."""
    rules: TextRules = TextRules()
    max_length: int
    """Tokens a text may have, special tokens included; longer ones are cut."""
    pooling: Pooling
    cross_layers: int | None = None
    """Rerank: in how many of the uppermost layers query and passage see each other; None: in all."""
    temperature: float = 1.0
    """Logits are divided by it before softmax or sigmoid (Guo et al. 2017, arXiv:1706.04599)."""
    bias: float = 0.0
    """Rerank: added after that, so that 0.5 lies where relevant and other passages are equally likely (Platt 1999)."""
    thresholds: tuple[float, ...] | None = None
    """Multi-label: a label is predicted when its probability reaches its own threshold."""
    base_model: str
    """The name the run was given: a Hub id, a folder, or the embedded encoder."""
    base_sha256: str | None = None
    """Hash of the base's weights; an adapter is refused on any other base."""
    adapter: bool = False
    """Whether the weights are a LoRA adapter to be put on the base."""
    created_at: datetime
    versions: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    """Headline figures of the evaluation rows; the whole table is in metrics.json."""

    @property
    def multi_label(self) -> bool:
        """Whether a text may carry any number of labels."""
        return self.problem_type == "multi_label_classification"

    def check_base(self, checkpoint: Path, sha256: str | None) -> None:
        """Refuse to put the adapter of a checkpoint folder on a base whose weights have another hash.

        Raises:
            ModelError: they have.
        """
        if self.base_sha256 not in (None, sha256):
            raise ModelError(f"{checkpoint} is an adapter for {self.base_model}, whose weights have changed since")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a checkpoint folder.

    Raises:
        ModelError: `folder` is not a checkpoint of this project.
    """
    path = folder / "config.json"
    try:
        section = json.loads(path.read_text(encoding="utf-8"))["encore"]
        return Manifest.model_validate(section)
    except FileNotFoundError:
        raise ModelError(f"{folder} is not a checkpoint: it has no config.json") from None
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "no section 'encore'"
        raise ModelError(f"{path} does not describe a checkpoint made by training.train ({detail})") from None


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder was written by this project, rather than being a plain base model."""
    path = folder / "config.json"
    return path.is_file() and '"encore"' in path.read_text(encoding="utf-8")
