"""Datasets to fine-tune on (Cohere API reference, Datasets). What they hold is judged by the worker, later."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import ColumnElement
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from serving.cohere.wire import Name, answer, timestamp
from serving.database import files as table
from serving.errors import RequestError
from serving.files import DATASET_KINDS, File, Upload
from serving.names import bare_id
from serving.resolve import files_of
from serving.schema import Binary, Reads
from serving.uploads import form_of, store

UPLOADS = frozenset(("/v1/datasets", "/v1/v1/datasets"))
"""Paths to which files are posted."""

_OTHER_TYPES = (
    *("embed-input", "embed-result", "cluster-result", "cluster-outliers", "chat-finetune-input"),
    *("prompt-completion-finetune-input", "batch-chat-input", "batch-openai-chat-input", "batch-embed-v2-input"),
    "batch-chat-v2-input",
)
_FIELDS = {"rerank": ["query", "relevant_passages"]}
"""What rows must have; those of the other kinds have text and label."""
_MANY = 1_000_000_000
_SAMPLES, _SAMPLE_BYTES = 5, 1000

router = APIRouter()


class NewDataset(BaseModel):
    """How a dataset is uploaded; all of it is in the query, the form has the files alone."""

    name: Annotated[Name, StringConstraints(min_length=1, max_length=50)]
    type: str
    keep_original_file: bool = False
    skip_malformed_input: bool = False
    keep_fields: list[str] = []
    optional_fields: list[str] = []
    text_separator: str | None = None
    csv_delimiter: Annotated[str, StringConstraints(pattern=r'^[^"\r\n\x00]$')] | None = None


class DatasetForm(BaseModel):
    """The files themselves."""

    data: Binary
    eval_data: Binary = b""


class Filters(BaseModel):
    """Which datasets are wanted."""

    dataset_type: str | None = Field(None, alias="datasetType")
    status: Literal["unknown", "queued", "processing", "failed", "validated", "skipped"] | None = Field(
        None, alias="validationStatus"
    )
    before: datetime | None = None
    after: datetime | None = None
    limit: int = Field(_MANY, ge=0, le=_MANY)
    offset: int = Field(0, ge=0, le=_MANY)


@router.post("/v1/datasets")
@router.post("/v1/v1/datasets", include_in_schema=False)
async def create_dataset(
    request: Annotated[Request, Reads(form=DatasetForm)], new: Annotated[NewDataset, Query()]
) -> Response:
    """Store a file, or one to train and one to evaluate on, and have it validated."""
    _check_type(new.type)
    async with form_of(request) as form:
        data, held = _part(form, "data", "file"), _part(form, "eval_data")  # Cohere's own curl sample says file
        if data is None:
            raise RequestError(400, "invalid request: no file; send it as the part data of a multipart form")
        uploads = [Upload(_file_name(part.filename), part.file) for part in (data, held) if part]
        options = new.model_dump(exclude={"name", "type"}, exclude_defaults=True)
        files = files_of(request)
        added = await store(
            request,
            lambda: files.add(uploads, name=new.name, purpose="fine-tune", dataset_type=new.type, options=options),
        )
    return answer({"id": added.id})


@router.get("/v1/datasets")
@router.get("/v1/v1/datasets", include_in_schema=False)
def list_datasets(request: Request, wanted: Annotated[Filters, Query()]) -> Response:
    """List datasets, the newest first; all of them, unless a limit is given."""
    conditions: list[ColumnElement[bool]] = [table.c.dataset_type.is_not(None)]
    if wanted.dataset_type and wanted.dataset_type not in DATASET_KINDS:
        return answer({"datasets": []})
    if wanted.dataset_type:
        conditions.append(table.c.dataset_type == wanted.dataset_type)
    if wanted.status:
        conditions.append(table.c.status == wanted.status)
    if wanted.before:
        conditions.append(table.c.created_at < _naive(wanted.before))
    if wanted.after:
        conditions.append(table.c.created_at > _naive(wanted.after))
    found, _ = files_of(request).list(*conditions, limit=wanted.limit, offset=wanted.offset)
    return answer({"datasets": [_described(request, file) for file in found]})


@router.get("/v1/datasets/usage")
@router.get("/v1/v1/datasets/usage", include_in_schema=False)
def usage(request: Request) -> Response:
    """Tell how many bytes all stored files have."""
    return answer({"organization_usage": files_of(request).usage()})


@router.get("/v1/datasets/{dataset_id}")
@router.get("/v1/v1/datasets/{dataset_id}", include_in_schema=False)
def get_dataset(request: Request, dataset_id: str) -> Response:
    """Describe a dataset. Neither `status` nor `job_id` may stand beside it: `co.wait` would read those."""
    return answer({"dataset": _described(request, find_dataset(request, dataset_id))})


@router.delete("/v1/datasets/{dataset_id}")
@router.delete("/v1/v1/datasets/{dataset_id}", include_in_schema=False)
def delete_dataset(request: Request, dataset_id: str) -> Response:
    """Remove a dataset. Jobs have links of their own to its rows."""
    files_of(request).remove(find_dataset(request, dataset_id).id)
    return answer({})


def find_dataset(request: Request, dataset_id: str) -> File:
    """The dataset of an id.

    Raises:
        RequestError: 404, there is none.
    """
    known = bare_id(dataset_id)
    file = files_of(request).find(known) if known else None
    if file is None or file.dataset_type is None:
        raise RequestError(404, f"dataset with id {dataset_id[:200]} not found")
    return file


def _check_type(given: str) -> None:
    if given in DATASET_KINDS:
        return
    served = f"this server takes {', '.join(DATASET_KINDS)}"
    if given in _OTHER_TYPES:
        raise RequestError(400, f"invalid request: type: datasets of type {given} are not served; {served}")
    raise RequestError(400, f"invalid request: type: {given[:80]!r} is not a type of dataset; {served}")


def _part(form: FormData, *names: str) -> UploadFile | None:
    """The first part with one of these names that is a file."""
    return next((part for name in names for part in form.getlist(name) if isinstance(part, UploadFile)), None)


def _file_name(given: str | None) -> str:
    """What a file is called, without folders and control characters; it is only ever shown."""
    last = (given or "").replace("\\", "/").rpartition("/")[2]
    return "".join(filter(str.isprintable, last))[:255] or "upload"


def _naive(moment: datetime) -> datetime:
    """In UTC without a zone, as the table has it; what came without a zone is taken for UTC."""
    try:
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except OverflowError:
        raise RequestError(400, f"invalid request: {moment.isoformat()} is no moment in UTC") from None


def _described(request: Request, file: File) -> dict[str, Any]:
    kind = DATASET_KINDS[file.dataset_type or ""]
    prepared = files_of(request).prepared
    kept = [*file.options.get("keep_fields", ()), *file.options.get("optional_fields", ())]
    content: dict[str, Any] = {
        "id": file.id,
        "name": file.name,
        "created_at": timestamp(file.created_at),
        "updated_at": timestamp(file.updated_at),
        "dataset_type": file.dataset_type,
        "validation_status": file.status,
        "validation_error": file.report.get("error", ""),
        "validation_warnings": file.report.get("warnings", []),
        "required_fields": _FIELDS.get(kind, ["text", "label"]),
        "preserve_fields": kept,
        "dataset_parts": [
            {
                "id": f"{file.id}-{index}",
                "name": part.name,
                "index": index,
                "num_rows": part.rows,
                "size_bytes": part.bytes,
                "url": None,
                "samples": _samples(prepared(file.id, index)),
            }
            for index, part in enumerate(file.parts)
        ],
    }
    if file.status == "validated":
        content["metrics"] = {"finetune_dataset_metrics": _metrics(file, ranking=kind == "rerank")}
    return content


def _samples(path: Path) -> list[str]:
    """The first rows of a part, as they are trained on; none before it is validated."""
    try:
        with path.open("rb") as rows:
            lines = rows.read(_SAMPLES * _SAMPLE_BYTES).splitlines()[:_SAMPLES]
    except FileNotFoundError:
        return []
    return [line[:_SAMPLE_BYTES].decode("utf-8", "ignore") for line in lines]


def _metrics(file: File, *, ranking: bool) -> dict[str, Any]:
    """Numbers of a validated dataset, those of its own kind only."""
    found = file.report["metrics"]
    train, held = found[0], found[1] if len(found) > 1 else None
    content = {
        "trainable_token_count": train["tokens"],
        "total_examples": sum(part["rows"] for part in found),
        "train_examples": train["rows"],
        "train_size_bytes": file.parts[0].bytes,
        "eval_examples": held["rows"] if held else 0,
        "eval_size_bytes": file.parts[1].bytes if held else 0,
    }
    if ranking:
        return content | {"reranker_data_metrics": _passages("train", train) | _passages("eval", held or {})}
    return content | {"classify_data_metrics": {"label_metrics": _labels(found)}}


def _passages(which: str, part: dict[str, Any]) -> dict[str, int]:
    names = ("queries", "relevant_passages", "hard_negatives")
    return {f"num_{which}_{name}": part.get(name, 0) for name in names}


def _labels(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every label with its examples in all parts together, the most frequent first."""
    counts = dict[str, int]()
    samples = dict[str, list[str]]()
    for part in parts:
        for label, count in part["label_counts"].items():
            counts[label] = counts.get(label, 0) + count
            samples[label] = (samples.get(label, []) + part["samples"].get(label, []))[:_SAMPLES]
    ranked = sorted(counts, key=lambda label: (-counts[label], label))
    return [{"label": label, "total_examples": counts[label], "samples": samples[label]} for label in ranked]
