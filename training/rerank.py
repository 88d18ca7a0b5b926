"""The rerank task: queries with candidates to examples, logits to loss, figures and calibration."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from training.batches import Batch, Example
from training.calibration import Floats, fit_relevance
from training.config import LossName
from training.engine import Engine
from training.engine.encoding import Encoded, Encoder
from training.losses import ranking_loss
from training.manifest import Manifest
from training.network import Network
from training.ranks import ranking_figures
from training.rerank_rows import RerankRow
from training.store import ExampleStore, store_tokens


@dataclass(frozen=True)
class RerankTask:
    """What the loop asks of a task."""

    loss_name: LossName = "listwise"
    group_size: int = 8
    seed: int = 0

    @property
    def columns(self) -> dict[str, str]:
        """Columns of metrics.csv and the figures in them."""
        return {f"ranking/{name}": name for name in ("ndcg@10", "mrr@10", "map", "accuracy@1")}

    def prepared(self, rows: Sequence[RerankRow], encoder: Encoder, path: Path | None = None) -> ExampleStore:
        """Examples to learn from."""
        return self.examples(rows, encoder, path)

    def start_head(self, network: Network, engine: Engine, train: Sequence[Example]) -> None:
        """Nothing to do: a `PairHead` starts as the base's similarity."""

    def examples(self, rows: Sequence[RerankRow], encoder: Encoder, path: Path | None = None) -> ExampleStore:
        """Encode rows once, for all epochs, to the file `path`: a query with the first piece of each candidate."""

        def encode(some: Sequence[RerankRow]) -> Iterator[Encoded]:
            pairs = encoder.encode_pairs([row.query for row in some], [row.passages for row in some])
            return (pieces[0] for group in pairs for pieces in group)

        items = store_tokens(rows, lambda row: (row.query, *row.passages), encode, encoder, path)
        starts = np.cumsum([0, *(len(row.passages) for row in rows)])
        grades = np.fromiter(chain.from_iterable(row.grades for row in rows), np.float32, len(items))
        missed = {number: row.missed for number, row in enumerate(rows) if row.missed}
        codes = np.arange(len(items), dtype=np.int32)
        return ExampleStore(items, starts, grades, codes, np.ones(len(rows)), missed)

    def drawn(self, examples: ExampleStore, epoch: int) -> ExampleStore:
        """Up to `group_size` candidates of each query, drawn anew: relevant ones up to half, at least one; others."""
        sizes = np.diff(examples.starts)
        large = np.flatnonzero(sizes > self.group_size)
        if not len(large):
            return examples
        starts = np.append(0, np.minimum(sizes, self.group_size).cumsum())
        # Where what is taken of each query begins, then the places after it: right for those that are taken whole.
        chosen = np.arange(starts[-1]) + np.repeat(examples.starts[:-1] - starts[:-1], np.diff(starts))
        relevant = examples.targets[examples.codes] > 0
        for number in large.tolist():
            begin, end = examples.starts[number : number + 2].tolist()
            drawn = self._draw(relevant[begin:end], [self.seed, epoch, number])
            chosen[starts[number] : starts[number + 1]] = begin + drawn
        return replace(examples, items=examples.items.take(chosen), starts=starts, codes=examples.codes[chosen])

    def _draw(self, relevant: NDArray[np.bool_], seed: list[int]) -> NDArray[np.int64]:
        """Positions of `group_size` candidates, in order."""
        order = np.random.default_rng(seed).permutation(len(relevant))
        found = relevant[order]
        best, others = order[found], order[~found]
        kept = max(self.group_size // 2, self.group_size - len(others))
        return np.sort(np.concatenate([best[:kept], others])[: self.group_size])

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Loss of each query (queries,) from the logits of its candidates (candidates, 1)."""
        return ranking_loss(self.loss_name, logits[:, 0], batch.targets, batch.sizes)

    def hits(self, logits: Tensor, batch: Batch) -> Tensor:
        """Whether each query's best scored candidate is one of its best (queries,)."""
        scores = pad_sequence(list(logits[:, 0].split(batch.sizes)), batch_first=True, padding_value=-torch.inf)
        grades = pad_sequence(list(batch.targets.split(batch.sizes)), batch_first=True, padding_value=-torch.inf)
        top = grades.gather(1, scores.argmax(dim=1, keepdim=True))[:, 0]
        return (top == grades.amax(dim=1)).float()

    def assess(self, outputs: Sequence[Floats], examples: Sequence[Example]) -> dict[str, float]:
        """The scalar figures of evaluation queries during training, with the loss over all their candidates."""
        scores, targets = [out[:, 0] for out in outputs], [example.target for example in examples]
        found = ranking_figures(scores, targets, [example.missed for example in examples])
        # One query after the other: side by side they would take the square of the longest list for each.
        losses = [
            ranking_loss(self.loss_name, torch.from_numpy(one), torch.from_numpy(grades), [len(grades)])
            for one, grades in zip(scores, targets, strict=True)
        ]
        figures = {name: value for name, value in found.items() if isinstance(value, float)}
        return figures | {"loss": float(torch.cat(losses).mean())}

    def calibrated(self, manifest: Manifest, outputs: Sequence[Floats], examples: Sequence[Example]) -> Manifest:
        """The manifest with the temperature and bias that suit held-out judgements, and the figures of those."""
        targets = np.concatenate([example.target for example in examples])
        temperature, bias = fit_relevance(np.concatenate(outputs)[:, 0], targets > 0)
        metrics = self.assess(outputs, examples)
        return manifest.model_copy(update={"temperature": temperature, "bias": bias, "metrics": metrics})
