"""Review of rankings: every check, what its fix does, and what is written."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_review import Write, file, find, ids, look, written
from training.errors import DataError
from training.rerank_rows import read_rerank
from training.review import ReviewOptions, review

__all__ = ["file"]
FEW: dict[str, Any] = {"min_queries": 0}


def row(number: int, **more: object) -> dict[str, Any]:
    negatives = [f"other {number} {i}" for i in range(5)]
    return {"query": f"what is {number}", "relevant_passages": [f"it is {number}"], "hard_negatives": negatives} | more


def rows(count: int = 12) -> list[dict[str, Any]]:
    return [row(number) for number in range(count)]


def test_good_rankings_have_nothing_to_fix(file: Write, tmp_path: Path) -> None:
    found = look(file(*(row(i, docs=["x"]) for i in range(12))))
    assert (found.task, found.ready, ids(found)) == ("rerank", True, {"few_queries", "no_valid"})
    assert (found.train.queries, found.train.relevant_passages, found.train.hard_negatives) == (12, 12, 60)
    assert written(found, tmp_path) == [row(i, docs=["x"]) for i in range(12)]


@pytest.mark.parametrize(
    ("line", "check"),
    [
        ("{", "malformed"),
        (row(99, query=" "), "empty_query"),
        (row(99, query=None), "empty_query"),
        ({"relevant_passages": ["a"]}, "empty_query"),
        (row(99, query=5), "malformed"),
        (row(99, relevant_passages=[]), "no_relevant"),
        (row(99, relevant_passages=[" "]), "no_relevant"),
        ({"query": "a"}, "no_relevant"),
        (row(99, relevant_passages=[5]), "malformed"),
        (row(99, relevant_passages={}), "malformed"),
        ('{"query": "a", "relevant_passages": ["\\ud800"]}', "encoding"),
    ],
)
def test_rows_that_cannot_be_used_are_dropped_and_named(file: Write, tmp_path: Path, line: object, check: str) -> None:
    found = look(file(*rows(), line))
    finding = find(found, check)
    assert (finding.rows, finding.severity, finding.applied) == ((13,), "error", True)
    assert written(found, tmp_path) == rows()
    assert not review(file(*rows(), line), None, ReviewOptions(), lambda finding: False).ready


def test_a_string_becomes_a_list(file: Write, tmp_path: Path) -> None:
    found = look(file(*rows(), row(99, relevant_passages="it is 99")))
    assert find(found, "not_a_list").rows == (13,)
    assert written(found, tmp_path)[-1] == row(99)


def test_rows_of_one_query_are_merged(file: Write, tmp_path: Path) -> None:
    more = {
        "query": "what  is 3",
        "relevant_passages": ["it is 3", "so it is"],
        "hard_negatives": ["it is 3 ", "", "new"],
    }
    found = look(file(*rows(), more))
    assert find(found, "duplicate_query").rows == (13,)
    assert find(found, "positive_as_negative").rows == (4,)
    assert find(found, "duplicate_passage").rows == (4,)
    merged = written(found, tmp_path)[3]
    assert merged == row(
        3, relevant_passages=["it is 3", "so it is"], hard_negatives=[*row(3)["hard_negatives"], "new"]
    )
    assert (found.train.relevant_passages, found.train.hard_negatives) == (13, 61)
    assert len(read_rerank(tmp_path / "out.jsonl").rows) == 12


def test_without_fixes_rows_stay_as_written(file: Write, tmp_path: Path) -> None:
    lines = [*rows(), row(3), row(99, hard_negatives=["it is 99", "a", "a"])]
    found = review(file(*lines), None, ReviewOptions(split=None), lambda finding: False)
    assert {"duplicate_query", "positive_as_negative", "duplicate_passage"} <= ids(found)
    assert written(found, tmp_path) == lines


def test_graded_pairs(file: Write, tmp_path: Path) -> None:
    good = [{"query": f"q {n}", "document": f"d {n} {g}", "score": g} for n in range(6) for g in (0, 2)]
    bad = [
        good[0],
        good[1] | {"score": 1},
        {"query": "q 9", "document": "d", "score": 0},
        {"query": "q 8", "document": "", "score": 1},
    ]
    found = look(file(*good, *bad, good[1] | {"score": "x"}), **FEW)
    assert find(found, "duplicate_passage").rows == (13,)
    assert find(found, "positive_as_negative").rows == (14,)
    assert find(found, "no_relevant").rows == (15,)
    assert find(found, "empty_text").rows == (16,)
    assert find(found, "malformed").rows == (17,)
    assert written(found, tmp_path) == good


def test_triplets_in_a_table(file: Write, tmp_path: Path) -> None:
    lines = ["query,positive,negative", *(f"q {n},p {n},n {n}" for n in range(12)), "q 3,other,p 3", "q 3,other,p 3"]
    found = look(file(*lines, name="data.csv"), **FEW)
    assert (found.format, found.task) == ("triplets", "rerank")
    assert find(found, "positive_as_negative").rows == (13, 14)
    assert find(found, "duplicate_passage").rows == (14,)
    assert written(found, tmp_path)[12:] == [{"query": "q 3", "positive": "other"}]


def test_leaks_few_queries_and_the_split(file: Write, tmp_path: Path) -> None:
    found = look(file(*rows()), file(row(3), row(50), name="valid.jsonl"), **FEW)
    assert find(found, "leak").rows == (4,)
    assert (found.train.queries, found.valid and found.valid.queries) == (11, 2)
    assert not look(file(*rows(9)), min_queries=10).ready
    assert find(look(file(*rows(30)), min_queries=10), "few_queries").severity == "warning"
    assert "few_queries" not in ids(look(file(*rows(300))))
    split = review(file(*rows(100), *rows(50)), None, ReviewOptions(), lambda finding: finding.id == "no_valid")
    split.write(tmp_path / "t", tmp_path / "v")
    queries = [{json.loads(line)["query"] for line in (tmp_path / name).read_text().splitlines()} for name in "tv"]
    assert not queries[0] & queries[1]
    assert len(queries[1]) > 10


def test_negatives_and_long_pairs(file: Write) -> None:
    assert find(look(file(*(row(i, hard_negatives=[]) for i in range(12)))), "no_negatives").severity == "warning"
    assert find(look(file(*rows(), row(99, hard_negatives=["a"]))), "no_negatives").count == 1
    found = look(file(*rows(), row(99, relevant_passages=["word " * 600])))
    assert (find(found, "too_long").rows, found.train.rows) == ((13,), 13)
    assert look(file(*rows(), row(99, relevant_passages=["word " * 600])), drop_long=True).train.rows == 12


def test_rankings_keep_their_shape(file: Write) -> None:
    with pytest.raises(DataError, match="cannot be written as csv"):
        look(file(*rows()), to="csv")
    with pytest.raises(DataError, match="expected texts with labels"):
        look(file(*rows()), task="classify")
