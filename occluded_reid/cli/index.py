"""`occluded-reid index`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from occluded_reid.cli.console import (
    DataOptions,
    DatasetName,
    Device,
    Holdout,
    Json,
    Masks,
    Seed,
    bold,
    console,
    open_data,
    print_json,
    progress_bar,
    read_widths,
)
from occluded_reid.cli.workers import this_worker, wait_for

__all__ = ["index_command"]

_WAIT = 600.0  # seconds that one worker waits for another to write


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


def index_command(
    gallery: Annotated[
        str, typer.Argument(help="Folder, or address (milvus://…, s3://…), of the gallery; made if it does not exist.")
    ],
    model: Annotated[Path, typer.Option("--model", help="Folder of a trained model.")],
    data: Annotated[
        Path, typer.Option("--data", help="Folder of images: a data set, or any folder with --dataset folder.")
    ],
    dataset: DatasetName = "market1501",
    options: DataOptions = None,
    split: Annotated[Split, typer.Option(help="Which images of the data set.")] = Split.GALLERY,
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
    device: Device = "auto",
    skip_unreadable: Annotated[bool, typer.Option(help="Count unreadable images instead of stopping.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Embed images and keep them in a gallery on disk; images it holds already are not embedded again.

    Started by [bold]torchrun[/bold] or [bold]accelerate launch[/bold], each process embeds its share of the images. If
    one is lost, what it has not written is missing: the same command again completes it.

    Example: [bold]occluded-reid index mall/ --model runs/sorn/model --data photos/ --dataset folder --split all[/bold]
    """
    from occluded_reid.errors import DataError, GalleryError
    from occluded_reid.evaluation.reduction_loss import fit_on_training
    from occluded_reid.gallery import Gallery
    from occluded_reid.models import load_model
    from occluded_reid.search.device import choose_device

    worker = this_worker()
    place = choose_device(device)
    if device == "auto" and worker.count > 1 and place.type == "cuda":
        place = choose_device(f"cuda:{worker.local}")
    network = load_model(model).to(place)
    widths = read_widths(reduce)
    loaded = open_data(dataset, data, masks, holdout, seed, options=options)
    splits = {Split.GALLERY: loaded.gallery, Split.QUERY: loaded.query, Split.TRAIN: loaded.train}
    samples = splits[split] if split is not Split.ALL else (*loaded.train, *loaded.query, *loaded.gallery)
    if not samples:
        raise DataError(
            f"the split '{split}' of '{data}' is empty. Use --split all, or --holdout N for a data set that has only "
            "a training split."
        )
    mine = worker.share(samples)
    if worker.index:  # the first worker makes it
        wait_for(lambda: Gallery.exists(gallery), f"the gallery '{gallery}'", _WAIT)
    if Gallery.exists(gallery):
        store = Gallery.open(gallery, model=network, device=str(place))
        if widths and not worker.index:
            raise GalleryError(f"'{gallery}' exists, and --reduce is for a new gallery. Choose another folder.")
    else:
        with progress_bar("fitting the reduction") as move:
            reduction = fit_on_training(network, loaded, widths, progress=move)[0] if widths else None
        store = Gallery.create(gallery, model=network, dtype=dtype.value, reduce=reduction, device=str(place))
    with store, progress_bar("indexing" if worker.count == 1 else f"worker {worker.index}") as move:
        result = store.add(
            [sample.path for sample in mine],
            keys=[sample.name for sample in mine],
            identity=[sample.identity for sample in mine],
            # Where nothing tells cameras apart, samples carry numbers that only keep evaluation from excluding them.
            camera=[sample.camera if loaded.cameras_known else None for sample in mine],
            time=[sample.time for sample in mine],
            track=[sample.track for sample in mine],
            skip_unreadable=skip_unreadable,
            progress=move,
            wait=_WAIT if worker.count > 1 else 0.0,
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
                "unreadable": list(result.unreadable),
                "total": total,
                "worker": worker.index,
                "index": None if built is None else built.to_dict(),
            }
        )
    else:
        who = f"worker {worker.index} of {worker.count}: " if worker.count > 1 else ""
        console().print(
            f"{who}{bold(gallery)}: {result.added} images added, {result.skipped} were there already, {total} in all "
            f"({network.fingerprint})",
            soft_wrap=True,
        )
        if built is not None:
            console().card(str(built))
        for path in result.unreadable:
            console().say(f"left out, cannot be read: {path}")
