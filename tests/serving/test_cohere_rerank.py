"""POST /v1/rerank and /v2/rerank as the Cohere API reference describes them, by the SDK and on the wire."""

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import cohere
import httpx
import pytest
from cohere.errors import BadRequestError, NotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.live import JSON, rank_scores, refused, send

QUERY = "where is my parcel"
DOCUMENTS = [
    "my parcel is late",
    "refund please",
    "card charged twice",
    "x",
    "open invoice today",
    "my screen is broken",
]
ASK = {"model": "ranker", "query": QUERY, "documents": DOCUMENTS}


@pytest.fixture(scope="module")
def client2(server: Any) -> Iterator[cohere.ClientV2]:
    with cohere.ClientV2("any", base_url=server.url) as made:
        yield made


def post(wire: httpx.Client, path: str = "/v1/rerank", **fields: Any) -> httpx.Response:
    return send(wire, path, {**ASK, **fields})


def test_sdk(client: cohere.Client, client2: cohere.ClientV2, server: Any) -> None:
    async def ask() -> Any:
        async with cohere.AsyncClientV2("any", base_url=server.url) as later:
            return await later.rerank(model="ranker", query=QUERY, documents=DOCUMENTS)

    one = client.rerank(model="ranker", query=QUERY, documents=DOCUMENTS)
    two = client2.rerank(model="ranker", query=QUERY, documents=DOCUMENTS)
    three = asyncio.run(ask())
    for version, answer in (("1", one), ("2", two), ("2", three)):
        found = [result.relevance_score for result in answer.results]
        assert found == sorted(found, reverse=True) and all(0 <= score <= 1 for score in found)
        assert len(set(found)) == len(found), "random weights tell these documents apart"
        assert sorted(result.index for result in answer.results) == list(range(len(DOCUMENTS)))
        assert uuid.UUID(answer.id) and answer.meta and answer.meta.api_version and answer.meta.billed_units
        assert answer.meta.api_version.version == version and answer.meta.billed_units.search_units == 1
        assert answer.meta.warnings is None
    order = [result.index for result in one.results]
    assert order == [result.index for result in two.results] == [result.index for result in three.results]


@pytest.mark.parametrize("path", ["/v1/rerank", "/v1/v1/rerank", "/v2/rerank", "/v1/v2/rerank"])
def test_the_answer_has_the_documented_keys_and_no_others(wire: httpx.Client, path: str) -> None:
    body = post(wire, path).json()
    assert list(body) == ["id", "results", "meta"]
    version = "2" if "v2" in path else "1"
    assert body["meta"] == {"api_version": {"version": version}, "billed_units": {"search_units": 1}}
    assert [list(result) for result in body["results"]] == [["index", "relevance_score"]] * len(DOCUMENTS)


def test_search_units_are_counted_by_the_hundred(wire: httpx.Client) -> None:
    for count, units in ((1, 1), (100, 1), (101, 2)):
        found = post(wire, documents=["my parcel"] * count).json()["meta"]["billed_units"]["search_units"]
        assert found == units and isinstance(found, int)


def test_documents_come_back_when_asked_for(client: cohere.Client, wire: httpx.Client) -> None:
    documents = ["my parcel", {"text": "refund", "page": 3, "more": {"deep": [1, None]}}, {"text": "\u2028 x", "": ""}]
    for path in ("/v1/rerank", "/v2/rerank"):
        for result in post(wire, path, documents=documents, return_documents=True).json()["results"]:
            given = documents[result["index"]]
            assert result["document"] == ({"text": given} if isinstance(given, str) else given)
    for off in (False, None):
        results = post(wire, documents=documents, return_documents=off).json()["results"]
        assert all("document" not in result for result in results)
    answer = client.rerank(model="ranker", query=QUERY, documents=documents, return_documents=True)
    texts = {result.index: result.document.text for result in answer.results if result.document}
    assert texts == {0: "my parcel", 1: "refund", 2: "\u2028 x"}


def test_top_n(client: cohere.Client, client2: cohere.ClientV2, wire: httpx.Client) -> None:
    everything = [result.index for result in client.rerank(**ASK).results]
    for top_n, expected in ((1, 1), (3, 3), (6, 6), (7, 6), (10**18, 6), (None, 6)):
        found = [result["index"] for result in post(wire, top_n=top_n).json()["results"]]
        assert found == everything[:expected]
    assert len(client2.rerank(**ASK, top_n=2).results) == 2
    for wrong in (0, -1):
        assert refused(post(wire, top_n=wrong)) == "invalid request: top_n: input should be greater than or equal to 1"
    with pytest.raises(BadRequestError):
        client.rerank(**ASK, top_n=0)


