"""MSMT17: 4,101 people, 15 cameras, with lists of training, validation, query and gallery images."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from occluded_reid.data.benchmark import Benchmark, Counts, Layout, described
from occluded_reid.data.benchmarks.reading import files_below, listed_file
from occluded_reid.data.dataset import ReIDData, Sample, Split
from occluded_reid.data.layouts import find_layout
from occluded_reid.data.lists import list_lines
from occluded_reid.errors import DataError
from occluded_reid.registry import DATASETS

__all__ = ["MSMT17", "load_msmt17"]

_NAME = re.compile(r"\d+_[^_]+_(\d+)_")
_EXAMPLE = "0000_000_01_0303morning_0008_0.jpg"
_CAMERAS = 15
_LISTS = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")

_TEST: dict[Split, Counts] = {"query": Counts(11_659, 3_060), "gallery": Counts(82_161, 3_060)}

MSMT17 = Benchmark(
    name="msmt17",
    title="MSMT17",
    layouts=(
        Layout(
            "MSMT17_V1",
            {"train": ("train",), "query": ("test",), "gallery": ("test",)},
            _LISTS,
            example=f"0000/{_EXAMPLE}",
        ),
        Layout(
            "MSMT17_V2",
            {"train": ("mask_train_v2",), "query": ("mask_test_v2",), "gallery": ("mask_test_v2",)},
            _LISTS,
            example=f"0000/{_EXAMPLE}",
        ),
    ),
    identity_rule="the number after the path in the lists; test numbers start at 0 again and are other people",
    camera_rule="the third token of the file name, from 1; gallery images of the query's person and camera are dropped",
    cameras=_CAMERAS,
    first_camera=1,
    counts={
        "without list_val": {"train": Counts(30_248, 1_041), **_TEST},
        "with list_val": {"train": Counts(32_621, 1_041), **_TEST},
    },
    trained_on=("msmt17",),
    pattern=_NAME.pattern,
    metrics=("Rank-1", "mAP"),
    licence="for research, under the agreement of its authors",
    citation=(
        "Wei, Zhang, Gao, Tian: Person Transfer GAN to Bridge Domain Gap for Person Re-identification, CVPR 2018"
    ),
    traps=(
        "list_val holds 2,373 more images of the training people. torchreid and fast-reid leave it out, TransReID, FED "
        "and EANet train on it: numbers of the two do not quite compare",
        "numbers of people start at 0 in training and in test; taken as they are, strangers would share a name",
        "faces are blurred in V2 and not in V1",
    ),
)


@DATASETS.register("msmt17")
@described(MSMT17)
def load_msmt17(root: str | Path, *, val_in_train: bool = False) -> ReIDData:
    """Load MSMT17 by its four lists, whose lines are a path and a person's number.

    Identities are "train_0000" … and "test_0000" …: both sides count from 0 and have nobody in common.

    Args:
        root: the folder ``MSMT17_V1`` (``train/``, ``test/``) or ``MSMT17_V2`` (``mask_train_v2/``, ``mask_test_v2/``)
            with the lists.
        val_in_train: train on the images of list_val as well: the rule of TransReID, FED and EANet; torchreid and
            fast-reid leave them out.

    Raises:
        DataError: the root is wrong by a folder, the copy is not whole, or a line of a list is wrong; it is named.
    """
    folder, layout = find_layout(root, MSMT17.title, MSMT17.layouts)
    learn, test = layout.folders["train"][0], layout.folders["query"][0]
    present = {name: files_below(folder / name) for name in (learn, test)}
    train, val, query, gallery = (
        _read(folder, name, place, present[place], "train" if place == learn else "test")
        for name, place in zip(_LISTS, (learn, learn, test, test), strict=True)
    )
    twice = {sample.name for sample in train} & {sample.name for sample in val}
    if val_in_train and twice:
        raise DataError(
            f"{len(twice)} images are in {_LISTS[0]} and in {_LISTS[1]} ('{min(twice)}'): trained on together they "
            "would count double. Copy the lists again, or give val_in_train=False."
        )
    return ReIDData(
        name=MSMT17.name,
        root=folder,
        train=(*train, *val) if val_in_train else train,
        query=query,
        gallery=gallery,
        licence=MSMT17.licence,
        citation=MSMT17.citation,
        notes=(
            f"{len(val)} images of list_val are {'in' if val_in_train else 'left out of'} training "
            f"(val_in_train={val_in_train}); toolkits differ in that",
        ),
        benchmark=MSMT17,
        variant="with list_val" if val_in_train else "without list_val",
    )


def _read(root: Path, name: str, place: str, present: frozenset[str], side: str) -> tuple[Sample, ...]:
    """Samples of one list, in its order."""
    folder = root / place
    samples: list[Sample] = []
    seen: dict[str, str] = {}
    for line_number, line in list_lines(root / name):
        where = f"line {line_number} of '{root / name}'"
        path, _, number = line.replace("\\", "/").replace("\t", " ").rpartition(" ")
        if not (number.isascii() and number.isdigit()):
            raise DataError(f"{where} is '{line}'; wanted a path and a person's number: '0000/{_EXAMPLE} 0'.")
        path = posixpath.normpath(path.strip())
        if path in seen:
            raise DataError(f"{where} names '{path}' again, after {seen[path]}. Copy the list again.")
        seen[path] = where
        match = _NAME.match(path.rpartition("/")[2])
        if match is None or not 1 <= int(match[1]) <= _CAMERAS:
            raise DataError(
                f"{where} names '{path}', whose third token is no camera from 1 to {_CAMERAS}; wanted names such as "
                f"{_EXAMPLE}. Copy the data set again."
            )
        file = listed_file(folder, path, present, where)
        samples.append(Sample(f"{place}/{path}", file, f"{side}_{int(number):04d}", int(match[1])))
    return tuple(samples)
