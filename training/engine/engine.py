"""Texts in, numbers out: the one scoring engine of evaluation and serving."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from training.calibration import log_probabilities, probabilities
from training.checkpoint import Checkpoint, load_checkpoint, load_embedder
from training.engine.batching import Limits, plan
from training.engine.encoding import Encoded, Encoder, Truncate
from training.engine.tensors import pad

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16"]
Floats = NDArray[np.float32]


class Engine:
    """A network on a device, with its tokenizer and limits. Only one thread may call `forward` or `score` at a time."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, precision: torch.dtype = torch.float32) -> None:
        """Use a checkpoint's network as it stands, on `device`; `precision` is that of the matrix products."""
        self.manifest, self._network = checkpoint.manifest, checkpoint.network
        self.device, self.precision = device, precision
        self.limits = Limits.for_device(cast(Any, device.type))
        self._pad = int(checkpoint.tokenizer.pad_token_id)
        self.encoder = Encoder(checkpoint.tokenizer, checkpoint.manifest.max_length, checkpoint.manifest.rules)

    @classmethod
    def load(cls, folder: Path, *, device: Device = "auto", precision: Precision = "auto") -> "Engine":
        """Load a checkpoint folder; `forward` then gives logits.

        Raises:
            ModelError: see `training.checkpoint.load_checkpoint`.
        """
        return cls._placed(load_checkpoint(folder), device, precision)

    @classmethod
    def load_embedder(cls, base_model: str, *, device: Device = "auto", precision: Precision = "auto") -> "Engine":
        """Load a frozen base model; `forward` then gives embeddings of length one.

        Raises:
            ModelError: see `training.checkpoint.load_embedder`.
        """
        return cls._placed(load_embedder(base_model), device, precision)

    @classmethod
    def _placed(cls, checkpoint: Checkpoint, device: Device, precision: Precision) -> "Engine":
        chosen = choose_device(device)
        dtype = choose_precision(chosen, precision)
        checkpoint.network.backbone.to(dtype=dtype)
        checkpoint.network.to(device=chosen)
        return cls(checkpoint, chosen, dtype)

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer."""
        return self.encoder.tokenizer

    @property
    def nbytes(self) -> int:
        """Memory of the weights."""
        return sum(p.nbytes for p in self._network.parameters())

    def encode(self, texts: Sequence[str], truncate: Truncate = "END") -> list[Encoded]:
        """Turn texts into ids; any thread may call it. See `Encoder.encode`."""
        return self.encoder.encode(texts, truncate)

    @torch.inference_mode()
    def forward(self, items: Sequence[Encoded]) -> Floats:
        """Run one batch.

        Args:
            items: encoded texts that fit in memory together.

        Returns:
            float32 of shape (items, labels): logits; for an embedder (items, hidden).
        """
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            out = self._network(*pad(items, self._pad, self.device))
        return out.float().cpu().numpy()

    def score(self, items: Sequence[Encoded], limits: Limits | None = None) -> Floats:
        """Run any number of texts in batches of similar length; rows come back in the order of `items`."""
        out: list[Any] = [None] * len(items)
        for batch in plan([len(item) for item in items], limits or self.limits):
            for position, row in zip(batch, self.forward([items[i] for i in batch]), strict=True):
                out[position] = row
        return np.stack(out) if out else np.zeros((0, max(len(self.manifest.labels), 1)), np.float32)

    def probabilities(self, logits: Floats) -> Floats:
        """Calibrated probabilities of logits (n, labels); see `training.calibration.probabilities`."""
        return probabilities(logits, self.manifest.temperature, multi_label=self.manifest.multi_label)

    def log_probabilities(self, logits: Floats) -> NDArray[np.float64]:
        """Calibrated logarithms of single-label logits (n, labels); see `training.calibration.log_probabilities`."""
        return log_probabilities(logits, self.manifest.temperature)


def choose_device(wanted: Device) -> torch.device:
    """The device to use: `auto` takes a GPU where there is one."""
    if wanted != "auto":
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_precision(device: torch.device, wanted: Precision) -> torch.dtype:
    """The dtype of the backbone: `auto` is bfloat16 on a GPU that has it, float32 elsewhere."""
    if wanted == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if wanted == "bfloat16" else torch.float32
