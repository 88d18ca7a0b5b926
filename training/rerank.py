"""The rerank task: queries with candidates to examples, logits to loss, figures and calibration."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from training.batches import Batch, Example
from training.calibration import Floats, fit_relevance
from training.config import LossName
from training.engine import Engine
from training.engine.encoding import Encoder
from training.losses import ranking_loss
from training.manifest import Manifest
from training.network import Network
from training.ranks import ranking_figures
from training.rerank_rows import RerankRow


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

    def prepared(self, rows: Sequence[RerankRow], encoder: Encoder) -> list[Example]:
        """Examples to learn from."""
        return self.examples(rows, encoder)

    def start_head(self, network: Network, engine: Engine, train: Sequence[Example]) -> None:
        """Nothing to do: a `PairHead` starts as the base's similarity."""

    def examples(self, rows: Sequence[RerankRow], encoder: Encoder) -> list[Example]:
        """Encode rows once, for all epochs: a query paired with the first piece of each of its candidates."""
        found = encoder.encode_pairs([row.query for row in rows], [row.passages for row in rows])
        return [
            Example(tuple(pieces[0] for pieces in group), np.array(row.grades, np.float32), missed=row.missed)
            for row, group in zip(rows, found, strict=True)
        ]

    def drawn(self, examples: Sequence[Example], epoch: int) -> list[Example]:
        """Up to `group_size` candidates of each query, drawn anew: relevant ones up to half, at least one; others."""
        return [self._draw(example, [self.seed, epoch, number]) for number, example in enumerate(examples)]

    def _draw(self, example: Example, seed: list[int]) -> Example:
        if len(example.items) <= self.group_size:
            return example
        order = np.random.default_rng(seed).permutation(len(example.items))
        relevant = [i for i in order if example.target[i] > 0]
        others = [i for i in order if example.target[i] <= 0]
        kept = max(self.group_size // 2, self.group_size - len(others))
        chosen = sorted((relevant[:kept] + others)[: self.group_size])
        return replace(example, items=tuple(example.items[i] for i in chosen), target=example.target[chosen])

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
