"""Partial-iLIDS: 119 people of an airport, each once in part (query) and once whole (gallery)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from occluded_reid.data.benchmark import Benchmark, Counts, Layout, described
from occluded_reid.data.benchmarks.reading import listed_images, numbered_images
from occluded_reid.data.dataset import ReIDData, Sample, Split
from occluded_reid.data.layouts import find_layout
from occluded_reid.errors import DataError
from occluded_reid.files import is_folder
from occluded_reid.registry import DATASETS

__all__ = ["PARTIAL_ILIDS", "load_partial_ilids"]

_NAME = re.compile(r"(\d+)\.")
_EXAMPLE = "1.jpg"
_UNCUT = "partial_iLIDS_Probe_nocrop"
_LISTS = ("Probe.txt", "Gallery.txt")

_COUNTS: dict[Split, Counts] = {"query": Counts(119, 119), "gallery": Counts(119, 119)}
_LISTED = Layout("two lists of files", {}, _LISTS, example=f"folder/{_EXAMPLE}, a line each")
_CROPPED = (
    Layout("as downloaded", {"query": ("Probe",), "gallery": ("Gallery",)}, example=_EXAMPLE),
    Layout(
        "named as Partial-REID",
        {"query": ("partial_body_images",), "gallery": ("whole_body_images",)},
        example=_EXAMPLE,
    ),
    _LISTED,
)
_UNCROPPED = (
    Layout("uncropped queries beside the gallery", {"query": (_UNCUT,), "gallery": ("Gallery",)}, example="001.jpg"),
    Layout(
        "uncropped queries beside the data set",
        {"query": (_UNCUT,), "gallery": ("Partial_iLIDS/Gallery",)},
        example="001.jpg",
    ),
)

PARTIAL_ILIDS = Benchmark(
    name="partial_ilids",
    title="Partial-iLIDS",
    layouts=(*_CROPPED, *_UNCROPPED),
    identity_rule="the number that is the file name; 1 and 001 are one person",
    camera_rule="made up: 0 for every query, 1 for every gallery image, so that nothing is dropped",
    cameras=2,
    counts={"cropped": _COUNTS, "uncropped": _COUNTS},
    trained_on=("market1501",),
    pattern=_NAME.pattern,
    ranks=(1, 3, 5, 10),
    metrics=("Rank-1", "Rank-3"),
    licence="for research; ask its authors (its images are of i-LIDS, of the UK Home Office)",
    citation=(
        "Zheng, Gong, Xiang: Person Re-identification by Probabilistic Relative Distance Comparison, CVPR 2011; in "
        "this form He, Liang, Li, Sun: Deep Spatial Feature Reconstruction for Partial Person Re-identification: "
        "Alignment-free Approach, CVPR 2018"
    ),
    traps=(
        "one query is 0.84 points of Rank-1: differences of a point or two say nothing without an interval",
        "each query has one match, so that mAP is the mean reciprocal rank",
        "queries are cut to the visible part by hand (Probe) or not (partial_iLIDS_Probe_nocrop): numbers of the two "
        "do not compare",
        "names are numbers, some with leading zeros and some without: sorted as text, 10 stands before 2",
        "it has no training images: by convention models are trained on Market-1501",
    ),
)


@DATASETS.register("partial_ilids")
@described(PARTIAL_ILIDS)
def load_partial_ilids(root: str | Path, *, cropped: bool = True) -> ReIDData:
    """Load Partial-iLIDS: one query and one gallery image of each person, in the order of their numbers.

    Args:
        root: the folder that holds the two folders, or ``Probe.txt`` and ``Gallery.txt`` with a path in each line.
        cropped: whether queries are the parts that were cut out by hand, as most papers have it, or the images they
            were cut from. The variant is "cropped" or "uncropped".

    Raises:
        DataError: the root is wrong by a folder, the copy is not whole, has no such queries, or a person is on one side
            twice.
    """
    try:
        folder, layout = find_layout(root, PARTIAL_ILIDS.title, _CROPPED if cropped else _UNCROPPED)
    except DataError as cause:
        beside = (Path(root).resolve().parent / _UNCUT).is_dir()  # the root is one too low, which the cause says
        if not cropped and not beside and is_folder(Path(root) / "Probe", DataError):
            raise DataError(
                f"'{root}' has the cut-out queries (Probe/) and no {_UNCUT}/ beside them or the gallery. Copy that "
                "folder too, or load the other protocol with cropped=True; numbers of the two do not compare."
            ) from cause
        raise
    notes: list[str] = []
    if layout is _LISTED:
        query, gallery = (
            listed_images(folder, name, _NAME, camera, example=_EXAMPLE) for camera, name in enumerate(_LISTS)
        )
        if any("nocrop" in sample.name.lower() for sample in query):
            raise DataError(
                f"'{folder / _LISTS[0]}' lists uncropped queries ('{query[0].name}'), and cropped ones were asked for. "
                f"Give cropped=False and the folder that holds {_UNCUT}/."
            )
    else:
        query, gallery = (
            numbered_images(folder, name, _NAME, camera, example=_EXAMPLE, notes=notes)
            for camera, name in enumerate((layout.folders["query"][0], layout.folders["gallery"][0]))
        )
    for side in (query, gallery):
        _refuse_twice(side)
    variant = "cropped" if cropped else "uncropped"
    notes.append(f"queries are {variant}; each has one match, so mAP is the mean reciprocal rank")
    return ReIDData(
        name=PARTIAL_ILIDS.name,
        root=folder,
        train=(),
        query=query,
        gallery=gallery,
        licence=PARTIAL_ILIDS.licence,
        citation=PARTIAL_ILIDS.citation,
        notes=tuple(notes),
        benchmark=PARTIAL_ILIDS,
        variant=variant,
    )


def _refuse_twice(samples: Sequence[Sample]) -> None:
    """Raise DataError if a person has two images on one side: 1.jpg and 001.jpg."""
    first: dict[str, str] = {}
    for sample in samples:
        if sample.person in first:
            raise DataError(
                f"person {int(sample.person)} is there twice: '{first[sample.person]}' and '{sample.name}'. "
                "Partial-iLIDS has one query and one gallery image of each: remove one of the two."
            )
        first[sample.person] = sample.name
