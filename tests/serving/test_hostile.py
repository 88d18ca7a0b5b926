"""A server that is wished ill: what it answers, what it keeps, what it says in its log, and that it goes on."""

import contextlib
import gzip
import io
import json
import socket
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from serving.app import create_app
from serving.database import open_database
from serving.files import Files
from serving.jobs import Jobs
from serving.settings import Settings
from serving.validation_lane import ValidationLane
from tests.serving.hostile import (
    CHARSETS,
    IDS,
    INTERNALS,
    KEY,
    MANY,
    NAMES,
    WHOLE,
    WORD,
    bodies,
    exchange,
    harmless,
    head,
    variants,
)
from tests.serving.live import TUNED, Live, open_home, serve
from tests.tiny import make_base

ROW = json.dumps({"prompt": f"my parcel {WORD}", "completion": " shipping"}).encode() + b"\n"
SINGLE = "single-label-classification-finetune-input"
FILES, DATASETS = "/openai/v1/files", "/v1/datasets"
MEGABYTE = 1 << 20
PATHS: dict[str, dict[str, Any]] = create_app().openapi()["paths"]


@dataclass(frozen=True)
class Place:
    """A server with a key, and what is on it."""

    live: Live
    wire: httpx.Client
    file_id: str
    dataset_id: str
    model_id: str
    base: Path

    def resident(self) -> int:
        """Bytes of memory of all its processes."""
        assert self.live.process
        server = psutil.Process(self.live.process.pid)
        return sum(process.memory_info().rss for process in (server, *server.children(recursive=True)))

    def works(self) -> None:
        """See that it still does what it is for."""
        response = self.wire.post("/v1/classify", json={"model": "desk", "inputs": [f"my parcel {WORD}"]})
        assert response.status_code == 200, response.text


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, reranker: Path, tuned: Path) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("hostile")
    base, home = make_base(folder / "base"), folder / "home"
    registry = open_home(home)
    for path, name in ((checkpoint, "desk"), (reranker, "ranker"), (tuned, TUNED)):
        registry.add(path, name)
    limits = {"ENCORE_MAX_UPLOAD": "16MiB", "ENCORE_MAX_BODY": "32MiB", "ENCORE_EMBEDDED_WORKER": "false"}
    with (
        serve(home, ENCORE_API_KEYS=KEY, ENCORE_DEFAULT_BASE=str(base), **limits) as live,
        httpx.Client(base_url=live.url, timeout=60, headers={"authorization": f"Bearer {KEY}"}) as wire,
    ):
        file = wire.post(FILES, files={"file": ("x.jsonl", ROW * 20)}, data={"purpose": "fine-tune"}).json()["id"]
        rows = "".join(json.dumps({"text": f"text {i} {WORD}", "label": "ab"[i % 2]}) + "\n" for i in range(80))
        dataset = _upload(wire, "x.jsonl", rows.encode()).json()["id"]
        _validate(home, base)
        body = bodies(file, dataset)["post", "/v1/finetuning/finetuned-models"]
        model = wire.post("/v1/finetuning/finetuned-models", json=body).json()["finetuned_model"]["id"]
        yield Place(live, wire, file, dataset, model, base)


def _upload(wire: httpx.Client, name: str, content: bytes, **query: str) -> httpx.Response:
    files = {"data": (name, content)}
    return harmless(wire.post(DATASETS, params={"name": WORD, "type": SINGLE, **query}, files=files))


def _validate(home: Path, base: Path) -> None:
    """Judge every dataset that waits."""
    settings = Settings(home=home, default_base=str(base))
    database = open_database(settings.database)
    lane = ValidationLane(settings, Jobs(home, database), Files(home, database), "test")
    while lane.once():
        pass


def _tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def test_every_json_body_is_tried(place: Place) -> None:
    described = {
        (method, path)
        for path, operations in PATHS.items()
        for method, operation in operations.items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    }
    assert described == set(bodies(place.file_id, place.dataset_id))


@pytest.mark.parametrize(("method", "path"), list(bodies("", "")))
def test_hostile_json(place: Place, method: str, path: str) -> None:
    body, url = bodies(place.file_id, place.dataset_id)[method, path], path.format(model_id=place.model_id)
    assert place.wire.request(method, url, json=body).status_code == 200
    for content in variants(body):
        harmless(place.wire.request(method, url, content=content))
    for content in WHOLE:
        assert harmless(place.wire.request(method, url, content=content)).status_code == 400
    harmless(place.wire.request(method, url, content=MANY))
    packed = gzip.compress(json.dumps(body).encode())
    for headers in ({"content-encoding": "gzip"}, {"content-type": "application/json; charset=utf-16"}):
        assert harmless(place.wire.request(method, url, content=packed, headers=headers)).status_code == 400


@pytest.mark.parametrize("path", [path for path in PATHS if "{" in path])
def test_hostile_ids(place: Place, path: str) -> None:
    before, _, after = path.replace("}", "{").split("{")
    for method in PATHS[path]:
        for name in IDS:
            answer = exchange(place.live.url, head(f"{method.upper()} {before}{name}{after} HTTP/1.1", {}))
            status = int(answer.split(b" ", 2)[1])
            assert 400 <= status < 500 or (status == 200 and name in (".", "..")), answer
            assert b"x-injected" not in answer.partition(b"\r\n\r\n")[0].lower()


