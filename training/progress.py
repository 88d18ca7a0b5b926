"""What a run says while it goes on: metrics.csv, events, one progress bar or plain lines."""

import csv
import logging
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import tqdm
from torch import Tensor

from training.atomic import write_lines
from training.errors import TrainingError
from training.events import append_event
from training.run_folder import RunFolder

log = logging.getLogger(__name__)

_STEP_COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
_SHOWN = ("loss", "accuracy", "f1_macro", "ndcg@10", "mrr@10")
_EVENTS_PER_RUN = 100


class Reporter:
    """Writes in the first process, keeps silent in the others."""

    def __init__(self, folder: RunFolder, columns: dict[str, str], *, accelerator: Accelerator) -> None:
        """Report on the run in `folder`; `columns` are further ones of metrics.csv with the figures in them."""
        self.folder, self._main = folder, accelerator.is_main_process
        self.columns = columns
        self._lines = [_line([*_STEP_COLUMNS, *columns])]
        self._last: dict[str, Any] = {}
        self._waiting: list[tuple[int, Tensor]] = []
        self._bar: Any = None
        self._total = 0

    @contextmanager
    def started(self, step: int, total: int) -> Generator[None, None, None]:
        """Begin at `step` of `total`; lines of metrics.csv beyond it, from before a crash, are dropped."""
        self._total = total
        self._every = max(1, total // _EVENTS_PER_RUN)
        if self.folder.steps.exists():
            with self.folder.steps.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    if int(row["step"]) <= step:
                        self._add(dict(row))
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=step, unit="step", desc="training")
        try:
            yield
        finally:
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def step(self, step: int, seen: Tensor, accelerator: Accelerator) -> None:
        """Note one step's (loss, hits, rows); they stay on the device until a line is due."""
        self._waiting.append((step, seen))
        if self._bar is not None:
            self._bar.update(1)
        if step % self._every == 0 or step == self._total:
            self.flush(accelerator)

    def flush(self, accelerator: Accelerator) -> None:
        """Fetch what waits, check it, and write it out.

        Raises:
            TrainingError: a loss is not finite.
        """
        if not self._waiting:
            return
        stacked = torch.stack([seen for _, seen in self._waiting])
        figures = accelerator.reduce(stacked, reduction="sum")
        assert isinstance(figures, Tensor)
        for (step, _), (loss, hits, rows) in zip(self._waiting, figures.tolist(), strict=True):
            if loss != loss or abs(loss) == float("inf"):
                raise TrainingError(
                    f"the loss is {loss} at step {step}; lower learning_rate, or train without mixed precision"
                )
            self._add({"step": step, "train_loss": f"{loss:.5g}", "train_accuracy": f"{hits / rows:.5g}"})
        self._waiting.clear()
        self._say(self._last)
        self._write()

    def _say(self, row: dict[str, Any]) -> None:
        if not self._main:
            return
        step, loss = row["step"], float(row["train_loss"])
        message = f"Step {step}/{self._total}: training loss={loss:.4g}"
        data = {"step": step, "total_steps": self._total, "train_loss": loss}
        append_event(
            self.folder.events, message, data=data | {"train_mean_token_accuracy": float(row["train_accuracy"])}
        )
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.4g}")
        elif step % (10 * self._every) == 0 or step == self._total:
            log.info("step %d/%d  loss %.4g", step, self._total, loss)

    def evaluated(self, step: int, epoch: int, figures: dict[str, float]) -> None:
        """Note the figures of the evaluation rows after an epoch, on the line of its last step."""
        self.describe(figures)
        text = "  ".join(f"{k} {figures[k]:.4f}" for k in _SHOWN if k in figures)
        if self._bar is not None:
            self._bar.write(f"epoch {epoch}: {text}", file=sys.stderr)
        else:
            log.info("epoch %d  evaluation: %s", epoch, text)
        if self._main:
            valid = {"valid_loss": figures["loss"], "valid_mean_token_accuracy": figures["accuracy"]}
            append_event(
                self.folder.events,
                f"Epoch {epoch} evaluated at step {step}",
                data={"step": step, "epoch": epoch} | valid,
            )

    def line(self) -> dict[str, float]:
        """What the last step's line says of its training rows."""
        row = self._last
        return {
            "step": int(row["step"]),
            "train_loss": float(row["train_loss"]),
            "train_accuracy": float(row["train_accuracy"]),
        }

    def kept(self, step: int) -> None:
        """Note that the model of the epoch that ended with a step is kept."""
        if self._main:
            append_event(self.folder.events, f"Checkpoint created at step {step}", data={"step": step})

    def describe(self, figures: dict[str, float]) -> None:
        """Put figures of the whole evaluation file on the last step's line."""
        row = self._last
        row["valid_loss"] = f"{figures['loss']:.6g}"
        row["valid_mean_token_accuracy"] = f"{figures['accuracy']:.6g}"
        for column, name in self.columns.items():
            if name in figures:
                row[column] = f"{figures[name]:.6g}"
        self._write()

    def _add(self, row: dict[str, Any]) -> None:
        """Begin a line; the one before it is settled, so that a long file is not spelled out again and again."""
        if self._last:
            self._lines.append(self._spelled(self._last))
        self._last = row

    def _spelled(self, row: dict[str, Any]) -> str:
        return _line([row.get(name, "") for name in (*_STEP_COLUMNS, *self.columns)])

    def _write(self) -> None:
        if self._main:
            write_lines(self.folder.steps, [*self._lines, self._spelled(self._last)])


def _line(cells: Sequence[Any]) -> str:
    """One line of metrics.csv; names and numbers need no quotes."""
    return ",".join(map(str, cells)) + "\n"
