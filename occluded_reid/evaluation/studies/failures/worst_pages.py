"""The worst queries of an evaluation as ranked lists, page by page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from occluded_reid.data.dataset import ReIDData
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.embed import Occlusion
from occluded_reid.evaluation.studies.failures.ranked_rows import ranked_rows
from occluded_reid.evaluation.studies.failures.result import Failures
from occluded_reid.models import ReIDModel
from occluded_reid.visualize import ranked_lists, save_picture

__all__ = ["ROWS", "worst_pages", "write_worst"]

ROWS = 10
"""Queries of a page: it stays short enough to be opened anywhere."""

_PAGE = re.compile(r"worst_\d{2,3}\.png")
_IMAGE_HEIGHT = 176  # ten hits and the appended match stand in one line


def worst_pages(
    model: ReIDModel,
    data: ReIDData,
    query: EmbeddedSet,
    gallery: EmbeddedSet,
    failures: Failures,
    n: int = 50,
    *,
    occlusion: Occlusion | None = None,
) -> Iterator[Image.Image]:
    """Draw the n worst queries, worst first, ten on a page: what was found instead, and what should have been found.

    Each row shows the query, the ten nearest images that the evaluation ranks for it, right and wrong marked, and
    behind dots its best-ranked true match where that is not among them. Above stand its average precision and the ranks
    of its first and its last match. Memory: the images of one page.

    Args:
        model: the evaluated model.
        data: the images.
        query: its embedded queries.
        gallery: its embedded gallery.
        failures: of these, by the model's own matcher.
        n: how many queries; there are as many pages as they fill.
        occlusion: how the queries were occluded before they were embedded.

    Yields:
        Pages, RGB, about 1,500 pixels wide and 3,000 high.

    Raises:
        EvaluationError: n is less than 1, or the failures or the embeddings are not of this model and data.
        ImageError: an image cannot be read.
    """
    if len(failures.report.answerable) != len(query) or failures.report.card.matcher != model.matcher.config:
        raise EvaluationError(
            f"the failures are of {len(failures.report.answerable)} queries and the matcher "
            f"{failures.report.card.matcher}; these are {len(query)} queries and {model.matcher.config}. "
            "Give what find_failures() was given."
        )
    worst = failures.worst(n)
    for start in range(0, len(worst), ROWS):
        page = worst[start : start + ROWS]
        rows = ranked_rows(
            model,
            data,
            query,
            gallery,
            page,
            exclude_same_camera=failures.report.protocol.exclude_same_camera,
            occlusion=occlusion,
            matches=failures.matches,
            notes=[f"{start + i}. {_note(failures, q)}" for i, q in enumerate(page, 1)],
        )
        title = f"Worst queries {start + 1}-{start + len(page)} of {len(worst)}, lowest average precision first"
        yield ranked_lists(rows, title=title, image_height=_IMAGE_HEIGHT)


def write_worst(folder: str | Path, pages: Iterator[Image.Image]) -> list[Path]:
    """Write pages as ``worst_01.png``, …, one at a time, and return their paths.

    Pages of an earlier run beyond these are removed: they would show other queries.

    Raises:
        EvaluationError: a page cannot be written or removed.
    """
    folder = Path(folder)
    written = [save_picture(page, folder / f"worst_{number:02}.png") for number, page in enumerate(pages, 1)]
    for old in sorted(set(folder.iterdir() if folder.is_dir() else ()) - set(written)):
        if not _PAGE.fullmatch(old.name):
            continue
        try:
            old.unlink()
        except OSError as cause:
            raise EvaluationError(f"'{old}' of an earlier run could not be removed: {cause.strerror}.") from cause
    return written


def _note(failures: Failures, q: int) -> str:
    report, found = failures.report, failures.matches
    mine = slice(int(found.offsets[q]), int(found.offsets[q + 1]))
    ranks = found.ranks[mine]
    where = (
        f"its match at rank {ranks[0]}"
        if len(ranks) == 1
        else (f"first of {len(ranks)} matches at rank {ranks[0]}, last at {ranks[-1]}")
    )
    name = f"{failures.names[q]}: " if failures.names else ""
    return f"{name}AP {report.average_precision[q]:.1%}, {where}, visibility {failures.visibility[q]:.2f}"
