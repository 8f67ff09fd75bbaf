"""Plain folders: a sub-folder for each identity, or a CSV file that lists the images."""

from __future__ import annotations

import csv as csv_format
import io
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from occluded_reid.data.camera_names import camera_of_text, number_cameras
from occluded_reid.data.dataset import NO_CAMERAS, SPLITS, ReIDData, Sample, Split, require_folder
from occluded_reid.data.images import image_files, refuse_linked_folders
from occluded_reid.data.left_out import LeftOut
from occluded_reid.data.split_folders import split_folders, split_role, sub_folders
from occluded_reid.errors import DataError
from occluded_reid.files import absolute, inside, is_file, text_lines
from occluded_reid.registry import DATASETS, did_you_mean

__all__ = ["load_folder"]

_REQUIRED = ("path",)
_OPTIONAL = ("identity", "camera", "time", "track", "split")
_MEANT = {"person", "pid", "id", "label", "person_id", "name", "who"}  # headers of others for the identity
_DELIMITERS = (",", ";", "\t")
_BESIDE = {"masks", "occlusion"}  # trees that may lie beside people


@DATASETS.register("folder")
def load_folder(
    root: str | Path,
    *,
    csv: str | Path | None = None,
    camera_pattern: str | None = None,
    allow_outside: bool = False,
    name: str | None = None,
) -> ReIDData:
    r"""Load ``<identity>/…`` sub-folders, ``{train,query,gallery}/<identity>/…``, or the images that a CSV file lists.

    Names of splits count in other spellings too (see `split_folders`), and where there are splits, other folders beside
    them are no person. What is left out (hidden folders, dangling links, …) is counted in the notes.

    Without splits every image is in the training split, from which a hold-out can be taken. Sub-folders say nothing
    about cameras: give `camera_pattern`, or each image gets a camera number of its own, so that evaluation excludes
    nothing (and a note says so). Cameras that are numbers keep them; others get free ones in sorted order, and their
    names are kept beside them.

    A folder without any sub-folder of images, or a CSV file without the column identity, is of people whom nobody has
    named: such images are the gallery, and have no identity. (For nested ones see the data set "images".)

    Args:
        root: the folder; or the CSV file itself, whose folder then is the root.
        csv: CSV file with a header line, relative to the root or absolute; fields are parted by commas, semicolons or
            tabs, as the header is. Columns: path (relative to the root, with slashes or backslashes); and, where known,
            identity, camera, time (seconds, or ISO 8601, UTC unless it says otherwise), track, and split (train, query
            or gallery). Without identities, the images can be indexed and searched, and are the gallery.
        camera_pattern: regular expression, searched in each image's path below its identity's folder; its first group
            is the camera: ``r"_c(\d+)"``. In a CSV file without a camera column, in each path.
        allow_outside: take files outside the root too, by whole paths or ``..``: say so of lists that you trust. They
            are named by their whole path.
        name: of the data set; by default that of the folder.

    Raises:
        DataError: nothing is found, a column is missing, or a line of the CSV is wrong; it is named by its number.
    """
    root = absolute(root, DataError)
    if csv is None and root.suffix.lower() == ".csv" and is_file(root, DataError):
        root, csv = root.parent, root.name
    folder = require_folder(root)
    notes: list[str] = []
    if csv is not None:
        rows, known = _from_csv(folder, folder / csv, camera_pattern, allow_outside)
    else:
        rows, known = _from_folders(folder, camera_pattern, notes), camera_pattern is not None
    if unknown := sum(sample.identity is None for _, _, sample in rows):
        notes.append(f"nobody has said who is on the {unknown} images: they can be indexed and searched")
    if not known:
        evaluated = "" if unknown else ": no image is excluded from evaluation as of the same camera"
        notes.insert(0, f"{NO_CAMERAS}{evaluated}")
    cameras, names = number_cameras([camera_of_text(camera) for _, camera, _ in rows])
    splits: dict[Split, list[Sample]] = {split: [] for split in SPLITS}
    for (split, _, sample), camera in zip(rows, cameras, strict=True):
        splits[split].append(replace(sample, camera=camera))
    return ReIDData(
        name=name or folder.resolve().name,
        root=folder,
        train=tuple(splits["train"]),
        query=tuple(splits["query"]),
        gallery=tuple(splits["gallery"]),
        notes=tuple(notes),
        cameras_known=known,
        camera_names=names,
    )


