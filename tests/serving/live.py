"""Tiny checkpoints, the application in this process, and the real `bentoml serve` in another."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import openai
import torch
import uvicorn
from fastapi import FastAPI
from hypothesis import strategies as st

from benchmarks.speed.servers import free_port
from serving.app import create_app
from serving.database import open_database
from serving.registry import Registry
from serving.settings import Settings
from tests.tiny import make_base
from training.checkpoint import Checkpoint, load_base, save_checkpoint
from training.engine import Encoded, bring_export
from training.manifest import Manifest
from training.network import Network, make_head

ROOT = Path(__file__).parents[2]
BENTOML = Path(sys.executable).with_name("bentoml")  # of this environment, activated or not
LABELS = ("billing", "shipping", "returns")
TUNED = "ft:babbage-002:personal::8dXq1kZb"
"""The name of the model with written forms and text rules."""
MAX_LENGTH = 32
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@dataclass(frozen=True)
class Live:
    """A running server."""

    url: str
    home: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None
    app: FastAPI | None = None


def make_checkpoint(
    folder: Path,
    labels: tuple[str, ...] = LABELS,
    thresholds: tuple[float, ...] | None = None,
    seed: int = 0,
    **described: Any,
) -> Path:
    """Write a classifier with random weights; what else its manifest is to say is `described`."""
    problem_type = "multi_label_classification" if thresholds else "single_label_classification"
    return _save(folder, seed, problem_type=problem_type, labels=labels, thresholds=thresholds, **described)


def make_reranker(folder: Path, seed: int = 0) -> Path:
    """Write a reranker with random weights."""
    return _save(folder, seed, task="rerank", problem_type=None, labels=())


def _save(folder: Path, seed: int, **described: Any) -> Path:
    """Write a checkpoint; mean pooling, so that every word of a text counts."""
    backbone, tokenizer = load_base(make_base(folder.with_name("base"), seed=seed))
    manifest = Manifest(
        max_length=MAX_LENGTH, pooling="mean", base_model="tiny", created_at=datetime.now(UTC), **described
    )
    head = make_head(backbone, manifest.task, len(manifest.labels))
    # A reranker's scale of 20 would, with random weights, drive every score to 1.
    with torch.no_grad():
        for name, weights in head.named_parameters():
            if name == "scale":
                weights.fill_(1.0)
            elif weights.ndim == 2:
                weights.normal_(std=0.5)
    save_checkpoint(folder, Checkpoint(Network(backbone, "mean", head).eval(), tokenizer, manifest))
    bring_export(folder)
    return folder


def open_home(home: Path) -> Registry:
    """The registry in `home`, as a server with default settings opens it."""
    return Registry(home, open_database(f"sqlite:///{home / 'encore.db'}"))


def openai_sdk(url: str) -> openai.OpenAI:
    """OpenAI's SDK, which believes nothing it is told, pointed at a server."""
    return openai.OpenAI(base_url=f"{url}/openai/v1", api_key="any", max_retries=0, _strict_response_validation=True)


def send(wire: httpx.Client, path: str, body: Any) -> httpx.Response:
    """POST a body as it stands, or as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return wire.post(path, content=content, headers={"content-type": "application/json"})


def rank_scores(
    wire: httpx.Client, query: str, documents: list[Any], path: str = "/v1/rerank", **fields: Any
) -> list[float]:
    """What `ranker` gives each document, in their order."""
    response = send(wire, path, {"model": "ranker", "query": query, "documents": documents, **fields})
    assert response.status_code == 200, response.text
    found = {result["index"]: result["relevance_score"] for result in response.json()["results"]}
    return [found[index] for index in range(len(documents))]


def refused(response: httpx.Response, status: int = 400, keys: Collection[str] = ("id", "message")) -> str:
    """The message of a refusal that has the shape it should have."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == set(keys)
    return body["message"]


def mistake(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    """The error object of a refusal that has the shape OpenAI's SDK expects."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert re.fullmatch(r"req_[0-9a-f]{32}", response.headers["x-request-id"])
    [(key, error)] = response.json().items()
    assert key == "error" and list(error) == ["message", "type", "param", "code"]
    assert error["message"] and isinstance(error["message"], str)
    return error


def environment(home: Path, **settings: str) -> dict[str, str]:
    """An environment for a server process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ENCORE_", "BENTOML_"))}
    own = {"ENCORE_HOME": str(home), "BENTOML_HOME": str(home / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    return {**kept, **own, **settings}


@contextlib.contextmanager
def serve(home: Path, target: str = ".", **settings: str) -> Iterator[Live]:
    """Run the real server, started in the project folder; further settings are environment variables."""
    port, log = free_port(), home / "server.log"
    command = [BENTOML, "serve", target, "--port", str(port)]
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


@contextlib.contextmanager
def run_app(settings: Settings) -> Iterator[Live]:
    """Run the application in this process."""
    app = create_app(settings)
    config = uvicorn.Config(app, host="127.0.0.1", port=free_port(), log_config=None, lifespan="on")
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


@contextlib.contextmanager
def busy_device(live: Live) -> Iterator[None]:
    """Keep the device thread occupied, with eight tokens waiting behind."""
    free, begun = threading.Event(), threading.Event()

    def forward(items: list[Encoded]) -> Any:
        begun.set()
        assert free.wait(20)
        return np.zeros((len(items), 1), np.float32)

    assert live.app is not None
    batcher = live.app.state.scorer._batcher
    texts = [Encoded([1] * 8), Encoded([1] * 8)]
    future = batcher.submit(SimpleNamespace(forward=forward), texts, Future())
    assert begun.wait(10)
    try:
        yield
    finally:
        free.set()
        future.result(10)
