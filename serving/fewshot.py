"""Classifying by examples alone: frozen embeddings, and a regularised linear head fitted on the spot."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from serving import metrics
from training.probe import Probe, fit_probe

Floats = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Awaitable[Floats]]
"""Texts to embeddings of shape (texts, hidden)."""
Example = tuple[str, str]
"""A text and the label it is an example of."""


class FewShot:
    """Heads by the content of their examples. The most recently used are remembered, so repeats cost no embedding."""

    def __init__(self, embed: Embed, remembered: int = 64) -> None:
        """Embed by `embed`; hold at most `remembered` heads."""
        self._embed, self._remembered = embed, remembered
        self._heads: OrderedDict[bytes, asyncio.Task[Probe]] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fit")

    async def head(self, examples: Sequence[Example]) -> Probe:
        """The head of these examples, in any order; requests that ask at the same time share one fit."""
        ordered = sorted(examples, key=lambda example: example[::-1])
        key = _content(ordered)
        task = self._heads.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._heads[key] = asyncio.create_task(self._fit(ordered))
        self._heads.move_to_end(key)
        while len(self._heads) > self._remembered:
            self._heads.popitem(last=False)
        return await asyncio.shield(task)  # a caller that gives up leaves the head for its next attempt

    def close(self) -> None:
        """Forget everything and end the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._heads.clear()

    async def _fit(self, examples: Sequence[Example]) -> Probe:
        embeddings = await self._embed([text for text, _ in examples])
        labels = [label for _, label in examples]
        metrics.EXAMPLE_FITS.inc()
        return await asyncio.get_running_loop().run_in_executor(self._thread, fit_probe, embeddings, labels)


def _content(examples: Sequence[Example]) -> bytes:
    digest = hashlib.sha256()
    for example in examples:
        for part in map(str.encode, example):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()
