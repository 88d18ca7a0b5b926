"""Where things are: interpreters, scripts of workers, logs; and the peers' virtual environments, made from PyPI."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.speed.harness import BenchmarkError, Options, say
from benchmarks.speed.talk import Worker, started
from training.hub import EMBEDDED, resolve_base

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def interpreter(options: Options, peer: str) -> Path:
    """The Python of a peer's virtual environment.

    Raises:
        BenchmarkError: it has not been made.
    """
    python = options.peers / peer / "bin" / "python"
    if not python.exists():
        raise BenchmarkError(f"{python} is missing; `python -m benchmarks.speed --make-peers {options.peers}` makes it")
    return python


@contextmanager
def peer_worker(options: Options, peer: str, script: str, *arguments: str) -> Iterator[Worker]:
    """A script of the folder `peers`, started in a peer's virtual environment."""
    log = options.work / "logs" / f"{'-'.join((script, *(a for a in arguments if a and '/' not in a)))}.log"
    # Not resolved: the interpreter of a virtual environment is a link, and knows itself by where it was called.
    with started(interpreter(options, peer).absolute(), HERE / "peers" / f"{script}.py", log, *arguments) as worker:
        yield worker


@contextmanager
def own_worker(options: Options, script: str, *arguments: str) -> Iterator[Worker]:
    """A script of the folder `ours`, started with the interpreter that runs this."""
    log = options.work / "logs" / f"{'-'.join((script, *(a for a in arguments if a and '/' not in a)))}.log"
    with started(Path(sys.executable), HERE / "ours" / f"{script}.py", log, *arguments) as worker:
        yield worker


def base() -> Path:
    """The folder of the embedded encoder, which every side starts from."""
    return resolve_base(EMBEDDED)


def make_peers(folder: Path) -> None:
    """Make the virtual environments that are missing, with the versions of the files in `peers`."""
    for listed in sorted((HERE / "peers").glob("*.txt")):
        python = folder / listed.stem / "bin" / "python"
        if not python.exists():
            say(f"making {folder / listed.stem}")
            subprocess.run([sys.executable, "-m", "venv", str(folder / listed.stem)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(listed)], check=True)
