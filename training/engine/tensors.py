"""Encoded texts as the tensors that a network takes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from training.engine.encoding import Encoded, side_by_side
from training.unpadded import Flat, flatten, move


class Inputs(NamedTuple):
    """What a network takes: texts or pairs side by side, padded on the right."""

    ids: Tensor
    """(items, longest), whole numbers."""
    mask: Tensor
    """(items, longest): 1 where there is a token."""
    split: Tensor
    """(items,): see `Encoded.split`."""


def pad(items: Sequence[Encoded], token: int, device: torch.device) -> Inputs:
    """Put encoded texts side by side on `device`, the shorter ones filled up with `token`."""
    return Inputs(*move(side_by_side(items, token, max(map(len, items))), device))


def unpad(items: Sequence[Encoded], device: torch.device) -> tuple[Flat]:
    """Put encoded texts one after the other on `device`; for a network that may be given them so."""
    return (flatten([item.ids for item in items], [item.split for item in items], device),)
