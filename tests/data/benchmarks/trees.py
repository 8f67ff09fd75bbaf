"""Small trees on disk in the layouts of published data sets, with pictures of 8×4 pixels that all differ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from occluded_reid.data.images import IMAGE_SUFFIXES

WIDTH, HEIGHT = 4, 8


def make_tree(root: Path, files: Mapping[str, str | bytes | None] | Iterable[str]) -> Path:
    """Write files below a root and return it; a name that ends in "/" becomes an empty folder.

    Args:
        root: made where it does not exist.
        files: relative path -> text, bytes, or None for a picture (for names that end as images do; "" for others).
            Pictures of the same file name are the same bytes, whatever their folder, as where a query also stands
            in the gallery. A text that starts with "picture " is a picture of the rest: two names, the same bytes.
    """
    contents = files if isinstance(files, Mapping) else dict.fromkeys(files)
    root.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None and path.suffix.lower() in IMAGE_SUFFIXES:
            picture(path.name).save(path)
        elif isinstance(content, str) and content.startswith("picture "):
            picture(content.removeprefix("picture ")).save(path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content or "", encoding="utf-8")
    return root


def picture(key: str) -> Image.Image:
    """A picture that is another for another key, and stays another as a JPEG."""
    shades = hashlib.sha256(key.encode()).digest()
    image = Image.new("RGB", (WIDTH, HEIGHT))
    # Squares of two pixels: what a JPEG keeps apart.
    for number in range(8):
        across, down = number % 2 * 2, number // 2 * 2
        image.paste(
            (shades[3 * number], shades[3 * number + 1], shades[3 * number + 2]), (across, down, across + 2, down + 2)
        )
    return image
