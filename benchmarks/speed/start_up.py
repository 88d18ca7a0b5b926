"""How soon a server is there, and what its process takes before there is a model in it."""

import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import psutil

from benchmarks.speed import servers
from benchmarks.speed.harness import BenchmarkError, Line, Options, alternate
from benchmarks.speed.places import ROOT

_IMPORT = "import time; t = time.perf_counter(); import serving.app; print(time.perf_counter() - t)"
_BODY = {"query": "Where is my parcel?", "documents": ["It is late.", "It was charged twice."]}
_WORKER = "bentoml_impl.worker"
"""Of the processes that `bentoml serve` starts, the one that answers requests has this in its command."""


def measure(options: Options) -> list[Line]:
    """Seconds and megabytes."""
    memory: dict[str, list[float]] = {"RSS": [], "USS": []}
    first: list[float] = []

    def cold(turn: int) -> float:
        """From the start of the command to an answer of the embedded encoder."""
        with servers.ours(options, {}, wait=False) as server:
            server.wait("/readyz")
            full = api_process(server.process.pid).memory_full_info()
            memory["RSS"].append(full.rss / 2**20)
            memory["USS"].append(full.uss / 2**20)
            asked = time.perf_counter()
            httpx.post(f"{server.url}/v1/rerank", json=_BODY, timeout=120).raise_for_status()
            now = time.perf_counter()
            first.append(now - asked)
            return now - server.began

    found = alternate({"import of serving.app": _import, "from the command to the first answer": cold}, options)
    wanted = {"import of serving.app": 1.5, "from the command to the first answer": 6.0}
    lines = [
        Line(f"start-up, {side}", "s", values, less=True, wanted=wanted.get(side))
        for side, values in {**found, "first answer of a server that is ready": first}.items()
    ]
    for kind, values in memory.items():
        wanted_memory = 250.0 if kind == "RSS" else None
        lines.append(
            Line(f"memory of the API process without models, {kind}", "MB", values, less=True, wanted=wanted_memory)
        )
    return lines


def _import(turn: int) -> float:
    command = [sys.executable, "-c", _IMPORT]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def api_process(parent: int) -> psutil.Process:
    """The process that answers requests.

    Raises:
        BenchmarkError: there is none.
    """
    for process in _family(parent):
        if _WORKER in " ".join(process.cmdline()):
            return process
    raise BenchmarkError("no process of `bentoml serve` answers requests")


def _family(parent: int) -> Iterator[psutil.Process]:
    yield from psutil.Process(parent).children(recursive=True)
    yield psutil.Process(parent)
