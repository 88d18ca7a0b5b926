"""Fine-tuning jobs under /openai/v1 as requests see them, by OpenAI's SDK and on the wire; nothing is trained here."""

import asyncio
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.files import Upload
from serving.job_records import NewJob
from serving.jobs import Jobs, tell
from serving.openai.ids import meant, shown
from serving.settings import Settings
from tests.serving.live import JSON, Live, mistake, open_home, run_app, send

OWN = "sentence-transformers/all-MiniLM-L6-v2"
JOBS = "/openai/v1/fine_tuning/jobs"
ROW = b'{"prompt": "my parcel", "completion": " shipping"}\n'
NAME = r"ft:[^:]+:[^:]+:[^:]*:[A-Za-z0-9]{8}"
SINGLE = "single-label-classification-finetune-input"
KEYS = [
    *("object", "id", "model", "created_at", "finished_at", "fine_tuned_model", "organization_id", "result_files"),
    *("status", "validation_file", "training_file", "hyperparameters", "trained_tokens", "error", "seed"),
    *("estimated_finish", "integrations", "metadata", "user_provided_suffix", "method", "classifier"),
]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Live]:
    """A server without a worker, so that a job stays where requests put it."""
    home = tmp_path_factory.mktemp("jobs")
    open_home(home).add(checkpoint, "desk")
    open_home(home).add(checkpoint, "ft:gpt-4o:acme:old:01234567")
    with run_app(Settings(home=home, cpu_threads=1, embedded_worker=False, base_models=("acme/encoder",))) as found:
        yield found


@pytest.fixture(scope="module")
def file(sdk: openai.OpenAI) -> str:
    """Something to train on."""
    return sdk.files.create(file=("train.jsonl", ROW * 20), purpose="fine-tune").id


@pytest.fixture
def create(sdk: openai.OpenAI, file: str) -> Callable[..., Any]:
    """Create a job: (**fields) -> the job."""
    return lambda **fields: sdk.fine_tuning.jobs.create(**{"model": "babbage-002", "training_file": file, **fields})


@pytest.fixture
def jobs(live: Live) -> Jobs:
    assert live.app
    return live.app.state.jobs


def settings_of(jobs: Jobs, public_id: str) -> dict[str, Any]:
    """What will be trained with."""
    return jobs.get(meant("ftjob-", public_id) or "").settings


