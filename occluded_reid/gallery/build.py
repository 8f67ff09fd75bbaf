"""A gallery's folder: made whole or not at all, and opened only with the model that belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, GalleryError, GalleryMismatchError, OccludedReIDError
from occluded_reid.files import look, temporary_folder
from occluded_reid.gallery.images import EmbeddingModel, as_list
from occluded_reid.gallery.storage.checksums import sync
from occluded_reid.gallery.storage.ledger import Ledger
from occluded_reid.gallery.storage.manifest import Manifest, describe_slots
from occluded_reid.gallery.storage.store import Store, to_embeddings
from occluded_reid.matchers import Matcher
from occluded_reid.pixels import Images
from occluded_reid.registry import MATCHERS
from occluded_reid.search.projection import REDUCTION_FILE, Reduction

__all__ = ["fit_reduction", "make", "matcher_of", "other_precision", "read_reduction", "require_fit", "require_slots"]


def make(folder: Path, manifest: Manifest, reduction: Reduction | None = None) -> None:
    """Make the folder with table, gallery.json and reduction under another name and rename it: whole or not at all."""
    if _holds_something(folder):
        holds = (
            "is a gallery already; open it with Gallery.open()" if _is_gallery(folder) else "exists and is no gallery"
        )
        raise GalleryError(f"'{folder}' {holds}. To make a new one, choose a folder that is empty or does not exist.")
    target = folder.resolve()
    try:
        with temporary_folder(target) as beside:  # which is locked itself, as the gallery's own folder may be
            building = beside / "gallery"
            building.mkdir()
            Store.create(building, manifest)
            if reduction is not None:
                with Ledger(building).side_file(REDUCTION_FILE) as file:
                    reduction.save(file)
            if target.exists():
                target.rmdir()
            building.rename(target)
            sync(target.parent)
    except (OSError, RuntimeError, ValueError) as cause:
        if isinstance(cause, OccludedReIDError):
            raise
        why = getattr(cause, "strerror", None) or cause
        raise GalleryError(
            f"the gallery '{folder}' could not be created: {why}. "
            "Choose a folder that may be written to; nothing half-made was left."
        ) from cause


def _holds_something(folder: Path) -> bool:
    if look(folder, GalleryError) is None:
        return False
    try:
        return not folder.is_dir() or any(folder.iterdir())
    except OSError as cause:
        raise GalleryError(
            f"'{folder}' cannot be looked into: {cause.strerror or cause}. Correct its permissions, or choose another."
        ) from cause


def _is_gallery(folder: Path) -> bool:
    try:
        Manifest.read(folder)
    except GalleryError:
        return False
    return True


def require_fit(folder: Path, manifest: Manifest, model: EmbeddingModel) -> None:
    """Refuse a model that has not built this gallery; where the builder is not known, the slots must fit."""
    mark, slots = model.fingerprint, dict(model.slots)
    if slots != (manifest.slots_in or manifest.slots) or (
        manifest.fingerprint is not None and mark != manifest.fingerprint
    ):
        raise GalleryMismatchError(
            f"the gallery '{folder}/' holds embeddings of {manifest.describe()}; this model is {mark} "
            f"({describe_slots(slots)}). Open it with the model that built it, or index the images again."
        )


def other_precision(manifest: Manifest, model: EmbeddingModel) -> str | None:
    """Return how the numbers that a model computes with differ from the gallery's, in words; None where they do not.

    What nobody has said is no difference: a gallery of embeddings alone, or a model that is not the library's.
    """
    own = getattr(model, "precision", None)
    kept = manifest.precision or ("float32" if manifest.fingerprint is not None else None)
    if own is None or kept is None or own == kept:
        return None
    return f"holds embeddings computed in {kept}; this model computes in {own}"


def fit_reduction(
    reduce: Mapping[str, int] | Reduction | None,
    sample: PartEmbeddings | Images | None,
    widths: Mapping[str, int],
    matcher: Matcher,
    model: EmbeddingModel | None,
    mark: str | None,
) -> Reduction | None:
    """Return the reduction that a gallery is to have, fitted where only widths were given.

    Raises:
        GalleryError: there is nothing to fit it on, or it is not for embeddings of these slots.
        EmbeddingError: the sample does not allow these widths.
    """
    if reduce is None:
        if sample is not None:
            raise GalleryError("a sample was given, but no reduce: say which slots are to become how wide.")
        return None
    if not isinstance(reduce, Reduction):
        if sample is None:
            raise GalleryError(
                "reduce was given as widths, without anything to fit them on: pass sample=, embeddings or images like "
                "those to come (training images, never the test set), or a Reduction."
            )
        rows = sample if isinstance(sample, PartEmbeddings) else _embedded(sample, model)
        reduce = Reduction.fit(rows, reduce, matcher=matcher, model=mark)
    reduce.require(matcher=matcher, model=mark)
    if dict(reduce.slots_in) != dict(widths):
        raise GalleryError(
            f"the reduction takes the slots ({describe_slots(reduce.slots_in)}); those of the gallery are "
            f"({describe_slots(widths)}). Fit one for this model."
        )
    return reduce


def _embedded(sample: Images, model: EmbeddingModel | None) -> PartEmbeddings:
    if model is None:
        raise GalleryError("the sample consists of images, and no model was given to embed them; give embeddings.")
    from occluded_reid.models.embedding import embed_images  # with it come networks

    images = as_list(sample)
    names = [str(image) if isinstance(image, str | Path) else f"sample[{n}]" for n, image in enumerate(images)]
    return PartEmbeddings.cat(list(embed_images(model, images, names, batch_size=64)))


def read_reduction(folder: Path, manifest: Manifest) -> Reduction | None:
    """Return the reduction of a gallery that has one.

    Raises:
        GalleryError: it is missing, damaged, or another one than gallery.json names.
    """
    if manifest.reduction is None:
        return None
    try:
        found = Reduction.load(folder / REDUCTION_FILE)
    except EmbeddingError as cause:
        raise GalleryError(f"the reduction of the gallery '{folder}' cannot be read: {cause}") from cause
    if found.fingerprint != manifest.reduction:
        raise GalleryError(
            f"'{folder / REDUCTION_FILE}' is the reduction {found.fingerprint}; gallery.json names "
            f"{manifest.reduction}. Restore both from one copy."
        )
    return found


def require_slots(matcher: Matcher, manifest: Manifest) -> None:
    """Refuse a matcher that weighs slots which the gallery does not have."""
    nothing = to_embeddings(manifest.arrow_schema().empty_table(), manifest)
    try:
        matcher.prepare(nothing)
    except EmbeddingError as cause:
        raise GalleryError(
            f"the matcher does not fit the gallery's slots ({describe_slots(manifest.slots)}): {cause}"
        ) from cause


def matcher_of(folder: Path, manifest: Manifest, model: EmbeddingModel | None) -> Matcher:
    """Return the matcher that gallery.json names."""
    if model is not None and model.matcher.config == manifest.matcher:
        return model.matcher
    try:
        return MATCHERS.create(manifest.matcher["type"], **manifest.matcher["options"])
    except (OccludedReIDError, KeyError, TypeError) as cause:
        raise GalleryError(
            f"the matcher of the gallery '{folder}' cannot be made from {manifest.matcher}: {cause}. "
            "Register it (or install the package that does), or pass Gallery.open(…, matcher=…)."
        ) from cause
