"""What no fine-tuning gives, to be printed beside every result: TF-IDF with logistic regression, BM25."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline, make_union

from training.calibration import tune_thresholds
from training.classify import ClassifyTask
from training.classify_data import ClassifyData
from training.likeness import bm25
from training.metrics import ClassificationMetrics
from training.ranks import ranking_figures
from training.rerank_rows import RerankRow
from training.rows import ClassifyRow


def tfidf_metrics(data: ClassifyData, rows: Sequence[ClassifyRow]) -> dict[str, Any]:
    """Train on the run's training rows and measure on `rows`.

    Features are words (1 and 2) and characters within words (2 to 4). Multi-label thresholds are tuned on the
    run's evaluation rows, as those of the fine-tuned model are.
    """
    task = ClassifyTask(data.labels, data.multi_label)
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True),
    )
    model = LogisticRegression(C=10, max_iter=1000)
    pipeline = make_pipeline(features, OneVsRestClassifier(model) if data.multi_label else model)
    targets = task.targets(data.train)
    pipeline.fit([row.text for row in data.train], targets if data.multi_label else targets.argmax(axis=1))

    def predict(part: Sequence[ClassifyRow]) -> Any:
        found = pipeline.predict_proba([row.text for row in part])
        if data.multi_label:
            return found
        full = np.zeros((len(part), len(data.labels)), np.float32)
        full[:, pipeline.classes_] = found  # a label may be missing from the training part
        return full

    thresholds = list(tune_thresholds(predict(data.eval), task.targets(data.eval))) if data.multi_label else None
    figures = ClassificationMetrics().compute(
        predictions=predict(rows), references=task.targets(rows), labels=list(data.labels), thresholds=thresholds
    )
    assert figures is not None
    return {"rows": len(rows), **figures}


def bm25_metrics(rows: Sequence[RerankRow]) -> dict[str, Any]:
    """Rank each query's candidates by BM25, words being as rare as they are among all passages of `rows`."""
    pool = list(dict.fromkeys(passage for row in rows for passage in row.passages))
    place = {passage: number for number, passage in enumerate(pool)}
    found = bm25([row.query for row in rows], pool)
    scores = [likeness[[place[p] for p in row.passages]] for row, likeness in zip(rows, found, strict=True)]
    return {"rows": len(rows), **_figures(rows, scores)}


def order_metrics(rows: Sequence[RerankRow]) -> dict[str, Any]:
    """Leave each query's candidates in the order in which they are listed: that of whatever found them."""
    return {"rows": len(rows), **_figures(rows, [-np.arange(len(row.passages)) for row in rows])}


def _figures(rows: Sequence[RerankRow], scores: Sequence[Any]) -> dict[str, Any]:
    return ranking_figures(scores, [row.grades for row in rows], [row.missed for row in rows])
