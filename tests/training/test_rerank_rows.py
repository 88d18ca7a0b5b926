import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.errors import DataError
from training.formats import DataOptions
from training.qrels import read_qrels
from training.rerank_rows import RerankRow, read_rerank
from training.rows import read_classify

DATA = Path(__file__).parents[2].parent / "shared" / "data"
Write = Callable[..., Path]


@pytest.fixture
def file(tmp_path: Path) -> Write:
    def write(*lines: object, name: str = "data.jsonl", end: str = "\n") -> Path:
        path = tmp_path / name
        text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}{end}" for line in lines)
        path.write_bytes(text.encode())
        return path

    return write


def cohere(query: object, relevant: object, *negatives: object) -> dict[str, object]:
    return {"query": query, "relevant_passages": relevant, "hard_negatives": list(negatives)}


def pair(query: object, document: object, score: object) -> dict[str, object]:
    return {"query": query, "document": document, "score": score}


def listing(qid: object, docids: object, texts: object) -> dict[str, object]:
    return {"qid": qid, "query": f"query {qid}", "docids": docids, "texts": texts}


def graded(path: Path, options: DataOptions | None = None) -> list[tuple[str, dict[str, float]]]:
    rows = read_rerank(path, options).rows
    return [(row.query, dict(zip(row.passages, row.grades, strict=True))) for row in rows]


def test_cohere_rows(file: Write):
    extra = {"docs": ["x"], "label": 3}
    found = read_rerank(file(cohere("q1", ["a", "b"], "c") | extra, "", {"query": " q2", "relevant_passages": ["d"]}))
    assert found.rows == [
        RerankRow("q1", ("a", "b", "c"), (1.0, 1.0, 0.0), 1),
        RerankRow(" q2", ("d",), (1.0,), 3),
    ]
    assert (found.format, found.graded, found.notes) == ("rerank", False, ())
    assert graded(file({"query": "q", "relevant_passages": ["a"], "hard_negatives": None})) == [("q", {"a": 1})]


def test_cohere_rows_of_one_query_are_merged_and_repeats_left_out(file: Write):
    found = read_rerank(file(cohere("q", ["a"], "c", "c "), cohere("r", ["a"]), cohere("q ", ["b", "a"], "d")))
    assert found.rows == [
        RerankRow("q", ("a", "c", "b", "d"), (1.0, 0.0, 1.0, 0.0), 1),
        RerankRow("r", ("a",), (1.0,), 2),
    ]
    assert found.notes == (
        "Rows merged into an earlier row with the same query: 1.",
        "Passages left out because their query has them already: 2.",
    )


