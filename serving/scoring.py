"""From a model's name and texts to probabilities: where registry, loaded models and the batcher meet."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from serving import metrics
from serving.errors import RequestError
from serving.fewshot import Example, FewShot
from serving.loaded import LoadedModels
from serving.models import Model, Registry
from serving.settings import Settings
from training.engine import Batcher, BatchStats, Engine, Limits, QueueFullError, Truncate
from training.engine.engine import choose_device
from training.errors import EncoreError

Floats = NDArray[np.float32]

_BASE = "base"
_INLINE_CHARACTERS = 4000
"""Up to so many characters are tokenised on the event loop: a thread would cost more than it takes off it."""
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


class Scorer:
    """Scores texts with any registered model, or by examples. Belongs to one event loop."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        """Start the device thread; models are loaded when they are first asked for."""
        torch.set_num_threads(settings.torch_threads)
        self._settings, self.registry = settings, registry
        self._loaded = LoadedModels(settings.cache_bytes or _memory_share(settings))
        self._batcher = Batcher(_limits(settings), on_batch=_count)
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
        probabilities = engine.probabilities(await self._forward(engine, texts, truncate))
        if not manifest.multi_label:
            return Scores(manifest.labels, probabilities, None)
        thresholds = manifest.thresholds or (0.5,) * len(manifest.labels)
        return Scores(manifest.labels, probabilities, thresholds)

    async def classify_by_examples(
        self, examples: Sequence[Example], texts: Sequence[str], truncate: Truncate
    ) -> Scores:
        """Score texts with a head fitted on `examples`, each cut to what the base takes; errors as in `classify`."""
        engine = await self.engine(None)
        head, embeddings = await asyncio.gather(self._few_shot.head(examples), self._forward(engine, texts, truncate))
        return Scores(head.labels, head.probabilities(embeddings), None)

    def close(self) -> None:
        """Score what was accepted, then stop."""
        self._few_shot.close()
        self._batcher.close(drain=True)
        self._loaded.close()

    async def _embed(self, texts: Sequence[str]) -> Floats:
        return await self._forward(await self.engine(None), texts, "END")

    async def _forward(self, engine: Engine, texts: Sequence[str], truncate: Truncate) -> Floats:
        parts: list[Floats] = []
        for start in range(0, len(texts), _SLICE):
            part = texts[start : start + _SLICE]
            inline = sum(map(len, part)) <= _INLINE_CHARACTERS
            items = engine.encode(part, truncate) if inline else await asyncio.to_thread(engine.encode, part, truncate)
            try:
                future = self._batcher.submit(engine, items)
            except QueueFullError as error:
                raise RequestError(429, f"the server is busy: {error}", {"retry-after": "1"}) from None
            metrics.QUEUED_TOKENS.set(self._batcher.queued_tokens)
            parts.append(await asyncio.wrap_future(future))
        return np.concatenate(parts)

    def _load(self, model: Model) -> Engine:
        return Engine.load(self.registry.folder(model.id), device=self._settings.device)

    def _load_base(self) -> Engine:
        return Engine.load_embedder(self._settings.default_base, device=self._settings.device)

    def _still_there(self, key: str) -> bool:
        return key == _BASE or self.registry.folder(key).is_dir()


def _limits(settings: Settings) -> Limits:
    given = {
        "max_tokens": settings.max_batch_tokens,
        "max_items": settings.max_batch_texts,
        "max_waste": settings.max_padding_waste,
        "max_queued_tokens": settings.max_queued_tokens,
    }
    suited = Limits.for_device(cast(Any, choose_device(settings.device).type))
    return suited.model_copy(update={name: value for name, value in given.items() if value is not None})


def _memory_share(settings: Settings) -> int:
    if choose_device(settings.device).type == "cuda":
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
