"""Input that means no good: bodies, ids, names, and requests sent byte by byte."""

import json
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.serving.live import TUNED

KEY = "Xylograph-key-of-forty-letters-and-more"
WORD = "Quxblorf"
"""Stands in whatever a customer may call private, so that it can be looked for."""
INTERNALS = re.compile(
    r"Traceback|\.py\b|site-packages|line \d+, in|<class|object at 0x|sqlite|sqlalchemy|pydantic|orjson|starlette|"
    r"[a-z](Error|Exception)\b|/(tmp|home|root|usr|var|work)/",
)
"""What no answer tells of."""


def bodies(file_id: str, dataset_id: str) -> dict[tuple[str, str], dict[str, Any]]:
    """For each route with a JSON body one that it takes, with most of its fields."""
    text = f"my parcel {WORD}"
    examples = [{"text": f"{text} {i}", "label": label} for i in range(2) for label in ("a", "b")]
    hyper = {"train_epochs": 1, "learning_rate": 0.01, "train_batch_size": 8, "lora_rank": 4, "lora_alpha": 8}
    base = {"base_type": "BASE_TYPE_CLASSIFICATION", "name": "english"}
    settings = {"base_model": base, "dataset_id": dataset_id, "hyperparameters": hyper, "wandb": {"project": WORD}}
    tuned = {"name": WORD, "settings": settings}
    ranking = {"model": "ranker", "query": text, "documents": [text, {"text": text, "n": 1}], "top_n": 1}
    ranking |= {"rank_fields": ["text", "n"], "return_documents": True}
    numbers = {"n_epochs": 1, "batch_size": "auto", "learning_rate_multiplier": 1.5}
    job = {"model": "babbage-002", "training_file": file_id, "suffix": WORD, "seed": 1, "metadata": {WORD: WORD}}
    sampling = {"model": TUNED, "n": 1, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    message = {"role": "user", "content": [{"type": "text", "text": text}]}
    chat = {"messages": [message], "logprobs": True, "top_logprobs": 2, "response_format": {"type": "text"}}
    models = "/v1/finetuning/finetuned-models"
    return {
        ("post", "/v1/classify"): {"model": "desk", "inputs": [text], "examples": examples, "truncate": "END"},
        ("post", "/v1/rerank"): {**ranking, "max_chunks_per_doc": 2},
        ("post", "/v2/rerank"): {**ranking, "max_tokens_per_doc": 9},
        ("post", "/v1/tokenize"): {"model": "desk", "text": text},
        ("post", "/v1/detokenize"): {"model": "desk", "tokens": [1, 2]},
        ("post", models): tuned,
        ("patch", f"{models}/{{model_id}}"): {"name": WORD, "settings": {"hyperparameters": hyper}},
        ("post", "/classify"): {"model": "desk", "input": [text]},
        ("post", "/predict"): {"model": "desk", "inputs": [[text], [text]], "raw_scores": True},
        ("post", "/rerank"): {"model": "ranker", "query": text, "texts": [text], "return_text": True, "top_k": 1},
        ("post", "/score"): {"model": "ranker", "text_1": text, "text_2": [text, text]},
        ("post", "/openai/v1/chat/completions"): {**sampling, **chat},
        ("post", "/openai/v1/completions"): {**sampling, "prompt": [text], "logprobs": 2, "echo": True, "stop": ["x"]},
        ("post", "/openai/v1/fine_tuning/jobs"): {
            **job,
            "method": {"type": "supervised", "supervised": {"hyperparameters": numbers}},
            "integrations": [{"type": "wandb"}],
        },
    }


_NESTED = b"[" * 1000 + b"]" * 1000
_DEEP = b'{"a":' * 1000 + b"1" + b"}" * 1000
_STRANGE = (
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e308", b"9" * 400, b"-" + b"9" * 19, b"18446744073709551615"),
    *(b"1e-320", b"-1", b"0", b"0.5", b"true", b"null", b"[]", b"{}", b'""', b'" "', b"[null]", b"[[]]", b'{"": 0}'),
    *(rb'"\ud800"', rb'"\udfff\ud800"', rb'"\u0000"', rb'["\u0000"]', b'"\xed\xa0\x80"', b'"\xff\xfe"', b'"\0"'),
    *(b'"../../../../etc/passwd"', rb'"\r\nx-injected: 1"', b'"' + "\u202e\U000e0001\ufffe".encode() + b'"'),
    *(
        b'"' + b"x" * 50_000 + b'"',
        _NESTED,
        _DEEP,
        b'"%s%n{0.__class__}"',
        b'"\'; DROP TABLE jobs; --"',
        b'"__proto__"',
    ),
)
WHOLE = (
    *(
        b"",
        b"\0",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"\xff\xfe{\0}\0",
        b"nul",
        b"[]",
    ),
    *(b'"x"', b"1", b"{}" * 2, b"\xef\xbb\xbf{}", b'{"a": 1', b"{'a': 1}", b"\x1f\x8b\x08" + b"\0" * 40),
)
"""Bodies that no route takes."""
MANY = json.dumps(dict.fromkeys(map(str, range(1_000_000)))).encode()
"""Fields that no route knows."""
CHARSETS = (
    "unicode_escape",
    "raw_unicode_escape",
    "utf-7",
    "punycode",
    "idna",
    "rot13",
    "base64",
    "zlib",
    "mbcs",
    "\u00fc",
)
"""What Python knows as encodings, and what text must not be read by; some make lone surrogates."""
NAMES = (
    *(
        "../../../../etc/passwd",
        "..\\..\\x",
        "/etc/cron.d/x",
        "C:\\x",
        "~/.ssh/authorized_keys",
        "a/../../b",
        ".",
        "..",
    ),
    *(
        "%2e%2e%2fx",
        "x\0y",
        "a\r\nx-injected: 1",
        "\u202egpj.exe",
        "CON",
        "-rf",
        "$(touch x)",
        "0",
        "1.jsonl",
        "a" * 999,
    ),
)
"""Names and ids that would be trouble if they became part of a path, a header or a command."""
IDS = (
    *(
        "..%2f..%2fencore.db",
        "%2e%2e%2f%2e%2e%2fencore.db",
        "..%5c..%5cencore.db",
        "%00",
        "x%00",
        "%ff%fe",
        "%ed%a0%80",
    ),
    *(
        "%0d%0ax-injected:%201",
        "'%20OR%201=1--",
        "%25s%25n",
        "*",
        "-ft",
        "%F0%9F%98%80",
        "a" * 30_000,
        "..",
        ".",
        "%2F",
    ),
    *("00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000-ft", "file-" + "0" * 24, "%C4%B0"),
    *(
        "ftjob-" + "z" * 24,
        "FTJOB-x",
        "%E2%80%AE",
        "file-..%2f" + "0" * 18,
        "ft:x:y::z:ckpt-step-1",
        "+",
        "%2B",
        "%zz",
        "%",
    ),
)


def variants(body: Any) -> Iterator[bytes]:
    """A body with each value in it, or in a list or object in it, replaced by each of the strange ones; and doubled."""
    mark = f"{WORD}-here"
    for place in _places(body):
        before, after = json.dumps(_replaced(body, place, mark)).encode().split(json.dumps(mark).encode())
        for value in _STRANGE:
            yield before + value + after


def _places(body: Any) -> Iterator[tuple[Any, ...]]:
    members = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for key, value in members:
        yield (key,)
        yield from ((key, *rest) for rest in _places(value))


def _replaced(body: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    changed = body.copy()
    changed[place[0]] = _replaced(body[place[0]], place[1:], value)
    return changed


def harmless(response: httpx.Response) -> httpx.Response:
    """An answer that is none of the server's failures and tells nothing of how it is made."""
    assert response.status_code < 500, (response.request.url, response.request.content[:200], response.text)
    assert "x-injected" not in response.headers
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/json"
        said = json.dumps(response.json())
        found = INTERNALS.search(said)
        assert not found, (response.request.content[:200], said[:500])
    return response


def exchange(url: str, sent: bytes, timeout: float = 20) -> bytes:
    """Send bytes as they are; whatever comes back until the server closes, or has nothing more to say."""
    parts = urlsplit(url)
    received = b""
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=timeout) as connection:
        connection.sendall(sent)
        connection.settimeout(timeout)
        while block := connection.recv(65_536):
            received += block
    return received


def head(start: str, headers: Mapping[str, str | bytes], key: str = KEY) -> bytes:
    """A request's line and headers, byte by byte; the server closes after its answer."""
    lines = [start.encode("latin-1"), b"host: x", b"authorization: Bearer " + key.encode(), b"connection: close"]
    for name, value in headers.items():
        lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode("latin-1")))
    return b"\r\n".join((*lines, b"", b""))
