"""Every registered data set says all there is to say, and its counts are those that papers and owners state."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from occluded_reid.data.benchmark import Benchmark, Counts, all_benchmarks, benchmark_of
from occluded_reid.errors import UnknownNameError
from occluded_reid.registry import DATASETS

NAMES = [benchmark.name for benchmark in all_benchmarks()]
LAYOUTS_OF_NOBODY = {"folder", "images", "synthetic"}

# Identities and images of each split; identities of the gallery with distractors, where those have numbers.
KNOWN: dict[tuple[str, str], dict[str, tuple[int, int]]] = {
    ("market1501", ""): {"train": (751, 12_936), "query": (750, 3_368), "gallery": (750, 19_732 - 3_819)},
    ("dukemtmc_reid", ""): {"train": (702, 16_522), "query": (702, 2_228), "gallery": (1_110, 17_661)},
    ("occluded_duke", ""): {"train": (702, 15_618), "query": (519, 2_210), "gallery": (1_110, 17_661)},
    ("p_dukemtmc", ""): {"train": (665, 12_927), "query": (634, 2_163), "gallery": (634, 9_053)},
    ("occluded_reid", ""): {"query": (200, 1_000), "gallery": (200, 1_000)},
    ("partial_reid", "occluded"): {"query": (60, 300), "gallery": (60, 300)},
    ("partial_reid", "partial"): {"query": (60, 300), "gallery": (60, 300)},
    ("partial_ilids", "cropped"): {"query": (119, 119), "gallery": (119, 119)},
    ("partial_ilids", "uncropped"): {"query": (119, 119), "gallery": (119, 119)},
    ("cuhk03", "labeled"): {"train": (767, 7_368), "query": (700, 1_400), "gallery": (700, 5_328)},
    ("cuhk03", "detected"): {"train": (767, 7_365), "query": (700, 1_400), "gallery": (700, 5_332)},
    ("msmt17", "without list_val"): {"train": (1_041, 30_248), "query": (3_060, 11_659), "gallery": (3_060, 82_161)},
    ("msmt17", "with list_val"): {
        "train": (1_041, 30_248 + 2_373),
        "query": (3_060, 11_659),
        "gallery": (3_060, 82_161),
    },
}
CAMERAS = {"market1501": 6, "dukemtmc_reid": 8, "occluded_duke": 8, "msmt17": 15}
TRAINED_ON = {
    "occluded_reid": ("market1501",),
    "partial_reid": ("market1501",),
    "partial_ilids": ("market1501",),
    "p_dukemtmc": ("p_dukemtmc", "market1501"),
}
WITHDRAWN = {"dukemtmc_reid", "occluded_duke", "p_dukemtmc"}


def total(counts: Counts) -> tuple[int, int]:
    return counts.identities + counts.distractors, counts.images


def known(name: str) -> Benchmark:
    benchmark = benchmark_of(name)
    assert benchmark is not None
    return benchmark


def test_these_are_all() -> None:
    assert set(NAMES) == set(DATASETS.names()) - LAYOUTS_OF_NOBODY == {name for name, _ in KNOWN}


def test_the_counts_are_those_of_the_table() -> None:
    found = {
        (benchmark.name, variant): {split: total(counts) for split, counts in splits.items()}
        for benchmark in all_benchmarks()
        for variant, splits in benchmark.counts.items()
    }
    assert found == KNOWN


@pytest.mark.parametrize("name", NAMES)
def test_every_protocol_is_filled_in(name: str) -> None:
    benchmark = known(name)
    assert benchmark.name == name
    assert benchmark.cameras == CAMERAS.get(name, 2)
    assert benchmark.trained_on == TRAINED_ON.get(name, (name,))
    assert all(other in NAMES for other in benchmark.trained_on)
    assert bool(benchmark.withdrawn) == (name in WITHDRAWN)
    for text in (benchmark.title, benchmark.identity_rule, benchmark.camera_rule, benchmark.licence):
        assert len(text) > 4
    assert re.search(r"(19|20)\d\d", benchmark.citation)
    assert benchmark.metrics
    assert benchmark.traps
    assert benchmark.layouts
    for layout in benchmark.layouts:
        assert layout.name
        assert layout.needed
        assert layout.example
        assert set(layout.optional) <= set(layout.folders)
    if benchmark.pattern:
        assert re.compile(benchmark.pattern).groups


@pytest.mark.parametrize("name", NAMES)
def test_the_facts_say_everything(name: str) -> None:
    benchmark = known(name)
    facts = benchmark.facts
    text = "\n".join(f"{fact}: {said}" for fact, said in facts.items())
    for said in (benchmark.title, benchmark.licence, benchmark.withdrawn, benchmark.citation, *benchmark.traps):
        assert said in text
    assert all(layout.tree in text for layout in benchmark.layouts)
    for splits in benchmark.counts.values():
        assert all(f"{split} {counts}" in text for split, counts in splits.items())
    assert all(isinstance(said, str) and said for said in facts.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_loader_is_tested_on_a_tree_of_its_layout(name: str) -> None:
    module = DATASETS.get(name).__module__.rpartition(".")[2]
    test = Path(__file__).with_name(f"test_{module}.py")
    assert test.is_file(), f"write {test.name}: a small tree of each layout, with its traps"


def test_layouts_of_nobody_have_no_protocol() -> None:
    assert all(benchmark_of(name) is None for name in LAYOUTS_OF_NOBODY)


def test_an_unknown_name_is_answered_with_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'occluded_duke'"):
        benchmark_of("ocluded_duke")


def test_counts_in_words() -> None:
    assert str(Counts(17_661, 702, 408)) == "702 people + 408 distractors / 17,661 images"
    assert str(Counts(119, 119)) == "119 people / 119 images"


def test_the_documentation_shows_the_same_table() -> None:
    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    section = text.partition("## Published")[2].partition("## Verifying")[0]
    shown = re.findall(r"^\| `(\w+)`(?: \((.+?)\))? \| (.+?) \|$", section, re.MULTILINE)
    found = {(name, variant): [cell.strip() for cell in cells.split("|")] for name, variant, cells in shown}
    wanted = {}
    for benchmark in all_benchmarks():
        for variant, splits in benchmark.counts.items():
            people = [total(splits[split]) if split in splits else None for split in ("train", "query", "gallery")]
            wanted[benchmark.name, variant] = [
                *("–" if counts is None else f"{counts[0]:,} / {counts[1]:,}" for counts in people),
                str(benchmark.cameras),
                ", ".join(benchmark.trained_on),
                ", ".join(benchmark.metrics),
                "withdrawn" if benchmark.withdrawn else "",
            ]
    assert found == wanted
