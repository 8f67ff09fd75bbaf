"""FAISS indexes on one or several GPUs."""

from __future__ import annotations

import re
from typing import Any

from occluded_reid.errors import DeviceError
from occluded_reid.search.factory import Factory
from occluded_reid.search.faiss_module import import_faiss

__all__ = ["MOST_FOUND", "gpu_numbers", "to_gpu"]

MOST_FOUND = 2048
"""FAISS returns at most so many rows, and looks into at most so many cells, on a GPU."""

_CUDA = re.compile(r"cuda(?::(?P<numbers>\d+(?:,\d+)*))?\Z")


def gpu_numbers(device: str, factory: Factory) -> tuple[int, ...]:
    """Return the numbers of the GPUs that a device names; none for "cpu".

    Args:
        device: "cpu", "cuda" (the first GPU), "cuda:1" or "cuda:0,1".
        factory: what is to live there.

    Raises:
        DeviceError: there is no such device, FAISS was built without GPUs, or a GPU cannot hold this index.
    """
    if device == "cpu":
        return ()
    named = _CUDA.match(device)
    if named is None:
        raise DeviceError(f"index: device is {device!r}; give 'cpu', 'cuda', 'cuda:1' or 'cuda:0,1'.")
    faiss = import_faiss()
    if not hasattr(faiss, "StandardGpuResources"):
        raise DeviceError(
            f"index: device is {device!r}, but this FAISS was built without GPUs. On Linux x86-64: "
            "pip uninstall faiss-cpu && pip install faiss-gpu. Elsewhere use device='cpu'."
        )
    count = faiss.get_num_gpus()
    numbers = tuple(int(n) for n in (named["numbers"] or "0").split(","))
    if len(set(numbers)) != len(numbers) or max(numbers) >= count:
        raise DeviceError(
            f"index: device is {device!r}, but FAISS sees {count} GPU{'' if count == 1 else 's'} (numbered from 0). "
            "Name those that exist, each once, or use device='cpu'."
        )
    if factory.kind == "HNSW":
        raise DeviceError(f"index: '{factory}' does not run on a GPU; use Flat or IVF there, or device='cpu'.")
    return numbers


def to_gpu(index: Any, numbers: tuple[int, ...]) -> Any:
    """Return a copy of a filled FAISS index on these GPUs; on several, each holds a share of the vectors."""
    faiss = import_faiss()
    resources = [faiss.StandardGpuResources() for _ in numbers]
    if len(numbers) == 1:
        return faiss.index_cpu_to_gpu(resources[0], numbers[0], index)
    options = faiss.GpuMultipleClonerOptions()
    options.shard = True
    return faiss.index_cpu_to_gpu_multiple_py(resources, index, options, gpus=list(numbers))
