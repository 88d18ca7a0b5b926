"""The routes of TEI, vLLM, Jina, Infinity and Voyage, on the wire."""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.live import JSON, LABELS, rank_scores, refused, send

QUERY = "where is my parcel"
TEXTS = ["my parcel is late", "refund please", "card charged twice", "x"]
PAIR = {"model": "ranker", "query": QUERY}
ERROR = ("id", "message", "error", "detail", "error_type")


@pytest.fixture(scope="module")
def expected(wire: httpx.Client) -> list[float]:
    """What /v1/rerank gives each of `TEXTS`."""
    return rank_scores(wire, QUERY, TEXTS)


def post(wire: httpx.Client, path: str, **fields: Any) -> Any:
    response = send(wire, path, {**PAIR, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def best_first(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def about(value: Any) -> Any:
    return pytest.approx(value, abs=1e-3)


def test_tei_rerank(wire: httpx.Client, expected: list[float]) -> None:
    usual = {"raw_scores": False, "return_text": False, "truncate": False, "truncation_direction": "Right"}
    for fields in ({}, usual, dict.fromkeys(usual)):
        found = post(wire, "/rerank", texts=TEXTS, **fields)
        assert [each["index"] for each in found] == best_first(expected)
        assert [list(each) for each in found] == [["index", "score"]] * len(TEXTS)
        assert [each["score"] for each in found] == about(sorted(expected, reverse=True))
    for each in post(wire, "/rerank", texts=TEXTS, raw_scores=True, return_text=True):
        assert 1 / (1 + math.exp(-each["score"])) == about(expected[each["index"]])
        assert each["text"] == TEXTS[each["index"]]
    assert len(post(wire, "/rerank", texts=TEXTS, top_n=2, return_documents=True)) == 2  # as some clients send


def test_vllm_jina_and_infinity_rerank(wire: httpx.Client, expected: list[float]) -> None:
    body = post(wire, "/rerank", documents=TEXTS, truncate_prompt_tokens=10, instruction=None)
    assert list(body) == ["id", "results", "meta", "model", "usage"] and body["model"] == "ranker"
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] > len(TEXTS) * len(QUERY.split())
    assert [each["index"] for each in body["results"]] == best_first(expected)
    for each in body["results"]:
        assert each["relevance_score"] == about(expected[each["index"]])
        assert each["document"] == {"text": TEXTS[each["index"]]}
    assert all(
        "document" not in each for each in post(wire, "/rerank", documents=TEXTS, return_documents=False)["results"]
    )
    assert [len(post(wire, "/rerank", documents=TEXTS, top_n=top)["results"]) for top in (0, 1, 9, None)] == [
        4,
        1,
        4,
        4,
    ]
    objects = [{"text": text, "page": 1} for text in TEXTS]
    assert {each["document"]["page"] for each in post(wire, "/rerank", documents=objects)["results"]} == {1}


def test_cohere_bodies_at_rerank(wire: httpx.Client, expected: list[float]) -> None:
    documents = [{"title": text, "page": index} for index, text in enumerate(TEXTS)]
    body = post(wire, "/rerank", documents=documents, rank_fields=["title"], return_documents=True, top_n=1)
    [best] = body["results"]
    assert best["document"] == documents[best_first(expected)[0]]
    assert body["meta"] == {"api_version": {"version": "1"}, "billed_units": {"search_units": 1}}


def test_voyage_rerank(wire: httpx.Client, expected: list[float]) -> None:
    for fields in ({"top_k": None, "truncation": True}, {"top_k": 9}, {"truncation": False}):
        body = post(wire, "/rerank", documents=TEXTS, **fields)
        assert body["object"] == "list" and body["model"] == "ranker" and body["usage"]["total_tokens"] > 0
        assert [each["index"] for each in body["data"]] == best_first(expected)
        assert [list(each) for each in body["data"]] == [["index", "relevance_score"]] * len(TEXTS)
    [best] = post(wire, "/rerank", documents=TEXTS, top_k=1, return_documents=True)["data"]
    assert best["document"] == TEXTS[best["index"]] and best["relevance_score"] == about(max(expected))


@pytest.mark.parametrize(
    "names", [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]
)
@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_score(wire: httpx.Client, expected: list[float], path: str, names: tuple[str, str]) -> None:
    first, second = names
    for left, right in (
        (QUERY, TEXTS),
        ([QUERY], TEXTS),
        ([QUERY] * 4, TEXTS),
        (QUERY, TEXTS[0]),
        ([QUERY], [TEXTS[0]]),
    ):
        body = send(wire, path, {"model": "ranker", first: left, second: right}).json()
        assert list(body) == ["id", "object", "created", "model", "data", "usage"]
        assert body["object"] == "list" and body["model"] == "ranker" and body["usage"]["total_tokens"] > 0
        count = 1 if isinstance(right, str) else len(right)
        assert [(each["index"], each["object"]) for each in body["data"]] == [(i, "score") for i in range(count)]
        assert [each["score"] for each in body["data"]] == about(expected[:count])


def test_score_of_different_queries(wire: httpx.Client) -> None:
    left, right = [*TEXTS, *TEXTS], [*reversed(TEXTS), *TEXTS]
    found = send(wire, "/score", {"model": "ranker", "text_1": left, "text_2": right}).json()["data"]
    for query, text, each in zip(left, right, found, strict=True):
        assert [each["score"]] == about(rank_scores(wire, query, [text]))


def test_predict(wire: httpx.Client, expected: list[float]) -> None:
    one = post(wire, "/predict", model="desk", inputs="my parcel", truncate=True)
    assert sorted(each["label"] for each in one) == sorted(LABELS)
    shares = [each["score"] for each in one]
    assert shares == sorted(shares, reverse=True) and sum(shares) == about(1)
    assert post(wire, "/predict", model="desk", inputs=["my parcel"]) == one
    raw = post(wire, "/predict", model="desk", inputs="my parcel", raw_scores=True)
    odds = [math.exp(each["score"]) for each in raw]
    assert [value / sum(odds) for value in odds] == about(shares)
    many = post(wire, "/predict", model="desk", inputs=[["my parcel"], ["refund"], ["my parcel"]])
    assert [len(each) for each in many] == [3, 3, 3] and [each["score"] for each in many[0]] == about(shares)
    tags = post(wire, "/predict", model="tags", inputs=[["my parcel"]])[0]
    for each in post(wire, "/predict", model="tags", inputs=[["my parcel"]], raw_scores=True)[0]:
        assert 1 / (1 + math.exp(-each["score"])) == about({e["label"]: e["score"] for e in tags}[each["label"]])
    [pair] = post(wire, "/predict", inputs=[QUERY, TEXTS[0]])
    assert pair == {"score": about(expected[0]), "label": "relevant"}
    pairs = post(wire, "/predict", inputs=[[QUERY, text] for text in TEXTS], raw_scores=True)
    assert [1 / (1 + math.exp(-each["score"])) for [each] in pairs] == about(expected)


def test_vllm_classify(wire: httpx.Client) -> None:
    for texts in ("my parcel", ["my parcel"], ["my parcel", "refund", "my parcel"]):
        body = send(wire, "/classify", {"model": "desk", "input": texts}).json()
        assert list(body) == ["id", "object", "created", "model", "data", "usage"] and body["model"] == "desk"
        assert [each["index"] for each in body["data"]] == list(range(1 if isinstance(texts, str) else len(texts)))
        for each in body["data"]:
            assert sum(each["probs"]) == about(1) and each["num_classes"] == len(each["probs"]) == 3
            assert each["label"] == LABELS[each["probs"].index(max(each["probs"]))]
    assert body["data"][0]["probs"] == about(body["data"][2]["probs"])


def test_cohere_bodies_at_classify(wire: httpx.Client) -> None:
    for inputs in (["my parcel"], ["input"], ['the "input" field']):
        body = send(wire, "/classify", {"model": "desk", "inputs": inputs}).json()
        assert [item["input"] for item in body["classifications"]] == inputs


WAY_OUT = "name a fine-tuned model, or set ENCORE_DEFAULT_CLASSIFIER"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/rerank", {"query": QUERY, "texts": []}, "list of documents must not be empty"),
        ("/rerank", {"query": QUERY}, "list of documents must not be empty"),
        ("/rerank", {"query": QUERY, "texts": ["x", ""]}, "document at index 1 cannot be empty"),
        ("/rerank", {"query": " ", "texts": ["x"]}, "query must not be empty"),
        ("/rerank", {"texts": ["x"]}, "query must not be empty"),
        ("/rerank", {"query": QUERY, "texts": ["x"] * 10_001}, "number of documents must be at most 10000"),
        ("/rerank", {"query": QUERY, "texts": [{"text": "x"}]}, "texts.0: input should be a valid string"),
        ("/rerank", {"query": QUERY, "texts": "x"}, "texts: input should be a valid list"),
        ("/rerank", {"query": QUERY, "documents": ["x"], "top_n": -1}, "top_n: "),
        ("/rerank", {"query": QUERY, "documents": ["x"], "top_k": "x"}, "top_k: "),
        ("/rerank", {"model": "desk", "query": QUERY, "texts": ["x"]}, "is a classify model; it cannot rerank"),
        ("/rerank", b"{", "invalid json syntax"),
        ("/score", {}, "expected text_1 and text_2, or queries and documents"),
        ("/score", {"text_1": "x"}, "expected text_1 and text_2"),
        ("/score", {"text_1": [], "text_2": ["x"]}, "expected text_1 and text_2"),
        ("/score", {"text_1": ["a", "b"], "text_2": ["x", "y", "z"]}, "2 texts cannot be paired with 3"),
        ("/score", {"text_1": ["a", "b"], "text_2": "x"}, "2 texts cannot be paired with 1"),
        ("/score", {"text_1": "a", "text_2": ["x", " "]}, "pair 1 has an empty text"),
        ("/score", {"text_1": "", "text_2": "x"}, "pair 0 has an empty text"),
        ("/score", {"text_1": "a", "text_2": ["x"] * 10_001}, "number of pairs must be at most 10000 - received 10001"),
        ("/score", {"text_1": 3, "text_2": "x"}, "text_1: input should be a valid list"),
        ("/score", {"text_1": "a", "text_2": [1] * 500_000}, "text_2.0: input should be a valid string"),
        ("/v1/score", {"queries": "a", "documents": ["x", 3]}, "documents.1: input should be a valid string"),
        ("/score", {"model": "desk", "text_1": "a", "text_2": "b"}, "is a classify model; it cannot rerank"),
        ("/predict", {"inputs": "x"}, WAY_OUT),
        ("/predict", {"inputs": "x", "model": "english"}, WAY_OUT),
        ("/predict", {"inputs": "x", "model": "ranker"}, "is a rerank model; it cannot classify"),
        ("/predict", {"inputs": ["a", "b"], "model": "desk"}, "is a classify model; it cannot rerank"),
        ("/predict", {}, "inputs: field required"),
        ("/predict", {"inputs": []}, "input 0 has 0 texts; expected 1 or 2"),
        ("/predict", {"inputs": ["a", "b", "c"]}, "input 0 has 3 texts; expected 1 or 2"),
        ("/predict", {"inputs": [["a"], []]}, "input 1 has 0 texts; expected 1 or 2"),
        ("/predict", {"inputs": [["a"], ["b", 3]]}, "input should be a valid string"),
        ("/predict", {"inputs": [1] * 500_000}, "input should be a valid string"),
        ("/predict", {"inputs": [[1]] * 500_000}, "input should be a valid string"),
        ("/predict", {"inputs": 3}, "input should be a valid list"),
        ("/predict", {"inputs": [["x"]] * 10_001, "model": "desk"}, "expected 1 to 10000 texts - received 10001"),
        ("/predict", {"inputs": "", "model": "desk"}, "text 0 is empty"),
        ("/predict", {"inputs": ["a", ""], "model": "ranker"}, "pair 0 has an empty text"),
        ("/classify", {"input": "x"}, WAY_OUT),
        ("/classify", {"input": ["x", ""], "model": "desk"}, "text 1 is empty"),
        ("/classify", {"input": [], "model": "desk"}, "expected 1 to 10000 texts - received 0"),
        ("/classify", {"input": [1] * 500_000}, "input.0: input should be a valid string"),
        ("/classify", {"inputs": ["x"]}, "min classes for classify request is 2 - received 0"),
        ("/classify", {}, "total number of texts must be at least 1"),
    ],
)
def test_bad_requests_are_400_and_say_why(wire: httpx.Client, path: str, body: Any, message: str) -> None:
    response = send(wire, path, body)
    assert message in refused(response, 400, ERROR)
    body = response.json()
    assert body["error"] == body["detail"] == body["message"] and body["error_type"] == "Validation"


