"""A linear classifier on frozen embeddings: answers few-shot requests and gives fine-tuning its first head."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.calibration import Floats, probabilities

_ITERATIONS = 200
_LEAST_SHARE = 0.02
"""Of a softened target; smaller ones would cost a row each and change nothing."""


@dataclass(frozen=True, slots=True)
class Linear:
    """Weights (labels, hidden) and bias (labels,) of a linear layer on embeddings."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True, slots=True)
class Probe:
    """A fitted classifier over labels."""

    labels: tuple[str, ...]
    linear: Linear

    def probabilities(self, embeddings: Floats) -> Floats:
        """Embeddings (n, hidden) to probabilities (n, labels), rows summing to one."""
        return probabilities(embeddings @ self.linear.weight.T + self.linear.bias, multi_label=False)


def fit_probe(embeddings: Floats, labels: Sequence[str], strength: float = 1.0) -> Probe:
    """Fit a regularised multinomial logistic regression.

    Args:
        embeddings: (n, hidden).
        labels: one per embedding, at least two distinct; the probe lists them sorted.
        strength: inverse regularisation, relative to embeddings of unit variance.
    """
    names = sorted(set(labels))
    targets = np.zeros((len(labels), len(names)), np.float32)
    targets[np.arange(len(labels)), [names.index(label) for label in labels]] = 1
    return Probe(tuple(names), fit_linear(embeddings, targets, multi_label=False, strength=strength))


def fit_linear(embeddings: Floats, targets: NDArray[np.float32], *, multi_label: bool, strength: float = 1.0) -> Linear:
    """Fit a linear layer to targets (n, labels): one softmax, whose targets may be shares, or a sigmoid per label.

    The embeddings are centred and scaled by one number before fitting, so that `strength` means the same for
    every encoder, and the layer returned takes them as they were. A label without examples gets zero weights.
    """
    centre, scale = embeddings.mean(axis=0), max(float(embeddings.std()), 1e-6)
    features = (embeddings - centre) / scale
    weight = np.zeros((targets.shape[1], embeddings.shape[1]))
    bias = np.zeros(targets.shape[1])
    from sklearn.exceptions import ConvergenceWarning  # takes a second, which a server's start need not wait for

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a head close to the optimum is enough
        if multi_label:
            for k in range(targets.shape[1]):
                shares = np.ones(len(targets), np.float32)
                _fit(features, targets[:, k] > 0.5, shares, strength, weight[k : k + 1], bias[k : k + 1])
        else:
            # a row that several labels share stands for as many rows, each of that share
            rows, classes = np.nonzero(targets > _LEAST_SHARE)
            present = np.unique(classes)
            found_w, found_b = np.zeros((len(present), weight.shape[1])), np.zeros(len(present))
            _fit(features[rows], classes, targets[rows, classes], strength, found_w, found_b)
            weight[present], bias[present] = found_w, found_b
    weight /= scale
    return Linear(weight.astype(np.float32), (bias - weight @ centre).astype(np.float32))


def _fit(
    features: Floats,
    classes: NDArray[np.generic],
    shares: NDArray[np.float32],
    strength: float,
    weight: NDArray[np.float64],
    bias: NDArray[np.float64],
) -> None:
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(classes)) < 2:
        return
    model = LogisticRegression(C=strength, max_iter=_ITERATIONS).fit(features, classes, sample_weight=shares)
    if len(weight) == 2:  # scikit-learn keeps one row for two classes; a softmax wants half of it on each side
        weight[:], bias[:] = np.vstack([-model.coef_, model.coef_]) / 2, np.array([-1, 1]) * model.intercept_ / 2
    else:
        weight[:], bias[:] = model.coef_, model.intercept_
