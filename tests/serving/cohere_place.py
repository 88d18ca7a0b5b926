"""A server to fine-tune on with the Cohere SDK, and data for it."""

import contextlib
import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cohere
import httpx
import pytest

from serving.files import Files
from serving.jobs import Jobs
from serving.settings import Settings
from tests.serving.live import Live, run_app
from tests.tiny import make_base
from tests.training.conftest import topic_queries, topic_rows

SINGLE = "single-label-classification-finetune-input"
MULTI = "multi-label-classification-finetune-input"
RERANK = "reranker-finetune-input"
PATH = "/v1/finetuning/finetuned-models"
CLASSIFY, RANK = "BASE_TYPE_CLASSIFICATION", "BASE_TYPE_RERANK"
MISSING = "/no/such/base"
PATIENCE = 240.0
"""Seconds after which a test gives up waiting; nothing passes or fails by how long it took."""


@dataclass(frozen=True)
class Place:
    """A server, its clients, and ids of datasets on it by names of their own."""

    live: Live
    settings: Settings
    co: cohere.Client
    wire: httpx.Client
    datasets: dict[str, str]

    @property
    def jobs(self) -> Jobs:
        assert self.live.app is not None
        return self.live.app.state.jobs

    @property
    def files(self) -> Files:
        assert self.live.app is not None
        return self.live.app.state.files

    def upload_usual(self) -> None:
        """Datasets of each kind, the ranking with queries to evaluate on, and one that is too small."""
        usual = {
            "single": (SINGLE, {"data": jsonl([*topic_rows(60), {"text": "help with this order", "label": "rare"}])}),
            "multi": (MULTI, {"data": jsonl(several(topic_rows(60)))}),
            "rerank": (RERANK, {"data": jsonl(topic_queries(256)), "eval_data": jsonl(topic_queries(64, seed=1))}),
            "short": (SINGLE, {"data": jsonl(topic_rows(12))}),
        }
        for name, (kind, files) in usual.items():
            self.datasets[name] = self.co.datasets.create(name=name, type=kind, **files).id or ""

    def validated(self, data: bytes, kind: str = SINGLE, **options: Any) -> cohere.Dataset:
        """What becomes of an upload."""
        made = self.co.datasets.create(name="desk", type=kind, data=io.BytesIO(data), **options)
        return self.co.wait(made, interval=0.05, timeout=60).dataset

    def create(self, dataset: str = "single", base_type: str = CLASSIFY, name: str = "desk", **chosen: Any) -> str:
        """The id of a new fine-tuned model."""
        return self.wire.post(PATH, json=self.body(dataset, base_type, name, **chosen)).json()["finetuned_model"]["id"]

    def body(self, dataset: str = "single", base_type: str = CLASSIFY, name: str = "desk", **chosen: Any) -> Any:
        asked = {"base_model": {"base_type": base_type}, "dataset_id": self.datasets.get(dataset, dataset)}
        return {"name": name, "settings": asked | ({"hyperparameters": chosen} if chosen else {})}

    def shown(self, model_id: str) -> dict[str, Any]:
        return self.wire.get(f"{PATH}/{model_id}").json()["finetuned_model"]

    def until(self, model_id: str, *statuses: str) -> str:
        """Wait for a status, as users do."""
        end = time.monotonic() + PATIENCE
        while (status := self.shown(model_id)["status"]) not in statuses:
            assert time.monotonic() < end and status not in ("STATUS_FAILED", "STATUS_READY"), self.jobs.get(model_id)
            time.sleep(0.1)
        return status


def jsonl(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def several(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with lists of labels, every fourth an empty one."""
    return [row | {"label": [row["label"]] if number % 4 else []} for number, row in enumerate(rows)]


@contextlib.contextmanager
def open_place(folder: Path, *, embedded_worker: bool = True) -> Iterator[Place]:
    """Run a server whose base model is tiny."""
    settings = Settings(
        home=folder / "home",
        default_base=str(make_base(folder / "base")),
        base_models=(MISSING,),
        cpu_threads=1,
        embedded_worker=embedded_worker,
    )
    with run_app(settings) as live, cohere.Client("any", base_url=live.url) as co:
        with httpx.Client(base_url=live.url, timeout=60) as wire:
            yield Place(live, settings, co, wire, {})


def failure(place: Place, data: bytes, kind: str = SINGLE, **options: Any) -> str:
    """Why an upload failed."""
    with pytest.raises(Exception, match="Dataset creation failed with status failed and error : ") as error:
        place.validated(data, kind, **options)
    return str(error.value).partition("error : ")[2]