def test_a_new_job(create: Callable[..., Any], wire: httpx.Client, sdk: openai.OpenAI, file: str) -> None:
    valid = sdk.files.create(file=ROW, purpose="fine-tune").id
    hyperparameters = {"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 0.5}
    job = create(
        validation_file=valid, suffix="My Model!", seed=7, hyperparameters=hyperparameters, metadata={"a": "b"}
    )
    body = wire.get(f"{JOBS}/{job.id}").json()
    assert list(body) == KEYS and body == job.to_dict()
    assert re.fullmatch(r"ftjob-[A-Za-z0-9]{24}", job.id)
    assert (job.status, job.model, job.object) == ("validating_files", "babbage-002", "fine_tuning.job")
    assert (job.training_file, job.validation_file, job.seed) == (file, valid, 7)
    assert (job.finished_at, job.fine_tuned_model, job.trained_tokens, job.error) == (None, None, None, None)
    assert (job.result_files, job.integrations, job.metadata, job.estimated_finish) == ([], [], {"a": "b"}, None)
    assert body["hyperparameters"] == body["method"]["supervised"]["hyperparameters"] == hyperparameters
    assert body["method"]["type"] == "supervised" and body["user_provided_suffix"] == "My Model!"
    assert type(body["created_at"]) is int and body["organization_id"].startswith("org-") and body["classifier"] is None
    assert sdk.fine_tuning.jobs.retrieve(job.id) == job


def test_what_is_left_out_is_chosen(create: Callable[..., Any], jobs: Jobs) -> None:
    nothing = dict.fromkeys(
        ("validation_file", "suffix", "seed", "hyperparameters", "method", "metadata", "integrations"), None
    )
    for job in (create(), create(**nothing), create(hyperparameters={}, method={"type": "supervised"})):
        auto = dict.fromkeys(("n_epochs", "batch_size", "learning_rate_multiplier"), "auto")
        assert job.hyperparameters.to_dict() == job.method.supervised.hyperparameters.to_dict() == auto
        assert type(job.seed) is int and 0 <= job.seed < 2**31
        assert (job.validation_file, job.metadata, job.user_provided_suffix) == (None, None, None)
        assert settings_of(jobs, job.id) == {
            "base_model": OWN, "problem": "single_label", "keep_epochs": 3, "seed": job.seed
        }  # fmt: skip
    assert len({create().seed for _ in range(5)}) > 1


def test_method_wins(create: Callable[..., Any], jobs: Jobs) -> None:
    older = {"n_epochs": 9, "batch_size": 9}
    newer = {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 2}
    job = create(hyperparameters=older, method={"type": "supervised", "supervised": {"hyperparameters": newer}})
    assert job.hyperparameters.to_dict() == newer
    chosen = {
        name: settings_of(jobs, job.id).get(name) for name in ("epochs", "batch_size", "learning_rate_multiplier")
    }
    assert chosen == {"epochs": 2, "batch_size": None, "learning_rate_multiplier": 2}
    job = create(hyperparameters=older, method={"type": "supervised"})
    assert job.hyperparameters.n_epochs == 9


BASES = (
    "babbage-002",
    "davinci-002",
    "gpt-3.5-turbo",
    "gpt-3.5-turbo-0125",
    "gpt-4o-mini-2024-07-18",
    "gpt-4.1",
    "ada",
)


@pytest.mark.parametrize(
    ("model", "base", "word"),
    [
        *((name, OWN, name) for name in BASES),
        (OWN, OWN, "all-MiniLM-L6-v2"),
        ("all-MiniLM-L6-v2", OWN, "all-MiniLM-L6-v2"),
        ("acme/encoder", "acme/encoder", "encoder"),
        ("encoder", "acme/encoder", "encoder"),
        ("desk", None, "desk"),
        ("ft:gpt-4o:acme:old:01234567", None, "gpt-4o"),
    ],
)
def test_base_models(
    create: Callable[..., Any], jobs: Jobs, live: Live, model: str, base: str | None, word: str
) -> None:
    job = create(model=model)
    assert job.model == model
    found = jobs.get(meant("ftjob-", job.id) or "")
    registered = open_home(live.home).find(model)
    assert found.settings["base_model"] == (base or str(live.home / "models" / (registered.id if registered else "")))
    assert found.model_name and re.fullmatch(NAME, found.model_name)
    assert found.model_name.startswith(f"ft:{word}:personal::")


def test_installed_bases_are_listed(sdk: openai.OpenAI) -> None:
    listed = {model.id: model.owned_by for model in sdk.models.list()}
    assert listed[OWN] == listed["acme/encoder"] == "system"
    with pytest.raises(openai.PermissionDeniedError):
        sdk.models.delete("acme/encoder")


@pytest.mark.parametrize(
    "model",
    ["", "nope", "gpt-5", "text-davinci-003", "gpt-4o\n", "gpt-4o" + "x" * 99, "ft:gpt-4o:acme:old:76543210", "é"],
)
def test_models_that_cannot_be_trained(wire: httpx.Client, file: str, model: str) -> None:
    error = mistake(send(wire, JOBS, {"model": model, "training_file": file}))
    assert (error["param"], error["code"]) == ("model", "model_not_available")
    assert error["message"] == f"Model {model} is not available for fine-tuning or does not exist."


@pytest.mark.parametrize(
    ("suffix", "part"),
    [
        ("my-model_1", "my-model_1"),
        ("My Model!", "my-model-"),
        ("a:b//c", "a-b-c"),
        ("日本", "-"),
        ("x" * 64, "x" * 64),
    ],
)
def test_suffix(create: Callable[..., Any], jobs: Jobs, suffix: str, part: str) -> None:
    job = create(suffix=suffix)
    found = jobs.get(meant("ftjob-", job.id) or "")
    assert found.model_name and re.fullmatch(rf"ft:babbage-002:personal:{part}:[A-Za-z0-9]{{8}}", found.model_name)
    assert job.user_provided_suffix == suffix


def supervised(**numbers: Any) -> dict[str, Any]:
    return {"method": {"type": "supervised", "supervised": {"hyperparameters": numbers}}}


NUMBERS = "hyperparameters"
DEEP = "method.supervised.hyperparameters"
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"model": None}, "model", "missing_required_parameter"),
    ({"model": 5}, "model", "invalid_type"),
    ({"training_file": None}, "training_file", "missing_required_parameter"),
    ({"training_file": ["x"]}, "training_file", "invalid_type"),
    ({"training_file": "file-x"}, "training_file", "file_not_found"),
    ({"training_file": ""}, "training_file", "file_not_found"),
    ({"validation_file": "file-" + "0" * 24}, "validation_file", "file_not_found"),
    ({"suffix": ""}, "suffix", "invalid_value"),
    ({"suffix": "x" * 65}, "suffix", "string_above_max_length"),
    ({"suffix": 1}, "suffix", "invalid_type"),
    ({"seed": -1}, "seed", "invalid_value"),
    ({"seed": 2**31}, "seed", "invalid_value"),
    ({"seed": "1"}, "seed", "invalid_type"),
    ({"seed": 1.5}, "seed", "invalid_type"),
    ({"seed": True}, "seed", "invalid_type"),
    ({NUMBERS: {"n_epochs": 0}}, f"{NUMBERS}.n_epochs", "invalid_value"),
    ({NUMBERS: {"n_epochs": 51}}, f"{NUMBERS}.n_epochs", "invalid_value"),
    ({NUMBERS: {"n_epochs": "3"}}, f"{NUMBERS}.n_epochs", "invalid_type"),
    ({NUMBERS: {"batch_size": 257}}, f"{NUMBERS}.batch_size", "invalid_value"),
    ({NUMBERS: {"batch_size": 0}}, f"{NUMBERS}.batch_size", "invalid_value"),
    ({NUMBERS: {"learning_rate_multiplier": 0}}, f"{NUMBERS}.learning_rate_multiplier", "invalid_value"),
    ({NUMBERS: {"learning_rate_multiplier": "high"}}, f"{NUMBERS}.learning_rate_multiplier", "invalid_type"),
    ({NUMBERS: []}, NUMBERS, "invalid_type"),
    (supervised(n_epochs=51), f"{DEEP}.n_epochs", "invalid_value"),
    (supervised(n_epochs=[]), f"{DEEP}.n_epochs", "invalid_type"),
    ({"method": {"type": "dpo", "dpo": {}}}, "method.type", "invalid_value"),
    ({"method": {"type": "reinforcement"}}, "method.type", "invalid_value"),
    ({"method": {"type": 1}}, "method.type", "invalid_type"),
    ({"method": {}}, "method.type", "missing_required_parameter"),
    ({"method": "supervised"}, "method", "invalid_type"),
    ({"metadata": {str(i): "x" for i in range(17)}}, "metadata", "invalid_value"),
    ({"metadata": {"k" * 65: "x"}}, "metadata", "invalid_value"),
    ({"metadata": {"k": "x" * 513}}, "metadata.k", "string_above_max_length"),
    ({"metadata": {"k": 1}}, "metadata.k", "invalid_type"),
    ({"metadata": []}, "metadata", "invalid_type"),
    ({"integrations": {}}, "integrations", "invalid_type"),
]


