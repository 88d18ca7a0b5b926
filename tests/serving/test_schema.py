"""The description at /openapi.json: whether it is one, whether it is whole, and whether what it says is true."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serving import app
from serving.openai.ids import meant
from tests.serving.hostile import bodies
from tests.serving.live import TUNED, Live, open_home
from tests.serving.live import send as post

Start = Callable[..., contextlib.AbstractContextManager[Live]]
DOCUMENT = app.create_app().openapi()
API = schemathesis.openapi.from_dict(DOCUMENT)
KEY = "a-key-of-sufficient-length"
OPERATIONS = {(method, path): told for path, each in DOCUMENT["paths"].items() for method, told in each.items()}
FILES, JOBS = "/openai/v1/files", "/openai/v1/fine_tuning/jobs"
ids: dict[str, str] = {}
"""What there is on the server, by the names of parameters."""


@pytest.fixture(scope="module")
def live(start: Start, tmp_path_factory: Any, checkpoint: Path, reranker: Path, tuned: Path) -> Iterator[Live]:
    """A server with a key, models, a file, a dataset and a job."""
    home = tmp_path_factory.mktemp("described")
    for path, name in ((checkpoint, "desk"), (reranker, "ranker"), (tuned, TUNED)):
        open_home(home).add(path, name)
    with start(home=home, api_keys=KEY, default_classifier="desk", default_reranker="ranker") as found:
        with httpx.Client(base_url=found.url, headers={"authorization": f"Bearer {KEY}"}) as wire:
            form = {"file": ("x.jsonl", b'{"prompt": "a", "completion": " b"}\n')}
            files = [wire.post(FILES, files=form, data={"purpose": "fine-tune"}).json()["id"] for _ in range(2)]
            asked = {"model": "babbage-002", "training_file": files[0]}
            jobs = [post(wire, JOBS, asked).json()["id"] for _ in range(2)]
            kind = "single-label-classification-finetune-input"
            made = wire.post("/v1/datasets", params={"name": "x", "type": kind}, files={"data": ("x", b"{}")})
        model = meant("ftjob-", jobs[0]) or ""
        ids.update(
            file=files[0], file_id=files[1], job_id=jobs[1], model_id=model, dataset_id=made.json()["id"], name="desk"
        )
        yield found


def make_likely(case: Any) -> None:
    """Ask every other time for what is there: made up as a whole, hardly any request would get far."""
    usual = bodies(ids["file"], ids["dataset_id"]).get((case.method.lower(), case.path))
    if isinstance(case.body, dict) and usual and len(str(case.body)) % 2:
        case.body = usual | {name: value for name, value in case.body.items() if value is not None and name != "model"}
    for name, value in (case.path_parameters or {}).items():
        if len(str(value)) % 2:
            case.path_parameters[name] = ids[name]


@API.parametrize()
@settings(max_examples=12, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_it_is_true(case: Any, live: Live) -> None:
    make_likely(case)
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    case.call_and_validate(base_url=live.url, headers={"authorization": f"Bearer {KEY}"}, checks=checks)


def test_it_is_a_description_of_its_kind() -> None:
    API.validate()
    assert DOCUMENT["openapi"].startswith("3.1")
    assert not [name for name in DOCUMENT["components"]["schemas"] if "__" in name]  # names of modules


def test_it_is_whole() -> None:
    routes = [route for module in app._ROUTES for route in module.router.routes]
    shown = {
        (method.lower(), route.path_format) for route in routes if route.include_in_schema for method in route.methods
    }
    assert set(OPERATIONS) == shown and len(shown) >= 42
    hidden = {route.path_format for route in routes if not route.include_in_schema}
    assert all(path.startswith(("/v1/v1/", "/v1/v2/")) or path.endswith("models/") for path in hidden - {"/v1/score"})
    for (_, path), told in OPERATIONS.items():
        assert told["description"] and len(told["tags"]) == 1
        assert ("openai" in path) == (told["tags"] == ["OpenAI"])
        assert path.count("{") == sum(given["in"] == "path" for given in told.get("parameters", ()))


def test_what_has_no_body_reads_none(live: Live) -> None:
    with httpx.Client(base_url=live.url, headers={"authorization": f"Bearer {KEY}"}) as wire:
        without = [
            path for (method, path), told in OPERATIONS.items() if method == "post" and "requestBody" not in told
        ]
        assert len(without) == 4
        for path in without:
            assert post(wire, path.format(job_id="x"), b"{").status_code in (200, 404)


def test_it_asks_for_a_key_as_everything_does(live: Live) -> None:
    assert httpx.get(f"{live.url}/openapi.json").status_code == 401
    response = httpx.get(f"{live.url}/openapi.json", headers={"authorization": f"Bearer {KEY}"})
    assert response.json() == DOCUMENT and response.headers["content-type"] == "application/json"