def test_rank_fields(client: cohere.Client, wire: httpx.Client) -> None:
    documents = [{"title": "my parcel", "body": "is late"}, {"body": "is late", "other": 1}, {"text": "refund"}]
    both = rank_scores(wire, QUERY, documents, rank_fields=["title", "body"])
    assert both == pytest.approx(rank_scores(wire, QUERY, ["my parcel\nis late", "is late", "refund"]), abs=1e-6)
    swapped = rank_scores(wire, QUERY, documents, rank_fields=["body", "title"])
    assert swapped[0] == pytest.approx(rank_scores(wire, QUERY, ["is late\nmy parcel"])[0], abs=1e-6)
    assert abs(swapped[0] - both[0]) > 1e-5
    assert rank_scores(wire, QUERY, [{"text": "refund", "title": "x"}]) == pytest.approx(
        rank_scores(wire, QUERY, ["refund"]), abs=1e-6
    )
    assert rank_scores(
        wire, QUERY, [{"text": "refund", "n": 7}, {"n": None, "text": "x"}], rank_fields=["n"]
    ) == pytest.approx(rank_scores(wire, QUERY, ["7", "x"]), abs=1e-6)
    answer = client.rerank(model="ranker", query=QUERY, documents=documents, rank_fields=["title", "body"])
    assert [result.index for result in answer.results] == sorted(range(3), key=lambda index: -both[index])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank_fields": []}, "rank_fields cannot be empty"),
        ({"documents": [{"title": "x"}]}, "document does not have a 'text' field"),
        ({"documents": [{"title": "x"}], "rank_fields": ["snippet"]}, "does not have a 'snippet' or a 'text' field"),
        ({"documents": [{"text": None}]}, "document does not have a 'text' field"),
        ({"documents": [{"a": " ", "b": ""}], "rank_fields": ["a", "b"]}, "document at index 0 cannot be empty"),
        ({"documents": ["x", {"text": ""}]}, "document at index 1 cannot be empty"),
        ({"documents": ["x", ""]}, "document at index 1 cannot be empty"),
        ({"documents": [" \n"]}, "document at index 0 cannot be empty"),
        ({"documents": []}, "list of documents must not be empty"),
        ({"documents": None}, "list of documents must not be empty"),
        ({"query": ""}, "query must not be empty or be only whitespace"),
        ({"query": " \t\n"}, "query must not be empty or be only whitespace"),
        ({"query": None}, "query must not be empty or be only whitespace"),
        ({"documents": ["x"] * 10_001}, "number of documents must be at most 10000 - received 10001"),
        (
            {"documents": ["x"] * 1_001, "max_chunks_per_doc": 10},
            "number of total max chunks (number of documents * max chunks per doc) must be less than 10000 - "
            "received 10010",
        ),
        ({"max_chunks_per_doc": 10**18}, "number of total max chunks"),
        ({"max_chunks_per_doc": 0}, "max_chunks_per_doc: "),
        ({"max_tokens_per_doc": 0}, "max_tokens_per_doc: "),
        ({"documents": "x"}, "documents: input should be a valid list"),
        ({"documents": [1]}, "documents.0"),
        ({"documents": [["x"]]}, "documents.0"),
        ({"documents": {"text": "x"}}, "documents: "),
        ({"documents": ["x"] + [1] * 500_000}, "documents.1"),
        ({"query": ["x"]}, "query: "),
        ({"model": 3}, "model: "),
        ({"top_n": "all"}, "top_n: "),
        ({"rank_fields": "text"}, "rank_fields: "),
        ({"return_documents": "perhaps"}, "return_documents: "),
        ({"model": "desk"}, "model 'desk' is a classify model; it cannot rerank"),
        ({"model": "english"}, "model 'english' is a classify model; it cannot rerank"),
    ],
)
def test_bad_requests_are_400_and_say_why(wire: httpx.Client, fields: dict[str, Any], message: str) -> None:
    for path in ("/v1/rerank", "/v2/rerank"):
        assert message in refused(post(wire, path, **fields))


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
@pytest.mark.parametrize(
    "part",
    [
        b'"documents": [NaN]',
        b'"documents": ["x"], "other": Infinity',
        b'"documents": ["\\ud800"]',
        b'"documents": ["\xff"]',
        b'"documents": ["x"], "other": ' + b"[" * 100_000,
        b'"documents": ["x"], "other": ' + nested(1_000),
        b'"documents": [{"text": "x", "deep": ' + nested(500) + b"}]",
        b'"documents": [{"text": "x", "deep": ' + nested(250) + b"}]",
        b'"documents": [{"text": ' + nested(500) + b"}]",
        b'"documents": [{"text": 123456789012345678901234567890}]',
        b'"documents": [{"text": 1e999}]',
        b'"documents": ["x"], "top_n": 1e30',
        b'"documents": ["x"], "top_n": 99999999999999999999999999',
        b'"documents": ["x"]',
    ],
)
def test_hostile_bodies_are_never_a_5xx(wire: httpx.Client, path: str, part: bytes) -> None:
    body = b'{"model": "ranker", "query": "q", "return_documents": true, ' + part + b"}"
    response = send(wire, path, body)
    assert response.status_code in (200, 400), response.text
    assert response.json()["results" if response.status_code == 200 else "message"]
    assert refused(send(wire, "/v1/rerank", body[:-1])).startswith("invalid json syntax")