def test_errors_are_worded_for_every_client(wire: httpx.Client) -> None:
    for path in ("/rerank", "/score", "/v1/score", "/predict", "/classify"):
        for method in ("GET", "PUT"):
            assert refused(wire.request(method, path), 405, ERROR) == "405 method not allowed"
        body = {
            "model": "nope",
            "query": "x",
            "texts": ["x"],
            "text_1": "x",
            "text_2": "x",
            "inputs": "x",
            "input": "x",
        }
        assert "model 'nope' not found" in refused(send(wire, path, body), 404, ERROR)
    assert refused(wire.post("/rerank/"), 404) == "404 page not found"


FIELDS = ("model", "query", "documents", "texts", "top_n", "top_k", "rank_fields", "raw_scores", "input", "inputs")
GOOD = {"query": st.just("x") | JSON, "documents": st.just(["x"]) | JSON}


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(body=st.fixed_dictionaries({}, optional={**dict.fromkeys((*FIELDS, "text_1", "text_2"), JSON), **GOOD}) | JSON)
def test_any_json_at_all_is_answered(wire: httpx.Client, body: Any) -> None:
    for path in ("/rerank", "/score", "/predict", "/classify"):
        response = send(wire, path, body)
        assert response.status_code in (200, 400, 404)
        if response.status_code != 200:
            refused(response, response.status_code, ERROR)


