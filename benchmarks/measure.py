"""What benchmarks share: random sets, the bare matrix product, turns, and peaks of memory."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings

__all__ = [
    "GALLERY",
    "MEBIBYTE",
    "QUERIES",
    "SIZES",
    "WIDTHS",
    "Size",
    "bare_product",
    "make_sets",
    "median_ratio",
    "output_of",
    "peak_above",
    "seconds",
    "take_turns",
]


class Size(NamedTuple):
    """Images, people and cameras of a data set."""

    queries: int
    gallery: int
    identities: int
    cameras: int


SIZES = {"duke": Size(2210, 17661, 702, 8), "msmt17": Size(11659, 82161, 3060, 15)}
QUERIES, GALLERY, _, _ = SIZES["duke"]
HIDDEN = 0.3
WIDTHS = {"five": (512,) * 5, "five_256": (256,) * 5, "sorn": (3072, 2048, 2048, 2048)}
MEBIBYTE = 1 << 20


def make_sets(widths: tuple[int, ...], seed: int = 0, size: Size = SIZES["duke"]) -> tuple[EmbeddedSet, EmbeddedSet]:
    """Noisy copies of one direction for each identity and slot; the first slot always visible, others often hidden."""
    generator = torch.Generator().manual_seed(seed)
    centres = [torch.randn(size.identities, width, generator=generator) for width in widths]
    labels = np.random.default_rng(seed)

    def make(count: int) -> EmbeddedSet:
        identity = labels.integers(0, size.identities, count)
        rows = torch.from_numpy(identity)
        slots = []
        for centre in centres:
            slot = torch.randn(count, centre.shape[1], generator=generator).mul_(3.0)
            slots.append(slot.add_(centre[rows]))
        visible = (torch.rand(count, len(widths), generator=generator) >= HIDDEN).float()
        visible[:, 0] = 1
        names = ("global", *(f"part_{n}" for n in range(1, len(widths))))
        return EmbeddedSet(
            PartEmbeddings(names, tuple(slots), visible), identity, labels.integers(0, size.cameras, count)
        )

    return make(size.queries), make(size.gallery)


def bare_product(query: Tensor, gallery: Tensor, tile_rows: int) -> None:
    """The matrix product alone, on rows that already lie side by side."""
    for start in range(0, len(gallery), tile_rows):
        _ = query @ gallery[start : start + tile_rows].T


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def take_turns(works: Sequence[Callable[[], object]], turns: int) -> list[list[float]]:
    """Seconds of each of these, one after another, again and again, after one unmeasured run of each."""
    for work in works:
        work()
    rounds = [[seconds(work) for work in works] for _ in range(turns)]
    return [list(times) for times in zip(*rounds, strict=True)]


def median_ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    """Median of the ratios of the turns."""
    return statistics.median(t / r for t, r in zip(times, reference, strict=True))


def peak_above(work: Callable[[], object]) -> float:
    """Highest resident memory while `work` runs, in MiB above what was resident before."""
    page = int(subprocess.run(["getconf", "PAGESIZE"], capture_output=True, check=True, text=True).stdout)

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * page / MEBIBYTE

    before, peak, done = resident(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return peak - before


def output_of(script: str, *arguments: str) -> str:
    """Run a benchmark in a process of its own and return the last line that it prints."""
    done = subprocess.run([sys.executable, script, *arguments], stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout.splitlines()[-1]
