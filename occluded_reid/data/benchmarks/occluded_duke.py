"""Occluded-DukeMTMC: DukeMTMC-reID split anew by three lists, so that every query is occluded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from occluded_reid.data.benchmark import Benchmark, Counts, Layout, described
from occluded_reid.data.benchmarks.dukemtmc import CITATION, DUKEMTMC_REID, LICENCE, WITHDRAWN
from occluded_reid.data.benchmarks.market_style import (
    FOLDERS,
    PATTERN,
    load_market_style,
    market_layouts,
    never_asked,
    read_market_images,
    with_notes,
)
from occluded_reid.data.dataset import SPLITS, ReIDData, Sample, Split, require_folder
from occluded_reid.data.layouts import find_layout
from occluded_reid.data.lists import read_list
from occluded_reid.errors import DataError
from occluded_reid.registry import DATASETS

__all__ = ["LISTS", "OCCLUDED_DUKE", "load_occluded_duke"]

LISTS: dict[Split, str] = {"train": "train.list", "query": "query.list", "gallery": "gallery.list"}
"""The official lists: a file name of DukeMTMC-reID in each line."""

_EXAMPLE = "0019_c1_f0051230.jpg"
_INNER = "DukeMTMC-reID"
_SORTED = market_layouts(_EXAMPLE)
# Where DukeMTMC-reID has what a list names: some queries were queries there too, the others stood in its gallery.
_SOURCES: dict[Split, tuple[str, ...]] = {
    "train": (FOLDERS["train"],),
    "query": (FOLDERS["query"], FOLDERS["gallery"]),
    "gallery": (FOLDERS["gallery"],),
}
_LISTED = tuple(
    Layout(
        f"DukeMTMC-reID and the official lists{where}",
        {split: tuple(inner + folder for folder in folders) for split, folders in _SOURCES.items()},
        files=tuple(LISTS.values()),
        example=_EXAMPLE,
    )
    for where, inner in (("", ""), (" beside its folder", f"{_INNER}/"))
)

OCCLUDED_DUKE = Benchmark(
    name="occluded_duke",
    title="Occluded-DukeMTMC",
    layouts=(*_SORTED, *_LISTED),
    identity_rule="number before the first underscore",
    camera_rule="number after _c, from 1; gallery images of the query's identity and camera are dropped",
    cameras=8,
    first_camera=1,
    counts={"": {"train": Counts(15_618, 702), "query": Counts(2_210, 519), "gallery": Counts(17_661, 519, 591)}},
    trained_on=("occluded_duke",),
    pattern=PATTERN,
    distractors="591 identities of the gallery that no query asks for: DukeMTMC-reID's 408 and 183 of its people",
    metrics=("Rank-1", "Rank-5", "Rank-10", "mAP"),
    licence=LICENCE,
    withdrawn=WITHDRAWN,
    citation=f"Miao et al., Pose-Guided Feature Alignment for Occluded Person Re-Identification, ICCV 2019; {CITATION}",
    traps=(
        "1,870 of the 2,210 queries are in the gallery too; they find themselves wherever images of the query's "
        "identity and camera are not dropped, and Rank-1 is then close to 100 %",
        "a copy of DukeMTMC-reID has the same folders: without the lists it is another test set",
        "the paper says that 934 training images were removed; the lists leave out 904, and the lists count",
        "it is trained on its own training images, not on those of DukeMTMC-reID",
        "occluded can also mean that a second person is in the box",
    ),
)


@DATASETS.register("occluded_duke", aliases=("occluded_dukemtmc",))
@described(OCCLUDED_DUKE)
def load_occluded_duke(root: str | Path, *, train_only: bool | None = None) -> ReIDData:
    """Load images that are sorted already, or DukeMTMC-reID as ``train.list``, ``query.list``, ``gallery.list`` say.

    The lists are looked for in the root, with the three folders of DukeMTMC-reID beside them or in ``DukeMTMC-reID/``
    below it; where they are, they decide. Queries that are in the gallery too are kept, and a note counts them: they
    are of the same identity and camera as themselves, so evaluation drops them.

    Args:
        root: the folder that holds the three folders, the lists, or both.
        train_only: True leaves queries and gallery alone, False insists on all three folders; None takes what is there.

    Raises:
        DataError: the folder is one too high or too low, holds only a part, is DukeMTMC-reID without the lists, or a
            list names an image twice, one that is not there, or one outside the root.
    """
    root = require_folder(root)
    if any((root / name).is_file() for name in LISTS.values()):
        data = _by_lists(root, ("train",) if train_only else SPLITS)
    else:
        _refuse_the_inner_folder(root)
        data = load_market_style(root, OCCLUDED_DUKE, train_only=train_only)
        _refuse_the_source(data)
    both = _in_both(data)
    notes = (*data.notes, _note(both, len(data.query))) if both else data.notes
    return replace(data, distractors=never_asked(data), notes=notes)


def _by_lists(root: Path, wanted: tuple[Split, ...]) -> ReIDData:
    _, layout = find_layout(root, OCCLUDED_DUKE.title, _LISTED)
    splits: dict[Split, tuple[Sample, ...]] = {}
    for split in wanted:
        listed = read_list(root / LISTS[split], root, layout.folders[split])
        samples, left_out = read_market_images(root, listed, _EXAMPLE)
        if left_out:
            raise DataError(f"'{root / LISTS[split]}': {left_out[0]}. Take the official list again.")
        splits[split] = tuple(samples)
    return ReIDData(
        name=OCCLUDED_DUKE.name,
        root=root,
        train=splits["train"],
        query=splits.get("query", ()),
        gallery=splits.get("gallery", ()),
        licence=LICENCE,
        citation=OCCLUDED_DUKE.citation,
        notes=with_notes(OCCLUDED_DUKE, [f"split as {', '.join(LISTS[split] for split in wanted)} say"]),
        benchmark=OCCLUDED_DUKE,
    )


def _refuse_the_inner_folder(root: Path) -> None:
    """Inside DukeMTMC-reID with the lists beside it all three folders are there, and say nothing of the new splits."""
    here = root.resolve()
    if here.name == _INNER and all((here.parent / name).is_file() for name in LISTS.values()):
        raise DataError(
            f"'{root}' lies inside the data set {OCCLUDED_DUKE.title}: its lists are beside it, and the root is one "
            f"folder too low. Give '{here.parent}'."
        )


def _refuse_the_source(data: ReIDData) -> None:
    """DukeMTMC-reID has the same folders and other queries: a number from it under this name would be wrong."""
    counts = DUKEMTMC_REID.counts[""]
    # Any one is enough: its galleries are of the same size, but neither queries nor training images are.
    if len(data.query) == counts["query"].images or len(data.train) == counts["train"].images:
        raise DataError(
            f"'{data.root}' is DukeMTMC-reID ({len(data.train):,} training images, {len(data.query):,} queries), not "
            f"{OCCLUDED_DUKE.title}. Put its official {', '.join(LISTS.values())} into that folder, or load the data "
            f"set '{DUKEMTMC_REID.name}'."
        )


def _in_both(data: ReIDData) -> int:
    gallery = {sample.path.name for sample in data.gallery}
    return sum(sample.path.name in gallery for sample in data.query)


def _note(both: int, queries: int) -> str:
    return (
        f"{both:,} of the {queries:,} queries are in the gallery too; evaluation drops them there, as images of the "
        "query's identity and camera. A search that does not would find each query at once"
    )
