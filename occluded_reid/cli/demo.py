"""`occluded-reid demo`: the whole road on the synthetic set, with nothing to download."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from occluded_reid.cli.console import (
    Json,
    Overrides,
    Seed,
    bold,
    check_output_folder,
    console,
    print_json,
    progress_bar,
    read_overrides,
)

if TYPE_CHECKING:
    from occluded_reid.data.dataset import ReIDData
    from occluded_reid.models import ReIDModel

__all__ = ["demo_command"]


def demo_command(
    output: Annotated[
        Path,
        typer.Option("--output", help="Folder for data, model, gallery and report.", callback=check_output_folder),
    ] = Path("demo"),
    overrides: Overrides = None,
    train_identities: Annotated[
        int | None, typer.Option(help="Draw this many people to train on. Default: 160.", min=2, show_default=False)
    ] = None,
    test_identities: Annotated[
        int | None, typer.Option(help="Draw this many people to search for. Default: 60.", min=1, show_default=False)
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Draw pedestrians; search them with the model that comes with the library; train sorn_lite, evaluate, report.

    A finished demo in the same folder is replaced; the drawn data are kept.

    Example: [bold]occluded-reid demo --output demo[/bold]
    """
    from occluded_reid.config import load_recipe
    from occluded_reid.data.dataset import load_dataset
    from occluded_reid.data.synthetic import SyntheticOptions, generate
    from occluded_reid.evaluation import Protocol
    from occluded_reid.evaluation.pictures import write_report
    from occluded_reid.evaluation.studies.study import study
    from occluded_reid.models import load_model
    from occluded_reid.training import train

    screen = console(quiet=as_json)
    started = time.monotonic()
    recipe = load_recipe("sorn_lite", {**DEMO, **read_overrides(overrides)})
    drawn = SyntheticOptions(
        train_identities=train_identities or SyntheticOptions.train_identities,
        test_identities=test_identities or SyntheticOptions.test_identities,
        seed=seed,
    )
    _clear(output)
    screen.rule("1 of 6: draw pedestrians")
    with progress_bar("drawing") as move:
        generate(output / "data", drawn, progress=move)
    data = load_dataset("synthetic", output / "data")
    screen.print(data.format_card(), markup=False)
    screen.rule("2 of 6: the first minute: no label, no training, the model that comes with the library")
    _first_minute(data, output)
    screen.rule("3 of 6: train sorn_lite from random values")
    result = train(recipe, data, output / "run", seed=seed)
    model = load_model(result.model)
    screen.rule("4 of 6: index the gallery")
    _index(model, data, output / "gallery")
    screen.rule("5 of 6: search it for three people")
    _search(model, data, output)
    screen.rule("6 of 6: evaluate, against the same network's global slot alone")
    with progress_bar("evaluating") as move:
        found = study(
            model, data, matchings=("own", "global", "all_slots", "true"), protocol=Protocol(seed=seed), progress=move
        )
    page = write_report(output / "report", model, data, found, log=output / "run" / "log.jsonl")
    screen.print(found.table())
    screen.print(found.card(), markup=False)
    screen.print("\n" + bold(f"{time.monotonic() - started:.0f} s in all. Open {page}"), soft_wrap=True)
    if as_json:
        print_json({**found.to_dict(), "report": str(page)})


_CROPS = 120  # of the first minute

DEMO = {
    "model.backbone.weights": None,
    "data.batch": 16,
    "optim.lr": 1e-3,
    "optim.weight_decay": 1e-4,
    "optim.epochs": 8,
    "optim.warmup_epochs": 1,
    "optim.steps": {6: 0.3, 8: 0.1},
}
"""What differs from the recipe: random initial values instead of ImageNet's, which would have to be downloaded, and so
smaller batches and a higher rate."""


def _clear(output: Path) -> None:
    """Remove what a demo before has left; folders of these names that are not a demo's are somebody's work."""
    from occluded_reid.data.synthetic import LISTING
    from occluded_reid.errors import DataError

    left = [output / name for name in ("crops", "run", "gallery", "report") if (output / name).exists()]
    if left and not (output / "data" / LISTING).is_file():
        raise DataError(f"'{left[0]}' is not of a demo, and would be replaced by it. Choose another --output.")
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)


def _first_minute(data: ReIDData, output: Path) -> None:
    """Index some unlabelled crops, search them, and ask whether two images show one person."""
    from occluded_reid.errors import CheckpointError
    from occluded_reid.evaluation.pictures import save_picture, search_picture
    from occluded_reid.evaluation.same import same
    from occluded_reid.gallery import Gallery
    from occluded_reid.gallery.known_model import default_model

    screen = console(quiet=True)
    try:
        model = default_model()
    except CheckpointError as cause:  # the rest of the demo needs none
        screen.say(f"left out: {cause}")
        return
    asked, crops = data.query[0].path, [sample.path for sample in data.gallery[:_CROPS]]
    with Gallery.create(output / "crops", model=model) as gallery, progress_bar("indexing") as move:
        gallery.add(crops, progress=move)
        found = gallery.search([asked], 8)
    picture = save_picture(search_picture(model, [asked], found), output / "first_minute.png")
    screen.say(f"{len(crops)} crops in {output / 'crops'}; found for {asked}: {picture}")
    screen.say(f"{asked} and {found[0][0].path}:")
    for line in same(asked, Path(str(found[0][0].path)), model).lines():
        screen.say(f"  {line}")


def _index(model: ReIDModel, data: ReIDData, folder: Path) -> None:
    from occluded_reid.gallery import Gallery

    samples = data.gallery
    with Gallery.create(folder, model=model) as gallery, progress_bar("indexing") as move:
        gallery.add(
            [sample.path for sample in samples],
            keys=[sample.name for sample in samples],
            identity=[sample.identity for sample in samples],
            camera=[sample.camera for sample in samples],
            progress=move,
        )
        console(quiet=True).say(f"{len(gallery)} images in {folder}")


def _search(model: ReIDModel, data: ReIDData, output: Path) -> None:
    from occluded_reid.evaluation.pictures import save_picture, search_picture
    from occluded_reid.gallery import Gallery

    asked = [data.query[i].path for i in (0, len(data.query) // 3, 2 * len(data.query) // 3)]
    with Gallery.open(output / "gallery", model=model) as gallery:
        found = gallery.search(asked, 8)
    picture = save_picture(search_picture(model, asked, found), output / "search.png")
    console(quiet=True).say(f"ranked lists: {picture}")
