"""POST /openai/v1/completions, by OpenAI's SDK and on the wire, against the real server."""

import asyncio
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from serving.openai.completions import written_forms
from tests.serving.live import JSON, LABELS, TUNED, make_checkpoint, mistake, send
from training.engine import Engine
from training.manifest import Manifest

PATH = "/openai/v1/completions"
Lend = Callable[[Path, str], None]
FORMS = [f" {label}" for label in LABELS]
PROMPTS = ["my parcel is late\n\n@@\n\n", "refund please", "card charged twice ->", "", "x " * 100]


def post(wire: httpx.Client, **fields: Any) -> Any:
    response = send(wire, PATH, {"model": TUNED, "prompt": PROMPTS[0], **fields})
    assert response.status_code == 200, response.text
    return response.json()


def refuse(wire: httpx.Client, status: int = 400, **fields: Any) -> dict[str, Any]:
    return mistake(send(wire, PATH, {"model": TUNED, "prompt": PROMPTS[0], **fields}), status)


def logs_of(wire: httpx.Client, prompt: str, model: str = TUNED) -> dict[str, float]:
    return post(wire, prompt=prompt, model=model, logprobs=1000)["choices"][0]["logprobs"]["top_logprobs"][0]


def events(response: httpx.Response) -> list[Any]:
    """What a stream holds, without its end."""
    assert response.status_code == 200 and response.headers["content-type"] == "text/event-stream"
    *told, end, nothing = response.text.split("\n\n")
    assert (end, nothing) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in told]


@pytest.fixture(scope="module")
def expected(tuned: Path) -> Any:
    """Logarithms of the probabilities of each of `PROMPTS` by the checkpoint itself, and its tokens."""
    engine = Engine.load(tuned, device="cpu")
    items = engine.encode(PROMPTS)
    return log_softmax(engine.score(items).astype(float), axis=1), sum(map(len, items))


def test_the_answer_is_the_checkpoints(wire: httpx.Client, expected: Any) -> None:
    logs, tokens = expected
    body = post(wire, prompt=PROMPTS, logprobs=3)
    assert list(body) == ["id", "object", "created", "model", "system_fingerprint", "choices", "usage"]
    assert re.fullmatch(r"cmpl-\w+", body["id"]) and body["object"] == "text_completion"
    assert (body["model"], body["system_fingerprint"]) == (TUNED, "fp_8dXq1kZb")
    assert isinstance(body["created"], int)
    assert body["usage"] == {"prompt_tokens": tokens, "completion_tokens": 5, "total_tokens": tokens + 5}
    for place, (choice, row) in enumerate(zip(body["choices"], logs.tolist(), strict=True)):
        assert list(choice) == ["text", "index", "finish_reason", "logprobs"]
        answer = FORMS[row.index(max(row))]
        assert (choice["text"], choice["index"], choice["finish_reason"]) == (answer, place, "stop")
        found = choice["logprobs"]
        top = found["top_logprobs"][0]
        assert top == pytest.approx(dict(zip(FORMS, row, strict=True)), abs=1e-3)
        assert list(top.values()) == sorted(top.values(), reverse=True)
        assert found["tokens"] == [answer] and found["token_logprobs"] == [top[answer]]
        assert found["text_offset"] == [len(PROMPTS[place])]
        assert math.isclose(sum(map(math.exp, top.values())), 1, abs_tol=1e-3)
        assert all(value <= 0 for value in top.values())


def test_sdk(sdk: openai.OpenAI, server: Any, wire: httpx.Client) -> None:
    expected = [choice["text"] for choice in post(wire, prompt=PROMPTS)["choices"]]
    answer = sdk.completions.create(
        model=TUNED, prompt=PROMPTS, max_tokens=1, temperature=0, top_p=0.5, logprobs=2, seed=3, stop=["\n"], user="u"
    )
    assert [choice.text for choice in answer.choices] == expected and answer.usage
    assert answer.choices[0].logprobs and answer.choices[0].logprobs.top_logprobs
    assert next(iter(answer.choices[0].logprobs.top_logprobs[0])) == expected[0]
    raw = sdk.completions.with_raw_response.create(model=TUNED, prompt=PROMPTS[0])
    assert raw.parse().choices[0].text == expected[0] and raw.headers["content-type"] == "application/json"

    async def ask() -> Any:
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/openai/v1", api_key="any", _strict_response_validation=True
        ) as client:
            return await client.completions.create(model=TUNED, prompt=PROMPTS)

    assert [choice.text for choice in asyncio.run(ask()).choices] == expected


