"""A gallery knows the model that it was made with, and a new one takes the model that comes with the library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from occluded_reid import Gallery, load_model
from occluded_reid.errors import CheckpointError, GalleryError, GalleryMismatchError
from occluded_reid.gallery.known_model import place_of
from occluded_reid.models import packaged as packaging


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    source = np.random.default_rng(0)
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path in paths:
        Image.fromarray(source.integers(0, 255, (48, 16, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def own(tiny: Any, tmp_path: Path) -> Path:
    """A model of one's own in a folder."""
    tiny(None).save(tmp_path / "own")
    return tmp_path / "own"


def test_three_lines_and_nothing_else(packaged: Path, pictures: list[Path], tmp_path: Path) -> None:
    Gallery.create(tmp_path / "mall").add(pictures)
    with Gallery.open(tmp_path / "mall") as mall:
        found = mall.search(str(pictures[1]), exclude_self=False)[0]
        assert (found[0].key, found[0].distance) == (pictures[1].as_posix(), 0.0)
        assert mall.manifest.model == "oreid_lite"
        assert mall.manifest.fingerprint == mall.model.fingerprint == load_model("oreid_lite").fingerprint
    with Gallery.open(tmp_path / "mall") as mall:
        assert mall.add(pictures).skipped == 3


def test_a_model_of_ones_own_is_found_where_it_was(own: Path, pictures: list[Path], tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "mall", model=load_model(own)) as mall:
        mall.add(pictures)
    with Gallery.open(tmp_path / "mall") as mall:
        assert mall.manifest.model == str(own)
        assert mall.search(pictures[:1], k=2)[0][0].rank == 1
    shutil.move(own, tmp_path / "moved")
    with Gallery.open(tmp_path / "mall") as mall:
        assert mall.search(key=pictures[0].as_posix())  # what is stored needs no model
        with pytest.raises(GalleryError, match=rf"made with sorn_lite@\w+ in '{own}', which cannot be loaded.*--model"):
            mall.search(pictures[:1])
    with Gallery.open(tmp_path / "mall", model=load_model(tmp_path / "moved")) as mall:
        assert mall.search(pictures[:1])


def test_another_model_in_its_place_is_refused(tiny: Any, own: Path, pictures: list[Path], tmp_path: Path) -> None:
    Gallery.create(tmp_path / "mall", model=load_model(own)).close()
    other = tiny(None)
    next(other.parameters()).data.add_(1)
    other.save(own)
    with Gallery.open(tmp_path / "mall") as mall, pytest.raises(GalleryMismatchError, match="this model is sorn_lite@"):
        mall.add(pictures)


def test_who_knows_no_model_says_so(tiny: Any, pictures: list[Path], tmp_path: Path) -> None:
    Gallery.create(tmp_path / "mall", model=tiny(None)).close()
    assert "model" not in json.loads((tmp_path / "mall" / "gallery.json").read_text())
    with Gallery.open(tmp_path / "mall") as mall:
        with pytest.raises(GalleryError, match=r"opened without a model.*does not know where sorn_lite@"):
            mall.search(pictures[:1])
        with pytest.raises(GalleryError, match="opened without a model"):
            _ = mall.model


def test_without_packaged_weights_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging, "WEIGHTS", tmp_path / "none")
    with pytest.raises(CheckpointError, match="no weights of it"):
        Gallery.create(tmp_path / "mall")
    assert not (tmp_path / "mall").exists()


def test_what_others_share_learns_no_path(packaged: Path, own: Path) -> None:
    theirs, mine = load_model("oreid_lite"), load_model(own)
    assert (place_of(theirs, here=False), place_of(theirs, here=True)) == ("oreid_lite", "oreid_lite")
    assert (place_of(mine, here=False), place_of(mine, here=True)) == (None, str(own))
    assert place_of(None, here=True) is None
