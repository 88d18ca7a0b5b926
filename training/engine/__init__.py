"""Scoring: texts or pairs in, logits or embeddings out. See `engine` (in process) and `batcher` (live)."""

from training.engine.batcher import Batcher, BatchStats, QueueFullError
from training.engine.batching import Limits
from training.engine.encoding import Encoded, TooLongError, Truncate
from training.engine.engine import Engine
from training.engine.ranking import Ranking

__all__ = [
    "BatchStats",
    "Batcher",
    "Encoded",
    "Engine",
    "Limits",
    "QueueFullError",
    "Ranking",
    "TooLongError",
    "Truncate",
]
