"""Finding and opening images and part masks: with a size limit, and with errors that name the file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
from PIL import Image

from occluded_reid.data.left_out import LeftOut
from occluded_reid.errors import DataError, MaskError
from occluded_reid.pixels import MAX_PIXELS, decode, open_file, to_rgb

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "RUBBISH",
    "image_files",
    "merge_classes",
    "open_image",
    "open_mask",
    "refuse_linked_folders",
]

_SUFFIXES = (
    "apng avif bmp bw dib gif icb jfif jp2 jpc jpe jpeg jpf jpg jpx j2c j2k mpo pbm pcx pfm pgm png pnm ppm qoi rgb "
    "rgba sgi tga tif tiff vda vst webp"
)
IMAGE_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
"""What image files end in, in any case: the pictures that Pillow reads by itself. Documents (.eps, .pdf) are none."""

RUBBISH = frozenset({"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"})
"""Folders that archives of a Mac, servers and systems leave beside images: copies and shadows of them, nobody's."""

_LITTER = frozenset({"thumbs.db", "desktop.ini", "icon\r"})  # files of the same kind, which nobody takes for images
_MERGED = {
    8: (0, 1, 2, 3, 4, 5, 6, 7),
    5: (0, 1, 2, 3, 3, 4, 4, 4),  # background, head, torso, arm, leg (with foot)
    2: (0, 1, 1, 1, 1, 1, 1, 1),  # background, foreground
}


def image_files(folder: str | Path, *, recursive: bool = False, left_out: LeftOut | None = None) -> list[Path]:
    """Return the image files of a folder by their suffix, hidden ones left out, sorted by path.

    Args:
        folder: where to look.
        recursive: look into sub-folders too (not through links to folders: see `refuse_linked_folders`).
        left_out: counts what is passed over: dangling links, folders that may not be read, hidden images, files that
            are no images by their suffix, and sub-folders unless `recursive`.

    Raises:
        DataError: the folder does not exist or cannot be read.
    """
    folder = Path(folder)
    passed = left_out or LeftOut()
    found: list[str] = []
    waiting = [""]
    while waiting:
        above = waiting.pop()
        try:
            with os.scandir(folder / above) as entries:
                here = sorted(entries, key=lambda entry: entry.name)
            if not os.access(folder / above, os.X_OK):  # its names may be read, and nothing else
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except (OSError, ValueError) as cause:
            reason = getattr(cause, "strerror", None) or cause
            if not above:
                raise DataError(f"the folder '{folder}' cannot be read: {reason}. Look at the path.") from cause
            passed.add(above, f"cannot be read ({reason})", "folders")
            continue
        for entry in here:
            below = f"{above}/{entry.name}" if above else entry.name
            if _is_folder(entry):
                if why := _no_folder_of_images(entry.name, recursive):
                    passed.add(below, why, "folders")
                elif not entry.is_symlink():
                    waiting.append(below)
                else:
                    passed.add(below, "links to folders, which are not followed", "links")
            elif why := _no_image(entry):
                passed.add(below, why)
            elif _counts(entry.name):
                found.append(below)
    return [folder / below for below in sorted(found)]


def _no_folder_of_images(name: str, recursive: bool) -> str:
    """Why a folder is not looked into, or nothing."""
    if name.startswith("."):
        return "hidden"
    if name in RUBBISH:
        return "which other programs have made"
    return "" if recursive else "not looked into"


