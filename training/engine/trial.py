"""Trying out whether a network gives without padding what it gives with it: families, devices, kernels differ."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from training.engine.encoding import Encoded
from training.engine.tensors import pad, unpad
from training.network import Network, PairHead
from training.unpadded import may_be_unpadded

log = logging.getLogger(__name__)

_LENGTHS = (150, 3, 40)
"""Of the texts for the trial: longer than ModernBERT's window, and very unlike."""
_EXACT, _ROUNDED = 1e-3, 0.2
"""Differences, relative to the whole, up to which two ways are the same; in less than float32 every kernel rounds."""


def why_padded(network: Network, device: torch.device, precision: torch.dtype) -> str | None:
    """What speaks against doing without padding, or None: then nothing does.

    Args:
        network: on `device`.
        device: where it runs.
        precision: of the matrix products.
    """
    kind, exact = network.backbone.config.model_type, precision == torch.float32
    if not may_be_unpadded(network.backbone):
        return f"{kind} brings its own attention"
    if device.type not in ("cpu", "cuda"):
        return f"the device is {device.type}"
    if device.type == "cuda" and exact:
        return "a GPU attends to unpadded texts in bfloat16 or float16 only"
    try:
        with torch.autocast(device.type, precision, enabled=not exact):
            found = difference(network, device)
    except (RuntimeError, TypeError, AttributeError, IndexError) as error:
        return f"without padding this {kind} fails ({str(error).splitlines()[0]})"
    if found <= (_EXACT if exact else _ROUNDED):
        return None
    return f"without padding this {kind} gives something else (by {found:.2g} of it)"


def settle(network: Network, reason: str | None) -> None:
    """Have a network take texts without padding, unless there is a reason not to; one line tells."""
    network.unpadded = reason is None
    log.info("batches are unpadded" if reason is None else f"batches are padded: {reason}")


def difference(network: Network, device: torch.device) -> float:
    """How far pooled vectors and gradients without padding are from those with it, relative to their norm."""
    config, training = network.backbone.config, network.training
    # A family that counts tokens itself must not run out of positions: a GPU would not recover from that.
    room = (getattr(config, "max_position_embeddings", None) or 3 * _LENGTHS[0]) // 3
    words = [5 + (7 * k) % (config.vocab_size - 5) for k in range(_LENGTHS[0])]
    split = 1 if isinstance(network.head, PairHead) else 0
    items = [Encoded(words[-min(length, room) :], split) for length in _LENGTHS]
    network.eval()
    padded = _seen(network, lambda: network.pooled(*pad(items, config.pad_token_id or 0, device)))
    unpadded = _seen(network, lambda: network.pooled_unpadded(*unpad(items, device)))
    network.train(training)
    return max(
        float((one - other).norm() / other.norm().clamp(min=1e-12)) for one, other in zip(unpadded, padded, strict=True)
    )


def _seen(network: Network, pooled: Callable[[], tuple[Tensor, ...]]) -> list[Tensor]:
    """Pooled vectors, and the gradient of the first weight that is trained."""
    vectors = torch.cat(pooled())
    weights = [p for p in network.backbone.parameters() if p.requires_grad][:1]
    target = (vectors * torch.linspace(-1, 1, vectors.numel(), device=vectors.device).view_as(vectors)).sum()
    return [vectors.detach(), *torch.autograd.grad(target, weights)] if weights else [vectors.detach()]
