"""The files API under /openai/v1, by OpenAI's SDK and on the wire."""

import asyncio
import base64
import errno
import io
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.files import Files, Upload
from serving.openai.ids import shown
from serving.settings import Settings
from tests.serving.live import Live, mistake, openai_sdk, run_app

ROW = b'{"prompt": "my parcel", "completion": " shipping"}\n'
FILES = "/openai/v1/files"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def live(place: Path) -> Iterator[Live]:
    """A server that stores files and trains nothing."""
    with run_app(Settings(home=place / "home", cpu_threads=1, embedded_worker=False, max_upload=100_000)) as found:
        yield found


@pytest.fixture
def empty(sdk: openai.OpenAI) -> None:
    for file in sdk.files.list():
        sdk.files.delete(file.id)


def post(wire: httpx.Client, content: bytes = ROW, name: str = "x.jsonl", **fields: str) -> httpx.Response:
    return wire.post(FILES, files={"file": (name, content)}, data={"purpose": "fine-tune", **fields})


def put(sdk: openai.OpenAI, content: bytes = ROW, name: str = "x.jsonl", purpose: Any = "fine-tune") -> Any:
    return sdk.files.create(file=(name, content), purpose=purpose)


def test_a_file_comes_back_as_it_was_sent(sdk: openai.OpenAI, wire: httpx.Client, tmp_path: Path) -> None:
    path, content = tmp_path / "sport2_prepared_train.jsonl", b"\xef\xbb\xbf\r\n" + ROW * 900 + b'{"prompt": "\xff"}'
    path.write_bytes(content)
    with path.open("rb") as opened:
        file = sdk.files.create(file=opened, purpose="fine-tune")
    body = wire.get(f"{FILES}/{file.id}").json()
    assert list(body) == [
        *("id", "object", "bytes", "created_at", "expires_at", "filename", "purpose", "status", "status_details"),
    ]
    assert re.fullmatch(r"file-[A-Za-z0-9]{24}", file.id) and type(body["created_at"]) is int
    assert (file.bytes, file.filename, file.purpose) == (len(content), path.name, "fine-tune")
    assert (file.status, file.expires_at, body["status_details"], body["object"]) == ("processed", None, None, "file")
    assert sdk.files.retrieve(file.id) == sdk.files.wait_for_processing(file.id) == file
    got = sdk.files.content(file.id)
    assert got.read() == content
    assert got.response.headers["content-type"] == "application/octet-stream"
    assert got.response.headers["content-length"] == str(len(content))


def test_the_asynchronous_sdk_does_it_too(live: Live) -> None:
    async def life() -> None:
        options: dict[str, Any] = {"api_key": "any", "max_retries": 0, "_strict_response_validation": True}
        async with openai.AsyncOpenAI(base_url=f"{live.url}/openai/v1", **options) as client:
            raw = await client.files.with_raw_response.create(file=ROW, purpose="fine-tune")
            file = raw.parse()
            assert raw.headers["x-request-id"] == file._request_id and file.filename == "upload"
            assert (await client.files.content(file.id)).read() == ROW
            assert file in [listed async for listed in client.files.list()]
            assert (await client.files.delete(file.id)).to_dict() == {"id": file.id, "object": "file", "deleted": True}

    asyncio.run(life())


def test_a_deleted_file_is_gone(sdk: openai.OpenAI, wire: httpx.Client, live: Live) -> None:
    file = put(sdk)
    assert sdk.files.delete(file.id).deleted
    for answer in (
        *(wire.get(f"{FILES}/{file.id}"), wire.get(f"{FILES}/{file.id}/content"), wire.delete(f"{FILES}/{file.id}")),
    ):
        error = mistake(answer, 404)
        assert (error["param"], error["code"]) == ("id", None)
        assert error["message"] == f"No such File object: {file.id}"
    assert live.app and not [path for path in (live.home / "files").rglob("*") if file.id in str(path)]


@pytest.mark.parametrize("name", ["file-x", "x", "file-" + "0" * 24, "file-" + "é" * 24, "%00", "..%2F..%2Fencore.db"])
def test_unknown_files(wire: httpx.Client, name: str) -> None:
    for answer in (wire.get(f"{FILES}/{name}"), wire.delete(f"{FILES}/{name}")):
        assert mistake(answer, 404)["type"] == "invalid_request_error"


def test_wrong_methods_and_paths(wire: httpx.Client) -> None:
    assert mistake(wire.put(FILES), 405)["code"] == "method_not_supported"
    assert mistake(wire.get(f"{FILES}/"), 404)["code"] == "unknown_url"


