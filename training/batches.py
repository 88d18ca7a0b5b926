"""Examples, the order they are seen in, and the tensors they become."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.engine.batching import Limits, plan
from training.engine.encoding import Encoded

_POOL = 8
"""Batches sorted by length together: enough to save padding, few enough to keep the order random."""


@dataclass(frozen=True, slots=True)
class Example:
    """One training row: token ids, target (labels,), and its weight in the loss."""

    item: Encoded
    target: NDArray[np.float32]
    weight: float = 1.0


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


def shares(batch: Sequence[int], lengths: Sequence[int], limits: Limits, world: int) -> list[list[list[int]]]:
    """Divide one optimiser step's rows among processes and each share into passes that fit in memory.

    Every process gets the same number of passes (sharded models wait for each other in each), so a share may
    end with empty ones.

    Returns:
        For each process its passes, each a list of positions in `lengths`.
    """
    ordered = sorted(batch, key=lambda i: (lengths[i], i))
    planned: list[list[list[int]]] = []
    for rank in range(world):
        mine = ordered[rank::world]
        planned.append([[mine[i] for i in part] for part in plan([lengths[i] for i in mine], limits)])
    passes = max(len(parts) for parts in planned)
    return [parts + [[] for _ in range(passes - len(parts))] for parts in planned]


def collate(examples: Sequence[Example], pad: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pad on the right.

    Returns:
        Token ids and mask (n, longest), targets (n, labels), weights (n,), on `device`.
    """
    longest = max(len(example.item) for example in examples)
    ids = np.full((len(examples), longest), pad, dtype=np.int64)
    mask = np.zeros((len(examples), longest), dtype=np.int64)
    for row, example in enumerate(examples):
        ids[row, : len(example.item)] = example.item.ids
        mask[row, : len(example.item)] = 1
    targets = np.stack([example.target for example in examples])
    weights = np.array([example.weight for example in examples], np.float32)
    return tuple(torch.from_numpy(a).to(device, non_blocking=True) for a in (ids, mask, targets, weights))  # type: ignore[return-value]