def test_hostile_queries(place: Place) -> None:
    for path, operations in PATHS.items():
        names = [given["name"] for given in operations.get("get", {}).get("parameters", ()) if given["in"] == "query"]
        ids = {"model_id": place.model_id, "dataset_id": place.dataset_id, "job_id": "x", "file_id": place.file_id}
        for name in names:
            for value in (*NAMES, "-1", "1e9", "9" * 5000, "NaN", "\ud800".encode("utf-8", "surrogatepass"), "٣"):
                harmless(place.wire.get(path.format(**ids), params=httpx.QueryParams({name: value})))


REQUESTS = {
    "no length": head("POST /v1/classify HTTP/1.1", {}) + b'{"inputs": ["x"]}',
    "negative length": head("POST /v1/classify HTTP/1.1", {"content-length": "-5"}) + b"{}",
    "length in words": head("POST /v1/classify HTTP/1.1", {"content-length": "two"}) + b"{}",
    "huge length": head("POST /v1/classify HTTP/1.1", {"content-length": "9" * 30}) + b"{}",
    "too short a length": head("POST /v1/classify HTTP/1.1", {"content-length": "2"}) + b"{}GET / HTTP/1.1\r\n\r\n",
    "length and chunks": head("POST /v1/classify HTTP/1.1", {"content-length": "9", "transfer-encoding": "chunked"})
    + b"0\r\n\r\n",
    "a chunk that is none": head("POST /v1/classify HTTP/1.1", {"transfer-encoding": "chunked"}) + b"zz\r\n{}\r\n",
    "an id with a break": head("GET /v1/models HTTP/1.1", {"x-request-id": b"a\rx-injected: 1"}),
    "an id with bytes": head("GET /v1/models HTTP/1.1", {"x-request-id": b"\xff\xfe\x80"}),
    "a long id": head("GET /v1/models HTTP/1.1", {"x-request-id": "x" * 50_000}),
    "many headers": head("GET /v1/models HTTP/1.1", {f"x-{i}": "x" for i in range(5000)}),
    "a long path": head(f"GET /{'x' * 60_000} HTTP/1.1", {}),
    "a long query": head(f"GET /v1/models?{'x' * 60_000} HTTP/1.1", {}),
    "a strange method": head("X" * 500 + " /v1/models HTTP/1.1", {}),
    "a whole address": head("GET http://169.254.169.254/v1/models HTTP/1.1", {}),
    "no path": head("GET * HTTP/1.1", {}),
    "an old version": head("GET /nope HTTP/0.9", {}),
    "an upgrade": head("GET /v1/models HTTP/1.1", {"upgrade": "websocket", "sec-websocket-key": "eA=="}),
    "two hosts": head("GET /nope HTTP/1.1", {"host": "evil", "x-forwarded-host": "evil", "x-forwarded-for": "'"}),
    "no key but bytes": head("GET /nope HTTP/1.1", {}, key="").replace(b"Bearer ", b"Bearer \xff\0"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_hostile_requests(place: Place, name: str) -> None:
    answer = exchange(place.live.url, REQUESTS[name])
    first, _, rest = answer.partition(b"\r\n")
    assert first.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4", b"HTTP/1.0 4")) or not answer, answer[:500]
    assert b"x-injected" not in rest.partition(b"\r\n\r\n")[0].lower() and answer.count(b"HTTP/1.1 200") <= 1
    place.works()


def _form(name: bytes, content: bytes = ROW, field: bytes = b"file", kind: str = "") -> dict[str, Any]:
    """A form with a file of that name, byte by byte."""
    sent = b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--x\r\n'
    sent += b'content-disposition: form-data; name="' + field + b'"; filename="' + name + b'"\r\n\r\n'
    return {
        "content": sent + content + b"\r\n--x--\r\n",
        "headers": {"content-type": f"multipart/form-data; boundary=x{kind}".encode()},
    }


def test_hostile_names_of_files(place: Place) -> None:
    surrogates = (b"\\ud800", b"+2AA-", b"\\x00", b"\xed\xa0\x80", b"\xff", b"x-\\udcff.csv")
    forms = [_form(name.replace("\r\n", "\\r\\n").encode()) for name in NAMES]
    forms += [_form(name, kind=f"; charset={kind}") for name in surrogates for kind in CHARSETS]
    forms += [_form(b"x", field=name, kind=f"; charset={kind}") for name in surrogates for kind in CHARSETS]
    forms += [_form(b'x"\r\nx-injected: 1\r\nx: "'), _form(b"x" * 70_000), _form(b"x\r\n\r\n--x--"), _form(b"x", b"")]
    for form in forms:
        made = harmless(place.wire.post(FILES, **form))
        form["content"] = form["content"].replace(b'"file"', b'"data"')
        harmless(place.wire.post(DATASETS, params={"name": WORD, "type": SINGLE}, **form))
        if made.status_code == 200:
            content = harmless(place.wire.get(f"{FILES}/{made.json()['id']}/content"))
            assert content.content in (ROW, b"") and "content-disposition" not in content.headers
    for path in (FILES, DATASETS):
        harmless(place.wire.get(path))


def _zip(name: str, size: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr(name, b"0" * size)
    return buffer.getvalue()


def test_bombs_are_never_unpacked(place: Place) -> None:
    rows = gzip.compress(ROW * 1_000_000)
    bombs = {
        "zip": _zip("../../../x.jsonl", 300 * MEGABYTE),
        "sheet": _zip("xl/workbook.xml", 300 * MEGABYTE),
        "gz": gzip.compress(b"\0" * 300 * MEGABYTE),
        "rows": rows,
        "twice": gzip.compress(rows),
        "lines": b"\n" * 8 * MEGABYTE,
        "one line": b'{"text": "' + b"x" * 8 * MEGABYTE,
        "brackets": b"[" * 4 * MEGABYTE,
        "entities": b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "&a;&a;">]><l>&a;</l>',
        "pickle": b"cos\nsystem\n(S'touch x'\ntR.",
        "parquet": b"PAR1" + b"\xff" * 1000 + b"PAR1",
    }
    before, kept = place.resident(), sum(_tree(place.live.home / "files").values())
    ids = {name: _upload(place.wire, name, content).json()["id"] for name, content in bombs.items()}
    stored = sum(_tree(place.live.home / "files").values()) - kept
    assert stored == sum(map(len, bombs.values())) and place.resident() - before < 64 * MEGABYTE
    _validate(place.live.home, place.base)
    assert sum(_tree(place.live.home / "files").values()) - kept == stored
    for name, made in ids.items():
        dataset = harmless(place.wire.get(f"{DATASETS}/{made}")).json()["dataset"]
        assert dataset["validation_status"] == "failed" and dataset["validation_error"], name
        assert not INTERNALS.search(dataset["validation_error"]), dataset
    for name, content in bombs.items():
        harmless(place.wire.post(FILES, files={"file": (name, content)}, data={"purpose": "fine-tune"}))


@pytest.mark.parametrize(("path", "limit"), [(FILES, 16), (DATASETS, 16), ("/v1/classify", 32), ("/nope", 32)])
def test_an_endless_body_ends_at_the_limit_and_is_not_kept(place: Place, path: str, limit: int) -> None:
    query = f"?name=x&type={SINGLE}" if path == DATASETS else ""
    form = _form(b"x", field=b"data" if path == DATASETS else b"file")["content"].removesuffix(b"\r\n--x--\r\n")
    before, peak, sent = place.resident(), 0, 0
    headers = {"transfer-encoding": "chunked", "content-type": "multipart/form-data; boundary=x"}
    url = place.live.url.removeprefix("http://").split(":")
    with socket.create_connection((url[0], int(url[1])), timeout=20) as connection:
        connection.sendall(head(f"POST {path}{query} HTTP/1.1", headers) + b"%x\r\n%s\r\n" % (len(form), form))
        with contextlib.suppress(ConnectionError):
            while sent < 200 * MEGABYTE:
                connection.sendall(b"%x\r\n%s\r\n" % (MEGABYTE, b"y" * MEGABYTE))
                sent, peak = sent + MEGABYTE, max(peak, place.resident())
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = connection.recv(65_536)
    assert (answer.startswith(b"HTTP/1.1 413") and b"must be at most" in answer) or path == "/nope" or not answer
    assert sent < 80 * MEGABYTE and peak - before < 2.5 * limit * MEGABYTE
    place.works()


def test_fields_of_a_form_are_not_kept_in_memory(place: Place) -> None:
    before = place.resident()
    field = b'--x\r\ncontent-disposition: form-data; name="%d"\r\n\r\n%s\r\n'
    for count, size in ((15, MEGABYTE), (240, 9000), (100_000, 1)):
        form = _form(b"x")
        form["content"] = b"".join(field % (i, b"y" * size) for i in range(count)) + form["content"]
        for path in (FILES, f"{DATASETS}?name=x&type={SINGLE}"):
            assert harmless(place.wire.post(path, **form)).status_code == 400
    assert place.resident() - before < 16 * MEGABYTE


def test_afterwards_all_is_as_it_was(place: Place) -> None:
    place.works()
    home = place.live.home
    assert {path.name for path in home.parent.iterdir()} == {"base", "home"}
    known = {"files", "jobs", "models", "uploads", "tmp", "bentoml", "server.log", "models.lock"}
    assert {path.name for path in home.iterdir() if not path.name.startswith("encore.db")} == known
    stored = {path.name for path in home.joinpath("files").rglob("*") if path.is_file()}
    assert stored == {"0", "0.jsonl"} and not list(home.joinpath("uploads").iterdir())
    log = place.live.log.read_text()
    assert '"message":"request"' in log and '"level":"error"' not in log and "Traceback" not in log, log[-3000:]
    for private in (KEY, WORD, "parcel", "x-injected", "passwd"):
        assert private not in log
