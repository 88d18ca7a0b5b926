"""Ranking losses over the candidates of a batch of queries."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from training.config import LossName

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Scores, grades and mask, each (queries, longest) and padded with 0, to the loss of each query (queries,).

The mask is true where there is a candidate. A query's loss depends on its own candidates alone and is about as large
for a long list as for a short one.
"""

_MARGIN = 1.0
"""By how much `margin` wants the better of two ahead, in logits."""
_MU = 10.0
"""Weight of the NDCG-Loss2 part in NDCG-Loss2++: the authors' choice."""


def ranking_loss(
    name: LossName, scores: Tensor, grades: Tensor, sizes: Sequence[int], weights: Tensor | None = None
) -> Tensor:
    """Loss of each query (queries,), in the order of `sizes`.

    Args:
        name: a key of `LOSSES`.
        scores: (total,) float32 logits, the candidates of a query next to each other.
        grades: (total,) float32; relevant above 0. For `margin_mse` a teacher's scores.
        sizes: how many candidates each query has, at least one; a list, so that a GPU need not be waited for.
        weights: (queries,) factors of the losses; all 1 without.
    """
    parts = list(sizes)
    mask = torch.arange(max(parts)) < torch.tensor(parts)[:, None]
    padded, wanted = (pad_sequence(list(values.split(parts)), batch_first=True) for values in (scores, grades))
    losses = LOSSES[name](padded, wanted, mask.to(scores.device, non_blocking=True))
    return losses if weights is None else losses * weights


def listwise(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """Softmax cross-entropy of the candidates (ListNet's top-one model; Cao et al. 2007, ICML).

    Relevant candidates share the target in proportion to their grades, the others have none of it: the paper's
    phi is the identity here. Without a relevant candidate there is no target and no loss.
    """
    gains = grades.clamp(min=0)
    target = gains / gains.sum(dim=1, keepdim=True).clamp(min=torch.finfo(gains.dtype).tiny)
    lowest = torch.finfo(scores.dtype).min  # not -inf, which times a target of zero is no number
    return -(target * scores.masked_fill(~mask, lowest).log_softmax(dim=1)).sum(dim=1)


def pointwise(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy, averaged over the candidates (Nogueira and Cho 2019, arXiv:1901.04085).

    Grades from 0 to 1 are probabilities; any above 1 counts as 1. The only loss that learns from the grade of a
    lone candidate.
    """
    losses = functional.binary_cross_entropy_with_logits(scores, grades.clamp(0, 1), reduction="none")
    return (losses * mask).sum(dim=1) / mask.sum(dim=1)


def ranknet(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """Logistic loss of score differences, averaged over pairs of unequal grade (RankNet; Burges et al. 2005, ICML)."""
    return _mean(functional.softplus(-_differences(scores)), _better(grades, mask))


def margin(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """Hinge loss of score differences, averaged over pairs of unequal grade (ranking SVM; Joachims 2002, KDD)."""
    return _mean((_MARGIN - _differences(scores)).clamp(min=0), _better(grades, mask))


def lambda_(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """NDCG-Loss2++ of LambdaLoss (Wang et al. 2018, CIKM): pairs weigh what swapping them does to ndcg.

    The gain is linear in the grade, as in `RankingMetrics`, where the paper has 2**grade - 1; the same for grades
    of 0 and 1. Ranks are those of the scores as they stand, without a gradient of their own.
    """
    gains = grades.clamp(min=0)
    order = scores.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True, stable=True)
    ranks = order.argsort(dim=1) + 1
    ideal = gains.sort(dim=1, descending=True).values
    best = (ideal * _discount(torch.arange(1, ideal.shape[1] + 1, device=ideal.device))).sum(dim=1)
    apart = _differences(ranks).abs().clamp(min=1)
    by_swap = _differences(_discount(ranks)).abs()
    by_distance = _discount(apart) - _discount(apart + 1)
    change = _differences(gains).abs() / best.clamp(min=torch.finfo(gains.dtype).tiny)[:, None, None]
    losses = functional.softplus(-_differences(scores)) / math.log(2)
    return ((by_swap + _MU * by_distance) * change * losses * _better(gains, mask)).sum(dim=(1, 2))


def margin_mse(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """Squared error of score differences against a teacher's (Hofstätter et al. 2020, arXiv:2010.02666).

    Averaged over all pairs of a query, where the paper has one relevant and one other passage; `grades` are the
    teacher's scores. Over pairs, the mean of squared differences of errors is twice the errors' variance.
    """
    count = mask.sum(dim=1)
    errors = scores - grades
    mean = (errors * mask).sum(dim=1, keepdim=True) / count[:, None]
    return 2 * ((errors - mean) * mask).square().sum(dim=1) / (count - 1).clamp(min=1)


LOSSES: dict[LossName, Loss] = {
    "listwise": listwise,
    "pointwise": pointwise,
    "ranknet": ranknet,
    "margin": margin,
    "lambda": lambda_,
    "margin_mse": margin_mse,
}


def _differences(values: Tensor) -> Tensor:
    """Each value minus each other of its row: (queries, longest) to (queries, longest, longest)."""
    return values[:, :, None] - values[:, None, :]


def _better(grades: Tensor, mask: Tensor) -> Tensor:
    """Where the candidate of the row has a higher grade than that of the column (queries, longest, longest)."""
    return (_differences(grades) > 0) & mask[:, :, None] & mask[:, None, :]


def _mean(losses: Tensor, pairs: Tensor) -> Tensor:
    return (losses * pairs).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)


def _discount(ranks: Tensor) -> Tensor:
    return 1 / torch.log2(ranks + 1.0)
