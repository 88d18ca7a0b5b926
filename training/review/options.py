"""What a review is asked to look for, and how its rows are to be written."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from training.formats import DataOptions, Task
from training.hub import EMBEDDED

Family = Literal["openai", "openai-chat", "cohere", "csv"]
"""The form of the rows written: prompt and completion, chat, text and label (rankings as they came), or a table."""


class ReviewOptions(BaseModel):
    """Settings of one review."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    data: DataOptions = DataOptions()
    """How to read the files, where their content leaves a doubt."""
    task: Task | None = None
    """What the rows are for; None: as their shape says."""
    multi_label: bool | None = None
    """Whether a row has a list of labels; None: as the first row has it."""
    to: Family | None = None
    """Form of the rows written; None: as they came."""
    split: float | None = Field(default=0.2, gt=0, lt=1)
    """Share of the rows to validate on where no file is given, at most 1,000 rows; None: do not split."""
    seed: int = Field(default=42, ge=0, le=2**32 - 1)
    """Of the split."""
    min_per_label: int = Field(default=5, ge=1)
    """Distinct texts below which a label is rare."""
    min_rows: int = Field(default=10, ge=0)
    """Rows of labelled texts below which there are too few to train on."""
    min_queries: int = Field(default=10, ge=0)
    """Queries below which there are too few to train on."""
    drop_long: bool = False
    """Drop the rows that the encoder would truncate."""
    merge: dict[str, str] = {}
    """Labels to rename: old name to new."""
    encoder: str = EMBEDDED
    """Base model whose tokenizer counts: a Hub id, a folder, or the embedded encoder. If the default is not installed,
    tokens are not counted."""
    max_length: int | None = Field(default=None, gt=2)
    """Tokens a text or pair may have; None: what training takes, 256 and 512, or the encoder's own limit if less."""