@pytest.mark.parametrize(("fields", "param", "code"), REFUSED)
def test_fields_that_are_refused(
    wire: httpx.Client, file: str, fields: dict[str, Any], param: str, code: str, jobs: Jobs
) -> None:
    before = jobs.count()
    error = mistake(send(wire, JOBS, {"model": "babbage-002", "training_file": file, **fields}))
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert jobs.count() == before


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b'{"model": NaN}', b"\xff", b"null", b"[" * 9999])
def test_bodies_that_are_no_objects(wire: httpx.Client, body: bytes) -> None:
    error = mistake(send(wire, JOBS, body))
    assert (error["param"], error["code"]) == (None, None)
    assert error["message"].startswith("We could not parse the JSON body of your request.")


def test_metadata_up_to_the_limits(create: Callable[..., Any]) -> None:
    metadata = {"k" * 62 + f"{i:02}": "é" * 512 for i in range(16)}
    assert create(metadata=metadata).metadata == metadata


class TestFiles:
    def test_of_another_purpose(self, sdk: openai.OpenAI, create: Callable[..., Any]) -> None:
        other = sdk.files.create(file=ROW, purpose="user_data").id
        for field in ("training_file", "validation_file"):
            with pytest.raises(openai.BadRequestError, match="uploaded for user_data") as error:
                create(**{field: other})
            assert (error.value.param, error.value.code) == (field, "invalid_file_purpose")

    def test_a_deleted_one(self, sdk: openai.OpenAI, create: Callable[..., Any]) -> None:
        gone = sdk.files.create(file=ROW, purpose="fine-tune").id
        sdk.files.delete(gone)
        with pytest.raises(openai.BadRequestError) as error:
            create(training_file=gone)
        assert (error.value.param, error.value.code) == ("training_file", "file_not_found")

    def test_one_that_is_deleted_afterwards(self, sdk: openai.OpenAI, create: Callable[..., Any], jobs: Jobs) -> None:
        gone = sdk.files.create(file=ROW, purpose="fine-tune").id
        job = create(training_file=gone, validation_file=gone)
        sdk.files.delete(gone)
        folder = jobs.folder(meant("ftjob-", job.id) or "")
        assert [path.read_bytes() for path in folder.inputs] == [ROW, ROW]
        assert sdk.fine_tuning.jobs.retrieve(job.id).training_file == gone

    @pytest.mark.parametrize(
        ("kind", "prepared", "code"),
        [
            (SINGLE, False, "invalid_file_status"),
            (SINGLE, True, None),
            ("multi-label-classification-finetune-input", True, "invalid_file_purpose"),
            ("reranker-finetune-input", True, "invalid_file_purpose"),
        ],
    )
    def test_datasets_of_the_other_dialect(
        self, live: Live, create: Callable[..., Any], kind: str, prepared: bool, code: str | None, file: str
    ) -> None:
        assert live.app
        files = live.app.state.files
        dataset = files.add([Upload("x", io.BytesIO(ROW))], name="x", purpose="fine-tune", dataset_type=kind)
        if prepared:  # as validation leaves it
            files.prepared(dataset.id).write_bytes(ROW)
            with live.app.state.jobs.database.begin() as connection:
                connection.exec_driver_sql(f"UPDATE files SET status = 'validated' WHERE id = '{dataset.id}'")
        public = shown("file-", dataset.id)
        if code is None:
            assert create(training_file=public).status == "queued"
            assert create(training_file=public, validation_file=file).status == "validating_files"
            assert create(training_file=file, validation_file=public).status == "validating_files"
            return
        with pytest.raises(openai.BadRequestError) as error:
            create(training_file=public)
        assert (error.value.param, error.value.code) == ("training_file", code)


