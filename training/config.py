"""The one settings object of a run: YAML file, command line, HTTP job and the copy in the checkpoint."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.errors import ConfigError
from training.rows import DataOptions

Auto = Literal["auto"]
Mining = Literal["bm25", "encoder", "random", "none"]
LossName = Literal["listwise", "pointwise", "ranknet", "margin", "lambda", "margin_mse"]
Metric = Literal["accuracy", "f1_macro", "f1_weighted", "ndcg@10", "mrr@10", "map", "accuracy@1", "loss"]

_KEY = re.compile(r'Parser key "([\w.]+)"')
_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}
"""How a user knows the types that jsonargparse names."""


class LoraSettings(BaseModel):
    """Train a low-rank adapter instead of all weights (Hu et al. 2021, arXiv:2106.09685)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    r: int = Field(default=16, gt=0)
    """Rank of the adapter matrices."""
    lora_alpha: int = Field(default=32, gt=0)
    """The adapter's output is scaled by lora_alpha / r."""
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)
    """Dropout before the adapter."""
    target_modules: Auto | list[str] = "auto"
    """Names of the linear layers that get an adapter; auto: every linear layer of the backbone."""
    use_dora: bool = False
    """Learn magnitude and direction apart (Liu et al. 2024, arXiv:2402.09353)."""


class NegativesSettings(BaseModel):
    """Rerank: passages of other queries that serve as hard negatives where a query has too few of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    mining: Mining = "bm25"
    """How they are found: the most alike by BM25 or by the encoder's cosine, at random, or not at all."""
    per_query: int = Field(default=4, ge=1)
    """Queries with fewer hard negatives get more, up to this many."""
    margin: float = Field(default=0.05, ge=0, lt=1)
    """Leave out passages whose likeness exceeds (1 - margin) of the best relevant one's: they may be relevant too."""


