"""Texts in, numbers out: the one scoring engine of evaluation and serving."""

import importlib.util
import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from training.calibration import log_probabilities, probabilities
from training.engine import exports
from training.engine.backend import Backend, Floats
from training.engine.batching import Limits, plan
from training.engine.devices import BackendName, Device, Precision, choose_device, choose_precision
from training.engine.encoding import Encoded, Encoder, Truncate
from training.errors import ModelError
from training.hub import resolve_base
from training.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    import torch

    from training.checkpoint import Checkpoint

log = logging.getLogger(__name__)


class Engine:
    """A network on a device, with its tokenizer and limits. Only one thread may call `forward` or `score` at a time."""

    def __init__(self, manifest: Manifest, encoder: Encoder, backend: Backend, device: str = "cpu") -> None:
        """Join the parts; `device` decides how large batches are."""
        self.manifest, self.encoder, self.backend = manifest, encoder, backend
        self.limits = Limits.for_device(device)

    @classmethod
    def on_torch(
        cls,
        checkpoint: "Checkpoint",
        device: "torch.device",
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> "Engine":
        """Use a checkpoint's network as it stands, on `device`; `precision` is that of the matrix products."""
        from training.engine.torch_backend import TorchBackend

        return cls._around(checkpoint, TorchBackend(checkpoint, device, precision), device.type)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: Device = "auto",
        precision: Precision = "auto",
        backend: BackendName = "auto",
        threads: int | None = None,
    ) -> "Engine":
        """Load a checkpoint folder; `forward` then gives logits.

        Args:
            folder: the checkpoint.
            device: where it runs.
            precision: of the backbone's matrix products; `auto`: what the device is fast in.
            backend: `auto`: OpenVINO on a CPU, torch elsewhere and for networks that OpenVINO cannot run.
            threads: of a CPU, for one forward pass; all by default.

        Raises:
            ModelError: not a checkpoint, incomplete, an adapter whose base has changed or is gone, or a network that
                OpenVINO cannot run where it was asked for.
        """
        manifest = read_manifest(folder)
        place = choose_device(device)
        if found := _exported(folder, "checkpoint", place, backend):
            return _from_export(folder, *found, manifest, precision, threads)
        from training.checkpoint import load_checkpoint

        return cls._on_torch(load_checkpoint(folder), place, precision, threads)

    @classmethod
    def load_embedder(
        cls,
        base_model: str,
        *,
        device: Device = "auto",
        precision: Precision = "auto",
        backend: BackendName = "auto",
        threads: int | None = None,
    ) -> "Engine":
        """Load a frozen base model; `forward` then gives embeddings of length one. Arguments as of `load`.

        Raises:
            ModelError: the base is not found or not loadable.
        """
        place, folder = choose_device(device), resolve_base(base_model)
        if found := _exported(folder, "embedder", place, backend):
            return _from_export(folder, *found, None, precision, threads)
        from training.checkpoint import load_embedder

        return cls._on_torch(load_embedder(base_model), place, precision, threads)

    @classmethod
    def _on_torch(cls, checkpoint: "Checkpoint", device: str, precision: Precision, threads: int | None) -> "Engine":
        from training.engine.torch_backend import TorchBackend

        placed = TorchBackend.placed(checkpoint, device, choose_precision(device, precision), threads)
        return _told(cls._around(checkpoint, placed, device))

    @classmethod
    def _around(cls, checkpoint: "Checkpoint", backend: Backend, device: str) -> "Engine":
        manifest = checkpoint.manifest
        return cls(manifest, Encoder.of(checkpoint.tokenizer, manifest.max_length, manifest.rules), backend, device)

    @property
    def nbytes(self) -> int:
        """Memory of the weights."""
        return self.backend.nbytes

    def encode(self, texts: Sequence[str], truncate: Truncate = "END") -> list[Encoded]:
        """Turn texts into ids; any thread may call it. See `Encoder.encode`."""
        return self.encoder.encode(texts, truncate)

    def forward(self, items: Sequence[Encoded]) -> Floats:
        """Run one batch.

        Args:
            items: encoded texts that fit in memory together.

        Returns:
            float32 of shape (items, labels): logits; for an embedder (items, hidden).
        """
        return self.backend.forward(items)

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


def bring_export(checkpoint: Path) -> None:
    """Put the graphs that OpenVINO runs into a checkpoint that was just written, if this machine would use them.

    Raises:
        ModelError: the checkpoint cannot be loaded.
    """
    if _suits_openvino(choose_device("auto")):
        from training.engine.openvino_export import write

        write(checkpoint, "checkpoint", None, checkpoint / exports.FOLDER)


def _exported(
    source: Path, kind: exports.Kind, device: str, backend: BackendName
) -> tuple[Path, exports.Export] | None:
    """The export to use and what it says, or None where torch is to run the network."""
    if backend == "torch":
        return None
    if not _suits_openvino(device):
        if backend == "auto":
            return None
        raise ModelError("backend openvino runs on a CPU where the package openvino is installed; choose auto")
    try:
        found = exports.find(source, kind)
        export = exports.read(found)
        if export.unsuitable is None:
            return found, export
        reason = export.unsuitable
    except OSError as error:
        reason = f"its graph cannot be kept: {error}"
    if backend == "openvino":
        raise ModelError(f"{source} cannot be run by OpenVINO ({reason}); choose the backend auto or torch")
    log.info("torch runs %s: OpenVINO cannot (%s)", source.name, reason)
    return None


def _suits_openvino(device: str) -> bool:
    return device == "cpu" and importlib.util.find_spec("openvino") is not None


def _from_export(
    source: Path,
    found: Path,
    export: exports.Export,
    manifest: Manifest | None,
    precision: Precision,
    threads: int | None,
) -> Engine:
    from training.engine.openvino_backend import load

    known = manifest or export.manifest
    assert known is not None  # a base's export has it
    encoder = Encoder(
        _tokenizer((found / exports.TOKENIZER).read_bytes()), export.pad_token, known.max_length, known.rules
    )
    return _told(Engine(known, encoder, load(source, known, found, export, precision, threads)))


@lru_cache(maxsize=8)
def _tokenizer(content: bytes) -> Tokenizer:
    """The tokenizer of a file: checkpoints of one base share it, as it takes more memory than an adapter."""
    return Tokenizer.from_buffer(content)


def _told(engine: Engine) -> Engine:
    chosen = engine.backend
    log.info("backend %s, precision %s, batch tokens %d", chosen.name, chosen.precision, engine.limits.max_tokens)
    return engine