def test_separators_and_company_make_no_difference(wire: httpx.Client) -> None:
    text, alone = "my parcel is late", logs_of(wire, "my parcel is late")
    others = [f"{text}{end}" for own in ("\n\n@@\n\n", "\n\n###\n\n", " ->") for end in (own, own * 2)]
    others += [f"{text} \n", f"{text}\n\n@@\n\n\n\n###\n\n"]
    assert logs_of(wire, f"{text} not") != pytest.approx(alone, abs=1e-3)
    batch = post(wire, prompt=[*others, "x " * 100, text], logprobs=1000)["choices"]
    del batch[-2]
    for choice, prompt in zip(batch, [*others, text], strict=True):
        assert choice["logprobs"]["top_logprobs"][0] == pytest.approx(alone, abs=1e-3)
        assert logs_of(wire, prompt) == pytest.approx(alone, abs=1e-3)
        assert choice["logprobs"]["text_offset"] == [len(prompt)]


def test_logprobs_are_as_many_as_asked_for_and_always_have_the_answer(wire: httpx.Client) -> None:
    assert post(wire)["choices"][0]["logprobs"] is None
    assert post(wire, logprobs=None)["choices"][0]["logprobs"] is None
    for asked, given_ in ((0, 1), (1, 1), (2, 2), (5, 3), (1000, 3)):
        choice = post(wire, logprobs=asked)["choices"][0]
        top = choice["logprobs"]["top_logprobs"][0]
        assert len(top) == given_ and next(iter(top)) == choice["text"]


def test_logarithms_are_finite_where_probabilities_are_zero(wire: httpx.Client, lend: Lend, tmp_path: Path) -> None:
    for name, temperature in (("surer", 0.02), ("surest", 1e-5)):
        lend(make_checkpoint(tmp_path / name / "x", temperature=temperature), name)
    usual, surer, surest = (logs_of(wire, "my parcel", name) for name in ("desk", "surer", "surest"))
    best = max(usual.values())
    for label, value in usual.items():
        if (value - best) / 0.02 > -100:
            assert surer[label] == pytest.approx((value - best) / 0.02, abs=0.05)
    assert sorted(surest.values()) == pytest.approx([-100, -100, 0])
    assert math.isclose(sum(map(math.exp, surest.values())), 1, abs_tol=1e-3)


