"""Write docs/settings.md from the settings' own descriptions: `python scripts/reference.py`."""

from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from serving.settings import PREFIX, Settings
from training.config import LoraSettings, NegativesSettings, TrainConfig
from training.formats import DataOptions

TARGET = Path(__file__).resolve().parent.parent / "docs" / "settings.md"


def kind(annotation: Any) -> str:
    """A type as a reader sees it: the values of a Literal, the parts of a union."""
    origin = get_origin(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (Union, UnionType):
        return ", ".join(kind(part) for part in get_args(annotation) if part is not type(None))
    if origin is not None and origin not in (list, tuple):
        return kind(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "true, false", "Path": "folder"}
    name = getattr(origin or annotation, "__name__", str(annotation))
    return names.get(name, {"list": "list", "tuple": "list", "ByteSize": "size"}.get(name, name))


def rows(model: type[BaseModel], prefix: str = "") -> list[str]:
    """One table row per setting."""
    lines: list[str] = []
    for name, field in model.model_fields.items():
        default = field.default
        if field.is_required():
            shown = "required"
        elif field.default_factory is not None:
            shown = "from the machine"
        elif default is None or isinstance(default, BaseModel) or default == ():
            shown = ""
        else:
            shown = f"`{default}`"
        description = " ".join((field.description or "").split()).replace("|", "\\|")
        shown_name = f"{prefix}{name.upper() if prefix == PREFIX else name}"
        lines.append(f"| `{shown_name}` | {kind(field.annotation)} | {shown} | {description} |")
    return lines


def page() -> str:
    """The whole page."""
    head = ["| setting | values | default | |", "| --- | --- | --- | --- |"]
    parts = [
        "# Settings\n\nWritten by `python scripts/reference.py`; do not edit.\n\n## Training\n",
        "In the YAML file, or as flags (`--epochs 3 --lora.r 8`).\n",
        *head,
        *rows(TrainConfig),
        *rows(DataOptions, "data."),
        *rows(NegativesSettings, "negatives."),
        *rows(LoraSettings, "lora."),
        "\n## Serving\n\nEnvironment variables.\n",
        *head,
        *rows(Settings, PREFIX),
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
