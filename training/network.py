"""The one network: any backbone, a pooling rule, a linear head.

The head is ours rather than each family's own, so that every family trains, merges and batches the same
way, and the pooled vector of a frozen base is at the same time its embedding.
"""

from typing import Any

import torch
from torch import Tensor, nn

from training.manifest import Pooling


class Network(nn.Module):
    """Backbone, pooling, dropout and a head on the pooled vector."""

    def __init__(self, backbone: Any, pooling: Pooling, head: nn.Module, dropout: float = 0.0) -> None:
        """Put `head`, which takes (texts, hidden), on a backbone."""
        super().__init__()
        # The families' own poolers would be dead weight here, and unused parameters stall DDP.
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None
        self.backbone, self.head = backbone, head
        self.pooling: Pooling = pooling
        self.dropout = nn.Dropout(dropout)

    def pool(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask, both (texts, tokens) and padded on the right, to (texts, hidden) in float32."""
        states = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        if self.pooling == "first":
            return states[:, 0]
        if self.pooling == "last":
            last = attention_mask.sum(dim=1) - 1
            return states[torch.arange(len(states), device=states.device), last]
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(dim=1) / mask.sum(dim=1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """What the head makes of each text, (texts, width) in float32."""
        pooled = self.pool(input_ids, attention_mask)
        with torch.autocast(pooled.device.type, enabled=False):
            return self.head(self.dropout(pooled))


class UnitLength(nn.Module):
    """The head of an embedder: vectors scaled to length one."""

    def forward(self, pooled: Tensor) -> Tensor:
        """(texts, hidden) to (texts, hidden)."""
        return nn.functional.normalize(pooled, dim=1)


def linear_head(backbone: Any, width: int) -> nn.Linear:
    """A linear layer from the backbone's hidden size to `width` outputs."""
    return nn.Linear(int(backbone.config.hidden_size), width)