def test_n_echo_and_max_tokens(wire: httpx.Client) -> None:
    body = post(wire, prompt=PROMPTS[:2], n=3, logprobs=2)
    single = post(wire, prompt=PROMPTS[:2], logprobs=2)
    assert [choice["index"] for choice in body["choices"]] == list(range(6))
    for place, choice in enumerate(body["choices"]):
        assert {**choice, "index": 0} == {**single["choices"][place // 3], "index": 0}
    assert body["usage"]["prompt_tokens"] == single["usage"]["prompt_tokens"]
    assert body["usage"]["completion_tokens"] == 6
    echoed = post(wire, echo=True, logprobs=1)["choices"][0]
    assert echoed["text"] == PROMPTS[0] + echoed["logprobs"]["tokens"][0]
    assert echoed["logprobs"]["text_offset"] == [len(PROMPTS[0])]
    nothing = post(wire, max_tokens=0, logprobs=1)["choices"][0]
    assert (nothing["text"], nothing["finish_reason"]) == ("", "length")
    assert post(wire, max_tokens=0, echo=True)["choices"][0]["text"] == PROMPTS[0]
    assert post(wire, max_tokens=7)["choices"][0]["finish_reason"] == "stop"


def test_prompts(wire: httpx.Client) -> None:
    assert post(wire, prompt=["x"])["choices"][0]["text"] == post(wire, prompt="x")["choices"][0]["text"]
    assert post(wire, prompt="")["choices"][0]["text"] in FORMS
    assert len(post(wire, prompt=["my", "parcel"] * 1024)["choices"]) == 2048
    assert refuse(wire, prompt=["x"] * 2049)["param"] == "prompt"
    assert post(wire, prompt="parcel " * 100_000)["usage"]["prompt_tokens"] == 32


def test_an_answer_has_an_end(wire: httpx.Client, lend: Lend, tmp_path: Path) -> None:
    labels = tuple(f"label {number}" for number in range(1000))
    lend(make_checkpoint(tmp_path / "x", labels), "many")
    error = refuse(wire, model="many", prompt=["x"] * 2048, n=2, logprobs=1000)
    assert (error["param"], error["code"]) == ("n", "invalid_value") and "at most 1" in error["message"]
    assert "at most 65" in refuse(wire, prompt="x" * 1_000_000, n=66, echo=True)["message"]
    choices = post(wire, model="many", prompt=["x"] * 4, n=100, logprobs=1000)["choices"]
    assert len(choices) == 400 and len(choices[-1]["logprobs"]["top_logprobs"][0]) == 1000


def test_what_has_no_effect(wire: httpx.Client) -> None:
    usual = post(wire, logprobs=3)["choices"]
    idle = {"top_p": 0.1, "seed": 7, "presence_penalty": 2, "frequency_penalty": -2, "logit_bias": {"50256": -100}}
    more = {"best_of": 3, "user": "u", "suffix": "s", "stop": ["\n", " END"], "temperature": 2, "colour": [1]}
    assert post(wire, logprobs=3, **idle, **more)["choices"] == usual
    nothing = dict.fromkeys((*idle, *more, "n", "max_tokens", "echo", "stream", "stream_options"))
    assert post(wire, logprobs=3, **nothing)["choices"] == usual


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"model": 3}, "model", "invalid_type"),
        ({"prompt": [1, 2]}, "prompt", "invalid_type"),
        ({"prompt": [[1, 2], [3]]}, "prompt", "invalid_type"),
        ({"prompt": {"text": "x"}}, "prompt", "invalid_type"),
        ({"prompt": ["x", None]}, "prompt", "invalid_type"),
        ({"prompt": []}, "prompt", "invalid_value"),
        ({"logprobs": -1}, "logprobs", "invalid_value"),
        ({"logprobs": 1001}, "logprobs", "invalid_value"),
        ({"logprobs": True}, "logprobs", "invalid_type"),
        ({"logprobs": "5"}, "logprobs", "invalid_type"),
        ({"max_tokens": -1}, "max_tokens", "invalid_value"),
        ({"max_tokens": "many"}, "max_tokens", "invalid_type"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"seed": "x"}, "seed", "invalid_type"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 129}, "n", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage", "invalid_type"),
        ({"model": "babbage-002"}, "model", "model_not_fine_tuned"),
        ({"model": "gpt-4o-mini-2024-07-18"}, "model", "model_not_fine_tuned"),
        ({"model": "sentence-transformers/all-MiniLM-L6-v2"}, "model", "model_not_fine_tuned"),
        ({"model": "tags"}, "model", "model_not_supported"),
        ({"model": "ranker"}, "model", "model_not_supported"),
    ],
)
def test_bad_requests(wire: httpx.Client, fields: dict[str, Any], param: str, code: str) -> None:
    error = refuse(wire, **fields)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)


def test_unknown_models(wire: httpx.Client, sdk: openai.OpenAI) -> None:
    for name in ("nope", "ft:babbage-002:personal::00000000", "a/b", "", "\x00", "small", "command"):
        error = refuse(wire, 404, model=name)
        assert error["message"] == f"The model `{name}` does not exist or you do not have access to it."
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "model_not_found")
    with pytest.raises(openai.NotFoundError):
        sdk.completions.create(model="nope", prompt="x")
    with pytest.raises(openai.BadRequestError, match="`babbage-002` has no labels; fine-tune it first"):
        sdk.completions.create(model="babbage-002", prompt="x")


def test_models_of_other_origin_answer_with_their_labels(wire: httpx.Client) -> None:
    body = post(wire, model="desk", logprobs=3)
    choice = body["choices"][0]
    assert choice["text"] in LABELS and set(choice["logprobs"]["top_logprobs"][0]) == set(LABELS)
    assert re.fullmatch(r"fp_[0-9a-f]{8}", body["system_fingerprint"])


