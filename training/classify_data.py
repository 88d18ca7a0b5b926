"""The rows of a classification run: read, split, balanced."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.config import TrainConfig
from training.errors import ConfigError, DataError
from training.rows import ClassifyFile, ClassifyRow, read_classify, surface_forms
from training.splits import parts, split_off, undersample
from training.text import TextRules


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

    @property
    def summary(self) -> str:
        """How much there is, in a few words."""
        kind = " (multi-label)" if self.multi_label else ""
        rows = f"{len(self.train)} training, {len(self.eval)} evaluation, {len(self.test)} test rows"
        return f"{rows}; {len(self.labels)} labels{kind}"

    def resolved(self) -> dict[str, Any]:
        """Settings that follow from the rows."""
        return {"problem": "multi_label" if self.multi_label else "single_label"}

    def described(self) -> dict[str, Any]:
        """What a checkpoint's manifest says of the task."""
        return {
            "task": "classify",
            "problem_type": f"{'multi' if self.multi_label else 'single'}_label_classification",
            "labels": self.labels,
            "surfaces": self.surfaces,
            "rules": self.rules,
        }


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

    def read(path: str) -> list[ClassifyRow]:
        part = read_classify(path, config.data, source.rules, multi_label=source.multi_label)
        check_labels(part, labels)
        return part.rows

    train, held, test = parts(config, source.rows, read, split_off)
    if config.eval_file is None and not held:
        raise DataError("too few rows to split off evaluation rows; add rows or give eval_file", config.train_file)
    if config.balance == "undersample":
        train = undersample(train, config.seed)
    return ClassifyData(
        train, held, test, labels, source.multi_label, source.rules, surface_forms(source.rows), source.notes
    )


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
