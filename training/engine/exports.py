"""Where the graphs lie that OpenVINO runs, and what is said beside them. Imports neither torch nor transformers.

An export is a folder: `export.json`, the tokenizer, and the graph of the backbone, an .xml file with a .bin of weights,
which gives the pooled vectors of texts. A trained checkpoint brings its export along, in `openvino/`; that of anything
else is made when it is first asked for, by a process of its own, and kept in the user's cache folder until its source
is gone. An adapter has no graph of its own: it is given to that of its base.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from training.errors import ModelError
from training.manifest import Manifest

FOLDER = "openvino"
"""Name of an export within a checkpoint."""
BACKBONE, TOKENIZER, DESCRIPTION = "backbone.xml", "tokenizer.json", "export.json"
ENTRY = "training.engine.convert"
_FORMAT = 1
# OpenVINO's converter reports its use to its maker by this package, and keeps still without it.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
_FILES = ("*.safetensors", "*.json")

Kind = Literal["checkpoint", "embedder", "adaptable"]
"""A checkpoint; a base as the embedder it is; or a base that takes the adapters of checkpoints, whose head it lacks."""


class Adapted(BaseModel):
    """A linear layer of an adaptable base."""

    model_config = ConfigDict(frozen=True)

    name: str
    inputs: int
    outputs: int


class Reading(BaseModel):
    """How an adapter's checkpoint reads its base; checkpoints that agree in it share one graph."""

    model_config = ConfigDict(frozen=True)

    base_model: str
    targets: tuple[str, ...]
    pooling: Literal["first", "mean", "last"]
    pairs: bool
    cross_layers: int | None


class Export(BaseModel):
    """What `export.json` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = _FORMAT
    source: str
    """The folder it was made of."""
    kind: Kind
    manifest: Manifest | None = None
    """An embedder's; a checkpoint has its own."""
    pad_token: int = 0
    unsuitable: str | None = None
    """Why there are no graphs: OpenVINO cannot run this network, or comes out somewhere else."""
    exact: bool = False
    """Whether the graph must be computed in float32: in bfloat16 the answers were too far off."""
    reading: Reading | None = None
    """An adapter's, or an adaptable base's: how they find each other."""
    adapted: tuple[Adapted, ...] = ()
    """An adaptable base's layers, in the order in which their matrices lie side by side in an adapter."""
    base_sha256: str | None = None
    """Of an adaptable base."""


def cache_folder() -> Path:
    """Where exports are kept whose sources are not ours to write to."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "encore" / FOLDER


def find(source: Path, kind: Kind, reading: Reading | None = None) -> Path:
    """The export of a source, made now if there is none yet.

    Args:
        source: a checkpoint folder, or a base's.
        kind: what of it.
        reading: of an adaptable base.

    Raises:
        ModelError: the source cannot be loaded; where OpenVINO cannot run it, there is an export that says so.
    """
    own = source / FOLDER
    if kind == "checkpoint" and (own / DESCRIPTION).is_file() and read(own).format == _FORMAT:
        return own
    target = cache_folder() / _key(source, kind, reading)
    cache_folder().mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):  # of several servers one makes it, the others wait
        if not (target / DESCRIPTION).is_file():
            _tidy()
            _make(source, kind, reading, target)
    return target


def read(folder: Path) -> Export:
    """Read an export's description."""
    return Export.model_validate_json((folder / DESCRIPTION).read_bytes())


def _make(source: Path, kind: Kind, reading: Reading | None, target: Path) -> None:
    order = json.dumps({"source": str(source), "kind": kind, "reading": reading and reading.model_dump()})
    if "torch" in sys.modules:
        from training.engine.openvino_export import carry_out

        carry_out(order, target)
        return
    # In a process of its own: what torch takes of memory goes with it, and is not the server's for good.
    command = [sys.executable, "-m", ENTRY, order, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise ModelError(lines[-1].removeprefix("error: "))


def _key(source: Path, kind: Kind, reading: Reading | None) -> str:
    """A name that changes with the source's files and with what is made of them."""
    files = sorted(path for pattern in _FILES for path in source.glob(pattern))
    state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    said = [_FORMAT, str(source.resolve()), kind, reading and reading.model_dump(), state]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]


def _tidy() -> None:
    """Remove exports whose source is gone."""
    for path in cache_folder().glob(f"*/{DESCRIPTION}"):
        if not Path(json.loads(path.read_bytes())["source"]).exists():
            shutil.rmtree(path.parent, ignore_errors=True)
