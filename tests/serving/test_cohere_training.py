"""Fine-tuning from an upload to answers, by the unmodified SDK: real trainings of tiny models."""

import time
from collections.abc import Iterator
from typing import Any

import cohere
import pytest
from cohere.errors import BadRequestError, NotFoundError
from cohere.finetuning import BaseModel, FinetunedModel, Hyperparameters, Settings, WandbConfig

from tests.serving.cohere_place import CLASSIFY, MISSING, MULTI, PATH, PATIENCE, RANK, Place, jsonl, open_place, several
from tests.serving.live import refused
from tests.training.conftest import topic_rows

WANDB_KEY = "wandb-key-of-a-customer"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server that trains."""
    with open_place(tmp_path_factory.mktemp("busy")) as place:
        place.upload_usual()
        while {"queued", "processing"} & {
            dataset.validation_status for dataset in place.co.datasets.list().datasets or []
        }:
            time.sleep(0.1)
        yield place


@pytest.fixture(scope="module")
def ready(busy: Place) -> dict[str, str]:
    """A classifier, asked for with the SDK's own types, and a reranker."""
    asked = FinetunedModel(
        name="tickets",
        settings=Settings(
            base_model=BaseModel(base_type=CLASSIFY, name="english"),
            dataset_id=busy.datasets["single"],
            hyperparameters=Hyperparameters(train_epochs=4, learning_rate=0.02, train_batch_size=8),
            wandb=WandbConfig(project="p", api_key=WANDB_KEY),
        ),
    )
    made = busy.co.finetuning.create_finetuned_model(request=asked).finetuned_model
    assert made and made.id
    models = {"single": made.id, "rerank": busy.create("rerank", RANK, train_epochs=2)}
    for model_id in models.values():
        busy.until(model_id, "STATUS_READY")
    return models


def steps(place: Place, model_id: str, **paging: Any) -> list[dict[str, Any]]:
    return place.wire.get(f"{PATH}/{model_id}/training-step-metrics", params=paging).json()["step_metrics"]


def test_a_finished_model_is_described(busy: Place, ready: dict[str, str]) -> None:
    model = busy.co.finetuning.get_finetuned_model(ready["single"]).finetuned_model
    assert model and (model.id, model.name, model.status) == (ready["single"], "tickets", "STATUS_READY")
    assert model.settings.base_model.base_type == CLASSIFY and model.settings.base_model.name == "english"
    assert model.settings.base_model.version == "base"
    assert model.settings.dataset_id == busy.datasets["single"] and model.settings.multi_label is False
    chosen = model.settings.hyperparameters
    assert chosen and (chosen.train_epochs, chosen.learning_rate, chosen.train_batch_size) == (4, 0.02, 8)
    assert model.completed_at and model.created_at and model.created_at < model.completed_at
    assert model.creator_id and model.organization_id and model.last_used is None
    shown = busy.shown(ready["single"])
    assert shown["settings"]["wandb"] == {"project": "p"}
    ranker = busy.shown(ready["rerank"])["settings"]
    assert ranker["base_model"]["base_type"] == RANK and ranker["multi_label"] is False
    # what was used is told where nothing was chosen
    assert ranker["hyperparameters"] == {"train_epochs": 2, "train_batch_size": 8}
    # 256 queries by 8, twice: none is split off where there are others to evaluate on
    assert (busy.jobs.get(ready["rerank"]).result or {})["steps"] == 64


def test_the_key_of_another_service_is_nowhere(busy: Place, ready: dict[str, str]) -> None:
    held = [path for path in busy.live.home.rglob("*") if path.is_file()]
    assert held and not any(WANDB_KEY.encode() in path.read_bytes() for path in held)


def test_finished_models_answer(busy: Place, ready: dict[str, str]) -> None:
    texts = ["card charged twice please refund", "track my parcel", "screen stuck help"]
    for name in (f"{ready['single']}-ft", ready["single"]):
        found = busy.co.classify(model=name, inputs=texts).classifications
        assert {item.classification_type for item in found} == {"single-label"}
        assert all(set(item.labels) == {"billing", "shipping", "technical", "rare"} for item in found)
    with cohere.ClientV2("any", base_url=busy.live.url) as later:
        ranked = later.rerank(model=f"{ready['rerank']}-ft", query="where is my parcel", documents=texts, top_n=2)
    assert len(ranked.results) == 2 and all(0 <= result.relevance_score <= 1 for result in ranked.results)
    with pytest.raises(BadRequestError, match="is a rerank model"):
        busy.co.classify(model=f"{ready['rerank']}-ft", inputs=texts)
    listed = {model.name: model for model in busy.co.models.list(page_size=1000).models}
    for kind, model_id in ready.items():
        assert listed[f"{model_id}-ft"].endpoints == ["rerank" if kind == "rerank" else "classify"]
        assert listed[f"{model_id}-ft"].finetuned


def test_events_are_changes_of_status(busy: Place, ready: dict[str, str]) -> None:
    found = busy.co.finetuning.list_events(ready["single"])
    assert [event.status for event in found.events or []] == ["STATUS_READY", "STATUS_FINETUNING", "STATUS_QUEUED"]
    assert (found.total_size, found.next_page_token) == (3, "")
    assert all(event.user_id == "" and event.created_at for event in found.events or [])
    first = busy.co.finetuning.list_events(ready["single"], page_size=2)
    rest = busy.co.finetuning.list_events(ready["single"], page_size=2, page_token=first.next_page_token)
    assert [*(first.events or []), *(rest.events or [])] == found.events and rest.next_page_token == ""
    turned = busy.co.finetuning.list_events(ready["single"], order_by="created_at")
    assert turned.events == (found.events or [])[::-1]
    refused(busy.wire.get(f"{PATH}/{ready['single']}/events?page_token=x"))
    refused(busy.wire.get(f"{PATH}/{ready['single']}/events?order_by=name"))