def _counts(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _no_image(entry: os.DirEntry[str]) -> str:
    """Why a file is passed over, or nothing: nobody takes litter for images, so it goes without saying."""
    if Path(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
        litter = entry.name.startswith(".") or entry.name.lower() in _LITTER
        return "" if litter else "no images by their suffix"
    if entry.name.startswith("."):
        return "hidden"
    try:
        usual = entry.is_file()
    except OSError:
        usual = False
    if usual:
        return ""
    return "links that lead nowhere" if entry.is_symlink() else "no regular files"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to where nobody may look: it is no folder for us


def refuse_linked_folders(folder: str | Path) -> None:
    """Refuse links to folders below a folder: `image_files` does not follow them, and their images would be missing.

    Raises:
        DataError: there is one; the first is named.
    """
    folder = Path(folder)
    linked: list[Path] = []
    for place, below, _ in os.walk(folder):
        below[:] = [name for name in below if not _no_folder_of_images(name, recursive=True)]
        linked += [Path(place, name) for name in below if Path(place, name).is_symlink()]
    if linked:
        raise DataError(
            f"'{min(linked)}' is a link to a folder, and links below '{folder}' are not followed: its images would be "
            f"missing ({len(linked)} such links). Copy the images there, or link '{folder}' as a whole."
        )


def open_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open any image that Pillow reads as 8-bit RGB, upright as its EXIF orientation says; `to_rgb` says how.

    Args:
        path: the file.
        max_pixels: images with more pixels are refused before decoding. Pillow's own limit holds as well.

    Raises:
        ImageError: the file is missing, empty, truncated, too large, or no image; it is named.
    """
    return to_rgb(Path(path), max_pixels=max_pixels)


def open_mask(path: str | Path, size: tuple[int, int] | None = None, classes: int = 8) -> np.ndarray:
    """Open a part mask: a single-channel PNG with classes 0 … classes - 1; of a palette PNG the indices are taken.

    Args:
        path: the file.
        size: (width, height) of its image; None does not compare.
        classes: number of classes the file may hold.

    Returns:
        (H, W) uint8.

    Raises:
        MaskError: the file is missing, damaged, of another size, not single-channel, or holds a class out of range.
    """
    if not Path(path).exists():
        raise MaskError(
            f"mask '{path}' does not exist. Make one single-channel PNG for each image, of its size, with a human "
            "parser (0 background, 1 head, 2 torso, 3 upper arm, 4 lower arm, 5 upper leg, 6 lower leg, 7 foot): "
            "occluded-reid parse IMAGES --teacher onnx --out MASKS does that; or train without masks: data.masks=0."
        )
    with open_file(path, MAX_PIXELS, MaskError, f"'{path}'") as image:
        if image.format != "PNG" or image.mode not in ("L", "P", "1"):
            raise MaskError(
                f"mask '{path}' is {image.format} of mode {image.mode}; wanted a single-channel 8-bit PNG that holds "
                "the class of each pixel (JPEG would blur classes into others). Save it as such."
            )
        if size is not None and image.size != tuple(size):
            raise MaskError(
                f"mask '{path}' is {image.size[0]}×{image.size[1]}, its image {size[0]}×{size[1]}. "
                "Make the mask from the same image, at the same size."
            )
        decode(image, f"'{path}'", MaskError)
        mask = np.array(image, dtype=np.uint8)
    highest = int(mask.max(initial=0))
    if highest >= classes:
        raise MaskError(
            f"mask '{path}' holds class {highest}; wanted 0 … {classes - 1}. Map the classes of the parser that made "
            "it to these."
        )
    return mask


def merge_classes(mask: np.ndarray, classes: int) -> np.ndarray:
    """Merge the 8 part classes to 5 (background, head, torso, arm, leg) or 2 (background, foreground); SORN §IV-C.

    Args:
        mask: whole numbers 0 … 7 of any shape.
        classes: 8, 5 or 2.

    Returns:
        The same shape, uint8.

    Raises:
        MaskError: `classes` is not 8, 5 or 2, or the mask holds something else than 0 … 7.

    Example:
        >>> merge_classes(np.arange(8, dtype=np.uint8), 5).tolist()
        [0, 1, 2, 3, 3, 4, 4, 4]
    """
    if classes not in _MERGED:
        raise MaskError(f"the 8 part classes can be merged to 8, 5 or 2; {classes} was asked for.")
    if mask.size and not (int(mask.min()) >= 0 and int(mask.max()) <= 7):
        raise MaskError(f"a mask to be merged must hold classes 0 … 7; this one holds {mask.min()} … {mask.max()}.")
    table: np.ndarray = np.asarray(_MERGED[classes], dtype=np.uint8)
    return np.asarray(table[mask])