# A split, the camera as it is written, and the sample, whose camera number is filled in when all cameras are seen.
_Row = tuple[Split, str, Sample]


def _from_folders(root: Path, camera_pattern: str | None, notes: list[str]) -> list[_Row]:
    pattern = None if camera_pattern is None else _compiled(camera_pattern)
    left_out = LeftOut()
    folders = sub_folders(root, left_out)
    splits = split_folders(root, folders, left_out, notes)
    places: list[tuple[Split, Path]] = list(splits.items()) or [("train", root)]
    rows: list[_Row] = []
    for split, place in places:
        people = sub_folders(place, left_out, below=f"{place.relative_to(root).as_posix()}/") if splits else folders
        for folder in _people(place, people, left_out):
            for path in _images_of(folder, root, left_out):
                below = path.relative_to(folder).as_posix()
                camera = str(len(rows)) if pattern is None else _camera_of(pattern, below, path)
                rows.append((split, camera, Sample(path.relative_to(root).as_posix(), path, folder.name, 0)))
    loose = sorted({path for place in (root, *splits.values()) for path in image_files(place)})
    if not rows and loose and not splits:
        for path in loose:
            camera = str(len(rows)) if pattern is None else _camera_of(pattern, path.name, path)
            rows.append(("gallery", camera, Sample(path.name, path, None, 0)))
        notes += left_out.notes()
        return rows
    if not rows:
        raise DataError(
            f"'{root}' has no sub-folder with images{f', but {len(loose)} images of its own' if loose else ''}. "
            "Wanted one sub-folder for each person, named after the identity, or a CSV file (csv=…) with the columns "
            f"path and identity.{''.join(f' ({note})' for note in left_out.notes())}"
        )
    for path in loose:
        left_out.add(path.relative_to(root).as_posix(), "beside the sub-folders and so nobody's", "images")
    notes += left_out.notes()
    return rows


def _people(place: Path, folders: Sequence[Path], left_out: LeftOut) -> list[Path]:
    """Sub-folders but for trees of masks, which mirror the people beside them and are none themselves."""
    names = {folder.name for folder in folders}
    people: list[Path] = []
    for folder in folders:
        mirrored = folder.name in _BESIDE and {path.name for path in sub_folders(folder, LeftOut())} & names
        if mirrored:
            left_out.add(folder.relative_to(place).as_posix(), "which mirror the people and are none", "folders")
        else:
            people.append(folder)
    return people


def _images_of(folder: Path, root: Path, left_out: LeftOut) -> list[Path]:
    """Images of a person; one whose folder may not be read is left out, and counted."""
    name = folder.relative_to(root).as_posix()
    passed = LeftOut()
    try:
        images = image_files(folder, recursive=True, left_out=passed)
    except DataError as error:
        left_out.add(name, f"cannot be read ({getattr(error.__cause__, 'strerror', error)})", "folders")
        return []
    refuse_linked_folders(folder)
    if not images:
        left_out.add(name, "without images", "folders")
    left_out.take(passed, f"{name}/")
    return images


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as cause:
        raise DataError(f"camera_pattern '{pattern}' is not a regular expression: {cause}.") from cause
    if not compiled.groups:
        raise DataError(f"camera_pattern '{pattern}' has no group; put the camera in parentheses, as in '_c(\\d+)'.")
    return compiled


def _camera_of(pattern: re.Pattern[str], below: str, path: Path) -> str:
    match = pattern.search(below)
    if match is None or not match[1]:
        raise DataError(
            f"camera_pattern '{pattern.pattern}' finds no camera in '{below}' (file '{path}'). Mend either."
        )
    return match[1]


