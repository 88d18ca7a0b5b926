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
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

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


class Promise(Protocol):
    """A future, asyncio's or that of threads."""

    def done(self) -> bool:
        """Whether it has an answer, or nobody waits for one any more."""
        ...

    def set_result(self, result: Any, /) -> None:
        """Give the answer."""
        ...

    def set_exception(self, exception: Any, /) -> None:
        """Say why there is none."""
        ...


_Promise = TypeVar("_Promise", bound=Promise)
Answers = Sequence[tuple[Promise, Floats | Exception]]


def settle(answers: Answers) -> None:
    """Answer futures, in the thread in which they may be cancelled."""
    for future, answer in answers:
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)


_MINDFUL_SECONDS = 1.0
"""How long after a short request that had to wait for a long one batches stay small."""


@dataclass(slots=True, eq=False)
class _Job:
    engine: Engine
    items: Sequence[Encoded]
    number: int
    future: Promise
    short: bool
    waiting: set[int]
    left: int
    rows: Floats | None = None


@dataclass(slots=True)
class _Queue:
    """What waits for one engine: (tokens, job number, position) in ascending order, and the jobs in turn."""

    entries: list[tuple[int, int, int]] = field(default_factory=list)
    jobs: dict[int, _Job] = field(default_factory=dict)


class Batcher:
    """The device thread and its queue."""

    def __init__(
        self,
        limits: Limits,
        on_batch: Callable[[BatchStats], None] | None = None,
        hand_over: Callable[[Answers], object] = settle,
    ) -> None:
        """Start the thread.

        Args:
            limits: of batches and of what may wait.
            on_batch: called in the thread after every forward pass.
            hand_over: called in the thread with the requests that a pass has finished, all at once as waking another
                thread for each of them would cost more than the rest; it sees to it that they are settled.
        """
        self.limits, self._on_batch, self._hand_over = limits, on_batch, hand_over
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

    def submit(self, engine: Engine, items: Sequence[Encoded], future: _Promise) -> _Promise:
        """Queue texts for an engine.

        Returns:
            The future, which will be float32 (items, width), rows in the order of `items`, or what the engine raised.

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
            job = _Job(engine, items, self._numbers, future, short, set(range(len(items))), len(items))
            if not items:
                future.set_result(engine.score(items))
                return future
            queue = self._queues.setdefault(id(engine), _Queue())
            queue.jobs[job.number] = job
            for position, item in enumerate(items):
                insort(queue.entries, (len(item), job.number, position))
            if short and (self._long_runs or self._lanes[False]):
                self._mindful_until = time.monotonic() + _MINDFUL_SECONDS
            self._lanes[short].append(job)
            self._queued_tokens += tokens
            self._changed.notify()
        return future

    def close(self) -> None:
        """Stop the thread after everything accepted has been scored."""
        with self._changed:
            self._closing = True
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
            self._hand_over([(job.future, error) for job in {id(job): job for job, _ in live}.values()])
            return
        finished = list[tuple[Promise, Floats]]()
        for (job, position), row in zip(live, rows, strict=True):
            if job.rows is None:
                job.rows = np.empty((len(job.items), len(row)), np.float32)
            job.rows[position] = row
            job.left -= 1
            if not job.left:
                finished.append((job.future, job.rows))
        if finished:
            self._hand_over(finished)
        if self._on_batch:
            padded = max(lengths) * len(lengths)
            self._on_batch(BatchStats(len(lengths), sum(lengths), padded, self._queued_tokens))
