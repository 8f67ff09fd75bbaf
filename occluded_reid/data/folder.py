"""Plain folders: a sub-folder for each identity, or a CSV file that lists the images."""

from __future__ import annotations

import csv as csv_format
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from occluded_reid.data.dataset import SPLITS, ReIDData, Sample, Split, require_folder
from occluded_reid.data.images import image_files, refuse_linked_folders
from occluded_reid.errors import DataError
from occluded_reid.files import absolute, inside
from occluded_reid.registry import DATASETS, did_you_mean

__all__ = ["load_folder"]

_REQUIRED = ("path", "identity", "camera")
_OPTIONAL = ("time", "track", "split")
_BESIDE = {"masks", "occlusion"}  # trees that may lie beside train/, query/ and gallery/
_PUBLISHED = {"bounding_box_train", "bounding_box_test"}  # splits of Market-1501 and its like: nobody's name


@DATASETS.register("folder")
def load_folder(
    root: str | Path, *, csv: str | Path | None = None, camera_pattern: str | None = None, name: str | None = None
) -> ReIDData:
    r"""Load ``<identity>/…`` sub-folders, ``{train,query,gallery}/<identity>/…``, or the images that a CSV file lists.

    Without splits every image is in the training split, from which a hold-out can be taken. Sub-folders say nothing
    about cameras: give `camera_pattern`, or each image gets a camera number of its own, so that evaluation excludes
    nothing (and a note says so). Cameras that are numbers keep them; others are numbered in sorted order.

    Args:
        root: the folder; or the CSV file itself, whose folder then is the root.
        csv: CSV file with a header line, relative to the root or absolute. Columns: path (relative to the root),
            identity, camera; and, where known, time (seconds, or ISO 8601, UTC unless it says otherwise), track, and
            split (train, query or gallery).
        camera_pattern: regular expression, searched in each image's path below its identity's folder; its first group
            is the camera: ``r"_c(\d+)"``.
        name: of the data set; by default that of the folder.

    Raises:
        DataError: nothing is found, a column is missing, or a line of the CSV is wrong; it is named by its number.
    """
    root = absolute(root, DataError)
    if csv is None and root.suffix.lower() == ".csv" and root.is_file():
        root, csv = root.parent, root.name
    folder = require_folder(root)
    if csv is not None:
        if camera_pattern is not None:
            raise DataError("camera_pattern is for sub-folders; a CSV file has a camera column. Give one of the two.")
        rows, known = _from_csv(folder, folder / csv), True
    else:
        rows, known = _from_folders(folder, camera_pattern), camera_pattern is not None
    notes = () if known else ("cameras are not known: no image is excluded from evaluation as of the same camera",)
    cameras = _camera_numbers([camera for _, camera, _ in rows])
    splits: dict[Split, list[Sample]] = {split: [] for split in SPLITS}
    for (split, _, sample), camera in zip(rows, cameras, strict=True):
        splits[split].append(replace(sample, camera=camera))
    return ReIDData(
        name=name or folder.resolve().name,
        root=folder,
        train=tuple(splits["train"]),
        query=tuple(splits["query"]),
        gallery=tuple(splits["gallery"]),
        notes=notes,
        cameras_known=known,
    )


# A split, the camera as it is written, and the sample, whose camera number is filled in when all cameras are seen.
_Row = tuple[Split, str, Sample]


def _from_folders(root: Path, camera_pattern: str | None) -> list[_Row]:
    pattern = None if camera_pattern is None else _compiled(camera_pattern)
    folders = _sub_folders(root)
    named = {folder.name for folder in folders}
    if named & _PUBLISHED:
        raise DataError(
            f"'{root}' has {'/, '.join(sorted(named & _PUBLISHED))}/, so it is in the layout of Market-1501 and not in "
            "sub-folders of one person each. Load it as 'market1501' (with own=True for images of your own), or as the "
            "published data set that it is."
        )
    if named & {"query", "gallery"} and named <= {*SPLITS, *_BESIDE}:
        places: list[tuple[Split, Path]] = [(split, root / split) for split in SPLITS if split in named]
    else:
        places = [("train", root)]
    rows: list[_Row] = []
    for split, place in places:
        for folder in _sub_folders(place):
            refuse_linked_folders(folder)
            for path in image_files(folder, recursive=True):
                below = path.relative_to(folder).as_posix()
                camera = str(len(rows)) if pattern is None else _camera_of(pattern, below, path)
                rows.append((split, camera, Sample(path.relative_to(root).as_posix(), path, folder.name, 0)))
    if not rows:
        loose = len(image_files(root))
        raise DataError(
            f"'{root}' has no sub-folder with images" + (f", but {loose} images of its own" if loose else "") + ". "
            "Wanted one sub-folder for each person, named after the identity, or a CSV file (csv=…) with the columns "
            f"{', '.join(_REQUIRED)}."
        )
    return rows