def _from_csv(root: Path, table: Path, camera_pattern: str | None, allow_outside: bool) -> tuple[list[_Row], bool]:
    """The rows of a list, and whether it says which camera took the images."""
    try:
        # Bytes first: read as text, a lone carriage return within a quoted field would become a line end.
        text = table.read_bytes().decode("utf-8-sig")
        reader = csv_format.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
        header = [column.strip().lower() for column in reader.fieldnames or ()]
        _check_header(header, table)
        reader.fieldnames = header
        lines = [(reader.line_num, row) for row in reader]
    except DataError:
        raise
    except (OSError, ValueError, csv_format.Error) as cause:  # ValueError: no UTF-8, or a NUL in the file's own name
        reason = getattr(cause, "strerror", None) or cause
        raise DataError(
            f"the CSV file '{table}' cannot be read: {reason}. It must be UTF-8 with a header line."
        ) from cause
    if camera_pattern is not None and "camera" in header:
        raise DataError(f"camera_pattern is given, and '{table}' has a camera column. Give one of the two.")
    pattern = None if camera_pattern is None else _compiled(camera_pattern)
    rows: list[_Row] = []
    seen: dict[str, int] = {}
    for number, line in lines:
        split, camera, sample = _row(root, f"line {number} of '{table}'", line, allow_outside)
        if pattern is not None:
            camera = _camera_of(pattern, sample.name, sample.path)
        rows.append((split, str(len(rows)) if camera is None else camera, sample))
        if sample.name in seen:
            raise DataError(
                f"line {number} of '{table}' names '{sample.name}' again, after line {seen[sample.name]}. Remove one "
                "of them."
            )
        seen[sample.name] = number
    if not rows:
        raise DataError(f"the CSV file '{table}' has a header and no lines. List one image a line.")
    return rows, pattern is not None or "camera" in header


def _delimiter(text: str) -> str:
    """What parts the fields: under which the header has a path, and most of the other columns."""
    line = next(iter(text_lines(text)), "")
    known = {*_REQUIRED, *_OPTIONAL}

    def columns(delimiter: str) -> set[str]:
        fields = next(csv_format.reader([line], delimiter=delimiter), [])
        return {field.strip().lower() for field in fields} & known

    return max(_DELIMITERS, key=lambda delimiter: len(columns(delimiter)))


def _check_header(header: Sequence[str], table: Path) -> None:
    missing = [column for column in _REQUIRED if column not in header]
    other = [column for column in header if column not in (*_REQUIRED, *_OPTIONAL)]
    if "identity" not in header and any(column in _MEANT or did_you_mean("identity", [column]) for column in other):
        missing.append("identity")
    if twice := next((column for column in header if column and header.count(column) > 1), None):
        raise DataError(f"the CSV file '{table}' has the column '{twice}' twice. Keep one of them.")
    if missing:
        hints = "".join(did_you_mean(column, [h for h in header if h not in _OPTIONAL]) for column in missing)
        raise DataError(
            f"the CSV file '{table}' lacks the column(s) {', '.join(missing)}; it has {', '.join(header) or 'none'}."
            f"{hints} Wanted a header line with {', '.join(_REQUIRED)} and, where known, {', '.join(_OPTIONAL)}."
        )


def _row(root: Path, where: str, line: dict[str, str], allow_outside: bool) -> tuple[Split, str | None, Sample]:
    if None in line or None in line.values():
        raise DataError(
            f"{where} has another number of fields than the header. Quote fields that contain commas (or what else "
            "parts the fields)."
        )
    field = {column: value.strip() for column, value in line.items()}
    for column in ("path", "identity", "camera", "split"):
        if column in field and not field[column]:
            raise DataError(f"{where} has no {column}. Fill it in, or remove the line.")
    usual = "train" if "identity" in field else "gallery"
    role = split_role(field.get("split", usual))
    split = next((split for split in SPLITS if split == role), None)
    if split is None:
        hint = did_you_mean(field["split"], SPLITS)
        raise DataError(f"{where} has the split '{field['split']}'; wanted one of {', '.join(SPLITS)}.{hint}")
    name, path = _listed_file(root, where, field["path"], allow_outside)
    sample = Sample(
        name,
        path,
        field.get("identity"),
        0,
        time=_time(field.get("time", ""), where),
        track=field.get("track") or None,
    )
    return split, field.get("camera"), sample


def _listed_file(root: Path, where: str, text: str, allow_outside: bool) -> tuple[str, Path]:
    """Name and path of the file that a line names; where no file has backslashes in its name, they are slashes."""
    here = root.resolve()
    for spelling in dict.fromkeys((text, text.replace("\\", "/"))):
        try:
            place, given = (here.anchor, str(here / spelling)) if allow_outside else (root, spelling)
            path = inside(place, given, DataError)
            there = is_file(path, DataError)
        except DataError as cause:
            hint = (
                ""
                if allow_outside
                else " Files elsewhere are taken where allow_outside=True (--option allow_outside=true) says so."
            )
            raise DataError(f"{where}: {cause}{hint}") from cause
        if there and path.is_relative_to(here):
            name = path.relative_to(here).as_posix()
            return name, root / name
        if there:
            return path.as_posix(), path
    raise DataError(f"{where} names '{text}', which is no file in '{root}'. Mend the path or remove the line.")


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