@pytest.mark.parametrize(
    "name",
    [
        *("../../../etc/passwd", "..", "a\\b", "a b.jsonl", 'qu"ote', "файл-日本語.jsonl", "x" * 1000),
        "a%0d%0aset-cookie: x=1",
    ],
)
def test_names_are_kept_and_are_no_paths(sdk: openai.OpenAI, place: Path, name: str) -> None:
    before = {path for path in place.rglob("*") if "home/files" not in str(path)}
    file = put(sdk, name=name)
    assert file.filename == name.replace('"', "%22")  # as HTTP clients send it
    got = sdk.files.content(file.id)
    assert got.read() == ROW and "set-cookie" not in got.response.headers
    after = {path for path in place.rglob("*") if "home/files" not in str(path)}
    assert after <= before | {path for path in after if path.name.startswith("encore.db")}


def raw_form(disposition: bytes, content: bytes = ROW) -> dict[str, Any]:
    parts = [
        b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data',
        b"--x\r\ncontent-disposition: form-data; " + disposition + b"\r\n\r\n" + content,
        b"--x--\r\n",
    ]
    return {"content": b"\r\n".join(parts), "headers": {"content-type": "multipart/form-data; boundary=x"}}


@pytest.mark.parametrize(
    ("disposition", "status"),
    [
        (b'name="file"; filename="a\0b"', 400),
        (b'name="file"; filename="' + b"x" * 1001 + b'"', 400),
        (b'name="file"; filename="\xff\xfe"', 200),
        (b'name="file"; filename=""', 200),
        (b'name="file"', 400),
        (b'filename="x"', 400),
        (b"", 400),
        (b'name="file"; filename="a\tb"', 200),
    ],
)
def test_odd_dispositions(wire: httpx.Client, disposition: bytes, status: int) -> None:
    answer = wire.post(FILES, **raw_form(disposition))
    assert answer.status_code == status or mistake(answer, status), answer.text
    if status == 400:
        mistake(answer)


def lasting(seconds: str, anchor: str = "created_at") -> dict[str, str]:
    return {"expires_after[anchor]": anchor, "expires_after[seconds]": seconds}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"purpose": "fine-tune-results"}, "purpose", "invalid_value"),
        ({"purpose": ""}, "purpose", "invalid_value"),
        (lasting("3600", "now"), "expires_after.anchor", "invalid_value"),
        (lasting("3599"), "expires_after.seconds", "invalid_value"),
        (lasting("2592001"), "expires_after.seconds", "invalid_value"),
        (lasting("-1"), "expires_after.seconds", "invalid_value"),
        (lasting("1e4"), "expires_after.seconds", "invalid_type"),
        ({"expires_after[anchor]": "created_at"}, "expires_after.seconds", "missing_required_parameter"),
        ({"expires_after[seconds]": "3600"}, "expires_after.anchor", "missing_required_parameter"),
    ],
)
def test_fields_that_are_refused(wire: httpx.Client, fields: dict[str, str], param: str, code: str) -> None:
    error = mistake(post(wire, **fields))
    assert (error["param"], error["code"]) == (param, code)


def test_what_is_missing(wire: httpx.Client) -> None:
    answers = {
        "file": wire.post(FILES, data={"purpose": "fine-tune"}),
        "purpose": wire.post(FILES, files={"file": ROW}),
    }
    for param, answer in answers.items():
        error = mistake(answer)
        assert (error["param"], error["code"]) == (param, "missing_required_parameter")
        assert error["message"] == f"Missing required parameter: '{param}'."
    for kind in ("application/json", "multipart/form-data", "multipart/form-data; boundary=x", ""):
        assert "40" not in mistake(wire.post(FILES, content=b"{}", headers={"content-type": kind}))["message"]


@pytest.mark.parametrize("purpose", ["assistants", "batch", "vision", "user_data"])
def test_other_purposes_take_anything(sdk: openai.OpenAI, purpose: str) -> None:
    for content in (b"", b"PK\x03\x04\0\0", b"not json"):
        file = put(sdk, content, purpose=purpose)
        assert (file.purpose, file.bytes, sdk.files.content(file.id).read()) == (purpose, len(content), content)


