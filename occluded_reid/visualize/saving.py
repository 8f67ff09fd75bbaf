"""Pictures on disk: in the format that the file's suffix names, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from occluded_reid.errors import EvaluationError, OccludedReIDError
from occluded_reid.files import atomic_write

__all__ = ["PICTURE_FORMATS", "require_picture_path", "save_picture"]

PICTURE_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".pdf": "PDF",
}
"""Suffix, in any case -> what is written."""

_LONGEST = {"JPEG": 65_500, "WEBP": 16_383}  # pixels of a side that a format can hold
_OPTIONS: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 92, "subsampling": 0},
    "WEBP": {"lossless": True},
    "TIFF": {"compression": "tiff_lzw"},
    "PDF": {"quality": 92},
}


def require_picture_path(path: str | Path, error: type[OccludedReIDError] = EvaluationError) -> str:
    """Return the format that a file's suffix asks for; call it before a picture is computed.

    Raises:
        error: it asks for none that is written.

    Example:
        >>> require_picture_path("hits.JPG")
        'JPEG'
    """
    suffix = Path(path).suffix.lower()
    if suffix not in PICTURE_FORMATS:
        named = f"ends in '{suffix}'" if suffix else "has no suffix"
        raise error(
            f"the picture '{path}' {named}, and its suffix decides how it is written. Choose one of "
            f"{', '.join(PICTURE_FORMATS)}: '{Path(path).with_suffix('.png') if Path(path).name else 'picture.png'}'."
        )
    return PICTURE_FORMATS[suffix]


def save_picture(picture: Image.Image, path: str | Path, error: type[OccludedReIDError] = EvaluationError) -> Path:
    """Write an RGB picture in the format of the file's suffix, whole or not at all, and return its path.

    Raises:
        error: the suffix names no format (see `PICTURE_FORMATS`), the format holds no picture of this size, or the file
            cannot be written.
    """
    kind = require_picture_path(path, error)
    if max(picture.size) > _LONGEST.get(kind, max(picture.size)):
        raise error(
            f"the picture '{path}' has {picture.width}×{picture.height} pixels, and {kind} holds {_LONGEST[kind]} at "
            f"most on a side. Write it as PNG: '{Path(path).with_suffix('.png')}'."
        )
    with atomic_write(path, error) as temporary:
        picture.save(temporary, kind, **_OPTIONS.get(kind, {}))
    return Path(path)
