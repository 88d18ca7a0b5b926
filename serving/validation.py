"""Uploaded data judged before it is trained on: by the checks of `training.review`, under the rules of a surface."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from serving.files import EVAL_FRACTION, DatasetKind
from training.errors import DataError
from training.formats import DataOptions
from training.records import read_records, recognise
from training.review import Finding, Part, Review, ReviewOptions, review
from training.text import listed

Param = Literal["training_file", "validation_file"]

_NAMES: dict[str, tuple[Param, str]] = {
    "train": ("training_file", "Training file"),
    "valid": ("validation_file", "Validation file"),
}
_CODES = {"few_rows": "invalid_n_examples", "few_queries": "invalid_n_examples", "few_labels": "invalid_n_classes"}
"""Error codes of findings that have one of their own; the others are `invalid_file_format`."""
_LINES = 5
"""Bad lines named in an error."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a surface asks of data: the variants of one validation."""

    fatal: frozenset[str]
    """Findings that end it, unless they are mended; every other one is a warning."""
    mended: frozenset[str]
    """Findings that are mended without asking."""
    options: ReviewOptions
    fields: tuple[str, ...] = ()
    """Fields that every row must have besides those that are read."""
    eval_examples: int = 0
    """Fewer to evaluate on, rows or queries, are worth a warning."""


_BROKEN = frozenset(("encoding", "malformed", "columns", "chat_shape", "empty_label", "few_rows", "few_labels"))
_BROKEN_RANKING = frozenset(("empty_query", "no_relevant", "not_a_list", "positive_as_negative", "few_queries"))


def job_rules(encoder: str) -> Rules:
    """For a file of texts and labels that a job was given (OpenAI API, supervised fine-tuning)."""
    options = ReviewOptions(task="classify", multi_label=False, split=None, encoder=encoder)
    return Rules(_BROKEN, frozenset(("empty_text", "unseen_label")), options)


