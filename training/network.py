"""The one network: any backbone, a pooling rule, a small head.

The head is ours rather than each family's own, so that every family trains, merges and batches the same
way, and the pooled vector of a frozen base is at the same time its embedding.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.attention import attending
from training.manifest import Pooling, Task
from training.separation import Separation
from training.unpadded import Flat, Runs, first_position

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
        self.unpadded = False  # whether it had better be given texts without padding
        self._separation = None if cross_layers is None else Separation(backbone, cross_layers)
        # Nothing is generated here, so a decoder need not keep what it would go on from.
        self._always = {"use_cache": False} if hasattr(backbone.config, "use_cache") else {}

    def forward(self, ids: Tensor | Flat, mask: Tensor | None = None, split: Tensor | None = None) -> Tensor:
        """What the head makes of each text or pair, (items, width) in float32.

        Args:
            ids: (items, tokens), padded on the right; or, alone, texts without padding.
            mask: (items, tokens), 1 where there is a token.
            split: (items,), where the second text of a pair begins; without meaning for single texts.
        """
        if isinstance(ids, Flat):
            pooled = self.pooled_unpadded(ids)
        else:
            assert mask is not None and split is not None
            pooled = self.pooled(ids, mask, split)
        with torch.autocast(pooled[0].device.type, enabled=False):
            return self.head(*map(self.dropout, pooled))

    def pooled(self, ids: Tensor, mask: Tensor, split: Tensor) -> tuple[Tensor, ...]:
        """What the head is given, each (items, hidden) in float32: of a text one vector, of a pair two."""
        given, parts = {"attention_mask": mask}, [mask]
        if isinstance(self.head, PairHead):
            first = mask * (torch.arange(ids.shape[1], device=ids.device) < split[:, None])
            parts = [first, mask - first]
            given = self._separation.inputs(mask, split) if self._separation else given
        states = self.backbone(input_ids=ids, **given, **self._always).last_hidden_state.float()
        return tuple(self._pool(states, part) for part in parts)

    def pooled_unpadded(self, flat: Flat) -> tuple[Tensor, ...]:
        """As `pooled`, of texts without padding; for families of which `may_be_unpadded` holds."""
        paired, config, places = isinstance(self.head, PairHead), self.backbone.config, flat.places
        if self._separation:
            self._separation.keep(flat.together, flat.apart)
            places = flat.parted
        given = {"position_ids": places + first_position(config), "runs": flat.together}
        with attending(config):
            states = self.backbone(input_ids=flat.ids, **given, **self._always).last_hidden_state[0].float()
        pooled = self._pool_runs(states, flat.apart if paired else flat.together)
        return (pooled[::2], pooled[1::2]) if paired else (pooled,)

    def _pool_runs(self, states: Tensor, runs: Runs) -> Tensor:
        """States (row, hidden) to one vector for each run, (runs, hidden)."""
        if self.pooling == "mean":
            lengths = runs.ends.diff().long()
            # `unsafe` spares the question whether the lengths add up, for which a GPU would be waited for.
            return torch.segment_reduce(states[: runs.total], "mean", lengths=lengths, axis=0, unsafe=True)
        return states.index_select(0, runs.ends[:-1] if self.pooling == "first" else runs.ends[1:] - 1)

    def _pool(self, states: Tensor, part: Tensor) -> Tensor:
        """States (items, tokens, hidden) of the tokens marked in `part` to one vector each, (items, hidden)."""
        if self.pooling == "mean":
            weights = part.unsqueeze(-1).to(states.dtype)
            return (states * weights).sum(dim=1) / weights.sum(dim=1)
        start = part.argmax(dim=1)
        at = start if self.pooling == "first" else start + part.sum(dim=1) - 1
        return states.gather(1, at[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]


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
