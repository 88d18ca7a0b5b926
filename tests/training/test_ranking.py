"""The rerank task: pairs and their relevance, figures, candidates drawn, rows read and split."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import make_base
from tests.training.conftest import candidates, topic_queries
from training.base import load_backbone, load_tokenizer
from training.batches import Example, collate, shares
from training.calibration import Floats, fit_relevance, relevance
from training.checkpoint import Checkpoint, load_embedder, save_checkpoint
from training.config import LoraSettings, LossName, NegativesSettings, TrainConfig
from training.engine import Engine, Ranking
from training.engine.batching import Limits
from training.engine.encoding import Encoded, Encoder
from training.errors import DataError
from training.losses import LOSSES, ranking_loss
from training.manifest import Manifest, Task
from training.model import add_lora
from training.network import Network, PairHead
from training.ranks import ranking_figures
from training.rerank import RerankTask
from training.rerank_data import RerankData, read_data
from training.rerank_rows import RerankRow
from training.store import ExampleStore, store_tokens
from training.text import TextRules

CPU = torch.device("cpu")


def manifest(task: Task = "rerank", **changes: Any) -> Manifest:
    values = {"problem_type": None, "labels": (), "max_length": 12, "pooling": "mean", "base_model": "tiny"}
    return Manifest.model_validate(values | {"task": task, "created_at": datetime(2026, 1, 2, tzinfo=UTC)} | changes)


@pytest.fixture(scope="module")
def encoder(base: Path) -> Encoder:
    return Encoder.of(load_tokenizer(base), 12, TextRules())


# A query's passages as things to score


def test_a_passage_given_twice_is_scored_once(encoder: Encoder) -> None:
    plan = Ranking.plan(encoder, manifest(), "my card", ["refund", "parcel", "refund"])
    assert len(plan.items) == 2
    assert plan.relevance(np.array([[1.0], [-1.0]], np.float32)) == pytest.approx([0.731, 0.269, 0.731], abs=1e-3)


def test_a_passage_is_as_relevant_as_its_best_piece(encoder: Encoder) -> None:
    long = "please refund my late order today " * 3
    plan = Ranking.plan(encoder, manifest(), "a", ["help", long, "the screen"])
    assert plan.pieces == [1, 3, 1]
    assert len(plan.items) == 5
    logits = np.array([[0.1], [-3.0], [2.0], [1.0], [0.2]], np.float32)
    assert plan.relevance(logits) == pytest.approx(relevance(np.array([0.1, 2.0, 0.2], np.float32), 1, 0))
    assert Ranking.plan(encoder, manifest(), "a", ["help", long], chunks=2).pieces == [1, 2]
    assert Ranking.plan(encoder, manifest(), "a", ["help", long], cut=3).pieces == [1, 1]


def test_relevance_is_calibrated(encoder: Encoder) -> None:
    plan = Ranking.plan(encoder, manifest(temperature=2.0, bias=-1.0), "a", ["help", "track"])
    assert plan.relevance(np.array([[2.0], [4.0]], np.float32)) == pytest.approx([0.5, 1 / (1 + np.exp(-1))])


def test_an_embedder_ranks_by_cosine_from_0_to_1(encoder: Encoder) -> None:
    plan = Ranking.plan(encoder, manifest("embed"), "my card", ["refund", "track", "please " * 15, "refund"])
    assert plan.pieces == [1, 1, 2]
    assert plan.items[:2] == encoder.encode(["my card", "refund"])
    vectors = np.array([[1, 0], [1, 0], [-1, 0], [-1, 0], [0, 1]], np.float32)
    assert plan.relevance(vectors).tolist() == [1.0, 0.0, 0.5, 1.0]


def test_scores_do_not_depend_on_how_pairs_are_batched(base: Path) -> None:
    engine = embedder_engine(base)
    passages = ["refund", "please refund my late order today " * 4, "the screen", "help " * 9]
    plan = Ranking.plan(engine.encoder, engine.manifest, "where is my parcel", passages)
    together = plan.relevance(engine.score(plan.items))
    alone = plan.relevance(np.concatenate([engine.forward([item]) for item in plan.items]))
    assert together == pytest.approx(alone, abs=1e-5)
    backwards = Ranking.plan(engine.encoder, engine.manifest, "where is my parcel", passages[::-1])
    assert backwards.relevance(engine.score(backwards.items)) == pytest.approx(together[::-1], abs=1e-5)


def embedder_engine(base: Path) -> Engine:
    engine = Engine.load_embedder(str(base))
    engine.encoder.max_length = 12
    return engine


# Calibration


def test_a_half_is_even_odds_when_relevant_ones_are_as_many() -> None:
    rng = np.random.default_rng(0)
    relevant = rng.random(40_000) < 0.1  # as few as there are among candidates
    logits = (rng.normal(size=40_000) + np.where(relevant, 1, -1) + 7).astype(np.float32)
    temperature, bias = fit_relevance(logits, relevant)
    # The log odds of two unit normals at 8 and 6 are 2 (x - 7).
    assert temperature == pytest.approx(0.5, rel=0.05)
    assert relevance(np.array([7.0], np.float32), temperature, bias) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("relevant", [True, False])
def test_passages_of_one_kind_calibrate_nothing(relevant: bool) -> None:
    assert fit_relevance(np.array([1.0, 5.0], np.float32), np.full(2, relevant)) == (1.0, 0.0)


def test_a_few_judgements_without_a_mistake_do_not_make_it_certain() -> None:
    logits = np.array([3, -3, -2.5, -3.5], np.float32)
    temperature, bias = fit_relevance(logits, logits > 0)
    assert temperature == pytest.approx(1, rel=0.5)
    assert relevance(logits, temperature, bias) == pytest.approx([1, 0, 0, 0], abs=0.25)
    assert relevance(logits, temperature, bias).max() < 0.999


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(st.tuples(st.floats(-20, 20, width=32), st.booleans()), min_size=2, max_size=20))
def test_calibration_keeps_the_order(rows: list[tuple[float, bool]]) -> None:
    logits = np.array([logit for logit, _ in rows], np.float32)
    temperature, bias = fit_relevance(logits, np.array([relevant for _, relevant in rows]))
    assert temperature > 0
    found = relevance(np.sort(logits), temperature, bias)
    assert (np.diff(found) >= 0).all()
    assert found.dtype == np.float64


# Figures


def test_equal_scores_are_ranked_worst_first() -> None:
    found = ranking_figures([[0.5, 0.5, 0.5]], [[1, 0, 0]], [()])
    assert found["first_ranks"] == [3]
    assert found["mrr@10"] == pytest.approx(1 / 3)
    assert found["ndcg@10"] == pytest.approx(0.5)
    graded = ranking_figures([[1, 1, 0]], [[3, 1, 0]], [()])
    assert graded["ndcg@10"] == pytest.approx((1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3)))


def test_what_the_candidates_lack_counts_against_the_order() -> None:
    found = ranking_figures([[3, 2], [1], [1, 2], [5]], [[0, 1], [0], [0, 1], [0]], [(), (2.0,), (1.0,), ()])
    assert found["first_ranks"] == [2, 0, 1]  # nothing is relevant to the last query
    assert (found["queries"], found["queries_without_relevant"]) == (3, 1)
    assert found["mrr@10"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert found["recall@10"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert found["accuracy"] == found["accuracy@1"] == pytest.approx(1 / 3)


def test_an_order_of_nothing_relevant_cannot_be_measured() -> None:
    with pytest.raises(DataError, match="none of 1 queries has a relevant passage"):
        ranking_figures([[1, 2]], [[0, 0]], [()])


# The task


def example(grades: list[float], mark: int = 1) -> Example:
    items = tuple(Encoded([mark, n + 1], 1) for n in range(len(grades)))
    return Example(items, np.array(grades, np.float32))


def stored(examples: list[Example], encoder: Encoder) -> ExampleStore:
    rows = [RerankRow("", ("",) * len(each.items), tuple(each.target.tolist()), 1) for each in examples]
    items = [item for each in examples for item in each.items]
    store = RerankTask().examples(rows, encoder)
    return replace(store, items=store_tokens(items, lambda _: ("",), list, encoder))


def numbers(drawn: Example) -> list[int]:
    return [int(item.ids[1]) - 1 for item in drawn.items]


def one_by_one(examples: list[Example], task: RerankTask, epoch: int) -> list[list[int]]:
    """The draw that runs of any version must see, so that they can be resumed."""
    drawn: list[list[int]] = []
    for number, whole in enumerate(examples):
        order = np.random.default_rng([task.seed, epoch, number]).permutation(len(whole.items)).tolist()
        relevant = [i for i in order if whole.target[i] > 0]
        others = [i for i in order if whole.target[i] <= 0]
        kept = max(task.group_size // 2, task.group_size - len(others))
        drawn.append(sorted((relevant[:kept] + others)[: task.group_size]))
    return drawn


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.0, 1.0, 3.0]), min_size=2, max_size=30), min_size=1, max_size=4),
    st.integers(2, 9),
    st.integers(0, 5),
)
def test_a_query_shows_a_few_of_its_candidates(
    encoder: Encoder, grades: list[list[float]], size: int, epoch: int
) -> None:
    task = RerankTask(group_size=size)
    examples = [example(each) for each in grades]
    drawn = task.drawn(stored(examples, encoder), epoch)
    assert [numbers(part) for part in drawn] == one_by_one(examples, task, epoch)
    assert drawn.lengths.tolist() == [part.longest for part in drawn]
    for whole, part in zip(examples, drawn, strict=True):
        assert len(part.items) == min(size, len(whole.items))
        assert part.target.tolist() == [whole.target[n] for n in numbers(part)]
        assert numbers(part) == sorted(set(numbers(part)))
        relevant, others = (int((part.target > 0).sum()), int((part.target <= 0).sum()))
        assert relevant >= min(1, int((whole.target > 0).sum()))
        assert others >= min(size - size // 2, int((whole.target <= 0).sum()))


def test_other_candidates_are_drawn_for_other_epochs_and_seeds(encoder: Encoder) -> None:
    examples = stored([example([1, *[0] * 50]), example([1, *[0] * 50])], encoder)
    drawn = [
        str([numbers(part) for part in RerankTask(seed=seed).drawn(examples, epoch)])
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    ]
    assert len(set(drawn)) == 6
    first, second = RerankTask().drawn(examples, 0)
    assert numbers(first) != numbers(second)
    seen = {n for epoch in range(60) for n in numbers(RerankTask().drawn(examples, epoch)[0])}
    assert seen == set(range(51))


def test_rows_become_pairs_with_the_first_piece_of_each_passage(encoder: Encoder) -> None:
    row = RerankRow("my card", ("refund please", "today " * 30), (2.0, 0.0), 1, (1.0,))
    [found] = RerankTask().examples([row], encoder)
    assert [item.split for item in found.items] == [4, 4]
    assert len(found.items[1]) == 12
    assert (found.target.tolist(), found.missed, found.weight) == ([2, 0], (1.0,), 1.0)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_the_one_asked_for(loss: LossName) -> None:
    batch = collate([example([1, 0, 0]), example([0, 2])], 0, CPU)
    logits = torch.tensor([[0.3], [-1.0], [2.0], [0.5], [0.1]])
    found = RerankTask(loss).loss(logits, batch)
    assert found.tolist() == ranking_loss(loss, logits[:, 0], torch.tensor([1.0, 0, 0, 0, 2]), [3, 2]).tolist()


def test_a_query_is_hit_when_one_of_its_best_is_on_top() -> None:
    batch = collate([example([1, 0, 1]), example([1, 2]), example([0]), example([-4, -2, -9])], 0, CPU)
    logits = torch.tensor([-5.0, -7, -3, 9, 8, 0, -1, -0.5, -3])[:, None]
    assert RerankTask().hits(logits, batch).tolist() == [1, 0, 1, 1]


def test_assessment_measures_all_candidates() -> None:
    examples = [example([1, 0, 0]), replace(example([0, 1]), missed=(1.0,))]
    outputs: list[Floats] = [np.array([[2.0], [0.0], [1.0]], np.float32), np.array([[1.0], [0.0]], np.float32)]
    found = RerankTask().assess(outputs, examples)
    assert found["accuracy"] == found["accuracy@1"] == 0.5
    assert found["recall@10"] == 0.75
    assert found["loss"] == pytest.approx((np.log(np.exp([0, -2, -1]).sum()) + np.log(1 + np.e)) / 2, abs=1e-6)
    assert set(RerankTask().columns.values()) <= set(found)
    assert all(type(value) is float for value in found.values())


def test_one_long_list_does_not_make_the_others_as_large() -> None:
    examples = [example([1, 0])] * 2000 + [example([1, *[0] * 1500])]  # 18 GB, were they padded to one length
    outputs: list[Floats] = [np.zeros((len(each.items), 1), np.float32) for each in examples]
    assert RerankTask("ranknet").assess(outputs, examples)["loss"] == pytest.approx(np.log(2))


def test_calibration_takes_every_grade_above_0_as_relevant() -> None:
    outputs: list[Floats] = [np.array([[4.0], [3.0], [-2.0], [-4.0]], np.float32)] * 20
    found = RerankTask().calibrated(manifest(), outputs, [example([3, 1, 0, 0])] * 20)
    assert (found.temperature, found.bias) == fit_relevance(
        np.concatenate(outputs)[:, 0], np.array([True, True, False, False] * 20)
    )
    assert relevance(np.array([3.0, -2.0], np.float32), found.temperature, found.bias) == pytest.approx(
        [1, 0], abs=0.25
    )


@pytest.mark.parametrize("cross_layers", [None, 1])
@pytest.mark.parametrize("loss", ["listwise", "lambda"])
def test_accumulated_gradients_are_those_of_one_pass(
    base: Path, encoder: Encoder, loss: LossName, cross_layers: int | None
) -> None:
    torch.manual_seed(0)
    task = RerankTask(loss)
    network = Network(load_backbone(base), "mean", PairHead(32), cross_layers=cross_layers)
    torch.nn.init.normal_(network.head.linear.weight)  # type: ignore[union-attr]
    rows = [
        RerankRow(row["query"], (*row["relevant_passages"], *row["hard_negatives"]), (1.0, *[0.0] * (n + 1)), n)
        for n in range(7)
        for row in topic_queries(1, seed=n, others=n + 1)
    ]
    examples = task.examples(rows, encoder)

    def gradient(limits: Limits, world: int) -> tuple[torch.Tensor, int]:
        network.zero_grad()
        passes = [part for share in shares(examples, limits, world) for part in share if part]
        for part in passes:
            batch = collate(part, 0, CPU)
            (task.loss(network(*batch.inputs), batch).sum() / len(examples)).backward()
        grads = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        return torch.cat(grads), len(passes)

    whole, one = gradient(Limits(max_tokens=100_000, max_waste=1e9, max_items=10_000), 1)
    parts, many = gradient(Limits(max_tokens=40), 2)
    assert one == 1
    assert many == 7
    assert whole.abs().max() > 1e-3
    assert (whole - parts).abs().max() < 1e-5 * whole.abs().max()


# The rows of a run


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> RerankData:
    path = write(folder / "train.jsonl", rows)
    return read_data(TrainConfig(train_file=path, output_dir="run", task="rerank", **settings))


def queries(rows: list[RerankRow]) -> set[str]:
    return {row.query for row in rows}


def test_parts_have_different_queries(tmp_path: Path) -> None:
    negatives = NegativesSettings(per_query=7)
    data = read(tmp_path, topic_queries(50), test_fraction=0.2, eval_fraction=0.1, negatives=negatives)
    assert [len(part) for part in (data.train, data.eval, data.test)] == [35, 5, 10]
    assert len(queries(data.train) | queries(data.eval) | queries(data.test)) == 50
    assert data.summary == "35 training, 5 evaluation, 10 test queries; 8.0 candidates each"
    assert any(note.startswith("Hard negatives added: 100, to 50 of 50 queries, chosen by BM25") for note in data.notes)
    assert data.described() == {"task": "rerank", "problem_type": None, "labels": ()}
    assert (data.resolved(), data.labels) == ({}, ())


def test_files_to_measure_on_stay_as_they_are(tmp_path: Path) -> None:
    held = write(tmp_path / "eval.jsonl", topic_queries(4, seed=1, others=2))
    test = write(tmp_path / "test.jsonl", topic_queries(3, seed=2, others=1))
    data = read(tmp_path, topic_queries(20), eval_file=held, test_file=test)
    assert [len(data.train), len(data.eval), len(data.test)] == [20, 4, 3]
    assert {len(row.passages) for row in data.eval} == {3}
    assert {len(row.passages) for row in data.test} == {2}


def test_a_file_without_negatives_is_given_some_to_measure_against(tmp_path: Path) -> None:
    held = write(tmp_path / "eval.jsonl", topic_queries(9, seed=1, others=0))
    data = read(tmp_path, topic_queries(20), eval_file=held, negatives=NegativesSettings(mining="random", per_query=4))
    assert {len(row.passages) for row in data.eval} == {5}


def test_negatives_are_mined_by_the_encoder(tmp_path: Path, base: Path) -> None:
    settings = NegativesSettings(mining="encoder", per_query=3, margin=0)  # to random weights all texts are alike
    data = read(tmp_path, topic_queries(20, others=0), base_model=str(base), negatives=settings)
    assert any("chosen by the cosine of embeddings" in note for note in data.notes)
    assert (1.0, 0.0, 0.0, 0.0) in {row.grades for row in data.train}


def test_queries_that_teach_nothing_are_left_out(tmp_path: Path) -> None:
    rows = [*topic_queries(20), *topic_queries(6, seed=1, others=0)]
    held, mining = write(tmp_path / "eval.jsonl", topic_queries(4, seed=2)), NegativesSettings(mining="none")
    data = read(tmp_path, rows, eval_file=held, negatives=mining)
    assert len(data.train) == 20
    assert "Training queries left out because all their passages have one grade: 6." in data.notes
    assert len(read(tmp_path, rows, eval_file=held, negatives=mining, loss="pointwise").train) == 26


def test_judgements_are_for_the_candidate_lists_among_the_files(tmp_path: Path) -> None:
    lists, judged = candidates(topic_queries(5, seed=3))
    settings: dict[str, Any] = {"qrels": str(tmp_path / "qrels.txt")}
    Path(settings["qrels"]).write_text(judged)
    test = write(tmp_path / "test.jsonl", lists)
    data = read(tmp_path, topic_queries(20), test_file=test, **settings)
    assert [row.grades[-1] for row in data.test] == [1.0] * 5
    assert len(data.train) == 18
    plain = write(tmp_path / "plain.jsonl", topic_queries(5))
    with pytest.raises(DataError, match=r"train\.jsonl: .*leave out the qrels file"):
        read(tmp_path, topic_queries(20), test_file=plain, **settings)


def pairs(grades: list[float], queries: int) -> list[dict[str, Any]]:
    return [
        {"query": f"query {n}", "document": f"text {n} {k}", "score": grade}
        for n in range(queries)
        for k, grade in enumerate(grades)
    ]


def test_a_teachers_scores_are_kept(tmp_path: Path) -> None:
    data = read(tmp_path, pairs([3.5, -1.0, -7.25], 12), loss="margin_mse")
    assert {row.grades for row in data.train} == {(3.5, -1.0, -7.25)}


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        (topic_queries(1), {}, "too few queries to split off evaluation queries"),
        (topic_queries(9, others=0), {"negatives": NegativesSettings(mining="none")}, "no evaluation query has both"),
        (pairs([-1.0, -2.0], 12), {"loss": "margin_mse"}, "no evaluation query has both"),
    ],
)
def test_rows_that_do_not_suffice(
    tmp_path: Path, rows: list[dict[str, Any]], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path, rows, **settings)
    assert str(caught.value).startswith(f"{tmp_path / 'train.jsonl'}: ")


def test_a_file_that_measures_nothing_is_named(tmp_path: Path) -> None:
    bare = write(tmp_path / "bare.jsonl", topic_queries(3, others=0))
    mining = NegativesSettings(mining="none")
    for name, part in (("eval_file", "evaluation"), ("test_file", "test")):
        with pytest.raises(DataError, match=rf"bare\.jsonl: no {part} query has both"):
            read(tmp_path, topic_queries(20), negatives=mining, **{name: bare})
    with pytest.raises(DataError, match=r"train\.jsonl: no training query has both"):
        held = write(tmp_path / "held.jsonl", topic_queries(3))
        read(tmp_path, topic_queries(9, others=0), negatives=mining, eval_file=held)


def test_an_earlier_checkpoint_embeds_as_it_pools(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base")
    backbone = add_lora(load_backbone(folder), LoraSettings(r=2))
    network = Network(backbone, "mean", PairHead(32))
    described = manifest(adapter=True, base_model=str(folder))
    save_checkpoint(tmp_path / "adapted", Checkpoint(network, load_tokenizer(folder), described))
    found = load_embedder(str(tmp_path / "adapted"))
    assert (found.manifest.pooling, found.network.pooling) == ("mean", "mean")
    assert not [name for name, _ in found.network.named_parameters() if "lora" in name]
