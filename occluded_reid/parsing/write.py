"""A folder of images in, a folder of part masks out: resumable, and never half-written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from occluded_reid.arguments import checked
from occluded_reid.data.dataset import require_folder
from occluded_reid.data.images import image_files, open_image, open_mask
from occluded_reid.data.left_out import LeftOut
from occluded_reid.errors import DataError, ImageError, MaskError
from occluded_reid.files import absolute, atomic_write, remove_leftovers, write_json
from occluded_reid.options import did_you_mean
from occluded_reid.parsing.base import Teacher
from occluded_reid.parsing.label_maps import MapOptions, label_table, map_labels, mapping_notes
from occluded_reid.parsing.label_sets import LabelSet, label_set_named
from occluded_reid.parsing.masks import MaskFolder
from occluded_reid.parsing.report import ParseReport
from occluded_reid.parsing.sidecar import SIDECAR, check_sidecar, describe_masks

__all__ = ["CONTACT_SHEET", "parse_folder"]

CONTACT_SHEET = "contact_sheet.png"
"""Name of the picture that `occluded-reid parse` leaves beside the masks; no mask may have it."""

_CHUNK_IMAGES = 32
_CHUNK_PIXELS = 16_000_000


@checked(DataError)
def parse_folder(
    images: str | Path,
    teacher: Teacher,
    output: str | Path,
    *,
    to: str = "sorn8",
    limit: int | None = None,
    overwrite: bool = False,
    clothes: MapOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ParseReport:
    """Give every image of a folder a part mask, in a tree that mirrors the images'.

    Masks that are there already and have the size of their image are kept, so a run that was stopped goes on where it
    was. What made them stands in ``parsing.json``; another teacher, or other settings, are refused.

    Args:
        images: folder, searched through its sub-folders.
        teacher: gives the classes.
        output: folder of the masks, outside of `images`.
        to: label set of the masks: "sorn8", "sorn5", "sorn2", "sgam5", or "own" for the teacher's.
        limit: only the first so many images.
        overwrite: make masks again that are there, whatever made them.
        clothes: where bags, socks and scarves go, see `MapOptions`.
        progress: called with (images done, images).

    Returns:
        Counts, shares and names.

    Raises:
        DataError: `images` does not exist or holds no image, two images would share a mask, or `output` lies within
            `images`.
        MaskError: the label set cannot be mapped, the folder holds masks of something else, or the teacher gave
            something else than a mask of the image's size with its own classes.
    """
    source, output = absolute(images, DataError), absolute(output, MaskError)
    own = label_set_named(teacher.label_set)
    target = own if to == "own" else label_set_named(to)
    options = _checked_options(clothes)
    label_table(own.name, target.name, **options)  # what cannot be mapped is said before anything is read
    _check_places(source, output, teacher)
    left_out = LeftOut()
    names = _image_names(source, left_out)
    description = describe_masks(teacher, target.name, dict(options))
    remove_leftovers(output, recursive=True)  # of runs that were stopped
    check_sidecar(output, description, [output / _mask_name(name) for name in names], overwrite)
    write_json(output / SIDECAR, description, MaskError)

    chosen = names if limit is None else names[:limit]
    tally = _Tally(target)
    started = time.monotonic()
    for chunk in _chunks(source, output, chosen, target, tally, overwrite, progress):
        for name, mask in _parse(teacher, own, chunk, tally.unreadable):
            mapped = map_labels(mask, own.name, target.name, **options)
            _write_mask(output / _mask_name(name), mapped)
            tally.count(name, mapped, made=True)
    order = {name: place for place, name in enumerate(chosen)}
    return ParseReport(
        output,
        target.name,
        tuple(sorted(tally.done, key=order.__getitem__)),
        tally.written,
        time.monotonic() - started,
        {name: int(count) for name, count in zip(target.names, tally.pixels, strict=True)},
        tuple(sorted(tally.empty, key=order.__getitem__)),
        tally.unreadable,
        (*mapping_notes(own.name, target.name, **options), *left_out.notes()),
    )


class _Tally:
    """What has been seen so far."""

    def __init__(self, target: LabelSet) -> None:
        self.pixels = np.zeros(target.classes, dtype=np.int64)
        self.done: list[str] = []
        self.empty: list[str] = []
        self.unreadable: dict[str, str] = {}
        self.written = 0

    def count(self, name: str, mask: np.ndarray, *, made: bool) -> None:
        self.pixels += np.bincount(mask.ravel(), minlength=len(self.pixels))
        self.done.append(name)
        self.written += made
        if not mask.any():
            self.empty.append(name)


_Chunk = list[tuple[str, Image.Image]]


def _chunks(
    source: Path,
    output: Path,
    names: Sequence[str],
    target: LabelSet,
    tally: _Tally,
    overwrite: bool,
    progress: Callable[[int, int], None] | None,
) -> Iterator[_Chunk]:
    """Images that need a mask, a few at a time; those that have one are counted, unreadable ones noted."""
    chunk: _Chunk = []
    pixels = 0
    for done, name in enumerate(names, start=1):
        try:
            image = open_image(source / name)
        except ImageError as error:
            tally.unreadable[name] = str(error)
        else:
            kept = None if overwrite else _kept_mask(output / _mask_name(name), image.size, target)
            if kept is not None:
                tally.count(name, kept, made=False)
            else:
                chunk.append((name, image))
                pixels += image.width * image.height
        if chunk and (len(chunk) >= _CHUNK_IMAGES or pixels >= _CHUNK_PIXELS or done == len(names)):
            yield chunk
            chunk, pixels = [], 0
        if progress is not None:
            progress(done, len(names))


def _parse(
    teacher: Teacher, own: LabelSet, chunk: _Chunk, unreadable: dict[str, str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Masks of some images, checked; an image that the teacher cannot take is noted, and the others go on."""
    names = [name for name, _ in chunk]
    try:
        masks = teacher.parse([image for _, image in chunk], names)
    except ImageError as error:
        if len(chunk) == 1:
            unreadable[names[0]] = str(error)
            return
        for each in chunk:
            yield from _parse(teacher, own, [each], unreadable)
        return
    kind = type(teacher).__name__
    if len(masks) != len(chunk):
        raise MaskError(f"the teacher {kind} gave {len(masks)} masks for {len(chunk)} images; wanted one for each.")
    for (name, image), mask in zip(chunk, masks, strict=True):
        if mask.shape != (image.height, image.width) or mask.dtype.kind not in "iu":
            raise MaskError(
                f"the teacher {kind} gave {mask.dtype} of shape {mask.shape} for '{name}'; wanted uint8 of shape "
                f"{(image.height, image.width)}, a class for each pixel."
            )
        if int(mask.min()) < 0 or int(mask.max()) >= own.classes:
            raise MaskError(
                f"the teacher {kind} gave classes {mask.min()} … {mask.max()} for '{name}'; its label set '{own.name}' "
                f"has 0 … {own.classes - 1}."
            )
        yield name, mask


