"""Tiny checkpoints, the application in this process, and the real `bentoml serve` in another."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import torch
import uvicorn
from fastapi import FastAPI

from serving.app import create_app
from serving.database import open_database
from serving.models import Registry
from serving.settings import Settings
from tests.tiny import make_base
from training.checkpoint import Checkpoint, load_base, save_checkpoint
from training.manifest import Manifest
from training.network import Network, linear_head

ROOT = Path(__file__).parents[2]
BENTOML = Path(sys.executable).with_name("bentoml")  # of this environment, activated or not
LABELS = ("billing", "shipping", "returns")
MAX_LENGTH = 32


@dataclass(frozen=True)
class Live:
    """A running server."""

    url: str
    home: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None
    app: FastAPI | None = None


def make_checkpoint(
    folder: Path, labels: tuple[str, ...] = LABELS, thresholds: tuple[float, ...] | None = None, seed: int = 0
) -> Path:
    """Write a checkpoint with random weights; mean pooling, so that every word of a text counts."""
    backbone, tokenizer = load_base(make_base(folder.with_name("base"), seed=seed))
    head = linear_head(backbone, len(labels))
    torch.nn.init.normal_(head.weight, std=0.5)
    manifest = Manifest(
        problem_type="multi_label_classification" if thresholds else "single_label_classification",
        labels=labels,
        max_length=MAX_LENGTH,
        pooling="mean",
        thresholds=thresholds,
        base_model="tiny",
        created_at=datetime.now(UTC),
    )
    save_checkpoint(folder, Checkpoint(Network(backbone, "mean", head).eval(), tokenizer, manifest))
    return folder


def open_home(home: Path) -> Registry:
    """The registry in `home`, as a server with default settings opens it."""
    return Registry(home, open_database(f"sqlite:///{home / 'encore.db'}"))


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
def serve(home: Path, target: str = ".", **settings: str) -> Iterator[Live]:
    """Run the real server, started in the project folder; further settings are environment variables."""
    port, log = _free_port(), home / "server.log"
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
