"""Everything said about a reranker's order of candidates, equal to trec_eval's figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from training.errors import DataError

_DESCRIPTION = "ndcg, reciprocal rank, average precision, accuracy (success) and recall of ranked candidates."


@dataclass(frozen=True)
class Cutoffs:
    """The ranks down to which each figure looks, one figure for each."""

    ndcg: tuple[int, ...] = (10,)
    mrr: tuple[int, ...] = (10,)
    accuracy: tuple[int, ...] = (1, 3)
    recall: tuple[int, ...] = (10,)


class RankingMetrics(evaluate.Metric):
    """Means over queries of `query_figures`, with `queries`, how many they are taken over.

    Use: `RankingMetrics().compute(predictions=scores, references=grades, cutoffs=Cutoffs(ndcg=(5, 10)))`, each a list
    per query, of any length. A query without a relevant passage says nothing about an order: it is left out of the
    means and counted in `queries_without_relevant`. (`ir_measures` would count it as zero.)

    Raises:
        DataError: no query has a relevant passage.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions: scores of a query's candidates; references: their grades, then those of "
            "judged passages that are not among the candidates",
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Sequence(datasets.Value("float64")),
                }
            ),
        )

    # `evaluate` passes by keyword what its base class takes as *; every module narrows the signature so.
    def _compute(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, predictions: Any, references: Any, cutoffs: Cutoffs | None = None
    ) -> dict[str, Any]:
        pairs = list(zip(predictions, references, strict=True))
        each = [query_figures(s, g, cutoffs or Cutoffs()) for s, g in pairs if max(g, default=0) > 0]
        if not each:
            raise DataError(
                f"none of {len(pairs)} queries has a relevant passage, so no order of theirs can be measured; "
                "give at least one passage a grade above 0"
            )
        means = {name: float(np.mean([figures[name] for figures in each])) for name in each[0]}
        return means | {"queries": len(each), "queries_without_relevant": len(pairs) - len(each)}


def query_figures(scores: Sequence[float], grades: Sequence[float], cutoffs: Cutoffs) -> dict[str, float]:
    """Figures of one query's candidates, ordered by falling score; equal scores keep the order they come in.

    trec_eval orders equal scores by falling document id instead; with distinct scores the figures are the same. A
    score that is not a number ranks last. `ndcg@k` has trec_eval's linear gain, grade / log2(rank + 1). `mrr@k` is
    the query's reciprocal rank, `map` its average precision over all ranks, `accuracy@k` one if any of the first k
    is relevant.

    Args:
        scores: (n,), of the candidates.
        grades: (n,) of the candidates in the same order; relevant above 0. May go on with the grades of judged
            passages that are not among the candidates: `ndcg`, `map` and `recall` then measure against them too, as
            trec_eval does with the whole qrels. At least one must be relevant.
        cutoffs: which figures.
    """
    if len(grades) < len(scores):
        raise ValueError(f"{len(scores)} scores but {len(grades)} grades: every candidate needs a grade")
    gains = np.maximum(np.asarray(grades, np.float64), 0)
    ranked = gains[np.argsort(-np.asarray(scores, np.float64), kind="stable")]
    ideal = np.sort(gains)[::-1]
    ranks = np.flatnonzero(ranked) + 1  # of the relevant
    first = ranks[0] if len(ranks) else np.inf
    relevant = np.count_nonzero(gains)
    figures = {f"ndcg@{k}": _dcg(ranked[:k]) / _dcg(ideal[:k]) for k in cutoffs.ndcg}
    figures |= {f"mrr@{k}": 1 / first if first <= k else 0.0 for k in cutoffs.mrr}
    figures["map"] = (np.arange(1, len(ranks) + 1) / ranks).sum() / relevant
    figures |= {f"accuracy@{k}": float(first <= k) for k in cutoffs.accuracy}
    figures |= {f"recall@{k}": np.count_nonzero(ranks <= k) / relevant for k in cutoffs.recall}
    return {name: float(value) for name, value in figures.items()}


def _dcg(gains: NDArray[np.float64]) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())