def _checked_options(clothes: MapOptions | None) -> MapOptions:
    known = list(MapOptions.__annotations__)
    for name in clothes or ():
        if name not in known:
            raise MaskError(
                f"'{name}' is nothing that can be put elsewhere.{did_you_mean(name, known)} Wanted: {', '.join(known)}."
            )
    return clothes or {}


def _check_places(source: Path, output: Path, teacher: Teacher) -> None:
    if output.resolve().is_relative_to(source.resolve()):
        raise DataError(
            f"the masks' folder '{output}' lies within the images' folder '{source}', where the next run would take "
            "masks for images. Choose a folder beside it."
        )
    if isinstance(teacher, MaskFolder) and output.resolve() == teacher.folder.resolve():
        raise DataError(f"'{output}' is the folder that the masks are read from. Choose another folder to write to.")


def _image_names(source: Path, left_out: LeftOut) -> list[str]:
    require_folder(source)
    names = [path.relative_to(source).as_posix() for path in image_files(source, recursive=True, left_out=left_out)]
    if not names:
        raise DataError(f"'{source}' holds no image. Look at the path; sub-folders are searched, hidden ones are not.")
    taken: dict[Path, str] = {Path(CONTACT_SHEET): f"the picture that is written there ({CONTACT_SHEET})"}
    for name in names:
        mask = _mask_name(name)
        if mask in taken:
            raise DataError(f"'{name}' would have the mask '{mask}', and so would {taken[mask]}. Rename one of them.")
        taken[mask] = f"'{name}'"
    return names


def _mask_name(name: str) -> Path:
    return Path(name).with_suffix(".png")


def _kept_mask(path: Path, size: tuple[int, int], target: LabelSet) -> np.ndarray | None:
    """A mask that is there and fits its image, or None."""
    if not path.is_file():
        return None
    try:
        return open_mask(path, size, target.classes)
    except MaskError:
        return None  # of another size, or damaged: it is made again


def _write_mask(path: Path, mask: np.ndarray) -> None:
    with atomic_write(path, MaskError) as temporary:
        Image.fromarray(mask).save(temporary, "PNG")