def test_figures_of_steps(busy: Place, ready: dict[str, str]) -> None:
    found = busy.co.finetuning.list_training_step_metrics(ready["single"])
    numbers = [entry.step_number or 0 for entry in found.step_metrics or []]
    result = busy.jobs.get(ready["single"]).result
    assert result is not None and result["steps"] == 4 * 7  # 49 of 61 rows by 8, four times
    assert numbers == list(range(28, 0, -1)) and found.next_page_token == ""
    assert all({"loss", "accuracy"} <= set(entry.metrics or {}) for entry in found.step_metrics or [])
    ends = [entry.step_number for entry in found.step_metrics or [] if "f1" in (entry.metrics or {})]
    assert ends == [28, 21, 14, 7]
    last = (found.step_metrics or [])[0].metrics or {}
    assert set(last) == {"loss", "accuracy", "precision", "recall", "f1", "train_loss", "train_accuracy"}
    assert (last["accuracy"], last["f1"]) == (result["metrics"]["accuracy"], result["metrics"]["f1_macro"])
    seen, token = list[Any](), None
    for _ in range(3):
        page = busy.co.finetuning.list_training_step_metrics(ready["single"], page_size=10, page_token=token)
        seen += page.step_metrics or []
        token = page.next_page_token
    assert seen == found.step_metrics and token == ""
    ranking = steps(busy, ready["rerank"])[0]["metrics"]
    assert {"loss", "accuracy", "accuracy@1", "accuracy@3", "mrr@10", "ndcg@10"} <= set(ranking)


def test_renaming_a_finished_model(busy: Place, ready: dict[str, str]) -> None:
    model = busy.co.finetuning.get_finetuned_model(ready["rerank"]).finetuned_model
    assert model
    renamed = busy.co.finetuning.update_finetuned_model(ready["rerank"], name="other", settings=model.settings)
    assert renamed.finetuned_model and renamed.finetuned_model.name == "other"
    assert renamed.finetuned_model.settings == model.settings
    changed = {"settings": {"hyperparameters": {"train_epochs": 9}}}
    assert "once a job has begun" in refused(busy.wire.patch(f"{PATH}/{ready['rerank']}", json=changed))


def test_removal(busy: Place) -> None:
    dataset = busy.validated(jsonl(several(topic_rows(48))), MULTI)
    model_id = busy.create(dataset.id, train_epochs=1)
    busy.co.datasets.delete(dataset.id)  # the job has what it needs
    busy.until(model_id, "STATUS_READY")
    [found] = busy.co.classify(model=f"{model_id}-ft", inputs=["my card"]).classifications
    assert found.classification_type == "multi-label" and busy.shown(model_id)["settings"]["multi_label"] is True
    assert {"accuracy", "precision", "recall", "f1"} <= set(steps(busy, model_id)[0]["metrics"])
    response = busy.wire.delete(f"{PATH}/{model_id}")
    assert response.status_code == 200 and response.json() == {}
    for call in (
        lambda: busy.co.finetuning.get_finetuned_model(model_id),
        lambda: busy.co.finetuning.delete_finetuned_model(model_id),
        lambda: busy.co.finetuning.list_events(model_id),
        lambda: busy.co.finetuning.list_training_step_metrics(model_id),
        lambda: busy.co.classify(model=f"{model_id}-ft", inputs=["my card"]),
    ):
        with pytest.raises(NotFoundError, match="not found"):
            call()
    listed = busy.co.finetuning.list_finetuned_models().finetuned_models or []
    assert model_id not in [model.id for model in listed]
    assert f"{model_id}-ft" not in [model.name for model in busy.co.models.list(page_size=1000).models]


def test_a_running_job_is_ended_by_its_removal(busy: Place) -> None:
    model_id = busy.create(train_epochs=100)
    busy.until(model_id, "STATUS_FINETUNING")
    with pytest.raises(BadRequestError, match=f"finetuned model with name {model_id}-ft is not ready for serving"):
        busy.co.classify(model=f"{model_id}-ft", inputs=["x"])
    assert busy.co.finetuning.delete_finetuned_model(model_id) == {}
    folder, end = busy.jobs.folder(model_id).path, time.monotonic() + PATIENCE
    while folder.exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert "not found" in refused(busy.wire.post("/v1/classify", json={"model": model_id, "inputs": ["x"]}), 404)


def test_a_training_that_fails(busy: Place) -> None:
    body = busy.body()
    body["settings"]["base_model"]["name"] = MISSING
    model_id = busy.wire.post(PATH, json=body).json()["finetuned_model"]["id"]
    busy.until(model_id, "STATUS_FAILED")
    events = busy.wire.get(f"{PATH}/{model_id}/events").json()["events"]
    assert [event["status"] for event in events] == ["STATUS_FAILED", "STATUS_FINETUNING", "STATUS_QUEUED"]
    assert steps(busy, model_id) == []
    with pytest.raises(BadRequestError, match="is not ready for serving"):
        busy.co.rerank(model=f"{model_id}-ft", query="x", documents=["y"])
