"""Time and memory of a whole evaluation beside the bare matrix product, and beside a naive full matrix.

    python benchmarks/evaluation.py                  # 2,210 x 17,661, five slots of 512
    python benchmarks/evaluation.py --widths sorn    # 3,072 and three times 2,048
    python benchmarks/evaluation.py --size msmt17 --widths five_256 --skip-naive    # 11,659 x 82,161

The bare product and the evaluation take turns in one process, so that whatever else the machine does meets both alike;
the ratio is the median of the ratios of the turns. Memory is measured in a process of its own: above the inputs, and
the peak of the whole process, inputs included.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import (
    MEBIBYTE,
    SIZES,
    WIDTHS,
    bare_product,
    make_sets,
    median_ratio,
    output_of,
    peak_above,
    seconds,
    take_turns,
)

from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.evaluation import Protocol, Report, evaluate
from occluded_reid.matchers import VisibilityWeightedMatcher


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


def measure_memory(size: str, widths: str, what: str) -> tuple[float, float]:
    """Peak of one run in a process of its own, in MiB: above the inputs, and with everything."""
    above, whole = output_of(__file__, "--size", size, "--widths", widths, "--only-memory", what).split()
    return float(above), float(whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="duke")
    parser.add_argument("--widths", choices=sorted(WIDTHS), default="five")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--tile-rows", type=int, default=1024)
    parser.add_argument("--skip-naive", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--only-memory", choices=("evaluate", "naive"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size = SIZES[arguments.size]
    query, gallery = make_sets(WIDTHS[arguments.widths], size=size)
    protocol = Protocol(dataset=f"random, {arguments.widths}")
    matcher = VisibilityWeightedMatcher()

    def whole() -> Report:
        report = evaluate(query, gallery, matcher, protocol, tile_rows=arguments.tile_rows)
        report.to_dict()
        return report

    if arguments.only_memory:
        work: Callable[[], object] = whole if arguments.only_memory == "evaluate" else lambda: naive(query, gallery)
        print(peak_above(work), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEBIBYTE)
        return

    rows = query.embeddings.concatenate(), gallery.embeddings.concatenate()
    bare, full = take_turns([lambda: bare_product(*rows, arguments.tile_rows), whole], arguments.turns)
    report = whole()
    above, process = measure_memory(arguments.size, arguments.widths, "evaluate")
    figures: dict[str, float] = {
        "threads": torch.get_num_threads(),
        "bare_product_seconds": statistics.median(bare),
        "evaluation_seconds": statistics.median(full),
        "ratio": median_ratio(full, bare),
        "evaluation_peak_mib": above,
        "process_peak_mib": process,
        "rank_1": report.rank(1),
        "mAP": report.mAP,
    }
    if not arguments.skip_naive:
        result = (0.0, 0.0)

        def run_naive() -> None:
            nonlocal result
            result = naive(query, gallery)

        figures["naive_seconds"] = seconds(run_naive)
        figures["naive_peak_mib"] = measure_memory(arguments.size, arguments.widths, "naive")[0]
        figures["naive_rank_1"], figures["naive_mAP"] = result
    print(f"{size.queries} queries x {size.gallery} images, slots {' + '.join(map(str, WIDTHS[arguments.widths]))}")
    for name, value in figures.items():
        print(f"{name:>22} {value:10.4f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
