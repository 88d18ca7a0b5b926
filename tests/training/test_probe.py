import numpy as np
import pytest

from training.base import EMBEDDED
from training.calibration import Floats
from training.engine import Engine
from training.probe import fit_linear, fit_probe


def clusters(labels: list[str], hidden: int = 16) -> Floats:
    """Points near a direction of their own for each label."""
    rng = np.random.default_rng(0)
    names = sorted(set(labels))
    centres = rng.normal(size=(len(names), hidden))
    return np.stack([centres[names.index(label)] + rng.normal(scale=0.1, size=hidden) for label in labels]).astype(
        np.float32
    )


@pytest.mark.parametrize("names", [["b", "a"], ["c", "a", "b"], list("gfedcba")])
def test_separable_labels_are_told_apart(names: list[str]) -> None:
    labels = names * 6
    points = clusters(labels)
    probe = fit_probe(points, labels)
    found = probe.probabilities(points)
    assert probe.labels == tuple(sorted(names))
    assert found.shape == (len(labels), len(names)) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert [probe.labels[k] for k in found.argmax(axis=1)] == labels
    assert found.max(axis=1).min() > 0.8


@pytest.mark.parametrize("names", [["yes", "no"], ["one", "two", "three"]])
def test_one_row_per_label_is_enough(names: list[str]) -> None:
    points = clusters(names)
    probe = fit_probe(points, names)
    assert [probe.labels[k] for k in probe.probabilities(points).argmax(axis=1)] == names


def test_strength_means_the_same_at_every_scale_and_place() -> None:
    labels = ["a", "b", "c"] * 5
    points = clusters(labels)
    moved = (points * 50 + 7).astype(np.float32)
    one, other = fit_probe(points, labels), fit_probe(moved, labels)
    np.testing.assert_allclose(one.probabilities(points), other.probabilities(moved), atol=0.01)


def test_more_strength_makes_it_more_certain() -> None:
    labels = ["a", "b", "c"] * 5
    points = clusters(labels)
    certainty = [fit_probe(points, labels, s).probabilities(points).max(axis=1).mean() for s in (0.001, 0.1, 10)]
    assert certainty == sorted(certainty)
    assert certainty[0] < 0.5 < certainty[2]


def test_several_labels_per_row_and_one_without_examples() -> None:
    points = clusters(["x", "y", "z"] * 8)
    targets = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]] * 8, np.float32)
    linear = fit_linear(points, targets, multi_label=True, strength=10)
    logits = points @ linear.weight.T + linear.bias
    assert ((logits > 0) == (targets > 0.5))[:, [0, 1, 3]].all()
    assert not linear.weight[2].any()
    assert (linear.weight.shape, linear.bias.shape) == ((4, 16), (4,))


def test_a_class_without_examples_gets_zero_weights() -> None:
    labels = ["a", "b"] * 5
    targets = np.array([[1, 0, 0], [0, 0, 1]] * 5, np.float32)
    linear = fit_linear(clusters(labels), targets, multi_label=False)
    assert not linear.weight[1].any() and linear.weight[0].any() and linear.weight[2].any()


def test_two_examples_per_label_classify_obvious_texts() -> None:
    engine = Engine.load_embedder(EMBEDDED, device="cpu")
    examples = {
        "billing": ["I was charged twice for my order", "My invoice shows the wrong amount"],
        "shipping": ["Where is my parcel?", "The delivery is three days late"],
        "account": ["I forgot my password", "How do I change my email address?"],
    }
    texts = [(text, label) for label, pair in examples.items() for text in pair]
    probe = fit_probe(engine.score(engine.encode([text for text, _ in texts])), [label for _, label in texts])
    asked = ["please refund the double payment", "my package has not arrived", "I cannot log in to my account"]
    found = probe.probabilities(engine.score(engine.encode(asked)))
    assert [probe.labels[k] for k in found.argmax(axis=1)] == ["billing", "shipping", "account"]


def test_shared_targets_become_probabilities() -> None:
    """Where the embeddings tell nothing, the layer answers with the shares themselves."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(40, 4)).astype(np.float32)
    targets = np.tile(np.array([[0.5, 0.3, 0.2, 0]], np.float32), (40, 1))
    found = fit_linear(embeddings, targets, multi_label=False)
    logits = embeddings @ found.weight.T + found.bias
    assert not found.weight[3].any()
    np.testing.assert_allclose(np.exp(logits[:, :3]), targets[:, :3] * np.exp(logits[:, :1]) / 0.5, rtol=0.05)
