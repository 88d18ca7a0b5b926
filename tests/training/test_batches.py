import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.batches import Example, collate, epoch_batches, shares
from training.engine.batching import Limits
from training.engine.encoding import Encoded
from training.unpadded import Flat

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=300)


def order(lengths: list[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    return [batch.tolist() for batch in epoch_batches(np.array(lengths, np.int32), size, seed, epoch)]


def one_by_one(lengths: list[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """The order that runs of any version must see, so that they can be resumed."""
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(lengths)).tolist()
    batches: list[list[int]] = []
    for start in range(0, len(shuffled), size * 8):
        pool = sorted(shuffled[start : start + size * 8], key=lambda i: (lengths[i], i))
        batches += [pool[i : i + size] for i in range(0, len(pool), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


@settings(deadline=None, derandomize=True)
@given(LENGTHS, st.integers(1, 33), st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_an_epoch_sees_every_row_once_in_full_batches(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    batches = order(lengths, size, seed, epoch)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    assert sorted(map(len, batches))[1:] == [size] * (len(batches) - 1)
    assert batches == one_by_one(lengths, size, seed, epoch)


def test_order_differs_between_epochs_and_seeds() -> None:
    orders = [order([5] * 100, 10, seed, epoch) for seed in (1, 2) for epoch in (0, 1, 2)]
    assert len({str(found) for found in orders}) == len(orders)


def test_batches_hold_texts_of_similar_length_in_random_order() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 2000).tolist()
    batches = order(lengths, 16, 0, 0)
    padding = sum(max(lengths[i] for i in b) * len(b) for b in batches) / sum(lengths)
    assert padding < 1.25  # random batches of 16 would pad to about 1.9
    longest = [max(lengths[i] for i in b) for b in batches]
    assert longest != sorted(longest)
    assert abs(float(np.corrcoef(longest, range(len(longest)))[0, 1])) < 0.3


def example(*lengths: int, mark: float = 0) -> Example:
    items = tuple(Encoded([1] * length) for length in lengths)
    return Example(items, np.full(len(lengths), mark, np.float32))


def marks(examples: list[Example]) -> list[float]:
    return [float(each.target[0]) for each in examples]


GROUPS = st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=9), min_size=1, max_size=60)


@settings(deadline=None, derandomize=True)
@given(GROUPS, st.integers(1, 9), st.integers(1, 4000))
def test_shares_give_each_example_to_one_process_in_equally_many_passes(
    groups: list[list[int]], world: int, tokens: int
) -> None:
    batch = [example(*lengths, mark=number) for number, lengths in enumerate(groups)]
    planned = shares(batch, Limits(max_tokens=tokens), world)
    assert len(planned) == world
    assert len({len(passes) for passes in planned}) == 1
    assert sorted(mark for passes in planned for part in passes for mark in marks(part)) == list(range(len(batch)))
    each = [sum(map(len, passes)) for passes in planned]
    assert max(each) - min(each) <= 1
    for passes in planned:
        for part in passes:
            items = sum(len(one.items) for one in part)
            assert len(part) <= 1 or items * max(one.longest for one in part) <= tokens


def test_fewer_examples_than_processes_leave_empty_passes() -> None:
    planned = shares([example(1, mark=7)], Limits(), 3)
    assert [[marks(part) for part in passes] for passes in planned] == [[[7]], [[]], [[]]]


def test_collate_puts_texts_side_by_side_padded_on_the_right() -> None:
    targets = np.array([[1, 0], [0, 1]], np.float32)
    examples = [Example((Encoded([5, 6, 7]),), targets[:1], 2.0), Example((Encoded([8]),), targets[1:])]
    batch = collate(examples, 9, torch.device("cpu"))
    assert batch.inputs.ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch.inputs.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.targets.tolist() == targets.tolist()
    assert batch.weights.tolist() == [2.0, 1.0]
    assert batch.sizes == [1, 1]


def test_collate_keeps_the_candidates_of_a_query_together() -> None:
    first = Example((Encoded([5, 6], 1), Encoded([5, 7, 8], 1)), np.array([1, 0], np.float32))
    second = Example((Encoded([3, 4, 9], 2),), np.array([2], np.float32), 0.5)
    batch = collate([first, second], 0, torch.device("cpu"))
    assert batch.inputs.ids.tolist() == [[5, 6, 0], [5, 7, 8], [3, 4, 9]]
    assert batch.inputs.split.tolist() == [1, 1, 2]
    assert batch.targets.tolist() == [1, 0, 2]
    assert (batch.sizes, batch.weights.tolist()) == ([2, 1], [1.0, 0.5])


def test_without_padding_only_real_tokens_take_room() -> None:
    batch = [example(90), *(example(10) for _ in range(9))]
    limits = Limits(max_tokens=200, max_waste=1.0)
    assert len(shares(batch, limits, 1)[0]) == 2
    assert len(shares(batch, limits, 1, unpadded=True)[0]) == 1
    assert len(shares(batch, limits.model_copy(update={"max_tokens": 179}), 1, unpadded=True)[0]) == 2


def test_collate_without_padding_puts_texts_one_after_the_other() -> None:
    first = Example((Encoded([5, 6], 1), Encoded([5, 7, 8], 1)), np.array([1, 0], np.float32))
    second = Example((Encoded([3, 4, 9], 2),), np.array([2], np.float32), 0.5)
    (flat,) = collate([first, second], None, torch.device("cpu")).inputs
    assert isinstance(flat, Flat)
    assert flat.together.total == flat.apart.total == 8
    assert flat.ids[0, :8].tolist() == [5, 6, 5, 7, 8, 3, 4, 9]
    assert flat.places[0, :8].tolist() == [0, 1, 0, 1, 2, 0, 1, 2]
    assert flat.parted[0, :8].tolist() == [0, 0, 0, 0, 1, 0, 1, 0]
    assert (flat.together.ends.tolist(), flat.together.longest) == ([0, 2, 5, 8], 3)
    assert (flat.apart.ends.tolist(), flat.apart.longest) == ([0, 1, 2, 3, 5, 7, 8], 2)
