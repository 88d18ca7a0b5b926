"""Models and servers that several files share."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cohere
import httpx
import openai
import pytest

from serving.registry import Registry
from serving.settings import Settings
from tests.serving.databases import KINDS, new_database, postgresql
from tests.serving.live import (
    LABELS,
    ROOT,
    TUNED,
    Live,
    environment,
    make_checkpoint,
    make_reranker,
    open_home,
    openai_sdk,
    run_app,
    serve,
)
from training.text import TextRules


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str | None]:
    """The URL of a PostgreSQL server, None where there is none."""
    with postgresql() as url:
        yield url


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path, postgresql_server: str | None) -> str:
    """An empty database, once of each kind."""
    return new_database(request.param, tmp_path, postgresql_server)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single-label checkpoint."""
    return make_checkpoint(tmp_path_factory.mktemp("single") / "checkpoint")


@pytest.fixture(scope="session")
def multi_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multi-label checkpoint with a threshold that is always reached, a usual one, and one never reached."""
    return make_checkpoint(tmp_path_factory.mktemp("multi") / "checkpoint", thresholds=(0.0, 0.5, 1.0), seed=1)


@pytest.fixture(scope="session")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reranker's checkpoint."""
    return make_reranker(tmp_path_factory.mktemp("reranker") / "checkpoint")


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as of prompts and completions: with written forms, and a separator of its own."""
    surfaces = {label: f" {label}" for label in LABELS}
    rules = TextRules(separator="\n\n@@", ignore_system=True)
    return make_checkpoint(tmp_path_factory.mktemp("tuned") / "checkpoint", seed=2, surfaces=surfaces, rules=rules)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """An empty registry."""
    return open_home(tmp_path / "home")


@pytest.fixture(scope="session")
def home(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, multi_checkpoint: Path, reranker: Path, tuned: Path
) -> Path:
    """A home with the models `desk` (single-label), `tags` (multi-label), `ranker` (a reranker) and `TUNED`."""
    folder = tmp_path_factory.mktemp("home")
    registry = open_home(folder)
    registry.add(checkpoint, "desk")
    registry.add(multi_checkpoint, "tags")
    registry.add(reranker, "ranker")
    registry.add(tuned, TUNED)
    return folder


@pytest.fixture(scope="session")
def server(home: Path) -> Iterator[Live]:
    """The real server, started in the project folder without configuration beyond its home."""
    with serve(home) as live:
        yield live


@pytest.fixture(scope="session")
def client(server: Live) -> Iterator[cohere.Client]:
    """The hosted API's SDK, pointed at the server."""
    with cohere.Client("any", base_url=server.url) as made:
        yield made


@pytest.fixture(scope="module")
def live(server: Live) -> Live:
    """The server that the tests of a file talk to; a file that needs one of its own has a fixture of this name."""
    return server


@pytest.fixture(scope="module")
def sdk(live: Live) -> Iterator[openai.OpenAI]:
    """OpenAI's SDK, pointed at the server."""
    with openai_sdk(live.url) as made:
        yield made


@pytest.fixture(scope="module")
def wire(live: Live) -> Iterator[httpx.Client]:
    """Plain HTTP to the server."""
    with httpx.Client(base_url=live.url, timeout=60) as connection:
        yield connection


@pytest.fixture(scope="module")
def lend(server: Live) -> Iterator[Callable[[Path, str], None]]:
    """Give the server a checkpoint while the tests of one file run: (folder, name)."""
    registry, lent = open_home(server.home), list[str]()

    def add(folder: Path, name: str) -> None:
        registry.add(folder, name)
        lent.append(name)

    yield add
    for name in lent:
        registry.remove(name)


@pytest.fixture(scope="session")
def start(home: Path) -> Callable[..., contextlib.AbstractContextManager[Live]]:
    """Run the application in this process: (**settings) -> a context with the running server."""
    return lambda **settings: run_app(
        Settings(**{"home": home, "cpu_threads": 1, "embedded_worker": False, **settings})
    )


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m serving.models` in a home: (home, *arguments) -> the finished process."""

    def run(home: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "serving.models", *map(str, arguments)]
        return subprocess.run(line, cwd=ROOT, env=environment(home), capture_output=True, text=True, check=False)

    return run
