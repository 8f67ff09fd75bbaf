"""Masks from a folder: read as they are, refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from occluded_reid.errors import MaskError, UnknownNameError
from occluded_reid.parsing.masks import MaskFolder
from occluded_reid.registry import PARSERS

PICTURE = Image.new("RGB", (3, 4))


def put(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def test_masks_mirror_the_tree(tmp_path):
    first = np.arange(12, dtype=np.uint8).reshape(4, 3)
    put(tmp_path / "masks" / "query" / "a.b.png", first)
    put(tmp_path / "masks" / "c.png", first + 8)
    teacher = PARSERS.create("masks", tmp_path / "masks", label_set="lip20")
    assert teacher.label_set == "lip20"
    found = teacher.parse([PICTURE, PICTURE], ["query/a.b.jpg", "c.jpeg"])
    np.testing.assert_array_equal(found[0], first)
    np.testing.assert_array_equal(found[1], first + 8)
    assert teacher.describe() == {"label_set": "lip20", "folder": str((tmp_path / "masks").resolve())}


def test_what_does_not_fit_is_named(tmp_path):
    put(tmp_path / "masks" / "small.png", np.zeros((2, 3), np.uint8))
    put(tmp_path / "masks" / "strange.png", np.full((4, 3), 8, np.uint8))
    put(tmp_path / "outside.png", np.zeros((4, 3), np.uint8))
    teacher = MaskFolder(tmp_path / "masks")
    with pytest.raises(MaskError, match=r"'gone\.jpg' has no mask: '.*gone\.png' does not exist"):
        teacher.parse([PICTURE], ["gone.jpg"])
    with pytest.raises(MaskError, match=r"small\.png' is 3×2, its image 3×4"):
        teacher.parse([PICTURE], ["small.jpg"])
    with pytest.raises(MaskError, match=r"strange\.png' holds class 8; wanted 0 … 7"):
        teacher.parse([PICTURE], ["strange.jpg"])
    with pytest.raises(MaskError, match="leads out of"):
        teacher.parse([PICTURE], ["../outside.jpg"])
    with pytest.raises(MaskError, match="does not exist"):
        MaskFolder(tmp_path / "nowhere")
    with pytest.raises(UnknownNameError, match="sorn8"):
        MaskFolder(tmp_path / "masks", label_set="sorn9")
