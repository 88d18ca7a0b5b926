"""How quickly a server answers while a job trains on the same machine.

    python benchmarks/while_training.py

Starts a server of its own and asks it for a job's state, for the list of models, and to classify one text by examples:
first idle, then while a job fine-tunes the embedded base on the sample tickets. Training runs at a lower priority.
"""

import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "scripts"))
sys.path.insert(0, str(HERE))

from demo import server  # noqa: E402  # pyright: ignore[reportMissingImports, reportUnknownVariableType]
from mixed_load import summary, tickets  # noqa: E402  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

REQUESTS = 150


def start_job(client: httpx.Client, rows: list[dict[str, str]]) -> str:
    """Upload the rows and create a job; gives its id."""
    lines = "".join(json.dumps({"prompt": row["text"], "completion": " " + row["label"]}) + "\n" for row in rows)
    upload = {"file": ("tickets.jsonl", io.BytesIO(lines.encode()))}
    file = client.post("/openai/v1/files", data={"purpose": "fine-tune"}, files=upload).raise_for_status().json()
    body = {"training_file": file["id"], "model": "babbage-002", "hyperparameters": {"n_epochs": 50}}
    return client.post("/openai/v1/fine_tuning/jobs", json=body).raise_for_status().json()["id"]


def await_running(client: httpx.Client, job: str) -> None:
    """Wait until the job has taken a step."""
    while True:
        events = client.get(f"/openai/v1/fine_tuning/jobs/{job}/events").raise_for_status().json()["data"]
        if any(event["type"] == "metrics" for event in events):
            return
        time.sleep(0.5)


def times(ask: Callable[[], httpx.Response]) -> list[float]:
    """How long each of many requests took, with a pause after each."""
    taken = list[float]()
    for _ in range(REQUESTS):
        began = time.perf_counter()
        ask().raise_for_status()
        taken.append(time.perf_counter() - began)
        time.sleep(0.05)
    return taken


def main() -> None:
    """Measure and print."""
    rows = tickets()
    examples = [{"text": row["text"], "label": row["label"]} for row in rows[:60]]
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home, server(os.environ | {"ENCORE_HOME": home}) as url:
        with httpx.Client(base_url=url, timeout=600) as client:
            asked: dict[str, Callable[[], httpx.Response]] = {
                "GET models": lambda: client.get("/openai/v1/models"),
                "POST classify": lambda: client.post("/v1/classify", json={"inputs": ["late"], "examples": examples}),
            }
            for name, ask in asked.items():
                ask()
                result[f"{name}, idle"] = summary(times(ask))
            job = start_job(client, rows)
            await_running(client, job)
            asked["GET job"] = lambda: client.get(f"/openai/v1/fine_tuning/jobs/{job}")
            for name, ask in asked.items():
                result[f"{name}, while training"] = summary(times(ask))
            client.post(f"/openai/v1/fine_tuning/jobs/{job}/cancel").raise_for_status()
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
