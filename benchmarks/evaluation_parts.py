"""Time and memory of what looks into an evaluation: failures, identification, verification.

    python benchmarks/evaluation_parts.py --size msmt17 --widths five_256

Each part runs once, one after another in one process, beside the plain evaluation of the same sets; the peak is that of
the whole process so far, inputs included.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable

from measure import MEBIBYTE, SIZES, WIDTHS, make_sets, seconds

from occluded_reid.calibration.pair_counts import count_pairs
from occluded_reid.evaluation import evaluate, find_failures
from occluded_reid.evaluation.open_set import evaluate_identification, evaluate_verification
from occluded_reid.matchers import VisibilityWeightedMatcher


def peak() -> float:
    """Highest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEBIBYTE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="duke")
    parser.add_argument("--widths", choices=sorted(WIDTHS), default="five_256")
    arguments = parser.parse_args()
    size = SIZES[arguments.size]
    query, gallery = make_sets(WIDTHS[arguments.widths], size=size)
    sets = query, gallery, VisibilityWeightedMatcher()
    parts: dict[str, Callable[[], object]] = {
        "evaluate": lambda: evaluate(*sets).intervals,
        "find_failures": lambda: find_failures(*sets),
        "evaluate_identification": lambda: evaluate_identification(*sets),
        "count_pairs, evaluate_verification": lambda: evaluate_verification(count_pairs(*sets)),
    }
    print(f"{size.queries} queries x {size.gallery} images; inputs: {peak():.0f} MiB")
    base = 0.0
    for name, part in parts.items():
        took = seconds(part)
        base = base or took
        print(f"{name:>36} {took:8.1f} s  {took / base:5.2f} x evaluate  {peak():6.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