@pytest.mark.parametrize(
    "lines",
    [
        [pair("q", "a", 2), pair("r", "c", True), pair("q", "b", 0), pair("q", "a", 2)],
        ["Query,Document,Score", 'q,"a",2', "r,c,1", "q,b,0.0", "q,a,2"],
        ["score\tid\tpassage\tquery", "2\t1\ta\tq", "1\t2\tc\tr", "0\t3\tb\tq", "2\t1\ta\tq"],
        ["text;grade;query", "a;2;q", "c;1;r", "b;0;q", "a;2;q"],
        [json.dumps([{"query": q, "passage": p, "relevance": g} for q, p, g in ("qa2", "rc1", "qb0", "qa2")])],
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_graded_pairs_are_grouped_by_query(file: Write, lines: list[object], end: str, start: str):
    first = lines[0] if isinstance(lines[0], str) else json.dumps(lines[0])
    found = read_rerank(file(start + first, *lines[1:], name="upload", end=end))
    assert [(row.query, row.passages, row.grades) for row in found.rows] == [
        ("q", ("a", "b"), (2.0, 0.0)),
        ("r", ("c",), (1.0,)),
    ]
    assert (found.format, found.graded) == ("graded-pairs", True)
    assert any("override with query_column, text_column and label_column." in note for note in found.notes)
    assert found.notes[-1] == "Passages left out because their query has them already: 1."


def test_the_line_of_a_query_is_its_first(file: Write):
    found = read_rerank(file("query,text,label", '"q\nq",a,1', "r,b,1", "r,a,0", name="data.csv"))
    assert [(row.query, row.line) for row in found.rows] == [("q\nq", 2), ("r", 4)]
    assert not found.graded


def test_pairs_with_columns_of_other_names(file: Write):
    options = DataOptions.model_validate({"query_column": "Frage", "text_column": "antwort", "label_column": "ok"})
    expected = [("q", {"a": 1, "b": 0})]
    assert graded(file("Frage,Antwort,ok", "q,a,1", "q,b,0", name="t.csv"), options) == expected
    assert graded(file(*({"Frage": "q", "antwort": a, "ok": g} for a, g in (("a", 1), ("b", 0)))), options) == expected
    by_number = DataOptions.model_validate({"query_column": 2, "text_column": 3, "label_column": 1})
    assert graded(file("1,q,a", "0,q,b", name="t.csv"), by_number) == expected
    assert graded(file({"query": "q", "text": "a", "label": 0, "score": 1}), DataOptions(label_column="score"))


def test_a_teachers_scores_may_be_below_0(file: Write):
    found = read_rerank(file(pair("q", "a", -1.5), pair("q", "b", "-7.25"), pair("r", "c", 3)))
    assert found.rows[0].grades == (-1.5, -7.25)
    assert found.graded
    assert found.notes[-1].startswith("Some grades are below 0: read as a teacher's scores")


def test_triplets(file: Write):
    rows = [{"anchor": "q", "positive": "a", "negative": n} for n in "bc"]
    assert graded(file(*rows)) == [("q", {"a": 1, "b": 0, "c": 0})]
    assert read_rerank(file(*rows)).notes == ()
    assert graded(file("query,positive,negative", "q,a,b", "r,c,a", name="t")) == [
        ("q", {"a": 1, "b": 0}),
        ("r", {"c": 1, "a": 0}),
    ]
    mined = {"query": "q", "positive": "a", "negative_1": "b", "negative_2": "c", "negative_reason": "x"}
    assert graded(file(mined)) == [("q", {"a": 1, "b": 0, "c": 0})]


@pytest.mark.parametrize(
    "judgements",
    [
        [{"qid": 1, "docid": "d1", "grade": 3}, {"qid": "1", "docid": "gone", "grade": 2}],
        ["1 0 d1 3", "1\t0\tgone\t2", "", "1 0 none 0", "1 0 spam -2"],
    ],
)
def test_candidate_lists_with_judgements(file: Write, judgements: list[object]):
    qrels = file(*judgements, name="qrels.txt")
    path = file(listing(1, ["d2", "d1"], ["b", "a"]), listing(2, ["d2", 3], ["b", "c"]))
    found = read_rerank(path, qrels=qrels)
    assert found.rows == [
        RerankRow("query 1", ("b", "a"), (0.0, 3.0), 1, missed=(2.0,)),
        RerankRow("query 2", ("b", "c"), (0.0, 0.0), 2),
    ]
    assert (found.format, found.graded) == ("candidates", True)
    assert found.notes == ("Queries without any judgement, all of whose passages count as not relevant: 1.",)


def test_one_text_under_two_ids_keeps_its_better_judgement(file: Write):
    qrels = file("1 0 d1 1", "1 0 d2 3", name="qrels.txt")
    for order in (["d1", "d2"], ["d2", "d1"]):
        found = read_rerank(file(listing("1", order, ["a", "a"])), qrels=qrels)
        assert [(row.passages, row.grades, row.missed) for row in found.rows] == [(("a",), (3.0,), ())]


def test_judgements_must_fit_the_file(file: Write):
    lists, qrels = file(listing(1, ["d"], ["a"])), file("1 0 d 1", name="qrels.txt")
    with pytest.raises(DataError, match="candidate lists need judgements; give a qrels file"):
        read_rerank(lists)
    with pytest.raises(DataError, match=r"no query id occurs in .*other\.txt"):
        read_rerank(lists, qrels=file("7 0 d 1", name="other.txt"))
    with pytest.raises(DataError, match="the rows are triplets, which hold their grades; leave out the qrels file"):
        read_rerank(file({"query": "q", "positive": "a", "negative": "b"}), qrels=qrels)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"qrels: the file is empty; expected judgements"),
        (["1 0 d 1", "1 0 d"], r":2: found 3 columns; expected four: qid 0 docid grade"),
        (["1 0 d high"], r':1: "grade" is "high", expected a number'),
        (["1 0 d nan"], r':1: "grade" is not a finite number'),
        (["1 0 d 1", "", "1 0 d 2"], r':3: document "d" has the grades 1 and 2 for query "1"; expected one'),
        ([{"qid": 1, "docid": 2}], r':1: "grade" is missing; expected qid, docid and grade'),
        ([{"qid": 1.5, "docid": 2, "grade": 1}], r':1: "qid" is a number, expected an id'),
        ([{"qid": 1, "docid": " ", "grade": 1}], r':1: "docid" is empty, expected an id'),
        ([{"qid": 1, "docid": "d", "grade": None}], r':1: "grade" is null, expected a number'),
        (['{"qid": 1'], r":1: not one complete JSON object"),
    ],
)
def test_bad_judgements(file: Write, lines: list[object], message: str):
    with pytest.raises(DataError, match=message):
        read_qrels(file(*lines, name="qrels"))


