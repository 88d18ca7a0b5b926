"""From a model's name and texts to probabilities: where registry, loaded models and the batcher meet."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
from numpy.typing import NDArray

from serving import metrics
from serving.errors import RequestError
from serving.fewshot import Example, FewShot
from serving.loaded import LoadedModels
from serving.registry import Model, Registry
from serving.settings import Settings
from training.engine import Batcher, BatchStats, Encoded, Engine, Limits, QueueFullError, Ranking, Truncate, settle
from training.engine.devices import choose_device
from training.engine.ranking import CHUNKS
from training.errors import EncoreError
from training.imports import lasting

Floats = NDArray[np.float32]
_Result = TypeVar("_Result")

_BASE = "base"
_INLINE_CHARACTERS = 4000
"""Up to so many characters are dealt with on the event loop."""
_SLICE = 512
"""Texts handed to the batcher at once, so that a request of thousands leaves room in the queue for others."""
_MEMORY_SHARE = 0.5

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scores:
    """Probabilities of shape (texts, labels), float32; `thresholds` has one number per label, if multi-label."""

    labels: tuple[str, ...]
    probabilities: Floats
    thresholds: tuple[float, ...] | None
    tokens: int
    """Read in all, special ones included."""


class Scorer:
    """Scores texts with any registered model, or by examples. Belongs to one event loop."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        """Start the device thread; models are loaded when they are first asked for."""
        self._settings, self.registry = settings, registry
        self._loaded = LoadedModels(settings.cache_bytes or _memory_share(settings))
        self._loop = asyncio.get_running_loop()
        self._batcher = Batcher(_limits(settings), _count, partial(self._loop.call_soon_threadsafe, settle))
        self._few_shot = FewShot(self._embed)

    async def model(self, key: str) -> Model | None:
        """The registered model of an id or name, see `Registry.find`."""
        return self.registry.remembered(key) or await asyncio.to_thread(self.registry.find, key)

    def sweep(self) -> None:
        """Let go of models that were removed."""
        self._loaded.keep(self._still_there)

    async def engine(self, model: Model | None) -> Engine:
        """The engine of a registered model, or of the default base (None).

        Raises:
            RequestError: the model's files cannot be used.
        """
        try:
            if model is None:
                return await self._loaded.get(_BASE, self._load_base)
            return await self._loaded.get(model.id, partial(self._load, model))
        except (EncoreError, OSError, RuntimeError) as error:
            if model is not None and not self.registry.folder(model.id).is_dir():
                raise RequestError(404, f"finetuned model {model.public_name} not found") from None
            _logger.error("model cannot be loaded", exc_info=error, extra={"fields": {"reason": str(error)}})
            name = model.public_name if model else self._settings.default_base
            raise RequestError(
                400, f"model '{name}' is not ready for serving: it cannot be loaded; the server's log has the reason"
            ) from None

    async def classify(self, model: Model, texts: Sequence[str], truncate: Truncate) -> Scores:
        """Score texts with a fine-tuned model.

        Raises:
            TooLongError: `truncate` is NONE and a text is too long.
            RequestError: the queue is full, or the model cannot be loaded.
        """
        engine = await self.engine(model)
        manifest = engine.manifest
        logits, tokens = await self._forward(engine, texts, truncate)
        thresholds = (manifest.thresholds or (0.5,) * len(manifest.labels)) if manifest.multi_label else None
        return Scores(manifest.labels, engine.probabilities(logits), thresholds, tokens)

    async def log_probabilities(
        self, model: Model, texts: Sequence[str], *, progress: Callable[[], None]
    ) -> tuple[NDArray[np.float64], int]:
        """Score texts, each cut to what the model takes, with a fine-tuned single-label model.

        Args:
            model: a registered model.
            texts: raw texts, at least one.
            progress: called whenever a part of the work is done.

        Returns:
            Natural logarithms of the probabilities (texts, labels), and the tokens read in all.

        Raises:
            RequestError: the queue is full, or the model cannot be loaded.
        """
        engine = await self.engine(model)
        logits, tokens = await self._forward(engine, texts, "END", progress)
        return engine.log_probabilities(logits), tokens

    async def classify_by_examples(
        self, examples: Sequence[Example], texts: Sequence[str], truncate: Truncate
    ) -> Scores:
        """Score texts with a head fitted on `examples`, each cut to what the base takes; errors as in `classify`."""
        engine = await self.engine(None)
        head, scored = await asyncio.gather(self._few_shot.head(examples), self._forward(engine, texts, truncate))
        embeddings, tokens = scored
        return Scores(head.labels, head.probabilities(embeddings), None, tokens)

    async def rerank(
        self,
        model: Model | None,
        asked: Sequence[tuple[str, Sequence[str]]],
        chunks: int | None = None,
        cut: int | None = None,
        *,
        progress: Callable[[], None],
    ) -> tuple[list[NDArray[np.float64]], int]:
        """Score documents for queries with a reranker, or (None) by the cosine of the default base's embeddings.

        Args:
            model: a registered reranker.
            asked: queries, each with its documents, at least one; all raw texts. Repeated documents are scored once.
            chunks: pieces of a long document to score, see `Ranking.plan`.
            cut: tokens of a document to read before that.
            progress: called whenever a part of the work is done.

        Returns:
            For each query relevance from 0 to 1 (documents,), and the tokens read in all.

        Raises:
            RequestError: the queue is full, or the model cannot be loaded.
        """
        engine = await self.engine(model)

        def plan() -> list[Ranking]:
            return [Ranking.plan(engine.encoder, engine.manifest, *one, chunks or CHUNKS, cut) for one in asked]

        plans = await _aside(sum(len(query) + sum(map(len, documents)) for query, documents in asked), plan)
        items = [item for ranking in plans for item in ranking.items]
        parts: list[Floats] = []
        for start in range(0, len(items), _SLICE):
            parts.append(await self._submit(engine, items[start : start + _SLICE]))
            progress()
        shares = np.split(np.concatenate(parts), np.cumsum([len(ranking.items) for ranking in plans])[:-1])
        scores = [ranking.relevance(share) for ranking, share in zip(plans, shares, strict=True)]
        return scores, sum(map(len, items))

    def close(self) -> None:
        """Score what was accepted, then stop."""
        self._few_shot.close()
        self._batcher.close()
        self._loaded.close()

    async def _embed(self, texts: Sequence[str]) -> Floats:
        return (await self._forward(await self.engine(None), texts, "END"))[0]

    async def _forward(
        self, engine: Engine, texts: Sequence[str], truncate: Truncate, progress: Callable[[], None] | None = None
    ) -> tuple[Floats, int]:
        """What the network says of each text, and how many tokens they have together."""
        parts, tokens = list[Floats](), 0
        for start in range(0, len(texts), _SLICE):
            part = texts[start : start + _SLICE]
            items = await _aside(sum(map(len, part)), partial(engine.encode, part, truncate))
            parts.append(await self._submit(engine, items))
            tokens += sum(map(len, items))
            if progress:
                progress()
        return np.concatenate(parts), tokens

    async def _submit(self, engine: Engine, items: Sequence[Encoded]) -> Floats:
        """Queue up to `_SLICE` items and wait for them."""
        try:
            future = self._batcher.submit(engine, items, self._loop.create_future())
        except QueueFullError as error:
            raise RequestError(429, f"the server is busy: {error}", {"retry-after": "1"}, reason="busy") from None
        metrics.QUEUED_TOKENS.set(self._batcher.queued_tokens)
        return await future

    def _load(self, model: Model) -> Engine:
        return _by_settings(partial(Engine.load, self.registry.folder(model.id)), self._settings)

    def _load_base(self) -> Engine:
        return _by_settings(partial(Engine.load_embedder, self._settings.default_base), self._settings)

    def _still_there(self, key: str) -> bool:
        return key == _BASE or self.registry.folder(key).is_dir()


async def _aside(characters: int, work: Callable[[], _Result]) -> _Result:
    """Do what takes time by the number of characters: in a thread, unless that would cost more than it takes off."""
    return work() if characters <= _INLINE_CHARACTERS else await asyncio.to_thread(work)


def _by_settings(load: Callable[..., Engine], settings: Settings) -> Engine:
    """Load by the settings, with what the first of a backend's models imports."""
    with lasting():
        return load(
            device=settings.device, backend=settings.backend, precision=settings.precision, threads=settings.cpu_threads
        )


def _limits(settings: Settings) -> Limits:
    given = {
        "max_tokens": settings.max_batch_tokens,
        "max_items": settings.max_batch_texts,
        "max_waste": settings.max_padding_waste,
        "max_queued_tokens": settings.max_queued_tokens,
    }
    suited = Limits.for_device(choose_device(settings.device))
    return suited.model_copy(update={name: value for name, value in given.items() if value is not None})


def _memory_share(settings: Settings) -> int:
    if choose_device(settings.device) == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[1] * _MEMORY_SHARE)
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's own limit, which the machine's total does not show
    total = psutil.virtual_memory().total
    if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
        total = min(total, int(text))
    return int(total * _MEMORY_SHARE)


def _count(batch: BatchStats) -> None:
    metrics.BATCHES.inc()
    metrics.BATCH_TEXTS.observe(batch.items)
    metrics.TOKENS.inc(batch.tokens)
    metrics.PADDED_TOKENS.inc(batch.padded_tokens)
    metrics.QUEUED_TOKENS.set(batch.queued_tokens)
