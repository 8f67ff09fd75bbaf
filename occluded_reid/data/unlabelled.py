"""Crops of people whom nobody has named: any tree of images, or a list of files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

from occluded_reid.data.camera_names import camera_of_text, number_cameras
from occluded_reid.data.dataset import NO_CAMERAS, ReIDData, Sample, require_folder
from occluded_reid.data.images import image_files, refuse_linked_folders
from occluded_reid.data.left_out import LeftOut
from occluded_reid.data.times import TIME_FORMATS, read_time
from occluded_reid.errors import DataError
from occluded_reid.files import absolute
from occluded_reid.registry import DATASETS

__all__ = ["load_images", "unlabelled"]

_SHOWN = 3

T = TypeVar("T")


@DATASETS.register("images")
def load_images(
    root: str | Path,
    *,
    camera_pattern: str | None = None,
    camera_from: Literal["folder"] | None = None,
    time_pattern: str | None = None,
    time_format: str | None = None,
    name: str | None = None,
) -> ReIDData:
    r"""Load all images of a tree, flat or nested, of people whom nobody has named.

    They are the gallery of a data set without identities, to be indexed and searched; training and evaluation refuse
    it. Sub-folders are no people here: for those take the data set "folder".

    Args:
        root: the tree; hidden files and folders are left out.
        camera_pattern: regular expression, searched in each image's path below the root (with slashes); its group
            named "camera", or else its first, is the camera: ``r"_c(\d+)"``, ``r"^([^/]+)/"``.
        camera_from: "folder" takes the name of the folder that an image lies in for its camera.
        time_pattern: likewise; its group named "time", or else its first, says when the image was taken:
            ``r"_(\d{8}_\d{6})_"``. See `time_format`.
        time_format: how that time is written, as of `datetime.strptime`. Without it plain numbers stay what they are
            (seconds, frames), 13 digits are milliseconds since 1970, and 20240501093000, 20240501_093000 and ISO 8601
            are dates, in UTC unless they say otherwise.
        name: of the data set; by default that of the folder.

    Raises:
        DataError: there is no image, or a pattern is wrong or finds nothing in some of the paths.
    """
    folder, left_out = require_folder(absolute(root, DataError)), LeftOut()
    files = image_files(folder, recursive=True, left_out=left_out)
    refuse_linked_folders(folder)
    found = unlabelled(
        files,
        folder,
        camera_pattern=camera_pattern,
        camera_from=camera_from,
        time_pattern=time_pattern,
        time_format=time_format,
        name=name,
    )
    return replace(found, notes=(*found.notes, *left_out.notes()))


def unlabelled(
    files: Iterable[str | Path],
    root: str | Path,
    *,
    camera_pattern: str | None = None,
    camera_from: Literal["folder"] | None = None,
    time_pattern: str | None = None,
    time_format: str | None = None,
    name: str | None = None,
) -> ReIDData:
    """Make a data set of image files of unknown people.

    Args:
        files: the images, in this order.
        root: what their names are relative to; those elsewhere are named by their whole path.
        camera_pattern: as for `load_images`.
        camera_from: likewise.
        time_pattern: likewise.
        time_format: likewise.
        name: of the data set; by default that of the root.

    Raises:
        DataError: there is no file, or a pattern is wrong or finds nothing in some of the names.
    """
    if camera_pattern is not None and camera_from is not None:
        raise DataError("camera_pattern and camera_from are both given; give one of the two.")
    if camera_from not in (None, "folder"):
        raise DataError(f"camera_from is {camera_from!r}; give 'folder', or leave it out.")
    if time_format is not None and time_pattern is None:
        raise DataError("time_format is given without time_pattern, which finds the time in a path. Give both.")
    base = absolute(root, DataError)
    paths = [absolute(file, DataError) for file in files]
    if not paths:
        raise DataError(f"'{root}' holds no image. Look at the path, or at the suffixes of the files.")
    names = [(path.relative_to(base) if path.is_relative_to(base) else path).as_posix() for path in paths]
    found: list[str] | None = None
    if camera_pattern is not None:
        found = _found(names, camera_pattern, "camera", lambda text: text)
    elif camera_from is not None:
        found = [path.parent.name for path in paths]
    numbers, called = number_cameras(list(range(len(names))) if found is None else [camera_of_text(c) for c in found])
    times: list[float | None] = [None] * len(names)
    if time_pattern is not None:
        times = [*_found(names, time_pattern, "time", lambda text: read_time(text, time_format))]
    notes = [f"nobody has said who is on the {len(names)} images: they can be indexed and searched"]
    notes += [] if found is not None else [NO_CAMERAS]
    samples = [
        Sample(image, path, None, camera, time=time)
        for image, path, camera, time in zip(names, paths, numbers, times, strict=True)
    ]
    return ReIDData(
        name=name or base.name or "images",
        root=base,
        train=(),
        gallery=tuple(samples),
        notes=tuple(notes),
        cameras_known=found is not None,
        camera_names=called,
    )


def _found(names: list[str], pattern: str, what: str, read: Callable[[str], T]) -> list[T]:
    """What a pattern finds in each name, read."""
    compiled = _compiled(pattern, what)
    group: str | int = what if what in compiled.groupindex else 1
    values: list[T] = []
    missing: list[str] = []
    for name in names:
        match = compiled.search(name)
        text = match[group] if match is not None else None
        if not text:
            missing.append(name)
            continue
        try:
            values.append(read(text))
        except (ValueError, OverflowError) as cause:
            raise DataError(
                f"{what}_pattern '{pattern}' finds '{text}' in '{name}', which is no {what} ({cause}). Wanted "
                f"{TIME_FORMATS}; or say how it is written: time_format='%d%m%Y-%H%M%S'."
            ) from cause
    if missing:
        shown = ", ".join(f"'{name}'" for name in missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
        raise DataError(
            f"{what}_pattern '{pattern}' finds no {what} in {len(missing)} of {len(names)} paths: {shown}. Mend the "
            "pattern, or leave those images out."
        )
    return values


def _compiled(pattern: str, what: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as cause:
        raise DataError(f"{what}_pattern '{pattern}' is not a regular expression: {cause}.") from cause
    if not compiled.groups:
        raise DataError(f"{what}_pattern '{pattern}' has no group; put the {what} in parentheses: '_c(\\d+)'.")
    return compiled