def _sub_folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as cause:
        raise DataError(f"camera_pattern {pattern!r} is not a regular expression: {cause}.") from cause
    if not compiled.groups:
        raise DataError(f"camera_pattern {pattern!r} has no group; put the camera in parentheses, as in '_c(\\d+)'.")
    return compiled


def _camera_of(pattern: re.Pattern[str], below: str, path: Path) -> str:
    match = pattern.search(below)
    if match is None or not match[1]:
        raise DataError(
            f"camera_pattern {pattern.pattern!r} finds no camera in '{below}' (file '{path}'). Mend either."
        )
    return match[1]


def _from_csv(root: Path, table: Path) -> list[_Row]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv_format.DictReader(file, strict=True)
            header = [column.strip().lower() for column in reader.fieldnames or ()]
            _check_header(header, table)
            reader.fieldnames = header
            lines = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv_format.Error) as cause:
        raise DataError(
            f"the CSV file '{table}' cannot be read: {cause}. It must be UTF-8 with a header line."
        ) from cause
    rows: list[_Row] = []
    seen: dict[str, int] = {}
    for number, line in lines:
        rows.append(_row(root, f"line {number} of '{table}'", line))
        key = rows[-1][2].name
        if key in seen:
            raise DataError(
                f"line {number} of '{table}' names '{key}' again, after line {seen[key]}. Remove one of them."
            )
        seen[key] = number
    if not rows:
        raise DataError(f"the CSV file '{table}' has a header and no lines. List one image a line.")
    return rows


def _check_header(header: Sequence[str], table: Path) -> None:
    missing = [column for column in _REQUIRED if column not in header]
    if missing:
        hints = "".join(did_you_mean(column, [h for h in header if h not in _OPTIONAL]) for column in missing)
        raise DataError(
            f"the CSV file '{table}' lacks the column(s) {', '.join(missing)}; it has {', '.join(header) or 'none'}."
            f"{hints} Wanted a header line with {', '.join(_REQUIRED)} and, where known, {', '.join(_OPTIONAL)}."
        )


def _row(root: Path, where: str, line: dict[str, str]) -> _Row:
    if None in line or None in line.values():
        raise DataError(f"{where} has another number of fields than the header. Quote fields that contain commas.")
    field = {column: value.strip() for column, value in line.items()}
    for column in (*_REQUIRED, *(("split",) if "split" in field else ())):
        if not field[column]:
            raise DataError(f"{where} has no {column}. Fill it in, or remove the line.")
    split = next((split for split in SPLITS if split == field.get("split", "train").lower()), None)
    if split is None:
        hint = did_you_mean(field["split"], SPLITS)
        raise DataError(f"{where} has the split '{field['split']}'; wanted one of {', '.join(SPLITS)}.{hint}")
    try:
        path = inside(root, field["path"], DataError)
    except DataError as cause:
        raise DataError(f"{where}: {cause}") from cause
    if not path.is_file():
        raise DataError(
            f"{where} names '{field['path']}', which is no file in '{root}'. Mend the path or remove the line."
        )
    name = path.relative_to(root.resolve()).as_posix()
    sample = Sample(
        name,
        root / name,
        field["identity"],
        0,
        time=_time(field.get("time", ""), where),
        track=field.get("track") or None,
    )
    return split, field["camera"], sample


def _time(text: str, where: str) -> float | None:
    """Seconds as they are, or those since 1970 of an ISO 8601 time."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as cause:
            raise DataError(
                f"{where} has the time '{text}'; wanted seconds, or ISO 8601: 2024-05-01T09:30:00."
            ) from cause
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise DataError(f"{where} has the time '{text}', which is not finite. Leave it empty where it is not known.")
    return seconds


def _camera_numbers(cameras: Sequence[str]) -> list[int]:
    """Numbers stay what they are, so that several lists agree; names are numbered in sorted order."""
    if all(camera.isascii() and camera.isdigit() and len(camera) < 10 for camera in cameras):
        return [int(camera) for camera in cameras]
    number = {camera: index for index, camera in enumerate(sorted(set(cameras)))}
    return [number[camera] for camera in cameras]
