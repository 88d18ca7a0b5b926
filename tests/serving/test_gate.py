"""What every request passes: keys, ids, limits, errors, metrics and the log; the application runs in this process."""

import contextlib
import json
import logging
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cohere
import httpx
import pytest
from cohere.errors import TooManyRequestsError, UnauthorizedError

from serving import log
from serving.auth import hash_key
from tests.serving.live import busy_device

Start = Callable[..., contextlib.AbstractContextManager[Any]]
ASK = {"model": "desk", "inputs": ["my parcel"]}


@pytest.fixture(scope="module")
def locked(start: Start) -> Iterator[Any]:
    """A server with two keys and tight limits."""
    keys = ("sesame-sesame-sesame", hash_key("other-key"))
    with start(
        api_keys=",".join(keys), max_body=2000, request_timeout=0.5, max_queued_tokens=10, max_batch_texts=1
    ) as live:
        live.app.add_api_route("/boom", _boom)
        yield live


async def _boom() -> None:
    raise ValueError("secret detail")


@pytest.fixture(scope="module")
def wire(locked: Any) -> Iterator[httpx.Client]:
    headers = {"authorization": "Bearer sesame-sesame-sesame"}
    with httpx.Client(base_url=locked.url, headers=headers, timeout=30) as connection:
        yield connection


def test_keys(locked: Any) -> None:
    url = f"{locked.url}/v1/check-api-key"
    for header in (None, "", "Bearer", "Basic abc"):
        response = httpx.post(url, headers={"authorization": header} if header is not None else {})
        assert response.status_code == 401 and response.json()["message"] == "no api key supplied"
    for header in ("Bearer wrong", f"Bearer {hash_key('other-key')}", "Bearer sesame-sesame-sesame2", "Bearer ü"):
        response = httpx.post(url, headers={"authorization": header.encode()})
        assert response.status_code == 401 and response.json()["message"] == "invalid api token"
    for header in ("Bearer sesame-sesame-sesame", "bearer other-key", "BEARER  other-key"):
        assert httpx.post(url, headers={"authorization": header}).json()["valid"] is True
    assert httpx.get(f"{locked.url}/nope").status_code == 401


def test_the_sdk_sees_a_wrong_key(locked: Any) -> None:
    with cohere.Client("wrong", base_url=locked.url) as client, pytest.raises(UnauthorizedError) as error:
        client.classify(model="desk", inputs=["x"])
    assert error.value.body["message"] == "invalid api token"
    with cohere.Client("other-key", base_url=locked.url) as client:
        assert client.classify(model="desk", inputs=["x"]).classifications


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/nope", 404),
        ("POST", "/v1/chat", 404),
        ("POST", "/v2/classify", 404),
        ("POST", "/v1/classify/", 404),
        ("GET", "/docs", 404),
        ("GET", "/v1/models/", 404),
        ("GET", "/v1/classify", 405),
        ("PUT", "/v1/models", 405),
        ("PROPFIND", "/v1/models", 405),
    ],
)
def test_unknown_routes_and_methods(wire: httpx.Client, method: str, path: str, status: int) -> None:
    response = wire.request(method, path)
    assert response.status_code == status and set(response.json()) == {"id", "message"}
    assert response.headers["content-type"] == "application/json"
    if status == 404:
        assert response.json()["message"] == "404 page not found"


