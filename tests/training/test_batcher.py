"""The live side of the engine. What is scored here is real; only the moment at which a batch ends is chosen."""

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import WORDS
from training.checkpoint import Checkpoint, load_embedder
from training.engine import Batcher, BatchStats, Encoded, Engine, Limits, QueueFullError
from training.engine.engine import Floats

TEXTS = [" ".join(WORDS[(5 * n + k) % len(WORDS)] for k in range(1 + (7 * n) % 40)) for n in range(60)]
SECONDS = 30
"""Until a test gives up; nothing here takes a tenth of it."""


class Gated(Engine):
    """An engine that notes its batches and, once held, runs each only when told to; "late" makes it fail."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        made = Engine.on_torch(checkpoint, torch.device("cpu"))
        super().__init__(made.manifest, made.encoder, made.backend)
        self.batches: list[list[int]] = []
        self.entered, self.turn = threading.Semaphore(0), threading.Semaphore(0)
        self.held = False
        self.poison: list[int] = self.encode(["late"])[0].ids

    def forward(self, items: Sequence[Encoded]) -> Floats:
        self.batches.append([len(item) for item in items])
        self.entered.release()
        if self.held:
            assert self.turn.acquire(timeout=SECONDS)
        if any(item.ids == self.poison for item in items):
            raise RuntimeError("device lost")
        return super().forward(items)

    def let_run(self, batches: int = 1) -> None:
        """Let batches end, and wait until the next one has begun."""
        for _ in range(batches):
            self.turn.release()
            self.await_batch()

    def await_batch(self) -> None:
        assert self.entered.acquire(timeout=SECONDS)

    def release(self) -> None:
        self.held = False
        self.turn.release(10_000)


@pytest.fixture(scope="module")
def checkpoint(base: Path) -> Checkpoint:
    return load_embedder(str(base))


@pytest.fixture
def engine(checkpoint: Checkpoint) -> Gated:
    return Gated(checkpoint)


def result(future: "Future[Floats]") -> Floats:
    return future.result(timeout=SECONDS)


def submit(batcher: Batcher, engine: Engine, items: Sequence[Encoded]) -> "Future[Floats]":
    return batcher.submit(engine, items, Future[Floats]())


def start_held(batcher: Batcher, engine: Gated) -> "Future[Floats]":
    """Occupy the device with a batch of its own, so that what is submitted next waits together."""
    engine.held = True
    first = submit(batcher, engine, engine.encode(["refund"]))
    engine.await_batch()
    return first


def test_results_are_those_of_the_engine(engine: Gated) -> None:
    items = engine.encode(TEXTS)
    expected = engine.score(items)
    batcher = Batcher(Limits(max_tokens=128))
    np.testing.assert_allclose(result(submit(batcher, engine, items)), expected, atol=1e-5)
    batcher.close()


def test_nothing_to_score_is_done_at_once(engine: Gated) -> None:
    batcher = Batcher(Limits())
    assert submit(batcher, engine, []).result(timeout=0).shape == engine.score([]).shape
    batcher.close()
    assert engine.batches == []


def test_a_short_request_does_not_wait_for_a_long_one(engine: Gated) -> None:
    batcher = Batcher(Limits(max_items=10))
    first = start_held(batcher, engine)
    long = submit(batcher, engine, engine.encode(["my order is stuck"] * 500))
    short = submit(batcher, engine, engine.encode(["please refund the invoice today"]))
    engine.let_run()
    result(first)
    engine.let_run(2)
    result(short)  # after two batches
    assert not long.done()
    assert len(engine.batches) == 4
    engine.release()
    assert len(result(long)) == 500
    batcher.close()


def test_each_of_many_requests_gets_its_turn(engine: Gated) -> None:
    batcher = Batcher(Limits(max_items=4, max_waste=1.0, short_tokens=1))
    start_held(batcher, engine)
    requests = [submit(batcher, engine, engine.encode(["is " * n] * 40)) for n in (1, 2, 3, 4, 5)]
    engine.let_run(10)
    assert sorted(batch[0] - 2 for batch in engine.batches[1:6]) == [1, 2, 3, 4, 5]
    assert sorted(batch[0] - 2 for batch in engine.batches[6:11]) == [1, 2, 3, 4, 5]
    engine.release()
    wait(requests, SECONDS)
    batcher.close()


def test_short_requests_are_served_every_other_time_and_keep_the_batches_of_long_ones_small(
    engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.engine.batcher._MINDFUL_SECONDS", 1e9)
    batcher = Batcher(Limits(max_tokens=600, max_waste=1.0, short_tokens=60))
    start_held(batcher, engine)
    long = [submit(batcher, engine, engine.encode(["my order is stuck"] * 500)) for _ in range(3)]
    short = [submit(batcher, engine, engine.encode(["is " * n] * 2)) for n in (5, 10)]
    engine.let_run(5)
    wait(short, SECONDS)
    sizes = [(len(batch), batch[0]) for batch in engine.batches[1:5]]
    assert sorted(size for size in sizes if size[0] == 2) == [(2, 7), (2, 12)]
    assert [size for size in sizes if size[0] != 2] == [(5, 6)] * 2
    assert (sizes[0][0] == 2) != (sizes[1][0] == 2)
    engine.release()
    wait([*long, *short], SECONDS)
    batcher.close()


def test_without_short_requests_batches_are_full(engine: Gated) -> None:
    batcher = Batcher(Limits(max_tokens=600, short_tokens=60))
    result(submit(batcher, engine, engine.encode(["my order is stuck"] * 500)))
    batcher.close()
    assert {len(batch) for batch in engine.batches} == {100}


def test_requests_that_wait_together_share_a_batch(engine: Gated) -> None:
    batcher = Batcher(Limits(max_items=64))
    start_held(batcher, engine)
    requests = [submit(batcher, engine, engine.encode([text])) for text in ["my order is stuck"] * 20]
    engine.release()
    rows = [result(request) for request in requests]
    batcher.close()
    assert [len(batch) for batch in engine.batches] == [1, 20]
    assert all(row.shape == rows[0].shape for row in rows)


def test_two_engines_take_turns(checkpoint: Checkpoint) -> None:
    one, other = Gated(checkpoint), Gated(checkpoint)
    batcher = Batcher(Limits(max_items=5))
    start_held(batcher, one)
    long = submit(batcher, one, one.encode(["my order"] * 200))
    items = other.encode(["order"] * 3)
    short = submit(batcher, other, items)
    one.let_run()  # the long request's first batch has begun
    one.turn.release()
    found = result(short)
    assert len(one.batches) <= 3 and not long.done()
    one.release()
    np.testing.assert_allclose(found, other.score(items), atol=1e-5)
    assert len(result(long)) == 200
    batcher.close()


def test_a_full_queue_refuses_at_once(engine: Gated) -> None:
    items = engine.encode(["my order is stuck"] * 10)
    batcher = Batcher(Limits(max_queued_tokens=100))
    first = start_held(batcher, engine)
    accepted = submit(batcher, engine, items)
    assert batcher.queued_tokens == 60
    with pytest.raises(QueueFullError, match="60 tokens are waiting"):
        submit(batcher, engine, items)
    small = submit(batcher, engine, items[:2])
    engine.release()
    assert [len(result(future)) for future in (first, accepted, small)] == [1, 10, 2]
    assert batcher.queued_tokens == 0
    assert len(result(submit(batcher, engine, items * 5))) == 50  # alone it may be larger than the queue
    batcher.close()


def test_an_error_reaches_the_requests_of_its_batch_alone(engine: Gated) -> None:
    batcher = Batcher(Limits(max_waste=1.0))
    start_held(batcher, engine)
    failing = submit(batcher, engine, engine.encode(["late", "my order is stuck"]))
    beside = submit(batcher, engine, engine.encode(["late"]))
    spared = submit(batcher, engine, engine.encode(["please refund the invoice", "want no refund"]))
    engine.release()
    for future in (failing, beside):
        with pytest.raises(RuntimeError, match="device lost"):
            result(future)
    assert len(result(spared)) == 2
    assert len(result(submit(batcher, engine, engine.encode(["order"])))) == 1
    batcher.close()
    assert batcher.queued_tokens == 0


def test_a_cancelled_request_is_not_scored(engine: Gated) -> None:
    batcher = Batcher(Limits(max_items=3))
    first = start_held(batcher, engine)
    dropped = submit(batcher, engine, engine.encode(["my order"] * 30))
    kept = submit(batcher, engine, engine.encode(["my order is stuck"]))
    assert dropped.cancel()
    engine.release()
    assert len(result(kept)) == len(result(first)) == 1
    batcher.close()
    assert [len(batch) for batch in engine.batches] == [1, 1]
    with pytest.raises(CancelledError):
        dropped.result(timeout=0)


@pytest.mark.parametrize("text", ["my order", "late"])
def test_a_request_may_be_cancelled_while_its_batch_runs(engine: Gated, text: str) -> None:
    batcher = Batcher(Limits(max_items=2))
    start_held(batcher, engine)
    request = submit(batcher, engine, engine.encode([text]))
    engine.let_run()
    assert request.cancel()
    engine.release()
    assert len(result(submit(batcher, engine, engine.encode(["order"])))) == 1
    batcher.close()


def test_closing_finishes_what_was_accepted(engine: Gated) -> None:
    batcher = Batcher(Limits(max_items=4))
    start_held(batcher, engine)
    request = submit(batcher, engine, engine.encode(TEXTS))
    closing = threading.Thread(target=batcher.close)
    closing.start()
    engine.release()
    closing.join(SECONDS)
    assert not closing.is_alive()
    np.testing.assert_allclose(request.result(timeout=0), engine.score(engine.encode(TEXTS)), atol=1e-5)
    with pytest.raises(QueueFullError, match="shutting down"):
        submit(batcher, engine, engine.encode(["order"]))


def test_many_threads_may_submit(checkpoint: Checkpoint) -> None:
    engines = [Gated(checkpoint), Gated(checkpoint)]
    items = engines[0].encode(TEXTS)
    expected = engines[0].score(items)
    batcher = Batcher(Limits(max_tokens=512))

    def request(number: int) -> bool:
        picked = [(number * 13 + k) % len(items) for k in range(1 + number % 9)]
        found = result(submit(batcher, engines[number % 2], [items[i] for i in picked]))
        return np.allclose(found, expected[picked], atol=1e-5)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(request, range(300)))
    batcher.close()
    assert batcher.queued_tokens == 0


def test_the_figures_of_all_batches_add_up(engine: Gated) -> None:
    seen: list[BatchStats] = []
    limits = Limits(max_tokens=128, max_items=7)
    batcher = Batcher(limits, seen.append)
    items = engine.encode(TEXTS)
    for future in [submit(batcher, engine, items[n : n + 9]) for n in range(0, len(items), 9)]:
        result(future)
    batcher.close()
    assert sum(stats.items for stats in seen) == len(items)
    assert sum(stats.tokens for stats in seen) == sum(map(len, items))
    assert [stats.padded_tokens for stats in seen] == [len(batch) * max(batch) for batch in engine.batches]
    assert all(limits.fits(s.items, s.padded_tokens // s.items, s.tokens) for s in seen)
    assert seen[-1].queued_tokens == 0
