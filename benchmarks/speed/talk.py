"""Work in another process, asked and answered by lines of JSON: models stay loaded while the sides take turns.

A worker is a script that calls `answer`. It runs in the virtual environment of what it measures, so this module needs
nothing but Python.
"""

import contextlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_ANSWERS = "SPEED_ANSWERS"
"""The variable that tells a worker into which file descriptor to write."""


class WorkerError(Exception):
    """A worker has ended, or could not do what it was asked."""


class Worker:
    """A script that has been started."""

    def __init__(self, questions: IO[str], answers: IO[str], name: str, log: Path) -> None:
        """Talk to a process by two pipes; `log` is where goes what else it has to say."""
        self._questions, self._answers, self.name, self.log = questions, answers, name, log

    def ask(self, what: str, **given: Any) -> Any:
        """Have the worker call one of its functions.

        Raises:
            WorkerError: with what went wrong.
        """
        with contextlib.suppress(BrokenPipeError):  # it has ended, as the next line finds out
            self._questions.write(json.dumps([what, given]) + "\n")
            self._questions.flush()
        line = self._answers.readline()
        if not line:
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise WorkerError(f"{self.name} ended: {lines[-1] if lines else 'no word why'} (see {self.log})")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.name}: {answer['error']} (see {self.log})")
        return answer["value"]


@contextmanager
def started(python: Path, script: Path, log: Path, *arguments: str) -> Iterator[Worker]:
    """Start a script with some virtual environment's Python, and end it afterwards.

    Args:
        python: the interpreter.
        script: what it is to run.
        log: file for what it prints.
        arguments: of the script.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1"}
    readable, writable = os.pipe()
    environment[_ANSWERS] = str(writable)
    with log.open("w", encoding="utf-8") as out, os.fdopen(readable, encoding="utf-8") as answers:
        process = subprocess.Popen(
            [str(python), str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            text=True,
            env=environment,
            pass_fds=[writable],
        )
        os.close(writable)
        assert process.stdin
        try:
            yield Worker(process.stdin, answers, script.stem, log)
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answer(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Do what is asked by lines on stdin until it closes. Answers have a pipe of their own: libraries print."""
    with os.fdopen(int(os.environ[_ANSWERS]), "w", encoding="utf-8") as out:
        for line in sys.stdin:
            what, given = json.loads(line)
            try:
                found = {"value": functions[what](**given)}
            except Exception as error:  # whoever asked is told, and may go on with another question
                traceback.print_exc()
                found = {"error": f"{type(error).__name__}: {error}"}
            out.write(json.dumps(found) + "\n")
            out.flush()
