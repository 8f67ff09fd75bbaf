"""`occluded-reid index`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from occluded_reid.cli.console import (
    DatasetName,
    Holdout,
    Json,
    Masks,
    Seed,
    bold,
    console,
    open_data,
    print_json,
    progress_bar,
)

__all__ = ["index_command"]


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
    gallery: Annotated[Path, typer.Argument(help="Folder of the gallery; made if it does not exist.")],
    model: Annotated[Path, typer.Option("--model", help="Folder of a trained model.")],
    data: Annotated[
        Path, typer.Option("--data", help="Folder of images: a data set, or any folder with --dataset folder.")
    ],
    dataset: DatasetName = "market1501",
    split: Annotated[Split, typer.Option(help="Which images of the data set.")] = Split.GALLERY,
    masks: Masks = None,
    holdout: Holdout = 0,
    dtype: Annotated[Width, typer.Option(help="How embeddings are stored in a new gallery.")] = Width.FLOAT16,
    skip_unreadable: Annotated[bool, typer.Option(help="Count unreadable images instead of stopping.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Embed images and keep them in a gallery on disk; images it holds already are not embedded again.

    Example: [bold]occluded-reid index mall/ --model runs/sorn/model --data photos/ --dataset folder --split all[/bold]
    """
    from occluded_reid.errors import DataError
    from occluded_reid.gallery import Gallery
    from occluded_reid.models import load_model

    network = load_model(model)
    loaded = open_data(dataset, data, masks, holdout, seed)
    splits = {Split.GALLERY: loaded.gallery, Split.QUERY: loaded.query, Split.TRAIN: loaded.train}
    samples = splits[split] if split is not Split.ALL else (*loaded.train, *loaded.query, *loaded.gallery)
    if not samples:
        raise DataError(
            f"the split '{split}' of '{data}' is empty. Use --split all, or --holdout N for a data set that has only "
            "a training split."
        )
    empty = gallery.is_dir() and not any(gallery.iterdir())
    store = (
        Gallery.open(gallery, model=network)
        if gallery.exists() and not empty
        else Gallery.create(gallery, model=network, dtype=dtype.value)
    )
    with store, progress_bar("indexing") as move:
        result = store.add(
            [sample.path for sample in samples],
            keys=[sample.name for sample in samples],
            identity=[sample.identity for sample in samples],
            # Where nothing tells cameras apart, samples carry numbers that only keep evaluation from excluding them.
            camera=[sample.camera if loaded.cameras_known else None for sample in samples],
            time=[sample.time for sample in samples],
            track=[sample.track for sample in samples],
            skip_unreadable=skip_unreadable,
            progress=move,
        )
        total = len(store)
    if as_json:
        print_json(
            {
                "gallery": str(gallery),
                "model": network.fingerprint,
                "added": result.added,
                "skipped": result.skipped,
                "unreadable": list(result.unreadable),
                "total": total,
            }
        )
    else:
        console().print(
            f"{bold(gallery)}: {result.added} images added, {result.skipped} were there already, {total} in all "
            f"({network.fingerprint})",
            soft_wrap=True,
        )
        for path in result.unreadable:
            console().print(f"left out, cannot be read: {path}", markup=False, soft_wrap=True)
