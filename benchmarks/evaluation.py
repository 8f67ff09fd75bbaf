"""Time and memory of a whole evaluation beside the bare matrix product, and beside a naive full matrix.

    python benchmarks/evaluation.py                  # 2,210 x 17,661, five slots of 512
    python benchmarks/evaluation.py --widths sorn    # 3,072 and three times 2,048

The bare product and the evaluation take turns in one process, so that whatever else the machine does meets both alike;
the ratio is the median of the ratios of the turns. Memory is measured in a process of its own, above the inputs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.evaluation import Protocol, Report, evaluate
from occluded_reid.matchers import VisibilityWeightedMatcher

QUERIES, GALLERY, IDENTITIES, CAMERAS, HIDDEN = 2210, 17661, 702, 8, 0.3
WIDTHS = {"five": (512,) * 5, "sorn": (3072, 2048, 2048, 2048)}
MEBIBYTE = 1 << 20


def make_sets(widths: tuple[int, ...], seed: int = 0) -> tuple[EmbeddedSet, EmbeddedSet]:
    """Noisy copies of one direction for each identity and slot; the first slot always visible, others often hidden."""
    generator = torch.Generator().manual_seed(seed)
    centres = [torch.randn(IDENTITIES, width, generator=generator) for width in widths]
    labels = np.random.default_rng(seed)

    def make(count: int) -> EmbeddedSet:
        identity = labels.integers(0, IDENTITIES, count)
        rows = torch.from_numpy(identity)
        slots = []
        for centre in centres:
            slot = torch.randn(count, centre.shape[1], generator=generator).mul_(3.0)
            slots.append(slot.add_(centre[rows]))
        visible = (torch.rand(count, len(widths), generator=generator) >= HIDDEN).float()
        visible[:, 0] = 1
        names = ("global", *(f"part_{n}" for n in range(1, len(widths))))
        return EmbeddedSet(PartEmbeddings(names, tuple(slots), visible), identity, labels.integers(0, CAMERAS, count))

    return make(QUERIES), make(GALLERY)


def bare_product(query: Tensor, gallery: Tensor, tile_rows: int) -> None:
    """The matrix product alone, on rows that already lie side by side."""
    for start in range(0, len(gallery), tile_rows):
        _ = query @ gallery[start : start + tile_rows].T


def naive(query: EmbeddedSet, gallery: EmbeddedSet) -> tuple[float, float]:
    """Rank-1 and mAP from all distances at once and a full sort for each query, as toolkits do it."""
    numerator = torch.zeros(len(query), len(gallery))
    denominator = torch.zeros(len(query), len(gallery))
    q, g = query.embeddings, gallery.embeddings
    for s in range(len(q.names)):
        shared = q.visibility[:, s, None] * g.visibility[None, :, s]
        unit_q, unit_g = (torch.nn.functional.normalize(side.embeddings[s]) for side in (q, g))
        numerator += shared * (1 - unit_q @ unit_g.T)
        denominator += shared
    distance = (numerator / denominator).numpy()
    order = np.argsort(distance, axis=1)
    first, precisions = [], []
    for i in range(len(query)):
        same = gallery.identity[order[i]] == query.identity[i]
        keep = ~(same & (gallery.camera[order[i]] == query.camera[i]))
        hits = np.flatnonzero(same[keep])
        if len(hits):
            first.append(hits[0] == 0)
            precisions.append((np.arange(1, len(hits) + 1) / (hits + 1)).mean())
    return float(np.mean(first)), float(np.mean(precisions))


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


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def take_turns(
    query: EmbeddedSet, gallery: EmbeddedSet, whole: Callable[[], Report], tile_rows: int, turns: int
) -> tuple[Report, list[float], list[float]]:
    """Seconds of the bare product and of the evaluation, in turns, after one unmeasured run of each."""
    rows = query.embeddings.concatenate(), gallery.embeddings.concatenate()
    bare_product(*rows, tile_rows)
    report, bare, full = whole(), [], []
    for _ in range(turns):
        bare.append(timed(lambda: bare_product(*rows, tile_rows)))
        full.append(timed(whole))
    return report, bare, full


def measure_memory(widths: str, what: str) -> float:
    """Peak of one run in a process of its own."""
    command = [sys.executable, __file__, "--widths", widths, "--only-memory", what]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", choices=sorted(WIDTHS), default="five")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--tile-rows", type=int, default=Protocol().tile_rows)
    parser.add_argument("--skip-naive", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--only-memory", choices=("evaluate", "naive"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    query, gallery = make_sets(WIDTHS[arguments.widths])
    protocol = Protocol(dataset=f"random, {arguments.widths}", tile_rows=arguments.tile_rows)
    matcher = VisibilityWeightedMatcher()

    def whole() -> Report:
        report = evaluate(query, gallery, matcher, protocol)
        report.to_dict()
        return report

    if arguments.only_memory:
        work: Callable[[], object] = whole if arguments.only_memory == "evaluate" else lambda: naive(query, gallery)
        print(peak_above(work))
        return

    report, bare, full = take_turns(query, gallery, whole, protocol.tile_rows, arguments.turns)
    figures: dict[str, float] = {
        "threads": torch.get_num_threads(),
        "bare_product_seconds": statistics.median(bare),
        "evaluation_seconds": statistics.median(full),
        "ratio": statistics.median(f / b for f, b in zip(full, bare, strict=True)),
        "evaluation_peak_mib": measure_memory(arguments.widths, "evaluate"),
        "rank_1": report.rank(1),
        "mAP": report.mAP,
    }
    if not arguments.skip_naive:
        result = (0.0, 0.0)

        def run_naive() -> None:
            nonlocal result
            result = naive(query, gallery)

        figures["naive_seconds"] = timed(run_naive)
        figures["naive_peak_mib"] = measure_memory(arguments.widths, "naive")
        figures["naive_rank_1"], figures["naive_mAP"] = result
    print(f"{QUERIES} queries x {GALLERY} images, slots {' + '.join(map(str, WIDTHS[arguments.widths]))}")
    for name, value in figures.items():
        print(f"{name:>22} {value:10.4f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
