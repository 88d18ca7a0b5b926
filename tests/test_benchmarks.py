"""The benchmarks' own arithmetic, and our side of them on tiny models."""

import json
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.speed import data, servers
from benchmarks.speed.__main__ import ask
from benchmarks.speed.catalogue import BENCHMARKS
from benchmarks.speed.harness import Line, Options, alternate, as_record
from benchmarks.speed.http_classify import measure as http_classify
from benchmarks.speed.machine import machine
from benchmarks.speed.places import HERE, own_worker
from benchmarks.speed.report import full_table, load, merge, short_table
from benchmarks.speed.talk import WorkerError, started
from tests.serving.live import make_checkpoint, make_reranker

OPTIONS = Options(data=None, peers=Path("none"), work=Path("none"), runs=4)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return replace(OPTIONS, work=tmp_path, runs=1, size=0.05)


def test_sides_take_turns_and_every_second_turn_goes_the_other_way() -> None:
    order: list[str] = []

    def side(name: str, value: float) -> float:
        order.append(name)
        return value

    found = alternate({"a": lambda turn: side("a", turn), "b": lambda turn: side("b", 10.0 + turn)}, OPTIONS)
    assert order == list("abbaabba")
    assert found == {"a": [0, 1, 2, 3], "b": [10, 11, 12, 13]}


def test_a_side_that_has_had_its_patience_sits_out_the_later_turns() -> None:
    found = alternate({"a": lambda turn: 1.0, "slow": lambda turn: 2.0}, replace(OPTIONS, patience=0.0))
    assert {name: len(values) for name, values in found.items()} == {"a": 1, "slow": 1}


def test_a_ratio_is_that_of_medians_and_its_spread_that_of_turns() -> None:
    line = Line("work", "rows/s", [10, 12, 30], "other", [5, 4, 6], wanted=2.5)
    assert line.ratio == 12 / 5 and line.spread == (2.0, 5.0) and line.reached is False
    assert replace(line, theirs=[5]).ratio == 2.0  # of the turns that both took
    less = Line("work", "s", [2.0, 4.0], "other", [6.0], less=True, wanted=2.0)
    assert less.ratio == 3.0 and less.spread == (3.0, 3.0) and less.reached
    alone = Line("import", "s", [1.0, 1.2], less=True, wanted=1.5)
    assert alone.ratio is None and alone.spread is None and alone.reached
    assert Line("work", "rows/s", [1.0], "other", [2.0]).reached is None


def test_records_are_merged_by_name_and_shown_as_tables(tmp_path: Path) -> None:
    store = tmp_path / "speed.json"
    lines = [
        Line("sorting", "rows/s", [1234.5678912, 1300], "peer", [400, 410], wanted=3.0, note="as it comes"),
        Line("sorting", "rows/s", [1234.5678912, 1300], "another", [1300], wanted=3.0),
        Line("start", "s", [1.25], less=True, wanted=1.0),
        Line("quality", "ndcg@10", [0.51234], "exact", [0.51244]),
    ]
    record = {"lines": as_record(lines), "machine": "one core", "date": "2026-01-02", "size": 1.0}
    merge(store, "rerank_scoring", {"lines": [], "machine": "none", "date": "", "size": 1.0})
    assert merge(store, "rerank_scoring", record) == load(store) == json.loads(store.read_text())
    assert load(store)["rerank_scoring"]["lines"][0]["ours"][0] == 1234.57
    names = list(BENCHMARKS)
    table = full_table(load(store), names).splitlines()
    assert len({line.count("|") for line in table[:6]}) == 1
    assert table[2] == ("| sorting | 1,267 rows/s | peer | 405 rows/s | 3.13 (3.09 to 3.17, 2) | ≥ 3 | as it comes |")
    assert "0.95 (0.95 to 0.95, 1) | ≥ 3, missed |" in table[3]
    assert table[4] == "| start | 1.25 s |  |  |  | < 1, missed |  |"
    assert "0.5123 ndcg@10" in table[5] and "0.5124 ndcg@10" in table[5]
    assert table[-1] == "Measured on one core, 2026-01-02."
    assert len(short_table(load(store), names).splitlines()) == 4


