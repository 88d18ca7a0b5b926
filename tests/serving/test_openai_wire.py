"""What every answer under /openai/v1 has: the error object, headers, ids; by OpenAI's SDK and on the wire."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import orjson
import pytest
from fastapi import Request
from pydantic import Field, TypeAdapter

from serving.errors import RequestError
from serving.openai.lists import Cursor, cursor, page
from serving.openai.wire import Body, Texts, parse
from tests.serving.live import TUNED, busy_device, mistake, send

ASK = {"model": TUNED, "prompt": "my parcel"}
Start = Callable[..., Any]


@pytest.fixture(scope="module")
def locked(start: Start) -> Iterator[Any]:
    """A server with a key and tight limits."""
    with start(
        api_keys="sesame-sesame-sesame", max_body=2000, request_timeout=5, max_queued_tokens=10, max_batch_texts=1
    ) as live:
        live.app.add_api_route("/openai/v1/boom", _boom)
        yield live


async def _boom() -> None:
    raise ValueError("secret detail")


def ask(live: Any, path: str = "/models", **options: Any) -> httpx.Response:
    return httpx.get(f"{live.url}/openai/v1{path}", timeout=30, **options)


def test_a_missing_key(locked: Any) -> None:
    for headers in ({}, {"authorization": "Basic abc"}, {"authorization": "Bearer"}):
        error = mistake(ask(locked, headers=headers), 401)
        assert error["message"].startswith("You didn't provide an API key.")
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, None)


@pytest.mark.parametrize(
    ("key", "shown"), [("ab-something-yz", "ab***yz"), ("sk-1", "***"), ("sesame-sesame-sesame2", "se***e2")]
)
def test_a_wrong_key_is_shown_masked(locked: Any, key: str, shown: str) -> None:
    error = mistake(ask(locked, headers={"authorization": f"Bearer {key}"}), 401)
    assert error["message"] == f"Incorrect API key provided: {shown}."
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "invalid_api_key")


def test_the_sdk_sees_a_wrong_key(locked: Any) -> None:
    with openai.OpenAI(base_url=f"{locked.url}/openai/v1", api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError) as error:
            client.models.list()
        assert error.value.code == "invalid_api_key" and re.fullmatch(r"req_[0-9a-f]{32}", str(error.value.request_id))
    with openai.OpenAI(base_url=f"{locked.url}/openai/v1", api_key="sesame-sesame-sesame") as client:
        assert client.models.list().data


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/moderations"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/uploads"),
        ("GET", "/v1/batches"),
        ("POST", "/v1/decisions"),
        ("GET", "/v1/fine-tunes"),
        ("POST", "/v1/completions/"),
        ("GET", "/v1"),
        ("GET", "/v2/models"),
        ("GET", "/ünknown"),
    ],
)
def test_unknown_paths(wire: httpx.Client, method: str, path: str) -> None:
    error = mistake(wire.request(method, f"/openai{path}"), 404)
    assert error == {
        "message": f"Invalid URL ({method} {path})",
        "type": "invalid_request_error",
        "param": None,
        "code": "unknown_url",
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/v1/models"), ("POST", "/v1/models/x"), ("GET", "/v1/completions"), ("DELETE", "/v1/chat/completions")],
)
def test_wrong_methods(wire: httpx.Client, method: str, path: str) -> None:
    error = mistake(wire.request(method, f"/openai{path}"), 405)
    assert error["message"] == f"Not allowed to {method} on {path}."
    assert (error["param"], error["code"]) == (None, "method_not_supported")


def test_the_sdk_sees_an_unknown_path(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        sdk.embeddings.create(model="x", input="x")
    assert error.value.code == "unknown_url" and error.value.message.endswith("'code': 'unknown_url'}}")


@pytest.mark.parametrize("path", ["/openai/v1/completions", "/openai/v1/chat/completions"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null", b'{"model": NaN}', b'{"a": "\\ud800"}', b"\xff"])
def test_bodies_that_are_no_objects(wire: httpx.Client, path: str, body: bytes) -> None:
    error = mistake(send(wire, path, body))
    assert error["message"].startswith("We could not parse the JSON body of your request.")
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, None)


def test_headers_of_every_answer(wire: httpx.Client) -> None:
    given = {"x-request-id": "mine", "x-stainless-lang": "python", "openai-organization": "o", "openai-project": "p"}
    ids = set[str]()
    for response in (
        wire.get("/openai/v1/models", headers=given, params={"colour": "red"}),
        wire.get("/openai/v1/models/nope", headers=given),
        wire.get("/openai/nope"),
        send(wire, "/openai/v1/completions", ASK),
        send(wire, "/openai/v1/completions", {**ASK, "stream": True}),
    ):
        assert re.fullmatch(r"req_[0-9a-f]{32}", response.headers["x-request-id"])
        assert response.headers["openai-version"] == "2020-10-01"
        assert response.headers["openai-processing-ms"].isdecimal()
        ids.add(response.headers["x-request-id"])
    assert len(ids) == 5
    plain = wire.get("/v1/models", headers={"x-request-id": "mine"})
    assert plain.headers["x-request-id"] == "mine" and "openai-version" not in plain.headers


def test_the_sdk_finds_the_request_id(sdk: openai.OpenAI) -> None:
    assert re.fullmatch(r"req_[0-9a-f]{32}", str(sdk.models.retrieve(TUNED)._request_id))
    with pytest.raises(openai.NotFoundError) as error:
        sdk.models.retrieve("nope")
    assert re.fullmatch(r"req_[0-9a-f]{32}", str(error.value.request_id))


def test_a_full_queue(locked: Any) -> None:
    headers = {"authorization": "Bearer sesame-sesame-sesame"}
    url = f"{locked.url}/openai/v1/completions"
    assert httpx.post(url, json=ASK, headers=headers, timeout=30).status_code == 200
    with busy_device(locked):
        response = httpx.post(url, json=ASK, headers=headers)
        error = mistake(response, 429)
        assert (error["type"], error["param"], error["code"]) == ("requests", None, "rate_limit_exceeded")
        assert int(response.headers["retry-after"]) >= 1
        with openai.OpenAI(base_url=f"{locked.url}/openai/v1", api_key="sesame-sesame-sesame", max_retries=0) as client:
            with pytest.raises(openai.RateLimitError):
                client.completions.create(**ASK)


def test_large_bodies_and_bugs(locked: Any) -> None:
    headers = {"authorization": "Bearer sesame-sesame-sesame"}
    error = mistake(httpx.post(f"{locked.url}/openai/v1/completions", content=b" " * 2001, headers=headers), 413)
    assert error["type"] == "invalid_request_error" and "at most 2000 bytes" in error["message"]
    response = ask(locked, "/boom", headers=headers)
    error = mistake(response, 500)
    assert error == {"message": "internal server error", "type": "server_error", "param": None, "code": None}
    assert response.headers["x-should-retry"] == "false"


class Inner(Body):
    level: int = Field(ge=1)


class Sample(Body):
    """A body with a field of every kind."""

    name: str = Field(max_length=3)
    share: float | None = None
    flag: bool | None = None
    texts: Texts | None = None
    inner: Inner | None = None
    many: list[Inner] | None = None
    pairs: dict[str, str] | None = None


@pytest.mark.parametrize(
    ("body", "param", "code", "message"),
    [
        ({}, "name", "missing_required_parameter", "Missing required parameter: 'name'."),
        ({"name": None}, "name", "missing_required_parameter", "Missing required parameter: 'name'."),
        ({"name": 5}, "name", "invalid_type", "Invalid type for 'name': expected a string."),
        ({"name": "long"}, "name", "string_above_max_length", "'name' may have at most 3 characters."),
        ({"name": "x", "share": "1"}, "share", "invalid_type", "Invalid type for 'share': expected a number."),
        ({"name": "x", "flag": 1}, "flag", "invalid_type", "Invalid type for 'flag': expected a boolean."),
        ({"name": "x", "texts": ["a", 1]}, "texts", "invalid_type", "expected a string or a list of strings."),
        ({"name": "x", "inner": 1}, "inner", "invalid_type", "Invalid type for 'inner': expected an object."),
        ({"name": "x", "inner": {}}, "inner.level", "missing_required_parameter", "'inner.level'"),
        ({"name": "x", "inner": {"level": True}}, "inner.level", "invalid_type", "expected an integer."),
        ({"name": "x", "inner": {"level": 0}}, "inner.level", "invalid_value", "Invalid value for 'inner.level': "),
        ({"name": "x", "many": {}}, "many", "invalid_type", "expected a list."),
        ({"name": "x", "many": [{"level": 1}, {"level": 1.5}]}, "many[1].level", "invalid_type", "'many[1].level'"),
        ({"name": "x", "pairs": {"a.b": 1}}, "pairs.a.b", "invalid_type", "expected a string."),
    ],
)
def test_mistakes_in_a_body(body: Any, param: str, code: str, message: str) -> None:
    with pytest.raises(RequestError) as error:
        parse(TypeAdapter(Sample), orjson.dumps(body))
    found = error.value
    assert (found.status, found.param, found.code) == (400, param, code) and message in found.message


def test_null_is_absent_and_unknown_fields_are_ignored() -> None:
    optional = ("share", "flag", "texts", "inner", "many", "pairs")
    body = b'{"name": "x", "other": [1], %s}' % b", ".join(b'"%s": null' % name.encode() for name in optional)
    assert parse(TypeAdapter(Sample), body) == Sample(name="x")
    assert parse(TypeAdapter(Sample), b'{"name": "x", "texts": "a"}').texts == ["a"]


def request_of(query: str) -> Request:
    return Request({"type": "http", "query_string": query.encode(), "headers": []})


def test_limits_of_lists() -> None:
    assert cursor(request_of(""), 20, 100) == Cursor(20, None)
    assert cursor(request_of("limit=7&after=file-x"), 20, 100) == Cursor(7, "file-x")
    for large in ("101", "9" * 30):
        assert cursor(request_of(f"limit={large}&after="), 20, 100) == Cursor(100, None)
    for wrong in ("0", "-1", "1.5", "x", "", "٣", "9" * 5000):
        with pytest.raises(RequestError) as error:
            cursor(request_of(f"limit={wrong}"), 20, 100)
        assert (error.value.status, error.value.param, error.value.code) == (400, "limit", "invalid_value")


def test_pages() -> None:
    assert page([], has_more=False) == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
    found = page([{"id": "a"}, {"id": "b"}], has_more=True)
    assert (found["first_id"], found["last_id"], found["has_more"]) == ("a", "b", True)
