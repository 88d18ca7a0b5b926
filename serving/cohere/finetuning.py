"""Fine-tuned models: created, followed, renamed, removed (Cohere API reference, Finetuning). Each is a job."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from serving.cohere.finetuning_orders import changes, new_job
from serving.cohere.finetuning_wire import BODY, FinetunedModelBody, Paging, described, event, step_metrics
from serving.cohere.wire import answer, page, parse, size_of, wrong_token
from serving.errors import RequestError
from serving.job_records import Job, JobEvent
from serving.names import bare_id
from serving.publish import withdraw
from serving.resolve import files_of, jobs_of, scorer_of
from serving.schema import Reads
from serving.uploads import full_disk_told

_PATH = "/v1/finetuning/finetuned-models"
_ALIAS = f"/v1{_PATH}"
_EVENTS = 100_000
"""More than any job has: it changes its status a few times and tells of a hundred steps or so."""

router = APIRouter()


async def _content(request: Request) -> bytes:
    return await request.body()


Content = Annotated[bytes, Depends(_content)]
Wanted = Annotated[Paging, Query()]


@router.post(_PATH, responses={507: {}})
@router.post(_ALIAS, include_in_schema=False)
def create_finetuned_model(request: Annotated[Request, Reads(FinetunedModelBody)], content: Content) -> Response:
    """Queue a training on a dataset that has been validated."""
    new = new_job(request, parse(BODY, content))
    with full_disk_told():
        job = jobs_of(request).create(new, files_of(request))
    return _answered(request, job)


@router.get(_PATH)
@router.get(_ALIAS, include_in_schema=False)
def list_finetuned_models(request: Request, wanted: Wanted) -> Response:
    """List all jobs, the oldest first, page by page."""
    jobs, after = jobs_of(request), wanted.page_token or None
    if after and bare_id(after) != after:
        raise wrong_token(after)
    try:
        found, more = jobs.list(
            limit=size_of(wanted.page_size), after=after, newest_first=wanted.newest_first(usual=False)
        )
    except RequestError:
        raise wrong_token(wanted.page_token) from None
    content = {
        "finetuned_models": [described(job, has_model=_has_model(request, job)) for job in found],
        "next_page_token": found[-1].id if more else "",
        "total_size": jobs.count(),
    }
    return answer(content)


@router.api_route(f"{_PATH}/", methods=["GET", "PATCH", "DELETE"], include_in_schema=False)
@router.api_route(f"{_ALIAS}/", methods=["GET", "PATCH", "DELETE"], include_in_schema=False)
def no_id() -> Response:
    """Tell what is wrong where the SDK was given an empty id."""
    raise RequestError(400, "invalid request: finetuneID is not a valid UUID: ''")


@router.get(f"{_PATH}/{{model_id}}")
@router.get(f"{_ALIAS}/{{model_id}}", include_in_schema=False)
def get_finetuned_model(request: Request, model_id: str) -> Response:
    """Describe one."""
    return _answered(request, _find(request, model_id))


@router.patch(f"{_PATH}/{{model_id}}")
@router.patch(f"{_ALIAS}/{{model_id}}", include_in_schema=False)
def update_finetuned_model(
    request: Annotated[Request, Reads(FinetunedModelBody)], model_id: str, content: Content
) -> Response:
    """Rename it, or change hyperparameters before its training begins. What is not said stays as it is."""
    job = _find(request, model_id)
    columns = changes(job, parse(BODY, content))
    return _answered(request, jobs_of(request).change(job.id, **columns) if columns else job)


@router.delete(f"{_PATH}/{{model_id}}")
@router.delete(f"{_ALIAS}/{{model_id}}", include_in_schema=False)
def delete_finetuned_model(request: Request, model_id: str) -> Response:
    """Stop the job, if it has not ended, and remove its model."""
    job = _find(request, model_id)
    jobs_of(request).remove(job.id)
    withdraw(job, scorer_of(request).registry, files_of(request))
    return answer({})


@router.get(f"{_PATH}/{{model_id}}/events")
@router.get(f"{_ALIAS}/{{model_id}}/events", include_in_schema=False)
def list_events(request: Request, model_id: str, wanted: Wanted) -> Response:
    """List the changes of its status, the newest first."""
    found = [item for item in _events(request, _find(request, model_id)) if item.status]
    ordered = found if wanted.newest_first(usual=True) else found[::-1]
    shown, token = page({item.id: event(item) for item in ordered}, wanted.page_size, wanted.page_token)
    return answer({"events": shown, "next_page_token": token, "total_size": len(found)})


@router.get(f"{_PATH}/{{model_id}}/training-step-metrics")
@router.get(f"{_ALIAS}/{{model_id}}/training-step-metrics", include_in_schema=False)
def list_training_step_metrics(request: Request, model_id: str, wanted: Wanted) -> Response:
    """List figures of its steps, the newest step first."""
    job = _find(request, model_id)
    shown, token = page(step_metrics(job, _events(request, job)), wanted.page_size, wanted.page_token)
    return answer({"step_metrics": shown, "next_page_token": token})


def _find(request: Request, model_id: str) -> Job:
    known = bare_id(model_id)
    job = jobs_of(request).find(known) if known else None
    if job is None:
        raise RequestError(404, f"finetuned model {model_id[:200]} not found")
    return job


def _events(request: Request, job: Job) -> list[JobEvent]:
    return list(jobs_of(request).events(job.id, limit=_EVENTS)[0])


def _answered(request: Request, job: Job) -> Response:
    return answer({"finetuned_model": described(job, has_model=_has_model(request, job))})


def _has_model(request: Request, job: Job) -> bool:
    return job.status == "succeeded" and scorer_of(request).registry.find(job.id) is not None