def test_request_ids(wire: httpx.Client) -> None:
    assert wire.post("/v1/classify", json=ASK, headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    response = wire.get("/nope", headers={"x-request-id": "mine-2"})
    assert response.headers["x-request-id"] == response.json()["id"] == "mine-2"
    for bad in ("", "x" * 200, 'a"b', "a b"):
        assert uuid.UUID(wire.get("/nope", headers={"x-request-id": bad}).headers["x-request-id"])


def test_large_bodies(wire: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    for content in (b" " * 2001, chunks()):
        response = wire.post("/v1/classify", content=content)
        assert response.status_code == 413 and "at most 2000 bytes" in response.json()["message"]
    body = json.dumps(ASK).encode()
    assert wire.post("/v1/classify", content=body + b" " * (2000 - len(body))).status_code == 200


def test_a_client_that_leaves_is_no_error(locked: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "serving"):
        with socket.create_connection(locked.url.removeprefix("http://").split(":")) as connection:
            head = (
                "POST /v1/classify HTTP/1.1\r\nhost: x\r\nauthorization: Bearer other-key\r\ncontent-length: 50\r\n\r\n"
            )
            connection.sendall(head.encode() + b"{")
            time.sleep(0.1)
        records = _gate_records(caplog, 1)
    assert [(record.levelname, record.fields["status"]) for record in records] == [("INFO", 499)]


def _gate_records(caplog: pytest.LogCaptureFixture, count: int) -> list[Any]:
    """The gate's lines, of which the last is written a little after its answer is out."""
    for _ in range(500):
        records = [record for record in caplog.records if record.name == "serving.gate"]
        if len(records) == count:
            return records
        time.sleep(0.01)
    raise AssertionError(caplog.text)


def test_an_unexpected_error_tells_nothing(wire: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    response = wire.get("/boom")
    assert response.status_code == 500 and response.json()["message"] == "internal server error"
    record = next(record for record in caplog.records if record.exc_info)
    line = json.loads(log.JsonLines().format(record))
    assert line["error"] == "ValueError" and any("test_gate.py" in place for place in line["where"])
    assert "secret detail" not in json.dumps(line)


def test_a_full_queue_is_429_and_a_slow_answer_504(locked: Any, wire: httpx.Client) -> None:
    assert wire.post("/v1/classify", json=ASK).status_code == 200
    with busy_device(locked):
        response = wire.post("/v1/classify", json=ASK)
        assert response.status_code == 429 and int(response.headers["retry-after"]) >= 1
        assert "tokens are waiting" in response.json()["message"]
        with cohere.Client("other-key", base_url=locked.url) as client, pytest.raises(TooManyRequestsError):
            client.classify(model="desk", inputs=["my parcel"], request_options={"max_retries": 0})
    batcher = locked.app.state.scorer._batcher
    tight, batcher.limits = batcher.limits, batcher.limits.model_copy(update={"max_queued_tokens": 1000})
    with busy_device(locked):
        response = wire.post("/v1/classify", json=ASK)
        assert response.status_code == 504 and "0.5 seconds" in response.json()["message"]
    batcher.limits = tight
    assert wire.post("/v1/classify", json=ASK).status_code == 200


def test_the_log_has_a_line_per_request_without_texts_or_keys(
    wire: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "serving"):
        wire.post("/v1/classify", json={**ASK, "inputs": ["very private"]})
        wire.get("/v1/models/private-name")
        records = _gate_records(caplog, 2)
    lines = [json.loads(log.JsonLines().format(record)) for record in records]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("POST", "/v1/classify", 200),
        ("GET", "/v1/models/{name:path}", 404),
    ]
    assert all(line["milliseconds"] > 0 for line in lines)
    assert not any(word in json.dumps(lines) for word in ("private", "sesame"))


def test_an_open_server_takes_any_key_or_none(start: Start) -> None:
    with start() as live:
        for headers in ({}, {"authorization": "Bearer x"}, {"authorization": "nonsense"}):
            assert httpx.post(f"{live.url}/v1/classify", json=ASK, headers=headers).status_code == 200


def test_a_body_that_does_not_come_is_the_clients_failure(locked: Any) -> None:
    head = "POST {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer other-key\r\ncontent-length: 50\r\n"
    head += "content-type: multipart/form-data; boundary=x\r\n\r\n--"
    for path in ("/v1/classify", "/v1/finetuning/finetuned-models", "/openai/v1/files", "/rerank"):
        with socket.create_connection(locked.url.removeprefix("http://").split(":"), timeout=10) as connection:
            connection.sendall(head.format(path).encode())
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
        assert answer.startswith(b"HTTP/1.1 408") and b"nothing more of the request came" in answer, answer


def test_many_models_in_little_memory(start: Start, tmp_path: Path) -> None:
    with start(cache_bytes=1) as live, ThreadPoolExecutor(8) as threads:
        url = f"{live.url}/v1/classify"
        asks = [{"model": name, "inputs": ["x"]} for name in ("desk", "tags") * 10]
        answers = list(threads.map(lambda ask: httpx.post(url, json=ask, timeout=60), asks))
        assert [answer.status_code for answer in answers] == [200] * 20
        kinds = [answer.json()["classifications"][0]["classification_type"] for answer in answers]
        assert kinds == ["single-label", "multi-label"] * 10
