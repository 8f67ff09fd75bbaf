"""`occluded-reid sweep`."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from occluded_reid.cli.completing import complete_model
from occluded_reid.cli.console import (
    CameraRule,
    DataOptions,
    DataRoot,
    DatasetName,
    Holdout,
    Json,
    Masks,
    Preset,
    Seed,
    SkipUnreadable,
    bold,
    camera_rule,
    check_output_folder,
    console,
    open_data,
    print_json,
    progress_bar,
)
from occluded_reid.cli.evaluate import Take

if TYPE_CHECKING:
    from occluded_reid.data.dataset import Split
    from occluded_reid.evaluation.studies.sweep.result import Sweep

__all__ = ["sweep_command"]


class Kind(StrEnum):
    """From where and by what queries are occluded; `occluded_reid.data.occlusion.kinds` says it in words."""

    BOTTOM = "bottom"
    SIDE = "side"
    TOP = "top"
    OBJECT = "object"
    PEDESTRIAN = "pedestrian"


def sweep_command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Folders of trained models, names of those that come with the library, or networks' files.",
            autocompletion=complete_model,
        ),
    ],
    data: DataRoot,
    output: Annotated[
        Path,
        typer.Option(
            help="Folder for sweep.json, .csv, .md, .png and .svg. Models that were measured there under the same "
            "settings are not measured again.",
            callback=check_output_folder,
        ),
    ],
    dataset: DatasetName = "market1501",
    options: DataOptions = None,
    masks: Masks = None,
    holdout: Holdout = 0,
    kind: Annotated[
        list[Kind] | None, typer.Option(help="Kind of occlusion (repeatable). Default: all of them.")
    ] = None,
    severity: Annotated[
        list[float] | None,
        typer.Option(help="Share of each body mask to occlude (repeatable). Default: 0, 0.1, … 0.7.", min=0, max=1),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Repeat each occlusion with this many seeds.", min=1)] = 1,
    occluders: Annotated[
        str, typer.Option(help="Objects to occlude with: 'generated', or a folder of RGBA cut-outs.")
    ] = "generated",
    take: Annotated[
        Take, typer.Option(help="Of a folder, the cut-outs at these positions in the order of their names.")
    ] = Take.ALL,
    exclude_same_camera: CameraRule = None,
    skip_unreadable: SkipUnreadable = False,
    preset: Preset = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure models on queries of which more and more is occluded, and the area under that curve.

    Example: [bold]occluded-reid sweep runs/sorn/model runs/pcb/model --data market/ --masks masks/ --output out[/bold]
    """
    from occluded_reid.data.occlusion.kinds import OCCLUSION_KINDS, open_kinds
    from occluded_reid.errors import EvaluationError
    from occluded_reid.evaluation import Protocol
    from occluded_reid.evaluation.studies.sweep.measure import SEVERITIES, is_sweep_of, sweep, sweep_settings
    from occluded_reid.evaluation.studies.sweep.sweeps import Sweeps, read_sweeps
    from occluded_reid.models import load_model
    from occluded_reid.models.checkpoint import require_model
    from occluded_reid.models.embedder import is_network

    screen = console(quiet=as_json)
    for folder in models:
        require_model(folder)
    if preset is not None and not any(map(is_network, models)):
        raise typer.BadParameter("--preset is about networks' files (.onnx, .xml), and none is given. Leave it out.")
    readable: tuple[Split, ...] = ("query", "gallery") if skip_unreadable else ()
    loaded = open_data(dataset, data, masks, holdout, seed, options=options, readable=readable)
    protocol = Protocol.of(loaded, seed=seed, exclude_same_camera=camera_rule(loaded, exclude_same_camera))
    kinds = open_kinds(
        [k.value for k in kind] if kind else tuple(OCCLUSION_KINDS),
        occluders=occluders,
        people=loaded.gallery,
        take=take.value,
        seed=seed,
    )
    shares, draws = severity or SEVERITIES, range(seed, seed + seeds)
    settings = sweep_settings(loaded, kinds, shares, draws, protocol)
    kept: list[Sweep] = list(read_sweeps(output / "sweep.json")) if (output / "sweep.json").exists() else []
    if differing := kept[0].settings.differing(settings) if kept else []:
        raise EvaluationError(
            f"'{output}' holds sweeps under other settings; they differ in {'; '.join(differing)} (there and here). "
            "Choose another --output, or remove that folder."
        )
    kept = [replace(found, settings=settings) for found in kept]  # intervals as they are wanted now
    done: list[Sweep] = []
    for number, folder in enumerate(models, start=1):
        network = load_model(folder, preset=preset if is_network(folder) else None)
        if any(is_sweep_of(found, network, settings) for found in done):
            screen.print(f"{bold(folder)} is given twice; measured once.", soft_wrap=True)
            continue
        before = next((found for found in kept if is_sweep_of(found, network, settings)), None)
        if before is not None:
            kept.remove(before)
            done.append(before)
            screen.print(
                f"{bold(network.fingerprint)} was measured before, under the same settings; taken from there.",
                soft_wrap=True,
            )
            continue
        with progress_bar(f"sweeping {network.name} ({number} of {len(models)})") as move:
            found = sweep(
                network, loaded, kinds=kinds, severities=shares, seeds=draws, protocol=protocol, progress=move
            )
        done.append(found)
        Sweeps(_named([*done, *kept])).save(output)  # from there an interrupted command goes on
    result = Sweeps(_named([*done, *kept]))
    paths = result.save(output)
    if as_json:
        print_json(result.to_dict(per_query=False))
    else:
        screen.print(result.table())
        screen.print(result.card(), markup=False)
    screen.print(f"written: {', '.join(bold(path) for path in paths)}", soft_wrap=True)


def _named(sweeps: list[Sweep]) -> tuple[Sweep, ...]:
    """Give each sweep the name of its recipe, or its fingerprint where another has that name."""
    names: set[str] = set()
    named = []
    for found in sweeps:
        recipe = found.model.partition("@")[0]
        named.append(replace(found, name=found.model if recipe in names else recipe))
        names.add(recipe)
    return tuple(named)
