"""`bentoml build` and the server it makes: the same answers, and a shutdown that finishes what was accepted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.serving.live import BENTOML, ROOT, environment, open_home, serve


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Any]:
    """A server of a freshly built bento."""
    home = tmp_path_factory.mktemp("bento-home")
    open_home(home).add(checkpoint, "desk")
    # no proxy and no index: a build must not need a network
    offline = {
        "UV_OFFLINE": "1",
        "PIP_NO_INDEX": "1",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    subprocess.run(
        [BENTOML, "build"],
        cwd=ROOT,
        env=environment(home, **offline),
        check=True,
        capture_output=True,
    )
    with serve(home, "encore:latest") as live:
        yield live


def test_a_bento_answers_the_same(server: Any, bento: Any) -> None:
    ask = {"model": "desk", "inputs": ["my parcel is late", "refund"]}
    labels = []
    for live in (server, bento):
        items = httpx.post(f"{live.url}/v1/classify", json=ask).json()["classifications"]
        labels.append([item["labels"][label]["confidence"] for item in items for label in item["labels"]])
    assert labels[0] == pytest.approx(labels[1], abs=1e-4)


def test_bentoml_keeps_its_own_paths(server: Any) -> None:
    for path in ("/livez", "/readyz", "/healthz", "/metrics"):
        assert httpx.get(f"{server.url}{path}").status_code == 200, path


def test_the_plain_mount_answers_too(server: Any, tmp_path: Path) -> None:
    """What the service falls back to, should BentoML no longer call `to_asgi`."""
    script = """
from _bentoml_sdk import Service
from starlette.testclient import TestClient
from serving.service import Encore
with TestClient(Service.to_asgi(Encore)) as client:
    answers = [client.get("/v1/models/desk"), client.post("/v1/classify", content=b"{"), client.get("/readyz")]
    print([answer.status_code for answer in answers], "x-request-id" in answers[0].headers)
"""
    command = [sys.executable, "-c", script]
    made = environment(server.home, BENTOML_HOME=str(tmp_path))
    done = subprocess.run(command, cwd=ROOT, env=made, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["[200, 400, 200] True"], done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads what a process has loaded as Linux tells it")
def test_a_server_on_a_cpu_answers_without_torch(server: Any) -> None:
    ask = {"model": "desk", "inputs": ["my parcel is late"]}
    assert httpx.post(f"{server.url}/v1/classify", json=ask).status_code == 200
    loaded = [Path(part.path).name for process in family(server) for part in process.memory_maps()]
    assert any("openvino" in name for name in loaded)
    assert not [name for name in loaded if "torch" in name]


def family(server: Any) -> list[psutil.Process]:
    """The processes of a server."""
    first = psutil.Process(server.process.pid)
    return [first, *first.children(recursive=True)]


def test_metrics(server: Any) -> None:
    def figures() -> dict[str, float]:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if line.startswith("encore_")]
        return {name: float(value) for name, value in pairs}

    count = 'encore_requests_total{method="POST",route="/v1/classify",status="200"}'
    before = figures()
    assert httpx.post(f"{server.url}/v1/classify", json={"model": "desk", "inputs": ["my", "my"]}).status_code == 200
    httpx.get(f"{server.url}/wp-admin/{time.time()}")
    for _ in range(100):
        after = figures()
        if after.get(count, 0) == before.get(count, 0) + 1:
            break
        time.sleep(0.02)
    grown = {name: after[name] - before.get(name, 0.0) for name in after}
    assert grown[count] == 1
    assert grown["encore_tokens_total"] == 6 and grown["encore_padded_tokens_total"] == 6
    assert grown["encore_batches_total"] == 1 and grown["encore_batch_texts_sum"] == 2
    assert after["encore_queued_tokens"] == 0 and after["encore_loaded_models"] >= 1
    assert grown['encore_request_seconds_count{route="/v1/classify"}'] == 1
    assert not any("wp-admin" in name for name in after)


def test_the_log_is_json_lines_without_texts(server: Any) -> None:
    httpx.post(f"{server.url}/v1/classify", json={"model": "desk", "inputs": ["very private"]})
    time.sleep(0.2)
    text = server.log.read_text()
    assert '"route":"/v1/classify","status":200' in text and "very private" not in text


def test_sigterm_finishes_what_was_accepted(bento: Any) -> None:
    """Last in this file: it ends the server."""
    texts = [f"cash prize number {i} " * 60 for i in range(96)]
    examples = [{"text": f"{word} {i}", "label": word} for word in ("spam", "ham") for i in range(10)]

    def ask(number: int) -> httpx.Response:
        body = {"inputs": [f"{number} {text}" for text in texts], "examples": examples}
        return httpx.post(f"{bento.url}/v1/classify", json=body, timeout=60)

    first = httpx.post(f"{bento.url}/v1/classify", json={"inputs": ["x"], "examples": examples}, timeout=60)
    assert first.status_code == 200
    with ThreadPoolExecutor(3) as threads:
        answers = [threads.submit(ask, number) for number in range(3)]
        time.sleep(0.4)
        os.kill(bento.process.pid, signal.SIGTERM)
        still_running = sum(not answer.done() for answer in answers)
        assert [answer.result().status_code for answer in answers] == [200, 200, 200]
    assert still_running > 0
    assert bento.process.wait(30) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{bento.url}/livez")
