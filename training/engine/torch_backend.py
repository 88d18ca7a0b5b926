"""Networks run by torch: on GPUs, on CPUs where OpenVINO cannot, and while they are trained."""

from collections.abc import Sequence
from typing import Literal

import torch

from training.checkpoint import Checkpoint
from training.engine.backend import Floats
from training.engine.encoding import Encoded
from training.engine.tensors import pad, unpad
from training.engine.trial import settle, why_padded


class TorchBackend:
    """A checkpoint's network as it stands; training goes on with the same one."""

    name = "torch"

    def __init__(
        self, checkpoint: Checkpoint, device: torch.device, precision: Literal["float32", "bfloat16"] = "float32"
    ) -> None:
        """Use the network on `device`, where it must be; matrix products are in `precision`."""
        self._network, self._device = checkpoint.network, device
        self._pad = int(checkpoint.tokenizer.pad_token_id)
        self.precision = precision

    @classmethod
    def placed(
        cls, checkpoint: Checkpoint, device: str, precision: Literal["float32", "bfloat16"], threads: int | None = None
    ) -> "TorchBackend":
        """Take a checkpoint that nobody trains: its backbone is converted, and moved to the device.

        Args:
            checkpoint: changed in place.
            device: torch's name for it.
            precision: of the backbone; the head stays in float32.
            threads: of a CPU, for this whole process.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        checkpoint.network.backbone.to(dtype=getattr(torch, precision))
        network, place = checkpoint.network.to(device=device), torch.device(device)
        settle(network, why_padded(network, place, getattr(torch, precision)))
        return cls(checkpoint, place, precision)

    @property
    def nbytes(self) -> int:
        """Memory of the weights."""
        return sum(p.nbytes for p in self._network.parameters())

    @torch.inference_mode()
    def forward(self, items: Sequence[Encoded]) -> Floats:
        """Run one batch: float32 of shape (items, width)."""
        mixed = self.precision == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=mixed):
            unpadded = self._network.unpadded
            out = self._network(*(unpad(items, self._device) if unpadded else pad(items, self._pad, self._device)))
        return out.float().cpu().numpy()