class TestStates:
    def test_cancel(self, sdk: openai.OpenAI, create: Callable[..., Any]) -> None:
        job = sdk.fine_tuning.jobs.cancel(create().id)
        assert job.status == "cancelled" and job.finished_at and job.finished_at >= job.created_at
        assert (job.error, job.fine_tuned_model, job.result_files, job.trained_tokens) == (None, None, [], None)
        for act in (sdk.fine_tuning.jobs.cancel, sdk.fine_tuning.jobs.pause, sdk.fine_tuning.jobs.resume):
            with pytest.raises(openai.BadRequestError, match=f"Job {job.id} is already cancelled") as error:
                act(job.id)
            assert (error.value.code, error.value.param) == ("invalid_job_state", None)
        [latest, *_] = sdk.fine_tuning.jobs.list_events(job.id).data
        assert "cancelled" in latest.message
        assert sdk.fine_tuning.jobs.checkpoints.list(job.id).data == []

    def test_pause_and_resume(self, wire: httpx.Client, create: Callable[..., Any]) -> None:
        path = f"{JOBS}/{create().id}"
        assert mistake(wire.post(f"{path}/resume"))["code"] == "invalid_job_state"
        paused = wire.post(f"{path}/pause", headers={"content-type": "application/json"})
        assert paused.status_code == 200 and (paused.json()["status"], paused.json()["finished_at"]) == ("paused", None)
        assert list(paused.json()) == KEYS
        assert mistake(wire.post(f"{path}/pause"))["code"] == "invalid_job_state"
        assert wire.post(f"{path}/resume", content=b"{not json").json()["status"] == "validating_files"
        assert wire.post(f"{path}/pause").json()["status"] == "paused"
        assert wire.post(f"{path}/cancel").json()["status"] == "cancelled"

    @pytest.mark.parametrize("job_id", ["ftjob-x", "x", shown("ftjob-", "0" * 32), "file-" + "0" * 24, "%00", "a%2Fb"])
    def test_unknown_jobs(self, wire: httpx.Client, job_id: str) -> None:
        path = f"{JOBS}/{job_id}"
        answers = [wire.get(path), wire.get(f"{path}/events"), wire.get(f"{path}/checkpoints")]
        answers += [wire.post(f"{path}/{act}") for act in ("cancel", "pause", "resume")]
        for answer in answers:
            error = mistake(answer, 404)
            if "%2F" not in job_id:
                assert (error["param"], error["code"]) == ("fine_tuning_job_id", "fine_tune_not_found")
                assert error["message"].startswith("Could not find fine tune: ")

    def test_other_methods_and_paths(self, wire: httpx.Client, create: Callable[..., Any]) -> None:
        assert mistake(wire.delete(f"{JOBS}/{create().id}"), 405)["code"] == "method_not_supported"
        assert mistake(wire.get(f"{JOBS}/{create().id}/nothing"), 404)["code"] == "unknown_url"
        assert mistake(wire.post("/openai/v1/fine-tunes"), 404)["code"] == "unknown_url"


