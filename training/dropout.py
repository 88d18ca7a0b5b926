"""Dropout that costs little on a CPU.

torch draws a random number for each value, one after the other, which for small models takes as long as the matrix
products beside it. Here one draw of 64 bits decides about four values.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEVELS = 1 << 16
"""Steps in which the share can be given: of 0.1, as near as 1e-5."""


def dropout(values: Tensor, p: float) -> Tensor:
    """Set a share `p` of values to zero, and scale the others so that the mean stays."""
    if values.device.type != "cpu" or not 0 < p < 1:
        return functional.dropout(values, p)
    draws = torch.empty(-(-values.numel() // 4), dtype=torch.int64)
    bits = draws.random_(torch.iinfo(torch.int64).min, None).view(torch.int16)[: values.numel()].view(values.shape)
    level = round(p * _LEVELS)
    kept = (bits >= level - _LEVELS // 2).to(values.dtype)
    return values * kept.mul_(_LEVELS / (_LEVELS - level))


class Dropout(nn.Dropout):
    """`nn.Dropout` by the function above."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape."""
        return dropout(input, self.p) if self.training else input


def hasten_dropout(module: nn.Module) -> None:
    """Have every dropout layer within a module drop by the function above."""
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p).train(child.training))
