"""FAISS, imported on first need, and the few calls to it that depend on the factory string."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from occluded_reid.errors import MissingExtraError
from occluded_reid.search.factory import Factory
from occluded_reid.search.slot_index import IndexMetric

__all__ = ["import_faiss", "make_index", "one_thread", "search_parameters", "why"]


def import_faiss() -> Any:
    """Return the module.

    Raises:
        MissingExtraError: it is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module("faiss")
    except ImportError as cause:
        raise MissingExtraError(
            f"FAISS could not be imported ({cause}). On Linux x86-64: pip install faiss-gpu; elsewhere: "
            "pip install faiss-cpu. Never both: they overwrite each other."
        ) from cause


def make_index(factory: Factory, width: int, metric: IndexMetric, seed: int) -> Any:
    """Return an empty FAISS index that takes vectors with ids."""
    faiss = import_faiss()
    # Only inverted lists keep ids; the others get a list of them beside.
    text = factory.text if factory.kind == "IVF" else f"IDMap,{factory.text}"
    index = faiss.index_factory(
        width, text, faiss.METRIC_INNER_PRODUCT if metric == "inner_product" else faiss.METRIC_L2
    )
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        ivf.cp.seed = seed
        if factory.coding == "PQ":
            faiss.downcast_index(ivf).pq.cp.seed = seed
    return index


def search_parameters(factory: Factory, m: int, effort: int, allowed: np.ndarray | None) -> Any:
    """Return FAISS's parameters of one search.

    Args:
        factory: how the index was made.
        m: neighbours wanted.
        effort: nprobe, or efSearch, which is at least m.
        allowed: boolean for each id, or None.
    """
    faiss = import_faiss()
    selector = None
    if allowed is not None:
        selector = faiss.IDSelectorBitmap(np.packbits(np.asarray(allowed, dtype=bool), bitorder="little"))
    if factory.kind == "IVF":
        return faiss.SearchParametersIVF(sel=selector, nprobe=min(effort, factory.cells))
    if factory.kind == "HNSW":
        return faiss.SearchParametersHNSW(sel=selector, efSearch=max(effort, m))
    return faiss.SearchParameters(sel=selector)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let FAISS work in the calling thread alone, whatever other threads do."""
    faiss = import_faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # OpenMP keeps this number for each thread that calls it
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def why(cause: Exception) -> str:
    """Return what FAISS says went wrong, without C++ names and line numbers.

    Example:
        >>> why(RuntimeError("Error in read at io.cpp:1: Error: 'f' failed: could not open x: No such file"))
        "'f' failed: could not open x: No such file"
    """
    return (str(cause).rsplit("Error: ", 1)[-1].strip().splitlines() or ["no reason given"])[0].rstrip(".")
