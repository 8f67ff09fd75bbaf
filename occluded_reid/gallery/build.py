"""A gallery's folder: made whole or not at all, and opened only with the model that belongs to it."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from occluded_reid.errors import EmbeddingError, GalleryError, GalleryMismatchError, OccludedReIDError
from occluded_reid.gallery.images import EmbeddingModel
from occluded_reid.gallery.layout import Layout, describe_slots
from occluded_reid.gallery.store import Store, to_embeddings
from occluded_reid.matchers import Matcher
from occluded_reid.registry import MATCHERS

__all__ = ["make", "matcher_of", "require_fit", "require_slots"]


def make(folder: Path, layout: Layout) -> None:
    """Make the folder with table and gallery.json under another name and rename it: whole or not at all."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        holds = (
            "is a gallery already; open it with Gallery.open()" if _is_gallery(folder) else "exists and is no gallery"
        )
        raise GalleryError(f"'{folder}' {holds}. To make a new one, choose a folder that is empty or does not exist.")
    target = folder.resolve()
    building = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
    try:
        building.mkdir(parents=True)
        Store.create(building, layout)
        layout.write(building)
        if target.exists():
            target.rmdir()
        building.rename(target)
    except (OSError, RuntimeError, ValueError) as cause:
        if isinstance(cause, OccludedReIDError):
            raise
        why = getattr(cause, "strerror", None) or cause
        raise GalleryError(
            f"the gallery '{folder}' could not be created: {why}. "
            "Choose a folder that may be written to; nothing half-made was left."
        ) from cause
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _is_gallery(folder: Path) -> bool:
    try:
        Layout.read(folder)
    except GalleryError:
        return False
    return True


def require_fit(folder: Path, layout: Layout, model: EmbeddingModel) -> None:
    """Refuse a model that has not built this gallery; where the builder is not known, the slots must fit."""
    mark, slots = model.fingerprint, dict(model.slots)
    if slots != layout.slots or (layout.fingerprint is not None and mark != layout.fingerprint):
        raise GalleryMismatchError(
            f"the gallery '{folder}/' holds embeddings of {layout.describe()}; this model is {mark} "
            f"({describe_slots(slots)}). Open it with the model that built it, or index the images again."
        )


def require_slots(matcher: Matcher, layout: Layout) -> None:
    """Refuse a matcher that weighs slots which the gallery does not have."""
    nothing = to_embeddings(layout.arrow_schema().empty_table(), layout)
    try:
        matcher.prepare(nothing)
    except EmbeddingError as cause:
        raise GalleryError(
            f"the matcher does not fit the gallery's slots ({describe_slots(layout.slots)}): {cause}"
        ) from cause


def matcher_of(folder: Path, layout: Layout, model: EmbeddingModel | None) -> Matcher:
    """Return the matcher that gallery.json names."""
    if model is not None and model.matcher.config == layout.matcher:
        return model.matcher
    try:
        return MATCHERS.create(layout.matcher["type"], **layout.matcher["options"])
    except (OccludedReIDError, KeyError, TypeError) as cause:
        raise GalleryError(
            f"the matcher of the gallery '{folder}' cannot be made from {layout.matcher}: {cause}. "
            "Register it (or install the package that does), or pass Gallery.open(…, matcher=…)."
        ) from cause
