"""What is refused when a dataset is uploaded, and what comes of uploads that mean no good."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cohere
import httpx
import pytest
from cohere.errors import BadRequestError, UnauthorizedError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.auth import hash_key
from tests.serving.cohere_place import SINGLE, Place, failure, jsonl, open_place
from tests.serving.live import refused
from tests.training.conftest import topic_rows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server with a worker of its own."""
    with open_place(tmp_path_factory.mktemp("place")) as opened:
        yield opened


def post(wire: httpx.Client, files: Any, **query: Any) -> httpx.Response:
    return wire.post("/v1/datasets", params={"name": "desk", "type": SINGLE, **query}, files=files)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"name": None}, "name: field required"),
        ({"name": ""}, "name: "),
        ({"name": "  "}, "name: it must not be blank"),
        ({"name": "x" * 51}, "name: "),
        ({"name": "a\nb"}, "name: it must not hold control characters"),
        ({"type": None}, "type: field required"),
        ({"type": "embed-input"}, f"datasets of type embed-input are not served; this server takes {SINGLE}"),
        ({"type": "chat-finetune-input"}, "datasets of type chat-finetune-input are not served"),
        ({"type": "mine"}, "'mine' is not a type of dataset"),
        ({"csv_delimiter": "||"}, "csv_delimiter: "),
        ({"csv_delimiter": ""}, "csv_delimiter: "),
        ({"csv_delimiter": '"'}, "csv_delimiter: "),
        ({"skip_malformed_input": "perhaps"}, "skip_malformed_input: "),
    ],
)
def test_refused_uploads(place: Place, query: dict[str, Any], message: str) -> None:
    given = {name: value for name, value in {"name": "x", "type": SINGLE, **query}.items() if value is not None}
    response = place.wire.post("/v1/datasets", params=given, files={"data": ("x.jsonl", b"{}")})
    assert message in refused(response) and refused(response).startswith("invalid request: ")


def test_the_sdk_raises_for_a_refusal(place: Place) -> None:
    with pytest.raises(BadRequestError, match="not served"):
        place.co.datasets.create(name="x", type="embed-input", data=b"{}")


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {}),
        (b"{}", {"content-type": "application/json"}),
        (b"data=x", {"content-type": "application/x-www-form-urlencoded"}),
        (b"x", {"content-type": "multipart/form-data"}),
        (b"--x\r\nnonsense", {"content-type": "multipart/form-data; boundary=x"}),
        (b'--x\r\ncontent-disposition: form-data; name="data"\r\n\r\nno file\r\n--x--\r\n', None),
        (b'--x\r\ncontent-disposition: form-data; name="eval_data"; filename="e"\r\n\r\n{}\r\n--x--\r\n', None),
        (b'--x\r\ncontent-disposition: form-data; filename="e"\r\n\r\n{}\r\n--x--\r\n', None),
        (b'--x\r\ncontent-disposition: form-data; name="a"; filename="e"\r\n\r\n\r\n' * 12 + b"--x--\r\n", None),
        (
            b'--x\r\ncontent-disposition: form-data; name="data"; filename="e"\r\n\r\n{}\r\n--x--\r\n',
            {"content-type": "multipart/form-data; boundary=x; charset=undefined"},
        ),
        (b'--x\r\ncontent-disposition: form-data; name="data"; filename="' + b"e" * 50_000 + b'"\r\n\r\n--x--', None),
    ],
)
def test_forms_that_are_none(place: Place, content: bytes, headers: dict[str, str] | None) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"} if headers is None else headers
    refused(place.wire.post("/v1/datasets", params={"name": "x", "type": SINGLE}, content=content, headers=headers))


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"\0" * 5000, b"PK\x03\x04" + b"x" * 100, b"[" * 100_000, b'{"text": ' * 40, b"\xff\xfea\0", b"{}"],
    ids=["empty", "blank", "NUL", "zip", "nested", "open", "UTF-16", "no fields"],
)
def test_hostile_files_fail_in_their_own_time(place: Place, content: bytes) -> None:
    assert failure(place, content).startswith("Training file ")


@pytest.mark.parametrize(
    ("given_name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\x.csv", "x.csv"),
        ("x" * 500, "x" * 255),
        ("a\r\nx-injected: 1\r\n\r\nb.csv", None),
        ("a\0b.csv", None),
        ("/", "upload"),
        ("été 📦.jsonl", "été 📦.jsonl"),
    ],
)
def test_a_file_name_is_only_shown(place: Place, given_name: str, shown: str | None) -> None:
    before = {path for path in place.live.home.rglob("*") if path.is_dir()}
    response = post(place.wire, {"data": (given_name, jsonl(topic_rows(40)))})
    assert response.status_code == 200, response.text
    made = response.json()["id"]
    [part] = place.wire.get(f"/v1/datasets/{made}").json()["dataset"]["dataset_parts"]
    assert part["name"] == shown or (shown is None and part["name"].isprintable())
    response = place.wire.get(f"/v1/datasets/{made}")
    assert "x-injected" not in response.headers
    new = {path for path in place.live.home.rglob("*") if path.is_dir()} - before
    assert new <= {place.live.home / "files" / made}


def test_limits_and_keys(start: Callable[..., Any], tmp_path: Path) -> None:
    key = "k" * 20
    options = {"home": tmp_path, "max_upload": 100_000, "max_body": 1000, "api_keys": (hash_key(key),)}
    with start(**options) as live, httpx.Client(base_url=live.url) as wire:
        assert "no api key" in refused(post(wire, {"data": ("x", b"{}")}), 401)
        wire.headers["authorization"] = f"bearer {key}"
        assert post(wire, {"data": ("x", b"x" * 90_000)}).status_code == 200
        assert "must be at most" in refused(post(wire, {"data": ("x", b"x" * 200_000)}), 413)
        with cohere.Client("wrong", base_url=live.url) as client, pytest.raises(UnauthorizedError):
            client.datasets.list()


@given(query=st.dictionaries(st.sampled_from(("name", "type", "keep_fields", "csv_delimiter", "limit")), st.text()))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_query_breaks_it(place: Place, query: dict[str, str]) -> None:
    response = place.wire.post("/v1/datasets", params={"type": SINGLE, **query}, files={"data": ("x", b"")})
    assert response.status_code in (200, 400) and response.headers["content-type"] == "application/json"
    assert place.wire.get("/v1/datasets", params=query).status_code in (200, 400)