class TestLists:
    def test_jobs(self, sdk: openai.OpenAI, wire: httpx.Client, create: Callable[..., Any], jobs: Jobs) -> None:
        made = [create(metadata={"run": "list", "n": str(i)}).id for i in range(5)][::-1]
        body = wire.get(JOBS, params={"limit": 2}).json()
        assert list(body) == ["object", "data", "first_id", "last_id", "has_more"]
        assert ([job["id"] for job in body["data"]], body["has_more"]) == (made[:2], True)
        assert (body["first_id"], body["last_id"]) == (made[0], made[1])
        assert [job.id for job in sdk.fine_tuning.jobs.list(limit=2)][:5] == made
        assert len(wire.get(JOBS, params={"limit": 999}).json()["data"]) == min(jobs.count(), 100)
        jobs.remove(meant("ftjob-", made[1]) or "")
        rest = wire.get(JOBS, params={"after": made[1], "limit": 3}).json()["data"]
        assert [job["id"] for job in rest] == made[2:]
        only = {"run": "list"}
        found = sdk.fine_tuning.jobs.list(limit=1, metadata=only)
        assert [job.id for job in found] == [made[0], *made[2:]]
        assert [job.id for job in sdk.fine_tuning.jobs.list(metadata={**only, "n": "0"})] == [made[-1]]
        assert wire.get(JOBS, params={'metadata["]': "\0"}).json()["data"] == []

    def test_events(self, sdk: openai.OpenAI, wire: httpx.Client, create: Callable[..., Any], jobs: Jobs) -> None:
        job = create(integrations=[{"type": "wandb", "wandb": {"project": "p"}}])
        figures = {"step": 1, "total_steps": 3, "train_loss": 0.5, "train_mean_token_accuracy": 0.5}
        with jobs.database.begin() as connection:
            tell(connection, meant("ftjob-", job.id) or "", "Step 1/3: training loss=0.5", data=figures)
            tell(connection, meant("ftjob-", job.id) or "", "Checkpoint created at step 1", data={"step": 1})
        body = wire.get(f"{JOBS}/{job.id}/events").json()
        keys = ["object", "id", "created_at", "level", "message", "type", "data"]
        assert all(list(event) == keys for event in body["data"])
        assert all(re.fullmatch(r"ftevent-[A-Za-z0-9]{24}", event["id"]) for event in body["data"])
        kept, step, warned, first = body["data"]
        assert first["message"] == f"Created fine-tuning job: {job.id}" and first["data"] is None
        assert (warned["level"], warned["type"]) == ("warn", "message") and job.integrations == []
        assert (step["type"], step["data"], kept["type"], kept["data"]) == ("metrics", figures, "message", {"step": 1})
        assert [event.id for event in sdk.fine_tuning.jobs.list_events(job.id, limit=1)] == [
            e["id"] for e in body["data"]
        ]
        assert body["has_more"] is False and body["last_id"] == first["id"]
        other = sdk.fine_tuning.jobs.list_events(create().id).data[0]
        assert mistake(wire.get(f"{JOBS}/{job.id}/events", params={"after": other.id}))["param"] == "after"

    @pytest.mark.parametrize("list_of", ["", "/events", "/checkpoints"])
    @pytest.mark.parametrize(
        ("query", "param"),
        [
            *(({"limit": limit}, "limit") for limit in ("0", "x", "-5")),
            *(({"after": after}, "after") for after in ("x", "ftjob-x", shown("ftjob-", "0" * 32), "file-" + "0" * 24)),
            *(({"after": after}, "after") for after in (shown("ftevent-", "0" * 32), shown("ftckpt_", "0" * 32))),
        ],
    )
    def test_what_cannot_be_asked(
        self, wire: httpx.Client, create: Callable[..., Any], list_of: str, query: dict[str, str], param: str
    ) -> None:
        path = f"{JOBS}/{create().id}{list_of}" if list_of else JOBS
        error = mistake(wire.get(path, params=query))
        assert (error["param"], error["code"]) == (param, "invalid_value")


