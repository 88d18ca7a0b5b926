"""The description at /openapi.json: whether it is one, whether it is whole, and whether what it says is true."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serving.app import create_app
from tests.serving.live import TUNED, Live

Start = Callable[..., contextlib.AbstractContextManager[Live]]
API = schemathesis.openapi.from_dict(create_app().openapi())
KEY = "a-key-of-sufficient-length"


@pytest.fixture(scope="module")
def live(start: Start, home: Path) -> Iterator[Live]:
    """A server with models that answer requests without a model."""
    with start(api_keys=KEY, default_classifier="desk", default_reranker="ranker") as found:
        yield found


@API.hook
def map_body(context: Any, body: Any) -> Any:
    """Ask a model that is there, of those that must be named."""
    if isinstance(body, dict) and "model" in body:
        body["model"] = TUNED if "openai" in context.operation.path else None
    return body


@API.parametrize()
@settings(max_examples=12, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_it_is_true(case: Any, live: Live) -> None:
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    case.call_and_validate(base_url=live.url, headers={"authorization": f"Bearer {KEY}"}, checks=checks)