def dataset_rules(encoder: str, kind: DatasetKind, wishes: Mapping[str, Any]) -> Rules:
    """For a dataset to fine-tune on (Cohere documentation, preparing the data of Classify and Rerank).

    Args:
        encoder: whose tokens are counted.
        kind: of the dataset.
        wishes: what was asked for when it was uploaded: `skip_malformed_input`, `csv_delimiter`, `keep_fields`.
    """
    ranking = kind == "rerank"
    options = ReviewOptions(
        task="rerank" if ranking else "classify",
        multi_label=None if ranking else kind == "multi-label",
        data=DataOptions(delimiter=wishes.get("csv_delimiter")),
        min_rows=40,
        min_queries=256,
        split=None,
        encoder=encoder,
    )
    bad_rows = frozenset(("encoding", "malformed", "columns", "empty_text", "empty_label", "chat_shape"))
    bad_rows |= _BROKEN_RANKING - {"few_queries", "positive_as_negative"}
    mended = frozenset(("unseen_label", "duplicate_passage", "duplicate_query"))
    return Rules(
        _BROKEN | _BROKEN_RANKING | {"empty_text"},
        mended | bad_rows if wishes.get("skip_malformed_input") else mended,
        options,
        fields=tuple(wishes.get("keep_fields") or ()),
        eval_examples=64 if ranking else 24,
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a validation."""

    error: dict[str, Any] | None
    """`code`, `message` and `param`, if the data cannot be used."""
    warnings: tuple[str, ...]
    train: Part | None
    valid: Part | None


def validate(train: Path, valid: Path | None, rules: Rules, targets: tuple[Path, Path]) -> Verdict:
    """Judge data and, if it can be used, write its rows to `targets`.

    Args:
        train: training rows.
        valid: evaluation rows, if any.
        rules: of the surface.
        targets: where the rows to train and to evaluate on go.

    Raises:
        OSError: the disk is full, or cannot be written to.
    """
    try:
        for where, path in (("train", train), ("valid", valid)):
            if path and (missing := _missing_field(path, rules)):
                return Verdict(_error(where, "invalid_file_format", missing), (), None, None)
        found = review(train, valid, rules.options, lambda finding: finding.id in rules.mended)
    except DataError as error:
        where = "valid" if error.path is not None and Path(error.path) == valid else "train"
        return Verdict(_error(where, "invalid_file_format", _without_path(error, train, valid)), (), None, None)
    problem = _problem(found, rules)
    warnings = tuple(_said(finding) for finding in found.findings if finding.severity != "suggestion")
    warnings += _few_to_evaluate(found, rules)
    if problem:
        return Verdict(problem, warnings, found.train, found.valid)
    found.write(targets[0], targets[1] if valid else None)
    return Verdict(None, warnings, found.train, found.valid)


def _problem(found: Review, rules: Rules) -> dict[str, Any] | None:
    """The first thing that forbids training: what cannot be read comes before what is too little."""
    fatal = [finding for finding in found.findings if finding.id in rules.fatal and not finding.applied]
    # Rows to evaluate on have no least number; if none is left of them, that is told of below.
    errors = [f for f in fatal if f.severity == "error" and not (f.file == "valid" and f.id in _CODES)]
    if errors:
        first = min(errors, key=lambda finding: finding.id in _CODES)
        if first.id not in _CODES:
            return _error(first.file, "invalid_file_format", _lines(first))
        return _error(first.file, _CODES[first.id], _shortage(first, found, rules))
    if found.valid is not None and not found.valid.rows:
        return _error("valid", "invalid_file_format", "no row is left of it: none has a label of the training file")
    everywhere = [label for label, count in found.train.label_counts.items() if count == found.train.rows]
    if rules.options.multi_label and everywhere:
        tells_nothing = f"cannot be used. Every row has the label {listed(everywhere)}, which therefore tells nothing"
        return _error("train", "invalid_file_format", f"{tells_nothing}; remove it, or add rows without it")
    return None


def _missing_field(path: Path, rules: Rules) -> str:
    """What to say of the first row without a field that must be there; "" if there is none."""
    if not rules.fields:
        return ""
    for record in read_records(path, recognise(path, rules.options.data, rules.options.task or "classify")):
        missing = [name for name in rules.fields if name not in record.fields]
        if missing and not record.problem:
            reason = f"the required field {listed(missing[:1])} was not found in the dataset"
            return f"cannot be used. Line {record.line}: {reason}"
    return ""


def _few_to_evaluate(found: Review, rules: Rules) -> tuple[str, ...]:
    """A warning if what there is to evaluate on is too little for figures that mean much."""
    part = found.valid or found.train
    count = part.queries if rules.options.task == "rerank" else part.rows
    count = count if found.valid else int(count * EVAL_FRACTION)
    if count >= rules.eval_examples:
        return ()
    origin = "in the validation file" if found.valid else f"once {EVAL_FRACTION:.0%} of the training file is split off"
    what = "queries" if rules.options.task == "rerank" else "rows"
    return (f"[few_to_evaluate] {count} {what} to evaluate on {origin}; give {rules.eval_examples} or more",)


def _shortage(finding: Finding, found: Review, rules: Rules) -> str:
    if finding.id == "few_rows":
        return f"has {found.train.rows} example(s), but must have at least {rules.options.min_rows} examples"
    if finding.id == "few_queries":
        return f"has {found.train.queries} unique queries, but must have at least {rules.options.min_queries}"
    labels = list(found.train.label_counts)
    which = f" ({labels[0]!r})" if labels else ""
    return f"has {len(labels)} label{'' if len(labels) == 1 else 's'}{which}, but must have at least 2"


def _lines(finding: Finding) -> str:
    if not finding.reasons:
        return f"cannot be used: {finding.message}"
    named = [f"Line {row}: {reason}" for row, reason in finding.reasons[:_LINES]]
    more = finding.count - len(named)
    return "cannot be used. " + "; ".join(named) + (f"; and {more} more" if more > 0 else "")


def _said(finding: Finding) -> str:
    where = "validation file: " if finding.file == "valid" else ""
    return f"[{finding.id}] {where}{finding.message}" + (f"; {finding.fix}" if finding.applied and finding.fix else "")


def _error(where: str, code: str, message: str) -> dict[str, Any]:
    param, name = _NAMES[where]
    return {"code": code, "message": f"{name} {message}", "param": param}


def _without_path(error: DataError, *paths: Path | None) -> str:
    """The message without the place where the file is stored, which is none of the client's business."""
    text = str(error)
    for path in paths:
        if path is not None and text.startswith(f"{path}:"):
            text = text.removeprefix(f"{path}:").lstrip()
            line, colon, rest = text.partition(": ")
            text = f"Line {line}: {rest}" if colon and line.isdecimal() else text
    return f"cannot be used. {text}"


def summary(parts: Sequence[Part | None]) -> list[dict[str, Any]]:
    """Numbers of the parts of a dataset, for its report."""
    return [
        {
            "rows": part.rows,
            "tokens": part.tokens,
            "label_counts": part.label_counts,
            "samples": part.samples,
            "queries": part.queries,
            "relevant_passages": part.relevant_passages,
            "hard_negatives": part.hard_negatives,
        }
        for part in parts
        if part is not None
    ]
