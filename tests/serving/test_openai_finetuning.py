"""From uploaded files to an answering model under /openai/v1, by OpenAI's SDK, with the server's own worker."""

import csv
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from serving.openai.ids import meant
from serving.settings import Settings
from tests.serving.live import Live, run_app
from tests.serving.workplace import PATIENCE, Workplace
from tests.tiny import make_base
from tests.training.conftest import TOPICS, topic_rows
from training.engine import Engine

pytestmark = pytest.mark.slow

SEPARATOR = "\n\n###\n\n"
LABELS = tuple(TOPICS)[:2]
NAME = r"ft:babbage-002:personal:my-shop:[A-Za-z0-9]{8}"
Wait = Callable[..., FineTuningJob]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def completions(count: int, seed: int = 0, labels: tuple[str, ...] = LABELS) -> list[dict[str, Any]]:
    """Rows of prompt and completion as the cookbook prepares them."""
    rows = topic_rows(count, seed, labels)
    return [{"prompt": row["text"] + SEPARATOR, "completion": f" {row['label']}"} for row in rows]


def chats(count: int) -> list[dict[str, Any]]:
    system = {"role": "system", "content": "Name the desk."}
    return [
        {"messages": [system, {"role": "user", "content": row["text"]}, {"role": "assistant", "content": row["label"]}]}
        for row in topic_rows(count)
    ]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    home, base = tmp_path_factory.mktemp("tuning"), make_base(tmp_path_factory.mktemp("base") / "tiny")
    settings = Settings(home=home, cpu_threads=1, default_base=str(base), lease_seconds=5, train_devices="cpu")
    with run_app(settings) as found:
        yield found


@pytest.fixture(scope="module")
def upload(sdk: openai.OpenAI) -> Callable[[bytes], str]:
    return lambda content: sdk.files.create(file=("rows.jsonl", content), purpose="fine-tune").id


@pytest.fixture(scope="module")
def wait(sdk: openai.OpenAI) -> Wait:
    """Ask until a job is as it should be: (job id, status, …) -> the job."""

    def ask(job_id: str, *statuses: str) -> FineTuningJob:
        end = time.monotonic() + PATIENCE
        while (job := sdk.fine_tuning.jobs.retrieve(job_id)).status not in (statuses or ("succeeded", "failed")):
            assert time.monotonic() < end and job.status not in ("succeeded", "failed", "cancelled"), job
            time.sleep(0.1)
        return job

    return ask


@pytest.fixture(scope="module")
def trained(sdk: openai.OpenAI, upload: Callable[[bytes], str], wait: Wait) -> FineTuningJob:
    """A finished job of prompts and completions with a validation file."""
    files = {"training_file": upload(lines(completions(60))), "validation_file": upload(lines(completions(20, seed=1)))}
    numbers: Any = {"n_epochs": 4, "learning_rate_multiplier": 20}
    job = sdk.fine_tuning.jobs.create(
        model="babbage-002", suffix="my shop", seed=3, hyperparameters=numbers, metadata={"k": "v"}, **files
    )
    assert job.status == "validating_files"
    for file in files.values():
        sdk.files.delete(file)
    return wait(job.id)


@pytest.fixture(scope="module")
def table(sdk: openai.OpenAI, trained: FineTuningJob) -> list[dict[str, str]]:
    """Its result file."""
    return list(csv.DictReader(sdk.files.content(trained.result_files[0]).text.splitlines()))


def answers(sdk: openai.OpenAI, model: str, prompts: list[str], **fields: Any) -> list[dict[str, float]]:
    """The probabilities' logarithms for each prompt."""
    found = sdk.completions.create(model=model, prompt=prompts, logprobs=5, max_tokens=1, **fields)
    assert [choice.text for choice in found.choices] == [choice.logprobs.tokens[0] for choice in found.choices]
    return [choice.logprobs.top_logprobs[0] for choice in found.choices]


