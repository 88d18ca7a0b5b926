"""The heads of `training.network` in NumPy: a few products in float32, for which no graph is worth its memory."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from training.engine.backend import Floats
from training.errors import ModelError
from training.manifest import Manifest

Weights = dict[str, NDArray[Any]]


def read_head(checkpoint: Path, manifest: Manifest) -> Weights:
    """The weights of a checkpoint's head.

    Raises:
        ModelError: they are missing, broken, or of another shape.
    """
    try:
        weights = load_file(checkpoint / "head.safetensors")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{checkpoint}: the head cannot be read ({str(error).splitlines()[0]})") from None
    name, rows = ("linear.weight", 1) if manifest.task == "rerank" else ("weight", len(manifest.labels))
    if name not in weights or len(weights[name]) != rows:
        raise ModelError(f"{checkpoint}: the head cannot be read (it is not one for this task and these labels)")
    return weights


def apply_head(vectors: list[Floats], weights: Weights | None) -> Floats:
    """What a head makes of vectors (items, hidden), one array for texts and two for pairs: (items, width).

    Without weights it is that of an embedder, which scales to length one.
    """
    if weights is None:
        return _unit(vectors[0])
    if len(vectors) == 1:
        return vectors[0] @ weights["weight"].T + weights["bias"]
    a, b = map(_unit, vectors)
    cosine = (a * b).sum(axis=1, keepdims=True)
    differences = np.concatenate([a * b, np.abs(a - b)], axis=1)
    return weights["scale"] * cosine + differences @ weights["linear.weight"].T + weights["linear.bias"]


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
