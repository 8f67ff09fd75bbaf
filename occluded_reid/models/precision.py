"""In which floating-point numbers a model embeds, and where they can be computed with."""

from __future__ import annotations

from typing import Literal

import torch

from occluded_reid.errors import DeviceError
from occluded_reid.options import did_you_mean

__all__ = ["PRECISIONS", "Precision", "has_precision", "require_precision", "require_precision_name"]

Precision = Literal["float32", "bfloat16", "float16"]
"""Numbers that a network's layers compute with; embeddings leave it as float32 in any case."""

PRECISIONS: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

# Of torch.cpu.get_capabilities(): what multiplies such numbers as they are. A processor without it converts them to and
# fro, which is slower than float32.
_INSTRUCTIONS = {
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"),
    "float16": ("avx512_fp16", "amx_fp16", "fp16_arith"),
}


def require_precision_name(precision: str) -> None:
    """Refuse a word that names no precision.

    Raises:
        DeviceError: it is none of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise DeviceError(
            f"precision is {precision!r}.{did_you_mean(str(precision), list(PRECISIONS))} "
            f"Give {', '.join(repr(name) for name in PRECISIONS)}."
        )


def has_precision(precision: str, device: torch.device | str = "cpu") -> bool:
    """Whether a device computes with such numbers as they are.

    Example:
        >>> has_precision("float32")
        True
    """
    return _missing(precision, torch.device(device)) is None


def require_precision(precision: str, device: torch.device | str = "cpu") -> torch.dtype:
    """Return torch's type of a precision, or refuse it where the device would only imitate it.

    Raises:
        DeviceError: there is no such precision, or the device has no arithmetic for it.

    Example:
        >>> require_precision("float32")
        torch.float32
    """
    require_precision_name(precision)
    missing = _missing(precision, torch.device(device))
    if missing is not None:
        raise DeviceError(
            f"precision is '{precision}', and {missing}: it would be imitated, slower than float32 and less exact. "
            "Leave it at 'float32' here."
        )
    return PRECISIONS[precision]


def _missing(precision: str, device: torch.device) -> str | None:
    """What a device lacks, in words; None where it lacks nothing."""
    if precision == "float32":
        return None
    if device.type == "cuda":
        if precision == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            return f"the GPU ({torch.cuda.get_device_name(device)}) has no arithmetic for it"
        return None
    if device.type != "cpu":
        return f"on '{device.type}' it was never tried"
    has = torch.cpu.get_capabilities()
    if any(has.get(name) for name in _INSTRUCTIONS[precision]):
        return None
    wanted = ", ".join(_INSTRUCTIONS[precision])
    return f"this processor ({has.get('cpu_name') or has.get('architecture')}) has none of {wanted}"
