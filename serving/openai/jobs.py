"""POST and GET /fine_tuning/jobs and what lies below it (OpenAI API reference, Fine-tuning)."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import TypeAdapter
from starlette.responses import Response

from serving.errors import RequestError
from serving.job_records import Job, JobEvent
from serving.jobs import Jobs
from serving.names import epoch_id
from serving.openai.ids import last_seen, meant, never_seen
from serving.openai.job_wire import describe_checkpoint, describe_event, describe_job
from serving.openai.lists import Cursor, PageQuery, cursor, page
from serving.openai.new_job import JobBody, accept
from serving.openai.wire import PREFIX, answer, parse
from serving.registry import Model
from serving.resolve import jobs_of, scorer_of
from serving.schema import Reads
from serving.uploads import store

_ESTIMATED_BY = 40
"""Latest events by which the end of a running job is estimated."""
_LATEST = 50
"""Latest events among which a finished job's last step is."""
_BATCH = 101
"""Jobs that are looked at together for those with certain metadata."""
_METADATA = re.compile(r"metadata\[(.+)\]", re.DOTALL)
_BODY = TypeAdapter(JobBody)


class JobsQuery(PageQuery):
    """Which jobs are wanted."""

    metadata: dict[str, str]


router = APIRouter(prefix=f"{PREFIX}/fine_tuning/jobs")


@router.post("", responses={507: {}})
async def create_job(request: Annotated[Request, Reads(JobBody)]) -> Response:
    """Accept a job. Nothing is read or trained here: the SDK repeats what takes long."""
    body = parse(_BODY, await request.body())
    return answer(describe_job(await store(request, partial(accept, request, body))))


@router.get("")
def list_jobs(request: Annotated[Request, Reads(query=JobsQuery)]) -> Response:
    """List the jobs, the newest first; with `metadata[key]=value`, those that have such pairs."""
    at, jobs = cursor(request, 20, 100), jobs_of(request)
    wanted = {found[1]: value for key, value in request.query_params.items() if (found := _METADATA.fullmatch(key))}
    found, more = _matching(jobs, at, wanted)
    return answer(page([describe_job(job, _told(jobs, job)) for job in found], has_more=more))


@router.get("/{job_id}")
def get_job(request: Request, job_id: str) -> Response:
    """Describe one job."""
    job, jobs = _get(request, job_id), jobs_of(request)
    return answer(describe_job(job, _told(jobs, job)))


@router.post("/{job_id}/cancel")
def cancel_job(request: Request, job_id: str) -> Response:
    """End a job; no model comes of it."""
    return _changed(request, job_id, jobs_of(request).cancel)


@router.post("/{job_id}/pause")
def pause_job(request: Request, job_id: str) -> Response:
    """Stop a job for a while."""
    return _changed(request, job_id, jobs_of(request).pause)


@router.post("/{job_id}/resume")
def resume_job(request: Request, job_id: str) -> Response:
    """Let a paused job go on."""
    return _changed(request, job_id, jobs_of(request).resume)


@router.get("/{job_id}/events")
def list_events(request: Annotated[Request, Reads(query=PageQuery)], job_id: str) -> Response:
    """List what happened to a job, the newest first."""
    job, at = _get(request, job_id), cursor(request, 20, 1000)
    found, more = jobs_of(request).events(job.id, limit=at.limit, after=last_seen("ftevent-", at.after))
    return answer(page([describe_event(event) for event in found], has_more=more))


@router.get("/{job_id}/checkpoints")
def list_checkpoints(request: Annotated[Request, Reads(query=PageQuery)], job_id: str) -> Response:
    """List the models that a job left and that are still there: the finished one, then those of earlier epochs."""
    job, at = _get(request, job_id), cursor(request, 10, 100)
    after, places = last_seen("ftckpt_", at.after), _places(job)
    if after is not None and after not in places:
        raise never_seen("ftckpt_")
    ids = list(places)
    rest = ids[ids.index(after) + 1 :] if after else ids
    registry = scorer_of(request).registry
    found = [model for model_id in rest if (model := registry.find(model_id))]
    shown = [
        describe_checkpoint(job, model, places[model.id], _figures(jobs_of(request), job, model))
        for model in found[: at.limit]
    ]
    return answer(page(shown, has_more=len(found) > at.limit))


def _places(job: Job) -> Mapping[str, int]:
    """Ids of all the models that a job can have left, and the last steps of their epochs, the highest first."""
    if job.result is None:
        return {}
    last, *earlier = [int(figures["step"]) for figures in reversed(job.result["history"])]
    return {job.id: last} | {epoch_id(job.id, step): step for step in earlier}


def _figures(jobs: Jobs, job: Job, model: Model) -> Mapping[str, float]:
    """What was measured of a checkpoint: an epoch's has it with it, the finished one's is with the job."""
    if model.step is not None or job.result is None:
        return model.metrics or {}
    events, _ = jobs.events(job.id, limit=_LATEST)
    figures = {
        f"valid_{name}": job.result["metrics"][name] for name in ("loss", "accuracy") if name in job.result["metrics"]
    }
    for event in events:
        if event.data and "train_loss" in event.data:
            trained = {
                "train_loss": event.data["train_loss"],
                "train_accuracy": event.data["train_mean_token_accuracy"],
            }
            return figures | trained
    return figures


def _matching(jobs: Jobs, at: Cursor, wanted: Mapping[str, str]) -> tuple[list[Job], bool]:
    """A page of the jobs with the metadata that is wanted, and whether there are more."""
    after, more, found = last_seen("ftjob-", at.after), True, list[Job]()
    while more and len(found) <= at.limit:
        batch, more = jobs.list(limit=_BATCH, after=after)
        found += [job for job in batch if wanted.items() <= (job.request.get("metadata") or {}).items()]
        after = batch[-1].id if batch else after
    return found[: at.limit], len(found) > at.limit


def _told(jobs: Jobs, job: Job) -> Sequence[JobEvent]:
    return jobs.events(job.id, limit=_ESTIMATED_BY)[0] if job.status == "running" else ()


def _changed(request: Request, job_id: str, change: Callable[[str], Job]) -> Response:
    job = _get(request, job_id)
    try:
        return answer(describe_job(change(job.id)))
    except RequestError as error:
        if error.status == 404:  # it was removed this moment
            raise _unknown(job_id) from None
        raise


def _get(request: Request, public_id: str) -> Job:
    own_id = meant("ftjob-", public_id)
    job = jobs_of(request).find(own_id) if own_id else None
    if job is None:
        raise _unknown(public_id)
    return job


def _unknown(public_id: str) -> RequestError:
    message = f"Could not find fine tune: {public_id[:200]}"
    return RequestError(404, message, param="fine_tuning_job_id", code="fine_tune_not_found")
