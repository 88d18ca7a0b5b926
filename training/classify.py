"""The classification task: rows to examples, logits to loss, figures and calibration."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from training.batches import Batch, Example
from training.calibration import Floats, fit_temperature, probabilities, tune_thresholds
from training.engine import Engine
from training.engine.encoding import Encoder
from training.manifest import Manifest
from training.metrics import ClassificationMetrics
from training.network import Network
from training.probe import fit_linear
from training.rows import ClassifyRow
from training.store import ExampleStore, store_tokens

_COLUMNS = {
    "classification/accuracy": "accuracy",
    "classification/weighted_f1_score": "f1_weighted",
    "classification/precision": "precision",
    "classification/recall": "recall",
    "classification/f1.0": "f1",
    "classification/auroc": "auroc",
    "classification/auprc": "auprc",
}
_WIDE = ("accuracy", "f1_weighted")
"""Of these, the figures that any number of labels has."""
_PROBE_ROWS = 4_000
"""Rows the first head is fitted on; more change it little."""
_PROBE_STRENGTH = 0.01
"""Regularised well below the best probe: a head that is already certain of its training rows passes no gradient on."""
_INTERCHANGEABLE = 0.5
"""Share of a label's texts that other labels contradict, from which its own rows tell nothing apart from theirs."""


