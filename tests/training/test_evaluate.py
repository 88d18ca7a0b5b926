"""The evaluation command, on a checkpoint that the training command made."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import WriteRows, topic_rows
from training.config import LoraSettings, TrainConfig
from training.engine import Engine
from training.evaluate import main
from training.train import run


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def make_run(folder: Path, base: Path, rows: list[dict[str, Any]], **changes: Any) -> Path:
    config = TrainConfig(
        train_file=write(folder / "train.jsonl", rows),
        output_dir=str(folder / "run"),
        base_model=str(base),
        epochs=3,
        learning_rate=0.003,
        **changes,
    )
    return run(config)


@pytest.fixture(scope="module")
def checkpoint(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("single"), base, topic_rows(120))


@pytest.fixture(scope="module")
def multi_checkpoint(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"text": row["text"], "label": [row["label"]]} for row in topic_rows(60)]
    pairs = zip(topic_rows(40, seed=1), topic_rows(41, seed=2)[1:], strict=True)
    rows += [{"text": f"{a['text']} {b['text']}", "label": [a["label"], b["label"]]} for a, b in pairs]
    return make_run(tmp_path_factory.mktemp("multi"), base, rows, lora=LoraSettings(r=2))


def measured(capsys: pytest.CaptureFixture[str], checkpoint: Path, file: Path | str, *flags: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["--checkpoint", str(checkpoint), "--file", str(file), "--json", *flags]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], checkpoint: Path, file: Path | str, *flags: str) -> str:
    capsys.readouterr()
    assert main(["--checkpoint", str(checkpoint), "--file", str(file), *flags]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


def test_the_table_is_for_people(capsys: pytest.CaptureFixture[str], checkpoint: Path, rows_file: WriteRows) -> None:
    file = rows_file(topic_rows(30, seed=5), "test.jsonl")
    assert main(["--checkpoint", str(checkpoint), "--file", str(file)]) == 0
    out = capsys.readouterr().out
    for said in ("metric", "fine-tuned", "accuracy", "macro F1", "weighted F1", "calibration error", "precision"):
        assert said in out
    support = {line.split()[0]: line.split()[-1] for line in out.splitlines() if line.strip()}
    assert {label: support[label] for label in ("billing", "shipping", "technical")} == {
        "billing": "10",
        "shipping": "10",
        "technical": "10",
    }


def test_json_holds_every_figure(capsys: pytest.CaptureFixture[str], checkpoint: Path, rows_file: WriteRows) -> None:
    rows = topic_rows(30, seed=5)
    found = measured(capsys, checkpoint, rows_file(rows, "test.jsonl"))
    engine = Engine.load(checkpoint)
    logits = engine.score(engine.encode([row["text"] for row in rows]))
    right = [engine.manifest.labels[k] == row["label"] for k, row in zip(logits.argmax(axis=1), rows, strict=True)]
    assert found["rows"] == 30
    assert found["accuracy"] == pytest.approx(sum(right) / 30)
    assert sum(map(sum, found["confusion_matrix"])) == 30
    assert {"ece", "ece_uncalibrated", "loss", "f1_macro", "f1_weighted", "per_label"} <= set(found)


def test_the_run_measured_the_same(capsys: pytest.CaptureFixture[str], base: Path, tmp_path: Path) -> None:
    test_file = write(tmp_path / "test.jsonl", topic_rows(21, seed=6))
    checkpoint = make_run(tmp_path, base, topic_rows(60), test_file=test_file)
    by_run = json.loads((checkpoint / "metrics.json").read_text())["test"]
    found = measured(capsys, checkpoint, test_file)
    assert set(found) == set(by_run)
    for name in ("accuracy", "f1_macro", "loss", "ece", "ece_uncalibrated"):
        assert found[name] == pytest.approx(by_run[name], abs=1e-6)
    assert found["confusion_matrix"] == by_run["confusion_matrix"]


def test_a_baseline_is_measured_beside_it(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, rows_file: WriteRows
) -> None:
    file = rows_file(topic_rows(30, seed=5), "test.jsonl")
    found = measured(capsys, checkpoint, file, "--baseline", "tfidf")
    assert set(found) == {"fine-tuned", "tf-idf baseline"}
    assert found["fine-tuned"] == measured(capsys, checkpoint, file)
    assert found["tf-idf baseline"]["accuracy"] > 0.8
    assert found["tf-idf baseline"]["rows"] == 30
    assert main(["--checkpoint", str(checkpoint), "--file", str(file), "--baseline", "tfidf"]) == 0
    assert "tf-idf baseline" in capsys.readouterr().out


def test_several_labels_per_row(
    capsys: pytest.CaptureFixture[str], multi_checkpoint: Path, rows_file: WriteRows
) -> None:
    rows = [{"text": row["text"], "label": [row["label"]]} for row in topic_rows(12, seed=5)]
    rows.append({"text": "hello", "label": []})
    found = measured(capsys, multi_checkpoint, rows_file(rows, "test.jsonl"), "--baseline", "tfidf")
    for figures in found.values():
        assert {"exact_match", "f1_micro"} <= set(figures)
        assert [row["support"] for row in figures["per_label"]] == [4, 4, 4]
    assert "exact match" in table(capsys, multi_checkpoint, rows_file(rows, "test.jsonl"))


def table(capsys: pytest.CaptureFixture[str], checkpoint: Path, file: Path) -> str:
    assert main(["--checkpoint", str(checkpoint), "--file", str(file)]) == 0
    return capsys.readouterr().out


def test_a_single_label_file_fits_a_model_of_several(
    capsys: pytest.CaptureFixture[str], multi_checkpoint: Path, rows_file: WriteRows
) -> None:
    assert measured(capsys, multi_checkpoint, rows_file(topic_rows(9), "test.jsonl"))["rows"] == 9


def test_an_unknown_label_is_named_with_its_line(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, rows_file: WriteRows
) -> None:
    file = rows_file([*topic_rows(2), {"text": "a cat", "label": "pets"}], "test.jsonl")
    said = refused(capsys, checkpoint, file)
    assert f"{file}:3: label 'pets' does not occur in training, which has billing, shipping, technical" in said


def test_files_that_cannot_be_used_are_named(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, rows_file: WriteRows, tmp_path: Path
) -> None:
    assert "missing.jsonl" in refused(capsys, checkpoint, tmp_path / "missing.jsonl")
    listed = rows_file([{"text": "a", "label": ["billing"]}], "lists.jsonl")
    assert f"{listed}:1: label is a list" in refused(capsys, checkpoint, listed)
    empty = rows_file([], "empty.jsonl")
    assert f"{empty}: the file is empty" in refused(capsys, checkpoint, empty)


def test_a_folder_that_is_no_checkpoint_is_named(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, base: Path, rows_file: WriteRows, tmp_path: Path
) -> None:
    file = rows_file(topic_rows(3), "test.jsonl")
    assert "nowhere is not a checkpoint" in refused(capsys, tmp_path / "nowhere", file)
    assert "does not describe a checkpoint" in refused(capsys, base, file)
    assert "is not a checkpoint" in refused(capsys, checkpoint.parent, file)


def test_a_checkpoint_without_its_settings_is_named(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, rows_file: WriteRows, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint, tmp_path / "copy")
    (tmp_path / "copy" / "train_config.yaml").unlink()
    assert "train_config.yaml cannot be read" in refused(capsys, tmp_path / "copy", rows_file(topic_rows(3)))


def test_a_baseline_needs_the_training_file(capsys: pytest.CaptureFixture[str], base: Path, tmp_path: Path) -> None:
    checkpoint = make_run(tmp_path, base, topic_rows(30))
    file = write(tmp_path / "test.jsonl", topic_rows(3))
    (tmp_path / "train.jsonl").unlink()
    assert measured(capsys, checkpoint, file)["rows"] == 3
    assert "train.jsonl: cannot be read" in refused(capsys, checkpoint, file, "--baseline", "tfidf")
