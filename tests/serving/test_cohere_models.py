"""The models API, the key check and the tokenizers, by the SDK and on the wire, against the real server."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cohere
import httpx
import pytest
from cohere.errors import BadRequestError, NotFoundError

from serving.names import BASE_NAMES, RERANK_NAMES

Command = Callable[..., subprocess.CompletedProcess[str]]


def names(client: cohere.Client, **options: Any) -> list[str]:
    return [model.name or "" for model in client.models.list(**options).models]


def test_list_shows_base_models_and_fine_tuned_ones(client: cohere.Client) -> None:
    listed = client.models.list().models
    bases = [*BASE_NAMES, *RERANK_NAMES]
    assert [model.name for model in listed[: len(bases)]] == bases
    assert [model.endpoints for model in listed[: len(bases)]] == [
        *[["classify"]] * len(BASE_NAMES),
        *[["rerank"]] * len(RERANK_NAMES),
    ]
    tuned = listed[len(bases) :]
    assert [model.endpoints for model in tuned[:3]] == [["classify"], ["classify"], ["rerank"]]
    for model in tuned:
        assert (model.name or "").endswith("-ft") and model.finetuned
        assert model.context_length == 32 and model.default_endpoints == [] and model.is_deprecated is False


def test_paging_goes_through_everything_once(client: cohere.Client) -> None:
    seen: list[str] = []
    token = None
    for _ in range(20):
        page = client.models.list(page_size=4, page_token=token)
        assert 1 <= len(page.models) <= 4
        seen += [model.name or "" for model in page.models]
        token = page.next_page_token
        if not token:
            break
    assert seen == names(client, page_size=1000)


def test_filters(client: cohere.Client, wire: httpx.Client) -> None:
    classify, rerank = names(client, endpoint="classify"), names(client, endpoint="rerank")
    assert sorted(classify + rerank) == sorted(names(client)) and client.models.get("ranker").name in rerank
    assert classify[: len(BASE_NAMES)] == list(BASE_NAMES) and rerank[: len(RERANK_NAMES)] == list(RERANK_NAMES)
    assert names(client, endpoint="embed") == []
    assert names(client, endpoint="classify", default_only=True) == [BASE_NAMES[0]]
    assert names(client, endpoint="rerank", default_only=True) == [RERANK_NAMES[0]]
    wrong = ({"page_size": 0}, {"page_size": 1001}, {"page_size": "x"}, {"endpoint": "sing"}, {"default_only": "true"})
    for query in (*wrong, {"page_token": "mine"}):
        response = wire.get("/v1/models", params=query)
        assert response.status_code == 400 and response.json()["message"].startswith("invalid request: ")
        assert next(iter(query)) in response.json()["message"]


def test_one_model_by_each_of_its_names(client: cohere.Client, wire: httpx.Client) -> None:
    described = client.models.get("desk")
    public = described.name or ""
    for name in (public, public.removesuffix("-ft"), public.upper()):
        assert client.models.get(name) == described
    assert client.models.get("english").finetuned is False
    assert wire.get("/v1/v1/models/desk").json() == wire.get("/v1/models/desk").json()
    for missing in ("nope", "a/b", "desk/", "..x"):
        with pytest.raises(NotFoundError) as error:
            client.models.get(missing)
        assert "not found" in error.value.body["message"]


def test_check_api_key(client: cohere.Client) -> None:
    assert client.with_raw_response.check_api_key().data.valid is True


def test_tokenize_and_back(client: cohere.Client) -> None:
    split = client.tokenize(text="my parcel is late", model="desk", offline=False)
    assert split.token_strings == ["my", "parcel", "is", "late"] and len(split.tokens) == 4
    assert client.detokenize(tokens=split.tokens, model="desk", offline=False).text == "my parcel is late"
    # by default the SDK looks for a tokenizer to download, finds none, and asks the server
    assert client.tokenize(text="my parcel is late", model="desk").tokens == split.tokens
    assert client.tokenize(text="my parcel", model="english", offline=False).tokens


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("tokenize", {"text": "", "model": "desk"}, "text: "),
        ("tokenize", {"text": "x" * 65_537, "model": "desk"}, "text: "),
        ("tokenize", {"model": "desk"}, "text: field required"),
        ("detokenize", {"tokens": [], "model": "desk"}, "tokens: "),
        ("detokenize", {"tokens": ["x"], "model": "desk"}, "tokens.0: "),
        ("detokenize", {"tokens": [5, 10_000], "model": "desk"}, "token 10000 is not among the model's"),
        ("detokenize", {"tokens": [-1], "model": "desk"}, "token -1 is not among the model's"),
        ("detokenize", {"tokens": [10**30], "model": "desk"}, ""),
    ],
)
def test_bad_token_requests(wire: httpx.Client, path: str, body: Any, message: str) -> None:
    response = wire.post(f"/v1/{path}", json=body)
    assert response.status_code == 400 and message in response.json()["message"]


def test_adding_and_removing_needs_no_restart(
    server: Any, client: cohere.Client, checkpoint: Path, command: Command
) -> None:
    with pytest.raises(NotFoundError):
        client.classify(model="later", inputs=["x"])
    added = command(server.home, "add", checkpoint.parent, "--name", "later")
    assert added.returncode == 0, added.stderr
    public = next(line.split()[1] for line in added.stdout.splitlines() if line.startswith("model:"))
    assert public in command(server.home, "list").stdout
    known = [public, public.removesuffix("-ft"), "later"]
    answers = [client.classify(model=name, inputs=["x"]).classifications[0] for name in known]
    assert len({answer.confidence for answer in answers}) == 1
    assert command(server.home, "remove", "later").returncode == 0
    for name in known:
        with pytest.raises(NotFoundError):
            client.classify(model=name, inputs=["x"])
    assert public not in names(client)


def test_a_checkpoint_that_cannot_be_loaded_is_a_400(
    server: Any, client: cohere.Client, checkpoint: Path, command: Command
) -> None:
    source = server.home / "damaged"
    source.mkdir(exist_ok=True)
    (source / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    assert command(server.home, "add", source, "--name", "damaged").returncode == 0
    with pytest.raises(BadRequestError) as error:
        client.classify(model="damaged", inputs=["x"])
    assert "is not ready for serving" in error.value.body["message"]
    assert str(server.home) not in error.value.body["message"]
    assert command(server.home, "remove", "damaged").returncode == 0
