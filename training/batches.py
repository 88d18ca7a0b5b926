"""Examples, the order they are seen in, and the tensors they become."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.engine.batching import Limits
from training.engine.encoding import Encoded
from training.engine.tensors import Inputs, pad

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

    inputs: Inputs
    targets: Tensor
    """(items, labels), or (items,)."""
    sizes: list[int]
    """How many items each example has; a list, so that a GPU need not be waited for."""
    weights: Tensor
    """(examples,)."""


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of one epoch: shuffled, then grouped by length within pools of a few batches.

    A function of its arguments alone, so that a resumed run and every process see the same batches.

    Returns:
        Positions in `lengths`; each once; every batch but one has `batch_size`.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths)).tolist()
    batches: list[list[int]] = []
    for start in range(0, len(order), batch_size * _POOL):
        pool = sorted(order[start : start + batch_size * _POOL], key=lambda i: (lengths[i], i))
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def shares(batch: Sequence[Example], limits: Limits, world: int) -> list[list[list[Example]]]:
    """Divide one optimiser step's examples among processes and each share into passes that fit in memory.

    Every process gets the same number of passes (sharded models wait for each other in each), so a share may
    end with empty ones. An example is never divided: a query's candidates are compared with each other.

    Returns:
        For each process its passes, each a list of examples.
    """
    ordered = sorted(batch, key=lambda example: -example.longest)
    planned = [_passes(ordered[rank::world], limits) for rank in range(world)]
    most = max(map(len, planned))
    return [parts + [[] for _ in range(most - len(parts))] for parts in planned]


def _passes(examples: Sequence[Example], limits: Limits) -> list[list[Example]]:
    """Fill one pass after the other, the longest first."""
    parts: list[list[Example]] = []
    items = real = 0
    for example in examples:
        items, real = items + len(example.items), real + example.tokens
        if parts and limits.fits(items, parts[-1][0].longest, real):
            parts[-1].append(example)
        else:
            parts.append([example])
            items, real = len(example.items), example.tokens
    return parts


def collate(examples: Sequence[Example], token: int, device: torch.device) -> Batch:
    """Put examples side by side on `device`, padded with `token`."""
    targets = np.concatenate([example.target for example in examples])
    weights = np.array([example.weight for example in examples], np.float32)
    return Batch(
        pad([item for example in examples for item in example.items], token, device),
        torch.from_numpy(targets).to(device, non_blocking=True),
        [len(example.items) for example in examples],
        torch.from_numpy(weights).to(device, non_blocking=True),
    )
