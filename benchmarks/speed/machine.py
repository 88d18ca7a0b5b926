"""What is measured on: the machine in words."""

import platform
from importlib.metadata import version
from pathlib import Path

import psutil
from joblib import cpu_count  # heeds container quotas, unlike os.cpu_count

_SHOWN = ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx512f", "avx2", "asimd")
_LIBRARIES = ("torch", "transformers", "tokenizers", "openvino", "bentoml")


def machine() -> str:
    """Processor, cores, what it multiplies matrices with, memory."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", fields.get("Features", "")).split()
    able = ", ".join(flag for flag in _SHOWN if flag in flags)
    memory = psutil.virtual_memory().total / 2**30
    name = fields.get("model name", platform.processor() or platform.machine())
    return f"{cpu_count()} cores of {name}{f' ({able})' if able else ''}, {memory:.0f} GB of memory"


def versions() -> dict[str, str]:
    """Of Python and the libraries that decide about speed; a peer's are in its file of requirements."""
    return {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}
