"""The models API under /openai/v1, by OpenAI's SDK and on the wire, against the real server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from serving.openai.bases import BASES, is_base
from tests.serving.live import TUNED, mistake, open_home

OWN = "sentence-transformers/all-MiniLM-L6-v2"
NAME = "ft:babbage-002:personal:later:00000001"


def test_list_shows_base_models_and_fine_tuned_ones(sdk: openai.OpenAI, wire: httpx.Client) -> None:
    listed = sdk.models.list().data
    bases = [*BASES, OWN]
    assert [model.id for model in listed[: len(bases)]] == bases
    assert {model.owned_by for model in listed[: len(bases)]} == {"system"}
    tuned = listed[len(bases) :]
    assert {"desk", "tags", "ranker", TUNED} <= {model.id for model in tuned}
    assert {model.owned_by for model in tuned} == {"personal"} and {model.object for model in listed} == {"model"}
    assert all(model.created > 1_600_000_000 for model in tuned)
    body = wire.get("/openai/v1/models", params={"limit": "x", "after": "y"}).json()
    assert list(body) == ["object", "data"] and body["object"] == "list"


def test_retrieve(sdk: openai.OpenAI, wire: httpx.Client) -> None:
    assert list(wire.get(f"/openai/v1/models/{TUNED}").json()) == ["id", "object", "created", "owned_by"]
    assert sdk.models.retrieve(TUNED).id == TUNED
    listed = {model.id: model for model in sdk.models.list().data}
    for name in (TUNED, "desk", "babbage-002", OWN):
        assert sdk.models.retrieve(name) == listed[name]
    dated = sdk.models.retrieve("gpt-4o-2024-08-06")
    assert (dated.id, dated.owned_by, dated.created) == ("gpt-4o-2024-08-06", "system", BASES["gpt-4o"])


@pytest.mark.parametrize("name", ["nope", "ft:babbage-002:personal::00000000", "a/b", "a b", "small", "desk/", "ü"])
def test_unknown_models(sdk: openai.OpenAI, wire: httpx.Client, name: str) -> None:
    for call in (sdk.models.retrieve, sdk.models.delete):
        with pytest.raises(openai.NotFoundError) as error:
            call(name)
        assert error.value.code == "model_not_found" and error.value.param is None
        assert error.value.body["message"] == f"The model `{name}` does not exist or you do not have access to it."
    for path in (name, ""):
        mistake(wire.get(f"/openai/v1/models/{path}"), 404)


def test_a_model_without_a_name_goes_by_its_id(sdk: openai.OpenAI, server: Any, checkpoint: Path) -> None:
    registry = open_home(server.home)
    unnamed, misnamed = registry.add(checkpoint), registry.add(checkpoint, "gpt-4o-mine")
    for model in (unnamed, misnamed):
        assert sdk.models.retrieve(model.public_name).id == model.public_name
        assert model.public_name in [listed.id for listed in sdk.models.list().data]
        assert sdk.completions.create(model=model.public_name, prompt="x").model == model.public_name
        assert sdk.models.delete(model.public_name).deleted
    assert registry.find(misnamed.id) is None


def test_delete(sdk: openai.OpenAI, server: Any, tuned: Path) -> None:
    open_home(server.home).add(tuned, NAME)
    assert sdk.completions.create(model=NAME, prompt="x").choices
    deleted = sdk.models.delete(NAME)
    assert (deleted.id, deleted.object, deleted.deleted) == (NAME, "model", True)
    assert NAME not in [model.id for model in sdk.models.list().data]
    messages: Any = [{"role": "user", "content": "x"}]
    calls: tuple[Callable[[], Any], ...] = (
        lambda: sdk.models.retrieve(NAME),
        lambda: sdk.models.delete(NAME),
        lambda: sdk.completions.create(model=NAME, prompt="x"),
        lambda: sdk.chat.completions.create(model=NAME, messages=messages),
    )
    for call in calls:
        with pytest.raises(openai.NotFoundError) as error:
            call()
        assert error.value.code == "model_not_found"


def test_base_models_stay(sdk: openai.OpenAI) -> None:
    for name in ("babbage-002", "gpt-3.5-turbo-0125", OWN):
        with pytest.raises(openai.PermissionDeniedError) as error:
            sdk.models.delete(name)
        assert (error.value.param, error.value.code) == ("model", "cannot_delete_base_model")


def test_the_body_of_a_delete_is_not_read(wire: httpx.Client) -> None:
    for content in (b"", b"{", b"\xff"):
        response = wire.request(
            "DELETE", "/openai/v1/models/nope", content=content, headers={"content-type": "application/json"}
        )
        assert mistake(response, 404)["code"] == "model_not_found"


def test_a_checkpoint_that_cannot_be_loaded(sdk: openai.OpenAI, server: Any, checkpoint: Path) -> None:
    source = server.home / "damaged-too"
    source.mkdir()
    (source / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    open_home(server.home).add(source, "damaged-too")
    with pytest.raises(openai.BadRequestError, match="is not ready for serving"):
        sdk.completions.create(model="damaged-too", prompt="x")
    assert sdk.models.delete("damaged-too").deleted


def test_names_of_base_models(start: Callable[..., Any]) -> None:
    assert all(is_base(name, "a/own", "further") for name in (*BASES, "a/own", "own", "further", "gpt-4.1-2025-04-14"))
    assert not any(is_base(name, "own") for name in ("", "ft:gpt-4o:personal::8dXq1kZb", "ada-2", "gpt-4", OWN))
    with start(base_models=("further", OWN), organization="acme") as live:
        listed = httpx.get(f"{live.url}/openai/v1/models").json()["data"]
    assert [model["id"] for model in listed[: len(BASES) + 2]] == [*BASES, OWN, "further"]
    assert {model["owned_by"] for model in listed[len(BASES) + 2 :]} == {"acme"}
