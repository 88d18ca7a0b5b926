"""Where and how exactly a network runs, decided without loading torch where there is only a CPU."""

import sys
from pathlib import Path
from typing import Any, Literal

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16"]
BackendName = Literal["auto", "torch", "openvino"]

_ACCELERATOR_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What the drivers of NVIDIA, AMD and Windows' Linux leave where there is a GPU."""


def choose_device(wanted: Device) -> Literal["cpu", "cuda", "mps"]:
    """The device to use: `auto` takes a GPU where there is one."""
    if wanted != "auto":
        return wanted
    if "torch" not in sys.modules and not _may_have_accelerator():
        return "cpu"
    import torch  # takes a second, and two hundred megabytes, that a process on a CPU need not spend

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def choose_precision(device: str, wanted: Precision) -> Literal["float32", "bfloat16"]:
    """What torch computes the backbone in: `auto` is bfloat16 where the device has it in hardware."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if has_fast_bfloat16(device) else "float32"


def has_fast_bfloat16(device: str) -> bool:
    """Whether matrix products in bfloat16 are several times as fast as in float32."""
    import torch

    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # the oldest torch allowed may not tell
    return device == "cpu" and bool(able.get("amx_bf16") or able.get("avx512_bf16"))


def _may_have_accelerator() -> bool:
    return sys.platform in ("darwin", "win32") or any(Path(name).exists() for name in _ACCELERATOR_FILES)
