"""POST /v1/classify as the Cohere API reference describes it, by the SDK and on the wire, against the real server."""

import asyncio
import math
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cohere
import httpx
import pytest
from cohere import ClassifyExample
from cohere.errors import BadRequestError, NotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.live import JSON, refused, send

EXAMPLES = [
    {"text": "Win a cash prize now", "label": "spam"},
    {"text": "You are the lucky lottery winner", "label": "spam"},
    {"text": "Lunch at noon?", "label": "ham"},
    {"text": "See you at the meeting tomorrow", "label": "ham"},
]
TEXTS = ["my invoice is paid", "parcel is late", "refund " * 12, "x", "ünïcödé 🎉 text", "my parcel", "a b c d e f g"]


def post(wire: httpx.Client, body: Any, path: str = "/v1/classify") -> httpx.Response:
    return send(wire, path, body)


def test_sdk_single_label(client: cohere.Client) -> None:
    inputs = ["my invoice is paid", "parcel is late", "my invoice is paid"]
    answer = client.classify(model="desk", inputs=inputs)
    assert [item.input for item in answer.classifications] == inputs
    assert uuid.UUID(answer.id) and answer.meta and answer.meta.billed_units and answer.meta.api_version
    assert answer.meta.billed_units.classifications == 3 and answer.meta.api_version.version == "1"
    for item in answer.classifications:
        assert uuid.UUID(item.id)
        assert item.classification_type == "single-label"
        shares = {label: value.confidence or 0.0 for label, value in item.labels.items()}
        assert list(shares) == ["billing", "shipping", "returns"]
        assert math.isclose(sum(shares.values()), 1, abs_tol=1e-5)
        assert item.predictions == [item.prediction] == [max(shares, key=lambda label: shares[label])]
        assert item.confidences == [item.confidence] == [max(shares.values())]
    first, _, third = answer.classifications
    assert first.confidence == pytest.approx(third.confidence) and first.id != third.id


def test_sdk_multi_label(client: cohere.Client) -> None:
    for item in client.classify(model="tags", inputs=TEXTS).classifications:
        assert item.classification_type == "multi-label"
        assert item.prediction is None and item.confidence is None
        shares = {label: value.confidence or 0.0 for label, value in item.labels.items()}
        reached = {"billing"} | {label for label in ("shipping",) if shares[label] >= 0.5}
        assert set(item.predictions) == reached
        assert item.confidences == [shares[label] for label in item.predictions]
        assert item.confidences == sorted(item.confidences, reverse=True)


def test_multi_label_leaves_out_the_deprecated_fields(wire: httpx.Client) -> None:
    item = post(wire, {"model": "tags", "inputs": ["x"]}).json()["classifications"][0]
    assert list(item) == ["id", "input", "classification_type", "predictions", "confidences", "labels"]


def test_the_answer_has_the_documented_keys_in_order(wire: httpx.Client) -> None:
    body = post(wire, {"model": "desk", "inputs": ["my parcel"]}).json()
    assert list(body) == ["id", "classifications", "meta"]
    assert body["meta"] == {"api_version": {"version": "1"}, "billed_units": {"classifications": 1}}
    first = ["id", "input", "classification_type", "prediction", "predictions", "confidence", "confidences", "labels"]
    assert list(body["classifications"][0]) == first


def test_other_clients(server: Any) -> None:
    with cohere.ClientV2("any", base_url=server.url) as client:
        new = client.classify(model="desk", inputs=TEXTS[:2])

    async def ask() -> Any:
        async with cohere.AsyncClient("any", base_url=server.url) as client:
            return await client.classify(model="desk", inputs=TEXTS[:2])

    later = asyncio.run(ask())
    assert [item.prediction for item in new.classifications] == [item.prediction for item in later.classifications]


@pytest.mark.parametrize("path", ["/v1/classify", "/v1/v1/classify", "/classify"])
def test_paths_of_older_base_urls(wire: httpx.Client, path: str) -> None:
    assert post(wire, {"model": "desk", "inputs": ["x"]}, path).status_code == 200


def test_examples_classify_without_a_fine_tuned_model(client: cohere.Client) -> None:
    examples = [ClassifyExample(**example) for example in EXAMPLES]
    inputs = ["Claim your free prize money", "Can we move the meeting?"]
    answers = [client.classify(inputs=inputs, examples=examples, model=model) for model in ("large", "desk")]
    answers.append(client.classify(inputs=inputs, examples=examples))
    for answer in answers:
        assert [item.prediction for item in answer.classifications] == ["spam", "ham"]
        assert [set(item.labels) for item in answer.classifications] == [{"spam", "ham"}] * 2


def test_equal_examples_are_fitted_once(wire: httpx.Client) -> None:
    def fits() -> float:
        lines = wire.get("/metrics").text.splitlines()
        return next((float(x.split()[1]) for x in lines if x.startswith("encore_example_fits_total ")), 0.0)

    before = fits()
    examples = [*EXAMPLES, {"text": "only here", "label": "ham"}]
    for order in (examples, examples[::-1]):
        assert post(wire, {"inputs": ["x"], "examples": order}).status_code == 200
    assert fits() == before + 1


def test_null_is_absent_and_unknown_fields_are_ignored(wire: httpx.Client) -> None:
    nothing = {"examples": None, "truncate": None, "preset": None, "colour": {"a": [1]}}
    assert post(wire, {"model": "desk", "inputs": ["x"], **nothing}).status_code == 200
    assert post(wire, {"model": "desk", "inputs": ["x"], "examples": []}).status_code == 200
    assert post(wire, {"model": None, "inputs": ["x"], "examples": EXAMPLES}).status_code == 200


