"""Comparing what was found on disk with what a whole copy of a published data set holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from occluded_reid.data.benchmark import Benchmark, Counts, all_benchmarks
from occluded_reid.data.dataset import SPLITS, ReIDData, Split

__all__ = ["CountComparison", "CountDifference", "compare_counts", "counts_of"]

_AGAIN = "extract or copy the data set again, whole"


@dataclass(frozen=True)
class CountDifference:
    """Something that is not as in a whole copy, and what to do.

    Attributes:
        where: a split, or "cameras".
        found: what is there.
        expected: what a whole copy has.
        text: both in words, with what to do.
    """

    where: str
    found: Counts | int
    expected: Counts | int
    text: str


@dataclass(frozen=True)
class CountComparison:
    """What `compare_counts` found.

    Attributes:
        title: of the published data set.
        variant: which of its variants was compared; empty where there is only one.
        expected: what a whole copy holds of each split.
        compared: splits that were compared.
        differences: what is not as in a whole copy; empty where all is.
        note: why something was not compared, or empty.
    """

    title: str
    variant: str
    expected: Mapping[Split, Counts]
    compared: tuple[Split, ...]
    differences: tuple[CountDifference, ...] = ()
    note: str = ""

    @property
    def problems(self) -> tuple[str, ...]:
        """The differences in words, a line each."""
        return tuple(difference.text for difference in self.differences)

    def lines(self) -> list[str]:
        """Return what was compared, and how it went, in lines; the differences themselves are `problems`."""
        name = f"{self.title} ({self.variant})" if self.variant else self.title
        whole = ", ".join(self.compared)
        lines = [f"counts: {whole} as in a whole {name}"] if self.compared and not self.differences else []
        return [*lines, *([f"counts: {self.note}"] if self.note else [])]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {
            "title": self.title,
            "variant": self.variant,
            "expected": {split: counts._asdict() for split, counts in self.expected.items()},
            "compared": list(self.compared),
            "differences": [
                {"where": d.where, "found": _plain(d.found), "expected": _plain(d.expected), "text": d.text}
                for d in self.differences
            ],
            "note": self.note,
        }


def counts_of(data: ReIDData, split: Split) -> Counts:
    """Return the counts of a split; identities are counted as `Counts` says."""
    distractors = {sample.identity for sample in data.split(split)} & data.distractors
    return Counts(len(data.split(split)), len(data.identities(split)), len(distractors))


def compare_counts(data: ReIDData) -> CountComparison | None:
    """Compare images, identities and cameras with those of a whole copy; None for data that nobody has published.

    A hold-out has other queries and another gallery, and a smaller training split: nothing of it is compared. Splits
    that were not loaded, as with only a training folder, are named in the note and not compared.

    Args:
        data: a loaded data set.
    """
    benchmark = data.benchmark
    if benchmark is None:
        return None
    expected = benchmark.counts.get(data.variant, {})
    title = f"{benchmark.title} ({data.variant})" if data.variant else benchmark.title
    if data.partitions:
        note = f"not compared with a whole {title}: these are other splits ({data.part})"
        return CountComparison(benchmark.title, data.variant, expected, (), note=note)
    if not expected:
        return CountComparison(benchmark.title, data.variant, expected, (), note=f"the counts of {title} are not known")
    found = {split: counts_of(data, split) for split in SPLITS}
    compared = tuple(split for split in SPLITS if split in expected and found[split].images)
    absent = [split for split in expected if split not in compared]
    wrong = [split for split in compared if not _as_expected(found[split], expected[split])]
    other = _counts_elsewhere(benchmark, data.variant, {split: found[split] for split in compared}) if wrong else ""
    differences = [_difference(split, found[split], expected[split], other) for split in wrong]
    if compared and not absent:
        differences += _cameras(data, benchmark)
    note = f"{', '.join(absent)} not compared: nothing of it is loaded; this is a part of {title}" if absent else ""
    return CountComparison(benchmark.title, data.variant, expected, compared, tuple(differences), note)


def _identities(counts: Counts, expected: Counts) -> int:
    """Who is a distractor hangs on the queries, so both kinds together; what has no number of its own is nobody."""
    return counts.identities + (counts.distractors if expected.distractors else 0)


def _as_expected(found: Counts, expected: Counts) -> bool:
    return (found.images, _identities(found, expected)) == (expected.images, _identities(expected, expected))


def _difference(split: Split, found: Counts, expected: Counts, other: str) -> CountDifference:
    """What is not as it should be in one split; `other` says what it is instead, where that is known."""
    there, wanted = _identities(found, expected), _identities(expected, expected)
    missing = expected.images - found.images
    if other:
        what = other
    elif missing > 0:
        what = f"{missing:,} missing: this is a part of it; {_AGAIN}"
    elif missing < 0:
        what = f"{-missing:,} too many: images of another split or data set lie among them, or some lie there twice"
    else:
        what = "as many as there should be, but of other people: another split or data set"
    text = f"{split}: {found.images:,} of {expected.images:,} images, {there:,} of {wanted:,} identities; {what}"
    return CountDifference(split, found, expected, text)


def _cameras(data: ReIDData, benchmark: Benchmark) -> list[CountDifference]:
    seen = sorted({sample.camera for split in SPLITS for sample in data.split(split)})
    wanted = range(benchmark.first_camera, benchmark.first_camera + benchmark.cameras)
    if seen == list(wanted):
        return []
    strange = [camera for camera in seen if camera not in wanted]
    numbers = f"{wanted[0]} … {wanted[-1]}"
    what = (
        f"camera {strange[0]} is none of its ({numbers}): files of another data set lie among them"
        if strange
        else f"some are missing; {_AGAIN}"
    )
    text = f"cameras: {len(seen)} of {benchmark.cameras} seen; {what}"
    return [CountDifference("cameras", len(seen), benchmark.cameras, text)]


def _counts_elsewhere(benchmark: Benchmark, variant: str, found: Mapping[Split, Counts]) -> str:
    """Say which other published data set, or variant of this one, has exactly these images; else nothing."""
    for other in all_benchmarks():
        for kind, counts in other.counts.items():
            same = all(split in counts and counts[split].images == found[split].images for split in found)
            if same and other.name == benchmark.name and kind != variant:
                return f"these are the counts of its variant '{kind}'"
            if same and other.name != benchmark.name:
                return f"these are the counts of {other.title}: load it as '{other.name}'"
    return ""


def _plain(value: Counts | int) -> Any:
    return value._asdict() if isinstance(value, Counts) else value
