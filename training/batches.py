"""Examples, the order they are seen in, and the tensors they become."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.engine.batching import Limits
from training.engine.encoding import Encoded
from training.engine.tensors import Inputs, pad, unpad
from training.unpadded import Flat, move

_POOL = 8
"""Batches sorted by length together: enough to save padding, few enough to keep the order random."""


@dataclass(frozen=True, slots=True)
class Example:
    """One training row: what of it is encoded, which belongs together; the targets of that; its weight in the loss."""

    items: tuple[Encoded, ...]
    """The one text, or a query paired with each of its candidates."""
    target: NDArray[np.float32]
    """(1, labels) of a text; (candidates,) of a query."""
    weight: float = 1.0
    missed: tuple[float, ...] = ()
    """Grades of a query's relevant documents that are not among its candidates; for measuring."""

    @property
    def longest(self) -> int:
        """Tokens of the longest item."""
        return max(map(len, self.items))

    @property
    def tokens(self) -> int:
        """Tokens of all items."""
        return sum(map(len, self.items))


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples as tensors: their items one after the other."""

    inputs: Inputs | tuple[Flat]
    """What a network is called with."""
    targets: Tensor
    """(items, labels), or (items,)."""
    sizes: list[int]
    """How many items each example has; a list, so that a GPU need not be waited for."""
    weights: Tensor
    """(examples,)."""


def epoch_batches(lengths: NDArray[np.int32], batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """The batches of one epoch: shuffled, then grouped by length within pools of a few batches.

    A function of its arguments alone, so that a resumed run and every process see the same batches.

    Returns:
        Positions in `lengths`; each once; every batch but one has `batch_size`.
    """
    rng, rows, pool = np.random.default_rng([seed, epoch]), len(lengths), batch_size * _POOL
    order = rng.permutation(rows)
    keys = lengths[order] * np.int64(rows) + order  # sorts by length, and by position among equals
    whole = rows - rows % pool
    keys[:whole].reshape(-1, pool).sort(axis=1)
    keys[whole:].sort()
    order = keys % rows
    starts = rng.permutation(-(-rows // batch_size)) * batch_size
    return [order[start : start + batch_size] for start in starts.tolist()]


def shares(
    batch: Sequence[Example], limits: Limits, world: int, *, unpadded: bool = False
) -> list[list[list[Example]]]:
    """Divide one optimiser step's examples among processes and each share into passes that fit in memory.

    Every process gets the same number of passes (sharded models wait for each other in each), so a share may
    end with empty ones. An example is never divided: a query's candidates are compared with each other.

    Args:
        batch: of one step.
        limits: of a pass.
        world: processes.
        unpadded: whether only real tokens take room.

    Returns:
        For each process its passes, each a list of examples.
    """
    ordered = sorted(batch, key=lambda example: -example.longest)
    planned = [_passes(ordered[rank::world], limits, unpadded) for rank in range(world)]
    most = max(map(len, planned))
    return [parts + [[] for _ in range(most - len(parts))] for parts in planned]


def _passes(examples: Sequence[Example], limits: Limits, unpadded: bool) -> list[list[Example]]:
    """Fill one pass after the other, the longest first."""
    parts: list[list[Example]] = []
    items = real = 0
    for example in examples:
        items, real = items + len(example.items), real + example.tokens
        if parts and (real <= limits.max_tokens if unpadded else limits.fits(items, parts[-1][0].longest, real)):
            parts[-1].append(example)
        else:
            parts.append([example])
            items, real = len(example.items), example.tokens
    return parts


def collate(examples: Sequence[Example], token: int | None, device: torch.device) -> Batch:
    """Put examples side by side on `device`, padded with `token`; or, without one, one after the other."""
    items = [item for example in examples for item in example.items]
    targets = np.concatenate([example.target for example in examples])
    weights = np.array([example.weight for example in examples], np.float32)
    wanted, counts = move([targets, weights], device)
    return Batch(
        unpad(items, device) if token is None else pad(items, token, device),
        wanted,
        [len(example.items) for example in examples],
        counts,
    )
