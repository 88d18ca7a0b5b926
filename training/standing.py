"""Where a run stands, and which of its epochs is the best so far."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from training.config import TrainConfig
from training.errors import TrainingError


@dataclass
class Progress:
    """Saved with every state, so that a resumed run knows all an unbroken one would."""

    step: int = 0
    epoch: int = 0
    tokens: int = 0
    """Trained on so far: those of every row in every epoch, padding excluded."""
    best: tuple[float, float] = (-np.inf, -np.inf)
    """The metric to choose by, and minus the loss, of the best epoch so far."""
    best_epoch: int = -1
    """Whose weights are kept: the last of those that cannot be told from the best."""
    waited: int = 0
    """Epochs in a row that were worse than the best; `early_stopping_threshold` says what worse is."""
    done: bool = False
    history: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    """Figures of the evaluation rows after each epoch."""

    def judge(self, figures: dict[str, float], rows: int, config: TrainConfig) -> bool:
        """Take in the figures of an epoch on so many evaluation rows, and see whether to go on.

        Returns:
            Whether its weights are to be kept.

        Raises:
            TrainingError: the loss is not finite.
        """
        if not np.isfinite(figures["loss"]):
            raise TrainingError(
                f"the evaluation loss is {figures['loss']} after epoch {self.epoch + 1}; lower learning_rate"
            )
        metric = -figures["loss"] if config.metric == "loss" else figures[config.metric]
        score = (metric, -figures["loss"])
        # On few evaluation rows the best epoch is mostly luck: of those that cannot be told from it, the last one
        # is kept, which has seen more of the schedule. The loss is not a share, and has no such error.
        error = 0.0 if config.metric == "loss" else _standard_error(self.best[0], rows)
        kept = score > self.best or metric >= self.best[0] - error
        threshold = config.early_stopping_threshold
        better = score > (self.best[0] + threshold, self.best[1]) or (kept and not threshold)
        self.waited = 0 if better else self.waited + 1
        self.best = max(self.best, score)
        if kept:
            self.best_epoch = self.epoch
        self.epoch += 1
        self.history.append({"epoch": float(self.epoch), "step": float(self.step), **figures})
        patience = config.early_stopping_patience
        self.done = patience is not None and self.waited >= patience
        return kept

    def state_dict(self) -> dict[str, Any]:
        """For Accelerate's saved state."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From Accelerate's saved state."""
        for name, value in state.items():
            setattr(self, name, tuple(value) if name == "best" else value)


def _standard_error(share: float, rows: int) -> float:
    """How far a share measured on `rows` rows lies from the truth."""
    return float(np.sqrt(max(share * (1 - share), 0) / rows))
