"""`occluded-reid evaluate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from occluded_reid.cli.console import (
    CameraRule,
    DataOptions,
    DataRoot,
    DatasetName,
    Holdout,
    Json,
    Masks,
    ModelArgument,
    PrecisionOption,
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
    read_widths,
    set_precision,
)

if TYPE_CHECKING:
    from occluded_reid.data.dataset import Split

__all__ = ["evaluate_command"]


class Matching(StrEnum):
    """How slots and visibility are used; `occluded_reid.evaluation.studies.study.MATCHINGS` says it in words."""

    OWN = "own"
    GLOBAL = "global"
    ALL_SLOTS = "all_slots"
    TRUE = "true"


class Take(StrEnum):
    """Which cut-outs of a folder; training may take the even ones and testing the odd ones."""

    ALL = "all"
    EVEN = "even"
    ODD = "odd"


class AveragePrecision(StrEnum):
    """How the area under the precision-recall curve is taken."""

    HITS = "hits"
    TRAPEZOID = "trapezoid"


def evaluate_command(
    model: ModelArgument,
    data: DataRoot,
    dataset: DatasetName = "market1501",
    options: DataOptions = None,
    masks: Masks = None,
    holdout: Holdout = 0,
    matching: Annotated[
        list[Matching] | None,
        typer.Option(help="How slots and visibility are used (repeatable). Default: own."),
    ] = None,
    occlusion: Annotated[
        list[float] | None,
        typer.Option(help="Also occlude this share of each query's body mask, 0 … 1 (repeatable).", min=0, max=1),
    ] = None,
    occluders: Annotated[
        str, typer.Option(help="'generated', 'pedestrians' (cut out of the gallery), or a folder of RGBA cut-outs.")
    ] = "generated",
    take: Annotated[
        Take, typer.Option(help="Of a folder, the cut-outs at these positions in the order of their names.")
    ] = Take.ALL,
    occlusion_seeds: Annotated[int, typer.Option(help="Repeat each occlusion with this many seeds.", min=1)] = 5,
    ap: Annotated[
        AveragePrecision, typer.Option(help="Average precision at the hits, or by trapezoid.")
    ] = AveragePrecision.HITS,
    reduce: Annotated[
        list[str] | None,
        typer.Option(
            help="Also measure what a smaller slot costs, fitted on the training images: global=256 (repeatable)."
        ),
    ] = None,
    rerank: Annotated[
        bool,
        typer.Option("--rerank", help="Re-rank by k-reciprocal encoding (k1 20, k2 6, weight 0.3); uses all queries."),
    ] = False,
    tuned: Annotated[
        Path | None, typer.Option(help="Take the settings that `tune` has chosen and written to this file.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Folder for a self-contained HTML report with pictures.", callback=check_output_folder),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            help="Folder for a file a report, with the numbers of each query, for `compare`.",
            callback=check_output_folder,
        ),
    ] = None,
    exclude_same_camera: CameraRule = None,
    precision: PrecisionOption = None,
    skip_unreadable: SkipUnreadable = False,
    preset: Preset = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure CMC, mAP and mINP with 95 % intervals, on clean and on occluded queries.

    Example: [bold]occluded-reid evaluate runs/sorn/model --data market/ --masks masks/ --occlusion 0.35[/bold]
    """
    from occluded_reid.data.occlusion.stock import open_occluders
    from occluded_reid.evaluation import Protocol
    from occluded_reid.evaluation.studies.study import study
    from occluded_reid.models import load_model
    from occluded_reid.search.rerank.k_reciprocal import KReciprocal

    network = load_model(model, preset=preset)
    set_precision(network, precision)
    widths = read_widths(reduce)
    readable: tuple[Split, ...] = (*(("train",) if widths else ()), "query", "gallery") if skip_unreadable else ()
    loaded = open_data(dataset, data, masks, holdout, seed, options=options, readable=readable)
    chosen = None
    if tuned is not None:
        from occluded_reid.evaluation.leakage import require_untouched
        from occluded_reid.evaluation.studies.tuned import Tuned

        chosen = Tuned.load(tuned)
        require_untouched(chosen, loaded, fingerprint=network.fingerprint)
        network = chosen.apply(network)
        if rerank and chosen.rerank is not None:
            raise typer.BadParameter("--tuned settles the re-ranking already; leave --rerank out.")
    protocol = Protocol.of(loaded, ap=ap.value, seed=seed, exclude_same_camera=camera_rule(loaded, exclude_same_camera))
    things = open_occluders(occluders, people=loaded.gallery, take=take.value, seed=seed)
    with progress_bar("evaluating") as move:
        result = study(
            network,
            loaded,
            matchings=[m.value for m in matching or [Matching.OWN]],
            fractions=occlusion or [],
            occluders=things,
            seeds=range(seed, seed + occlusion_seeds),
            protocol=protocol,
            rerank=(chosen and chosen.rerank) or (KReciprocal() if rerank else None),
            tuned="" if chosen is None else chosen.text,
            progress=move,
        )
    loss = None
    if widths:
        from occluded_reid.evaluation.studies.reduction_loss import fit_on_training, reduction_loss

        with progress_bar("fitting the reduction") as move:
            reduction, fitted_on = fit_on_training(network, loaded, widths, progress=move)
        sides = (result.query, result.gallery)
        loss = reduction_loss(
            *sides, network.matcher, reduction, protocol, fingerprint=network.fingerprint, fitted_on=fitted_on
        )
    if as_json:
        print_json(result.to_dict() if loss is None else {**result.to_dict(), "reduction": loss.to_dict()})
    else:
        if result.warning:
            console().say(f"warning: {result.warning}")
        console().print(result.table())
        console().print(result.card(), markup=False)
        if loss is not None:
            console().print(loss.table())
    if save is not None:
        files = result.save_reports(save)
        console(quiet=as_json).print(f"reports: {bold(save)} ({len(files)} files)", soft_wrap=True)
    if report is not None:
        from occluded_reid.evaluation.pictures import write_report

        path = write_report(report, network, loaded, result, log=Path(model).parent / "log.jsonl")
        console(quiet=as_json).print(f"report: {bold(path)}", soft_wrap=True)
