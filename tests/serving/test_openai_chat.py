"""POST /openai/v1/chat/completions, by OpenAI's SDK and on the wire, against the real server."""

import asyncio
import math
import re
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.live import JSON, LABELS, TUNED, make_checkpoint, mistake, send
from tests.serving.test_openai_completions import Lend, events, logs_of
from training.text import TextRules

PATH = "/openai/v1/chat/completions"
USER = {"role": "user", "content": "my parcel is late\n\n@@\n\n"}
SYSTEM = {"role": "system", "content": "say what it is about"}


def post(wire: httpx.Client, *messages: Any, **fields: Any) -> Any:
    response = send(wire, PATH, {"model": TUNED, "messages": messages or (USER,), **fields})
    assert response.status_code == 200, response.text
    return response.json()


def refuse(wire: httpx.Client, status: int = 400, **fields: Any) -> dict[str, Any]:
    return mistake(send(wire, PATH, {"model": TUNED, "messages": [USER], **fields}), status)


def shares(wire: httpx.Client, *messages: Any, **fields: Any) -> Any:
    """Label to logarithm of its probability."""
    [entry] = post(wire, *messages, logprobs=True, top_logprobs=1000, **fields)["choices"][0]["logprobs"]["content"]
    return pytest.approx({top["token"]: top["logprob"] for top in entry["top_logprobs"]}, abs=1e-3)


