"""Which texts share a forward pass: a token budget with a cap on padding.

A batch costs `texts x longest` tokens, real or not. Two limits keep it good: the padded total stays under
`max_tokens`, and under `max_waste` times the real tokens, so that one long text never makes twenty short
ones as slow as itself.
"""

from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """How large one forward pass, and the queue before it, may grow."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_tokens: int = Field(default=2048, gt=0)
    """Padded tokens of one batch."""
    max_waste: float = Field(default=1.25, ge=1)
    """Padded tokens over real tokens."""
    max_items: int = Field(default=256, gt=0)
    """Texts of one batch."""
    short_tokens: int = Field(default=256, gt=0)
    """A request of up to so many tokens is short; while such come in, batches of others hold half of that."""
    max_queued_tokens: int = Field(default=2_000_000, gt=0)
    """Tokens that may wait; a submission beyond it is refused."""

    @classmethod
    def for_device(cls, device: str) -> "Limits":
        """Limits that keep the device busy: small on a CPU, where padding costs time, large on a GPU."""
        return cls() if device == "cpu" else cls(max_tokens=32_768, max_waste=1.5, max_items=1024, short_tokens=8192)

    def fits(self, items: int, longest: int, real: int) -> bool:
        """Whether `items` texts, the longest of `longest` tokens and `real` tokens in all, may share a batch."""
        return items == 1 or (
            items <= self.max_items and items * longest <= min(self.max_tokens, self.max_waste * real)
        )


def grow(lengths: Sequence[int], seed: int, limits: Limits) -> tuple[int, int]:
    """Grow a batch around one text, nearest length first.

    Args:
        lengths: token counts in ascending order.
        seed: position in `lengths` of the text that must be in the batch.
        limits: what a batch may hold.

    Returns:
        The half-open range `[low, high)` of positions that form the batch.
    """
    low, high, real = seed, seed + 1, lengths[seed]
    while True:
        shorter = lengths[low - 1] if low > 0 else None
        longer = lengths[high] if high < len(lengths) else None
        if shorter is not None and (longer is None or lengths[seed] - shorter <= longer - lengths[seed]):
            if limits.fits(high - low + 1, lengths[high - 1], real + shorter):
                low, real = low - 1, real + shorter
                continue
            shorter = None
        if longer is not None and limits.fits(high - low + 1, longer, real + longer):
            high, real = high + 1, real + longer
            continue
        if shorter is not None and limits.fits(high - low + 1, lengths[high - 1], real + shorter):
            low, real = low - 1, real + shorter
            continue
        return low, high


def plan(lengths: Sequence[int], limits: Limits) -> Iterator[list[int]]:
    """Split many texts into batches, the longest first (so that running out of memory shows at once).

    Args:
        lengths: token counts in any order.
        limits: what a batch may hold.

    Yields:
        Positions in `lengths`, each exactly once.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    ascending = [lengths[i] for i in order]
    while order:
        low, _ = grow(ascending, len(order) - 1, limits)
        yield order[low:]
        del order[low:], ascending[low:]
