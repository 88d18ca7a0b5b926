"""Clients of other hosts and servers, unmodified, against the real server: only a base URL is given."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import cohere
import pytest

QUERY = "where is my parcel"
TEXTS = ["my parcel is late", "refund please", "card charged twice", "x"]


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Set what keeps these clients from calling home; before they are imported, hence the imports in the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        patch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
        yield


@pytest.fixture(scope="module")
def expected(server: Any) -> list[tuple[int, float]]:
    """Position and score, best first, as Cohere's own client gets them."""
    with cohere.Client("any", base_url=server.url) as client:
        results = client.rerank(model="ranker", query=QUERY, documents=TEXTS).results
    return [(result.index, pytest.approx(result.relevance_score, abs=1e-3)) for result in results]


def ask_litellm(url: str, model: str, **options: Any) -> Any:
    import litellm

    return litellm.rerank(model, QUERY, TEXTS, api_base=url, api_key="any", max_retries=0, **options)


@pytest.mark.parametrize("provider", ["cohere", "jina_ai", "hosted_vllm"])
def test_litellm(server: Any, expected: list[tuple[int, float]], provider: str) -> None:
    found = ask_litellm(server.url, f"{provider}/ranker", return_documents=True).results
    assert [(result["index"], result["relevance_score"]) for result in found] == expected
    if provider != "jina_ai":  # whose default of true LiteLLM does not send
        assert found == ask_litellm(server.url, f"{provider}/ranker").results
    assert all(result["document"]["text"] == TEXTS[result["index"]] for result in found)
    few = ask_litellm(server.url, f"{provider}/ranker", top_n=2, return_documents=False).results
    assert [result["index"] for result in few] == [index for index, _ in expected[:2]]
    assert all("document" not in result for result in few)


def test_litellm_as_tei(start: Callable[..., Any], expected: list[tuple[int, float]]) -> None:
    with start(default_reranker="ranker") as live:  # no model travels: TEI has but one
        found = ask_litellm(live.url, "huggingface/any", return_documents=True).results
    assert [(result["index"], result["relevance_score"]) for result in found] == expected
    assert all(result["document"]["text"] == TEXTS[result["index"]] for result in found)


def test_litellm_later_and_with_objects(server: Any, expected: list[tuple[int, float]]) -> None:
    import litellm

    documents: list[Any] = [{"title": text, "page": index} for index, text in enumerate(TEXTS)]
    found = asyncio.run(
        litellm.arerank(
            "cohere/ranker", QUERY, documents, rank_fields=["title"], api_base=server.url, api_key="any", max_retries=0
        )
    )
    assert [(result["index"], result["relevance_score"]) for result in found.results] == expected
    assert found.meta["billed_units"]["search_units"] == 1


@pytest.mark.parametrize("provider", ["cohere", "jina_ai", "hosted_vllm"])
def test_litellm_tells_a_wrong_model(server: Any, provider: str) -> None:
    with pytest.raises(Exception, match="model 'nope' not found"):
        ask_litellm(server.url, f"{provider}/nope")


def test_voyageai(server: Any, expected: list[tuple[int, float]]) -> None:
    import voyageai

    client = voyageai.Client(api_key="any", base_url=server.url, max_retries=1)
    found = client.rerank(QUERY, TEXTS, model="ranker")
    assert [(result.index, result.relevance_score) for result in found.results] == expected
    assert found.total_tokens > 0
    assert [result.document for result in client.rerank(QUERY, TEXTS, model="ranker", top_k=1).results] == [
        TEXTS[expected[0][0]]
    ]
    with pytest.raises(voyageai.error.InvalidRequestError, match="document at index 1 cannot be empty"):
        client.rerank(QUERY, ["x", ""], model="ranker")


@pytest.mark.parametrize(
    ("provider", "path"),
    [("cohere", "/v1/rerank"), ("jina", "/v1/rerank"), ("voyage", "/rerank"), ("text-embeddings-inference", "/rerank")],
)
def test_rerankers(server: Any, expected: list[tuple[int, float]], provider: str, path: str) -> None:
    from rerankers.models.api_rankers import APIRanker

    ranker = APIRanker("ranker", "any", provider, url=server.url + path)
    found = ranker.rank(QUERY, TEXTS).results
    assert [(result.doc_id, result.score) for result in found] == expected
    assert [result.text for result in found] == [TEXTS[index] for index, _ in expected]


def test_haystack(server: Any, expected: list[tuple[int, float]]) -> None:
    from haystack import Document
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.cohere import CohereRanker

    ranker = CohereRanker("ranker", api_key=Secret.from_token("any"), api_base_url=server.url, top_k=3)
    documents = [Document(content=text, meta={"place": index}) for index, text in enumerate(TEXTS)]

    async def later() -> Any:
        return await ranker.run_async(QUERY, documents)

    for found in (ranker.run(QUERY, documents), asyncio.run(later())):
        assert [(document.meta["place"], document.score) for document in found["documents"]] == expected[:3]
