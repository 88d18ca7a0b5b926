"""A running average of the weights, which is what gets evaluated and kept.

Weights in the middle of a schedule still jump about with the learning rate; their exponential average does not,
so the best epoch can be told on few evaluation rows (Izmailov et al. 2018, arXiv:1803.05407; Morales-Brotons et
al. 2024, arXiv:2411.18704). Only trained weights are averaged, so an adapter costs next to nothing.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """The exponential moving average of a module's trained weights."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Begin at the weights as they are; `decay` 0 makes the average the weights themselves."""
        self._weights: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
        self._average = [p.detach().clone() for p in self._weights]
        self._decay, self._updates = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of one more step in; the first steps count for more, so that the start is forgotten."""
        self._updates += 1
        decay = min(self._decay, self._updates / (self._updates + 9))
        if self._weights:
            # One launch on a GPU; torch's own optimisers call it so.
            torch._foreach_lerp_(self._average, self._weights, 1 - decay)  # pyright: ignore

    @contextmanager
    def applied(self) -> Generator[None, None, None]:
        """Within, the module has the averaged weights."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchange the weights and their average."""
        for position, weight in enumerate(self._weights):
            weight.data, self._average[position] = self._average[position], weight.data

    def state_dict(self) -> dict[str, Any]:
        """For Accelerate's saved state."""
        return {"updates": self._updates, "average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From Accelerate's saved state."""
        self._updates = state["updates"]
        saved: list[Tensor] = state["average"]
        for average, value in zip(self._average, saved, strict=True):
            average.copy_(value)