def test_the_end_of_a_running_job_is_estimated(create: Callable[..., Any], sdk: openai.OpenAI, jobs: Jobs) -> None:
    public = create().id
    own = meant("ftjob-", public) or ""
    with jobs.database.begin() as connection:
        connection.exec_driver_sql(f"UPDATE jobs SET status = 'running' WHERE id = '{own}'")
        tell(connection, own, "Fine-tuning job started", status="running")
        begun = jobs.get(own).created_at.replace(tzinfo=None)
    assert sdk.fine_tuning.jobs.retrieve(public).estimated_finish is None
    for step, second in ((1, 10), (3, 14)):
        with jobs.database.begin() as connection:
            at = begun.replace(microsecond=0, second=0).replace(second=second)
            tell(connection, own, f"Step {step}", data={"step": step, "total_steps": 8, "train_loss": 0.5}, at=at)
    found = sdk.fine_tuning.jobs.retrieve(public)
    assert found.estimated_finish == int(at.replace(tzinfo=jobs.get(own).created_at.tzinfo).timestamp()) + 10
    assert found in list(sdk.fine_tuning.jobs.list())
    jobs.pause(own)
    jobs.cancel(own)


@pytest.mark.parametrize("task", ["classify", "rerank"])
def test_jobs_of_the_other_dialect(sdk: openai.OpenAI, wire: httpx.Client, jobs: Jobs, live: Live, task: Any) -> None:
    assert live.app
    files = live.app.state.files
    dataset = files.add([Upload("x", io.BytesIO(ROW))], name="x", purpose="fine-tune")
    job = jobs.create(NewJob(task=task, base="english", train=dataset, settings={"epochs": 2}), files)
    public = shown("ftjob-", job.id)
    body = wire.get(f"{JOBS}/{public}").json()
    assert list(body) == KEYS and body["model"] == "english" and type(body["seed"]) is int
    assert body["hyperparameters"] == {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": "auto"}
    assert sdk.fine_tuning.jobs.retrieve(public) in sdk.fine_tuning.jobs.list().data
    assert sdk.fine_tuning.jobs.cancel(public).status == "cancelled"


def test_the_asynchronous_sdk_does_it_too(live: Live, file: str) -> None:
    async def life() -> None:
        options: dict[str, Any] = {"api_key": "any", "max_retries": 0, "_strict_response_validation": True}
        async with openai.AsyncOpenAI(base_url=f"{live.url}/openai/v1", **options) as client:
            jobs = client.fine_tuning.jobs
            raw = await jobs.with_raw_response.create(model="gpt-4o-mini", training_file=file)
            assert (raw.status_code, raw.headers["content-type"]) == (200, "application/json")
            assert raw.headers["x-request-id"].startswith("req_")
            job = raw.parse()
            assert await jobs.retrieve(job.id) == job and job in [listed async for listed in jobs.list()]
            assert [event async for event in jobs.list_events(job.id, limit=1)]
            assert (await jobs.cancel(job.id)).status == "cancelled"

    asyncio.run(life())


KNOWN = ("model", "training_file", "validation_file", "suffix", "seed", "method", "hyperparameters", "metadata")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.dictionaries(st.sampled_from([*KNOWN, "integrations", "n"]), JSON | st.dictionaries(st.text(), JSON), max_size=4)
)
def test_no_body_is_a_failure(wire: httpx.Client, file: str, fields: dict[str, Any]) -> None:
    answer = send(wire, JOBS, {"model": "babbage-002", "training_file": file} | fields)
    assert answer.status_code == 200 or mistake(answer)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.sampled_from(["limit", "after", "order", "metadata[a]"]) | st.text(), st.text(), max_size=3))
def test_no_query_is_a_failure(wire: httpx.Client, query: dict[str, str]) -> None:
    answer = wire.get(JOBS, params=query)
    assert answer.status_code == 200 or mistake(answer)
