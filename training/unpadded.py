"""Texts one after the other in a single row, without padding, and the attention that keeps them apart.

Every layer of a transformer but attention works on each token alone, so a batch needs no rectangle: its tokens go
through as one row, with positions that begin anew in each text, and only attention is told where texts begin
(Zeng et al. 2022, arXiv:2208.08124). transformers lets a base use an attention function of ours, which serves all its
families that take one (`training.attention`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

_SHORTER = 0.75
"""Texts share a rectangle on a CPU down to this part of its longest."""
_STRIDE = 32
"""A CPU multiplies bfloat16 by so many at once; of other numbers of tokens a weight's gradient takes half as long
again."""


class Rectangle(NamedTuple):
    """Texts of similar length, side by side."""

    texts: int
    longest: int
    absent: Tensor | None
    """(texts, 1, 1, longest): true where there is no token; None: all are of one length."""


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Which stretches of the row are texts that see each other's tokens."""

    ends: Tensor
    """(texts + 1,) int32: where each begins, and the end of the last."""
    longest: int
    """Tokens of the longest, known without asking the device."""
    total: int
    """Tokens of all of them; what follows in the row belongs to none."""
    places: Tensor | None
    """On a CPU (total,): each token's cell, the rectangles laid out one after the other."""
    rectangles: tuple[Rectangle, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """What a network takes instead of padded texts: a row of the tokens of all texts, on a CPU with some to spare."""

    ids: Tensor
    """(1, row)."""
    places: Tensor
    """(1, row): each token's position in its text or pair, from 0."""
    parted: Tensor
    """(1, row): its position in its text, of a pair in its own half."""
    together: Runs
    """A run for each text or pair."""
    apart: Runs
    """A run for each text, of a pair two: its first and its second."""


def flatten(texts: Sequence[ArrayLike], splits: Sequence[int], device: torch.device) -> Flat:
    """Put texts or pairs one after the other on `device`.

    Args:
        texts: token ids of each.
        splits: where the second text of a pair begins; 0: there is none.
        device: a GPU is handed the tensors without waiting for it.
    """
    lengths = np.array([len(text) for text in texts], np.int64)  # pyright: ignore[reportArgumentType]
    firsts = np.array(splits, np.int64)
    halves = np.stack([np.where(firsts > 0, firsts, lengths), np.where(firsts > 0, lengths - firsts, 0)], axis=1)
    halves = halves[halves > 0]
    ids = np.concatenate([np.asarray(text) for text in texts]).astype(np.int64)
    spare = -len(ids) % _STRIDE if device.type == "cpu" else 0
    arrays = [np.pad(each, (0, spare))[None] for each in (ids, _positions(lengths), _positions(halves))]
    row, places, parted = move(arrays, device)
    together = _runs(lengths, device)
    apart = together if len(halves) == len(lengths) else _runs(halves, device)
    return Flat(row, places, parted, together, apart)


def _positions(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts from 0 in each run, one after the other."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) - np.repeat(starts, lengths)


def move(arrays: Sequence[NDArray[Any]], device: torch.device) -> list[Tensor]:
    """Arrays as tensors on `device`; a GPU is not waited for."""
    tensors = [torch.from_numpy(array) for array in arrays]
    if device.type == "cuda":  # from pinned memory the copy need not be waited for
        tensors = [tensor.pin_memory() for tensor in tensors]
    return [tensor.to(device, non_blocking=True) for tensor in tensors]


def _runs(lengths: NDArray[np.int64], device: torch.device) -> Runs:
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    if device.type == "cuda":
        return Runs(move([ends], device)[0], int(lengths.max()), int(ends[-1]), None, ())
    order = np.argsort(-lengths, kind="stable")
    starts = np.zeros(len(lengths), np.int64)
    rectangles: list[Rectangle] = []
    done = used = 0
    while done < len(order):
        longest = int(lengths[order[done]])
        texts = int((lengths[order[done:]] >= max(1, _SHORTER * longest)).sum())
        members = order[done : done + texts]
        starts[members] = used + longest * np.arange(texts)
        absent = torch.from_numpy(np.arange(longest) >= lengths[members][:, None])[:, None, None, :].to(device)
        rectangles.append(Rectangle(texts, longest, absent if absent.any() else None))
        done, used = done + texts, used + texts * longest
    places = np.repeat(starts, lengths) + _positions(lengths)
    starts_at, cells = move([ends, places], device)
    return Runs(starts_at, int(lengths.max()), int(ends[-1]), cells, tuple(rectangles))


def first_position(config: Any) -> int:
    """The position of a text's first token: RoBERTa counts on from the id of its padding."""
    return config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0


def may_be_unpadded(backbone: Any) -> bool:
    """Whether a backbone lets attention be replaced; DeBERTa, for one, does not."""
    model = backbone.get_base_model() if hasattr(backbone, "get_base_model") else backbone
    return bool(getattr(model, "_supports_attention_backend", False))
