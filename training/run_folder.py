"""The run folder: who owns it, what has been saved in it, and what is left at the end.

config.yaml      the settings as given          run.json      fingerprints of the input files
events.jsonl     what happened                  metrics.csv   one line per optimiser step
state/           what resuming needs            checkpoint/   the finished model
metrics.json     every figure                   *.png         curves and confusion matrix
.tokens/         the rows, encoded, until the end
epochs/          models of the last epochs, if any are to be kept
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.atomic import remove_folder, write_atomically
from training.config import TrainConfig, load_config
from training.errors import ConfigError, DataError, TrainingError

_TOKENS = ".tokens"
_BEGINNINGS = {".lock", ".config.yaml.part", "config.yaml", ".run.json.part", "run.json", _TOKENS}
"""What a run leaves that failed, or was killed, before it saved anything: no reason to refuse a mended command."""


class RunFolder:
    """Paths of a run and the rules for taking, resuming and finishing it."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is touched yet."""
        self.path = path
        self.events, self.steps, self.metrics = path / "events.jsonl", path / "metrics.csv", path / "metrics.json"
        self.checkpoint, self.state, self.epochs = path / "checkpoint", path / "state", path / "epochs"

    @property
    def finished(self) -> bool:
        """Whether the run came to its end; metrics.json is written last."""
        return self.metrics.is_file() and self.checkpoint.is_dir()

    @contextmanager
    def claim(self, config: TrainConfig) -> Generator[None, None, None]:
        """Hold the folder for this config, new or to go on with.

        Raises:
            ConfigError: the folder holds another run, or something that is not a run.
            DataError: an input file is missing, or has changed since the run began.
            TrainingError: another process is training in it.
        """
        prints = fingerprints(config)
        self._check_owner(config)
        self.path.mkdir(parents=True, exist_ok=True)
        with self._locked():
            record = self.path / "run.json"
            if record.exists() and not {entry.name for entry in self.path.iterdir()} <= _BEGINNINGS:
                _check_unchanged(prints["files"], json.loads(record.read_text())["files"])
            else:
                write_atomically(self.path / "config.yaml", config.to_yaml())
                write_atomically(record, json.dumps(prints, indent=2) + "\n")
            for half in self.state.glob(".*"):
                shutil.rmtree(half)  # what a kill or a full disk left of a state
            for half in (self.path / _TOKENS).glob(".*"):
                half.unlink()
            yield

    def _check_owner(self, config: TrainConfig) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"output_dir {self.path} is a file; choose another")
        if not self.path.is_dir() or {entry.name for entry in self.path.iterdir()} <= _BEGINNINGS:
            return
        settings = self.path / "config.yaml"
        if not settings.is_file():
            raise ConfigError(f"output_dir {self.path} is not empty and not a run folder; choose another")
        theirs, ours = load_config(settings).model_dump(), config.model_dump()
        for field, value in ours.items():
            if field != "output_dir" and theirs[field] != value:
                raise ConfigError(
                    f"output_dir {self.path} holds another run ({field}: {theirs[field]} there, {value} here); "
                    "choose another output_dir, or remove it"
                )

    @contextmanager
    def _locked(self) -> Generator[None, None, None]:
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TrainingError(f"{self.path} is in use by a running training; wait for it or end it") from None
            yield

    def tokens(self, part: str) -> Path:
        """Where the encoded rows of a part, such as `train`, wait for the epochs and for a resumed run."""
        return self.path / _TOKENS / f"{part}.arrow"

    def newest_state(self) -> Path | None:
        """The last state that was saved whole, or None at the beginning."""
        found = sorted(self.state.glob("step-*"), key=_step)
        return found[-1] if found else None

    def save_state(self, step: int, staged: Path, best_epoch: int) -> None:
        """Make a folder that was filled beside it the newest state; older states and best epochs go."""
        target = self.state / f"step-{step}"
        if target.exists():  # saved within the epoch, and now at its end; a kill must find one of the two whole
            target = self.state / f"step-{step}-end"
        staged.rename(target)
        for other in [*self.state.glob("step-*"), *self.state.glob("best-*")]:
            if other not in (target, self.best(best_epoch)):
                shutil.rmtree(other)

    def best(self, epoch: int) -> Path:
        """Where the weights of an epoch wait, counted from 0, as long as it is the best."""
        return self.state / f"best-{epoch}"

    def epoch(self, step: int) -> Path:
        """Where the model of the epoch that ended with a step is kept."""
        return self.epochs / f"step-{step}"

    def kept_epochs(self) -> list[Path]:
        """The models of epochs that are kept, in order of their steps."""
        return sorted(self.epochs.glob("step-*"), key=_step)

    def keep_epochs(self, count: int) -> None:
        """Remove all but the last models of epochs, and what a kill left of others."""
        kept = self.kept_epochs()[-count:]
        for path in self.epochs.iterdir():
            if path not in kept:
                remove_folder(path)

    def clean(self) -> None:
        """Remove what only resuming needs."""
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.rmtree(self.path / _TOKENS, ignore_errors=True)


def _step(path: Path) -> tuple[int, str]:
    return int(path.name.split("-")[1]), path.name


def _check_unchanged(now: dict[str, str], before: dict[str, str]) -> None:
    for name, digest in now.items():
        if before.get(name) != digest:
            raise DataError("the file has changed since this run began; restore it, or choose another output_dir", name)


def fingerprints(config: TrainConfig) -> dict[str, Any]:
    """SHA-256 of every input file.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    files: dict[str, str] = {}
    for name in (config.train_file, config.eval_file, config.test_file, config.qrels):
        if name is None:
            continue
        try:
            with Path(name).open("rb") as file:
                files[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except IsADirectoryError:
            raise DataError("this is a folder; give a JSONL, JSON, CSV or TSV file", name) from None
        except OSError as error:
            raise DataError(f"cannot be read: {(error.strerror or str(error)).lower()}", name) from None
    return {"files": files}
