"""The command: report, questions, files, exit status."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.test_review import Write, file, prompts, rows
from training.review.__main__ import main

__all__ = ["file"]
ROOT = Path(__file__).parents[2]


def test_yes_writes_what_is_left_and_says_how_to_go_on(
    file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file(*prompts(40), "{", prompts(40)[2], name="a b.jsonl")
    before = path.read_bytes()
    assert main([str(path), "--yes"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Read a b.jsonl: OpenAI prompt/completion JSONL, 42 rows, UTF-8\n")
    assert "  cat         21   51.2%" in said
    assert "  majority baseline: 51.2% accuracy" in said
    assert "  [malformed]  1 row cannot be read: 41" in said
    assert "Applied 4 fixes: 42 -> 40 rows, 2 labels (cat 20, dog 20)" in said
    assert "Wrote a b_prepared_train.jsonl (32 rows) and a b_prepared_valid.jsonl (8 rows)" in said
    assert f"--train_file '{tmp_path}/a b_prepared_train.jsonl'" in said
    assert (
        'client.fine_tuning.jobs.create(training_file=train.id, validation_file=valid.id, model="babbage-002")' in said
    )
    assert path.read_bytes() == before
    assert main([str(path), "-q"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a b.jsonl",
        "a b_prepared_train (1).jsonl",
        "a b_prepared_train.jsonl",
        "a b_prepared_valid (1).jsonl",
        "a b_prepared_valid.jsonl",
    ]


def test_without_yes_and_terminal_nothing_is_written(
    file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(file(*rows(40), "{"))]) == 1
    said = capsys.readouterr().out
    assert "-> drop 1 row" in said
    assert said.endswith("Nothing was changed or written; --yes applies the safe fixes.\n")
    assert len(list(tmp_path.iterdir())) == 1


def test_json_and_the_last_line(file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = rows(120, labels=("hockey", "tennis"))
    lines[0]["label"] = lines[2]["label"] = "hocky"
    arguments = [str(file(*lines)), "--yes", "--out", str(tmp_path / "x"), "--no-split"]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"id", "severity", "count", "rows", "message", "fix", "applied"} == set(found[0])
    assert [f["id"] for f in found] == ["label_typo", "rare_label", "imbalance", "no_valid"]
    assert (tmp_path / "x_train.jsonl").exists()
    assert main(arguments) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "2 findings need your decision: label_typo (run with --merge), rare_label (--min-per-label)"
    assert main([*arguments, "--merge", "hocky=hockey"]) == 0
    assert "decision" not in capsys.readouterr().out


def test_options_reach_the_review(file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(*(f"a|b;{row['text']};x" for row in rows(20)), name="data.csv")
    arguments = ["--yes", "--delimiter", ";", "--no-header", "--text-column", "2", "--label-column", "1"]
    assert main([str(path), *arguments, "--label-separator", "|", "--to", "csv", "--split", "0.3"]) == 0
    assert (tmp_path / "data_prepared_valid.csv").read_text().splitlines()[0] == "text,label"
    assert len((tmp_path / "data_prepared_valid.csv").read_text().splitlines()) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "error: nowhere.jsonl: cannot be read (No such file or directory)"),
        (["x", "--merge", "a"], 'error: --merge is "a", expected "old label=new label"'),
        (["x", "--split", "2"], "error: --split: Input should be less than 1, not 2.0"),
        (["x", "--delimiter", "ab"], "error: --delimiter: delimiter is 'ab', expected one character"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_place_that_cannot_be_written_is_named(file: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(file(*rows(40))), "--yes", "--out", "/nowhere/x"]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(("answers", "status", "train"), [("\n\nn\n", 0, 39), ("n\n\n\n", 1, None), ("", 1, None)])
def test_a_terminal_is_asked(file: Write, tmp_path: Path, answers: str, status: int, train: int | None) -> None:
    path = file(*rows(39), "{", rows(39)[3])
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "training.review", str(path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        os.write(terminal, answers.encode() if answers else b"\x04\x04\x04")
        said, _ = process.communicate(timeout=60)
        asked = os.read(terminal, 10_000).decode()
    os.close(theirs)
    os.close(terminal)
    assert process.returncode == status
    assert "drop 1 row? [Y/n]" in asked
    assert "Read data.jsonl" in said
    target = tmp_path / "data_prepared_train.jsonl"
    assert (len(target.read_text().splitlines()) if target.exists() else None) == train
