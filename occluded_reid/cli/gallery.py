"""`occluded-reid gallery`: look after a gallery's files."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from occluded_reid.cli.console import Json, bold, console, print_json, progress_bar
from occluded_reid.cli.gallery_contents import add_commands, read_keys
from occluded_reid.cli.pages import Commands

__all__ = ["gallery_app"]

gallery_app = Commands(
    name="gallery",
    help="Look into a gallery and after it: list and relabel images, verify its files, compact and index it, remove or "
    "erase images.",
)

add_commands(gallery_app)

Folder = Annotated[str, typer.Argument(help="Folder of the gallery.")]
Wait = Annotated[float, typer.Option("--wait", help="Seconds to wait for another writer.", min=0)]
Keys = Annotated[list[str] | None, typer.Argument(help="Keys of images.", show_default=False)]
KeyFile = Annotated[
    Path | None, typer.Option("--keys-from", help="A text file with one more key in each line.", show_default=False)
]


@gallery_app.command("verify")
def verify_command(gallery: Folder, as_json: Json = False) -> None:
    """Read every file of every version and compare it with its sha256; exit code 1 where one is damaged.

    Example: [bold]occluded-reid gallery verify mall/[/bold]
    """
    from occluded_reid.gallery import Gallery, verify_folder
    from occluded_reid.gallery.address import folder_of, kind_of

    folder = folder_of(gallery) if kind_of(gallery) == "folder" else None
    with progress_bar("verifying") as move:
        if folder is not None:  # which need not be whole enough to be opened
            report = verify_folder(folder, move)
        else:
            with Gallery.open(gallery) as store:
                report = store.verify(progress=move)
    if as_json:
        print_json({**dataclasses.asdict(report), "ok": report.ok})
    else:
        for line in report.lines():
            console().say(line)
    if not report.ok:
        raise typer.Exit(1)


@gallery_app.command("versions")
def versions_command(gallery: Folder, as_json: Json = False) -> None:
    """List the versions that can be opened, and what made them.

    Example: [bold]occluded-reid gallery versions mall/[/bold]
    """
    from rich.table import Table

    from occluded_reid.gallery import Gallery
    from occluded_reid.screen import cell

    with Gallery.open(gallery) as store:
        versions = store.versions()
    if as_json:
        print_json([dataclasses.asdict(version) for version in versions])
        return
    table = Table("version", "time (UTC)", "images", "made by")
    for version in versions:
        made = version.time[:19].replace("T", " ")
        table.add_row(str(version.version), cell(made), f"{version.images:,}", cell(version.action))
    console().print(table)


@gallery_app.command("compact")
def compact_command(
    gallery: Folder,
    keep_versions: Annotated[
        int, typer.Option("--keep-versions", help="How many of the newest versions stay.", min=1)
    ] = 2,
    wait: Wait = 0.0,
    as_json: Json = False,
) -> None:
    """Put small files together, and delete old versions and what crashed writers have left.

    Example: [bold]occluded-reid gallery compact mall/ --keep-versions 1[/bold]
    """
    from occluded_reid.gallery import Gallery

    with Gallery.open(gallery) as store, progress_bar("verifying before") as move:
        result = store.compact(keep_versions, wait=wait, progress=move)
    if as_json:
        print_json(dataclasses.asdict(result))
    elif result.bytes_before is None or result.bytes_after is None:
        console().print(f"{bold(gallery)}: the server {'has done it' if result.finished else 'goes on with it'}")
    else:
        console().print(
            f"{bold(gallery)}: {result.bytes_before / 1e6:,.1f} MB before, {result.bytes_after / 1e6:,.1f} MB now; "
            f"versions that can be opened: {', '.join(map(str, result.versions))}",
            soft_wrap=True,
        )


@gallery_app.command("build-index")
def build_index_command(
    gallery: Folder,
    factory: Annotated[
        str | None,
        typer.Argument(help="Such as 'Flat', 'IVF1024,Flat', 'IVF4096,SQfp16', 'HNSW32'. Default: by the size."),
    ] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say what it takes, and build nothing.")] = False,
    wait: Wait = 0.0,
    as_json: Json = False,
) -> None:
    """Index each slot, so that `search --effort` looks at few images; says what each effort finds.

    Example: [bold]occluded-reid gallery build-index mall/ IVF1024,Flat[/bold]
    """
    from occluded_reid.errors import UnsupportedError
    from occluded_reid.gallery import Gallery

    with Gallery.open(gallery) as store:
        try:
            needed = store.estimate_index(factory)
        except UnsupportedError:  # a server builds it all the same
            if estimate:
                raise
            needed = None
        if estimate:
            if as_json and needed is not None:
                print_json(dataclasses.asdict(needed))
            else:
                console().say(str(needed))
            return
        if needed is not None and not as_json:
            console().say(str(needed))
        with progress_bar("building") as move:
            info = store.build_index(factory, wait=wait, progress=move)
    if as_json:
        print_json(info.to_dict())
    else:
        console().card(str(info))


@gallery_app.command("neighbours")
def neighbours_command(
    gallery: Folder,
    k1: Annotated[int, typer.Option("--k1", help="Neighbours of an image.", min=1)] = 20,
    wait: Wait = 0.0,
    as_json: Json = False,
) -> None:
    """Compute the nearest images of each image, for `search --rerank`; with an index, by it.

    Example: [bold]occluded-reid gallery neighbours mall/[/bold]
    """
    from occluded_reid.gallery import Gallery

    with Gallery.open(gallery) as store, progress_bar("neighbours") as move:
        store.build_neighbours(k1, wait=wait, progress=move)
        total = len(store)
    if as_json:
        print_json({"images": total, "k1": k1})
    else:
        console().print(f"{bold(gallery)}: the {k1} nearest of {total} images are known", soft_wrap=True)


@gallery_app.command("remove")
def remove_command(
    gallery: Folder, keys: Keys = None, keys_from: KeyFile = None, wait: Wait = 0.0, as_json: Json = False
) -> None:
    """Hide images from now on; older versions of the gallery still hold them.

    Example: [bold]occluded-reid gallery remove mall/ 0001_c1s1.jpg --keys-from more.txt[/bold]
    """
    from occluded_reid.gallery import Gallery

    with Gallery.open(gallery) as store:
        count = store.remove(read_keys(keys, keys_from), wait=wait)
        total = len(store)
    if as_json:
        print_json({"removed": count, "total": total})
    else:
        console().print(f"{bold(gallery)}: {count} images removed, {total} are left", soft_wrap=True)


@gallery_app.command("erase")
def erase_command(
    gallery: Folder,
    keys: Keys = None,
    keys_from: KeyFile = None,
    caches: Annotated[
        list[Path] | None,
        typer.Option("--cache", help="Folder of cached crops to forget them in (repeatable).", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: this cannot be undone.")] = False,
    wait: Wait = 0.0,
    as_json: Json = False,
) -> None:
    """Delete images for good: from every version, every index and every given cache. Older versions go with them.

    Example: [bold]occluded-reid gallery erase mall/ 0001_c1s1.jpg --yes[/bold]
    """
    from occluded_reid.gallery import Gallery

    wanted = read_keys(keys, keys_from)
    if not yes:
        _confirm(f"Erase {len(set(wanted))} images and all older versions of '{gallery}' for good?")
    with Gallery.open(gallery) as store, progress_bar("verifying before") as move:
        result = store.erase(wanted, caches=caches or [], wait=wait, progress=move)
        total = len(store)
    if as_json:
        print_json({**dataclasses.asdict(result), "total": total})
    else:
        console().print(
            f"{bold(gallery)}: {result.images} images erased, {total} are left; {result.versions_dropped} older "
            f"versions dropped, {result.crops_forgotten} cached crops forgotten",
            soft_wrap=True,
        )


def _confirm(question: str) -> None:
    """Ask on stderr, so that stdout stays what the command answers; end the line where nobody has pressed Enter.

    Raises:
        Abort: the answer is no, or there is none.
    """
    if sys.stdin is None:
        raise typer.BadParameter("there is nobody to ask; give --yes.")
    try:
        answer = typer.confirm(question, err=True)
    except typer.Abort:
        typer.echo(err=True)
        raise
    if not sys.stdin.isatty():
        typer.echo(err=True)
    if not answer:
        raise typer.Abort
