"""What an evaluation and a search look like: ranked lists, masks, maps, and the HTML report."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from occluded_reid.data.dataset import ReIDData, Sample
from occluded_reid.errors import EvaluationError, ImageError
from occluded_reid.evaluation.studies.failures.find import find_failures
from occluded_reid.evaluation.studies.failures.ranked_rows import as_seen, query_row, ranked_rows
from occluded_reid.evaluation.studies.failures.result import Failures
from occluded_reid.evaluation.studies.study import MATCHINGS, Study
from occluded_reid.files import inside, is_file, text_lines, write_json
from occluded_reid.gallery.hit import Hit
from occluded_reid.models import ReIDModel
from occluded_reid.pixels import ImageLike, to_thumbnail
from occluded_reid.visualize import (
    HtmlReport,
    RankedItem,
    RankedQuery,
    aggregation_maps,
    cmc_curves,
    occlusion_curves,
    overlay_mask,
    ranked_lists,
    save_picture,
    training_curves,
)

__all__ = ["map_pictures", "query_rows", "save_picture", "search_picture", "write_report"]

_log = logging.getLogger("occluded_reid")
_SHOWN = 5


def search_picture(
    model: ReIDModel, images: Sequence[ImageLike], found: Sequence[Sequence[Hit]], *, title: str | None = None
) -> Image.Image:
    """Draw queries and what a gallery search has found for each; frames are gray, for the identities are unknown.

    A hit whose file is not there any more, or cannot be read, still counts: in its place stands what is missing, and a
    warning of the logger "occluded_reid", which the command line shows, names the files.

    Args:
        model: gives the query's visibility and part mask.
        images: the queries, of any kind.
        found: hits of each query.
        title: a line above all.

    Raises:
        ImageError: a query cannot be read.
    """
    rows = []
    missing: dict[str, str] = {}
    for query, hits in zip(images, found, strict=True):
        pictures = [_gallery_image(hit, missing) for hit in hits]
        items = [
            RankedItem(
                picture,
                hit.distance,
                identity=hit.identity,
                camera=hit.camera if hit.camera_name is None else hit.camera_name,
                shared=hit.shared_visibility,
                slot_distances=hit.slot_distances,
                missing=missing.get(hit.key, ""),
            )
            for hit, picture in zip(hits, pictures, strict=True)
        ]
        rows.append(query_row(model, query, items))
    if missing:
        shown = "; ".join(f"'{key}': {why}" for key, why in list(missing.items())[:_SHOWN])
        _log.warning(
            "%d hits have no picture: %s%s. Add them again by paths that hold (replace=True), or put the files back.",
            len(missing),
            shown,
            "; …" if len(missing) > _SHOWN else "",
        )
    return ranked_lists(rows, title=title)


def query_rows(model: ReIDModel, data: ReIDData, result: Study, positions: Sequence[int]) -> list[RankedQuery]:
    """Return ranked lists of some clean queries of a study by the model's own matcher; see `ranked_rows`."""
    exclude = result.conditions[0].reports[0].protocol.exclude_same_camera
    return ranked_rows(model, data, result.query, result.gallery, positions, exclude_same_camera=exclude)


def map_pictures(model: ReIDModel, samples: Sequence[Sample]) -> list[tuple[str, str, Image.Image]]:
    """Return (file name, caption, picture) of what the model's heads see on some images: part masks, maps M_n."""
    if not samples:
        return []
    images, pixels = as_seen(model, [sample.path for sample in samples])
    output = model.infer(pixels)
    pictures: list[tuple[str, str, Image.Image]] = []
    for name, head in output.heads.items():
        if "segmentation" in head.maps:
            labels = head.maps["segmentation"].argmax(1).cpu().numpy()
            classes = head.maps["segmentation"].shape[1]
            last = len(images) - 1
            shown = [
                overlay_mask(image, mask, classes=classes, legend=i == last)
                for i, (image, mask) in enumerate(zip(images, labels, strict=True))
            ]
            caption = f"part masks predicted by the head '{name}'"
            pictures.append((f"{name}_part_masks.png", caption, _side_by_side(shown)))
        if "aggregation" in head.maps:
            maps = head.maps["aggregation"].cpu().numpy()
            drawn = [aggregation_maps(image, m, height=224) for image, m in zip(images, maps, strict=True)]
            caption = f"aggregation maps M_n of the head '{name}', own bands outlined"
            pictures.append((f"{name}_aggregation_maps.png", caption, _side_by_side(drawn[:4])))
    return pictures


