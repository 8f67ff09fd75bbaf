"""`occluded-reid gallery list`, `info`, `get`, `relabel`, `cameras`: what a gallery holds, and putting it right."""

from __future__ import annotations

import csv as csv_format
import io
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from occluded_reid.cli.console import Json, bold, console, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from occluded_reid.gallery import GalleryImage

__all__ = ["add_commands", "read_keys"]

_SHOWN = 100  # images of a table without a limit
_LABELS = ("identity", "camera", "time", "track")

Folder = Annotated[str, typer.Argument(help="Folder, or address, of the gallery.")]
Where = Annotated[
    str | None,
    typer.Option("--where", help="SQL filter: \"camera = 'hall' AND time >= '2024-05-01T10:00'\".", show_default=False),
]


class Label(StrEnum):
    """What is said of an image."""

    IDENTITY = "identity"
    CAMERA = "camera"
    TIME = "time"
    TRACK = "track"


def add_commands(app: typer.Typer) -> None:
    """Add these commands to `occluded-reid gallery`."""
    app.command("list")(list_command)
    app.command("info")(info_command)
    app.command("get")(get_command)
    app.command("relabel")(relabel_command)
    app.command("cameras")(cameras_command)


def list_command(
    gallery: Folder,
    where: Where = None,
    identity: Annotated[str | None, typer.Option(help="Only images of this person.", show_default=False)] = None,
    unidentified: Annotated[bool, typer.Option("--unidentified", help="Only images of unknown people.")] = False,
    camera: Annotated[
        str | None, typer.Option(help="Only images of this camera, by number or name.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="At most so many. Default: 100 in a table, all with --json.", min=0, show_default=False),
    ] = None,
    offset: Annotated[int, typer.Option(help="Leave out so many at the beginning.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """List images in the order in which they were added: key, identity, camera, time and track.

    Example: [bold]occluded-reid gallery list mall/ --camera hall --unidentified[/bold]
    """
    from occluded_reid.gallery import Gallery

    chosen: dict[str, Any] = {}
    if identity is not None:
        chosen["identity"] = identity
    if unidentified:
        chosen["identity"] = None
    if camera is not None:
        chosen["camera"] = _camera(camera)
    if identity is not None and unidentified:
        raise typer.BadParameter("--identity and --unidentified contradict each other; give one of them.")
    if where is not None and chosen:
        raise typer.BadParameter("--where is given beside --identity, --unidentified or --camera; say all in --where.")
    shown = limit if limit is not None or as_json else _SHOWN
    with Gallery.open(gallery) as store:
        images = store.list(where or chosen or None, limit=shown, offset=offset)
        total = len(store)
    if as_json:
        print_json([image.to_dict() for image in images])
        return
    console().print(_table(images))
    more = "; more with --limit and --offset" if shown is not None and len(images) == shown else ""
    console().say(f"{len(images):,} images shown, {total:,} in the gallery{more}")


def info_command(gallery: Folder, as_json: Json = False) -> None:
    """Say what a gallery holds: model, slots, images, people, cameras, size, versions, and the state of its index.

    Example: [bold]occluded-reid gallery info mall/[/bold]
    """
    from occluded_reid.gallery import Gallery

    with Gallery.open(gallery) as store:
        info = store.info()
    if as_json:
        print_json(info.to_dict())
        return
    for line in info.lines():
        console().say(line)


def get_command(
    gallery: Folder,
    key: Annotated[str, typer.Argument(help="Key of the image.")],
    embeddings: Annotated[
        Path | None, typer.Option(help="Write its slots and visibility into this safetensors file.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Say all that is known about an image.

    Example: [bold]occluded-reid gallery get shop/ a.jpg[/bold]
    """
    from occluded_reid.data.times import time_text
    from occluded_reid.gallery import Gallery

    with Gallery.open(gallery) as store:
        image = store.get(key)
    if embeddings is not None and image.embeddings is not None:
        image.embeddings.save(embeddings)
    if as_json:
        print_json(image.to_dict())
        return
    told = image.to_dict()
    if image.time is not None:
        number, text = f"{image.time:.15g}", time_text(image.time)
        told["time"] = number if number == text else f"{text} ({number})"
    for name, value in told.items():
        console().say(f"{name}: {'–' if value is None else value}")
    if image.embeddings is not None:
        seen = zip(image.embeddings.names, image.embeddings.visibility[0].tolist(), strict=True)
        console().say(f"visibility: {', '.join(f'{name} {share:.2f}' for name, share in seen)}")


def relabel_command(
    gallery: Folder,
    keys: Annotated[list[str] | None, typer.Argument(help="Keys of images.", show_default=False)] = None,
    keys_from: Annotated[
        Path | None, typer.Option("--keys-from", help="A text file with one more key in each line.", show_default=False)
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Instead: a CSV file with the column key and what is to be said of each: identity, camera, time, "
            "track. An empty field means unknown.",
            show_default=False,
        ),
    ] = None,
    identity: Annotated[str | None, typer.Option(help="Who is on them.", show_default=False)] = None,
    camera: Annotated[str | None, typer.Option(help="Number or name of the camera.", show_default=False)] = None,
    time: Annotated[
        str | None, typer.Option(help="When: a number, 20240501_093000 or ISO 8601.", show_default=False)
    ] = None,
    track: Annotated[str | None, typer.Option(help="Name of the track.", show_default=False)] = None,
    unknown: Annotated[
        list[Label] | None, typer.Option("--unknown", help="What is not known of them (repeatable).")
    ] = None,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for another writer.", min=0)] = 0.0,
    as_json: Json = False,
) -> None:
    """Say anew who is on images, which camera took them, and when: all of them or none, without embedding them again.

    Example: [bold]occluded-reid gallery relabel mall/ 1.jpg 2.jpg --identity anna --camera hall[/bold]
    """
    from occluded_reid.gallery import Gallery

    given: dict[str, Any] = {"identity": identity, "camera": camera, "time": time, "track": track}
    said = {name: text for name, text in given.items() if text is not None}
    forgotten = [label.value for label in unknown or []]
    if both := sorted(said.keys() & set(forgotten)):
        raise typer.BadParameter(f"{both[0]} is given and said to be unknown; do one of the two.")
    columns: dict[str, Any]
    if labels is not None:
        if keys or keys_from is not None or said or forgotten:
            raise typer.BadParameter("--labels says keys and labels; leave out other keys and labels.")
        named, columns = _from_table(labels)
    else:
        named = read_keys(keys, keys_from)
        columns = {**said, **dict.fromkeys(forgotten)}
        if not columns:
            raise typer.BadParameter("give --identity, --camera, --time, --track or --unknown, or a file by --labels.")
        if "time" in said:
            columns["time"] = _time(said["time"], "--time")
    with Gallery.open(gallery) as store:
        count = store.relabel(named, **columns, wait=wait)
    if as_json:
        print_json({"changed": count, "same": len(named) - count})
    else:
        console().print(
            f"{bold(gallery)}: {count} images say something else now, {len(named) - count} the same", soft_wrap=True
        )


def cameras_command(
    gallery: Folder,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            help="Give a camera that has a number a name, for good: --name hall=3 (repeatable).",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for another writer.", min=0)] = 0.0,
    as_json: Json = False,
) -> None:
    """List the cameras of a gallery, by number and name, or give names to those that have numbers.

    Example: [bold]occluded-reid gallery cameras mall/ --name hall=3 --name door=4[/bold]
    """
    from occluded_reid.gallery import Gallery

    given: dict[str, int] = {}
    for text in names or []:
        name, _, number = text.rpartition("=")
        if not name or not number.isascii() or not number.isdigit() or name in given:
            raise typer.BadParameter(f"--name is '{text}'; give each name once, with its number: --name hall=3.")
        given[name] = int(number)
    with Gallery.open(gallery) as store:
        if given:
            store.name_cameras(given, wait=wait)
        info = store.info()
    if as_json:
        print_json(info.to_dict()["cameras"])
        return
    from rich.table import Table

    from occluded_reid.screen import cell

    table = Table("number", "name", "images")
    for each in info.cameras:
        number = "unknown" if each.number is None else str(each.number)
        table.add_row(number, cell(each.name or "–"), f"{each.images:,}")
    console().print(table)


def read_keys(keys: list[str] | None, file: Path | None) -> list[str]:
    """Return the keys that were named, and those in a file.

    Raises:
        GalleryError: the file cannot be read, or there are none.
    """
    from occluded_reid.errors import GalleryError
    from occluded_reid.files import text_lines

    found = list(keys or [])
    if file is not None:
        try:
            found += [line for line in text_lines(file.read_bytes().decode("utf-8-sig")) if line]
        except (OSError, UnicodeDecodeError) as cause:
            raise GalleryError(f"the keys in '{file}' cannot be read: {cause}. Give a UTF-8 text file.") from cause
    if not found:
        raise GalleryError("no keys were given; name some, or a file with one in each line by --keys-from.")
    return found


def _table(images: Sequence[GalleryImage]) -> Table:
    from rich.table import Table

    from occluded_reid.data.times import time_text
    from occluded_reid.screen import cell

    table = Table("key", *_LABELS)
    table.columns[0].overflow = "fold"
    for image in images:
        told: Mapping[str, Any] = image.to_dict()
        values = (image.camera_name or image.camera if name == "camera" else told[name] for name in _LABELS)
        shown = ("–" if value is None else time_text(value) if isinstance(value, float) else value for value in values)
        table.add_row(cell(image.key), *(cell(value) for value in shown))
    return table


def _camera(text: str) -> int | str:
    from occluded_reid.data.camera_names import camera_of_text

    return camera_of_text(text)


def _time(text: str, where: str) -> float:
    from occluded_reid.data.times import TIME_FORMATS, read_time
    from occluded_reid.errors import GalleryError

    try:
        return read_time(text)
    except (ValueError, OverflowError) as cause:
        raise GalleryError(f"{where} is '{text}', which is no time; give {TIME_FORMATS}.") from cause


def _from_table(file: Path) -> tuple[list[str], dict[str, list[Any]]]:
    """Keys, and for each column of a CSV file what it says of each."""
    from occluded_reid.errors import GalleryError

    try:
        reader = csv_format.DictReader(io.StringIO(file.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        header = [column.strip().lower() for column in reader.fieldnames or ()]
        reader.fieldnames = header
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv_format.Error) as cause:
        reason = getattr(cause, "strerror", None) or cause
        raise GalleryError(f"the labels in '{file}' cannot be read: {reason}. Give a UTF-8 CSV file.") from cause
    said = [column for column in header if column in _LABELS]
    if "key" not in header or not said or len(set(header)) < len(header):
        raise GalleryError(
            f"the labels in '{file}' have the columns {', '.join(header) or 'none'}; wanted key, and one or more of "
            f"{', '.join(_LABELS)}, each once."
        )
    keys: list[str] = []
    columns: dict[str, list[Any]] = {name: [] for name in said}
    for number, row in rows:
        if None in row or None in row.values():
            raise GalleryError(f"line {number} of '{file}' has another number of fields than the header. Mend it.")
        keys.append(row["key"])
        for name in said:
            text = row[name].strip()
            read = _time(text, f"the time of line {number} of '{file}'") if text and name == "time" else text
            columns[name].append(read or None if isinstance(read, str) else read)
    if not keys:
        raise GalleryError(f"'{file}' has a header and no lines. Give a line for each image.")
    return keys, columns
