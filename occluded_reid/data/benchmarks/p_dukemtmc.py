"""P-DukeMTMC-reID: occluded queries against whole people, picked from DukeMTMC-reID; a folder for each person."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from occluded_reid.data.benchmark import Benchmark, Counts, Layout, described
from occluded_reid.data.benchmarks.dukemtmc import LICENCE, WITHDRAWN
from occluded_reid.data.benchmarks.market_style import with_notes
from occluded_reid.data.dataset import SPLITS, ReIDData, Sample, Split, mirrored
from occluded_reid.data.images import image_files, refuse_linked_folders
from occluded_reid.data.layouts import archives_beside, find_layout
from occluded_reid.data.left_out import LeftOut
from occluded_reid.errors import DataError
from occluded_reid.registry import DATASETS

__all__ = ["P_DUKEMTMC", "load_p_dukemtmc"]

_KINDS = ("occluded_body_images", "whole_body_images")
"""In the order of their camera numbers: nothing else says which camera saw an image."""
_EXAMPLE = "0023_c1_f0052324.jpg"
_NAME = re.compile(r"(\d+)_")

P_DUKEMTMC = Benchmark(
    name="p_dukemtmc",
    title="P-DukeMTMC-reID",
    layouts=(
        Layout(
            "as downloaded",
            {
                "train": tuple(f"train/{kind}" for kind in _KINDS),
                "query": (f"test/{_KINDS[0]}",),
                "gallery": (f"test/{_KINDS[1]}",),
            },
            example=f"0023/{_EXAMPLE}",
            optional=("train",),
        ),
    ),
    identity_rule="number before the first underscore of the file name; the sub-folder is named after it, too",
    camera_rule="0 for occluded images, 1 for whole ones, so that no gallery image is dropped",
    cameras=2,
    counts={"": {"train": Counts(12_927, 665), "query": Counts(2_163, 634), "gallery": Counts(9_053, 634)}},
    trained_on=("p_dukemtmc", "market1501"),
    pattern=_NAME.pattern,
    metrics=("Rank-1", "Rank-5", "Rank-10", "mAP"),
    licence=LICENCE,
    withdrawn=WITHDRAWN,
    citation="Zhuo et al., Occluded Person Re-identification, ICME 2018",
    traps=(
        "the cameras of DukeMTMC-reID are in the names and not part of the protocol: dropping images by them gives "
        "other numbers",
        "training uses occluded and whole images",
        "papers report it trained on its own images, or on Market-1501 (transfer): say which",
    ),
)


@DATASETS.register("p_dukemtmc", aliases=("p_dukemtmc_reid",))
@described(P_DUKEMTMC)
def load_p_dukemtmc(root: str | Path) -> ReIDData:
    """Load ``{train,test}/{occluded_body_images,whole_body_images}/<identity>/…``.

    Queries are the occluded images of ``test/`` under camera 0, the gallery are its whole ones under camera 1; training
    takes both kinds of ``train/``, which may be missing as a whole: the set is also used to test what other data have
    trained. Part masks in ``masks/`` and occluder masks in ``occlusion/`` that mirror the tree are attached.

    Args:
        root: the folder that holds ``train/`` and ``test/``.

    Raises:
        DataError: the folder is one too high or too low, lacks a folder, or holds no image with such a name.
    """
    root, layout = find_layout(root, P_DUKEMTMC.title, P_DUKEMTMC.layouts)
    notes: list[str] = []
    splits: dict[Split, tuple[Sample, ...]] = {}
    for split in SPLITS:
        absent = [folder for folder in layout.folders[split] if not (root / folder).is_dir()]
        if len(absent) == len(layout.folders[split]):
            notes.append("there is no train/: queries and a gallery only")
            splits[split] = ()
        elif absent:
            raise DataError(
                f"'{root}' has no {absent[0]}/, although training takes occluded and whole images."
                f"{archives_beside(root)} Copy or extract the data set again, whole."
            )
        else:
            splits[split] = tuple(_read(root, layout.folders[split], notes))
    return ReIDData(
        name=P_DUKEMTMC.name,
        root=root,
        train=splits["train"],
        query=splits["query"],
        gallery=splits["gallery"],
        licence=P_DUKEMTMC.licence,
        citation=P_DUKEMTMC.citation,
        notes=with_notes(P_DUKEMTMC, notes),
        benchmark=P_DUKEMTMC,
    )


def _read(root: Path, folders: Sequence[str], notes: list[str]) -> list[Sample]:
    """Samples of some folders; what is left out or looks wrong is told in the notes."""
    trees = [(root / kind) if (root / kind).is_dir() else None for kind in ("masks", "occlusion")]
    samples: list[Sample] = []
    for folder in folders:
        left_out = LeftOut()
        files = image_files(root / folder, recursive=True, left_out=left_out)
        refuse_linked_folders(root / folder)
        named = [(path, match[1]) for path in files if (match := _NAME.match(path.name))]
        if not named:
            raise DataError(
                f"'{root / folder}' holds {len(files)} images, none of them named like {_EXAMPLE} (identity, then an "
                "underscore). Copy or extract the data set again, or use the data set 'folder'."
            )
        for path in files:
            if not _NAME.match(path.name):
                left_out.add(path.name, f"not named like {_EXAMPLE}", "images")
        notes += left_out.notes(f"{folder}: ")
        if misplaced := [path for path, identity in named if _of_another(path, identity, root / folder)]:
            shown = misplaced[0].relative_to(root).as_posix()
            notes.append(f"{folder}: {len(misplaced)} images are in the folder of another identity ({shown})")
        for path, identity in named:
            name = path.relative_to(root).as_posix()
            mask, occluder = (mirrored(tree, name) if tree else None for tree in trees)
            camera = _KINDS.index(folder.split("/")[-1])
            samples.append(Sample(name, path, identity, camera, mask, occluder))
    return samples


def _of_another(path: Path, identity: str, above: Path) -> bool:
    """Whether the sub-folder is a number, and another one than the name begins with."""
    folder = path.relative_to(above).parts[0]
    return folder.isdecimal() and int(folder) != int(identity)