class TrainConfig(BaseModel):
    """Settings of one run. `auto` is resolved from data and model and written out as the number used."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    train_file: str
    """Rows to train on: JSONL, JSON, CSV or TSV."""
    output_dir: str
    """The run folder; a run killed at any time goes on from it when the same command is given again."""
    task: Literal["classify", "rerank"] = "classify"
    """What is trained: a classifier of texts, or a reranker of passages for queries."""
    base_model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """A Hub id, a folder, an earlier run's checkpoint, or the embedded encoder."""
    eval_file: str | None = None
    """Rows to choose the best epoch, the temperature and the thresholds on; without it they are split off."""
    test_file: str | None = None
    """Rows to measure the finished checkpoint on, and for nothing else."""
    eval_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of train_file to evaluate on when there is no eval_file (of texts stratified by label, of queries)."""
    test_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Share of train_file to test on when there is no test_file (of texts stratified by label, of queries)."""
    data: DataOptions = DataOptions()
    """How to read the files, where their content leaves a doubt."""
    problem: Literal["auto", "single_label", "multi_label"] = "auto"
    """Whether a row has exactly one label; auto: as the training file has it."""
    balance: Literal["none", "undersample", "class_weights"] = "none"
    """Unequal labels: keep them, drop training rows down to the rarest label, or weigh the loss."""
    conflicts: Literal["soften", "keep"] = "soften"
    """Texts that occur under several labels: soften each label's target by how often the file contradicts it."""
    qrels: str | None = None
    """Rerank: judgements of the candidate lists in all files, as JSONL of qid, docid, grade or in TREC's columns."""
    negatives: NegativesSettings = NegativesSettings()
    """Rerank: hard negatives to be mined from the file."""
    cross_layers: Auto | int | None = "auto"
    """Rerank: in how many of the uppermost layers query and passage see each other; 0: in none, null: in all; auto: in
    all, or, if the base was made for similarity, in none below 5,000 training queries and in a third from there on."""
    group_size: int = Field(default=8, ge=2)
    """Rerank: candidates of a query in one step, relevant ones among them; drawn anew each epoch from more."""
    loss: LossName = "listwise"
    """Rerank: what is minimised; margin_mse takes the grades as a teacher's scores, lambda suits graded lists."""

    max_length: Auto | int = "auto"
    """Tokens a text or a pair may have, special tokens included; auto: 256 and 512, or what the base takes if less."""
    pooling: Literal["auto", "first", "mean", "last"] = "auto"
    """Which token states the head sees; auto: what the base was made for."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout before the head."""
    attention_dropout: Auto | bool = "auto"
    """Dropout within the base's attention, as the base has it; auto: for classifiers. Leaving it out makes a step on a
    CPU up to three times as fast, as fused attention cannot do it there."""
    freeze_embeddings: Auto | bool = "auto"
    """Leave the word embeddings as they are; auto: with fewer than 20,000 training rows, which touch few words."""
    lora: LoraSettings | None = None
    """Present: train an adapter; absent: train all weights."""

    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the matrix products; auto: as `accelerate launch --mixed_precision` says, else bfloat16 where it is fast."""
    epochs: Auto | int = "auto"
    """Passes over the training rows."""
    batch_size: Auto | int = "auto"
    """Rows per optimiser step, over all processes together."""
    max_batch_tokens: Auto | int = "auto"
    """Tokens in memory at once, padded ones too, per process; a larger batch is accumulated in several passes."""
    unpadded: Auto | bool = "auto"
    """Batches without padding; auto: where the base gives the same without it, which is tried out before training."""
    learning_rate: Auto | float = "auto"
    """Peak rate of the backbone or adapter."""
    learning_rate_multiplier: float = Field(default=1.0, gt=0)
    """Factor on both learning rates."""
    head_learning_rate: Auto | float = "auto"
    """Peak rate of the head; auto: as learning_rate."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's decay, on matrices only."""
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the rate climbs."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the rate falls after warm-up."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    average_decay: float = Field(default=0.99, ge=0, lt=1)
    """Of the running average of the weights, which is evaluated and kept; 0: the weights of the last step."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Single-label: share of the target spread over all labels."""

    metric: Auto | Metric = "auto"
    """What "best" means on the evaluation rows; auto: accuracy, macro F1 when multi-label, or ndcg@10. Of the epochs
    within a standard error of the best one the last is kept."""
    early_stopping_patience: int | None = Field(default=3, ge=1)
    """Stop after this many epochs that are worse than the best; null: never."""
    early_stopping_threshold: float = Field(default=0.0, ge=0)
    """Count an epoch as worse unless it is better than the best by this much; 0: unless it is as good."""
    save_seconds: float = Field(default=60.0, gt=0)
    """Time between saved states within an epoch; an epoch's end is always saved."""
    keep_epochs: int = Field(default=0, ge=0)
    """Epochs, counted from the last one, whose model is kept besides the finished one, under epochs/."""
    seed: int = Field(default=42, ge=0, le=2**32 - 1)
    """Splits, initial head, order of rows, dropout."""

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        for name in ("max_length", "epochs", "batch_size", "max_batch_tokens", "learning_rate", "head_learning_rate"):
            value = getattr(self, name)
            if value != "auto" and value <= 0:
                raise ValueError(f"{name} must be auto or greater than 0, not {value}")
        classify, rerank = ("accuracy", "f1_macro", "f1_weighted"), ("ndcg@10", "mrr@10", "map", "accuracy@1")
        if self.metric in (classify if self.task == "rerank" else rerank):
            fitting = ", ".join(rerank if self.task == "rerank" else classify)
            raise ValueError(f"metric {self.metric} is not of task {self.task}; choose one of {fitting}, loss")
        if isinstance(self.cross_layers, int) and self.cross_layers < 0:
            raise ValueError(f"cross_layers must be auto, null, or 0 and up, not {self.cross_layers}")
        if self.eval_fraction + self.test_fraction >= 1:
            raise ValueError("eval_fraction and test_fraction leave no rows to train on; their sum must be under 1")
        if self.label_smoothing and self.problem == "multi_label":
            raise ValueError("label_smoothing is for single-label problems; set it to 0 or problem to single_label")
        return self

    def to_yaml(self) -> str:
        """The settings as YAML, every field written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def parse_config(arguments: Sequence[str] | None = None) -> TrainConfig:
    """Read `--config FILE` and `--field value` flags (flags win) into a config.

    Raises:
        ConfigError: an unknown key, a value out of range, a missing file.
        SystemExit: after `--help` or `--print_config`.
    """
    parser = ArgumentParser(
        prog="python -m training.train",
        description="Fine-tune a text classifier or a reranker. Flags override the values of the --config file.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="A YAML file of the settings below.")
    parser.add_class_arguments(TrainConfig)
    try:
        parsed = parser.parse_args(_file_first(sys.argv[1:] if arguments is None else arguments))
    except ArgumentError as error:
        raise ConfigError(_explain(_one_line(str(error)))) from None
    values: dict[str, Any] = json.loads(json.dumps(parsed.as_dict(), default=_plain))
    values.pop("config", None)
    return validate_config(values)


def load_config(path: Path) -> TrainConfig:
    """Read a config written by `TrainConfig.to_yaml`.

    Raises:
        ConfigError: it is missing, not YAML, or not valid.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as settings: {_one_line(str(error))}") from None
    try:
        return validate_config(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def validate_config(values: object) -> TrainConfig:
    """Check plain values.

    Raises:
        ConfigError: the first thing that is wrong, with the field's dotted name.
    """
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        first, *others = error.errors()
        field = _field(first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{field}: unknown setting; --help lists the settings") from None
        if first["type"] == "missing":
            raise ConfigError(f"{field}: missing; give it a value") from None
        if first["type"] == "value_error":
            message = first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{field}: {message}" if field else message) from None
        # A field of two types, such as auto or a number, gives one error for each.
        more = [other["msg"].removeprefix("Input should be ") for other in others if _field(other["loc"]) == field]
        message = " or ".join([first["msg"], *more])
        raise ConfigError(f"{field}: {message}, not {first['input']!r}" if field else message) from None


def _field(location: Sequence[int | str]) -> str:
    """The dotted name of a field, without the names pydantic gives to the types it may have."""
    return ".".join(str(part) for part in location if re.fullmatch(r"\d+|(?!int$|float$)\w+", str(part)))


def _file_first(arguments: Sequence[str]) -> list[str]:
    """Put `--config FILE` before the other flags: jsonargparse lets the later one win."""
    given, others = list(arguments), list[str]()
    files: list[str] = []
    while given:
        argument = given.pop(0)
        if argument.startswith("--config="):
            files.append(argument)
        elif argument == "--config":
            files += [argument, *given[:1]]
            del given[:1]
        else:
            others.append(argument)
    return files + others


def _explain(text: str) -> str:
    """Jsonargparse's message as a sentence: it names Python classes where a user knows settings."""
    if unknown := re.search(r"(?:Group '(\w+)' does not accept option|Option) '([\w.]+)'", text):
        field = ".".join(filter(None, [*_KEY.findall(text), *unknown.groups()]))
        return f"{field}: unknown setting; --help lists the settings"
    if text.startswith("unrecognized arguments"):
        return f"{text}; --help lists the settings"
    if text.startswith("Unexpected config:"):
        return "--config: expected a YAML file of lines such as `epochs: 3`"
    # Of nested messages, one in the other, the innermost is the first to give its value.
    said = re.search(r"^(.*?)(?:Got|Given) value: (.*?)(?= - Expected| Given value|$)", text)
    if not said or not (keys := _KEY.findall(said[1])):
        return _KEY.sub(r"\1", text, count=1)
    if keys == ["lora"]:
        return f"lora: expected settings of its own, such as r and lora_alpha, or null, not {said[2]}"
    kinds = re.findall(r"Expected an? (?:typing\.)?(?:Literal\[(.*?)\]|<class '(\w+)'>|list\[\w+\])", said[1])
    expected = "expected " + " or ".join(_TYPES.get(name, literal or "a list") for literal, name in kinds)
    rule = re.search(r"validation errors? for \S+ (.+?) \[type=", said[1])
    return f"{'.'.join(keys)}: {rule[1] if rule else expected}, not {said[2]}"


def _plain(value: Any) -> Any:
    return (
        value.model_dump()
        if isinstance(value, BaseModel)
        else vars(value)
        if hasattr(value, "__dict__")
        else str(value)
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
