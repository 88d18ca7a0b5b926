import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, R, Success, nDCG

from training.errors import DataError
from training.metrics.ranking import Cutoffs, RankingMetrics, query_figures

TREC = Path(__file__).parents[3] / "shared" / "data" / "trec_dl19"
CUTOFFS = Cutoffs(ndcg=(1, 10, 100), mrr=(3, 10), accuracy=(1, 3), recall=(2, 10))
MEASURES = {
    "ndcg@1": nDCG @ 1,
    "ndcg@10": nDCG @ 10,
    "ndcg@100": nDCG @ 100,
    "mrr@3": RR @ 3,
    "mrr@10": RR @ 10,
    "map": AP,
    "accuracy@1": Success @ 1,
    "accuracy@3": Success @ 3,
    "recall@2": R @ 2,
    "recall@10": R @ 10,
}

Query = tuple[list[float], list[int]]
"""Scores of the candidates; grades of the candidates and of judged passages that are not among them."""


def compute(queries: list[Query], cutoffs: Cutoffs | None = None) -> dict[str, Any]:
    scores, grades = zip(*queries, strict=True)
    found = RankingMetrics().compute(predictions=list(scores), references=list(grades), cutoffs=cutoffs)
    assert found is not None
    return found


def trec_eval(queries: list[Query]) -> dict[str, float]:
    """What `ir_measures`, which runs trec_eval's code, says of the queries with a relevant passage."""
    kept = {f"q{n}": query for n, query in enumerate(queries) if max(query[1], default=0) > 0}
    qrels = {name: {f"d{n}": grade for n, grade in enumerate(grades)} for name, (_, grades) in kept.items()}
    run = {name: {f"d{n}": score for n, score in enumerate(scores)} for name, (scores, _) in kept.items()}
    found = ir_measures.calc_aggregate(list(MEASURES.values()), qrels, run)
    return {name: found[measure] for name, measure in MEASURES.items()}


@st.composite
def graded_query(draw: st.DrawFn) -> Query:
    grades = draw(st.lists(st.integers(-1, 3), min_size=1, max_size=25))
    candidates = draw(st.integers(1, len(grades)))
    return [float(rank) for rank in draw(st.permutations(range(candidates)))], grades


@given(st.lists(graded_query(), min_size=1, max_size=6).filter(lambda qs: any(max(g) > 0 for _, g in qs)))
@settings(max_examples=60, deadline=None)
def test_figures_are_trec_evals(queries: list[Query]) -> None:
    found, expected = compute(queries, CUTOFFS), trec_eval(queries)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_figures_of_many_candidates_are_trec_evals() -> None:
    rng = np.random.default_rng(2)
    queries: list[Query] = [
        (rng.normal(size=300).tolist(), rng.choice([0, 1, 2, 3], 320, p=[0.9, 0.05, 0.03, 0.02]).tolist())
        for _ in range(20)
    ]
    found, expected = compute(queries, CUTOFFS), trec_eval(queries)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.skipif(not TREC.is_dir(), reason="needs the public data sets in ../shared/data")
def test_bm25_on_trec_dl19_is_what_is_published() -> None:
    judged: dict[str, dict[str, int]] = {}
    for line in (TREC / "qrels.jsonl").read_text().splitlines():
        row = json.loads(line)
        judged.setdefault(row["qid"], {})[row["docid"]] = row["grade"]
    queries: list[Query] = []
    for line in (TREC / "bm25_top100.jsonl").read_text().splitlines():
        row = json.loads(line)
        rest, docids = dict(judged[row["qid"]]), row["docids"]
        grades = [rest.pop(docid, 0) for docid in docids]
        queries.append(([-float(rank) for rank in range(len(docids))], grades + list(rest.values())))
    found, expected = compute(queries, CUTOFFS), trec_eval(queries)
    assert found["queries"] == 43
    assert found["ndcg@10"] == pytest.approx(0.5058, abs=5e-5)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_figures_by_hand() -> None:
    # Grades in the order of the scores: 0, 2, 0, 1; two more relevant passages were never candidates.
    found = query_figures([0.1, 0.4, 0.3, 0.2], [1, 0, 2, 0, 3, 1], Cutoffs(ndcg=(10, 3)))
    gained = 2 / np.log2(3) + 1 / np.log2(5)
    assert found == pytest.approx(
        {
            "ndcg@10": gained / (3 + 2 / np.log2(3) + 1 / 2 + 1 / np.log2(5)),
            "ndcg@3": (2 / np.log2(3)) / (3 + 2 / np.log2(3) + 1 / 2),
            "mrr@10": 1 / 2,
            "map": (1 / 2 + 2 / 4) / 4,
            "accuracy@1": 0.0,
            "accuracy@3": 1.0,
            "recall@10": 2 / 4,
        }
    )


