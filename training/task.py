"""What a task is to the run and its loop; `training.classify` and `training.rerank` are the two there are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from training.batches import Batch, Example
from training.calibration import Floats
from training.engine import Engine
from training.engine.encoding import Encoder
from training.manifest import Manifest
from training.network import Network
from training.store import ExampleStore


class Data(Protocol):
    """The rows of a run and what was learned from reading them."""

    @property
    def train(self) -> list[Any]:
        """Rows to learn from; given up once they are encoded."""
        ...

    @property
    def eval(self) -> Sequence[Any]:
        """Rows to choose the best epoch and to calibrate on."""
        ...

    @property
    def test(self) -> Sequence[Any]:
        """Rows to measure the result on; may be none."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Of a classifier."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the files, one sentence each."""
        ...

    @property
    def summary(self) -> str:
        """How much there is, in a few words."""
        ...

    def resolved(self) -> dict[str, Any]:
        """Settings that follow from the rows."""
        ...

    def described(self) -> dict[str, Any]:
        """What a checkpoint's manifest says of the task."""
        ...


class Task(Protocol):
    """From rows to examples, from logits to loss, figures and calibration."""

    @property
    def columns(self) -> dict[str, str]:
        """Further columns of metrics.csv and the figures in them."""
        ...

    def prepared(self, rows: Sequence[Any], encoder: Encoder, path: Path | None = None) -> ExampleStore:
        """Examples to learn from, their tokens in the file `path`; None keeps them in memory."""
        ...

    def examples(self, rows: Sequence[Any], encoder: Encoder, path: Path | None = None) -> ExampleStore:
        """Examples to measure on."""
        ...

    def start_head(self, network: Network, engine: Engine, train: Sequence[Example]) -> None:
        """Give a new head its first weights."""
        ...

    def drawn(self, examples: ExampleStore, epoch: int) -> ExampleStore:
        """The examples as one epoch sees them: as they are, or a part of each, drawn anew; in the same order."""
        ...

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Loss of each example (examples,) from the logits (items, width)."""
        ...

    def hits(self, logits: Tensor, batch: Batch) -> Tensor:
        """How right each example is (examples,), from 0 to 1."""
        ...

    def assess(self, outputs: Sequence[Floats], examples: Sequence[Example]) -> dict[str, float]:
        """Figures of the evaluation rows after an epoch; must hold `loss`, `accuracy` and the metric to choose by.

        The outputs are the logits of each example, (items, width).
        """
        ...

    def calibrated(self, manifest: Manifest, outputs: Sequence[Floats], examples: Sequence[Example]) -> Manifest:
        """The manifest with what turns logits into probabilities, fitted to held-out rows, and its figures of them.

        These must hold `loss` and `accuracy`.
        """
        ...
