"""POST /chat/completions (OpenAI API reference, Chat)."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field, TypeAdapter
from starlette.responses import Response

from serving.errors import RequestError
from serving.openai.labelling import MOST_LABELS, Labelled, SamplingBody, chunks, find_single_label, label
from serving.openai.wire import PREFIX, STREAMED, answer, invalid_type, invalid_value, missing, parse, stream
from serving.schema import Reads
from training.text import ChatError, TextRules, flatten_chat

router = APIRouter(prefix=PREFIX)


class ChatBody(SamplingBody):
    """The request. Messages are read by the rules of training, which check them."""

    messages: list[Any]
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LABELS)] | None = None
    response_format: dict[str, Any] | None = None


_BODY = TypeAdapter(ChatBody)


@router.post("/chat/completions", responses=STREAMED)
async def chat(request: Annotated[Request, Reads(ChatBody)]) -> Response:
    """Answer a conversation with the label of its text."""
    body = parse(_BODY, await request.body())
    _check(body)
    model = await find_single_label(request, body.model)
    found = await label(request, model, lambda rules: [_text(body.messages, rules)])
    said, logprobs = _said(body, found)
    choices: list[dict[str, Any]] = []
    for index in range(body.n or 1):
        content = {"delta": said} if body.stream else {"message": {**said, "refusal": None}}
        choices.append({"index": index, "finish_reason": "stop", **content, "logprobs": logprobs})
    usage = found.usage(len(choices))
    if body.stream:
        envelope = found.envelope("chatcmpl", "chat.completion.chunk", body.model)
        return stream(chunks(envelope, choices, usage if body.wants_usage else None))
    return answer({**found.envelope("chatcmpl", "chat.completion", body.model), "choices": choices, "usage": usage})


def _check(body: ChatBody) -> None:
    if body.top_logprobs is not None and not body.logprobs:
        raise invalid_value("top_logprobs", "logprobs must be true for it to be used")
    if body.response_format is not None and body.response_format.get("type") != "text":
        raise invalid_value("response_format", 'expected {"type": "text"}, as labels are text')


def _text(messages: list[Any], rules: TextRules) -> str:
    """The text of a conversation, as in training."""
    try:
        return flatten_chat(messages, rules)
    except ChatError as error:
        raise _refusal(messages, error) from None


def _refusal(messages: list[Any], error: ChatError) -> RequestError:
    """A mistake in the messages, told by whether something is missing, of a wrong type, or not allowed."""
    param, _, reason = str(error).partition(" ")
    if error.index is None:
        return invalid_value(param, reason)
    found = messages[error.index]
    if error.field:
        found = found.get(error.field)
    if found is None:
        return missing(param)
    right = {"role": str, "content": list}.get(error.field or "")
    return invalid_value(param, reason) if right and isinstance(found, right) else invalid_type(param, reason)


def _said(body: ChatBody, found: Labelled) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The message, and its logarithms if asked for: a label is one token."""
    [ranked] = found.best(body.top_logprobs or 0)
    names = found.manifest.labels
    said = {"role": "assistant", "content": names[ranked.labels[0]]}
    if not body.logprobs:
        return said, None
    tokens = [
        {"token": names[position], "logprob": value, "bytes": list(names[position].encode())}
        for position, value in zip(ranked.labels, ranked.logs, strict=True)
    ]
    content = {**tokens[0], "top_logprobs": tokens[: body.top_logprobs or 0]}
    return said, {"content": [content], "refusal": None}
