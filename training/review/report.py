"""The review in words: what was read, found and done, and how to go on."""

import json
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from training.formats import FormatName
from training.review.findings import Finding, Severity, counted
from training.review.review import Review
from training.text import listed

_HEADINGS: dict[Severity, str] = {"error": "ERRORS", "warning": "WARNINGS", "suggestion": "SUGGESTIONS"}
_FORMATS: dict[FormatName, str] = {
    "text-label": "JSONL of text and label",
    "prompt-completion": "OpenAI prompt/completion JSONL",
    "chat": "OpenAI chat JSONL",
    "columns": "JSONL of text and label",
    "csv": "table",
    "rerank": "Cohere rerank JSONL",
    "graded-pairs": "graded pairs of query and passage",
    "triplets": "triplets of query, positive and negative",
    "candidates": "candidate lists",
}
_WIDTH = 72
_LABELS = 20
"""Labels that the table shows."""
_WAY_OUT = {
    "label_typo": "run with --merge",
    "rare_label": "--min-per-label",
    "too_long": "--drop-long",
    "few_rows": "add rows",
    "few_queries": "add queries",
    "few_labels": "add labels",
    "columns": "--text-column and --label-column",
    "not_classes": "check the label column",
    "same_text": "check the text column",
}


def opening(review: Review) -> Iterator[str]:
    """What was read and what it is."""
    encoding = {"utf-8": "UTF-8", "windows-1252": "Windows-1252"}.get(review.encoding, review.encoding.upper())
    yield f"Read {review.path.name}: {_FORMATS[review.format]}, {counted(review.read)}, {encoding}"
    yield from review.notes
    if review.task == "rerank":
        yield "Task: ranking"
        return
    kind = "multi-label" if review.multi_label else "single-label"
    yield f"Task: {kind} classification, {counted(len(review.read_counts), 'label')}"
    yield from _label_table(review.read_counts)


def _label_table(counts: dict[str, int]) -> Iterator[str]:
    total = sum(counts.values())
    if not total:
        return
    shown = list(counts.items())[:_LABELS]
    width = max(len("label"), *(len(listed([name])) for name, _ in shown))
    yield ""
    yield f"  {'label':<{width}}  {'rows':>7}  {'share':>6}"
    for name, count in shown:
        yield f"  {listed([name]):<{width}}  {count:>7,}  {count / total:>6.1%}"
    if len(counts) > _LABELS:
        yield f"  and {len(counts) - _LABELS} more"
    yield f"  majority baseline: {max(counts.values()) / total:.1%} accuracy"


def findings(found: Sequence[Finding], *, proposed: bool) -> Iterator[str]:
    """Everything found, under its severity; `proposed` if nothing was decided yet."""
    for severity, heading in _HEADINGS.items():
        some = [finding for finding in found if finding.severity == severity]
        if some:
            yield ""
            yield heading
        width = max((len(finding.id) for finding in found), default=0) + 2
        for finding in some:
            yield from _lines(finding, width, proposed)


def _lines(finding: Finding, width: int, proposed: bool) -> Iterator[str]:
    where = "validation file: " if finding.file == "valid" else ""
    said = textwrap.wrap(where + finding.message, _WIDTH, break_on_hyphens=False)
    mark = f"[{finding.id}]"
    if finding.fix is None:
        outcome = ""
    elif finding.applied or proposed:
        outcome = f"-> {finding.fix}"
    else:
        outcome = f"-> not done: {finding.fix}"
    if finding.id == "too_long" and not finding.fix:
        outcome = "-> kept, truncated"
    for number, line in enumerate(said):
        end = f"  {outcome}" if outcome and number == len(said) - 1 else ""
        yield f"  {mark if not number else '':<{width}}  {line:<{_WIDTH}}{end}".rstrip()
    for row, reason in finding.reasons[:5]:
        yield f"  {'':<{width}}    row {row}: {textwrap.shorten(reason, _WIDTH, placeholder='…')}"


def closing(review: Review, files: tuple[Path, Path | None] | None) -> Iterator[str]:
    """What was done and, if something was written, how to train on it."""
    applied = sum(finding.applied for finding in review.findings)
    parts = [review.train, *([review.valid] if review.valid and not _has_own(review) else [])]
    left, counts = sum(part.rows for part in parts), Counter[str]()
    for part in parts:
        counts.update(part.label_counts)
    labels = ", ".join(f"{listed([name])} {count:,}" for name, count in counts.most_common(5))
    labels += ", …" if len(counts) > 5 else ""
    yield ""
    if applied:
        of = f", {counted(len(counts), 'label')} ({labels})" if review.task == "classify" else ""
        fixes = "1 fix" if applied == 1 else f"{applied} fixes"
        yield f"Applied {fixes}: {review.read:,} -> {counted(left)}{of}"
    if files:
        train, valid = files
        second = f" and {valid.name} ({counted(review.valid.rows)})" if valid and review.valid else ""
        yield f"Wrote {train.name} ({counted(review.train.rows)}){second}"
        yield from _how_to_train(review, train, valid)


def _has_own(review: Review) -> bool:
    return not any(finding.id == "no_valid" for finding in review.findings)


def _how_to_train(review: Review, train: Path, valid: Path | None) -> Iterator[str]:
    more = f" --eval_file {shlex.quote(str(valid))}" if valid else ""
    yield ""
    yield "Train it:"
    yield (
        f"  accelerate launch -m training.train --config configs/{review.task}/minilm.yaml "
        f"--train_file {shlex.quote(str(train))}{more} --output_dir {shlex.quote(f'runs/{train.stem}')}"
    )
    if review.to in ("openai", "openai-chat"):
        yield "or with the OpenAI SDK (base_url http://127.0.0.1:3000/openai/v1):"
        yield f'  train = client.files.create(file=open({json.dumps(str(train))}, "rb"), purpose="fine-tune")'
        if valid:
            yield f'  valid = client.files.create(file=open({json.dumps(str(valid))}, "rb"), purpose="fine-tune")'
        second = ", validation_file=valid.id" if valid else ""
        yield f'  client.fine_tuning.jobs.create(training_file=train.id{second}, model="babbage-002")'
        yield "Prompts may end with the separator or not."


def decisions(review: Review, *, asked: bool) -> Iterator[str]:
    """What needs a person, as the last line."""
    open_ones = [
        finding
        for finding in review.findings
        if not finding.applied and (finding.severity == "error" or (finding.fix is not None and not asked))
    ]
    names = dict.fromkeys(finding.id for finding in open_ones)
    if names:
        ways = ", ".join(f"{name} ({_WAY_OUT[name]})" if name in _WAY_OUT else name for name in names)
        verb = "finding needs" if len(names) == 1 else "findings need"
        yield ""
        yield f"{len(names)} {verb} your decision: {ways}"
