"""Datasets, by the unmodified SDK and on the wire, with a real worker that validates them."""

import asyncio
import io
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cohere
import pytest
from cohere.errors import NotFoundError

from serving.files import Upload
from tests.serving.cohere_place import MULTI, RERANK, SINGLE, Place, failure, jsonl, open_place, several
from tests.serving.live import refused
from tests.training.conftest import topic_queries, topic_rows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server with a worker of its own."""
    with open_place(tmp_path_factory.mktemp("place")) as opened:
        yield opened


def csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    lines = [f"{row['text']}{delimiter}{row['label']}\n" for row in ({"text": "text", "label": "label"}, *rows)]
    return "".join(lines).encode()


def numbers(dataset: cohere.Dataset) -> cohere.FinetuneDatasetMetrics:
    assert dataset.metrics and dataset.metrics.finetune_dataset_metrics
    return dataset.metrics.finetune_dataset_metrics


def labels(dataset: cohere.Dataset) -> dict[str | None, int | None]:
    """Examples of each label; each comes with samples."""
    found = numbers(dataset).classify_data_metrics
    assert found and found.label_metrics and all(entry.samples for entry in found.label_metrics)
    return {entry.label: entry.total_examples for entry in found.label_metrics}


def test_an_upload_is_validated_and_described(place: Place, tmp_path: Path) -> None:
    train, held = topic_rows(50), topic_rows(30, seed=1)
    (tmp_path / "train.jsonl").write_bytes(jsonl(train))
    (tmp_path / "eval.csv").write_bytes(csv(held))
    with (tmp_path / "train.jsonl").open("rb") as data, (tmp_path / "eval.csv").open("rb") as eval_data:
        made = place.co.datasets.create(name="tickets", type=SINGLE, data=data, eval_data=eval_data)
    dataset = place.co.wait(made, interval=0.05, timeout=60).dataset
    assert (dataset.id, dataset.name, dataset.dataset_type) == (made.id, "tickets", SINGLE)
    assert (dataset.validation_status, dataset.validation_error) == ("validated", "")
    assert dataset.required_fields == ["text", "label"] and dataset.preserve_fields == []
    assert dataset.created_at.tzinfo is not None and dataset.created_at <= dataset.updated_at
    assert [part.name for part in dataset.dataset_parts or []] == ["train.jsonl", "eval.csv"]
    assert [part.num_rows for part in dataset.dataset_parts or []] == [50, 30]
    assert [part.size_bytes for part in dataset.dataset_parts or []] == [len(jsonl(train)), len(csv(held))]
    assert [len(part.samples or []) for part in dataset.dataset_parts or []] == [5, 5]
    assert json.loads((dataset.dataset_parts or [])[0].samples[0])["text"] == train[0]["text"]  # type: ignore[index]
    metrics = numbers(dataset)
    assert (metrics.total_examples, metrics.train_examples, metrics.eval_examples) == (80, 50, 30)
    assert metrics.trainable_token_count and metrics.trainable_token_count > 50
    assert metrics.reranker_data_metrics is None and metrics.chat_data_metrics is None
    assert labels(dataset) == {"billing": 27, "shipping": 27, "technical": 26}
    body = place.wire.get(f"/v1/datasets/{made.id}").json()
    assert list(body) == ["dataset"] and "status" not in body["dataset"]
    assert body["dataset"]["created_at"].endswith("Z") and len(body["dataset"]["created_at"]) == 27
    assert place.wire.get(f"/v1/v1/datasets/{made.id}").json() == body


def test_ids_alone_are_answered(place: Place) -> None:
    for path, part in (("/v1/datasets", "data"), ("/v1/v1/datasets", "file")):  # Cohere's curl sample says file
        files = {part: ("x.jsonl", jsonl(topic_rows(40)))}
        response = place.wire.post(path, params={"name": "x", "type": SINGLE}, files=files)
        assert response.status_code == 200 and list(response.json()) == ["id"]
        shown = place.wire.get(f"/v1/datasets/{response.json()['id']}").json()["dataset"]
        assert shown["dataset_parts"][0]["name"] == "x.jsonl"


def test_the_async_client_waits_too(place: Place) -> None:
    async def ask() -> Any:
        async with cohere.AsyncClientV2("any", base_url=place.live.url) as client:
            made = await client.datasets.create(name="later", type=SINGLE, data=jsonl(topic_rows(40)))
            found = await client.wait(made, interval=0.05, timeout=60)
            await client.datasets.delete(made.id or "")
            return found.dataset

    assert asyncio.run(ask()).validation_status == "validated"


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (csv(topic_rows(40)), {}),
        (csv(topic_rows(40), ";"), {}),
        (csv(topic_rows(40), "~"), {"csv_delimiter": "~"}),
        (b"\xef\xbb\xbf" + jsonl(topic_rows(40)).replace(b"\n", b"\r\n"), {}),
        (jsonl([row | {"id": 1} for row in topic_rows(40)]), {"keep_fields": ["id"], "optional_fields": ["more"]}),
    ],
    ids=["csv", "semicolon", "own delimiter", "byte order mark", "further fields"],
)
def test_formats_are_told_by_content(place: Place, data: bytes, options: dict[str, Any]) -> None:
    dataset = place.validated(data, **options)
    assert [(part.name, part.num_rows) for part in dataset.dataset_parts or []] == [("upload", 40)]
    assert dataset.preserve_fields == [name for field in options if "fields" in field for name in options[field]]


def test_sets_of_labels(place: Place) -> None:
    dataset = place.validated(jsonl(several(topic_rows(60))), MULTI)
    assert labels(dataset) == {"billing": 15, "shipping": 15, "technical": 15}
    every = [row | {"label": [row["label"], "ticket"]} for row in topic_rows(60)]
    assert "Every row has the label ticket" in failure(place, jsonl(every), MULTI)


def test_rankings(place: Place) -> None:
    train, held = topic_queries(256), topic_queries(64, seed=1)
    dataset = place.validated(jsonl(train), RERANK, eval_data=io.BytesIO(jsonl(held)))
    assert dataset.required_fields == ["query", "relevant_passages"]
    counts = numbers(dataset).reranker_data_metrics
    assert counts and numbers(dataset).classify_data_metrics is None
    assert (counts.num_train_queries, counts.num_eval_queries) == (256, 64)
    assert (counts.num_train_relevant_passages, counts.num_eval_relevant_passages) == (256, 64)
    assert 0 < (counts.num_train_hard_negatives or 0) <= 5 * 256 and (counts.num_eval_hard_negatives or 0) > 0
    assert "255 unique queries" in failure(place, jsonl(train[:-1]), RERANK)


def test_what_fails_names_the_line(place: Place) -> None:
    rows = topic_rows(60)
    for bad in (b'{"text": "no label"}\n', b"no json\n"):
        broken = jsonl(rows[:6]) + bad + jsonl(rows[6:])
        assert "Line 7: " in failure(place, broken)
        dataset = place.validated(broken, skip_malformed_input=True)
        assert [part.num_rows for part in dataset.dataset_parts or []] == [60]
        assert any("7" in warning for warning in dataset.validation_warnings or [])
    assert "39 example(s)" in failure(place, jsonl(rows[:39]))
    assert "1 label" in failure(place, jsonl([row | {"label": "x"} for row in rows]))
    assert "Line 1: the required field id was not found" in failure(place, jsonl(rows), keep_fields="id")
    assert "Validation file" in failure(place, jsonl(rows), eval_data=io.BytesIO(b"no json\n"))


def test_rare_labels_and_few_rows_to_evaluate_on_are_warnings(place: Place) -> None:
    for count in (1, 3):
        rows = [*topic_rows(60), *({"text": f"help {n}", "label": "scarce"} for n in range(count))]
        warnings = place.validated(jsonl(rows)).validation_warnings or []
        assert any("scarce" in warning for warning in warnings)
    assert any("12 rows to evaluate on once 20% of the training file is split off" in w for w in warnings)
    held = io.BytesIO(jsonl(topic_rows(24, seed=1)))
    warnings = place.validated(jsonl(topic_rows(60)), eval_data=held).validation_warnings or []
    assert not any("to evaluate on" in warning for warning in warnings)


def test_lists(place: Place) -> None:
    start = datetime.now(UTC)
    made = [
        place.co.datasets.create(name=f"n{n}", type=kind, data=jsonl(topic_rows(3))).id
        for n, kind in enumerate((SINGLE, MULTI, SINGLE))
    ]
    mine = made[::-1]

    def ids(**filters: Any) -> list[str]:
        return [dataset.id for dataset in place.co.datasets.list(after=start, **filters).datasets or []]

    assert ids() == mine
    assert ids(dataset_type=SINGLE) == [mine[0], mine[2]] and ids(dataset_type="embed-input") == []
    assert ids(limit=1) == mine[:1] and ids(limit=2, offset=1) == mine[1:] and ids(offset=9) == []
    assert ids(limit=2.0, offset=1.0) == mine[1:]
    assert place.co.datasets.list(before=start).datasets != [] and ids(before=start) == []
    assert ids(before=datetime.now(UTC) + timedelta(days=1)) == mine
    while ids(validation_status="failed") != mine:
        time.sleep(0.05)  # three rows are too few
    assert ids(validation_status="validated") == [] and ids(validation_status="skipped") == []
    for query in ("limit=-1", "offset=x", "limit=1e99", f"offset={10**40}", "before=soon", "validationStatus=good"):
        assert query.partition("=")[0] in refused(place.wire.get(f"/v1/datasets?{query}"))
    refused(place.wire.get("/v1/datasets", params={"after": "0001-01-01T00:00:00+23:59"}))
    assert place.wire.get("/v1/datasets?after=2999-01-01").json() == {"datasets": []}


def test_usage_and_removal(place: Place) -> None:
    before = place.co.datasets.get_usage().organization_usage or 0
    data = jsonl(topic_rows(40))
    made = place.co.datasets.create(name="short-lived", type=SINGLE, data=data).id or ""
    assert place.co.datasets.get_usage().organization_usage == before + len(data)
    response = place.wire.delete(f"/v1/datasets/{made}")
    assert response.status_code == 200 and response.json() == {}
    assert place.co.datasets.get_usage().organization_usage == before
    for gone in (made, "usages", "../x", "%00", "f" * 10_000):
        assert "not found" in refused(place.wire.get(f"/v1/datasets/{gone}"), 404)
    for call in (place.co.datasets.get, place.co.datasets.delete):
        with pytest.raises(NotFoundError, match=f"dataset with id {made} not found"):
            call(made)


def test_files_of_the_other_surface_are_no_datasets(place: Place) -> None:
    file = place.files.add([Upload("x", io.BytesIO(b"{}"))], name="x", purpose="fine-tune")
    assert file.id not in [dataset.id for dataset in place.co.datasets.list().datasets or []]
    with pytest.raises(NotFoundError):
        place.co.datasets.get(file.id)
    with pytest.raises(NotFoundError):
        place.co.datasets.delete(file.id)
