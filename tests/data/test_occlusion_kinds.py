"""The five kinds by name: where each comes from, what it takes, and words that settle it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from occluded_reid import ReIDData, load_dataset
from occluded_reid.data.occlusion.kinds import OCCLUSION_KINDS, open_kinds
from occluded_reid.data.occlusion.pins import PLACES
from occluded_reid.data.synthetic import SyntheticOptions, generate
from occluded_reid.errors import DataError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReIDData:
    options = SyntheticOptions(
        train_identities=1, test_identities=3, cameras=2, images_per_camera=1, distractors=0, width=32, height=96
    )
    return load_dataset("synthetic", generate(tmp_path_factory.mktemp("people") / "set", options))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate("abc"):
        pixels = np.full((20, 10, 4), 60 * number, dtype=np.uint8)
        pixels[..., 3] = 255
        pixels[0, 0, 3] = 0
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return tmp_path


def test_every_kind_has_its_place_and_stock(data: ReIDData) -> None:
    kinds = open_kinds(people=data.gallery, seed=3)
    assert (
        tuple(kind.name for kind in kinds)
        == tuple(OCCLUSION_KINDS)
        == ("bottom", "side", "top", "object", "pedestrian")
    )
    assert [kind.place for kind in kinds] == ["bottom", "side", "top", "anywhere", "standing"]
    assert {kind.place for kind in kinds} == set(PLACES)
    *objects, pedestrian = kinds
    assert {kind.stock for kind in objects} == {"generated (240), seed 3"}
    assert len({id(kind.occluders) for kind in objects}) == 1
    people = len(data.gallery)
    assert pedestrian.stock == f"pedestrians ({people}) of {people} images, whose pictures stay in the gallery"
    for sample in data.gallery:
        for seed in range(5):
            cutout = pedestrian.occluders.draw(np.random.default_rng(seed), sample.identity)
            assert cutout.kind == "pedestrian"
            assert cutout.identity not in (None, sample.identity)


def test_the_order_is_the_callers_and_twice_is_once() -> None:
    assert [kind.name for kind in open_kinds(["top", "bottom", "top"])] == ["top", "bottom"]


def test_a_folder_is_settled_by_the_content_of_its_files(folder: Path) -> None:
    def stock(**options: str) -> str:
        (kind,) = open_kinds(["side"], occluders=folder, **options)  # type: ignore[arg-type]
        return kind.stock

    whole, even, odd = stock(), stock(take="even"), stock(take="odd")
    assert whole.startswith(f"folder {folder.name} (3), positions: all, SHA-256 ")
    assert even.startswith(f"folder {folder.name} (2), positions: even")
    assert len({whole, even, odd}) == 3
    (folder / "licence.txt").write_text("not a cut-out")
    assert stock() == whole
    Image.open(folder / "a.png").rotate(180).save(folder / "b.png")
    assert stock() != whole
    assert stock(take="even") == even, "b is at an odd position"


def test_what_cannot_be_had_is_refused(data: ReIDData, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no kind of occlusion 'botom'. Did you mean 'bottom'\? There are: bottom, side"
    ):
        open_kinds(["botom"])
    with pytest.raises(DataError, match=r"no kind was asked for. There are: bottom"):
        open_kinds([])
    with pytest.raises(DataError, match="of 0 images none has one"):
        open_kinds(["pedestrian"])
    with pytest.raises(DataError, match=r"none has one\. Give masks=FOLDER"):
        open_kinds(people=[replace(sample, mask=None) for sample in data.gallery])
    with pytest.raises(DataError, match="they are the kind 'pedestrian'"):
        open_kinds(["bottom"], occluders="pedestrians", people=data.gallery)
    with pytest.raises(DataError, match="holds no cut-outs"):
        open_kinds(["bottom"], occluders=tmp_path)
