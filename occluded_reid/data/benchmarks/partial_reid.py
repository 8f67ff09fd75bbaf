"""Partial-REID: 60 people, each five times whole (gallery), five times behind something, and five times cut out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from occluded_reid.data.benchmark import Benchmark, Counts, Layout, described
from occluded_reid.data.benchmarks.reading import listed_images, numbered_images
from occluded_reid.data.dataset import ReIDData, Split
from occluded_reid.data.layouts import find_layout
from occluded_reid.errors import DataError
from occluded_reid.files import is_file, is_folder
from occluded_reid.registry import DATASETS

__all__ = ["PARTIAL_REID", "load_partial_reid"]

_NAME = re.compile(r"(\d+)_")
_EXAMPLE = "001_001.jpg"
_GALLERY = "whole_body_images"
_QUERIES = {"occluded": "occluded_body_images", "partial": "partial_body_images"}
_LISTS = ("Probe.txt", "Gallery.txt")

_COUNTS: dict[Split, Counts] = {"query": Counts(300, 60), "gallery": Counts(300, 60)}
_FOLDERS = {
    kind: Layout(f"as downloaded, {kind} queries", {"query": (folder,), "gallery": (_GALLERY,)}, example=_EXAMPLE)
    for kind, folder in _QUERIES.items()
}
_LISTED = Layout("two lists of files", {}, _LISTS, example=f"folder/{_EXAMPLE}, a line each")

PARTIAL_REID = Benchmark(
    name="partial_reid",
    title="Partial-REID",
    layouts=(*_FOLDERS.values(), _LISTED),
    identity_rule="the first number of the file name",
    camera_rule="made up: 0 for every query, 1 for every gallery image, so that nothing is dropped",
    cameras=2,
    counts={"occluded": _COUNTS, "partial": _COUNTS},
    trained_on=("market1501",),
    pattern=_NAME.pattern,
    ranks=(1, 3, 5, 10),
    metrics=("Rank-1", "Rank-3", "mAP"),
    licence="for research; ask its authors",
    citation="Zheng, Li, Xiang, Liao, Lai, Gong: Partial Person Re-identification, ICCV 2015",
    traps=(
        "two protocols share one name. Queries are the occluded images as the camera took them (PGFA, PVPM, KPR, SORN) "
        "or what somebody cut out of them by hand (DSR, EANet, PADE; the default of fast-reid and of BPBReID): numbers "
        "of the two do not compare",
        "SGAM's paper says both, that queries are cut out beforehand and that nothing needs to be cut: report both",
        "it has no training images: by convention models are trained on Market-1501. Older work split it into training "
        "and test (AFPB): its numbers do not compare",
    ),
)


@DATASETS.register("partial_reid")
@described(PARTIAL_REID)
def load_partial_reid(root: str | Path, *, queries: Literal["occluded", "partial"] = "occluded") -> ReIDData:
    """Load Partial-REID: the gallery holds the whole images, the queries are one of the other two kinds.

    Read are the three folders as downloaded (that of the other kind of queries may be missing), or ``Probe.txt`` and
    ``Gallery.txt`` with a path in each line.

    Args:
        root: the folder that holds the folders or the lists.
        queries: "occluded", as the camera took them, with what is in front: the rule of PGFA, PVPM, KPR and SORN, and
            what anybody's camera gives; or "partial", what was cut out of them by hand: the rule of DSR, EANet, PADE
            and of most toolkits. The kind is the variant that reports name.

    Raises:
        DataError: the root is wrong by a folder, the copy is not whole, has no queries of that kind, or a list names
            something that is not there.
    """
    other = next(kind for kind in _QUERIES if kind != queries)
    here = Path(root)
    lists = all(is_file(here / name, DataError) for name in _LISTS)
    if (
        not lists
        and not is_folder(here / _QUERIES[queries], DataError)
        and is_folder(here / _QUERIES[other], DataError)
    ):
        raise DataError(
            f"'{root}' has {_QUERIES[other]}/ and no {_QUERIES[queries]}/. Copy that folder too, or load the other "
            f"protocol with queries='{other}'; numbers of the two do not compare."
        )
    folder, layout = find_layout(root, PARTIAL_REID.title, (_FOLDERS[queries], _LISTED))
    notes: list[str] = []
    if layout is _LISTED:
        query, gallery = (
            listed_images(folder, name, _NAME, camera, example=_EXAMPLE) for camera, name in enumerate(_LISTS)
        )
        folders = {kind: [s.name for s in query if place in s.name.split("/")] for kind, place in _QUERIES.items()}
        if folders[other]:
            raise DataError(
                f"'{folder / _LISTS[0]}' lists {other} queries ('{folders[other][0]}'), and queries='{queries}' was "
                f"asked for. Give queries='{other}', or the list of the other kind."
            )
        if not folders[queries]:
            notes.append(f"{_LISTS[0]} does not say of which kind its queries are; taken for {queries}, as asked for")
    else:
        query, gallery = (
            numbered_images(folder, name, _NAME, camera, example=_EXAMPLE, notes=notes)
            for camera, name in enumerate((_QUERIES[queries], _GALLERY))
        )
    notes.append(f"queries are the {queries} images; papers and toolkits differ in that, and numbers do not compare")
    return ReIDData(
        name=PARTIAL_REID.name,
        root=folder,
        train=(),
        query=query,
        gallery=gallery,
        licence=PARTIAL_REID.licence,
        citation=PARTIAL_REID.citation,
        notes=tuple(notes),
        benchmark=PARTIAL_REID,
        variant=queries,
    )
