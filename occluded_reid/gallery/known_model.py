"""The model that a gallery was made with, found again by what the gallery remembers of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from occluded_reid.config import DEFAULT_MODEL, is_hub, is_packaged
from occluded_reid.errors import GalleryError, OccludedReIDError
from occluded_reid.gallery.build import require_fit
from occluded_reid.gallery.images import EmbeddingModel
from occluded_reid.gallery.storage.manifest import Manifest, short_name

if TYPE_CHECKING:
    from occluded_reid.models import ReIDModel

__all__ = ["compute_alike", "default_model", "known_model", "place_of"]


def default_model() -> ReIDModel:
    """Return the model that comes with the library.

    Raises:
        CheckpointError: this installation has no weights of it, or they were altered.
    """
    from occluded_reid.models import load_model  # only where images are embedded: torch's networks take long to import

    return load_model(DEFAULT_MODEL)


def place_of(model: EmbeddingModel | None, *, here: bool) -> str | None:
    """Return what a gallery remembers to find its model again by.

    Args:
        model: that it is made with.
        here: whether the gallery lies in a folder; what others share learns no path of this machine.
    """
    source = getattr(model, "source", None)
    return source if isinstance(source, str) and (here or is_packaged(source) or is_hub(source)) else None


def known_model(gallery: Path, manifest: Manifest, device: torch.device) -> ReIDModel:
    """Load the model that a gallery was made with.

    Raises:
        GalleryError: the gallery does not know where it is, or it cannot be loaded from there.
        GalleryMismatchError: what lies there is another one now.
    """
    if manifest.model is None:
        raise GalleryError(
            f"the gallery '{gallery}' was opened without a model, so that it cannot embed images, and it does not know "
            f"where {short_name(manifest.fingerprint)} is. Open it with that model (--model), or give PartEmbeddings."
        )
    from occluded_reid.models import load_model
    from occluded_reid.models.checkpoint import folder_of

    try:  # a gallery may be a stranger's: nothing is fetched because it says so
        model = load_model(folder_of(manifest.model) if is_hub(manifest.model) else manifest.model).to(device)
        model.source = manifest.model
    except OccludedReIDError as cause:
        raise GalleryError(
            f"the gallery '{gallery}' was made with {short_name(manifest.fingerprint)} in '{manifest.model}', which "
            f"cannot be loaded from there: {cause} If it lies elsewhere now, open the gallery with it (--model)."
        ) from cause
    require_fit(gallery, manifest, model)
    compute_alike(manifest, model)
    return model


def compute_alike(manifest: Manifest, model: ReIDModel) -> None:
    """Let a model compute with the numbers that a gallery was made with, where its device has arithmetic for them."""
    from occluded_reid.models.precision import has_precision

    if manifest.precision is not None and has_precision(manifest.precision, model.device):
        model.embed_with(precision=manifest.precision)