GOOD = cohere("good", ["a"], "b")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (cohere(" ", ["a"]), '"query" is an empty text; remove it or write one'),
        (cohere(3, ["a"]), '"query" is a number, expected a string'),
        (cohere("q", "a"), '"relevant_passages" is a string, expected a list; wrap it in a list'),
        (cohere("q", ["a"]) | {"hard_negatives": "b"}, '"hard_negatives" is a string, expected a list; wrap it'),
        (cohere("q", ["a"]) | {"hard_negatives": {}}, '"hard_negatives" is an object, expected a list$'),
        (cohere("q", ["a", ""]), '"relevant_passages" holds an empty text'),
        (cohere("q", ["a"], None), '"hard_negatives" holds null, expected a string'),
        (cohere("q", ["a\ud800"]), '"relevant_passages" holds half of a surrogate pair'),
        (cohere("q\0", ["a"]), '"query" holds a NUL character; remove it'),
        (cohere("q", []), 'query "q" has no relevant passage; give it a relevant passage or remove it'),
        (
            cohere("q", ["a"], "c", "a "),
            r'passage "a " is both relevant and a hard negative of its query \(on this line',
        ),
        (cohere("good", ["b"]), r'passage "b" is both relevant and a hard negative of its query \(see line 1\)'),
        ({"query": "q"}, '"relevant_passages" is missing; found the keys query'),
        (pair("q", "a", 1), "the row is graded-pairs, but line 1 is rerank; a file holds one shape"),
        ("{", "not one complete JSON object"),
    ],
)
def test_bad_cohere_rows(file: Write, row: object, message: str):
    path = file(GOOD, "", row, cohere("later", []))
    with pytest.raises(DataError, match=message) as caught:
        read_rerank(path)
    assert (caught.value.path, caught.value.line) == (path, 3)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (pair("q", "a", "high"), ':3: "score" is "high", expected a number'),
        (pair("q", "a", None), ':3: "score" is null, expected a number'),
        (pair("q", "a", 10**400), ':3: "score" is too large, expected a number'),
        ('{"query":"q","document":"a","score":1e999}', ':3: "score" is not a finite number'),
        (pair("q", [], 1), ':3: "document" is a list, expected a string'),
        (pair("q", "a", 0), ':3: query "q" has no relevant passage; give it a passage with a grade above 0'),
        (pair("good", "a", 0.5), r':3: passage "a" has the grades 1 and 0.5 for one query \(see line 1\); keep one'),
    ],
)
def test_bad_pairs(file: Write, row: object, message: str):
    with pytest.raises(DataError, match=message):
        read_rerank(file(pair("good", "a", 1), "", row))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (listing(1, ["d"], ["a"]), ':2: query id "1" is on line 1 already; expected once'),
        (listing(2, ["d"], ["a", "b"]), ':2: "docids" has 1 and "texts" 2 entries; expected as many ids as texts'),
        (listing(2, [], []), ':2: "docids" has 0 and "texts" 0 entries; expected as many ids as texts, at least one'),
        (listing(2, "d", ["a"]), ':2: "docids" is a string, expected a list; wrap it in a list'),
        (listing(2, [True], ["a"]), ':2: "docids" is a boolean, expected an id'),
        (listing("", ["d"], ["a"]), ':2: "qid" is empty, expected an id'),
    ],
)
def test_bad_candidate_lists(file: Write, row: object, message: str):
    with pytest.raises(DataError, match=message):
        read_rerank(file(listing(1, ["d"], ["a"]), row), qrels=file("1 0 d 1", name="qrels.txt"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the file is empty; expected rows with a query and passages"),
        (["[]"], "no record found; expected rows with a query and passages"),
        (["query,document,score"], "the file has no rows"),
        (
            [{"text": "a", "label": "b"}],
            ":1: found the keys text, label; expected query and relevant_passages; query, doc",
        ),
        ([{"query": "a", "document": "b"}], ":1: found the keys query, document; expected"),
        (["text,label", "a,b"], "the first row is text, label; expected the columns query, document and score, or"),
        (["query,relevant_passages", "a,b"], "the first row is query, relevant_passages; expected the columns"),
        (["q", "r"], "only one column found .* expected rows with a query and passages, or set delimiter"),
    ],
)
def test_files_that_hold_no_ranking(file: Write, lines: list[object], message: str):
    with pytest.raises(DataError, match=message):
        read_rerank(file(*lines, name="upload"))


def test_a_forced_format_must_be_one_of_rankings(file: Write):
    with pytest.raises(
        DataError, match="the format chat is for texts with labels; expected one of rerank, graded-pairs"
    ):
        read_rerank(file(GOOD), DataOptions(format="chat"))
    both = GOOD | pair("good", "c", 1)
    assert graded(file(both)) == [("good", {"a": 1, "b": 0})]
    assert graded(file(both), DataOptions(format="graded-pairs")) == [("good", {"c": 1})]


