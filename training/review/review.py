"""One review: files in, findings and what is left of the rows out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from training.encodings import find_encoding, has_mark
from training.errors import DataError
from training.formats import RERANK_FORMATS, FileFormat, FormatName, Task
from training.records import recognise
from training.review.classify import ClassifyReview
from training.review.findings import Finding, Ledger, Which
from training.review.options import Family, ReviewOptions
from training.review.output import ClassifyWriter, check_family, family_of, write_parts
from training.review.rankings import RankingScan
from training.review.rerank import RerankReview
from training.review.rerank_output import RerankWriter
from training.review.rows import TRAIN, VALID
from training.review.scan import Scan
from training.review.tokens import Encoder, load_encoder

_SAMPLES = 5
_WHICH: tuple[Which, Which] = ("train", "valid")


@dataclass
class Part:
    """What is left of one file, or what is split off."""

    rows: int = 0
    tokens: int = 0
    """As the encoder sees them: truncated. 0 if they were not counted."""
    label_counts: dict[str, int] = field(default_factory=dict[str, int])
    """The most frequent first."""
    samples: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Beginnings of up to five texts of each label."""
    queries: int = 0
    relevant_passages: int = 0
    hard_negatives: int = 0


@dataclass
class Review:
    """What was found, what was decided, and what is left."""

    path: Path
    format: FormatName
    encoding: str
    task: Task
    to: Family
    multi_label: bool
    findings: list[Finding]
    notes: tuple[str, ...]
    """What was assumed about the files and how to override it, one sentence each."""
    train: Part
    valid: Part | None
    read: int
    """Records of the training file."""
    read_counts: dict[str, int]
    """Rows of each label before anything was dropped."""
    _write: Callable[[Path, Path | None], None] = field(repr=False)

    @property
    def ready(self) -> bool:
        """Whether no error remains."""
        return not any(finding.severity == "error" and not finding.applied for finding in self.findings)

    def write(self, train: Path, valid: Path | None) -> None:
        """Write what is left: JSONL, or a table for the family csv. The files appear whole or not at all.

        Raises:
            OSError: a file cannot be written.
            DataError: a reviewed file is not what it was.
        """
        self._write(train, valid)


def _safe(finding: Finding) -> bool:
    return finding.safe


def review(
    train: Path,
    valid: Path | None = None,
    options: ReviewOptions | None = None,
    decide: Callable[[Finding], bool] = _safe,
) -> Review:
    """Check a training file, and a validation file beside it; the files themselves stay as they are.

    Args:
        train: rows in any form that can be trained on.
        valid: rows to validate on; None lets them be split off.
        options: what to look for.
        decide: asked once for each finding that can be fixed, in the order of the checks, so that what it is told
            counts what is left; True has the fix applied.

    Raises:
        DataError: a file cannot be read at all, or holds another task's rows.
        ModelError: the encoder that was asked for is not found.
    """
    options = options or ReviewOptions()
    paths = [Path(train)] if valid is None else [Path(train), Path(valid)]
    formats = [_recognise(paths[0], options)]
    task: Task = "rerank" if formats[0].name in RERANK_FORMATS else "classify"
    formats += [_recognise(path, options.model_copy(update={"task": task})) for path in paths[1:]]
    encoder = load_encoder(options, task)
    ledger = Ledger(decide)
    make = _review_rankings if task == "rerank" else _review_texts
    return make(list(zip(paths, formats, strict=True)), options, encoder, ledger)


def _recognise(path: Path, options: ReviewOptions) -> FileFormat:
    """Recognise a file by its content; a table of pairs or triplets only if it is no table of texts and labels."""
    encoding = find_encoding(path)
    if options.task == "rerank":
        return recognise(path, options.data, "rerank", encoding)
    try:
        found = recognise(path, options.data, "classify", encoding)
    except DataError:
        if options.task == "classify":
            raise
        try:
            return recognise(path, options.data, "rerank", encoding)
        except DataError:
            pass  # what was expected of texts and labels says more
        raise
    if options.task == "classify" and found.name in RERANK_FORMATS:
        raise DataError("the rows are queries with passages; expected texts with labels", path, found.line)
    return found


def _review_texts(
    files: list[tuple[Path, FileFormat]], options: ReviewOptions, encoder: Encoder | None, ledger: Ledger
) -> Review:
    scans = [Scan(path, found, which, options) for (path, found), which in zip(files, _WHICH, strict=False)]
    made = ClassifyReview(scans, options.to or family_of(scans[0]), encoder, options)
    made.judge(ledger)
    check_family(made)
    source = scans[-1]
    split = len(source.where(VALID)) > 0 or len(scans) > 1
    return Review(
        files[0][0],
        scans[0].found.name,
        scans[0].found.encoding,
        "classify",
        made.to,
        made.multi_label,
        ledger.findings(),
        _notes(files, encoder),
        _part(made, scans[0], TRAIN),
        _part(made, source, VALID) if split else None,
        len(scans[0].lines),
        made.read_counts,
        lambda train, valid: write_parts(ClassifyWriter(made).lines, train, valid),
    )


def _review_rankings(
    files: list[tuple[Path, FileFormat]], options: ReviewOptions, encoder: Encoder | None, ledger: Ledger
) -> Review:
    if options.to not in (None, "cohere"):
        raise DataError(f"rankings cannot be written as {options.to}; they keep their shape (cohere)", files[0][0])
    scans = [RankingScan(path, found, which, options) for (path, found), which in zip(files, _WHICH, strict=False)]
    made = RerankReview(scans, encoder, options)
    made.judge(ledger)
    source = scans[-1]
    split = len(source.where(VALID)) > 0 or len(scans) > 1

    def part(scan: RankingScan, part: int) -> Part:
        rows = scan.where(part)
        tokens, queries, relevant, negatives = made.part_counts(scan, rows)
        return Part(len(rows), tokens, queries=queries, relevant_passages=relevant, hard_negatives=negatives)

    return Review(
        files[0][0],
        scans[0].found.name,
        scans[0].found.encoding,
        "rerank",
        "cohere",
        False,
        ledger.findings(),
        _notes(files, encoder),
        part(scans[0], TRAIN),
        part(source, VALID) if split else None,
        len(scans[0].lines),
        {},
        lambda train, valid: write_parts(RerankWriter(made).lines, train, valid),
    )


def _part(made: ClassifyReview, scan: Scan, part: int) -> Part:
    rows = scan.where(part)
    counts = made.label_counts(scan, rows)
    encoder = made.encoder
    tokens = int(np.minimum(scan.tokens[rows], encoder.limit).sum()) if encoder else 0
    samples: dict[str, list[str]] = {name: [] for name in counts}
    names = dict(zip(made.table.surfaces, made.table.names(), strict=True))
    for surfaces, texts in scan.samples.items():
        for index, text in texts:
            for name in dict.fromkeys(names[surface] for surface in surfaces):
                if scan.parts[index] == part and name in samples and len(samples[name]) < _SAMPLES:
                    samples[name].append(text)
    return Part(len(rows), tokens, counts, samples)


def _notes(files: list[tuple[Path, FileFormat]], encoder: Encoder | None) -> tuple[str, ...]:
    notes = [note for _, found in files for note in found.notes]
    if any(has_mark(path) for path, _ in files):
        notes.append("The file begins with a byte order mark, which is no part of the first row.")
    if encoder is None:
        notes.append("Tokens are not counted: the embedded encoder is not installed; name one with --encoder.")
    return tuple(dict.fromkeys(notes))
