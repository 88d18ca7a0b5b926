"""Attention within the texts of one row, as transformers lets a base use a function of ours.

On a GPU that is FlashAttention's for texts of any length (Dao et al. 2022, arXiv:2205.14135). On a CPU texts of
similar length are put side by side for attention alone, and multiplied plainly: torch's fused attention there takes
two to ten times as long in bfloat16, and cannot drop weights out.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from training import dropout as cheap
from training.unpadded import Rectangle, Runs

ATTENTION = "encore_unpadded"
"""Under which transformers knows `attend`."""


@contextmanager
def attending(config: Any) -> Generator[None, None, None]:
    """Within, a backbone of this configuration attends by `attend`, and makes no mask."""
    before = config._attn_implementation
    config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    runs: Runs,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each run, as transformers' AttentionInterface wants it.

    Args:
        module: whose attention it is.
        query: (1, heads, total, width).
        key: (1, fewer heads, total, width), each for several of the query's.
        value: as `key`.
        attention_mask: not used.
        runs: the keyword that was given to the backbone.
        dropout: share of the weights to leave out.
        scaling: of the products; by default one over the root of the width.
        is_causal: whether a token sees none that come after it; by default as the module says.
        sliding_window: see none that are so far away or farther.

    Returns:
        (1, total, heads, width), and no weights.
    """
    if query.dtype == torch.float32 and torch.is_autocast_enabled(query.device.type):  # rotated in float32
        query, key, value = (each.to(torch.get_autocast_dtype(query.device.type)) for each in (query, key, value))
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    rows = [each[0].transpose(0, 1) for each in (query, key, value)]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    kernel = _on_gpu if query.device.type == "cuda" else _on_cpu
    with torch.autocast(query.device.type, enabled=False):
        return kernel(rows, runs, dropout, scale, causal, sliding_window)[None], None


def _on_gpu(rows: list[Tensor], runs: Runs, p: float, scale: float, causal: bool, window: int | None) -> Tensor:
    """Rows (total, heads, width) of query, key and value through FlashAttention."""
    # `torch.nn.attention.varlen` offers the same without dropout.
    near = None if window is None else window - 1
    return torch.ops.aten._flash_attention_forward(
        *rows,
        runs.ends,
        runs.ends,
        runs.longest,
        runs.longest,
        p,
        causal,
        False,
        scale=scale,
        window_size_left=near,
        window_size_right=0 if causal else near,
    )[0]


def _on_cpu(rows: list[Tensor], runs: Runs, p: float, scale: float, causal: bool, window: int | None) -> Tensor:
    """Rows (total, heads, width) of query, key and value, a rectangle at a time."""
    total, heads, width = rows[0].shape
    assert runs.places is not None
    sizes = [each.texts * each.longest for each in runs.rectangles]
    spread = [_Spread.apply(row.reshape(total, -1), runs.places, sum(sizes)) for row in rows]
    found: list[Tensor] = []
    for rectangle, *parts in zip(runs.rectangles, *(each.split(sizes) for each in spread), strict=True):
        query, key, value = (part.view(rectangle.texts, rectangle.longest, -1, width).transpose(1, 2) for part in parts)
        if key.shape[1] < heads:
            key, value = (each.repeat_interleave(heads // key.shape[1], dim=1) for each in (key, value))
        out = _attention(query * scale, key, value, _hidden(rectangle, causal, window), p)
        found.append(out.transpose(1, 2).reshape(-1, heads * width))
    return _Gather.apply(torch.cat(found), runs.places, total).view(total, heads, width)


def _attention(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None, p: float) -> Tensor:
    """Plain attention of (texts, heads, longest, width)."""
    scores = query @ key.transpose(-1, -2)
    if hidden is not None:
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    return cheap.dropout(scores.softmax(dim=-1), p) @ value


def _hidden(rectangle: Rectangle, causal: bool, window: int | None) -> Tensor | None:
    """What may not be seen, in a shape that spreads to (texts, 1, longest, longest)."""
    hidden = rectangle.absent
    if causal or (window is not None and window <= rectangle.longest):
        place = torch.arange(rectangle.longest)
        ahead = place - place[:, None]
        far = ahead > 0 if causal else torch.zeros_like(ahead, dtype=torch.bool)
        far = far if window is None else far | (ahead.abs() >= window)
        hidden = far if hidden is None else hidden | far
    return hidden


class _Spread(torch.autograd.Function):
    """Rows (row, width) into their cells (cells, width), zeros elsewhere; those without a place are left out."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor, cells: int) -> Tensor:
        ctx.save_for_backward(places)
        ctx.rows = len(rows)
        return rows.new_zeros(cells, rows.shape[1]).index_copy_(0, places, rows[: len(places)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _gathered(gradients[0], ctx.saved_tensors[0], ctx.rows), None, None


class _Gather(torch.autograd.Function):
    """The way back. That of `index_select` would add one row after the other, not knowing that each cell is one's."""

    @staticmethod
    def forward(ctx: Any, cells: Tensor, places: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(places)
        ctx.cells = len(cells)
        return _gathered(cells, places, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (places,), rows = ctx.saved_tensors, gradients[0]
        spread = rows.new_zeros(ctx.cells, rows.shape[1]).index_copy_(0, places, rows[: len(places)])
        return spread, None, None


def _gathered(cells: Tensor, places: Tensor, rows: int) -> Tensor:
    found = cells.new_zeros(rows, cells.shape[1])
    torch.index_select(cells, 0, places, out=found[: len(places)])
    return found


AttentionInterface.register(ATTENTION, attend)