@pytest.mark.parametrize(
    "row",
    [GOOD, {"query": "q", "positive": "a"}, listing(1, ["d"], ["a"]), {"query": "q", "document": "a", "score": 1}],
)
def test_rankings_are_refused_for_classification(file: Write, row: object):
    with pytest.raises(DataError, match=":1: the rows are queries with passages; expected texts with labels"):
        read_classify(file(row))


def test_keys_that_fit_both_tasks_are_read_by_the_task(file: Write):
    path = file({"query": "q", "text": "a", "label": 1})
    assert read_classify(path).rows[0].labels == ("1",)
    assert graded(path) == [("q", {"a": 1})]


PIECES = [
    *(char.encode() for char in '"\n\r,;\t|{}[]: \\a\0é\ufeff'),
    *(b"\xff\xfe", b"\xe9", b"\\ud800", b"\\u0000", b"NaN", b"1e999", b"-1", b"null", b"query", b"score", b"[" * 3000),
]
FILES = [
    [json.dumps(cohere(f"query {i}", [f"text {i}"], f"text {i + 1}")) for i in range(6)],
    [json.dumps(pair(f"query {i % 3}", f"text {i}", 1 + i % 2)) for i in range(6)],
    [json.dumps({"anchor": f"query {i}", "positive": f"text {i}", "negative": "x"}) for i in range(6)],
    [json.dumps(listing(i, [f"d{i}"], [f"text {i}"])) for i in range(6)],
    ["query,document,score"] + [f"query {i % 3},text {i},{1 + i % 2}" for i in range(6)],
]


@settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.binary()
    | st.lists(st.sampled_from(PIECES)).map(b"".join)
    | st.builds(
        lambda lines, at, deleted, pieces: (
            (whole := "\n".join(lines).encode())[:at] + b"".join(pieces) + whole[at + deleted :]
        ),
        st.sampled_from(FILES),
        st.integers(0, 500),
        st.integers(0, 5),
        st.lists(st.sampled_from(PIECES), max_size=3),
    ),
    name=st.sampled_from(["data", "data.csv", "data.json", "data.jsonl"]),
    options=st.builds(
        DataOptions,
        format=st.sampled_from([None, None, None, "csv", "triplets"]),
        header=st.sampled_from([None, True, False]),
        query_column=st.sampled_from([None, None, "1"]),
    ),
    judged=st.booleans(),
)
def test_any_bytes_give_rows_or_a_data_error(
    tmp_path: Path, content: bytes, name: str, options: DataOptions, judged: bool
):
    path, qrels = tmp_path / name, tmp_path / "qrels"
    path.write_bytes(content)
    qrels.write_bytes(b"1 0 d1 1\n" if judged else content)
    for how in (None, qrels):
        try:
            found = read_rerank(path, options, how)
        except DataError as error:
            assert error.path in (path, qrels)
            assert "\n" not in str(error)
        else:
            assert found.rows
            for row in found.rows:
                assert len(row.passages) == len(row.grades) == len({text.strip() for text in row.passages}) > 0


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the public data sets in ../shared/data")
@pytest.mark.parametrize(
    ("name", "rows", "candidates"),
    [
        ("casehold/train.jsonl", 256, 5),
        ("casehold/valid.jsonl", 154, 5),
        ("casehold/test.jsonl", 290, 5),
        ("wikiqa/train.jsonl", 857, None),
        ("wikiqa/dev.jsonl", 122, None),
    ],
)
def test_public_files_are_read_whole(name: str, rows: int, candidates: int | None):
    found = read_rerank(DATA / name)
    assert (len(found.rows), found.graded, found.notes) == (rows, False, ())
    assert all(candidates in (None, len(row.passages)) and 0 < sum(row.grades) < len(row.grades) for row in found.rows)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the public data sets in ../shared/data")
def test_the_judged_lists_of_trec_deep_learning_2019():
    found = read_rerank(DATA / "trec_dl19/bm25_top100.jsonl", qrels=DATA / "trec_dl19/qrels.jsonl")
    raw = [json.loads(line) for line in (DATA / "trec_dl19/bm25_top100.jsonl").open()]
    assert [row.grades for row in found.rows] == [tuple(map(float, each["labels"])) for each in raw]
    assert {len(row.passages) for row in found.rows} == {100}
    assert (len(found.rows), found.graded) == (43, True)
    relevant = sum(grade > 0 for row in found.rows for grade in (*row.grades, *row.missed))
    assert relevant == 1601 + 1804 + 697
