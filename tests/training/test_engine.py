"""The scoring engine in one process: what a text gets depends on nothing but the text."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from tests.tiny import WORDS, make_base
from training.base import EMBEDDED, default_pooling, load_backbone, load_tokenizer, resolve_base
from training.calibration import Floats
from training.checkpoint import Checkpoint
from training.engine import Engine, Limits
from training.manifest import Manifest
from training.network import Network, make_head

FAMILIES = ("bert", "roberta", "modernbert", "gpt2", "llama")
TEXTS = [" ".join(WORDS[(7 * n + k) % len(WORDS)] for k in range(1 + (11 * n) % 50)) for n in range(40)]
PARAPHRASES = [
    ("How do I reset my password?", "I forgot my password, how can I change it?"),
    ("The package arrived broken.", "The parcel was broken when it arrived."),
]


def make_engine(folder: Path, labels: tuple[str, ...] = ("a", "b", "c"), *, multi_label: bool = False) -> Engine:
    """A base with a random head of some size."""
    backbone, tokenizer, pooling = load_backbone(folder), load_tokenizer(folder), default_pooling(folder)
    torch.manual_seed(1)
    head = make_head(backbone, "classify", len(labels))
    torch.nn.init.normal_(head.weight)
    manifest = Manifest(
        problem_type="multi_label_classification" if multi_label else "single_label_classification",
        labels=labels,
        max_length=60,
        pooling=pooling,
        temperature=2.0,
        base_model=str(folder),
        created_at=datetime.now(UTC),
    )
    return Engine.on_torch(
        Checkpoint(Network(backbone, pooling, head).eval(), tokenizer, manifest), torch.device("cpu")
    )


@pytest.fixture(scope="module")
def engine(base: Path) -> Engine:
    return make_engine(base)


@pytest.fixture(scope="module")
def embedder() -> Engine:
    return Engine.load_embedder(EMBEDDED, device="cpu", precision="float32")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_scores_the_same_alone_and_among_others(tmp_path: Path, family: str) -> None:
    engine = make_engine(make_base(tmp_path / family, family))
    items = engine.encode(TEXTS)
    alone = np.concatenate([engine.forward([item]) for item in items])
    assert np.ptp(alone, axis=0).min() > 0.01  # the texts do differ
    np.testing.assert_allclose(engine.forward(items), alone, atol=1e-4)
    np.testing.assert_allclose(engine.score(items, Limits(max_tokens=200, max_waste=4)), alone, atol=1e-4)


def test_rows_come_back_in_the_order_of_the_texts(engine: Engine) -> None:
    items = engine.encode(TEXTS)
    backwards = engine.score(items[::-1])
    np.testing.assert_allclose(engine.score(items), backwards[::-1], atol=1e-5)
    assert backwards.shape == (len(TEXTS), 3) and backwards.dtype == np.float32


def test_no_texts_give_no_rows(engine: Engine, embedder: Engine) -> None:
    assert engine.score([]).shape == (0, 3)
    assert len(embedder.score([])) == 0


def test_empty_texts_and_cut_ones_have_finite_scores(engine: Engine) -> None:
    items = engine.encode(["", "late " * 500, "\u2603"])
    assert [len(item) for item in items] == [2, 60, 3]
    assert np.isfinite(engine.score(items)).all()


def test_probabilities_are_calibrated(base: Path, engine: Engine) -> None:
    logits = engine.score(engine.encode(TEXTS))
    single = engine.probabilities(logits)
    np.testing.assert_allclose(single.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(single, torch.tensor(logits / 2).softmax(dim=1), atol=1e-6)
    multi = make_engine(base, multi_label=True).probabilities(logits)
    np.testing.assert_allclose(multi, torch.tensor(logits / 2).sigmoid(), atol=1e-6)


def test_scoring_leaves_no_trace_in_the_network(engine: Engine) -> None:
    items = engine.encode(TEXTS[:5])
    first = engine.score(items)
    engine.score(engine.encode(TEXTS))
    assert np.array_equal(engine.score(items), first)


def test_nbytes_counts_every_weight_once(engine: Engine, base: Path) -> None:
    pooled = ("pooler.dense.weight", "pooler.dense.bias")
    weights = AutoModel.from_pretrained(base).state_dict()
    expected = 4 * sum(w.numel() for name, w in weights.items() if name not in pooled and "position_ids" not in name)
    assert engine.nbytes == expected + 4 * (3 * 32 + 3)


def test_half_precision_stays_close(embedder: Engine) -> None:
    half, exact = (
        Engine.load_embedder(EMBEDDED, device="cpu", precision=precision) for precision in ("bfloat16", "float32")
    )
    texts = [text for pair in PARAPHRASES for text in pair]
    vectors = half.score(half.encode(texts))
    assert vectors.dtype == np.float32
    assert abs(half.nbytes * 2 - exact.nbytes) < 4
    assert (vectors * embedder.score(embedder.encode(texts))).sum(axis=1).min() > 0.99


def test_embeddings_are_the_mean_of_the_tokens_at_length_one(embedder: Engine) -> None:
    texts = [text for pair in PARAPHRASES for text in pair] + ["Hi", "word " * 300, ""]
    found = embedder.score(embedder.encode(texts))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found, reference_embeddings(texts), atol=1e-4)


def reference_embeddings(texts: list[str]) -> Floats:
    """Mean pooling as the model's card on the Hub has it."""
    folder = resolve_base(EMBEDDED)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=512, return_tensors="pt")
    with torch.inference_mode():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    pooled = (states * mask).sum(dim=1) / mask.sum(dim=1)
    return torch.nn.functional.normalize(pooled, dim=1).numpy()


def test_paraphrases_are_close_and_other_texts_are_not(embedder: Engine) -> None:
    one, same, other, alike = embedder.score(embedder.encode([text for pair in PARAPHRASES for text in pair]))
    assert one @ same > 0.7
    assert other @ alike > 0.7
    assert one @ other < 0.4
