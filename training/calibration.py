"""From logits to decisions: temperature, probabilities, per-label thresholds. NumPy only."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax

Floats = NDArray[np.float32]


def probabilities(logits: Floats, temperature: float = 1.0, *, multi_label: bool) -> Floats:
    """Turn logits (n, labels) into float32 probabilities: rows sum to one, or each label by itself (multi-label)."""
    scaled = logits.astype(np.float64) / temperature
    if multi_label:
        return expit(scaled).astype(np.float32)
    # SciPy's softmax takes ten times as long for one text, which is a tenth of what a request costs.
    shares = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def log_probabilities(logits: Floats, temperature: float = 1.0) -> NDArray[np.float64]:
    """Turn logits (n, labels) of a single-label head into natural logarithms of the probabilities.

    In double precision and without the probabilities in between, which are zero long before their logarithms end.
    """
    return log_softmax(logits.astype(np.float64) / temperature, axis=1)


def relevance(logits: Floats, temperature: float, bias: float) -> NDArray[np.float64]:
    """Turn a reranker's logits (n,) into probabilities of being relevant (n,), in double precision for close calls."""
    return expit(logits.astype(np.float64) / temperature + bias)


def fit_relevance(logits: Floats, relevant: NDArray[np.bool_]) -> tuple[float, float]:
    """Find the temperature and bias that make held-out judgements most likely (Platt 1999, with a weak prior).

    Relevant passages count as much in all as the others do: how many candidates a query had in the file says
    nothing about how many it will have, and 0.5 should mean "as likely relevant as not" for either kind.

    Args:
        logits: (n,), of passages of queries the network was not trained on.
        relevant: (n,), which of them are relevant.

    Returns:
        Temperature, above 0, and bias; 1 and 0 where the passages are all of one kind.
    """
    if relevant.all() or not relevant.any():
        return 1.0, 0.0
    weights = np.where(relevant, 0.5 / relevant.mean(), 0.5 / (1 - relevant.mean()))
    centre, scores = float(logits.mean()), logits.astype(np.float64) - float(logits.mean())

    def loss(found: NDArray[np.float64]) -> float:
        scaled = scores / np.exp(found[0]) + found[1]
        rows = np.logaddexp(0, scaled) - relevant * scaled
        return float(weights @ rows + found[0] ** 2 + found[1] ** 2)

    from scipy.optimize import minimize  # a quarter of a second, which a server's start need not wait for

    found = minimize(loss, np.zeros(2), method="Nelder-Mead", bounds=[(np.log(0.05), np.log(50)), (-20, 20)]).x
    temperature = float(np.exp(found[0]))
    return temperature, float(found[1] - centre / temperature)


def fit_temperature(logits: Floats, targets: NDArray[np.float32], *, multi_label: bool) -> float:
    """Find the temperature that makes held-out rows most likely (Guo et al. 2017, arXiv:1706.04599, section 4.2).

    A weak prior holds it near 1: a handful of rows that are all answered correctly would otherwise drive it to
    zero, and every answer to certainty.

    Args:
        logits: (n, labels), of rows the network was not trained on.
        targets: (n, labels), 1 where a row has the label, else 0.
        multi_label: independent sigmoids instead of one softmax.
    """

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        if multi_label:
            rows = np.sum(np.logaddexp(0, scaled) - targets * scaled, axis=1)
        else:
            rows = -np.sum(targets * log_softmax(scaled, axis=1), axis=1)
        return float(np.sum(rows) + log_temperature**2)

    from scipy.optimize import minimize_scalar

    found = minimize_scalar(loss, bounds=(np.log(0.2), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def tune_thresholds(probs: Floats, targets: NDArray[np.float32]) -> tuple[float, ...]:
    """For each label, the probability from which predicting it gives the best F1 on held-out rows.

    A label's F1 does not depend on the other labels, so each is searched alone. The threshold is put halfway
    between the last score taken and the first left out; a label without positive rows keeps 0.5.
    """
    return tuple(_best_threshold(probs[:, k], targets[:, k]) for k in range(probs.shape[1]))


def _best_threshold(scores: Floats, target: NDArray[np.float32]) -> float:
    positives = target.sum()
    if positives == 0:
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float64)
    hits = np.cumsum(target[order])
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + positives)
    following = np.append(ranked[1:], 0.0)
    f1[ranked == following] = -1  # equal scores cannot be parted
    best = int(np.argmax(f1))
    between = np.float32((ranked[best] + following[best]) / 2)
    # There is no float32 between neighbours, and what is compared with the threshold is float32.
    return float(between if between > following[best] else ranked[best])
