"""Scoring: texts or pairs in, logits or embeddings out. See `engine` (in process) and `batcher` (live)."""

from training.engine.batcher import Batcher, BatchStats, QueueFullError, settle
from training.engine.batching import Limits
from training.engine.encoding import Encoded, TooLongError, Truncate
from training.engine.engine import Engine, bring_export
from training.engine.exports import FOLDER as EXPORT_FOLDER
from training.engine.ranking import Ranking

__all__ = [
    "EXPORT_FOLDER",
    "BatchStats",
    "Batcher",
    "Encoded",
    "Engine",
    "Limits",
    "QueueFullError",
    "Ranking",
    "TooLongError",
    "Truncate",
    "bring_export",
    "settle",
]
