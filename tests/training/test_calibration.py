import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from training.calibration import Floats, fit_temperature, log_probabilities, probabilities, tune_thresholds


def one_hot(classes: NDArray[np.int64], width: int) -> NDArray[np.float32]:
    return np.eye(width, dtype=np.float32)[classes]


def drawn(temperature: float, rows: int = 20_000, width: int = 4) -> tuple[Floats, NDArray[np.float32]]:
    """Logits whose classes were drawn at the given temperature."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3, size=(rows, width)).astype(np.float32)
    noise = rng.gumbel(size=logits.shape)  # the largest of logit + Gumbel noise is a draw from the softmax
    return logits, one_hot((logits / temperature + noise).argmax(axis=1), width)


def log_loss(logits: Floats, targets: NDArray[np.float32], temperature: float) -> float:
    return -float((targets * log_softmax(logits.astype(np.float64) / temperature, axis=1)).sum())


def test_logarithms_go_on_where_probabilities_are_zero() -> None:
    logits = np.array([[0, 1, -500], [3, -4, 2]], np.float32)
    for temperature in (0.5, 3.0):
        logs = log_probabilities(logits, temperature)
        assert np.exp(logs) == pytest.approx(probabilities(logits, temperature, multi_label=False), abs=1e-7)
        assert logs[:, 0] - logs[:, 2] == pytest.approx((logits[:, 0] - logits[:, 2]) / temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5, 6.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    logits, targets = drawn(temperature)
    assert fit_temperature(logits, targets, multi_label=False) == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_a_known_temperature_of_independent_labels_is_found(temperature: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(scale=3, size=(10_000, 3)).astype(np.float32)
    targets = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits / temperature))).astype(np.float32)
    assert fit_temperature(logits, targets, multi_label=True) == pytest.approx(temperature, rel=0.03)


def test_a_few_rows_without_a_mistake_do_not_make_it_certain() -> None:
    targets = one_hot(np.array([0, 1, 2, 0]), 3)
    found = fit_temperature(3 * targets, targets, multi_label=False)
    assert 0.6 < found <= 1.0
    assert probabilities(3 * targets, found, multi_label=False).max() < 0.995


@settings(deadline=None, derandomize=True)
@given(
    arrays(np.float32, (12, 3), elements=st.floats(-9, 9, width=32)), arrays(np.int64, 12, elements=st.integers(0, 2))
)
def test_held_out_rows_are_never_less_likely_than_before(logits: Floats, classes: NDArray[np.int64]) -> None:
    targets = one_hot(classes, 3)
    found = fit_temperature(logits, targets, multi_label=False)
    assert 0.2 <= found <= 20
    assert log_loss(logits, targets, found) + np.log(found) ** 2 <= log_loss(logits, targets, 1.0) + 1e-4


def test_probabilities_are_a_softmax_or_sigmoids_at_a_temperature() -> None:
    logits = np.array([[1.0, 2.0, -4.0], [0.0, 0.0, 0.0]], np.float32)
    single = probabilities(logits, 2.0, multi_label=False)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, softmax(logits / 2, axis=1), atol=1e-6)
    np.testing.assert_allclose(single.sum(axis=1), 1, atol=1e-6)
    multi = probabilities(logits, 2.0, multi_label=True)
    assert multi.dtype == np.float32
    np.testing.assert_allclose(multi, 1 / (1 + np.exp(-logits / 2)), atol=1e-6)


def test_extreme_logits_overflow_nowhere() -> None:
    logits = np.array([[1e4, -1e4]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert probabilities(logits, 0.2, multi_label=False).tolist() == [[1, 0]]
        assert probabilities(logits, 0.2, multi_label=True).tolist() == [[1, 0]]


# Few distinct values, so that ties are frequent, and neighbours with no float32 between them.
_TIGHT = [0.25, float(np.nextafter(np.float32(0.25), np.float32(1))), 0.5, 0.75, 1.0]
_SCORES = st.sampled_from(_TIGHT) | st.floats(2**-20, 1.0, width=32)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(st.tuples(_SCORES, st.booleans()), min_size=1, max_size=25))
def test_thresholds_give_the_best_f1_there_is(rows: list[tuple[float, bool]]) -> None:
    scores = np.array([[score] for score, _ in rows], np.float32)
    truth = np.array([positive for _, positive in rows])
    [threshold] = tune_thresholds(scores, truth[:, None].astype(np.float32))

    def f1(cut: float) -> float:
        taken = scores[:, 0] >= np.float32(cut)
        return 2 * float((taken & truth).sum()) / max(float(taken.sum() + truth.sum()), 1)

    assert 0 < threshold <= 1
    if not truth.any():
        assert threshold == 0.5
    else:
        assert f1(threshold) == pytest.approx(max(f1(float(cut)) for cut in scores[:, 0]))


def test_each_label_has_its_own_threshold_halfway_between_two_scores() -> None:
    probs = np.array([[0.9, 0.2, 0.5], [0.6, 0.3, 0.1], [0.2, 0.1, 0.9]], np.float32)
    targets = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]], np.float32)
    assert tune_thresholds(probs, targets) == pytest.approx((0.4, 0.15, 0.5))
