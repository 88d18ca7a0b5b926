"""Requests that arrive together are scored together: the live side of the engine.

One thread owns the device. Everything submitted, by any request and for any engine, waits in one place; the
thread builds each batch around the next request's longest waiting text and fills it with texts of the nearest
length from all requests for the same engine. Requests take turns, short ones every other time, so that a thousand
documents delay a short request by one batch; and that batch is kept small while short requests come in. There is no
waiting window: while a batch runs, the next one gathers.
"""

import threading
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.engine.backend import Floats
from training.engine.batching import Limits, grow
from training.engine.encoding import Encoded
from training.engine.engine import Engine
from training.errors import EncoreError


class QueueFullError(EncoreError):
    """More tokens wait than the limits allow; try again later."""


@dataclass(frozen=True, slots=True)
class BatchStats:
    """One forward pass, for metrics."""

    items: int
    tokens: int
    padded_tokens: int
    queued_tokens: int


_MINDFUL_SECONDS = 1.0
"""How long after a short request that had to wait for a long one batches stay small."""


@dataclass(slots=True, eq=False)
class _Job:
    engine: Engine
    items: Sequence[Encoded]
    number: int
    waiting: set[int]
    rows: list[Any]
    short: bool
    future: "Future[Floats]" = field(default_factory=Future)
    left: int = 0


@dataclass(slots=True)
class _Queue:
    """What waits for one engine: (tokens, job number, position) in ascending order, and the jobs in turn."""

    entries: list[tuple[int, int, int]] = field(default_factory=list)
    jobs: dict[int, _Job] = field(default_factory=dict)


class Batcher:
    """The device thread and its queue."""

    def __init__(self, limits: Limits, on_batch: Callable[[BatchStats], None] | None = None) -> None:
        """Start the thread; `on_batch` is called in it after every forward pass."""
        self.limits, self._on_batch = limits, on_batch
        self._changed = threading.Condition()
        self._small = limits.model_copy(update={"max_tokens": min(limits.max_tokens, max(1, limits.short_tokens // 2))})
        self._queues: dict[int, _Queue] = {}
        self._lanes: dict[bool, deque[_Job]] = {True: deque(), False: deque()}
        self._lane = False
        self._mindful_until = 0.0
        self._queued_tokens = self._numbers = 0
        self._closing = self._long_runs = False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for a forward pass."""
        return self._queued_tokens

    def submit(self, engine: Engine, items: Sequence[Encoded]) -> "Future[Floats]":
        """Queue texts for an engine.

        Returns:
            A future of float32 (items, width), rows in the order of `items`. It fails with what the engine raised.

        Raises:
            QueueFullError: too much is waiting already, or the batcher is closed.
        """
        tokens = sum(len(item) for item in items)
        with self._changed:
            if self._closing:
                raise QueueFullError("the server is shutting down")
            if self._queued_tokens and self._queued_tokens + tokens > self.limits.max_queued_tokens:
                raise QueueFullError(f"{self._queued_tokens} tokens are waiting already; try again in a moment")
            self._numbers += 1
            short = tokens <= self.limits.short_tokens
            rows: list[Any] = [None] * len(items)
            job = _Job(engine, items, self._numbers, set(range(len(items))), rows, short, left=len(items))
            if not items:
                job.future.set_result(engine.score(items))
                return job.future
            queue = self._queues.setdefault(id(engine), _Queue())
            queue.jobs[job.number] = job
            for position, item in enumerate(items):
                insort(queue.entries, (len(item), job.number, position))
            if short and (self._long_runs or self._lanes[False]):
                self._mindful_until = time.monotonic() + _MINDFUL_SECONDS
            self._lanes[short].append(job)
            self._queued_tokens += tokens
            self._changed.notify()
        return job.future

    def close(self, *, drain: bool = True) -> None:
        """Stop the thread, after everything accepted has been scored (`drain`) or at once."""
        with self._changed:
            self._closing = True
            if not drain:
                for lane in self._lanes.values():
                    for job in lane:
                        job.future.cancel()
                    lane.clear()
                self._queues.clear()
                self._queued_tokens = 0
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._long_runs = False
                while not any(self._lanes.values()) and not self._closing:
                    self._changed.wait()
                if not any(self._lanes.values()):
                    return
                engine, picked = self._pick()
                self._long_runs = any(not job.short for job, _ in picked)
            self._forward(engine, picked)

    def _pick(self) -> tuple[Engine, list[tuple[_Job, int]]]:
        """Take one batch out of the queue. Called with the lock held."""
        self._lane = not self._lane if all(self._lanes.values()) else bool(self._lanes[True])
        job = self._lanes[self._lane][0]
        self._lanes[self._lane].rotate(-1)
        limits = self._small if time.monotonic() < self._mindful_until else self.limits
        queue = self._queues[id(job.engine)]
        longest = max(job.waiting, key=lambda i: (len(job.items[i]), i))
        seed = bisect_left(queue.entries, (len(job.items[longest]), job.number, longest))
        low, high = grow([entry[0] for entry in queue.entries], seed, limits)
        picked = [(queue.jobs[number], position) for _, number, position in queue.entries[low:high]]
        self._queued_tokens -= sum(entry[0] for entry in queue.entries[low:high])
        del queue.entries[low:high]
        for owner, position in picked:
            owner.waiting.discard(position)
            if not owner.waiting and owner.number in queue.jobs:
                del queue.jobs[owner.number]
                self._lanes[owner.short].remove(owner)
        if not queue.jobs:
            del self._queues[id(job.engine)]
        return job.engine, picked

    def _forward(self, engine: Engine, picked: list[tuple[_Job, int]]) -> None:
        live = [(job, position) for job, position in picked if not job.future.done()]
        if not live:
            return
        lengths = [len(job.items[position]) for job, position in live]
        try:
            rows = engine.forward([job.items[position] for job, position in live])
        except Exception as error:  # whatever a device raises belongs to the requests of this batch, not to the thread
            for job in {id(job): job for job, _ in live}.values():
                if job.future.set_running_or_notify_cancel():
                    job.future.set_exception(error)
            return
        for (job, position), row in zip(live, rows, strict=True):
            job.rows[position] = row
            job.left -= 1
            if job.left == 0 and job.future.set_running_or_notify_cancel():
                job.future.set_result(np.stack(job.rows))
        if self._on_batch:
            padded = max(lengths) * len(lengths)
            self._on_batch(BatchStats(len(lengths), sum(lengths), padded, self._queued_tokens))
