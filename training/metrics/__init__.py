"""Metrics as `evaluate` modules of our own, so that they need no download and gather across processes."""

from training.metrics.classification import ClassificationMetrics

__all__ = ["ClassificationMetrics"]