def test_who_answers_where_no_model_is_named(
    start: Callable[..., contextlib.AbstractContextManager[Any]], expected: list[float]
) -> None:
    asks = {
        "/v1/rerank": {"query": QUERY, "documents": TEXTS},
        "/rerank": {"query": QUERY, "documents": TEXTS},
        "/score": {"text_1": QUERY, "text_2": TEXTS},
        "/predict": {"inputs": [QUERY, TEXTS[0]]},
        "/classify": {"input": "x"},
        "/v1/classify": {"inputs": ["x"]},
    }
    with start(default_reranker="ranker", default_classifier="desk") as live, httpx.Client(base_url=live.url) as wire:
        found = {path: send(wire, path, body).json() for path, body in asks.items()}
        base = send(wire, "/v1/rerank", {**asks["/v1/rerank"], "model": "rerank-v3.5"}).json()
        public = wire.get("/v1/models/ranker").json()["name"]
    for path in ("/v1/rerank", "/rerank"):
        assert [each["index"] for each in found[path]["results"]] == best_first(expected)
        assert "warnings" not in found[path]["meta"]
    assert [each["score"] for each in found["/score"]["data"]] == about(expected)
    assert found["/predict"][0]["score"] == about(expected[0])
    assert found["/rerank"]["model"] == found["/score"]["model"] == public
    assert found["/classify"]["data"][0]["label"] in LABELS and found["/classify"]["model"].endswith("-ft")
    assert found["/v1/classify"]["classifications"][0]["prediction"] in LABELS
    assert base["meta"]["warnings"], "a hosted name still means the base"


def test_a_default_that_is_not_there_is_named(start: Callable[..., Any]) -> None:
    with start(default_reranker="gone", default_classifier="ranker") as live, httpx.Client(base_url=live.url) as wire:
        assert "model 'gone' not found" in refused(send(wire, "/v1/rerank", {"query": "x", "documents": ["x"]}), 404)
        assert "model 'ranker' is a rerank model" in refused(send(wire, "/v1/classify", {"inputs": ["x"]}))