@pytest.mark.parametrize(
    ("content", "line", "beginning"),
    [
        (b"text,label\nhello,a\n", 1, "text,label"),
        (b"\xef\xbb\xbf\r\n\n  [1]\n" + ROW, 3, "[1]"),
        (b'[{"prompt": "a"}]', 1, '[{"prompt"'),
        (b"{\n", 1, "{"),
        (b'"text"\n', 1, '"text"'),
        (b"PK\x03\x04\x14\x00", 1, "PK"),
        (b"\0\0\0\0", 1, "\0"),
        ('{"prompt": "a"}\n'.encode("utf-16"), 1, "\ufffd\ufffd{"),
        (b"x" * 90_000, 1, "x" * 20),
    ],
)
def test_what_is_no_jsonl_is_told_of_at_once(sdk: openai.OpenAI, content: bytes, line: int, beginning: str) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        put(sdk, content)
    message = str(error.value.body["message"])  # pyright: ignore[reportIndexIssue]
    assert error.value.param == "file" and "python -m training.review" in message
    assert message.startswith("Expected file to have JSONL format, where every line is a JSON dictionary.")
    assert f'Line {line} is not a dictionary (HINT: line starts with: "{beginning}' in message


@pytest.mark.parametrize("content", [b"", b"\n\n \r\n", b"\xef\xbb\xbf"])
def test_an_empty_file_cannot_be_trained_on(sdk: openai.OpenAI, content: bytes) -> None:
    with pytest.raises(openai.BadRequestError, match="file is empty") as error:
        put(sdk, content)
    assert error.value.param == "file"


@pytest.mark.parametrize(
    "content",
    [
        ROW.rstrip(),
        b"\xef\xbb\xbf" + ROW.replace(b"\n", b"\r\n"),
        b"\n\r\n \t\n" + ROW,
        b'{"prompt": "caf\xe9"}',
        b'{"a": ' + b"[" * 50_000,
        b'{"prompt": NaN}\nwhatever',
        b"{}",
    ],
)
def test_the_rest_is_left_to_the_job(sdk: openai.OpenAI, content: bytes) -> None:
    assert put(sdk, content).status == "processed"


def test_expiry(sdk: openai.OpenAI, live: Live, wire: httpx.Client, empty: None) -> None:
    file = sdk.files.create(file=ROW, purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600})
    assert file.expires_at == file.created_at + 3600
    assert live.app
    files: Files = live.app.state.files
    gone = files.add([Upload("x", io.BytesIO(ROW))], name="x", purpose="fine-tune", lifetime=-5)
    mistake(wire.get(f"{FILES}/{shown('file-', gone.id)}"), 404)
    assert [listed.id for listed in sdk.files.list()] == [file.id]


def test_a_file_that_is_too_large(wire: httpx.Client, sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as error:
        put(sdk, ROW * 9000)
    assert (error.value.status_code, error.value.param, error.value.code) == (413, "file", "file_too_large")
    form = raw_form(b'name="file"; filename="x"', b"y" * 500_000)
    chunks = (form["content"][i : i + 50_000] for i in range(0, 500_000, 50_000))
    assert mistake(wire.post(FILES, content=chunks, headers=form["headers"]), 413)["code"] == "file_too_large"
    assert put(sdk, ROW * 1900).bytes == len(ROW) * 1900


def test_a_long_name_or_field_is_no_failure(wire: httpx.Client) -> None:
    assert post(wire, name="x" * 30_000).status_code == 400
    assert post(wire, purpose="y" * 50_000).status_code == 400
    assert post(wire, **{f"field{i}": "" for i in range(500)}).status_code == 200


class TestLists:
    @pytest.fixture
    def made(self, sdk: openai.OpenAI, empty: None) -> list[str]:
        """Seven files, the oldest first."""
        return [put(sdk, name=f"{i}.jsonl", purpose="batch" if i % 3 == 2 else "fine-tune").id for i in range(7)]

    def test_order_and_pages(self, sdk: openai.OpenAI, wire: httpx.Client, made: list[str]) -> None:
        body = wire.get(FILES).json()
        assert list(body) == ["object", "data", "first_id", "last_id", "has_more"]
        assert [file["id"] for file in body["data"]] == made[::-1]
        assert (body["object"], body["first_id"], body["last_id"], body["has_more"]) == (
            "list",
            made[6],
            made[0],
            False,
        )
        page = sdk.files.list(limit=3)
        assert [file.id for file in page.data] == made[:3:-1] and page.has_more is True
        assert [file.id for file in page] == made[::-1]
        assert [file.id for file in sdk.files.list(limit=2, order="asc")] == made
        assert [file.id for file in sdk.files.list(limit=2, purpose="batch")] == [made[5], made[2]]
        assert wire.get(FILES, params={"limit": 99_999}).json()["has_more"] is False

    def test_a_page_after_the_last(self, wire: httpx.Client, made: list[str]) -> None:
        body = wire.get(FILES, params={"after": made[0]}).json()
        assert body == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}

    def test_deleting_while_iterating(self, sdk: openai.OpenAI, made: list[str]) -> None:
        seen = list[str]()
        for file in sdk.files.list(limit=2):
            seen.append(file.id)
            sdk.files.delete(file.id)
        assert seen == made[::-1]

    @pytest.mark.parametrize(
        ("query", "param"),
        [
            *(({"limit": limit}, "limit") for limit in ("0", "-1", "x", "1.5", "", " 3")),
            *(({"after": after}, "after") for after in ("x", "file-x", "ftjob-" + "0" * 24, shown("file-", "0" * 32))),
            *[({"order": "up"}, "order"), ({"purpose": "dance"}, "purpose"), ({"purpose": "\0"}, "purpose")],
        ],
    )
    def test_what_cannot_be_asked(self, wire: httpx.Client, query: dict[str, str], param: str) -> None:
        error = mistake(wire.get(FILES, params=query))
        assert (error["param"], error["code"]) == (param, "invalid_value")


