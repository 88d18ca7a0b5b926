"""The evaluation command, on a checkpoint that the training command made."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import WriteRows, candidates, topic_queries, topic_rows
from training.config import LoraSettings, NegativesSettings, TrainConfig
from training.engine import Engine
from training.evaluate import main
from training.run import run


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
    assert list(found) == ["fine-tuned", "tfidf"]
    assert found["fine-tuned"] == measured(capsys, checkpoint, file)
    assert found["tfidf"]["accuracy"] > 0.8
    assert found["tfidf"]["rows"] == 30
    assert main(["--checkpoint", str(checkpoint), "--file", str(file), "--baseline", "tfidf"]) == 0
    assert "tfidf" in capsys.readouterr().out


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


# Rerankers


@pytest.fixture(scope="module")
def reranker(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rows = tmp_path_factory.mktemp("rerank"), topic_queries(100)
    mining, changes = NegativesSettings(mining="none"), {"pooling": "mean", "average_decay": 0.0, "batch_size": 16}
    return make_run(folder, base, rows, task="rerank", negatives=mining, freeze_embeddings=False, **changes)


@pytest.fixture
def lists(tmp_path: Path) -> tuple[str, str]:
    """Candidate lists with the relevant passage last, and their judgements."""
    rows, judged = candidates(topic_queries(20, seed=7))
    (tmp_path / "qrels.txt").write_text(judged)
    return write(tmp_path / "lists.jsonl", rows), str(tmp_path / "qrels.txt")


def test_a_reranker_beside_baselines(
    capsys: pytest.CaptureFixture[str], reranker: Path, lists: tuple[str, str], tmp_path: Path
) -> None:
    flags = ["--qrels", lists[1]]
    for name in ("bm25", "cosine", "order", str(reranker)):
        flags += ["--baseline", name]
    found = measured(capsys, reranker, lists[0], *flags, "--plot", str(tmp_path / "ranks.png"))
    assert list(found) == ["fine-tuned", "bm25", "cosine", "order", str(reranker)]
    for figures in found.values():
        assert (figures["rows"], figures["queries"], len(figures["first_ranks"])) == (20, 20, 20)
        assert {"ndcg@10", "mrr@10", "map", "accuracy@1", "accuracy@3", "recall@10", "accuracy"} <= set(figures)
    assert found["fine-tuned"]["ndcg@10"] > 0.8
    assert found[str(reranker)] == found["fine-tuned"]
    assert min(found["order"]["first_ranks"]) >= 3  # a list holds a passage once, and so may be short
    assert found["cosine"]["ndcg@10"] < found["fine-tuned"]["ndcg@10"]
    assert (tmp_path / "ranks.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_of_a_reranker_shows_each_figure_once(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, reranker: Path, lists: tuple[str, str]
) -> None:
    given = ["--checkpoint", str(reranker), "--file", lists[0], "--qrels", lists[1]]
    assert main([*given, "--baseline", "order"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if line.strip()] == [
        "metric",
        "─" * len(out.splitlines()[2].strip()),
        *("ndcg@10", "mrr@10", "map", "accuracy@1", "accuracy@3", "recall@10"),
    ]
    assert "better than" not in caplog.text


def test_harm_is_said(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, reranker: Path, tmp_path: Path
) -> None:
    rows, judged = candidates(topic_queries(20, seed=7))
    for row in rows:  # judge the first passage instead of the last, which is the relevant one
        judged = judged.replace(f" {row['docids'][-1]} 1", f" {row['docids'][0]} 1")
    (tmp_path / "qrels.txt").write_text(judged)
    file = write(tmp_path / "lists.jsonl", rows)
    found = measured(capsys, reranker, file, "--qrels", str(tmp_path / "qrels.txt"), "--baseline", "order")
    assert found["order"]["ndcg@10"] == 1
    assert "warning: order is better than the fine-tuned model: 1.0000" in caplog.text


def test_json_of_a_reranker_alone(capsys: pytest.CaptureFixture[str], reranker: Path, rows_file: WriteRows) -> None:
    found = measured(capsys, reranker, rows_file(topic_queries(12, seed=8), "test.jsonl"))
    assert found["rows"] == 12
    assert found["first_ranks"].count(1) / 12 == found["accuracy@1"] == found["accuracy"]
    assert found["queries_without_relevant"] == 0


def test_the_baseline_must_fit(
    capsys: pytest.CaptureFixture[str], reranker: Path, checkpoint: Path, lists: tuple[str, str], rows_file: WriteRows
) -> None:
    texts, rankings = rows_file(topic_rows(9), "texts.jsonl"), rows_file(topic_queries(9), "rankings.jsonl")
    judged = ("--qrels", lists[1])
    assert "not for a model of task rerank; use bm25, cosine, order" in refused(
        capsys, reranker, rankings, "--baseline", "tfidf"
    )
    assert "not for a model of task classify; use tfidf" in refused(capsys, checkpoint, texts, "--baseline", "bm25")
    assert "is for candidate lists" in refused(capsys, reranker, rankings, "--baseline", "order")
    assert "bm26 is not known and not a checkpoint folder; use bm25, cosine, order" in refused(
        capsys, reranker, lists[0], *judged, "--baseline", "bm26"
    )
    assert "of another task" in refused(capsys, reranker, lists[0], *judged, "--baseline", str(checkpoint))
    assert "of another task" in refused(capsys, checkpoint, texts, "--baseline", str(reranker))


def test_rankings_that_cannot_be_measured(
    capsys: pytest.CaptureFixture[str], reranker: Path, checkpoint: Path, lists: tuple[str, str], rows_file: WriteRows
) -> None:
    rankings = rows_file(topic_queries(3), "rankings.jsonl")
    assert "candidate lists need judgements" in refused(capsys, reranker, lists[0])
    assert "leave out the qrels file" in refused(capsys, reranker, rankings, "--qrels", lists[1])
    assert "nowhere.txt: cannot be read" in refused(capsys, reranker, lists[0], "--qrels", "nowhere.txt")
    Path(lists[1]).write_text(Path(lists[1]).read_text().replace(" 1\n", " 0\n"))
    said = refused(capsys, reranker, lists[0], "--qrels", lists[1])
    assert f"{lists[0]}: none of 20 queries has a relevant passage" in said
    assert "--qrels is for rerankers" in refused(capsys, checkpoint, rows_file(topic_rows(3)), "--qrels", lists[1])
    assert f"{rankings}" in refused(capsys, checkpoint, rankings)


def test_pictures_that_cannot_be_drawn(
    capsys: pytest.CaptureFixture[str], reranker: Path, checkpoint: Path, rows_file: WriteRows, tmp_path: Path
) -> None:
    file = rows_file(topic_queries(3), "rankings.jsonl")
    assert "which a classifier has none of" in refused(capsys, checkpoint, file, "--plot", str(tmp_path / "a.png"))
    for target in (tmp_path / "nowhere/ranks.png", tmp_path / "ranks.xyz"):
        assert main(["--checkpoint", str(reranker), "--file", str(file), "--plot", str(target)]) == 1
        out, err = capsys.readouterr()
        assert "ndcg@10" in out  # what was measured is not lost
        assert f"error: --plot {target} cannot be written" in err and err.count("error") == 1


def test_the_cosine_is_of_the_base_wherever_the_command_runs(
    capsys: pytest.CaptureFixture[str], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base.parent)
    mining = NegativesSettings(mining="none")
    made = make_run(tmp_path, Path(base.name), topic_queries(20), task="rerank", negatives=mining)
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "test.jsonl", topic_queries(5, seed=3))
    assert measured(capsys, made, file, "--baseline", "cosine")["cosine"]["rows"] == 5