def test_stream(wire: httpx.Client, sdk: openai.OpenAI, server: Any) -> None:
    whole = post(wire, prompt=PROMPTS, n=2, logprobs=2)
    ask = {"model": TUNED, "prompt": PROMPTS, "n": 2, "logprobs": 2, "stream": True}
    told = events(send(wire, PATH, ask))
    assert [event["choices"] for event in told] == [[choice] for choice in whole["choices"]]
    assert len({(event["id"], event["created"], event["model"], event["object"]) for event in told}) == 1
    assert told[0]["object"] == "text_completion" and all("usage" not in event for event in told)
    *told, last = events(send(wire, PATH, {**ask, "stream_options": {"include_usage": True}}))
    assert all(event["usage"] is None for event in told) and len(told) == 10
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    texts = [choice["text"] for choice in whole["choices"]]
    options: Any = {"model": TUNED, "prompt": PROMPTS, "n": 2, "stream_options": {"include_usage": True}}
    *chunks, end = list(sdk.completions.create(**options, stream=True))
    assert [chunk.choices[0].text for chunk in chunks] == texts
    assert end.usage and end.usage.completion_tokens == 10

    async def listen() -> list[str]:
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/openai/v1", api_key="any", _strict_response_validation=True
        ) as client:
            stream = await client.completions.create(model=TUNED, prompt=PROMPTS, n=2, stream=True)
            return [chunk.choices[0].text async for chunk in stream]

    assert asyncio.run(listen()) == texts
    assert refuse(wire, stream=True, n=0)["param"] == "n"
    assert refuse(wire, 404, stream=True, model="nope")["code"] == "model_not_found"


def test_what_follows_a_label_ends_at_the_clients_stop() -> None:
    def manifest(**surfaces: str) -> Any:
        return Manifest.model_construct(labels=tuple(surfaces), surfaces=surfaces)

    ended = manifest(hockey=" hockey END", a=" a END")
    assert written_forms(ended, ()) == written_forms(ended, ["\n", "", "ock"]) == [" hockey END", " a END"]
    assert written_forms(ended, [" END"]) == written_forms(ended, ["D", " "]) == [" hockey", " a"]
    assert written_forms(manifest(hockey=" hockey\n"), ["\n"]) == [" hockey"]
    assert written_forms(Manifest.model_construct(labels=("x",), surfaces={}), ["x"]) == ["x"]


FIELDS = ("model", "n", "logprobs", "max_tokens", "temperature", "echo", "stop", "stream", "stream_options", "seed")


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(
    body=st.fixed_dictionaries({"prompt": st.just("x")}, optional=dict.fromkeys(FIELDS, JSON))
    | st.fixed_dictionaries({"model": st.just(TUNED), "prompt": JSON})
    | st.fixed_dictionaries(
        {"model": st.sampled_from((TUNED, "desk")), "prompt": st.text() | st.lists(st.text(), max_size=3)},
        optional={"logprobs": st.integers(-1, 5), "n": st.integers(0, 3), "stop": st.text(), "stream": st.booleans()},
    )
    | JSON
)
def test_any_json_at_all_is_answered_in_shape(wire: httpx.Client, body: Any) -> None:
    response = send(wire, PATH, body)
    if response.status_code != 200:
        assert response.status_code in (400, 404)
        mistake(response, response.status_code)


@pytest.mark.parametrize(
    "part",
    [
        b'"prompt": ' + b"[" * 100_000,
        b'"prompt": "x", "other": ' + b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b'"prompt": "x", "temperature": 1e999',
        b'"prompt": "x", "n": 99999999999999999999999999',
        b'"prompt": "x", "seed": -9223372036854775809',
        b'"prompt": "\\u0000"',
        b'"prompt": "\\ud83d"',
        b'"prompt": [' + b"1," * 500_000 + b"1]",
    ],
)
def test_hostile_bodies_are_never_a_5xx(wire: httpx.Client, part: bytes) -> None:
    response = send(wire, PATH, b'{"model": "' + TUNED.encode() + b'", ' + part + b"}")
    if response.status_code != 200:
        mistake(response)
