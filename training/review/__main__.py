"""Review a data file: `python -m training.review FILE`."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from training.errors import ConfigError, EncoreError
from training.formats import DataOptions, FormatName, Task
from training.review.findings import Finding
from training.review.options import Family, ReviewOptions
from training.review.report import closing, decisions, findings, opening
from training.review.review import Review, review


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.review",
        description="Find what is wrong with a file of training rows, propose a fix for each finding, and write the "
        "rows that are left. The file itself is never changed.",
        epilog="Exit status: 0 ready to train on, 1 errors remain, 2 the file cannot be read.",
        allow_abbrev=False,
    )
    parser.add_argument("file", type=Path, help="training rows: JSONL, JSON, CSV or TSV")
    parser.add_argument("--valid", type=Path, help="validation rows; without them some are split off")
    parser.add_argument("-y", "-q", "--yes", action="store_true", help="apply every safe fix without asking")
    parser.add_argument("--to", choices=get_args(Family), help="form of the rows written; default: as they came")
    parser.add_argument("--out", metavar="PREFIX", help="beginning of the names written; default: FILE_prepared")
    parser.add_argument("--task", choices=get_args(Task), help="what the rows are for; default: as their shape says")
    _add_reading(parser)
    _add_limits(parser)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    return parser


def _add_reading(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how to read the files, where recognising it goes wrong")
    group.add_argument("--format", choices=get_args(FormatName), help="shape of the rows; csv for any table")
    group.add_argument("--text-column", metavar="C", help="column or key of the text, or its number from 1")
    group.add_argument("--label-column", metavar="C", help="column or key of the label, or its number from 1")
    group.add_argument("--query-column", metavar="C", help="column or key of the query of graded pairs")
    group.add_argument("--delimiter", metavar="D", help='character between the cells of a table, or "tab"')
    group.add_argument("--no-header", action="store_true", help="the first row of a table holds no column names")
    group.add_argument("--label-separator", metavar="S", help='several labels in one cell, such as "|"')


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to look for")
    split = group.add_mutually_exclusive_group()
    split.add_argument("--split", type=float, default=0.2, metavar="F", help="share to validate on; default: 0.2")
    split.add_argument("--no-split", action="store_true", help="split nothing off")
    group.add_argument("--seed", type=int, default=42, help="of the split; default: 42")
    group.add_argument("--min-per-label", type=int, default=5, metavar="N", help="fewer texts make a label rare")
    group.add_argument("--encoder", metavar="NAME", help="base model whose tokenizer counts; default: the embedded one")
    group.add_argument("--max-length", type=int, metavar="N", help="tokens a text may have; default: as in training")
    group.add_argument("--drop-long", action="store_true", help="drop rows that would be truncated")
    group.add_argument("--merge", action="append", default=[], metavar="OLD=NEW", help="rename a label; repeatable")


def _options(given: argparse.Namespace) -> ReviewOptions:
    """The settings of the flags.

    Raises:
        ConfigError: a value that cannot be used.
    """
    names = ("format", "text_column", "label_column", "query_column", "delimiter", "label_separator")
    if wrong := [pair for pair in given.merge if not all(map(str.strip, pair.partition("=")))]:
        raise ConfigError(f'--merge is "{wrong[0]}", expected "old label=new label"')
    values = {
        "to": given.to,
        "task": given.task,
        "split": None if given.no_split else given.split,
        "seed": given.seed,
        "min_per_label": given.min_per_label,
        "max_length": given.max_length,
        "drop_long": given.drop_long,
        "merge": dict(pair.split("=", 1) for pair in given.merge),
    } | ({"encoder": given.encoder} if given.encoder else {})
    try:
        data = {name: getattr(given, name) for name in names} | {"header": False if given.no_header else None}
        return ReviewOptions.model_validate(values | {"data": DataOptions.model_validate(data)})
    except ValidationError as error:
        first = error.errors()[0]
        name = "-".join(str(part) for part in first["loc"]).replace("_", "-")
        raise ConfigError(f"--{name}: {first['msg'].removeprefix('Value error, ')}, not {first['input']!r}") from None


def _ask(finding: Finding) -> bool:
    """Ask on the terminal; the unsafe fixes are no unless the answer is yes."""
    choice = "[Y/n]" if finding.safe else "[y/N]"
    sys.stderr.write(f"[{finding.id}] {finding.message}\n  {finding.fix}? {choice} ")
    sys.stderr.flush()
    line = sys.stdin.readline()  # "" at the end of the input, which is no answer
    answer = line.strip().casefold()
    return answer in ("y", "yes") or (line != "" and not answer and finding.safe)


def _free(prefix: str, suffix: str, valid: bool) -> tuple[Path, Path | None]:
    """Names that are not taken, both with the same number."""
    number = 0
    while True:
        mark = f" ({number})" if number else ""
        train, second = (Path(f"{prefix}_{part}{mark}{suffix}") for part in ("train", "valid"))
        if not train.exists() and not second.exists():
            return train, second if valid else None
        number += 1


def _run(given: argparse.Namespace) -> int:
    asked = not given.yes and sys.stdin.isatty() and sys.stderr.isatty() and not given.json
    decide: Callable[[Finding], bool] = _ask if asked else (lambda finding: given.yes and finding.safe)
    found = review(given.file, given.valid, _options(given), decide)
    decided = asked or given.yes
    files = None
    if decided and found.ready:
        prefix = given.out or str(given.file.with_name(f"{given.file.stem}_prepared"))
        files = _free(prefix, ".csv" if found.to == "csv" else ".jsonl", bool(found.valid and found.valid.rows))
        try:
            found.write(*files)
        except OSError as error:
            raise ConfigError(
                f"{files[0]} cannot be written ({error.strerror}); choose another place with --out"
            ) from None
    if given.json:
        sys.stdout.write(json.dumps([finding.as_json() for finding in found.findings], ensure_ascii=False) + "\n")
    else:
        _tell(found, files, decided=decided, asked=asked)
    return 0 if found.ready else 1


def _tell(found: Review, files: tuple[Path, Path | None] | None, *, decided: bool, asked: bool) -> None:
    lines = [*opening(found), *findings(found.findings, proposed=not decided), *closing(found, files)]
    if not decided:
        lines.append("Nothing was changed or written; --yes applies the safe fixes.")
    lines += decisions(found, asked=asked) if decided else []
    sys.stdout.write("\n".join(lines) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line: 0 if the rows are ready, 1 if errors remain, 2 if the file cannot be read."""
    given = _parser().parse_args(arguments)
    try:
        return _run(given)
    except EncoreError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; nothing was written\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
