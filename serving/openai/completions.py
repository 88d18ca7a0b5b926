"""POST /completions (OpenAI API reference, Completions)."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field, TypeAdapter
from starlette.responses import Response

from serving.openai.labelling import MOST_LABELS, Labelled, Ranked, SamplingBody, chunks, find_single_label, label
from serving.openai.wire import PREFIX, STREAMED, Texts, answer, invalid_value, parse, stream
from serving.schema import Reads
from training.manifest import Manifest

MAX_PROMPTS = 2048
_MOST_VALUES = MAX_PROMPTS * (MOST_LABELS + 1)
"""Choices of one answer, and labels given with them; only `n` can bring a request beyond."""
_VALUE_CHARACTERS = 32
"""So many characters of an echo count as much as a label does."""

router = APIRouter(prefix=PREFIX)


class CompletionBody(SamplingBody):
    """The request."""

    prompt: Annotated[Texts, Field(min_length=1, max_length=MAX_PROMPTS)]
    logprobs: Annotated[int, Field(ge=0, le=MOST_LABELS)] | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    echo: bool | None = None
    stop: Texts | None = None


_BODY = TypeAdapter(CompletionBody)


@router.post("/completions", responses=STREAMED)
async def complete(request: Annotated[Request, Reads(CompletionBody)]) -> Response:
    """Give each prompt the label that is its most likely completion."""
    body = parse(_BODY, await request.body())
    model = await find_single_label(request, body.model)
    _check_size(body, model.labels)
    found = await label(request, model, lambda _rules: body.prompt)
    choices = _choices(body, found)
    envelope, usage = found.envelope("cmpl", "text_completion", body.model), found.usage(len(choices))
    if body.stream:
        return stream(chunks(envelope, choices, usage if body.wants_usage else None))
    return answer({**envelope, "choices": choices, "usage": usage})


def _check_size(body: CompletionBody, labels: int) -> None:
    size = len(body.prompt) * (1 + min(body.logprobs or 0, labels))
    if body.echo:
        size += sum(map(len, body.prompt)) // _VALUE_CHARACTERS
    most = max(_MOST_VALUES // size, 1)
    if (body.n or 1) > most:
        raise invalid_value("n", f"the answer would be too large; with these prompts n can be at most {most}")


def _choices(body: CompletionBody, found: Labelled) -> list[dict[str, Any]]:
    forms, repeats, choices = written_forms(found.manifest, body.stop or ()), body.n or 1, list[dict[str, Any]]()
    for place, (prompt, ranked) in enumerate(zip(body.prompt, found.best(body.logprobs or 0), strict=True)):
        choice = _choice(body, prompt, ranked, forms)
        choices += ({**choice, "index": place * repeats + repeat} for repeat in range(repeats))
    return choices


def _choice(body: CompletionBody, prompt: str, ranked: Ranked, forms: Sequence[str]) -> dict[str, Any]:
    """A prompt's answer, the same for each of its places."""
    cut = body.max_tokens == 0
    text = "" if cut else forms[ranked.labels[0]]
    return {
        "text": prompt + text if body.echo else text,
        "index": 0,
        "finish_reason": "length" if cut else "stop",
        "logprobs": None if body.logprobs is None else _logprobs(prompt, ranked, forms, tokens=0 if cut else 1),
    }


def _logprobs(prompt: str, ranked: Ranked, forms: Sequence[str], tokens: int) -> dict[str, Any]:
    """Parallel lists with a value for each of the `tokens` given: a label is one token."""
    top = {forms[position]: value for position, value in zip(ranked.labels, ranked.logs, strict=True)}
    return {
        "tokens": [forms[ranked.labels[0]]] * tokens,
        "token_logprobs": [ranked.logs[0]] * tokens,
        "top_logprobs": [top] * tokens,
        "text_offset": [len(prompt)] * tokens,
    }


def written_forms(manifest: Manifest, stops: Sequence[str]) -> list[str]:
    """Each label as it was written in the training file, e.g. " hockey".

    What follows a label there, an " END" that all completions shared, goes on to the first of `stops`, as it does
    with hosted models; the label itself is never cut.
    """
    forms = list[str]()
    for name in manifest.labels:
        form = manifest.surfaces.get(name, name)
        end = form.find(name) + len(name)
        stopped = [place for stop in stops if stop and (place := form.find(stop, end)) >= 0]
        forms.append(form[: min(stopped, default=len(form))])
    return forms