def measured(sdk: openai.OpenAI, model: str, rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Mean loss and accuracy as a client computes them."""
    found = answers(sdk, model, [row["prompt"] for row in rows])
    right = [row["completion"] for row in rows]
    loss = -sum(logs[label] for logs, label in zip(found, right, strict=True)) / len(rows)
    hits = sum(max(logs, key=logs.__getitem__) == label for logs, label in zip(found, right, strict=True))
    return loss, hits / len(rows)


def test_a_finished_job(trained: FineTuningJob, sdk: openai.OpenAI) -> None:
    assert trained.status == "succeeded" and trained.error is None and trained.estimated_finish is None
    assert trained.finished_at and trained.finished_at >= trained.created_at and trained.seed == 3
    assert trained.fine_tuned_model and re.fullmatch(NAME, trained.fine_tuned_model)
    assert trained.trained_tokens and trained.trained_tokens > 0 and len(trained.result_files) == 1
    numbers = trained.hyperparameters.to_dict()
    assert numbers == {"n_epochs": 4, "batch_size": 16, "learning_rate_multiplier": 20}
    assert trained.method and trained.method.supervised and trained.method.supervised.hyperparameters
    assert trained.method.supervised.hyperparameters.to_dict() == numbers
    assert trained.to_dict()["classifier"] == {
        "encoder": "tiny", "labels": sorted(LABELS), "max_tokens": 64, "separator": None
    }  # fmt: skip
    assert sdk.fine_tuning.jobs.list(metadata={"k": "v"}).data == [trained]


def test_its_events(trained: FineTuningJob, sdk: openai.OpenAI) -> None:
    told = [*sdk.fine_tuning.jobs.list_events(trained.id, limit=5)][::-1]
    assert [event.created_at for event in told] == sorted(event.created_at for event in told)
    messages = [event.message for event in told]
    validating = f"Validating training file: {trained.training_file} and validation file: {trained.validation_file}"
    usual = [
        *(f"Created fine-tuning job: {trained.id}", validating),
        *("Files validated, moving job to queued state", "Fine-tuning job started"),
    ]
    assert [message for message in messages if message in usual] == usual
    assert messages[-2:] == [
        f"New fine-tuned model created: {trained.fine_tuned_model}",
        "The job has successfully completed",
    ]
    steps: list[Any] = [event.data for event in told if event.message.startswith("Step ")]
    assert [data["step"] for data in steps] == list(range(1, 17)) and steps[0]["total_steps"] == 16
    assert {event.type for event in told if event.message.startswith("Step ")} == {"metrics"}
    assert [m for m in messages if "Checkpoint" in m] == [f"Checkpoint created at step {n}" for n in (4, 8, 12, 16)]
    assert all(event.type == "message" for event in told if event.message in usual)


def test_its_result_file(trained: FineTuningJob, table: list[dict[str, str]], sdk: openai.OpenAI) -> None:
    file = sdk.files.retrieve(trained.result_files[0])
    assert (file.purpose, file.filename, file.status) == ("fine-tune-results", "step_metrics.csv", "processed")
    content = sdk.files.content(file.id)
    assert content.response.headers["content-type"] == "text/csv" and len(content.read()) == file.bytes
    assert list(table[0]) == [
        *("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"),
        *(f"classification/{name}" for name in ("accuracy", "weighted_f1_score", "precision", "recall")),
        *(f"classification/{name}" for name in ("f1.0", "auroc", "auprc")),
    ]
    assert [int(line["step"]) for line in table] == list(range(1, 17))
    assert all(line["train_loss"] and line["train_accuracy"] for line in table)
    assert "nan" not in content.text and "\r" not in content.text
    loss, accuracy = measured(sdk, trained.fine_tuned_model or "", completions(20, seed=1))
    last = {name: float(value) for name, value in table[-1].items()}
    assert last["classification/accuracy"] == last["valid_mean_token_accuracy"] == pytest.approx(accuracy)
    assert last["valid_loss"] == pytest.approx(loss, abs=1e-3)


def test_its_checkpoints(trained: FineTuningJob, table: list[dict[str, str]], sdk: openai.OpenAI) -> None:
    listed = sdk.fine_tuning.jobs.checkpoints.list(trained.id, limit=2)
    assert listed.has_more and len(listed.data) == 2
    found = [*listed]
    name = trained.fine_tuned_model
    assert [point.step_number for point in found] == [16, 12, 8]
    assert [point.fine_tuned_model_checkpoint for point in found] == [
        name,
        f"{name}:ckpt-step-12",
        f"{name}:ckpt-step-8",
    ]
    rows = completions(20, seed=1)
    for point in found:
        assert re.fullmatch(r"ftckpt_[A-Za-z0-9]{24}", point.id) and point.fine_tuning_job_id == trained.id
        assert set(point.metrics.to_dict()) == {
            *("step", "train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy"),
            *("full_valid_loss", "full_valid_mean_token_accuracy"),
        }
        loss, accuracy = measured(sdk, point.fine_tuned_model_checkpoint, rows)
        assert point.metrics.full_valid_loss == pytest.approx(loss, abs=1e-3)
        assert point.metrics.full_valid_mean_token_accuracy == pytest.approx(accuracy)
        assert point.metrics.step == point.step_number
        assert point.metrics.train_loss == pytest.approx(float(table[point.step_number - 1]["train_loss"]), rel=1e-3)
    models = [model.id for model in sdk.models.list()]
    assert name in models and not any("ckpt" in model for model in models)
    assert sdk.models.retrieve(f"{name}:ckpt-step-8").owned_by == "personal"


def test_its_answers_are_those_of_the_checkpoint(trained: FineTuningJob, sdk: openai.OpenAI, live: Live) -> None:
    assert live.app and trained.fine_tuned_model
    registry = live.app.state.scorer.registry
    model = registry.find(trained.fine_tuned_model)
    engine = Engine.load(registry.folder(model.id), device="cpu")
    texts = [row["text"] for row in topic_rows(10, seed=5)]
    logits = engine.score(engine.encode(texts))
    expected = np.log(engine.probabilities(np.asarray(logits)))
    for ending in ("", SEPARATOR, SEPARATOR * 2):
        for logs, right in zip(
            answers(sdk, trained.fine_tuned_model, [t + ending for t in texts]), expected, strict=True
        ):
            got = [logs[f" {label}"] for label in engine.manifest.labels]
            assert got == pytest.approx(list(right), abs=1e-3) and sum(map(math.exp, got)) == pytest.approx(1, abs=1e-3)
    chat = sdk.chat.completions.create(
        model=trained.fine_tuned_model, messages=[{"role": "user", "content": texts[0]}], logprobs=True
    )
    said = chat.choices[0]
    assert said.message.content in LABELS and said.logprobs and said.logprobs.content
    assert said.logprobs.content[0].logprob == pytest.approx(max(expected[0]), abs=1e-3)


@pytest.fixture(scope="module")
def continued(sdk: openai.OpenAI, trained: FineTuningJob, upload: Callable[[bytes], str], wait: Wait) -> FineTuningJob:
    """A finished job of chats without a validation file, from the first job's model on."""
    numbers: Any = {"n_epochs": 1}
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": numbers}}
    file = upload(lines(chats(40)))
    return wait(sdk.fine_tuning.jobs.create(model=trained.fine_tuned_model or "", training_file=file, method=method).id)


def test_training_goes_on_from_a_fine_tuned_model(
    continued: FineTuningJob, trained: FineTuningJob, sdk: openai.OpenAI
) -> None:
    assert continued.status == "succeeded" and continued.model == trained.fine_tuned_model, continued.error
    name = continued.fine_tuned_model or ""
    assert re.fullmatch(r"ft:babbage-002:personal::[A-Za-z0-9]{8}", name)
    assert continued.to_dict()["classifier"]["encoder"] == "tiny"
    assert continued.hyperparameters.n_epochs == 1 and type(continued.seed) is int
    messages: Any = [
        {"role": "system", "content": "whatever"},
        {"role": "user", "content": chats(1)[0]["messages"][1]["content"]},
    ]
    assert sdk.chat.completions.create(model=name, messages=messages).choices[0].message.content in TOPICS
    assert sdk.completions.create(model=name, prompt="my parcel").choices[0].text in TOPICS


def test_without_a_validation_file_nothing_is_said_of_one(continued: FineTuningJob, sdk: openai.OpenAI) -> None:
    table = list(csv.DictReader(sdk.files.content(continued.result_files[0]).text.splitlines()))
    assert [int(line["step"]) for line in table] == list(range(1, len(table) + 1))
    for line in table:
        assert {name for name, value in line.items() if value} == {"step", "train_loss", "train_accuracy"}
    assert not {"classification/precision", "classification/auroc"} & set(table[0])
    [point] = sdk.fine_tuning.jobs.checkpoints.list(continued.id).data
    assert set(point.metrics.to_dict()) == {"step", "train_loss", "train_mean_token_accuracy"}


def test_a_deleted_model(continued: FineTuningJob, sdk: openai.OpenAI) -> None:
    name = continued.fine_tuned_model or ""
    assert sdk.models.delete(name).deleted
    for ask in (sdk.models.retrieve, sdk.models.delete, lambda model: sdk.completions.create(model=model, prompt="x")):
        with pytest.raises(openai.NotFoundError) as error:
            ask(name)
        assert error.value.code == "model_not_found"
    assert sdk.fine_tuning.jobs.retrieve(continued.id) == continued
    assert sdk.fine_tuning.jobs.checkpoints.list(continued.id).data == []
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.fine_tuning.jobs.create(model=name, training_file=continued.training_file)
    assert refused.value.code == "model_not_available"


def test_the_checkpoint_of_an_epoch_can_go_alone(trained: FineTuningJob, sdk: openai.OpenAI) -> None:
    name = trained.fine_tuned_model
    points = sdk.fine_tuning.jobs.checkpoints.list(trained.id).data
    sdk.models.delete(f"{name}:ckpt-step-12")
    assert [point.step_number for point in sdk.fine_tuning.jobs.checkpoints.list(trained.id)] == [16, 8]
    rest = sdk.fine_tuning.jobs.checkpoints.list(trained.id, after=points[1].id)
    assert [point.step_number for point in rest] == [8]


@pytest.fixture(scope="module")
def busy(sdk: openai.OpenAI, upload: Callable[[bytes], str], wait: Wait, trained: FineTuningJob) -> FineTuningJob:
    """A job that trains for a long time."""
    numbers: Any = {"n_epochs": 50, "batch_size": 1}
    file = upload(lines(completions(3000, labels=tuple(TOPICS))))
    job = sdk.fine_tuning.jobs.create(model="gpt-4o-mini-2024-07-18", training_file=file, hyperparameters=numbers)
    return wait(job.id, "running")


ROW = b'{"prompt": "a b", "completion": " %s"}\n'
FEW = "Training file has 7 example(s), but must have at least 10 examples"
ONE = "Training file has 1 label ('hockey'), but must have at least 2"
BAD = {
    "seven rows": (lines(completions(7)), "invalid_n_examples", FEW),
    "one label": (
        lines([{"prompt": f"goal {i}", "completion": " hockey"} for i in range(12)]),
        "invalid_n_classes",
        ONE,
    ),
    "a broken line": (lines(completions(20)) + b"{broken\n", "invalid_file_format", "Line 21: "),
    "a row without completion": (lines([*completions(20), {"prompt": "a"}]), "invalid_file_format", "Line 21: "),
    "not UTF-8": (lines(completions(20)) + ROW % b"caf\xe9", "invalid_file_format", "Line 21: "),
    "two shapes": (lines([*completions(20), *chats(1)]), "invalid_file_format", "Line 21: "),
    "list labels": (lines([{"text": f"a {i}", "label": ["x", "y"]} for i in range(12)]), "invalid_file_format", ""),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_fail_while_another_job_trains(
    busy: FineTuningJob, sdk: openai.OpenAI, upload: Callable[[bytes], str], wait: Wait, kind: str
) -> None:
    content, code, message = BAD[kind]
    job = wait(sdk.fine_tuning.jobs.create(model="babbage-002", training_file=upload(content)).id, "failed")
    assert job.error and (job.error.code, job.error.param) == (code, "training_file")
    assert job.error.message.startswith("Training file") and message in job.error.message
    assert (job.fine_tuned_model, job.result_files, job.trained_tokens) == (None, [], None)
    assert job.finished_at and job.finished_at >= job.created_at
    latest = sdk.fine_tuning.jobs.list_events(job.id).data[0]
    assert (latest.level, latest.message) == ("error", job.error.message)
    assert sdk.fine_tuning.jobs.retrieve(busy.id).status == "running"


def test_a_bad_validation_file(busy: FineTuningJob, sdk: openai.OpenAI, upload: Any, wait: Wait) -> None:
    train = upload(lines(completions(20)))
    strange = lines([{"prompt": "a", "completion": " nowhere"}] * 5)
    for content in (strange, b'{"prompt": 1}\n'):
        made = sdk.fine_tuning.jobs.create(model="ada", training_file=train, validation_file=upload(content))
        job = wait(made.id, "failed")
        assert job.error and (job.error.code, job.error.param) == ("invalid_file_format", "validation_file")


def test_what_is_only_odd_is_warned_of(busy: FineTuningJob, sdk: openai.OpenAI, upload: Any, wait: Wait) -> None:
    odd = [*completions(20), completions(20)[0], {"prompt": "   ", "completion": " a"}]
    job = wait(sdk.fine_tuning.jobs.create(model="ada", training_file=upload(lines(odd))).id, "queued")
    told = sdk.fine_tuning.jobs.list_events(job.id).data
    assert sum(event.level == "warn" for event in told) >= 2
    assert sdk.fine_tuning.jobs.cancel(job.id).status == "cancelled"


def step_of(sdk: openai.OpenAI, job_id: str) -> int:
    data: list[Any] = [event.data for event in sdk.fine_tuning.jobs.list_events(job_id, limit=50) if event.data]
    return max((figures.get("step", 0) for figures in data), default=0)


def test_a_running_job_is_paused_resumed_and_cancelled(
    busy: FineTuningJob, sdk: openai.OpenAI, live: Live, checkpoint: Path, upload: Any, wait: Wait
) -> None:
    place = Workplace(live.home, f"sqlite:///{live.home / 'encore.db'}", live.home)
    job = place.jobs.get(meant("ftjob-", busy.id) or "")
    place.until(lambda: step_of(sdk, busy.id) > 1)
    running = sdk.fine_tuning.jobs.retrieve(busy.id)
    assert running.hyperparameters.n_epochs == 50 and running.trained_tokens is None
    assert running.estimated_finish is None or running.estimated_finish >= running.created_at
    place.registry.add(checkpoint, "desk")
    orphan = sdk.fine_tuning.jobs.create(model="desk", training_file=upload(lines(completions(20))))
    sdk.models.delete("desk")
    path = f"{live.url}/openai/v1/fine_tuning/jobs/{busy.id}"
    assert httpx.post(f"{path}/pause").json()["status"] == "paused"
    place.until(lambda: not place.trainers(job))
    came_to = step_of(sdk, busy.id)
    failed = wait(orphan.id, "failed")  # the lane is free meanwhile
    assert failed.error and failed.error.code == "training_failed" and failed.error.param is None
    assert "has been deleted" in failed.error.message
    assert httpx.get(path).json()["status"] == "paused" and step_of(sdk, busy.id) == came_to
    assert sdk.fine_tuning.jobs.resume(busy.id).status == "queued"
    place.until(lambda: step_of(sdk, busy.id) > came_to)
    cancelled = sdk.fine_tuning.jobs.cancel(busy.id)
    assert cancelled.status == "cancelled" and cancelled.finished_at and cancelled.error is None
    assert cancelled.fine_tuned_model is None and cancelled.result_files == []
    place.until(lambda: not place.trainers(job) and not place.jobs.folder(job.id).path.exists())
    told = [event.message for event in sdk.fine_tuning.jobs.list_events(busy.id, limit=1000)]
    steps = [int(found[1]) for message in reversed(told) if (found := re.match(r"Step (\d+)/", message))]
    assert steps == sorted(set(steps)) and "cancelled" in told[0]
    assert not any(model.id.startswith("ft:gpt-4o-mini") for model in sdk.models.list())


def test_no_path_is_shown(live: Live, trained: FineTuningJob, sdk: openai.OpenAI) -> None:
    with httpx.Client(base_url=f"{live.url}/openai/v1") as wire:
        shown = [wire.get("/fine_tuning/jobs", params={"limit": 100}).text, wire.get("/files").text]
        shown += [wire.get(f"/fine_tuning/jobs/{job.id}/events").text for job in sdk.fine_tuning.jobs.list(limit=100)]
    assert not any(str(live.home) in text for text in shown)
    assert Path(live.home, "encore.db").exists()
