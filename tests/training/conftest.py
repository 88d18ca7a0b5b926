"""A tiny base model and a file that it can learn."""

import json
import random
from collections.abc import Callable
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
def new_run() -> None:
    """Accelerate keeps its state for a process; here a process sees many runs, of different precision."""
    AcceleratorState._reset_state(reset_partial_state=True)


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


@pytest.fixture
def rows_file(tmp_path: Path) -> WriteRows:
    """Write rows as JSONL and return the path."""

    def write(rows: list[dict[str, Any]], name: str = "train.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write
