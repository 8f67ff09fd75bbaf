"""CUHK03: 1,467 people under two cameras each, with boxes of a detector or drawn by hand, and two protocols."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from occluded_reid.data.benchmark import Benchmark, Counts, Layout, described
from occluded_reid.data.benchmarks.cuhk03_mat import KINDS, TESTSETS, config_file, image_folder, packed, read_config
from occluded_reid.data.benchmarks.market_style import FOLDERS, PATTERN, read_market_images
from occluded_reid.data.benchmarks.reading import files_below, listed_file, refuse_shared
from occluded_reid.data.dataset import SPLITS, ReIDData, Sample, Split
from occluded_reid.data.images import image_files
from occluded_reid.data.layouts import find_layout
from occluded_reid.data.left_out import LeftOut
from occluded_reid.errors import DataError
from occluded_reid.files import read_json
from occluded_reid.registry import DATASETS

__all__ = ["CUHK03", "CUHK03_CLASSIC", "load_cuhk03"]

_EXTRACTED = re.compile(r"(\d+)_(\d+)_([12])_\d+\.")
_EXTRACTED_EXAMPLE = "1_001_1_01.png"
_MARKET_EXAMPLE = "0003_c1_21.png"


def _market(kind: str) -> Layout:
    folders = {split: (f"{kind}/{folder}",) for split, folder in FOLDERS.items()}
    return Layout(f"cuhk03-np, {kind}", folders, example=_MARKET_EXAMPLE)


def _extracted(kind: str, name: str, file: str) -> Layout:
    folders: dict[Split, tuple[str, ...]] = {split: (image_folder(kind),) for split in SPLITS}
    return Layout(f"extracted images and {name}, {kind}", folders, (file,), _EXTRACTED_EXAMPLE)


_NEW = {
    kind: (
        _market(kind),
        _extracted(kind, "the split of the new protocol", config_file(kind)),
        _extracted(kind, "torchreid's copy of it", f"splits_new_{kind}.json"),
    )
    for kind in KINDS
}
_CLASSIC = {
    kind: (
        _extracted(kind, "the classic test sets", TESTSETS),
        _extracted(kind, "torchreid's copy of them", f"splits_classic_{kind}.json"),
    )
    for kind in KINDS
}

CUHK03 = Benchmark(
    name="cuhk03",
    title="CUHK03",
    layouts=tuple(layout for kind in KINDS for layout in _NEW[kind]),
    identity_rule="the first number of the name (cuhk03-np), or camera pair and number in it (extracted images)",
    camera_rule="the view, first or second, of the camera pair: cN or the third number of the name",
    cameras=2,
    first_camera=1,
    counts={
        "detected": {"train": Counts(7_365, 767), "query": Counts(1_400, 700), "gallery": Counts(5_332, 700)},
        "labeled": {"train": Counts(7_368, 767), "query": Counts(1_400, 700), "gallery": Counts(5_328, 700)},
    },
    trained_on=("cuhk03",),
    pattern=f"{PATTERN} or {_EXTRACTED.pattern}",
    metrics=("Rank-1", "mAP"),
    licence="for research; ask its authors",
    citation=(
        "Li, Zhao, Xiao, Wang: DeepReID: Deep Filter Pairing Neural Network for Person Re-identification, CVPR 2014; "
        "its new protocol Zhong, Zheng, Cao, Li: Re-ranking Person Re-identification with k-reciprocal Encoding, "
        "CVPR 2017"
    ),
    traps=(
        "detected and labeled boxes are two sets of numbers; torchreid takes detected ones unless told otherwise, "
        "fast-reid labeled ones",
        "the new protocol (767 people to train on, 700 to test) and the classic one (1,367 and 100, 20 splits, one "
        "gallery image of each person) do not compare",
        "the images are packed in cuhk-03.mat: extract_cuhk03 writes them as files, once",
        "the splits of the new protocol (cuhk03_new_protocol_config_*.mat) are not in the download of CUHK03: they "
        "come apart, with the re-ranking code of that protocol's authors",
        "some people were seen under one camera only: in the classic protocol their queries have no match",
    ),
)

CUHK03_CLASSIC = replace(
    CUHK03,
    title="CUHK03 (classic protocol)",
    layouts=tuple(layout for kind in KINDS for layout in _CLASSIC[kind]),
    counts={},  # of images they differ between the 20 splits; of people they are 1,367 and 100
    ranks=(1, 5, 10, 20),
    metrics=("Rank-1", "Rank-5", "Rank-10", "Rank-20"),
    shots="single",
)


@DATASETS.register("cuhk03")
@described(CUHK03)
def load_cuhk03(
    root: str | Path,
    *,
    images: Literal["detected", "labeled"] = "detected",
    protocol: Literal["new", "classic"] = "new",
    split: int = 0,
) -> ReIDData:
    """Load CUHK03: ``detected/`` or ``labeled/`` in the tree of Market-1501, or images extracted from ``cuhk-03.mat``.

    Args:
        root: the folder that holds ``detected/`` and ``labeled/``, or what `extract_cuhk03` has written.
        images: "detected" boxes, what a detector gives and what is harder, or "labeled" ones, drawn by hand.
        protocol: "new" (767 people to train on, 700 to test, all gallery images), or "classic": 100 people to test,
            every image of whom is a query and in the gallery, to be evaluated with one random gallery image of each.
        split: which of the 20 splits of the classic protocol, from 0.

    Raises:
        DataError: the root is wrong by a folder, the images are still packed, the copy is not whole, a split names
            something that is not there, or a person is on both sides.
    """
    known = (_NEW if protocol == "new" else _CLASSIC)[images]
    if protocol == "new" and split:
        raise DataError(f"the new protocol of CUHK03 has one split; split={split} is for protocol='classic'.")
    try:
        folder, layout = find_layout(root, CUHK03.title, known)
    except DataError as cause:
        given = Path(root)
        where = given.resolve().parent if given.resolve().name == "cuhk03_release" else given
        # With images but without a split, extracting again would not help; the classic test sets it would write.
        unsplit = [name for layout in known for name in layout.files if (given / image_folder(images)).is_dir()]
        # Where images are packed still, extracting writes the classic test sets; nothing writes the new protocol's.
        needed = protocol == "new" or packed(where) is None
        if needed and unsplit and not any((given / name).exists() for name in unsplit):
            how = (
                "They are not in the download of CUHK03: they come with the re-ranking code of that protocol's "
                "authors. Put one of them there, or load protocol='classic'"
                if protocol == "new"
                else "occluded_reid.extract_cuhk03 writes the former; or load protocol='new'"
            )
            raise DataError(
                f"'{root}' has the images ({image_folder(images)}/) and no split of the {protocol} protocol: neither "
                f"{' nor '.join(unsplit)}. {how}; numbers of the two protocols do not compare."
            ) from cause
        if packed(where) is None or (protocol == "new" and (given / image_folder(images)).is_dir()):
            raise
        raise DataError(
            f"the images of CUHK03 are still packed in '{packed(where)}', or not all of them are extracted ({cause}) "
            f"Extract them once: occluded_reid.data.extract_cuhk03('{where}'), then load that folder."
        ) from cause
    notes: list[str] = []
    if layout is known[0] and protocol == "new":
        train, query, gallery = (_market_images(folder, layout.folders[s][0], notes) for s in SPLITS)
    else:
        place = layout.folders["train"][0]
        source = folder / layout.files[0]
        if protocol == "new":
            names = read_config(source) if source.suffix == ".mat" else _new_json(source)
        else:
            names = _classic_names(folder, place, source, split, notes)
        train, query, gallery = (_extracted_images(folder, place, names[s], f"{s} of '{source}'") for s in SPLITS)
    refuse_shared(CUHK03.title, train, (*query, *gallery))
    benchmark = CUHK03 if protocol == "new" else CUHK03_CLASSIC
    if protocol == "new":
        notes.append(f"boxes are {images}; toolkits differ in that, and numbers do not compare")
    else:
        trained, tested = (len({sample.identity for sample in part}) for part in (train, query))
        notes.append(
            f"boxes are {images}; classic split {split}: {trained:,} people to train on and {tested:,} to test (a "
            "whole copy has 1,367 and 100); papers report the mean of 20 splits"
        )
    return ReIDData(
        name=CUHK03.name,
        root=folder,
        train=train,
        query=query,
        gallery=gallery,
        licence=CUHK03.licence,
        citation=CUHK03.citation,
        notes=tuple(notes),
        benchmark=benchmark,
        variant=images if protocol == "new" else f"{images}, classic split {split}",
    )


def _market_images(root: Path, place: str, notes: list[str]) -> tuple[Sample, ...]:
    left_out = LeftOut()
    files = image_files(root / place, left_out=left_out)
    samples, said = read_market_images(root, files, _MARKET_EXAMPLE)
    if not samples:
        raise DataError(
            f"'{root / place}' holds {len(files)} images, none of them named like {_MARKET_EXAMPLE}. "
            "Copy the data set again."
        )
    notes += [*(f"{place}: {note}" for note in said), *left_out.notes(f"{place}: ")]
    return tuple(samples)


def _extracted_images(root: Path, place: str, names: Sequence[str], source: str) -> tuple[Sample, ...]:
    """Samples of a split, in its order."""
    present = files_below(root / place)
    samples: dict[str, Sample] = {}
    for number, name in enumerate(names, start=1):
        where = f"entry {number} of {source}"
        if name in samples:
            raise DataError(f"{where} names '{name}' again. Copy that file again.")
        path = listed_file(root / place, name, present, where)
        person, view = _person(name, where)
        samples[name] = Sample(f"{place}/{name}", path, person, view)
    if not samples:
        raise DataError(f"{source} is empty; wanted names of images. Copy that file again.")
    return tuple(samples.values())


def _person(name: str, where: str) -> tuple[str, int]:
    match = _EXTRACTED.match(name)
    if match is None:
        raise DataError(
            f"{where} names '{name}'; wanted names such as {_EXTRACTED_EXAMPLE} (camera pair, person, view 1 or 2, "
            "image). Copy that file again."
        )
    return f"{int(match[1])}_{int(match[2]):03d}", int(match[3])


def _classic_names(root: Path, place: str, source: Path, split: int, notes: list[str]) -> dict[Split, list[str]]:
    """Names of all images, by whether the person is in the test set; test images are queries and gallery at once."""
    content = read_json(source, DataError)
    ours = source.name == TESTSETS
    try:
        testsets = content["testsets"] if ours else content
        splits = len(testsets)
    except (KeyError, TypeError) as cause:
        raise _not_splits(source, cause) from cause
    if not 0 <= split < splits:
        raise DataError(f"split is {split}; '{source}' has {splits} splits, counted from 0. Give another split.")
    try:
        if ours:
            test = {f"{int(pair)}_{int(number):03d}" for pair, number in testsets[split]}
        else:
            test = {_person(name, f"split {split} of '{source}'")[0] for name in _base_names(testsets[split]["query"])}
    except (KeyError, TypeError, ValueError, AttributeError) as cause:
        raise _not_splits(source, cause) from cause
    names: dict[Split, list[str]] = {"train": [], "query": [], "gallery": []}
    found: set[str] = set()
    left_out = LeftOut()
    for path in image_files(root / place, left_out=left_out):
        if _EXTRACTED.match(path.name) is None:
            left_out.add(path.name, f"not named like {_EXTRACTED_EXAMPLE}", "images")
            continue
        person, _ = _person(path.name, place)
        found.add(person)
        for part in ("query", "gallery") if person in test else ("train",):
            names[part].append(path.name)
    if missing := sorted(test - found):
        raise DataError(
            f"split {split} of '{source}' tests {len(test)} people, and '{root / place}' has no image of "
            f"{len(missing)} of them ({missing[0]}). Extract the data set again, whole."
        )
    notes += left_out.notes(f"{place}: ")
    return names


def _new_json(source: Path) -> dict[Split, list[str]]:
    content = read_json(source, DataError)
    try:
        return {part: _base_names(content[0][part]) for part in SPLITS}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as cause:
        raise _not_splits(source, cause) from cause


def _base_names(entries: Any) -> list[str]:
    """File names of entries [path, person, camera]; the paths are those of the machine that wrote them."""
    return [entry[0].replace("\\", "/").rpartition("/")[2] for entry in entries]


def _not_splits(source: Path, cause: Exception) -> DataError:
    return DataError(f"'{source}' holds no splits of CUHK03 ({type(cause).__name__}: {cause}). Write or copy it again.")
