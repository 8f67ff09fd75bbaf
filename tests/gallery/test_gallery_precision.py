"""A gallery knows what its embeddings were computed in, refuses images in others, and says so where it searches."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid import Gallery, PartEmbeddings, ReIDModel, load_model
from occluded_reid.errors import DeviceError, GalleryError, GalleryMismatchError
from occluded_reid.gallery.storage.manifest import FILE
from occluded_reid.models import precision


@pytest.fixture
def imitated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any precision on any processor, imitated where it has no arithmetic for it."""
    monkeypatch.setattr(precision, "_missing", lambda *_: None)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A processor with float32 alone, from the call on."""

    def now() -> None:
        monkeypatch.setattr(precision, "_missing", lambda name, _: None if name == "float32" else "it has none")

    return now


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    draw = np.random.default_rng(0)
    files = [tmp_path / "photos" / f"{n}.jpg" for n in range(5)]
    files[0].parent.mkdir()
    for file in files:
        Image.fromarray(draw.integers(0, 256, (60, 24, 3), dtype=np.uint8)).save(file)
    return files


@pytest.fixture
def saved(tiny: Callable[..., ReIDModel], tmp_path: Path) -> Path:
    tiny(None).save(tmp_path / "model")
    return tmp_path / "model"


def described(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return content


def test_it_is_kept_and_shown(imitated: None, saved: Path, photos: list[Path], tmp_path: Path) -> None:
    for name in ("float32", "bfloat16"):
        model = load_model(saved, precision=name)  # type: ignore[arg-type]
        with Gallery.create(tmp_path / name, model=model) as gallery:
            gallery.add(photos)
            assert gallery.info().precision == name
            assert f"computed in {name}, kept as float16" in "\n".join(gallery.info().lines())
        assert described(tmp_path / name)["precision"] == name
        with Gallery.open(tmp_path / name) as gallery:  # the model is found, and computes alike
            assert gallery.search(photos[1], exclude_self=False)[0][0].distance == pytest.approx(0.0, abs=1e-4)
            assert gallery.model.precision == name  # type: ignore[attr-defined]
    assert Gallery.create(tmp_path / "rows", slots={"global": 3}).manifest.precision is None
    assert "precision" not in described(tmp_path / "rows")


def test_images_in_other_numbers_are_refused_and_searches_say_it(
    imitated: None, saved: Path, photos: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Gallery.create(tmp_path / "g", model=load_model(saved, precision="bfloat16")) as gallery:
        gallery.add(photos[:3])
    model = load_model(saved)
    with Gallery.open(tmp_path / "g", model=model) as gallery:
        with pytest.raises(GalleryMismatchError, match=r"computed in bfloat16; this model computes in float32\."):
            gallery.add(photos[3:])
        assert len(gallery) == 3
        with caplog.at_level(logging.WARNING, "occluded_reid"):
            first = gallery.search(photos[1], exclude_self=False)[0]
            gallery.search(photos[1])
        assert caplog.text.count("computed in bfloat16; this model computes in float32") == 1
        assert first[0].distance < 0.01
        model.embed_with(precision="bfloat16")
        assert gallery.add(photos[3:]).added == 2


def test_a_machine_without_that_arithmetic_searches_in_float32(
    imitated: None,
    plain: Callable[[], None],
    saved: Path,
    photos: list[Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Gallery.create(tmp_path / "g", model=load_model(saved, precision="bfloat16")) as gallery:
        gallery.add(photos)
    plain()
    with Gallery.open(tmp_path / "g") as gallery, caplog.at_level(logging.WARNING, "occluded_reid"):
        assert gallery.search(photos[1], exclude_self=False)[0][0].distance < 0.01
        assert "this model computes in float32" in caplog.text
        with pytest.raises(GalleryMismatchError):
            gallery.add(photos[:1], keys=["again"])
    with (
        Gallery.open(tmp_path / "g", model=load_model(saved, precision="bfloat16")) as gallery,
        pytest.raises(DeviceError, match="precision is 'bfloat16', and it has none"),
    ):
        gallery.add(photos[:1], keys=["again"])


def test_galleries_of_before_are_read_and_were_float32(
    imitated: None, saved: Path, photos: list[Path], tmp_path: Path
) -> None:
    with Gallery.create(tmp_path / "g", model=load_model(saved)) as gallery:
        gallery.add(photos[:2])
    content = described(tmp_path / "g")
    del content["precision"]
    (tmp_path / "g" / FILE).write_text(json.dumps(content), encoding="utf-8")
    with Gallery.open(tmp_path / "g") as gallery:
        assert gallery.info().precision is None
        assert gallery.add(photos).added == 3
    with (
        Gallery.open(tmp_path / "g", model=load_model(saved, precision="bfloat16")) as gallery,
        pytest.raises(GalleryMismatchError, match="computed in float32; this model computes in bfloat16"),
    ):
        gallery.add(photos[:1], keys=["again"])
    content["precision"] = "float8"
    (tmp_path / "g" / FILE).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(GalleryError, match="damaged: precision"):
        Gallery.open(tmp_path / "g")


def test_embeddings_alone_are_nobodys(tmp_path: Path) -> None:
    rows = PartEmbeddings(("global",), (torch.eye(3),), torch.ones(3, 1))
    with Gallery.create(tmp_path / "g", slots={"global": 3}) as gallery:
        assert gallery.add(rows, keys=["a", "b", "c"]).added == 3
