"""Occluded-REID: 200 people, each five times occluded (queries) and five times whole (gallery)."""

from __future__ import annotations

import re
from pathlib import Path

from occluded_reid.data.benchmark import Benchmark, Counts, Layout, described
from occluded_reid.data.benchmarks.reading import numbered_images
from occluded_reid.data.dataset import SPLITS, ReIDData
from occluded_reid.data.layouts import find_layout
from occluded_reid.registry import DATASETS

__all__ = ["OCCLUDED_REID", "load_occluded_reid"]

_NAME = re.compile(r"(\d+)_")
_EXAMPLE = "001_01.tif"

OCCLUDED_REID = Benchmark(
    name="occluded_reid",
    title="Occluded-REID",
    layouts=(
        Layout(
            "as its authors distribute it",
            {"query": ("occluded_body_images",), "gallery": ("whole_body_images",)},
            example="001/001_01.tif",
        ),
        Layout("query and gallery", {"query": ("query",), "gallery": ("gallery",)}, example="001_01.jpg"),
        Layout(
            "renamed to the names of Market-1501",
            {"query": ("query",), "gallery": ("bounding_box_test",)},
            example="0001_c1s1_000050_00.tif",
        ),
    ),
    identity_rule="the first number of the file name; a numbered sub-folder must agree with it",
    camera_rule="made up, never from the name: 0 for queries, 1 for the gallery, so that nothing is dropped",
    cameras=2,
    counts={"": {"query": Counts(1000, 200), "gallery": Counts(1000, 200)}},
    trained_on=("market1501",),
    pattern=_NAME.pattern,
    metrics=("Rank-1", "Rank-5", "Rank-10", "mAP"),
    licence="for research; ask its authors",
    citation="Zhuo, Chen, Lai, Wang: Occluded Person Re-identification, ICME 2018",
    traps=(
        "the second number of a name such as 001_01 counts the images of a person. A loader that takes it for the "
        "camera (fast-reid's does) drops one true match of every query",
        "it has no training images: by convention models are trained on Market-1501",
        "copies hold .tif or .jpg files; a copy with both would count every image twice and is refused",
        "some published systems stop training by their score on this very test set: treat such numbers with care",
    ),
)


@DATASETS.register("occluded_reid")
@described(OCCLUDED_REID)
def load_occluded_reid(root: str | Path) -> ReIDData:
    """Load Occluded-REID: queries are the occluded images, the gallery holds the whole ones.

    All three trees that are in use are read: ``occluded_body_images/`` and ``whole_body_images/`` with a sub-folder for
    each person, ``query/`` and ``gallery/``, and ``query/`` and ``bounding_box_test/``. Cameras are 0 for queries and 1
    for the gallery, whatever the names say.

    Args:
        root: the folder that holds the two folders.

    Raises:
        DataError: the root is wrong by a folder, the copy is not whole, an image is there twice or in another person's
            folder.
    """
    folder, layout = find_layout(root, OCCLUDED_REID.title, OCCLUDED_REID.layouts)
    notes: list[str] = []
    query, gallery = (
        numbered_images(folder, layout.folders[split][0], _NAME, camera, example=_EXAMPLE, notes=notes)
        for camera, split in enumerate(SPLITS[1:])
    )
    return ReIDData(
        name=OCCLUDED_REID.name,
        root=folder,
        train=(),
        query=query,
        gallery=gallery,
        licence=OCCLUDED_REID.licence,
        citation=OCCLUDED_REID.citation,
        notes=tuple(notes),
        benchmark=OCCLUDED_REID,
    )
