"""What the environment may say about a server: variables named `ENCORE_` and the field's name in capitals."""

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ByteSize, Field, PositiveFloat, PositiveInt, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from serving.auth import hash_key
from training.errors import ConfigError

PREFIX = "ENCORE_"
_SECRET = frozenset(("api_keys", "database_url"))


def _threads() -> int:
    from joblib import cpu_count  # pyright: ignore[reportMissingTypeStubs]  # heeds container quotas, unlike os.cpu_count

    return cpu_count()


class Settings(BaseSettings):
    """A server's settings; every one has a default that works."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, use_attribute_docstrings=True)

    home: Path = Path("~/.encore")
    """Folder of the registered models and the database."""
    api_keys: Annotated[tuple[str, ...], NoDecode] = Field(default=(), repr=False)
    """Keys that are let in, separated by commas, each plain or as `sha256:` and 64 hex digits; none: everyone is."""
    organization: str = Field(default="personal", pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    """What stands for the organisation in the names of fine-tuned models."""
    max_upload: ByteSize = Field(default=ByteSize(1024**3), gt=0)
    """Size an uploaded file may have."""
    max_body: ByteSize = Field(default=ByteSize(8 * 1024 * 1024), gt=0)
    """Size a request body may have, in bytes or with a unit such as 8MiB."""
    request_timeout: PositiveFloat = 30.0
    """Seconds without progress after which a request is given up."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where models run; `auto` takes a GPU where there is one."""
    backend: Literal["auto", "openvino", "torch"] = "auto"
    """What computes; `auto` takes OpenVINO on a CPU, and torch on a GPU or where OpenVINO cannot run a model."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; `auto` takes bfloat16 where the device has it in hardware and the answers stay right."""
    cpu_threads: PositiveInt = Field(default_factory=_threads)
    """CPU threads of one forward pass; all cores by default. Those of OpenVINO give way to the event loop; where torch
    computes on a CPU one fewer is better."""
    cache_bytes: ByteSize | None = Field(default=None, gt=0)
    """Memory loaded models may take together; by default a share of the machine's or the GPU's."""
    default_base: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Base model that classifies by examples and ranks by cosine; the hosted base names stand for it."""
    base_models: Annotated[tuple[str, ...], NoDecode] = ()
    """Further base models that jobs may ask for by name, separated by commas: Hub ids or folders."""
    default_classifier: str | None = None
    """Id or name of the model that classifies where a request names none; by default the base."""
    default_reranker: str | None = None
    """Id or name of the model that ranks where a request names none; by default the base."""
    max_batch_tokens: PositiveInt | None = None
    """Padded tokens of one forward pass; by default what suits the device."""
    max_batch_texts: PositiveInt | None = None
    """Texts of one forward pass; by default what suits the device."""
    max_padding_waste: float | None = Field(default=None, ge=1)
    """Padded over real tokens of one forward pass; by default what suits the device."""
    max_queued_tokens: PositiveInt | None = None
    """Tokens that may wait before further requests are answered 429."""
    embedded_worker: bool = True
    """Whether the server starts a process that trains; else start `python -m serving.worker` yourself."""
    train_devices: str = Field(default="auto", pattern=r"^(auto|cpu|\d+(,\d+)*)$")
    """Where jobs train, one at a time on each: `cpu`, or numbers of GPUs; auto: all but the first GPU, which serves, or
    what there is."""
    lease_seconds: float = Field(default=30.0, gt=0)
    """After so many seconds without a sign of life, a worker's job goes to another."""
    result_encoding: Literal["plain", "base64"] = "plain"
    """How a job's result file is given to OpenAI clients; base64 is what the hosted API changed to."""
    database_url: str | None = Field(default=None, repr=False)
    """SQLAlchemy URL of the database; by default an SQLite file in the home folder."""

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("base_models", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("api_keys", mode="before")
    @classmethod
    def _hashed(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        keys = tuple(hash_key(key.strip()) for key in value.split(",") if key.strip())
        if value and not keys:
            raise ValueError("no key in it; give at least one, or leave it unset to let everyone in")
        return keys

    @property
    def environment(self) -> dict[str, str]:
        """The variables under which another process finds these settings; keys are no other process's business."""
        given = self.model_dump(exclude_none=True, exclude={"api_keys", "base_models"})
        listed = {name: str(value) for name, value in given.items()} | {"base_models": ",".join(self.base_models)}
        return {PREFIX + name.upper(): value for name, value in listed.items() if value}

    @property
    def bases(self) -> tuple[str, ...]:
        """The server's own base models, its default first."""
        return self.default_base, *self.base_models

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.home / 'encore.db'}"


def foreign_environment() -> dict[str, str]:
    """The variables that are not ours, for processes that are given their settings in another way."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        ConfigError: a value is unusable, or a variable looks like one of ours but is not (a mistyped
            `ENCORE_API_KEYS` would otherwise leave the server open).
    """
    known = [name.upper() for name in Settings.model_fields]
    for variable in sorted(os.environ):
        name = variable.upper().removeprefix(PREFIX)
        if variable.upper() == name or name in known:
            continue
        # Only near misses: Kubernetes sets ENCORE_PORT and the like beside a service called encore.
        if meant := get_close_matches(name, known, 1, cutoff=0.75):
            raise ConfigError(f"{variable} is not a setting; did you mean {PREFIX}{meant[0]}?")
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0])
        given = "" if field in _SECRET else f"={first['input']}"
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{PREFIX}{field.upper()}{given}: {reason[0].lower()}{reason[1:]}") from None