class TestOtherFiles:
    def test_results_are_a_table(self, live: Live, sdk: openai.OpenAI, start: Callable[..., Any]) -> None:
        table = b"step,train_loss\n1,0.5\n"
        assert live.app
        uploads = [Upload("step_metrics.csv", io.BytesIO(table))]
        file = live.app.state.files.add(uploads, name="step_metrics.csv", purpose="fine-tune-results")
        public = shown("file-", file.id)
        assert (sdk.files.retrieve(public).purpose, sdk.files.retrieve(public).bytes) == (
            "fine-tune-results",
            len(table),
        )
        got = sdk.files.content(public)
        assert (got.text, got.response.headers["content-type"]) == (table.decode(), "text/csv")
        assert public in [listed.id for listed in sdk.files.list(purpose="fine-tune-results")]
        with start(home=live.home, result_encoding="base64") as other, openai_sdk(other.url) as client:
            assert base64.b64decode(client.files.content(public).read()) == table
            training = put(client)
            assert client.files.content(training.id).read() == ROW

    def test_datasets_of_the_other_dialect_are_listed(self, live: Live, sdk: openai.OpenAI) -> None:
        assert live.app
        uploads = [Upload("train.csv", io.BytesIO(b"a,b\n")), Upload("eval.csv", io.BytesIO(b"c,d,e\n"))]
        kind = "single-label-classification-finetune-input"
        file = live.app.state.files.add(uploads, name="mine", purpose="fine-tune", dataset_type=kind)
        found = sdk.files.retrieve(shown("file-", file.id))
        assert (found.filename, found.bytes, found.status) == ("train.csv", 4, "uploaded")
        assert sdk.files.content(found.id).read() == b"a,b\n"
        assert sdk.files.delete(found.id).deleted


class TestTheDisk:
    def test_a_full_one_is_told_of(self, wire: httpx.Client, monkeypatch: pytest.MonkeyPatch, live: Live) -> None:
        def full(_handle: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        before = sorted((live.home / "files").iterdir())
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            answer = post(wire)
        error = mistake(answer, 507)
        assert "disk is full" in error["message"] and answer.headers["x-should-retry"] == "false"
        assert sorted((live.home / "files").iterdir()) == before and not list((live.home / "uploads").iterdir())

    def test_a_slow_one_is_waited_for(self, start: Callable[..., Any], tmp_path: Path, monkeypatch: Any) -> None:
        sync = os.fsync

        def slow(handle: int) -> None:
            time.sleep(2.5)
            sync(handle)

        with start(home=tmp_path / "home", request_timeout=1.5) as live, httpx.Client(base_url=live.url) as wire:
            monkeypatch.setattr(os, "fsync", slow)
            assert post(wire).status_code == 200


TEXTS = st.text(max_size=30)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.binary(max_size=300),
    st.dictionaries(TEXTS | st.sampled_from(["purpose", *lasting("")]), TEXTS, max_size=4),
    TEXTS,
)
def test_no_form_is_a_failure(wire: httpx.Client, content: bytes, fields: dict[str, str], name: str) -> None:
    data = {"purpose": "fine-tune"} | fields
    answer = wire.post(FILES, files={"file": (name, content)}, data=data)
    assert answer.status_code == 200 or mistake(answer)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.binary(max_size=300).map(lambda body: body.replace(b"|", b"\r\n--x")),
    st.sampled_from(["multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "multipart/form-data"]),
)
def test_no_body_is_a_failure(wire: httpx.Client, body: bytes, kind: str) -> None:
    mistake(wire.post(FILES, content=b"--x" + body, headers={"content-type": kind}))
