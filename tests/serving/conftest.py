"""Tiny checkpoints made on the spot, the application in this process, and the real `bentoml serve` in another."""

import contextlib
import os
import shutil
import signal
import socket
import string
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import uvicorn
from fastapi import FastAPI
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from serving.app import create_app
from serving.database import open_database
from serving.models import Registry
from serving.settings import Settings
from training.checkpoint import Checkpoint, save_checkpoint
from training.manifest import Manifest
from training.network import Network, linear_head

ROOT = Path(__file__).parents[2]
LABELS = ("billing", "shipping", "returns")
MAX_LENGTH = 32

MakeCheckpoint = Callable[..., Path]
Serve = Callable[..., contextlib.AbstractContextManager["Live"]]


@dataclass(frozen=True)
class Live:
    """A running server."""

    url: str
    home: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None
    app: FastAPI | None = None


def _tokenizer() -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "invoice", "parcel", "refund", "late", "paid", "my", "is"]
    letters = string.ascii_lowercase + string.digits + string.punctuation
    vocabulary = {token: index for index, token in enumerate([*words, *letters, *(f"##{c}" for c in letters)])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def _make_checkpoint(
    folder: Path, labels: tuple[str, ...] = LABELS, thresholds: tuple[float, ...] | None = None, seed: int = 0
) -> Path:
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    backbone = BertModel(config)
    head = linear_head(backbone, len(labels))
    torch.nn.init.normal_(head.weight, std=0.5)  # so that texts differ in their answers
    network = Network(backbone, "first", head).eval()
    manifest = Manifest(
        problem_type="multi_label_classification" if thresholds else "single_label_classification",
        labels=labels,
        max_length=MAX_LENGTH,
        pooling="first",
        thresholds=thresholds,
        base_model="tiny",
        created_at=datetime.now(UTC),
    )
    save_checkpoint(folder, Checkpoint(network, tokenizer, manifest))
    return folder


@pytest.fixture(scope="session")
def make_checkpoint() -> MakeCheckpoint:
    """Write a tiny random checkpoint: (folder, labels, thresholds, seed) -> folder."""
    return _make_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single-label checkpoint."""
    return _make_checkpoint(tmp_path_factory.mktemp("single") / "checkpoint")


@pytest.fixture(scope="session")
def multi_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multi-label checkpoint with a threshold that is always reached, a usual one, and one never reached."""
    return _make_checkpoint(tmp_path_factory.mktemp("multi") / "checkpoint", thresholds=(0.0, 0.5, 1.0), seed=1)


def open_home(home: Path) -> Registry:
    """The registry in `home`, as a server with default settings opens it."""
    return Registry(home, open_database(f"sqlite:///{home / 'encore.db'}"))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """An empty registry."""
    return open_home(tmp_path / "home")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, multi_checkpoint: Path) -> Path:
    """A home with the models `desk` (single-label) and `tags` (multi-label)."""
    folder = tmp_path_factory.mktemp("home")
    registry = open_home(folder)
    registry.add(checkpoint, "desk")
    registry.add(multi_checkpoint, "tags")
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(home: Path, **settings: str) -> dict[str, str]:
    """An environment for a server process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ENCORE_", "BENTOML_"))}
    own = {"ENCORE_HOME": str(home), "BENTOML_HOME": str(home / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    return {**kept, **own, **settings}


@contextlib.contextmanager
def _serve(home: Path, target: str = ".", **settings: str) -> Iterator[Live]:
    port, log = _free_port(), home / "server.log"
    command = [shutil.which("bentoml") or "bentoml", "serve", target, "--port", str(port)]
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(home, **settings), stdout=out, stderr=out, start_new_session=True
        )
    live = Live(f"http://127.0.0.1:{port}", home, log, process)
    try:
        _await_ready(live)
        yield live
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _await_ready(live: Live) -> None:
    assert live.process is not None
    for _ in range(600):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{live.url}/readyz", timeout=60).status_code == 200:
                return
        assert live.process.poll() is None, live.log.read_text()
        time.sleep(0.1)
    raise AssertionError(live.log.read_text())


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Run the real server: (home, target, **settings) -> a context with the running server."""
    return _serve


@pytest.fixture(scope="session")
def server(home: Path) -> Iterator[Live]:
    """The real server, started in the project folder without configuration beyond its home."""
    with _serve(home) as live:
        yield live


@contextlib.contextmanager
def _run(settings: Settings) -> Iterator[Live]:
    app = create_app(settings)
    config = uvicorn.Config(app, host="127.0.0.1", port=_free_port(), log_config=None, lifespan="on")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield Live(f"http://127.0.0.1:{config.port}", settings.home, Path(os.devnull), app=app)
    finally:
        running.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def run_app(home: Path) -> Callable[..., contextlib.AbstractContextManager[Live]]:
    """Run the application in this process: (**settings) -> a context with the running server."""
    return lambda **settings: _run(Settings(**{"home": home, "torch_threads": 1, **settings}))


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m serving.models` in a home: (home, *arguments) -> the finished process."""

    def run(home: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "serving.models", *map(str, arguments)]
        return subprocess.run(line, cwd=ROOT, env=environment(home), capture_output=True, text=True, check=False)

    return run