GOOD = {"documents": st.just(["x"]), "query": st.just("x")}
FIELDS = dict.fromkeys(("model", "top_n", "rank_fields", "return_documents", "max_chunks_per_doc", "texts"), JSON)


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(body=st.fixed_dictionaries(GOOD, optional=FIELDS) | st.fixed_dictionaries(dict.fromkeys(GOOD, JSON)) | JSON)
def test_any_json_at_all_is_answered_in_shape(wire: httpx.Client, body: Any) -> None:
    for path in ("/v1/rerank", "/v2/rerank"):
        response = send(wire, path, body)
        if response.status_code != 200:
            refused(response, response.status_code)
        assert response.status_code in (200, 400, 404)


def test_null_is_absent_and_unknown_fields_are_ignored(wire: httpx.Client) -> None:
    optional = ("top_n", "rank_fields", "return_documents", "max_chunks_per_doc", "max_tokens_per_doc")
    nothing = {**dict.fromkeys(optional), "priority": 7, "relevant_spans": {"mode": "enabled"}, "colour": [1]}
    for path in ("/v1/rerank", "/v2/rerank"):
        assert post(wire, path, **nothing).json()["results"] == post(wire, path).json()["results"]


def test_a_model_must_be_named_to_v2_alone(wire: httpx.Client) -> None:
    for model in ("", None):
        message = "invalid request: a model parameter is required for this endpoint."
        assert refused(post(wire, "/v2/rerank", model=model)) == message
        assert post(wire, "/v1/rerank", model=model).status_code == 200
    unnamed = {"query": QUERY, "documents": DOCUMENTS}
    assert send(wire, "/v1/rerank", unnamed).status_code == 200
    refused(send(wire, "/v2/rerank", unnamed))


def test_models_of_the_wrong_kind_or_none(client: cohere.Client, wire: httpx.Client) -> None:
    for name in ("nope", str(uuid.uuid4()), f"{uuid.uuid4()}-ft", "../ranker", "a/b", "\x00"):
        for path in ("/v1/rerank", "/v2/rerank"):
            message = refused(post(wire, path, model=name), 404)
            assert message.startswith(f"model '{name}' not found, make sure the correct model ID was used")
    with pytest.raises(NotFoundError):
        client.rerank(model="nope", query="x", documents=["x"])
    with pytest.raises(BadRequestError) as error:
        client.classify(model="ranker", inputs=["x"])
    assert "model 'ranker' is a rerank model; it cannot classify" in error.value.body["message"]
    public = client.models.get("ranker").name or ""
    for name in (public, public.removesuffix("-ft"), public.upper()):
        assert post(wire, model=name).json()["results"] == post(wire).json()["results"]


def test_hosted_names_and_none_rank_by_the_base_and_say_so(client: cohere.Client, client2: cohere.ClientV2) -> None:
    documents = [
        "The stadium sold out within an hour.",
        "Capital punishment has existed since before there were states.",
        "Washington, D.C. is the capital of the United States.",
    ]
    query = "What is the capital of the United States?"
    by_name = [
        asked.rerank(model="rerank-english-v3.0", query=query, documents=documents) for asked in (client, client2)
    ]
    for answer in (*by_name, client.rerank(query=query, documents=documents)):
        assert [result.index for result in answer.results] == [2, 1, 0]
        assert all(0 <= result.relevance_score <= 1 for result in answer.results)
        assert answer.meta and answer.meta.warnings and "cosines" in answer.meta.warnings[0]
    far = "The harvest was good that year and the barns were full. " * 130 + documents[2]  # beyond token 1,500
    found = client2.rerank(model="rerank-v3.5", query=query, documents=[documents[0], far, documents[1]], top_n=1)
    assert found.results[0].index == 1
