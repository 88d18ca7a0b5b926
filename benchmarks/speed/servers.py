"""Servers that are measured: ours with models of its own, and the peer's; and asking them."""

import contextlib
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.speed.harness import BenchmarkError, Options
from benchmarks.speed.places import ROOT, interpreter
from benchmarks.speed.talk import Worker

_READY_SECONDS = 300


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path
    began: float
    """When it was started, by `time.perf_counter`."""

    def wait(self, path: str) -> None:
        """Wait until a GET is answered well.

        Raises:
            BenchmarkError: the server has ended, or takes too long.
        """
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while time.perf_counter() - self.began < _READY_SECONDS and self.process.poll() is None:
                with contextlib.suppress(httpx.TransportError):
                    if client.get(path).is_success:
                        return
                time.sleep(0.05)
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise BenchmarkError(f"the server is not ready: {lines[-1] if lines else 'no word why'} (see {self.log})")


@contextmanager
def ours(options: Options, models: Mapping[str, Path], *, wait: bool = True) -> Iterator[Server]:
    """Our server with checkpoints under names, and its settings as they come; `wait`: until it is ready."""
    home = (options.work / "home").absolute()
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ENCORE_", "BENTOML_"))}
    own = {"ENCORE_HOME": str(home), "BENTOML_HOME": str(home / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    environment = kept | own
    for name, folder in models.items():
        command = [sys.executable, "-m", "serving.models", "add", str(folder.absolute()), "--name", name]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    port = free_port()
    bentoml = str(Path(sys.executable).parent / "bentoml")
    command = [bentoml, "serve", "--host", "127.0.0.1", "--port", str(port)]
    with _running(command, port, options.work / "logs" / "server.log", environment) as server:
        if wait:
            server.wait("/readyz")
        yield server


@contextmanager
def infinity(options: Options, folder: Path, engine: str) -> Iterator[Server]:
    """infinity-emb's server with one model, as its command starts it."""
    port = free_port()
    command = [str(interpreter(options, "infinity").with_name("infinity_emb").absolute()), "v2"]
    command += ["--model-id", str(folder.absolute()), "--served-model-name", "ranker", "--engine", engine]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    with _running(command, port, options.work / "logs" / f"infinity-{engine}.log", environment) as server:
        server.wait("/health")
        yield server


@dataclass
class Asked:
    """Requests to one path of a server, sent by the load generator."""

    generator: Worker
    url: str
    bodies: Sequence[Mapping[str, Any]]
    clients: int
    seconds: float
    times: list[float] = field(default_factory=list)
    """Seconds of every request of every turn."""
    cpu: list[float] = field(default_factory=list)
    """The generator's share of one core, in each turn."""

    def __post_init__(self) -> None:
        """Warm the server up."""
        self._send(min(self.seconds, 2.0))

    def __call__(self, turn: int) -> float:
        """Requests a second."""
        found = self._send(self.seconds)
        self.times += found["times"]
        self.cpu.append(found["cpu"] / found["seconds"])
        return len(found["times"]) / found["seconds"]

    @property
    def p99(self) -> float:
        """Milliseconds in which 99 of a hundred requests were answered."""
        return statistics.quantiles(self.times, n=100, method="inclusive")[98] * 1e3

    def _send(self, seconds: float) -> dict[str, Any]:
        bodies = [json.dumps(body) for body in self.bodies]
        return self.generator.ask("load", url=self.url, bodies=bodies, clients=self.clients, seconds=seconds)


@contextmanager
def _running(command: list[str], port: int, log: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=dict(environment), stdout=out, stderr=out)
        try:
            yield Server(f"http://127.0.0.1:{port}", process, log, began)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """A port below those that systems give to clients, one of which may take it before the server does."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.randint(20_000, 32_000)))
            return int(probe.getsockname()[1])
