"""What runs a network: the small interface behind the engine."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.engine.encoding import Encoded

Floats = NDArray[np.float32]


class Backend(Protocol):
    """A network made ready for a device. Only one thread may call `forward` at a time."""

    @property
    def name(self) -> str:
        """`torch` or `openvino`."""
        ...

    @property
    def precision(self) -> str:
        """Of the backbone's matrix products: `float32` or `bfloat16`."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory of the weights."""
        ...

    def forward(self, items: Sequence[Encoded]) -> Floats:
        """Run one batch that fits in memory, at least one item: float32 of shape (items, width)."""
        ...
