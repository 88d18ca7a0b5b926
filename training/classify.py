"""The classification task: rows to examples, logits to loss, figures and decisions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.batches import Example
from training.calibration import Floats, fit_temperature, probabilities, tune_thresholds
from training.config import TrainConfig
from training.engine.encoding import Encoder
from training.errors import ConfigError, DataError
from training.metrics import ClassificationMetrics
from training.rows import ClassifyFile, ClassifyRow, read_classify, surface_forms
from training.splits import split_off, undersample
from training.text import TextRules

_MOST_SHARED = 0.49
"""Of a target that other labels may take; under a half, so that a row's own label stays the largest."""


@dataclass(frozen=True)
class ClassifyData:
    """The rows of a run and what was learned from reading them."""

    train: list[ClassifyRow]
    eval: list[ClassifyRow]
    test: list[ClassifyRow]
    labels: tuple[str, ...]
    multi_label: bool
    rules: TextRules
    surfaces: dict[str, str]
    notes: tuple[str, ...]


def read_data(config: TrainConfig) -> ClassifyData:
    """Read, split and balance the files of a run.

    Raises:
        DataError: a file or row that cannot be used, fewer than two labels, an evaluation or test label that
            training lacks.
        ConfigError: a setting that does not fit the kind of labels.
    """
    wanted = None if config.problem == "auto" else config.problem == "multi_label"
    source = read_classify(config.train_file, config.data, multi_label=wanted)
    if source.multi_label and (config.balance != "none" or config.label_smoothing):
        raise ConfigError("balance and label_smoothing are for single-label data; remove them for multi-label rows")
    labels = tuple(sorted({label for row in source.rows for label in row.labels}))
    if len(labels) < 2:
        found = f"only the label {labels[0]!r}" if labels else "no label"
        raise DataError(f"the file has {found}; a classifier needs at least two", config.train_file)
    train = source.rows
    test = _read_part(config, config.test_file, source, labels)
    if config.test_file is None and config.test_fraction:
        train, test = split_off(train, config.test_fraction, config.seed)
    held = _read_part(config, config.eval_file, source, labels)
    if config.eval_file is None:
        # The test part is gone by now, so the share of what is left is larger.
        fraction = config.eval_fraction / (1 - (config.test_fraction if config.test_file is None else 0))
        train, held = split_off(train, fraction, config.seed + 1)
        if not held:
            raise DataError("too few rows to split off evaluation rows; add rows or give eval_file", config.train_file)
    if config.balance == "undersample":
        train = undersample(train, config.seed)
    return ClassifyData(
        train, held, test, labels, source.multi_label, source.rules, surface_forms(source.rows), source.notes
    )


def _read_part(
    config: TrainConfig, path: str | None, source: ClassifyFile, labels: tuple[str, ...]
) -> list[ClassifyRow]:
    if path is None:
        return []
    part = read_classify(path, config.data, source.rules, multi_label=source.multi_label)
    check_labels(part, labels)
    return part.rows


def check_labels(file: ClassifyFile, labels: Sequence[str]) -> None:
    """Refuse a file with a label that the model does not know.

    Raises:
        DataError: names the first such row and the labels known.
    """
    known = set(labels)
    for row in file.rows:
        for label in row.labels:
            if label not in known:
                some = ", ".join(sorted(known)[:10]) + (", ..." if len(known) > 10 else "")
                raise DataError(
                    f"label {label!r} does not occur in training, which has {some}; correct or remove the row",
                    file.path,
                    row.line,
                )


@dataclass(frozen=True)
class ClassifyTask:
    """What the loop asks of a task."""

    labels: tuple[str, ...]
    multi_label: bool
    label_smoothing: float = 0.0

    def examples(self, rows: Sequence[ClassifyRow], encoder: Encoder) -> list[Example]:
        """Encode rows once, for all epochs."""
        targets = self.targets(rows)
        items = encoder.encode([row.text for row in rows])
        return [Example(item, target) for item, target in zip(items, targets, strict=True)]

    def targets(self, rows: Sequence[ClassifyRow]) -> NDArray[np.float32]:
        """Rows as (n, labels): 1 where a row has the label."""
        position = {label: k for k, label in enumerate(self.labels)}
        targets = np.zeros((len(rows), len(self.labels)), np.float32)
        for number, row in enumerate(rows):
            for label in row.labels:
                targets[number, position[label]] = 1
        return targets

    def weighted(self, examples: list[Example]) -> list[Example]:
        """Give each example the inverse frequency of its label, one on average over the file."""
        counts = Counter(int(example.target.argmax()) for example in examples)
        share = len(examples) / len(counts)
        return [replace(e, weight=share / counts[int(e.target.argmax())]) for e in examples]

    def softened(self, rows: Sequence[ClassifyRow], examples: list[Example]) -> list[Example]:
        """Soften each row's target by the file's own disagreement about its label.

        Where the same text occurs under labels A and B, both are as good an answer. How often that happens to
        A's texts, and with which B, is counted over the file; a row labelled A then gives up to half of its target
        to those B, also where its own other label is not in the file. Without it, a network that has seen a
        text under A is certain of A (label smoothing by a confusion matrix; cf. Patrini et al. 2017,
        arXiv:1609.03683). A file without contradictions is left as it is.
        """
        by_text: dict[str, set[int]] = {}
        for row, example in zip(rows, examples, strict=True):
            by_text.setdefault(row.text, set()).add(int(example.target.argmax()))
        width = len(self.labels)
        others, texts = np.zeros((width, width), np.float32), np.zeros(width, np.float32)
        for labels in by_text.values():
            for label in labels:
                texts[label] += 1
                for other in labels - {label}:
                    others[label, other] += 1 / (len(labels) - 1)
        shared = _MOST_SHARED * others / np.maximum(texts, 1)[:, None]
        targets = shared + np.diag(1 - shared.sum(axis=1))
        return [replace(example, target=targets[int(example.target.argmax())]) for example in examples]

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of each row (n,): cross-entropy, or binary cross-entropy averaged over labels."""
        if self.multi_label:
            return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)
        return functional.cross_entropy(logits, targets, reduction="none", label_smoothing=self.label_smoothing)

    def hits(self, logits: Tensor, targets: Tensor) -> Tensor:
        """How right each row is (n,), from 0 to 1: the top label, or the share of labels on their side of one half."""
        if self.multi_label:
            return ((logits > 0) == (targets > 0.5)).float().mean(dim=1)
        return (logits.argmax(dim=1) == targets.argmax(dim=1)).float()

    def assess(self, logits: Floats, targets: NDArray[np.float32]) -> dict[str, float]:
        """The scalar figures of evaluation rows during training, thresholds tuned but nothing calibrated."""
        found = self.figures(logits, targets, self.decide(logits, targets, calibrate=False))
        return {name: value for name, value in found.items() if isinstance(value, float)}

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
