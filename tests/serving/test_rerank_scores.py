"""Which scores documents get over HTTP: long ones, many at once, beside other requests; the same as in evaluation."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.live import MAX_LENGTH, rank_scores, send
from tests.tiny import WORDS
from training.engine import Engine, Ranking

QUERY = "where is my parcel"
DOCUMENTS = [
    "my parcel is late",
    "refund please",
    "card charged twice",
    "x",
    "open invoice today",
    "my screen is broken",
]
ROOM = MAX_LENGTH - 2 - len(QUERY.split()) - 2  # every word is a token; each side has two special ones


def post(wire: httpx.Client, documents: list[str], **fields: Any) -> httpx.Response:
    return send(wire, "/v1/rerank", {"model": "ranker", "query": QUERY, "documents": documents, **fields})


def passages(count: int, words: int, seed: int = 0) -> list[str]:
    chosen = random.Random(seed)
    return [" ".join(chosen.choices(WORDS, k=words)) for _ in range(count)]


def test_repeated_documents_have_equal_scores_and_keep_their_order(wire: httpx.Client) -> None:
    results = post(wire, ["refund", "my parcel", "refund", "my parcel", "refund"]).json()["results"]
    found = {result["index"]: result["relevance_score"] for result in results}
    assert found[0] == found[2] == found[4] != found[1] == found[3]
    order = [result["index"] for result in results]
    assert order in ([0, 2, 4, 1, 3], [1, 3, 0, 2, 4])


def test_a_long_document_is_as_relevant_as_its_best_piece(wire: httpx.Client) -> None:
    pieces = passages(12, ROOM)
    alone = rank_scores(wire, QUERY, pieces)
    best = pieces.pop(alone.index(max(alone)))
    rest = [score for score in alone if score != max(alone)]
    ninth, eleventh = (" ".join([*pieces[:count], best, *pieces[count:]]) for count in (9, 10))

    def found(document: str, path: str = "/v1/rerank", **fields: Any) -> Any:
        return pytest.approx(rank_scores(wire, QUERY, [document], path, **fields)[0], abs=1e-3)

    assert max(alone) - max(rest) > 2e-3, "the seed gives a piece that stands out"
    assert max(alone) == found(ninth) and max(rest[:10]) == found(eleventh)  # ten pieces unless said otherwise
    assert max(alone) == found(eleventh, max_chunks_per_doc=11)
    assert rest[0] == found(ninth, max_chunks_per_doc=1)
    assert max(alone) == found(eleventh, "/v2/rerank")  # as many as 4,096 tokens make
    for path in ("/v1/rerank", "/v2/rerank"):
        assert rest[0] == found(ninth, path, max_tokens_per_doc=ROOM)
        assert max(rest[:9]) == found(ninth, path, max_tokens_per_doc=9 * ROOM)
        assert max(alone) == found(ninth, path, max_tokens_per_doc=10 * ROOM)


def test_a_long_query_is_cut_at_half_the_length(wire: httpx.Client) -> None:
    words = passages(1, 100)[0].split()
    assert rank_scores(wire, " ".join(words), DOCUMENTS) == pytest.approx(
        rank_scores(wire, " ".join(words[: MAX_LENGTH // 2 - 2]), DOCUMENTS), abs=1e-6
    )


def test_scores_do_not_depend_on_company(wire: httpx.Client) -> None:
    others = [text for words in (1, 5, 20, 60) for text in passages(50, words, words)]
    alone = [rank_scores(wire, QUERY, [text])[0] for text in DOCUMENTS]
    together = rank_scores(wire, QUERY, [*others[:100], *DOCUMENTS, *others[100:]])[100 : 100 + len(DOCUMENTS)]
    assert together == pytest.approx(alone, abs=1e-3)
    with ThreadPoolExecutor(8) as threads:
        crowded = list(threads.map(lambda text: rank_scores(wire, QUERY, [text])[0], DOCUMENTS * 4))
    assert crowded == pytest.approx(alone * 4, abs=1e-3)


def test_a_served_score_is_the_evaluated_one(wire: httpx.Client, reranker: Path) -> None:
    engine = Engine.load(reranker, device="cpu")
    documents = [*DOCUMENTS, *passages(30, 7), *passages(3, 100)]
    plan = Ranking.plan(engine.encoder, engine.manifest, QUERY, documents)
    assert rank_scores(wire, QUERY, documents) == pytest.approx(
        plan.relevance(engine.score(plan.items)).tolist(), abs=1e-3
    )


def test_small_requests_pass_a_large_one(wire: httpx.Client) -> None:
    documents = passages(1_000, 2 * ROOM)
    answered = 0
    with ThreadPoolExecutor(1) as thread:
        large = thread.submit(post, wire, documents=documents)
        while not large.done():
            response = send(wire, "/v1/classify", {"model": "desk", "inputs": ["my parcel"]})
            assert response.status_code == 200, response.text
            answered += not large.done()
    results = large.result().json()["results"]
    assert len(results) == 1_000 and answered >= 3


def test_ten_thousand_documents(wire: httpx.Client) -> None:
    documents = [f"{left} {right} {n}" for left in WORDS for right in WORDS for n in range(4)]
    response = post(wire, documents[:10_000], top_n=5)
    assert response.status_code == 200, response.text
    assert len(response.json()["results"]) == 5
    assert response.json()["meta"]["billed_units"] == {"search_units": 100}
