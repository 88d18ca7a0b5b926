from math import exp, log, log2
from typing import get_args

import pytest
import torch
from torch import Tensor

from training.losses import LOSSES, LossName, ranking_loss

NAMES: list[LossName] = list(get_args(LossName))
COMPARING: list[LossName] = [name for name in NAMES if name != "pointwise"]
PAIRWISE: list[LossName] = ["ranknet", "margin", "lambda"]

# Two graded lists around a single candidate and a list without a relevant one.
SIZES = [3, 1, 5, 2]
SCORES = [0.5, -1.2, 2.0, 0.7, 0.1, 0.9, -0.4, 1.4, -2.0, 0.3, 0.6]
GRADES = [1.0, 0.0, 0.0, 1.0, 0.0, 3.0, 1.0, 0.0, 2.0, 0.0, 0.0]


def loss(name: LossName, scores: list[float], grades: list[float]) -> float:
    """Loss of one query, computed beside a longer one so that it is padded."""
    padding = [0.0] * 7
    return float(
        ranking_loss(name, torch.tensor(scores + padding), torch.tensor(grades + padding), [len(scores), 7])[0]
    )


def losses(name: LossName, scores: Tensor) -> Tensor:
    return ranking_loss(name, scores, torch.tensor(GRADES), SIZES)


def logistic(difference: float) -> float:
    return log(1 + exp(-difference))


def test_every_name_has_its_loss() -> None:
    assert list(LOSSES) == NAMES


def test_listwise_by_hand() -> None:
    # softmax of (log 6, log 3, log 1) is (0.6, 0.3, 0.1)
    scores = [log(6), log(3), log(1)]
    assert loss("listwise", scores, [0, 1, 0]) == pytest.approx(-log(0.3))
    assert loss("listwise", scores, [1, 0, 1]) == pytest.approx(-(log(0.6) + log(0.1)) / 2)
    assert loss("listwise", scores, [3, 1, 0]) == pytest.approx(-(3 * log(0.6) + log(0.3)) / 4)
    assert loss("listwise", scores, [1, 0, -1]) == pytest.approx(-log(0.6))


def test_pointwise_by_hand() -> None:
    # sigmoid of log 3 is 0.75, of 0 is 0.5
    assert loss("pointwise", [log(3), 0.0], [1, 0]) == pytest.approx(-(log(0.75) + log(0.5)) / 2)
    assert loss("pointwise", [log(3)], [0.2]) == pytest.approx(-(0.2 * log(0.75) + 0.8 * log(0.25)))
    assert loss("pointwise", [log(3)], [3]) == pytest.approx(-log(0.75))


def test_ranknet_by_hand() -> None:
    # better, worse: (0, 1), (0, 2), (2, 1)
    expected = (logistic(1 - 2) + logistic(1 - 0.5) + logistic(0.5 - 2)) / 3
    assert loss("ranknet", [1.0, 2.0, 0.5], [2, 0, 1]) == pytest.approx(expected)


def test_margin_by_hand() -> None:
    # Behind by 1 costs 2, ahead by 0.5 costs 0.5, ahead by 2 costs nothing.
    assert loss("margin", [1.0, 2.0, 0.5, -1.0], [1, 0, 0, 0]) == pytest.approx((2 + 0.5 + 0) / 3)


def test_lambda_by_hand() -> None:
    # Scores put the grades 2, 0, 1 on ranks 2, 1, 3. Discounts of ranks 1 to 4:
    first, second, third = 1.0, 1 / log2(3), 1 / log2(4)
    best = 2 * first + 1 * second
    # (0, 1): grades 2 and 0 on ranks 2 and 1; (0, 2): 2 and 1 on 2 and 3; (2, 1): 1 and 0 on 3 and 1.
    pairs = [
        (first - second + 10 * (first - second), 2, 1 - 2),
        (second - third + 10 * (first - second), 1, 1 - 0),
        (first - third + 10 * (second - third), 1, 0 - 2),
    ]
    expected = sum(weight * change / best * logistic(ahead) / log(2) for weight, change, ahead in pairs)
    assert loss("lambda", [1.0, 2.0, 0.0], [2, 0, 1]) == pytest.approx(expected)


