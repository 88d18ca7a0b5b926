"""Adapters as OpenVINO takes them: one matrix for each, given to the graph of a base that all of them share.

An adapter adds `(x A) B` to what each of some linear layers makes of x (Hu et al. 2021, arXiv:2106.09685). Its A and B
of all layers lie side by side in one float16 array (rank, width), B scaled, so that a further classifier on a loaded
base costs its own few megabytes and no graph.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from training.engine.exports import Adapted, Reading
from training.errors import ModelError
from training.manifest import Manifest

_PLAIN = {
    "use_dora": False,
    "fan_in_fan_out": False,
    "use_rslora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "bias": "none",
}
"""What an adapter must be like to be given to a graph; others are merged into a copy of their base."""


def reading_of(checkpoint: Path, manifest: Manifest) -> Reading | None:
    """How a checkpoint reads its base; None where it has no adapter, or none that can share."""
    if not manifest.adapter:
        return None
    settings = _settings(checkpoint)
    if any(settings.get(name, plain) != plain for name, plain in _PLAIN.items()):
        return None
    return Reading(
        base_model=manifest.base_model,
        targets=tuple(sorted(settings["target_modules"])),
        pooling=manifest.pooling,
        pairs=manifest.task == "rerank",
        cross_layers=manifest.cross_layers,
    )


def pack(checkpoint: Path, layers: Iterable[Adapted]) -> NDArray[np.float16]:
    """The adapter of a checkpoint folder as (rank, width).

    Raises:
        ModelError: it cannot be read, or is not for these layers.
    """
    settings = _settings(checkpoint)
    scale = settings["lora_alpha"] / settings["r"]
    parts: list[NDArray[Any]] = []
    try:
        with safe_open(checkpoint / "adapter_model.safetensors", "numpy") as file:
            for layer in layers:
                prefix = f"base_model.model.{layer.name}"
                parts.append(file.get_tensor(f"{prefix}.lora_A.weight"))
                parts.append(file.get_tensor(f"{prefix}.lora_B.weight").T * scale)
        return np.concatenate(parts, axis=1).astype(np.float16)
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{checkpoint}: the adapter cannot be read ({str(error).splitlines()[0]})") from None


def _settings(checkpoint: Path) -> dict[str, Any]:
    try:
        return json.loads((checkpoint / "adapter_config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{checkpoint}: adapter_config.json cannot be read ({error})") from None
