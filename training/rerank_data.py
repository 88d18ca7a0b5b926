"""The rows of a rerank run: read, given hard negatives, split."""

from dataclasses import dataclass
from typing import Any

from training.config import TrainConfig
from training.engine import Engine
from training.errors import DataError
from training.negatives import Embed, fill_negatives
from training.records import recognise
from training.rerank_rows import RerankRow, read_rerank
from training.splits import parts, split_queries

_BOTH = "both relevant passages, of a grade above 0, and others"


@dataclass(frozen=True)
class RerankData:
    """The rows of a run and what was learned from reading them."""

    train: list[RerankRow]
    eval: list[RerankRow]
    test: list[RerankRow]
    notes: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def summary(self) -> str:
        """How much there is, in a few words."""
        queries = f"{len(self.train)} training, {len(self.eval)} evaluation, {len(self.test)} test queries"
        return f"{queries}; {sum(len(row.passages) for row in self.train) / len(self.train):.1f} candidates each"

    def resolved(self) -> dict[str, Any]:
        """Settings that follow from the rows."""
        return {}

    def described(self) -> dict[str, Any]:
        """What a checkpoint's manifest says of the task."""
        return {"task": "rerank", "problem_type": None, "labels": self.labels}


def read_data(config: TrainConfig) -> RerankData:
    """Read and split the files of a run, and mine what hard negatives are missing.

    Raises:
        DataError: a file or row that cannot be used, or too few queries.
    """
    qrels = _judgements(config)
    source = read_rerank(config.train_file, config.data, qrels[config.train_file])
    notes = list(source.notes)
    mined, more = _mined(source.rows, config)
    notes += more
    train, held, test = parts(config, mined, lambda path: _read_part(config, path, qrels), split_queries)
    for part, name, path in ((held, "evaluation", config.eval_file), (test, "test", config.test_file)):
        if part and not any(_orders(row) for row in part):
            raise DataError(f"no {name} query has {_BOTH}; give it some", path or config.train_file)
    if not held:
        raise DataError(
            "too few queries to split off evaluation queries; add some or give eval_file", config.train_file
        )
    useful = train if config.loss == "pointwise" else [row for row in train if len(set(row.grades)) > 1]
    if not useful:
        raise DataError(f"no training query has {_BOTH}; give it some", config.train_file)
    if len(useful) < len(train):
        notes.append(
            f"Training queries left out because all their passages have one grade: {len(train) - len(useful)}."
        )
    return RerankData(useful, held, test, tuple(notes))


def _mined(rows: list[RerankRow], config: TrainConfig) -> tuple[list[RerankRow], list[str]]:
    settings = config.negatives
    embed = _embedder(config.base_model) if settings.mining == "encoder" else None
    return fill_negatives(rows, settings.per_query, settings.mining, settings.margin, config.seed, embed)


def _embedder(base_model: str) -> Embed:
    engine = Engine.load_embedder(base_model)
    return lambda texts: engine.score(engine.encode(texts))


def _judgements(config: TrainConfig) -> dict[str, str | None]:
    """The qrels for each file: candidate lists need them, files of any other shape hold their grades."""
    files = list(filter(None, (config.train_file, config.eval_file, config.test_file)))
    if config.qrels is None or len(files) == 1:
        return dict.fromkeys(files, config.qrels)
    lists = [file for file in files if recognise(file, config.data, "rerank").name == "candidates"]
    return dict.fromkeys(files) | dict.fromkeys(lists or files, config.qrels)


def _read_part(config: TrainConfig, path: str, qrels: dict[str, str | None]) -> list[RerankRow]:
    """A file to measure on stays as it is, unless it has nothing to tell relevant passages from."""
    rows = read_rerank(path, config.data, qrels[path]).rows
    return rows if any(_orders(row) for row in rows) else _mined(rows, config)[0]


def _orders(row: RerankRow) -> bool:
    """Whether some passage of the query is better than another."""
    return max(row.grades, default=0) > 0 and min(row.grades) < max(row.grades)
