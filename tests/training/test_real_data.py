"""The embedded encoder on the sample tickets, and the readers on public data sets where they are at hand."""

import csv
import json
from pathlib import Path

import pytest

from training.baseline import bm25_metrics, order_metrics
from training.rerank_rows import read_rerank
from training.rows import read_classify
from training.train import main

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"


def test_sample_tickets_are_what_their_readme_says() -> None:
    train, test = (read_classify(ROOT / f"examples/support/{name}.csv") for name in ("train", "test"))
    labels = {row.labels[0] for row in train.rows}
    assert len(train.rows) >= 300
    assert len(labels) >= 6
    assert {row.labels[0] for row in test.rows} == labels
    assert not {row.text.casefold() for row in train.rows} & {row.text.casefold() for row in test.rows}
    readme = (ROOT / "examples/support/README.md").read_text()
    assert f"{len(train.rows)} rows" in readme
    assert f"{len(test.rows)} rows" in readme


@pytest.mark.slow
def test_the_embedded_encoder_learns_the_tickets(tmp_path: Path) -> None:
    rows = list(csv.reader((ROOT / "examples/support/train.csv").open(newline="", encoding="utf-8")))
    part = tmp_path / "part.csv"
    with part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([rows[0], *rows[1:200:2], *rows[200::4]])
    flags = ["--train_file", str(part), "--test_file", str(ROOT / "examples/support/test.csv")]
    assert main([*flags, "--output_dir", str(tmp_path / "run"), "--epochs", "1"]) == 0
    assert json.loads((tmp_path / "run/metrics.json").read_text())["test"]["accuracy"] > 0.8


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the public data sets in ../shared/data")
@pytest.mark.parametrize(
    ("name", "rows", "labels", "multi_label"),
    [
        ("atis/atis_subset.csv", 1000, 8, False),
        ("atis/train.jsonl", 800, 8, False),
        ("sport/sport2.jsonl", 1197, 2, False),
        ("sms_spam/SMSSpamCollection", 5574, 2, False),
        ("intents/train.csv", 7994, 85, False),
        ("goemotions/dev.jsonl", 5426, 28, True),
    ],
)
def test_public_files_are_read_whole(name: str, rows: int, labels: int, multi_label: bool) -> None:
    found = read_classify(DATA / name)
    assert len(found.rows) == rows
    assert len({label for row in found.rows for label in row.labels}) == labels
    assert found.multi_label is multi_label


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the public data sets in ../shared/data")
def test_rankings_of_others_are_measured_as_published() -> None:
    rows = read_rerank(DATA / "trec_dl19/bm25_top100.jsonl", qrels=DATA / "trec_dl19/qrels.jsonl").rows
    assert len(rows) == 43
    # 0.5058 is what Anserini's regressions report for BM25 with its default parameters on this track.
    listed, ours = order_metrics(rows), bm25_metrics(rows)
    assert listed["ndcg@10"] == pytest.approx(0.5058, abs=5e-5)
    assert (listed["rows"], listed["queries"], len(listed["first_ranks"])) == (43, 43, 43)
    assert 0.35 < ours["ndcg@10"] < 0.45  # words are as rare as among the candidates, which all hold the query's
    assert ours["recall@10"] <= 1
