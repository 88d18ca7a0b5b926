from hypothesis import given, settings
from hypothesis import strategies as st

from training.engine.batching import Limits, grow, plan

LENGTHS = st.lists(st.integers(1, 300), max_size=120)
LIMITS = st.builds(Limits, max_tokens=st.integers(1, 2000), max_waste=st.floats(1, 4), max_items=st.integers(1, 40))


@settings(deadline=None, derandomize=True)
@given(LENGTHS, LIMITS)
def test_plan_holds_every_position_once_and_keeps_the_limits(lengths: list[int], limits: Limits) -> None:
    batches = list(plan(lengths, limits))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        sizes = [lengths[i] for i in batch]
        if len(batch) > 1:
            assert len(batch) <= limits.max_items
            assert len(batch) * max(sizes) <= limits.max_tokens
            assert len(batch) * max(sizes) <= limits.max_waste * sum(sizes)


@settings(deadline=None, derandomize=True)
@given(LENGTHS, LIMITS)
def test_plan_goes_from_long_to_short_in_runs_of_the_length_order(lengths: list[int], limits: Limits) -> None:
    batches = [[lengths[i] for i in batch] for batch in plan(lengths, limits)]
    assert all(batch == sorted(batch) for batch in batches)
    assert [size for batch in reversed(batches) for size in batch] == sorted(lengths)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=60).map(sorted), st.data(), LIMITS)
def test_grow_gives_a_full_range_around_the_seed(lengths: list[int], data: st.DataObject, limits: Limits) -> None:
    seed = data.draw(st.integers(0, len(lengths) - 1))
    low, high = grow(lengths, seed, limits)
    assert 0 <= low <= seed < high <= len(lengths)
    assert limits.fits(high - low, lengths[high - 1], sum(lengths[low:high]))
    if low > 0:
        assert not limits.fits(high - low + 1, lengths[high - 1], sum(lengths[low - 1 : high]))
    if high < len(lengths):
        assert not limits.fits(high - low + 1, lengths[high], sum(lengths[low : high + 1]))


def test_grow_takes_the_nearest_length_first() -> None:
    lengths = [10, 19, 20, 22, 30]
    assert grow(lengths, 2, Limits(max_items=2)) == (1, 3)
    assert grow(lengths, 2, Limits(max_items=3, max_waste=2)) == (1, 4)


def test_grow_goes_on_at_one_side_when_the_other_is_refused() -> None:
    assert grow([1, 20, 21, 22], 1, Limits(max_items=10, max_waste=1.2)) == (1, 4)
    assert grow([18, 19, 20, 100], 2, Limits(max_items=10, max_waste=1.2)) == (0, 3)


def test_a_text_above_the_budget_goes_alone() -> None:
    assert list(plan([5000, 3, 3], Limits(max_tokens=100))) == [[0], [1, 2]]
    assert grow([5000], 0, Limits(max_tokens=100)) == (0, 1)


def test_a_long_text_does_not_drag_short_ones_along() -> None:
    batches = list(plan([4] * 20 + [100], Limits(max_tokens=10_000)))
    assert batches == [[20], list(range(20))]


def test_nothing_gives_no_batches() -> None:
    assert list(plan([], Limits())) == []


def test_a_gpu_takes_larger_batches_than_a_cpu() -> None:
    assert Limits.for_device("cpu") == Limits()
    assert Limits.for_device("cuda").max_tokens > Limits.for_device("cpu").max_tokens