def test_preset_is_ignored_with_a_warning(wire: httpx.Client) -> None:
    response = post(wire, {"model": "desk", "inputs": ["x"], "preset": "mine"})
    assert response.json()["meta"]["warnings"] == [response.headers["x-api-warning"]]
    assert "received 0" in refused(post(wire, {"preset": "mine"}))


def test_truncate(client: cohere.Client) -> None:
    long = "invoice " * 20 + "parcel " * 40

    def share(text: str, **options: Any) -> float:
        item = client.classify(model="desk", inputs=[text], **options).classifications[0]
        return item.labels["billing"].confidence or 0.0

    # 32 tokens, two of them special
    assert (
        share(long) == share(long, truncate="END") == pytest.approx(share("invoice " * 20 + "parcel " * 10), abs=1e-5)
    )
    assert share(long, truncate="START") == pytest.approx(share("parcel " * 30), abs=1e-5)
    with pytest.raises(BadRequestError) as error:
        client.classify(model="desk", inputs=["short", long], truncate="NONE")
    assert "text 1 has 62 tokens" in error.value.body["message"]
    assert client.classify(model="desk", inputs=["short"], truncate="NONE").classifications


def test_answers_do_not_depend_on_company(server: Any, client: cohere.Client) -> None:
    texts = [f"{text} {'my parcel ' * (i % 9)}" for i, text in enumerate(TEXTS * 8)]

    def shares(batch: list[str]) -> list[list[float]]:
        items = client.classify(model="desk", inputs=batch).classifications
        return [[value.confidence or 0.0 for value in item.labels.values()] for item in items]

    alone = [shares([text])[0] for text in texts]
    together = shares(texts)
    with ThreadPoolExecutor(8) as threads:
        crowded = list(threads.map(lambda text: shares([text])[0], texts))
    assert together == [pytest.approx(row, abs=1e-3) for row in alone]
    assert crowded == [pytest.approx(row, abs=1e-3) for row in alone]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inputs": []}, "total number of texts must be at least 1 - received 0"),
        ({"model": "desk"}, "total number of texts must be at least 1 - received 0"),
        ({"inputs": ["x"] * 104}, "total number of texts must be at most 96 - received 104"),
        ({"inputs": ["x", ""]}, "inputs contains an element that is the empty string at index 1"),
        ({"inputs": ["x"]}, "min classes for classify request is 2 - received 0"),
        ({"inputs": ["x"], "examples": None, "model": "english"}, "min classes for classify request is 2 - received 0"),
        ({"inputs": ["x"], "examples": EXAMPLES[:2]}, "min classes for classify request is 2 - received 1"),
        (
            {"inputs": ["x"], "examples": [*EXAMPLES, {"text": "q", "label": "b"}, {"text": "r", "label": "a"}]},
            "each unique label must have at least 2 examples. Not enough examples for: a, b",
        ),
        (
            {"inputs": ["x"], "examples": EXAMPLES * 626},
            "total number of examples must be at most 2500 - received 2504",
        ),
        ({"inputs": ["x"], "examples": [*EXAMPLES, {"text": "q"}]}, "element without a label at index 4"),
        ({"inputs": ["x"], "examples": [{"text": None, "label": "q"}]}, "element without a text at index 0"),
        ({"inputs": ["x"], "model": "rerank-v3.5"}, "model 'rerank-v3.5' is a rerank model"),
        ({"inputs": ["x", 1]}, "inputs.1: input should be a valid string"),
        ({"inputs": "x"}, "inputs: input should be a valid list"),
        ({"inputs": ["x"], "truncate": "MIDDLE"}, "truncate: input should be 'NONE', 'START' or 'END'"),
        ({"inputs": ["x"], "model": 3}, "model: input should be a valid string"),
        (["x"], "body: "),
        (None, "body: "),
        (b"[" * 100_000, "invalid json syntax"),
        (b'{"inputs": [NaN]}', "invalid json syntax"),
        (b'{"inputs": ["x"], "model": "desk", "other": Infinity}', "invalid json syntax"),
        (b'{"inputs": ["\\ud800"], "model": "desk"}', "invalid json syntax"),
        (b'{"inputs": ["\xff"], "model": "desk"}', "invalid json syntax"),
        (b'{"inputs": ["x"], "model": "desk"', "invalid json syntax"),
        (b"", "invalid json syntax"),
        (b'{"inputs": [' + b"1," * 500_000 + b"1]}", "inputs.0: input should be a valid string"),
    ],
)
def test_bad_requests_are_400_and_say_why(wire: httpx.Client, body: Any, message: str) -> None:
    assert message in refused(post(wire, body))


FIELDS = dict.fromkeys(("inputs", "examples", "model", "truncate", "preset"), JSON)


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(body=st.fixed_dictionaries({}, optional=FIELDS) | JSON)
def test_any_json_at_all_is_answered_in_shape(wire: httpx.Client, body: Any) -> None:
    refused(response := post(wire, body), response.status_code)
    assert response.status_code in (400, 404)


def test_unknown_model(client: cohere.Client, wire: httpx.Client) -> None:
    for name in ("nope", str(uuid.uuid4()), f"{uuid.uuid4()}-ft", "../desk", "a/b", "\x00"):
        message = refused(post(wire, {"inputs": ["x"], "model": name}), 404)
        assert message.startswith(f"model '{name}' not found, make sure the correct model ID was used")
    with pytest.raises(NotFoundError):
        client.classify(model="nope", inputs=["x"])


def test_odd_but_good_texts_are_echoed_byte_for_byte(client: cohere.Client) -> None:
    texts = [" ", "\x00", "\u2028\u200b", "\U0001f469\u200d\U0001f4bb", "\ufeff x\r\n", "‮gnirts", "a" * 5_000_000]
    answer = client.classify(model="desk", inputs=texts)
    assert [item.input for item in answer.classifications] == texts
