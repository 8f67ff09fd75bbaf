"""Where tiles are multiplied: on the CPU or on a GPU, and with every digit that float32 has."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from occluded_reid.arguments import shown
from occluded_reid.errors import DeviceError

__all__ = ["IndexDevice", "choose_device", "describe_device", "full_precision", "require_device_text"]

_log = logging.getLogger("occluded_reid")


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device to search on.

    "auto" is the current CUDA device where there is one, and the CPU elsewhere; which of them is logged (logger
    "occluded_reid", INFO). A device asked for by name is that device or an error: nothing falls back in silence. Search
    needs float64, which Apple's GPUs ("mps") lack.

    Args:
        device: "auto", "cpu", "cuda", "cuda:1", …, or a torch.device.

    Returns:
        The device; of CUDA always with its number.

    Raises:
        DeviceError: there is no such device here, or search cannot use it.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if not isinstance(device, str) or device != "auto":
        return _named(device)
    chosen = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    _log.info("Device 'auto' is %s.", describe_device(chosen))
    return chosen


def describe_device(device: str | torch.device) -> str:
    """Return a device's name with what it is, for people to read.

    Args:
        device: one that `choose_device` gave.

    Example:
        >>> describe_device("cpu").startswith("cpu (")
        True
    """
    chosen = torch.device(device)
    if chosen.type == "cuda":
        properties = torch.cuda.get_device_properties(chosen)
        return f"{chosen} ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)"
    threads = torch.get_num_threads()
    return f"{chosen} ({threads} thread{'s' * (threads > 1)})"


def require_device_text(device: object) -> str:
    """Return the first of the devices that a text such as "cuda:0,1" names.

    Raises:
        DeviceError: it is no text.
    """
    if not isinstance(device, str):
        raise DeviceError(f"device is of type {type(device).__name__}; give a text such as 'cpu' or 'cuda:1'.")
    return device.partition(",")[0]


def _named(device: str | torch.device) -> torch.device:
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as cause:
        raise DeviceError(f"device is {shown(device)}; give 'auto', 'cpu', 'cuda' or 'cuda:<number>'.") from cause
    if wanted.type == "cpu":
        return torch.device("cpu")
    if wanted.type == "mps":
        raise DeviceError(
            "device is 'mps', but search needs float64, which Apple's GPUs do not have; search on 'cpu', or 'auto'."
        )
    if wanted.type != "cuda":
        raise DeviceError(f"device is '{wanted}', which search does not know; give 'auto', 'cpu', 'cuda' or 'cuda:1'.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        reason = (
            "no GPU that it can use was found (see the driver with `nvidia-smi`)"
            if torch.backends.cuda.is_built()  # type: ignore[no-untyped-call]
            else "this torch is built for the CPU alone; see https://pytorch.org for a build with CUDA"
        )
        raise DeviceError(f"device is '{wanted}', but {reason}. Search on 'cpu', or let 'auto' choose.")
    index = torch.cuda.current_device() if wanted.index is None else wanted.index
    if index >= count:
        known = ", ".join(f"'cuda:{n}' ({torch.cuda.get_device_name(n)})" for n in range(count))
        raise DeviceError(f"device is '{wanted}', but here {'is' if count == 1 else 'are'} only {known}.")
    return torch.device("cuda", index)


@dataclass(frozen=True)
class IndexDevice:
    """Where the index of a gallery is to be.

    Attributes:
        name: "cpu", "cuda:1", or "cuda:0,1", where each GPU holds a share of it.
        required: whether it was asked for by name; else an index that knows no GPU stays on the CPU,
            and the log says so.
    """

    name: str = "cpu"
    required: bool = True

    @staticmethod
    def of(asked: str, tiles: torch.device) -> IndexDevice:
        """Return the device of an index, beside the one on which tiles are multiplied.

        Args:
            asked: as a user gives it, "auto" or names.
            tiles: what `choose_device` has made of it.

        Example:
            >>> IndexDevice.of("auto", torch.device("cuda", 0))
            IndexDevice(name='cuda:0', required=False)
        """
        if tiles.type == "cpu":
            return IndexDevice()
        return IndexDevice(str(tiles), required=False) if asked == "auto" else IndexDevice(asked)


class _Precision:
    """How torch multiplies float32 matrices; process-wide, so that searches in several threads must share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: list[tuple[Any, str]] = []
        self._before_all = "highest"

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            # From torch 2.9 on each backend has a setting of its own, and asking for the common one may be an error.
            backends: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
            if all(hasattr(backend, "fp32_precision") for backend in backends):
                self._before = [(b, b.fp32_precision) for b in backends if b.fp32_precision not in ("none", "ieee")]
                for backend, _ in self._before:
                    backend.fp32_precision = "ieee"
            elif (before := torch.get_float32_matmul_precision()) != "highest":
                self._before_all = before
                torch.set_float32_matmul_precision("highest")

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
            for backend, before in self._before:
                backend.fp32_precision = before
            if self._before_all != "highest":
                torch.set_float32_matmul_precision(self._before_all)
            self._before, self._before_all = [], "highest"


_PRECISION = _Precision()


@contextmanager
def full_precision(device: str | torch.device) -> Iterator[None]:
    """Multiply float32 matrices in float32 within the block, whatever training has switched on.

    TF32, bfloat16 and autocast keep three digits of a product: too few for distances that are to be right within 1e-5.
    The settings are the process's own: they come back when the last of several searches ends.

    Args:
        device: where the block multiplies.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16), full_precision("cpu"):
        ...     (torch.ones(1, 2) @ torch.ones(2, 1)).dtype
        torch.float32
    """
    _PRECISION.enter()
    try:
        with torch.autocast(torch.device(device).type, enabled=False):
            yield
    finally:
        _PRECISION.leave()
