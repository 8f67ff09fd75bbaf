"""A key that a gallery does not hold: which one was meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from occluded_reid import Gallery, PartEmbeddings
from occluded_reid.errors import GalleryError
from occluded_reid.gallery.near_keys import near_keys

KEYS = ["tuesday/a.jpg", "tuesday/b.jpg", "monday/hall/a.jpg", "c.jpg", "ca.jpg", "x/a%_.jpg", "O'Brien.png", "last/"]


@pytest.fixture
def shop(tmp_path: Path) -> Gallery:
    gallery = Gallery.create(tmp_path / "shop", slots={"global": 8})
    gallery.add(PartEmbeddings(("global",), (torch.eye(8),), torch.ones(8, 1)), keys=KEYS)
    return gallery


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("a.jpg", " Did you mean 'tuesday/a.jpg' or 'monday/hall/a.jpg'?"),
        ("/home/me/photos/monday/hall/a.jpg", " Did you mean 'monday/hall/a.jpg' or 'tuesday/a.jpg'?"),
        ("photos\\tuesday\\b.jpg", " Did you mean 'tuesday/b.jpg'?"),
        ("photos/c.jpg", " Did you mean 'c.jpg'?"),
        ("a%_.jpg", " Did you mean 'x/a%_.jpg'?"),
        ("here/O'Brien.png", ' Did you mean "O\'Brien.png"?'),
        ("tuesday/d.jpg", " Did you mean 'tuesday/b.jpg'?"),
        ("qqqqqqqqqqqq", ""),
        ("", ""),
        ("/", ""),
    ],
)
def test_keys_of_the_same_file_come_first_and_misspelt_ones_after(shop: Gallery, key: str, hint: str) -> None:
    assert near_keys(shop._read(), key) == hint


@pytest.mark.parametrize(
    "ask",
    [
        lambda shop: shop.get("b.jpg"),
        lambda shop: shop.search(key="b.jpg"),
        lambda shop: shop.search(key=["c.jpg", "b.jpg"]),
        lambda shop: shop.relabel("b.jpg", identity="x"),
        lambda shop: shop.remove(["b.jpg"]),
        lambda shop: shop.erase("b.jpg"),
    ],
)
def test_every_door_that_takes_keys_says_so(shop: Gallery, ask: Callable[[Gallery], Any]) -> None:
    with pytest.raises(GalleryError, match=r"'b\.jpg'\. Did you mean 'tuesday/b\.jpg'\? \w"):
        ask(shop)
    assert len(shop) == len(KEYS)


def test_of_very_many_a_few_are_named(tmp_path: Path) -> None:
    gallery = Gallery.create(tmp_path / "days", slots={"global": 8})
    rows = PartEmbeddings(("global",), (torch.eye(8),), torch.ones(8, 1))
    gallery.add(rows, keys=[f"day{number}/a.jpg" for number in range(8)])
    with pytest.raises(GalleryError, match=r"Did you mean 'day0/a.jpg' or 'day1/a.jpg' or 'day2/a.jpg', …\?"):
        gallery.get("a.jpg")