@dataclass(frozen=True)
class ClassifyTask:
    """What the loop asks of a task."""

    labels: tuple[str, ...]
    multi_label: bool
    label_smoothing: float = 0.0
    weigh: bool = False
    """Let all labels count alike in the loss."""
    soften: bool = False
    """Let labels that the file contradicts share their targets."""
    seed: int = 0

    @property
    def columns(self) -> dict[str, str]:
        """Columns of metrics.csv and the figures in them: those of OpenAI's 2021 results, which old notebooks plot."""
        return {k: v for k, v in _COLUMNS.items() if v in _WIDE or (len(self.labels) == 2 and not self.multi_label)}

    def prepared(self, rows: Sequence[ClassifyRow], encoder: Encoder, path: Path | None = None) -> ExampleStore:
        """Examples to learn from."""
        examples = self.examples(rows, encoder, path)
        examples = self.weighted(examples) if self.weigh else examples
        return self.softened(rows, examples) if self.soften else examples

    def start_head(self, network: Network, engine: Engine, train: Sequence[Example]) -> None:
        """Give the head the weights of a linear probe on the base as it is, before any of it is trained.

        A random head sends noise back through good features in the first steps; one that fits them keeps what the
        base knows (Kumar et al. 2022, arXiv:2202.10054).
        """
        chosen = np.random.default_rng(self.seed).permutation(len(train))[:_PROBE_ROWS]
        head, network.head = network.head, nn.Identity()
        network.eval()
        pooled = engine.score([item for i in chosen for item in train[i].items])
        targets = np.concatenate([train[i].target for i in chosen])
        found = fit_linear(pooled, targets, multi_label=self.multi_label, strength=_PROBE_STRENGTH)
        network.head = head
        with torch.no_grad():
            for parameter, value in zip(head.parameters(), (found.weight, found.bias), strict=True):
                parameter.copy_(torch.from_numpy(value))

    def examples(self, rows: Sequence[ClassifyRow], encoder: Encoder, path: Path | None = None) -> ExampleStore:
        """Encode rows once, for all epochs, to the file `path`."""
        targets, codes = self._coded(rows)
        items = store_tokens(
            rows, lambda row: (row.text,), lambda some: encoder.encode([row.text for row in some]), encoder, path
        )
        return ExampleStore(items, np.arange(len(rows) + 1), targets, codes, np.ones(len(rows)))

    def drawn(self, examples: ExampleStore, epoch: int) -> ExampleStore:
        """All of them, in every epoch."""
        return examples

    def targets(self, rows: Sequence[ClassifyRow]) -> NDArray[np.float32]:
        """Rows as (n, labels): 1 where a row has the label."""
        targets, codes = self._coded(rows)
        return targets[codes]

    def _coded(self, rows: Sequence[ClassifyRow]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """The distinct targets (distinct, labels), and which of them is each row's (n,)."""
        position = {label: k for k, label in enumerate(self.labels)}
        known: dict[tuple[str, ...], int] = {}
        codes = np.fromiter((known.setdefault(row.labels, len(known)) for row in rows), np.int32, len(rows))
        targets = np.zeros((len(known), len(self.labels)), np.float32)
        for names, code in known.items():
            targets[code, [position[name] for name in names]] = 1
        return targets, codes

    def weighted(self, examples: ExampleStore) -> ExampleStore:
        """Give each example the inverse frequency of its label, one on average over the file."""
        labels = examples.targets.argmax(axis=1)[examples.codes]
        counts = np.bincount(labels)
        share = len(examples) / np.count_nonzero(counts)
        return replace(examples, weights=share / counts[labels])

    def softened(self, rows: Sequence[ClassifyRow], examples: ExampleStore) -> ExampleStore:
        """Soften each row's target by the file's own disagreement about its label.

        Where the same text occurs under labels A and B, both are as good an answer. How often that happens to
        A's texts, and with which B, is counted over the file; a row labelled A then gives that part of half its
        target to those B, also where its own other label is not in the file. If most of A's texts are
        contradicted, the others are taken to be so too, and A keeps just half. Without it, a network that has
        seen a text under A is certain of A (label smoothing by a confusion matrix; cf. Patrini et al. 2017,
        arXiv:1609.03683). A file without contradictions is left as it is.
        """
        labels, width = examples.targets.argmax(axis=1), len(self.labels)
        known: dict[str, int] = {}
        numbers = np.fromiter((known.setdefault(row.text, len(known)) for row in rows), np.int64, len(rows))
        number, label = np.divmod(np.unique(numbers * width + labels[examples.codes]), width)  # each pair once
        texts = np.bincount(label, minlength=width).astype(np.float32)
        several = np.bincount(number)[number] > 1
        others = np.zeros((width, width), np.float32)
        for found in np.split(label[several], np.flatnonzero(np.diff(number[several])) + 1):
            for one, other in permutations(found.tolist(), 2):
                others[one, other] += 1 / (len(found) - 1)
        rates = others.sum(axis=1) / np.maximum(texts, 1)
        given = np.where(rates >= _INTERCHANGEABLE, 1, rates) / 2
        shared = others * (given / np.maximum(others.sum(axis=1), 1))[:, None]
        targets = shared + np.diag(1 - given)
        return replace(examples, targets=targets[labels])

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Loss of each text (n,): cross-entropy, or binary cross-entropy averaged over labels."""
        if self.multi_label:
            return functional.binary_cross_entropy_with_logits(logits, batch.targets, reduction="none").mean(dim=1)
        return functional.cross_entropy(logits, batch.targets, reduction="none", label_smoothing=self.label_smoothing)

    def hits(self, logits: Tensor, batch: Batch) -> Tensor:
        """How right each text is (n,), from 0 to 1: the top label, or the share of labels on their side of one half."""
        if self.multi_label:
            return ((logits > 0) == (batch.targets > 0.5)).float().mean(dim=1)
        return (logits.argmax(dim=1) == batch.targets.argmax(dim=1)).float()

    def assess(self, outputs: Sequence[Floats], examples: Sequence[Example]) -> dict[str, float]:
        """The scalar figures of evaluation rows during training, thresholds tuned but nothing calibrated."""
        logits, targets = np.concatenate(outputs), np.concatenate([example.target for example in examples])
        found = self.figures(logits, targets, self.decide(logits, targets, calibrate=False))
        return {name: value for name, value in found.items() if isinstance(value, float)}

    def calibrated(self, manifest: Manifest, outputs: Sequence[Floats], examples: Sequence[Example]) -> Manifest:
        """The manifest with the temperature and the thresholds that suit held-out rows, and its figures of them."""
        logits, targets = np.concatenate(outputs), np.concatenate([example.target for example in examples])
        decision = self.decide(logits, targets, calibrate=True)
        found = self.figures(logits, targets, decision)
        metrics = {name: value for name, value in found.items() if isinstance(value, float)}
        update = {"temperature": decision.temperature, "thresholds": decision.thresholds, "metrics": metrics}
        return manifest.model_copy(update=update)

    def decide(self, logits: Floats, targets: NDArray[np.float32], *, calibrate: bool) -> "Decision":
        """Choose temperature and thresholds on held-out rows; without `calibrate` the temperature stays 1."""
        temperature = fit_temperature(logits, targets, multi_label=self.multi_label) if calibrate else 1.0
        if not self.multi_label:
            return Decision(temperature, None)
        probs = probabilities(logits, temperature, multi_label=True)
        return Decision(temperature, tune_thresholds(probs, targets))

    def figures(self, logits: Floats, targets: NDArray[np.float32], decision: "Decision") -> dict[str, Any]:
        """All metrics of scored rows; see `training.metrics.ClassificationMetrics`."""
        probs = probabilities(logits, decision.temperature, multi_label=self.multi_label)
        thresholds = list(decision.thresholds) if decision.thresholds is not None else None
        found = ClassificationMetrics().compute(
            predictions=probs, references=targets, labels=list(self.labels), thresholds=thresholds
        )
        assert found is not None  # only processes other than the first get None, and there is one
        return found


@dataclass(frozen=True)
class Decision:
    """How logits become answers."""

    temperature: float
    thresholds: tuple[float, ...] | None
