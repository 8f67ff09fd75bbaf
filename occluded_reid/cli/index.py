"""`occluded-reid index`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from occluded_reid.cli.completing import complete_model
from occluded_reid.cli.console import (
    DataOptions,
    Device,
    Holdout,
    Json,
    Masks,
    PrecisionOption,
    Preset,
    Seed,
    bold,
    console,
    print_json,
    progress_bar,
    read_widths,
    set_precision,
)
from occluded_reid.cli.given_images import given_images
from occluded_reid.cli.workers import this_worker, wait_for

if TYPE_CHECKING:
    from occluded_reid.models import ReIDModel

__all__ = ["index_command"]

_WAIT = 600.0  # seconds that one worker waits for another to write


@contextmanager
def _advised() -> Iterator[None]:
    """Say of an unreadable image how to go on without it."""
    from occluded_reid.errors import ImageError

    try:
        yield
    except ImageError as cause:
        raise ImageError(f"{cause} Or leave out what cannot be read: --skip-unreadable.") from cause


class Width(StrEnum):
    """How embeddings are stored."""

    FLOAT16 = "float16"
    FLOAT32 = "float32"


class Split(StrEnum):
    """Which images of a data set."""

    GALLERY = "gallery"
    QUERY = "query"
    TRAIN = "train"
    ALL = "all"


class CameraFrom(StrEnum):
    """What else names the camera of an image."""

    FOLDER = "folder"


def index_command(
    gallery: Annotated[
        str, typer.Argument(help="Folder, or address (milvus://…, s3://…), of the gallery; made if it does not exist.")
    ],
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Images of unknown people: folders of any shape, image files, or a CSV file with the column path.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Folder of a trained model, or a network's .onnx or .xml file. Default: the model that the gallery "
            "was made with; for a new one oreid_lite, which comes with the library.",
            autocompletion=complete_model,
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Instead: folder of a data set, with identities.", show_default=False),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="Layout of that folder; see `occluded-reid list datasets`. Default: market1501 with --data, else "
            "'images', which reads no identities.",
            show_default=False,
        ),
    ] = None,
    options: DataOptions = None,
    split: Annotated[
        Split | None,
        typer.Option(help="Which images of the data set. Default: gallery with --data, else all.", show_default=False),
    ] = None,
    camera_pattern: Annotated[
        str | None,
        typer.Option(
            "--camera-pattern",
            help="Regular expression whose group is the camera in an image's path: '_c(\\d+)'. Names are welcome.",
            show_default=False,
        ),
    ] = None,
    camera_from: Annotated[
        CameraFrom | None,
        typer.Option("--camera-from", help="'folder': the folder that an image lies in is its camera."),
    ] = None,
    time_pattern: Annotated[
        str | None,
        typer.Option(
            "--time-pattern",
            help="Likewise for the time: '_(\\d{8}_\\d{6})'. Understood are seconds, milliseconds of 13 digits, "
            "20240501_093000 and ISO 8601.",
            show_default=False,
        ),
    ] = None,
    time_format: Annotated[
        str | None,
        typer.Option("--time-format", help="How that time is written, if otherwise: '%d%m%Y-%H%M'."),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            help="Keys are paths relative to this folder; so are the paths of a CSV file, which may be absolute or "
            "hold '..' if they lie below it. Default: the folder of the images.",
            show_default=False,
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option("--prefix", help="Put this before each key: 'tuesday/'.", show_default=False),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Replace images whose key is there with other content or labels; what is not said anew is unknown.",
        ),
    ] = False,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for another writer.", min=0)] = 0.0,
    masks: Masks = None,
    holdout: Holdout = 0,
    dtype: Annotated[Width, typer.Option(help="How embeddings are stored in a new gallery.")] = Width.FLOAT16,
    reduce: Annotated[
        list[str] | None,
        typer.Option(help="Make a slot smaller in a new gallery: --reduce global=256, fitted on training images."),
    ] = None,
    build_index: Annotated[
        str | None, typer.Option(help="Build this index afterwards, such as 'auto', 'Flat' or 'IVF1024,Flat'.")
    ] = None,
    preset: Preset = None,
    device: Device = "auto",
    precision: PrecisionOption = None,
    skip_unreadable: Annotated[bool, typer.Option(help="Count unreadable images instead of stopping.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Embed images and keep them in a gallery on disk; images it holds already are not embedded again.

    An image's key is its path below the folder that is given. Where such a key is another image's already, as on a
    second day with the same file names, all keys of the folder begin with its name, and a line says so; --prefix and
    --root say it otherwise.

    Started by [bold]torchrun[/bold] or [bold]accelerate launch[/bold], each process embeds its share of the images. If
    one is lost, what it has not written is missing: the same command again completes it.

    Example: [bold]occluded-reid index mall/ photos/ --camera-from folder[/bold]
    """
    from occluded_reid.errors import DataError, GalleryError
    from occluded_reid.evaluation.studies.reduction_loss import fit_on_training
    from occluded_reid.gallery import Gallery
    from occluded_reid.gallery.keys import distinct_prefix
    from occluded_reid.gallery.known_model import compute_alike
    from occluded_reid.search.device import choose_device

    found = given_images(
        images,
        data,
        dataset,
        root,
        {
            "camera_pattern": camera_pattern,
            "camera_from": None if camera_from is None else camera_from.value,
            "time_pattern": time_pattern,
            "time_format": time_format,
        },
    )
    worker = this_worker()
    place = choose_device(device)
    if device == "auto" and worker.count > 1 and place.type == "cuda":
        place = choose_device(f"cuda:{worker.local}")
    network = _network(gallery, model, preset).to(place)
    set_precision(network, precision)
    widths = read_widths(reduce)
    loaded = found.load(masks, holdout, seed, options)
    split = split or (Split.GALLERY if data is not None else Split.ALL)
    splits = {Split.GALLERY: loaded.gallery, Split.QUERY: loaded.query, Split.TRAIN: loaded.train}
    samples = splits[split] if split is not Split.ALL else (*loaded.train, *loaded.query, *loaded.gallery)
    if not samples:
        raise DataError(
            f"the split '{split}' of '{loaded.root}' is empty. Use --split all, or --holdout N for a data set that has "
            "only a training split."
        )
    names = [found.name_of(sample) for sample in samples]
    mine = worker.share(samples)
    if worker.index:  # the first worker makes it
        wait_for(lambda: Gallery.exists(gallery), f"the gallery '{gallery}'", _WAIT)
    if Gallery.exists(gallery):
        store = Gallery.open(gallery, model=network, device=str(place))
        if precision is None:
            compute_alike(store.manifest, network)
        if widths and not worker.index:
            raise GalleryError(f"'{gallery}' exists, and --reduce is for a new gallery. Choose another folder.")
    else:
        with progress_bar("fitting the reduction") as move:
            reduction = fit_on_training(network, loaded, widths, progress=move)[0] if widths else None
        store = Gallery.create(gallery, model=network, dtype=dtype.value, reduce=reduction, device=str(place))
    if prefix is None and root is None:
        prefix, taken = distinct_prefix(store, names, [sample.path for sample in samples], loaded.root)
        if taken is not None and prefix:
            console(quiet=True).say(
                f"keys begin with '{prefix}': without it '{taken}' would be that of another image in the gallery"
            )
    places = {sample.name: f"{prefix or ''}{name}" for sample, name in zip(samples, names, strict=True)}
    with _advised(), store, progress_bar("indexing" if worker.count == 1 else f"worker {worker.index}") as move:
        result = store.add(
            [sample.path for sample in mine],
            keys=[places[sample.name] for sample in mine],
            identity=[sample.identity for sample in mine],
            # Where nothing tells cameras apart, samples carry numbers that only keep evaluation from excluding them.
            camera=[loaded.camera_label(sample.camera) for sample in mine],
            time=[sample.time for sample in mine],
            track=[sample.track for sample in mine],
            replace=replace,
            skip_unreadable=skip_unreadable,
            progress=move,
            wait=_WAIT if worker.count > 1 else wait,
        )
        total, built = len(store), None
        if build_index is not None and worker.index == 0:
            with progress_bar("building the index") as move:
                built = store.build_index(None if build_index == "auto" else build_index, wait=_WAIT, progress=move)
    if as_json:
        print_json(
            {
                "gallery": gallery,
                "model": network.fingerprint,
                "added": result.added,
                "skipped": result.skipped,
                "replaced": result.replaced,
                "prefix": prefix or "",
                "unreadable": list(result.unreadable),
                "total": total,
                "worker": worker.index,
                "index": None if built is None else built.to_dict(),
            }
        )
    else:
        replaced = f"{result.replaced} were replaced, " if replace else ""
        who = f"worker {worker.index} of {worker.count}: " if worker.count > 1 else ""
        console().print(
            f"{who}{bold(gallery)}: {result.added} images added, {result.skipped} were there already, {replaced}"
            f"{total} in all ({network.fingerprint})",
            soft_wrap=True,
        )
        if built is not None:
            console().card(str(built))
        for path in result.unreadable:
            console().say(f"left out, cannot be read: {path}")


def _network(gallery: str, model: str | None, preset: str | None) -> ReIDModel:
    """The model that is named; or else the one that the gallery was made with, or that comes with the library."""
    from occluded_reid.gallery import Gallery
    from occluded_reid.gallery.known_model import default_model
    from occluded_reid.models import load_model

    if model is not None:
        return load_model(model, preset=preset)
    if preset is not None:
        raise typer.BadParameter("--preset is about the network of --model, and none is given. Leave it out.")
    if not Gallery.exists(gallery):
        return default_model()
    with Gallery.open(gallery, device="cpu") as store:
        return cast("ReIDModel", store.model)
