"""Fine-tuned models as they are asked for, shown, changed and listed, by the unmodified SDK and on the wire."""

import asyncio
import errno
import io
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cohere
import pytest
from cohere.errors import BadRequestError, NotFoundError
from cohere.finetuning import BaseModel, FinetunedModel, Hyperparameters, Settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from serving.cohere.hyperparameters import run_settings
from serving.database import jobs as job_table
from serving.files import Upload
from serving.job_records import NewJob
from serving.validation_lane import ValidationLane
from tests.serving.cohere_place import CLASSIFY, MISSING, PATH, RANK, RERANK, SINGLE, Place, jsonl, open_place
from tests.serving.live import JSON, refused
from tests.training.conftest import topic_rows


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server where nothing is trained: its datasets are validated, but for `new`, and its jobs stay queued."""
    with open_place(tmp_path_factory.mktemp("still"), embedded_worker=False) as place:
        place.upload_usual()
        lane = ValidationLane(place.settings, place.jobs, place.files, "test")
        while lane.once():
            pass
        place.datasets["new"] = place.co.datasets.create(name="new", type=SINGLE, data=b"{}").id or ""
        yield place


def test_the_async_client(still: Place) -> None:
    async def ask() -> Any:
        async with cohere.AsyncClientV2("any", base_url=still.live.url) as client:
            asked = FinetunedModel(
                name="async",
                settings=Settings(base_model=BaseModel(base_type=RANK), dataset_id=still.datasets["rerank"]),
            )
            made = (await client.finetuning.create_finetuned_model(request=asked)).finetuned_model
            assert made and made.id
            found = (await client.finetuning.get_finetuned_model(made.id)).finetuned_model
            assert (await client.finetuning.list_events(made.id)).total_size == 1
            await client.finetuning.delete_finetuned_model(made.id)
            with pytest.raises(NotFoundError):
                await client.finetuning.get_finetuned_model(made.id)
            return made, found

    made, found = asyncio.run(ask())
    assert made == found and (made.name, made.status) == ("async", "STATUS_QUEUED")


def test_a_full_disk_is_told_of(still: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_source: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("serving.jobs.link_or_copy", full)
    answer = still.wire.post(PATH, json=still.body())
    assert "disk is full" in refused(answer, 507) and answer.headers["x-should-retry"] == "false"


def test_before_it_is_ready(still: Place) -> None:
    model_id = still.create("rerank", RANK)
    assert still.wire.get(f"/v1{PATH}/{model_id}").json() == still.wire.get(f"{PATH}/{model_id}").json()
    assert still.shown(f"{model_id}-ft")["id"] == model_id
    for name in (model_id, f"{model_id}-ft"):
        with pytest.raises(BadRequestError, match=f"finetuned model with name {name} is not ready for serving"):
            still.co.rerank(model=name, query="x", documents=["y"])
    assert "not found" in refused(still.wire.get(f"/v1/models/{model_id}-ft"), 404)
    assert still.wire.get(f"{PATH}/{model_id}/training-step-metrics").json() == {
        "step_metrics": [],
        "next_page_token": "",
    }


def change(body: Any, path: str, value: Any) -> Any:
    """A body with one field changed, or taken away (...)."""
    body = json.loads(json.dumps(body))
    *parents, last = path.split(".")
    place = body
    for name in parents:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return body


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("name", ..., "name: field required"),
        ("name", None, "name: field required"),
        ("name", " ", "name: it must not be blank"),
        ("name", "a\0b", "name: it must not hold control characters"),
        ("name", "x" * 257, "name: "),
        ("settings", ..., "settings: field required"),
        ("settings", "x", "settings: "),
        ("settings.base_model", None, "settings.base_model.base_type: field required"),
        ("settings.base_model.base_type", "BASE_TYPE_CHAT", "this server trains BASE_TYPE_CLASSIFICATION and"),
        ("settings.base_model.base_type", "BASE_TYPE_GENERATIVE", "not 'BASE_TYPE_GENERATIVE'"),
        ("settings.base_model.base_type", "BASE_TYPE_UNSPECIFIED", "not 'BASE_TYPE_UNSPECIFIED'"),
        ("settings.base_model.base_type", RANK, f"of type {SINGLE}, which does not go with {RANK}"),
        ("settings.base_model.name", "gpt-9", "'gpt-9' is not a base model of this server; it has english, "),
        ("settings.dataset_id", ..., "settings.dataset_id: field required"),
        ("settings.dataset_id", "", "settings.dataset_id: field required"),
        ("settings.hyperparameters.train_epochs", -1, "settings.hyperparameters.train_epochs: "),
        ("settings.hyperparameters.train_epochs", 1000, "train_epochs: "),
        ("settings.hyperparameters.train_epochs", 1.5, "train_epochs: "),
        ("settings.hyperparameters.train_batch_size", -2, "train_batch_size: "),
        ("settings.hyperparameters.train_batch_size", 10**30, "train_batch_size: "),
        ("settings.hyperparameters.learning_rate", -0.1, "learning_rate: "),
        ("settings.hyperparameters.learning_rate", 5, "learning_rate: "),
        ("settings.hyperparameters.early_stopping_patience", -1, "early_stopping_patience: "),
        ("settings.hyperparameters.early_stopping_threshold", 2, "early_stopping_threshold: "),
        ("settings.hyperparameters.lora_rank", 100_000, "lora_rank: "),
        ("settings.hyperparameters.lora_target_modules", "ALL", "lora_target_modules: "),
    ],
)
def test_refusals(still: Place, path: str, value: Any, message: str) -> None:
    before = still.jobs.count()
    body = change(still.body(train_epochs=1), path, value)
    assert message in refused(still.wire.post(PATH, json=body))
    assert still.jobs.count() == before


def test_datasets_that_cannot_be_trained_on(still: Place) -> None:
    for dataset, base_type, message in (
        ("short", CLASSIFY, "is failed, not validated (Training file has 12 example(s)"),
        ("new", CLASSIFY, "is queued, not validated; wait until it is"),
        ("rerank", CLASSIFY, f"of type {RERANK}, which does not go with {CLASSIFY}"),
    ):
        assert message in refused(still.wire.post(PATH, json=still.body(dataset, base_type)))
    for unknown in ("mine", "00000000-0000-4000-8000-000000000000"):
        message = refused(still.wire.post(PATH, json=still.body(unknown)), 404)
        assert message == f"dataset with id {unknown} not found"
    with pytest.raises(BadRequestError, match="not validated"):
        still.co.finetuning.create_finetuned_model(
            request=FinetunedModel(
                name="x", settings=Settings(base_model=BaseModel(base_type=CLASSIFY), dataset_id=still.datasets["new"])
            )
        )


def test_ids_that_are_none(still: Place) -> None:
    for unknown in ("xyz", "00000000-0000-4000-8000-000000000000", "%00", "f" * 5000):
        for method in ("GET", "DELETE"):
            assert "not found" in refused(still.wire.request(method, f"{PATH}/{unknown}"), 404)
        assert "not found" in refused(still.wire.patch(f"{PATH}/{unknown}", json={}), 404)
        assert "not found" in refused(still.wire.get(f"{PATH}/{unknown}/events"), 404)
    with pytest.raises(BadRequestError, match="finetuneID is not a valid UUID: ''"):
        still.co.finetuning.get_finetuned_model("")


def test_nothing_chosen_is_nothing_sent_zero_or_null(still: Place) -> None:
    for chosen in (None, {}, {"train_epochs": 0, "learning_rate": 0, "lora_rank": None, "train_batch_size": 0}):
        body = change(still.body(train_epochs=1), "settings.hyperparameters", chosen)
        model_id = still.wire.post(PATH, json=body).json()["finetuned_model"]["id"]
        assert still.shown(model_id)["settings"]["hyperparameters"] == {}
        settings = still.jobs.get(model_id).settings
        assert {"epochs", "batch_size", "learning_rate_multiplier", "lora"}.isdisjoint(settings)


def test_what_is_chosen_reaches_the_run(still: Place) -> None:
    chosen = {
        "train_epochs": 2,
        "learning_rate": 0.01,
        "train_batch_size": 4,
        "early_stopping_patience": 5,
        "early_stopping_threshold": 0.002,
        "lora_rank": 4,
        "lora_target_modules": "LORA_TARGET_MODULES_QV",
    }
    model_id = still.create("multi", **chosen)
    assert still.shown(model_id)["settings"]["hyperparameters"] == chosen
    assert still.jobs.get(model_id).settings == {
        "base_model": still.jobs.get(model_id).settings["base_model"],
        "problem": "multi_label",
        "eval_fraction": 0.2,
        "epochs": 2,
        "batch_size": 4,
        "learning_rate_multiplier": 1.0,
        "early_stopping_patience": 5,
        "early_stopping_threshold": 0.002,
        "lora": {"r": 4, "lora_alpha": 8},
    }


@pytest.mark.parametrize(("rate", "multiplier"), [(0.01, 1), (0.04, 2), (0.0001, 0.1), (0.1, 10**0.5)])
def test_rates_are_on_the_scale_of_adapters(rate: float, multiplier: float) -> None:
    assert run_settings({"learning_rate": rate}) == {"learning_rate_multiplier": pytest.approx(multiplier)}


def test_base_models(still: Place) -> None:
    usual = still.settings.default_base
    for name, own in ((None, usual), ("multilingual", usual), (usual, usual), (MISSING, MISSING)):
        body = change(still.body(), "settings.base_model.name", name)
        model_id = still.wire.post(PATH, json=body).json()["finetuned_model"]["id"]
        assert still.jobs.get(model_id).settings["base_model"] == own
        shown = still.shown(model_id)["settings"]["base_model"]
        assert shown["name"] == (name or "english") and shown["version"] == Path(own).name


def test_changes_before_it_begins(still: Place) -> None:
    model_id = still.create(train_epochs=2, learning_rate=0.04)
    shown = still.shown(model_id)
    asked = Settings(
        base_model=BaseModel(base_type=CLASSIFY, name="english"),
        dataset_id=still.datasets["single"],
        hyperparameters=Hyperparameters(train_epochs=5),
    )
    changed = still.co.finetuning.update_finetuned_model(model_id, name="other", settings=asked).finetuned_model
    assert changed and (changed.name, changed.status) == ("other", "STATUS_QUEUED")
    assert still.shown(model_id)["settings"]["hyperparameters"] == {"train_epochs": 5, "learning_rate": 0.04}
    assert (
        still.jobs.get(model_id).settings | {"epochs": 2}
        == still.jobs.get(still.create(train_epochs=2, learning_rate=0.04)).settings
    )
    assert (
        still.shown(model_id)["updated_at"] > shown["updated_at"]
        and still.shown(model_id)["created_at"] == shown["created_at"]
    )
    for body in ({}, {"name": None, "settings": None}, {"name": "other", "settings": {"hyperparameters": None}}):
        assert still.wire.patch(f"{PATH}/{model_id}", json=body).json()["finetuned_model"]["name"] == "other"
    for path, value in (
        ("dataset_id", still.datasets["multi"]),
        ("base_model", {"base_type": RANK}),
        ("base_model", {"name": "gpt"}),
        ("hyperparameters", {"train_epochs": -4}),
    ):
        assert f"settings.{path}" in refused(still.wire.patch(f"{PATH}/{model_id}", json={"settings": {path: value}}))
    assert still.shown(model_id)["settings"]["hyperparameters"]["train_epochs"] == 5


def test_lists_are_read_page_by_page(still: Place) -> None:
    made = [still.create(name=f"n{n}") for n in range(3)]
    everything = still.co.finetuning.list_finetuned_models(page_size=1000)
    ids = [model.id for model in everything.finetuned_models or []]
    assert ids[-3:] == made and everything.total_size == len(ids) and everything.next_page_token == ""
    seen, token = list[Any](), None
    while token != "":
        page = still.co.finetuning.list_finetuned_models(page_size=2, page_token=token)
        seen += [model.id for model in page.finetuned_models or []]
        token = page.next_page_token
        assert 1 <= len(page.finetuned_models or []) <= 2 and page.total_size == len(ids)
    assert seen == ids
    newest = still.co.finetuning.list_finetuned_models(order_by="created_at desc").finetuned_models or []
    assert [model.id for model in newest][:3] == made[::-1]
    assert len(still.wire.get(f"{PATH}?page_size=0").json()["finetuned_models"]) == min(50, len(ids))
    for query in ("page_size=-1", "page_size=x", "page_token=x", "page_token=00000000-0000-4000-8000-000000000000"):
        assert query.partition("=")[0] in refused(still.wire.get(f"{PATH}?{query}"))
    refused(still.wire.get(f"{PATH}?order_by=name"))


def test_jobs_of_the_other_surface_are_shown(still: Place) -> None:
    file = still.files.add([Upload("x", io.BytesIO(jsonl(topic_rows(40))))], name="x", purpose="fine-tune")
    usual = {"epochs": "auto", "learning_rate_multiplier": 2.0}
    job = still.jobs.create(
        NewJob("classify", "babbage-002", file, settings=usual, request={"hyperparameters": {"n_epochs": "auto"}}),
        still.files,
    )
    shown = still.shown(job.id)
    assert shown["settings"]["dataset_id"] == file.id and shown["settings"]["hyperparameters"] == {}
    assert shown["settings"]["base_model"] == {"base_type": CLASSIFY, "name": "babbage-002", "version": "babbage-002"}
    assert shown["name"] == f"{job.id}-ft" and shown["status"] == "STATUS_QUEUED"
    for change_status, status in ((still.jobs.pause, "STATUS_PAUSED"), (still.jobs.cancel, "STATUS_FAILED")):
        change_status(job.id)
        assert still.shown(job.id)["status"] == status
    assert still.co.finetuning.delete_finetuned_model(job.id) == {}


def test_a_model_removed_by_other_means(still: Place) -> None:
    model_id = still.create()
    with still.jobs.database.begin() as connection:
        result = {"epochs": 1, "batch_size": 16, "steps": 3, "history": [], "metrics": {}}
        finished = update(job_table).where(job_table.c.id == model_id).values(status="succeeded", result=result)
        connection.execute(finished)
    assert still.shown(model_id)["status"] == "STATUS_DELETED"
    with pytest.raises(NotFoundError):
        still.co.classify(model=f"{model_id}-ft", inputs=["x"])
    assert still.co.finetuning.delete_finetuned_model(model_id) == {}


@given(
    body=JSON, fields=st.dictionaries(st.sampled_from(("base_model", "dataset_id", "hyperparameters", "wandb")), JSON)
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_breaks_it(still: Place, body: Any, fields: dict[str, Any]) -> None:
    whole = still.body()
    for content in (body, whole | {"name": body}, whole | {"settings": whole["settings"] | fields}):
        for method, path in (("POST", PATH), ("PATCH", f"{PATH}/00000000-0000-4000-8000-000000000000")):
            with suppress(UnicodeEncodeError):  # half of a surrogate pair is not sent
                response = still.wire.request(method, path, content=json.dumps(content, ensure_ascii=False).encode())
                assert response.status_code in (200, 400, 404), response.text
