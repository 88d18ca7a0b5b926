"""Figures as `evaluate.Metric` modules of our own, so that they need no download and gather across processes."""

from training.metrics.classification import ClassificationMetrics
from training.metrics.ranking import Cutoffs, RankingMetrics

__all__ = ["ClassificationMetrics", "Cutoffs", "RankingMetrics"]
