"""Cohere's hyperparameters as settings of a run (Cohere API reference, Create a fine-tuned model).

Theirs are for adapters on a large model, ours for all weights of a small one, so that rates are not taken over as they
are: 0.01, Cohere's default, stands for the rate that suits base and data, and others for its multiple by the square
root. Cohere's range of 5e-5 to 0.1, more than three powers of ten, then becomes 0.07 to 3.2 times the usual rate.
"""

from typing import Any, Literal

from pydantic import BaseModel, Field

_USUAL_RATE = 0.01

Target = Literal[
    "LORA_TARGET_MODULES_UNSPECIFIED",
    "LORA_TARGET_MODULES_QV",
    "LORA_TARGET_MODULES_QKVO",
    "LORA_TARGET_MODULES_QKVO_FFN",
]


class HyperparametersBody(BaseModel):
    """What may be chosen. As in protocol buffers, 0 stands for nothing chosen."""

    train_epochs: int | None = Field(None, ge=0, le=100)
    learning_rate: float | None = Field(None, ge=0, le=0.1)
    train_batch_size: int | None = Field(None, ge=0, le=1024)
    early_stopping_patience: int | None = Field(None, ge=0, le=100)
    early_stopping_threshold: float | None = Field(None, ge=0, le=1)
    lora_alpha: int | None = Field(None, ge=0, le=1024)
    lora_rank: int | None = Field(None, ge=0, le=256)
    lora_target_modules: Target | None = None

    @property
    def given(self) -> dict[str, Any]:
        """Those that say something."""
        unset = (0, None, "LORA_TARGET_MODULES_UNSPECIFIED")
        return {name: value for name, value in self.model_dump().items() if value not in unset}


def run_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Fields of `training.config.TrainConfig` for what was given; the others keep their defaults.

    An adapter is trained if any of its own parameters is given, on every linear layer of the base: which of those are
    query and value has a name of its own in each family.
    """
    names = {
        "train_epochs": "epochs",
        "train_batch_size": "batch_size",
        "early_stopping_patience": "early_stopping_patience",
        "early_stopping_threshold": "early_stopping_threshold",
    }
    settings = {ours: given[theirs] for theirs, ours in names.items() if theirs in given}
    if rate := given.get("learning_rate"):
        settings["learning_rate_multiplier"] = (rate / _USUAL_RATE) ** 0.5
    if any(name.startswith("lora_") for name in given):
        rank = given.get("lora_rank", 16)
        settings["lora"] = {"r": rank, "lora_alpha": given.get("lora_alpha", 2 * rank)}
    return settings
