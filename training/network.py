"""The one network: any backbone, a pooling rule, a small head.

The head is ours rather than each family's own, so that every family trains, merges and batches the same
way, and the pooled vector of a frozen base is at the same time its embedding.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.manifest import Pooling, Task
from training.separation import Separation

_COSINE_SCALE = 20.0
"""By which a cosine becomes a logit: the inverse of the temperature that encoders are commonly trained with."""


class Network(nn.Module):
    """Backbone, pooling, dropout and a head on the pooled vectors."""

    def __init__(
        self, backbone: Any, pooling: Pooling, head: nn.Module, dropout: float = 0.0, cross_layers: int | None = None
    ) -> None:
        """Put `head` on a backbone.

        Args:
            backbone: without head and pooler of its own.
            pooling: how the states of a text's tokens become one vector.
            head: a `PairHead`, or any module that takes (texts, hidden).
            dropout: before the head.
            cross_layers: in how many of the uppermost layers the texts of a pair see each other; None: in all.
        """
        super().__init__()
        # The families' own poolers would be dead weight here, and unused parameters stall DDP.
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None
        self.backbone, self.head = backbone, head
        self.pooling: Pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.cross_layers = cross_layers
        self._separation = None if cross_layers is None else Separation(backbone, cross_layers)

    def forward(self, ids: Tensor, mask: Tensor, split: Tensor) -> Tensor:
        """What the head makes of each text or pair, (items, width) in float32.

        Args:
            ids: (items, tokens), padded on the right.
            mask: (items, tokens), 1 where there is a token.
            split: (items,), where the second text of a pair begins; without meaning for single texts.
        """
        given, parts = {"attention_mask": mask}, [mask]
        if isinstance(self.head, PairHead):
            first = mask * (torch.arange(ids.shape[1], device=ids.device) < split[:, None])
            parts = [first, mask - first]
            given = self._separation.inputs(mask, split) if self._separation else given
        states = self.backbone(input_ids=ids, **given).last_hidden_state.float()
        with torch.autocast(states.device.type, enabled=False):
            return self.head(*(self.dropout(self._pool(states, part)) for part in parts))

    def _pool(self, states: Tensor, part: Tensor) -> Tensor:
        """States (items, tokens, hidden) of the tokens marked in `part` to one vector each, (items, hidden)."""
        if self.pooling == "mean":
            weights = part.unsqueeze(-1).to(states.dtype)
            return (states * weights).sum(dim=1) / weights.sum(dim=1)
        start = part.argmax(dim=1)
        at = start if self.pooling == "first" else start + part.sum(dim=1) - 1
        return states[torch.arange(len(states), device=states.device), at]


class UnitLength(nn.Module):
    """The head of an embedder: vectors scaled to length one."""

    def forward(self, pooled: Tensor) -> Tensor:
        """(texts, hidden) to (texts, hidden)."""
        return nn.functional.normalize(pooled, dim=1)


class PairHead(nn.Module):
    """How well two texts match: their cosine, scaled, and a linear layer on how they differ.

    The layer starts at nothing: a base that was made for similarity ranks from the first step on as its
    similarity does, where a random layer would have to learn that again from a few hundred queries.
    """

    def __init__(self, hidden: int) -> None:
        """For vectors of `hidden` numbers."""
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(_COSINE_SCALE))
        self.linear = nn.Linear(2 * hidden, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Vectors of the first and second texts, both (pairs, hidden), to (pairs, 1)."""
        a, b = functional.normalize(first, dim=1), functional.normalize(second, dim=1)
        return self.scale * (a * b).sum(dim=1, keepdim=True) + self.linear(torch.cat([a * b, (a - b).abs()], dim=1))


def make_head(backbone: Any, task: Task, labels: int) -> nn.Module:
    """The head of a task on a backbone; `labels` is for classifiers."""
    hidden = int(backbone.config.hidden_size)
    return PairHead(hidden) if task == "rerank" else nn.Linear(hidden, labels)
