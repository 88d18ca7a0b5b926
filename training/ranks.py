"""Scored candidates of queries to figures: one place for training, evaluation and baselines."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.metrics import RankingMetrics


def ranking_figures(scores: Sequence[Any], grades: Sequence[Any], missed: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Everything `RankingMetrics` says of scored candidates.

    Candidates with equal scores are ranked worst first: a reranker that cannot tell them apart gets no credit for
    the order they stand in.

    Args:
        scores: (candidates,) for each query.
        grades: (candidates,) for each query, in the same order.
        missed: grades of its relevant documents that are not among the candidates.

    Returns:
        Its figures; `accuracy`, which is accuracy@1; `first_ranks`, at which rank the first relevant candidate of
        each query stands, 0 where a query has none among its candidates.

    Raises:
        DataError: no query has a relevant passage.
    """
    predictions, references, first_ranks = list[Any](), list[Any](), list[int]()
    for found, judged, elsewhere in zip(scores, grades, missed, strict=True):
        worst_first = np.argsort(judged, kind="stable")
        predicted = np.asarray(found, np.float64)[worst_first]
        graded = np.asarray(judged, np.float64)[worst_first]
        predictions.append(predicted)
        references.append([*graded, *elsewhere])
        relevant = graded[np.argsort(-predicted, kind="stable")] > 0
        if relevant.any() or elsewhere:
            first_ranks.append(int(relevant.argmax()) + 1 if relevant.any() else 0)
    figures = RankingMetrics().compute(predictions=predictions, references=references)
    assert figures is not None  # only processes other than the first get None, and there is one
    return figures | {"accuracy": figures["accuracy@1"], "first_ranks": first_ranks}