def write_report(
    folder: str | Path, model: ReIDModel, data: ReIDData, result: Study, *, log: Path | None = None
) -> Path:
    """Write a self-contained page: numbers with their protocol, where it fails, curves, ranked lists, masks and maps.

    Args:
        folder: gets ``report.html``, ``study.json``, ``ranked_lists.png`` and a picture of what each head sees.
        model: the evaluated model.
        data: what it was evaluated on.
        result: the study.
        log: ``log.jsonl`` of the run that trained the model, for its curves.

    Returns:
        Path of the page.

    Raises:
        EvaluationError: the folder cannot be written.
        ImageError: a query or a gallery image cannot be read any more.
    """
    folder = Path(folder)
    first = result.get("own") if "own" in result.matchings else result.conditions[0]
    protocol = first.reports[0].protocol
    page = HtmlReport(f"{result.model} on {result.dataset}", model.describe())
    header, *lines = result.rows([*result.headline, *(name for name in ("mINP",) if name in first.metrics)])
    intervals = f"with {protocol.confidence:.0%} bootstrap intervals" if protocol.bootstrap else ""
    page.add_heading("Numbers")
    if result.warning:
        page.add_text(f"Warning: {result.warning}.")
    page.add_table([dict(zip(header, line, strict=True)) for line in lines], caption=intervals)
    page.add_card("Matchings", {name: MATCHINGS[name] for name in result.matchings})
    page.add_card("Protocol", result.facts())
    differences = [
        {"difference": f"{m} − all_slots", "occluded": f"{f:.0%}", **{n: str(d[n]) for n in result.headline}}
        for (m, f), d in result.differences().items()
    ]
    if differences:
        page.add_heading("Paired differences", 3).add_table(differences)
    page.add_heading("Curves")
    clean = {m: result.get(m).reports[0].cmc.tolist() for m in result.matchings}
    charts = [cmc_curves(clean, title="CMC, clean queries")]
    if len(result.fractions) > 1:
        for metric in result.headline:
            charts.append(occlusion_curves({m: _points(result, m, metric) for m in result.matchings}, metric=metric))
    page.add_chart(*charts)
    failures = _failures(model, data, result)
    page.add_heading("Where it fails")
    alone = " without re-ranking" if first.reports[0].card.reranking else ""
    alone += ", with all gallery images" if protocol.shots == "single" else ""
    page.add_text(f"Clean queries by the model's own matching{alone}. {' '.join(failures.notes)}")
    for title in failures.slices:
        header, *lines = failures.rows(title)
        page.add_table([dict(zip(header, line, strict=True)) for line in lines])
    page.add_card("What cannot be compared", failures.unshared.facts)
    typical = _spread(first.reports[0].answerable, 6)
    page.add_heading("Ranked lists")
    lists = ranked_lists(query_rows(model, data, result, typical), title="Queries spread over the set")
    save_picture(lists, folder / "ranked_lists.png")
    page.add_picture(lists, "Queries spread evenly over the set, by the model's own matching.")
    worst = ranked_lists(query_rows(model, data, result, failures.worst(8)), title="Worst queries")
    page.add_picture(worst, f"The queries with the lowest average precision{alone}: look here first.")
    page.add_heading("What the heads see")
    for file_name, caption, picture in map_pictures(model, [data.query[i] for i in typical]):
        save_picture(picture, inside(folder, file_name, EvaluationError))  # named after a head, as a recipe calls it
        page.add_picture(picture, caption)
    if log is not None and log.is_file():
        page.add_heading("Training").add_chart(*training_curves(_records(log)))
    if data.licence:
        page.add_card("Data", {"licence": data.licence, "cite": data.citation or "–"})
    write_json(folder / "study.json", result.to_dict(), EvaluationError)
    return page.save(folder / "report.html")


def _records(log: Path) -> list[Any]:
    try:
        return [json.loads(line) for line in text_lines(log.read_bytes().decode())]
    except (OSError, ValueError) as cause:
        raise EvaluationError(
            f"the log '{log}' cannot be read: {cause}. It is drawn beside the numbers: mend it, or move it away."
        ) from cause


def _failures(model: ReIDModel, data: ReIDData, result: Study) -> Failures:
    """Where the model's own matching fails on the clean queries of a study."""
    report = result.conditions[0].reports[0]
    return find_failures(
        result.query,
        result.gallery,
        model.matcher,
        replace(report.protocol, name="", shots="multi"),
        cameras_known=data.cameras_known,
        camera_names=data.camera_names,
        fingerprint=report.card.fingerprint,
        tuned=report.card.tuned,
        test_time=report.card.test_time,
    )


def _gallery_image(hit: Hit, missing: dict[str, str]) -> Image.Image | None:
    """The picture of a hit; where there is none, `missing` is told why under its key."""
    if hit.path is None:
        missing[hit.key] = "the gallery keeps no file of it"
        return None
    try:
        if is_file(Path(hit.path), ImageError):
            return to_thumbnail(hit.path)
        where = "" if Path(hit.path).is_absolute() else f" (kept relative, looked for in '{Path.cwd()}')"
        missing[hit.key] = f"file not found: {hit.path}{where}"
    except ImageError:
        missing[hit.key] = f"file cannot be read: {hit.path}"
    return None


def _points(result: Study, matching: str, metric: str) -> list[tuple[float, float, float, float]]:
    points = []
    for fraction in result.fractions:
        condition = result.get(matching, fraction)
        value = condition.metrics[metric]
        interval = condition.intervals.get(metric)
        low, high = (interval.low, interval.high) if interval else (float("nan"), float("nan"))
        points.append((fraction, value, low, high))
    return points


def _spread(answerable: np.ndarray, count: int) -> list[int]:
    """Positions of `count` answerable queries, evenly spread."""
    positions = np.flatnonzero(answerable)
    chosen = torch.linspace(0, len(positions) - 1, min(count, len(positions))).round().long().tolist()
    return [int(positions[i]) for i in dict.fromkeys(chosen)]


def _side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    height = max(picture.height for picture in pictures)
    canvas = Image.new("RGB", (sum(p.width + 8 for p in pictures) - 8, height), "white")
    left = 0
    for picture in pictures:
        canvas.paste(picture, (left, 0))
        left += picture.width + 8
    return canvas
