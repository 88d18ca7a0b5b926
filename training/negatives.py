"""Hard negatives for queries that have too few: passages of the same file that look relevant but are other queries'."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.config import Mining
from training.likeness import Embed, Likeness, bm25, cosine
from training.rerank_rows import RerankRow

_NAMES: dict[Mining, str] = {"bm25": "by BM25", "encoder": "by the cosine of embeddings", "random": "at random"}


@dataclass(slots=True)
class _Tally:
    rows: int = 0
    alike: int = 0
    drawn: int = 0
    passed_over: int = 0
    short: int = 0


def fill_negatives(
    rows: Sequence[RerankRow], wanted: int, how: Mining, margin: float, seed: int, embed: Embed | None = None
) -> tuple[list[RerankRow], list[str]]:
    """Give every row at least `wanted` hard negatives, as far as the passages of the other rows go.

    The passages most like the query come first, but none that comes near the best relevant one, as it may well be
    relevant and unlabelled (Qu et al. 2021, arXiv:2010.08191; the relative margin is that of Moreira et al. 2024,
    arXiv:2407.15831). Passages without any likeness are drawn at random for what is then still wanting. A passage
    that the query has in any row, whatever its case and spaces, is not taken. The same arguments give the same rows.

    Args:
        rows: with grades of 0 and up; where any grade is a teacher's score below 0 all rows stay as they are.
        wanted: hard negatives per row; a row with more keeps them.
        how: what likeness is; `random` knows none, `none` leaves the rows as they are.
        margin: 0 to 1; passages whose likeness exceeds (1 - margin) times that of the best relevant one are left out.
        seed: of what is drawn at random.
        embed: for `encoder`.

    Returns:
        The rows, what was added last and with grade 0; and what was done, one sentence each.
    """
    short = [index for index, row in enumerate(rows) if _count(row) < wanted]
    if not short or how == "none" or any(grade < 0 for row in rows for grade in row.grades):
        return list(rows), _left_alone(rows, how)
    pool: dict[str, str] = {}
    for row in rows:
        for passage in row.passages:
            pool.setdefault(_key(passage), passage)
    texts, position = list(pool.values()), {key: index for index, key in enumerate(pool)}
    own: dict[str, set[int]] = {}
    for row in rows:
        own.setdefault(_key(row.query), set()).update(position[_key(passage)] for passage in row.passages)
    filled, tally, rng = list(rows), _Tally(), np.random.default_rng(seed)
    likeness = _likeness([rows[index].query for index in short], texts, how, embed)
    for index, scores in zip(short, likeness, strict=True):
        row = rows[index]
        relevant = [position[_key(text)] for text, grade in zip(row.passages, row.grades, strict=True) if grade > 0]
        ceiling = (1 - margin) * max((float(scores[i]) for i in relevant), default=0.0)
        taken = _choose(scores, ceiling, own[_key(row.query)], wanted - _count(row), rng, tally)
        passages, grades = (*row.passages, *(texts[i] for i in taken)), (*row.grades, *(0.0 for _ in taken))
        filled[index] = replace(row, passages=passages, grades=grades)
    return filled, _notes(tally, wanted, how, len(rows), len(pool))


def _choose(
    scores: NDArray[np.float32], ceiling: float, own: set[int], need: int, rng: np.random.Generator, tally: _Tally
) -> list[int]:
    """Choose up to `need` passages: the best above 0 and not above the ceiling, then random ones of no likeness."""
    free = np.ones(len(scores), dtype=bool)
    free[list(own)] = False
    likely = free & (scores > max(ceiling, 0.0))
    alike = np.flatnonzero(free & (scores > 0) & ~likely)
    if len(alike) > need:  # of equal scores, those that come first in the file
        alike = alike[scores[alike] >= np.partition(scores[alike], -need)[-need]]
    best: list[int] = alike[np.argsort(-scores[alike], kind="stable")][:need].tolist()
    rest = np.flatnonzero(free & (scores <= 0)) if len(best) < need else alike[:0]
    drawn: list[int] = rng.choice(rest, min(need - len(best), len(rest)), replace=False).tolist()
    tally.rows += bool(best or drawn)
    tally.alike += len(best)
    tally.drawn += len(drawn)
    tally.passed_over += min(need, int(likely.sum()))
    tally.short += len(best) + len(drawn) < need
    return best + drawn


def _likeness(queries: list[str], pool: list[str], how: Mining, embed: Embed | None) -> Likeness:
    if how == "bm25":
        return bm25(queries, pool)
    if how == "encoder":
        if embed is None:
            raise ValueError("how is encoder, which needs embed")
        return cosine(queries, pool, embed)
    return (np.zeros(len(pool), dtype=np.float32) for _ in queries)


def _count(row: RerankRow) -> int:
    return sum(grade <= 0 for grade in row.grades)


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _left_alone(rows: Sequence[RerankRow], how: Mining) -> list[str]:
    if how != "none" and any(grade < 0 for row in rows for grade in row.grades):
        return ["No hard negatives were added: grades below 0 are a teacher's scores, which other passages lack."]
    bare = sum(_count(row) == 0 for row in rows)
    return [f"Queries without any hard negative: {bare} of {len(rows):,}."] if bare else []


def _notes(tally: _Tally, wanted: int, how: Mining, rows: int, pool: int) -> list[str]:
    added = f"Hard negatives added: {tally.alike + tally.drawn:,}, to {tally.rows:,} of {rows:,} queries"
    if how == "random":
        notes = [f"{added}, drawn at random from the file's {pool:,} passages."]
    else:
        notes = [f"{added}, chosen {_NAMES[how]} from the file's {pool:,} passages; {tally.drawn:,} of them at random."]
    if tally.passed_over:
        notes.append(f"Passages not taken because they may be relevant without a label: {tally.passed_over:,}.")
    if tally.short:
        notes.append(f"Queries for which the file has fewer than {wanted} hard negatives: {tally.short:,}.")
    return notes
