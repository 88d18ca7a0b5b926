"""Models in memory: loaded on first use, the least recently used ones let go when there are too many bytes of them."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from serving import metrics
from training.engine import Engine


class LoadedModels:
    """Engines by key, up to a budget of bytes. Belongs to one event loop; loading happens in a thread of its own.

    Letting an engine go only drops the reference held here: work in the queue keeps its own.
    """

    def __init__(self, budget: int) -> None:
        """Hold at most `budget` bytes of weights; a single larger model is held alone."""
        self._budget = budget
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Engine]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")

    async def get(self, key: str, load: Callable[[], Engine]) -> Engine:
        """The engine of `key`, by `load` if it is not here; callers that ask meanwhile share one load."""
        if engine := self._engines.get(key):
            self._engines.move_to_end(key)
            return engine
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.create_task(self._load(key, load))
            task.add_done_callback(lambda _: self._loading.pop(key, None))
        return await asyncio.shield(task)  # one caller giving up must not fail the others

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Let go of every engine whose key is no longer wanted."""
        for key in [key for key in self._engines if not wanted(key)]:
            del self._engines[key]
        self._report()

    def close(self) -> None:
        """Let go of everything and end the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._engines.clear()

    async def _load(self, key: str, load: Callable[[], Engine]) -> Engine:
        engine = await asyncio.get_running_loop().run_in_executor(self._thread, load)
        self._engines[key] = engine
        metrics.MODEL_LOADS.inc()
        total = sum(held.nbytes for held in self._engines.values())
        while total > self._budget and len(self._engines) > 1:
            total -= self._engines.popitem(last=False)[1].nbytes
        self._report()
        return engine

    def _report(self) -> None:
        metrics.LOADED_MODELS.set(len(self._engines))
        metrics.LOADED_BYTES.set(sum(engine.nbytes for engine in self._engines.values()))