@pytest.fixture(scope="module")
def talker(lend: Lend, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of chat rows whose system messages differed."""
    folder = make_checkpoint(tmp_path_factory.mktemp("chat") / "checkpoint", rules=TextRules(ignore_system=False))
    lend(folder, "talker")
    return "talker"


def test_the_answer_is_that_of_completions(wire: httpx.Client) -> None:
    body = post(wire, logprobs=True, top_logprobs=5)
    assert list(body) == ["id", "object", "created", "model", "system_fingerprint", "choices", "usage"]
    assert re.fullmatch(r"chatcmpl-\w+", body["id"]) and body["object"] == "chat.completion"
    assert (body["model"], body["system_fingerprint"]) == (TUNED, "fp_8dXq1kZb")
    [choice] = body["choices"]
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]["refusal"]) == (0, "stop", None)
    logs = logs_of(wire, USER["content"])
    best = next(iter(logs)).strip()
    assert choice["message"] == {"role": "assistant", "content": best, "refusal": None}
    [entry] = choice["logprobs"]["content"]
    top = entry.pop("top_logprobs")
    assert top[0] == entry and entry["token"] == best
    assert [each["token"] for each in top] == [form.strip() for form in logs]
    assert [each["logprob"] for each in top] == pytest.approx(list(logs.values()), abs=1e-3)
    assert all(bytes(each["bytes"]).decode() == each["token"] for each in top)
    assert math.isclose(sum(math.exp(each["logprob"]) for each in top), 1, abs_tol=1e-3)
    usage = body["usage"]
    assert usage["completion_tokens"] == 1 and usage["total_tokens"] == usage["prompt_tokens"] + 1


def test_sdk(sdk: openai.OpenAI, server: Any, wire: httpx.Client) -> None:
    messages: Any = [SYSTEM, USER]
    best = post(wire)["choices"][0]["message"]["content"]
    answer = sdk.chat.completions.create(model=TUNED, messages=messages, logprobs=True, top_logprobs=2, temperature=0)
    assert answer.choices[0].message.content == best
    assert answer.choices[0].logprobs and answer.choices[0].logprobs.content
    assert next(top.token for top in answer.choices[0].logprobs.content[0].top_logprobs) == best
    raw = sdk.chat.completions.with_raw_response.create(model=TUNED, messages=messages)
    assert raw.parse().choices[0].message.content == best

    async def ask() -> Any:
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/openai/v1", api_key="any", _strict_response_validation=True
        ) as client:
            return await client.chat.completions.create(model=TUNED, messages=messages)

    assert asyncio.run(ask()).choices[0].message.content == best


def test_messages_are_read_as_in_training(wire: httpx.Client, talker: str) -> None:
    alone = shares(wire)
    parts = {"role": "user", "content": [{"type": "text", "text": "my parcel"}, {"type": "text", "text": "is late"}]}
    developer = {"role": "developer", "content": "be brief"}
    for messages in ((SYSTEM, USER), (developer, USER), (SYSTEM, developer, parts)):
        assert shares(wire, *messages) == alone.expected
    talk = (USER, {"role": "assistant", "content": "which one"}, {"role": "user", "content": "the card"})
    text = f"user: {USER['content']}\nassistant: which one\nuser: the card"
    assert shares(wire, *talk) == {form.strip(): value for form, value in logs_of(wire, text).items()}
    expected = logs_of(wire, f"system: {SYSTEM['content']}\nuser: my parcel is late", talker)
    assert shares(wire, SYSTEM, {"role": "user", "content": "my parcel is late ->"}, model=talker) == expected
    assert shares(wire, {"role": "user", "content": ""}).expected.keys() == set(LABELS)


def test_logprobs(wire: httpx.Client) -> None:
    for off in ({}, {"logprobs": False}, {"logprobs": None, "top_logprobs": None}):
        assert post(wire, **off)["choices"][0]["logprobs"] is None
    for fields, count in (({}, 0), ({"top_logprobs": None}, 0), ({"top_logprobs": 0}, 0), ({"top_logprobs": 2}, 2)):
        [entry] = post(wire, logprobs=True, **fields)["choices"][0]["logprobs"]["content"]
        assert len(entry["top_logprobs"]) == count
        assert list(entry) == ["token", "logprob", "bytes", "top_logprobs"]


def test_n_and_what_has_no_effect(wire: httpx.Client) -> None:
    [single] = post(wire)["choices"]
    body = post(wire, n=3)
    assert body["choices"] == [{**single, "index": index} for index in range(3)]
    assert body["usage"]["completion_tokens"] == 3
    idle = {"max_tokens": 1, "max_completion_tokens": 1, "temperature": 0, "top_p": 0, "seed": 1, "stop": ["\n"]}
    more = {"user": "u", "store": True, "metadata": {"a": "b"}, "tools": [{"type": "function"}], "tool_choice": "auto"}
    assert post(wire, **idle, **more, response_format={"type": "text"})["choices"] == [single]
    assert post(wire, **dict.fromkeys((*idle, *more, "response_format", "n", "stream")))["choices"] == [single]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": "x"}, "messages", "invalid_type"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [SYSTEM]}, "messages", "invalid_value"),
        ({"messages": ["x"]}, "messages[0]", "invalid_type"),
        ({"messages": [USER, None]}, "messages[1]", "missing_required_parameter"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [USER, {"role": "bot", "content": "x"}]}, "messages[1].role", "invalid_value"),
        ({"messages": [{"role": 1, "content": "x"}]}, "messages[0].role", "invalid_type"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role", "invalid_type"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content",
            "invalid_value",
        ),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 2, "logprobs": False}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": -1, "logprobs": True}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 1001, "logprobs": True}, "top_logprobs", "invalid_value"),
        ({"logprobs": 5}, "logprobs", "invalid_type"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"n": 129}, "n", "invalid_value"),
        ({"response_format": {"type": "json_object"}}, "response_format", "invalid_value"),
        ({"response_format": {}}, "response_format", "invalid_value"),
        ({"response_format": "text"}, "response_format", "invalid_type"),
        ({"model": "gpt-3.5-turbo-0125"}, "model", "model_not_fine_tuned"),
        ({"model": "tags"}, "model", "model_not_supported"),
        ({"model": "ranker"}, "model", "model_not_supported"),
    ],
)
def test_bad_requests(wire: httpx.Client, fields: dict[str, Any], param: str, code: str) -> None:
    error = refuse(wire, **fields)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert f"'{param}'" in error["message"] or param == "model"


def test_unknown_models(wire: httpx.Client) -> None:
    assert refuse(wire, 404, model="nope")["code"] == "model_not_found"
    assert refuse(wire, 404, model="nope", stream=True)["code"] == "model_not_found"


def test_stream(wire: httpx.Client, sdk: openai.OpenAI, server: Any) -> None:
    whole = post(wire, n=2, logprobs=True, top_logprobs=3)
    ask = {"model": TUNED, "messages": [USER], "n": 2, "logprobs": True, "top_logprobs": 3, "stream": True}
    told = events(send(wire, PATH, ask))
    assert len({(event["id"], event["created"], event["model"]) for event in told}) == 1
    assert [event["object"] for event in told] == ["chat.completion.chunk"] * 2
    for event, choice in zip(told, whole["choices"], strict=True):
        delta = {"role": "assistant", "content": choice["message"]["content"]}
        expected = {"index": choice["index"], "delta": delta, "finish_reason": "stop", "logprobs": choice["logprobs"]}
        assert event["choices"] == [expected] and "usage" not in event
    *told, last = events(send(wire, PATH, {**ask, "stream_options": {"include_usage": True}}))
    assert all(event["usage"] is None for event in told) and len(told) == 2
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    options: Any = {"model": TUNED, "messages": [USER], "stream_options": {"include_usage": True}}
    first, end = list(sdk.chat.completions.create(**options, stream=True))
    best = whole["choices"][0]["message"]["content"]
    assert first.choices[0].delta.content == best and end.usage and end.usage.completion_tokens == 1
    with sdk.chat.completions.stream(**options) as gathered:
        assert gathered.get_final_completion().choices[0].message.content == best

    async def listen() -> list[str | None]:
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/openai/v1", api_key="any", _strict_response_validation=True
        ) as client:
            messages: Any = [USER]
            stream = await client.chat.completions.create(model=TUNED, messages=messages, stream=True)
            return [chunk.choices[0].delta.content async for chunk in stream]

    assert asyncio.run(listen()) == [best]


ROLES = st.sampled_from(("user", "system", "assistant", "tool", "bot"))
MESSAGE = st.fixed_dictionaries({"role": ROLES | JSON, "content": st.text() | JSON})
FIELDS = ("model", "n", "logprobs", "top_logprobs", "temperature", "response_format", "stream", "stream_options")


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(
    body=st.fixed_dictionaries({"messages": st.just([USER])}, optional=dict.fromkeys(FIELDS, JSON))
    | st.fixed_dictionaries({"model": st.just(TUNED), "messages": st.lists(MESSAGE, max_size=3) | JSON})
    | JSON
)
def test_any_json_at_all_is_answered_in_shape(wire: httpx.Client, body: Any) -> None:
    response = send(wire, PATH, body)
    if response.status_code != 200:
        assert response.status_code in (400, 404)
        mistake(response, response.status_code)