def test_a_worker_that_fails_says_why_and_goes_on(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "from benchmarks.speed.talk import answer\n"
        "print('loading')\n"
        "answer({'add': lambda a, b: print('noise') or a + b, 'leave': lambda: __import__('os')._exit(3)})\n"
    )
    with started(Path(sys.executable), script, tmp_path / "log") as worker:
        assert worker.ask("add", a=1, b=2) == 3
        with pytest.raises(WorkerError, match="TypeError"):
            worker.ask("add", a=1, b="2")
        assert worker.ask("add", a="x", b="y") == "xy"
        with pytest.raises(WorkerError, match="ended"):
            worker.ask("leave")
    assert "noise" in (tmp_path / "log").read_text()


def test_the_sample_stands_for_every_data_set(options: Options) -> None:
    [files] = data.classify_sets(options)
    assert {row["label"] for row in data.read(files.test)} <= {row["label"] for row in data.read(files.train)}
    name, rows = data.rankings(options)
    assert name == "sample" and all(len(row.passages) == len(row.grades) >= 90 for row in rows)
    assert data.ndcg([row.grades for row in rows], rows) == 1.0
    _, train, held = data.learning(options, 20)
    learned = data.read(train)
    assert len(learned) == 20 and data.read(held)
    for row in learned:
        assert row["relevant_passages"] and 2 <= len(row["relevant_passages"] + row["hard_negatives"]) <= data.GROUP
    pages = data.pages(rows[:3], 20)
    assert all(len(documents) == 20 for _, documents in pages) and len(pages) == 3 * 5


def test_the_limit_is_measured(options: Options) -> None:
    with own_worker(options, "limits") as worker:
        assert worker.ask("products", precision="bfloat16", shapes=[[64, 64, 64], [64, 64, 8]], seconds=0.01) > 0
    assert "cores of" in machine()


def test_our_worker_ranks_and_classifies(options: Options, tmp_path: Path) -> None:
    _, rows = data.rankings(options)
    with own_worker(options, "scoring", str(make_reranker(tmp_path / "ranker"))) as worker:
        found = worker.ask("rank", asked=[(row.query, row.passages[:9]) for row in rows[:2]])
    assert [len(scores) for scores in found["scores"]] == [9, 9]
    assert found["seconds"] > 0 and found["tokens"] > 18 and found["squares"] > found["tokens"]


@pytest.mark.slow
def test_a_server_is_measured_beside_the_engine(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = make_checkpoint(options.work / "sorter")
    monkeypatch.setattr("benchmarks.speed.models.classifier", lambda options: checkpoint)
    [line] = http_classify(options)
    assert line.ours[0] > 0 and line.theirs[0] > 0 and "of a core" in line.note


class Answering(BaseHTTPRequestHandler):
    """Answers POSTs to /fine after a moment, in parts; knows nothing else."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200 if self.path == "/fine" else 404)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for part in (b"2\r\n{}\r\n", b"0\r\n\r\n"):
            time.sleep(0.01)
            self.wfile.write(part)

    def log_message(self, format: str, *args: object) -> None:
        """Not to the terminal."""


def test_requests_are_sent_by_many_clients_at_once(options: Options) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server, own_worker(options, "load") as generator:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        asked = servers.Asked(generator, f"{url}/fine", [{"a": 1}, {"b": "é"}], clients=4, seconds=0.5)
        rate = asked(0)
        assert 4 <= len(asked.times) <= 4 * 26 and rate == pytest.approx(len(asked.times) / 0.5, rel=0.9)
        assert min(asked.times) >= 0.02 and asked.p99 >= 20 and asked.cpu[0] > 0
        with pytest.raises(WorkerError, match="answered 404"):
            servers.Asked(generator, f"{url}/nothing", [{}], clients=2, seconds=0.5)
        server.shutdown()


def test_peers_have_requirements_and_their_scripts_compile() -> None:
    assert {path.stem for path in (HERE / "peers").glob("*.txt")} == {"st", "setfit", "infinity"}
    for script in (HERE / "peers").glob("*.py"):
        compile(script.read_text(encoding="utf-8"), script.name, "exec")


def test_peers_are_made_and_tables_written_without_measuring(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(["--make-peers", "folder"]).names == ask(["--tables"]).names == []
    assert ask(["few_shot", "quality"]).names == ["few_shot", "quality"]
    with pytest.raises(SystemExit):
        ask(["fewshot"])
    assert "no benchmark is called fewshot; there are all, quality, rerank_scoring" in capsys.readouterr().err
