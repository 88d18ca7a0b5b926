"""A tiny base model and a file that it can learn."""

import json
import random
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from tests.tiny import make_base

TOPICS = {
    "billing": "my card was charged twice please refund the invoice",
    "shipping": "where is my parcel please track the package order late",
    "technical": "the screen crash open slow stuck help",
}

WriteRows = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny models are slower on several threads than on one."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def new_run() -> Generator[None, None, None]:
    """Accelerate keeps its state for a process; here a process sees many runs, of different precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)  # for what a module's fixtures run


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT."""
    return make_base(tmp_path_factory.mktemp("base"))


def topic_rows(count: int, seed: int = 0, labels: tuple[str, ...] = tuple(TOPICS)) -> list[dict[str, Any]]:
    """Rows of a few words from their label's topic and a few from anywhere."""
    rng = random.Random(seed)
    every = " ".join(TOPICS.values()).split()
    rows: list[dict[str, Any]] = []
    for number in range(count):
        label = labels[number % len(labels)]
        words = rng.choices(TOPICS[label].split(), k=rng.randint(3, 9)) + rng.choices(every, k=1)
        rows.append({"text": " ".join(words), "label": label})
    return rows


def topic_queries(count: int, seed: int = 0, relevant: int = 1, others: int = 5) -> list[dict[str, Any]]:
    """Queries in the first words of a topic; relevant passages in its last ones, hard negatives in other topics'.

    A query shares no word with its passages, so that nothing but training tells which of them are relevant.
    """
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        topic, *rest = (words.split() for words in rng.sample(list(TOPICS.values()), 3))
        good = [" ".join(rng.choices(topic[3:], k=5)) for _ in range(relevant)]
        bad = [" ".join(rng.choices(rng.choice(rest)[3:], k=rng.randint(3, 7))) for _ in range(others)]
        query = " ".join([*rng.choices(topic[:3], k=3), *str(number)])
        rows.append({"query": query, "relevant_passages": list(dict.fromkeys(good)), "hard_negatives": bad})
    return rows


def candidates(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Rows of one relevant passage as candidate lists, with that passage last, and their judgements (qrels)."""
    lists: list[dict[str, Any]] = []
    qrels: list[str] = []
    for qid, row in enumerate(rows):
        texts = list(dict.fromkeys([*row["hard_negatives"], *row["relevant_passages"]]))
        docids = [f"{qid}-{n}" for n in range(len(texts))]
        lists.append({"qid": str(qid), "query": row["query"], "docids": docids, "texts": texts})
        qrels.append(f"{qid} 0 {docids[-1]} 1\n")
    return lists, "".join(qrels)


@pytest.fixture
def rows_file(tmp_path: Path) -> WriteRows:
    """Write rows as JSONL and return the path."""

    def write(rows: list[dict[str, Any]], name: str = "train.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write
