import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.batches import Example, collate, epoch_batches, shares
from training.engine.batching import Limits
from training.engine.encoding import Encoded

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=300)


@settings(deadline=None, derandomize=True)
@given(LENGTHS, st.integers(1, 33), st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_an_epoch_sees_every_row_once_in_full_batches(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(lengths, size, seed, epoch)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    assert sorted(map(len, batches))[1:] == [size] * (len(batches) - 1)
    assert batches == epoch_batches(lengths, size, seed, epoch)


def test_order_differs_between_epochs_and_seeds() -> None:
    orders = [epoch_batches([5] * 100, 10, seed, epoch) for seed in (1, 2) for epoch in (0, 1, 2)]
    assert len({str(order) for order in orders}) == len(orders)


def test_batches_hold_texts_of_similar_length_in_random_order() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 2000).tolist()
    batches = epoch_batches(lengths, 16, 0, 0)
    padding = sum(max(lengths[i] for i in b) * len(b) for b in batches) / sum(lengths)
    assert padding < 1.25  # random batches of 16 would pad to about 1.9
    longest = [max(lengths[i] for i in b) for b in batches]
    assert longest != sorted(longest)
    assert abs(float(np.corrcoef(longest, range(len(longest)))[0, 1])) < 0.3


@settings(deadline=None, derandomize=True)
@given(LENGTHS, st.integers(1, 9), st.integers(1, 4000), st.data())
def test_shares_give_each_row_to_one_process_in_equally_many_passes(
    lengths: list[int], world: int, tokens: int, data: st.DataObject
) -> None:
    batch = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, unique=True))
    planned = shares(batch, lengths, Limits(max_tokens=tokens), world)
    assert len(planned) == world
    assert len({len(passes) for passes in planned}) == 1
    assert sorted(i for passes in planned for rows in passes for i in rows) == sorted(batch)
    rows_each = [sum(map(len, passes)) for passes in planned]
    assert max(rows_each) - min(rows_each) <= 1
    for passes in planned:
        for rows in passes:
            assert len(rows) <= 1 or len(rows) * max(lengths[i] for i in rows) <= tokens


def test_fewer_rows_than_processes_leave_empty_passes() -> None:
    assert shares([7], [1] * 8, Limits(), 3) == [[[7]], [[]], [[]]]


def test_collate_pads_on_the_right() -> None:
    targets = np.array([[1, 0], [0, 1]], np.float32)
    examples = [Example(Encoded([5, 6, 7]), targets[0], 2.0), Example(Encoded([8]), targets[1])]
    ids, mask, wanted, weights = collate(examples, 9, torch.device("cpu"))
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert wanted.tolist() == targets.tolist()
    assert weights.tolist() == [2.0, 1.0]
