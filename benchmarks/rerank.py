"""Time and memory of k-reciprocal re-ranking: of a whole evaluation with and without it, and of single searches.

    python benchmarks/rerank.py                  # 2,210 x 17,661, five slots of 512
    python benchmarks/rerank.py --widths sorn    # 3,072 and three times 2,048

Evaluations with and without re-ranking and the bare matrix product of all N² pairs take turns; memory is measured in a
process of its own, above the inputs. A search re-ranks candidates that a plain search has found, by neighbour lists of
the gallery computed once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from measure import GALLERY, MEBIBYTE, QUERIES, WIDTHS, bare_product, make_sets, output_of, peak_above, seconds

from occluded_reid.evaluation import Protocol, Report, evaluate
from occluded_reid.matchers import VisibilityWeightedMatcher
from occluded_reid.search import InMemoryRows, exact_topk
from occluded_reid.search.rerank.k_reciprocal import KReciprocal
from occluded_reid.search.rerank.neighbors import NeighbourLists
from occluded_reid.search.rerank.per_query import rerank_topk

SEARCHES, CANDIDATES, HITS = 100, 100, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", choices=sorted(WIDTHS), default="five")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--skip-search", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--only-memory", choices=("plain", "reranked"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    query, gallery = make_sets(WIDTHS[arguments.widths])
    matcher = VisibilityWeightedMatcher()

    def whole(rerank: KReciprocal | None) -> Report:
        return evaluate(query, gallery, matcher, Protocol(bootstrap=0), rerank=rerank)

    if arguments.only_memory:
        print(peak_above(lambda: whole(KReciprocal() if arguments.only_memory == "reranked" else None)))
        return

    reports: dict[str, Report] = {}
    times: dict[str, list[float]] = {"plain": [], "reranked": [], "product": []}
    everyone = torch.cat([query.embeddings.concatenate(), gallery.embeddings.concatenate()])
    for _ in range(arguments.turns):
        for name in ("plain", "reranked"):
            start = time.perf_counter()
            reports[name] = whole(KReciprocal() if name == "reranked" else None)
            times[name].append(time.perf_counter() - start)
        times["product"].append(seconds(lambda: bare_product(everyone, everyone, 1024)))
    figures: dict[str, float] = {
        "threads": torch.get_num_threads(),
        "product_of_all_pairs_seconds": statistics.median(times["product"]),
    }
    for name in reports:
        figures[f"{name}_seconds"] = statistics.median(times[name])
        figures[f"{name}_peak_mib"] = float(output_of(__file__, "--widths", arguments.widths, "--only-memory", name))
        figures[f"{name}_rank_1"], figures[f"{name}_mAP"] = reports[name].rank(1), reports[name].mAP
    figures["one_full_matrix_mib"] = (QUERIES + GALLERY) ** 2 * 4 / MEBIBYTE

    if not arguments.skip_search:
        rows = InMemoryRows(gallery.embeddings)
        lists: list[NeighbourLists] = []
        figures["lists_seconds"] = seconds(lambda: lists.append(NeighbourLists.build(rows, matcher)))
        located = lists[0].locate(np.arange(len(gallery)))
        some = query.embeddings[:SEARCHES]
        best = exact_topk(some, rows, matcher, CANDIDATES)
        taken = seconds(lambda: rerank_topk(some, best, rows, matcher, KReciprocal(), HITS, lists=located))
        figures["ms_to_rerank_100_candidates"] = 1000 * taken / SEARCHES
        held = sum(x.nbytes for x in vars(lists[0]).values() if isinstance(x, np.ndarray))
        figures["lists_bytes_per_row"] = held / len(gallery)

    print(f"{QUERIES} queries x {GALLERY} images, slots {' + '.join(map(str, WIDTHS[arguments.widths]))}")
    for name, value in figures.items():
        print(f"{name:>28} {value:10.4f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