def test_margin_mse_by_hand() -> None:
    # A pair: the passage is ahead by 3, the teacher has it ahead by 1.
    assert loss("margin_mse", [2.0, -1.0], [5.0, 4.0]) == pytest.approx((3 - 1) ** 2)
    # Differences of the pairs (0, 1), (0, 2), (1, 2): 1, -1, -2 against the teacher's 2, 3, 1.
    expected = ((1 - 2) ** 2 + (-1 - 3) ** 2 + (-2 - 1) ** 2) / 3
    assert loss("margin_mse", [1.0, 0.0, 2.0], [9.0, 7.0, 6.0]) == pytest.approx(expected)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name: LossName) -> None:
    scores = torch.tensor(SCORES, dtype=torch.float64, requires_grad=True)
    grades = torch.tensor(GRADES, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: ranking_loss(name, s, grades, SIZES), scores)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_losses_and_gradients_are_finite(name: LossName, scale: float) -> None:
    scores = (torch.tensor(SCORES) * scale).requires_grad_()
    found = losses(name, scores)
    found.sum().backward()
    assert found.shape == (len(SIZES),) and found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert scores.grad is not None and torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("name", COMPARING)
def test_only_differences_of_scores_count(name: LossName) -> None:
    scores = torch.tensor(SCORES, requires_grad=True)
    found = losses(name, scores)
    assert torch.allclose(found, losses(name, scores.detach() + 5), atol=1e-4)
    found.sum().backward()
    assert scores.grad is not None
    sums = torch.stack([part.sum() for part in scores.grad.split(SIZES)])
    assert torch.allclose(sums, torch.zeros(len(SIZES)), atol=1e-5)


@pytest.mark.parametrize("name", COMPARING)
def test_a_single_candidate_teaches_nothing(name: LossName) -> None:
    scores = torch.tensor(SCORES, requires_grad=True)
    found = losses(name, scores)
    found.sum().backward()
    assert scores.grad is not None
    assert found[1] == 0
    assert scores.grad.split(SIZES)[1].tolist() == [0]
    assert loss(name, [3.0], [0]) == 0


def test_a_single_candidate_teaches_its_grade_pointwise() -> None:
    assert loss("pointwise", [0.0], [1]) == pytest.approx(log(2))


@pytest.mark.parametrize("name", ["listwise", *PAIRWISE])
def test_a_query_without_a_relevant_candidate_teaches_nothing(name: LossName) -> None:
    scores = torch.tensor(SCORES, requires_grad=True)
    found = losses(name, scores)
    found.sum().backward()
    assert scores.grad is not None
    assert found[3] == 0
    assert scores.grad.split(SIZES)[3].tolist() == [0, 0]


@pytest.mark.parametrize("name", PAIRWISE)
def test_equal_grades_are_not_told_apart(name: LossName) -> None:
    assert loss(name, [3.0, -1.0, 2.0], [2, 2, 2]) == 0


def test_margin_leaves_pairs_alone_that_are_far_enough_apart() -> None:
    scores = torch.tensor([2.0, 0.5, 1.5], requires_grad=True)
    ranking_loss("margin", scores, torch.tensor([1.0, 0.0, 0.0]), [3]).sum().backward()
    assert scores.grad is not None and scores.grad.tolist() == [-0.5, 0, 0.5]


@pytest.mark.parametrize("name", COMPARING[:-1])
def test_a_step_down_the_gradient_lifts_the_relevant(name: LossName) -> None:
    scores = torch.tensor([0.0, 0.1, 0.2], requires_grad=True)
    ranking_loss(name, scores, torch.tensor([1.0, 0.0, 0.0]), [3]).sum().backward()
    assert scores.grad is not None
    assert scores.grad[0] < 0 and (scores.grad[1:] > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_querys_loss_does_not_depend_on_the_others(name: LossName) -> None:
    together = losses(name, torch.tensor(SCORES))
    parts = [torch.tensor(values).split(SIZES) for values in (SCORES, GRADES)]
    alone = [ranking_loss(name, s, g, [len(s)]) for s, g in zip(*parts, strict=True)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)
    scores, grades = (torch.cat(list(part)[::-1]) for part in parts)
    assert torch.allclose(together, ranking_loss(name, scores, grades, SIZES[::-1]).flip(0), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_candidates_does_not_matter(name: LossName) -> None:
    order = [4, 2, 0, 1, 3]
    scores, grades = SCORES[4:9], GRADES[4:9]
    shuffled = loss(name, [scores[i] for i in order], [grades[i] for i in order])
    assert shuffled == pytest.approx(loss(name, scores, grades), rel=1e-5)


def test_weights_multiply_the_losses() -> None:
    scores, grades, weights = torch.tensor(SCORES), torch.tensor(GRADES), torch.tensor([1.0, 2.0, 0.5, 0.0])
    found = ranking_loss("pointwise", scores, grades, SIZES, weights)
    assert torch.equal(found, ranking_loss("pointwise", scores, grades, SIZES) * weights)


def test_sizes_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(RuntimeError, match="sum exactly"):
        ranking_loss("listwise", torch.tensor(SCORES), torch.tensor(GRADES), [3, 3])