def test_the_figures_without_cutoffs() -> None:
    found = compute([([2.0, 1.0], [1, 0]), ([2.0, 1.0], [0, 1])])
    assert found == pytest.approx(
        {
            "ndcg@10": (1 + 1 / np.log2(3)) / 2,
            "mrr@10": 0.75,
            "map": 0.75,
            "accuracy@1": 0.5,
            "accuracy@3": 1.0,
            "recall@10": 1.0,
            "queries": 2,
            "queries_without_relevant": 0,
        }
    )


def test_queries_without_a_relevant_passage_are_counted_but_not_averaged() -> None:
    found = compute([([2.0, 1.0], [1, 0]), ([1.0, 2.0], [0, 0]), ([1.0], [-1]), ([], [])])
    assert (found["accuracy@1"], found["queries"], found["queries_without_relevant"]) == (1.0, 1, 3)


def test_a_relevant_passage_that_was_no_candidate_counts_as_missed() -> None:
    found = compute([([], [1]), ([1.0], [1, 1])])
    assert (found["accuracy@1"], found["recall@10"], found["map"]) == (0.5, 0.25, 0.25)


def test_equal_scores_keep_the_order_they_come_in() -> None:
    assert query_figures([1.0, 1.0, 1.0], [0, 1, 0], Cutoffs())["mrr@10"] == 0.5
    assert query_figures([1.0, 1.0, 2.0], [0, 1, 0], Cutoffs())["mrr@10"] == pytest.approx(1 / 3)
    # Long enough for a sort that is not stable to show: candidates 1, 3, ... 59 come before 61.
    alternating, grades = [0.0, 1.0] * 100, [0] * 61 + [1] + [0] * 138
    assert query_figures(alternating, grades, Cutoffs(mrr=(100,)))["mrr@100"] == 1 / 31


def test_a_score_that_is_not_a_number_ranks_last() -> None:
    assert query_figures([float("nan"), -5.0, float("-inf")], [1, 0, 0], Cutoffs())["mrr@10"] == pytest.approx(1 / 3)


def test_scores_that_differ_beyond_float32_are_told_apart() -> None:
    assert compute([([1.0, 1.0 + 1e-12], [0, 1])])["mrr@10"] == 1


def test_nothing_relevant_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="none of 2 queries has a relevant passage"):
        compute([([1.0], [0]), ([2.0, 1.0], [0, 0])])


def test_a_candidate_without_a_grade_is_refused() -> None:
    with pytest.raises(ValueError, match="3 scores but 2 grades"):
        query_figures([1.0, 2.0, 3.0], [1, 0], Cutoffs())


def test_two_processes_gather_to_the_figures_of_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    sizes = rng.integers(1, 9, 31)
    scores = [rng.normal(size=size).astype(np.float32) for size in sizes]
    grades = [rng.integers(0, 3, size) for size in sizes]

    def process(rank: int) -> dict[str, Any] | None:
        metric = RankingMetrics(
            num_process=2, process_id=rank, experiment_id="two", cache_dir=str(tmp_path), timeout=30
        )
        metric.add_batch(predictions=scores[rank::2], references=grades[rank::2])
        return metric.compute()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(process, range(2))
    assert second is None
    queries = [(one.tolist(), other.tolist()) for one, other in zip(scores, grades, strict=True)]
    assert first == pytest.approx(compute(queries))
