"""From samples on disk to labelled embeddings, clean or occluded, with predicted or true visibility."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from occluded_reid.ahead import ahead, reading_threads
from occluded_reid.arguments import check_fields, checked
from occluded_reid.data.dataset import ReIDData, Sample
from occluded_reid.data.images import open_image, open_mask
from occluded_reid.data.resize import crop_mask, resize_mask
from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import EvaluationError, MaskError
from occluded_reid.files import text_bytes
from occluded_reid.models import ReIDModel
from occluded_reid.models.preprocess import Seen

if TYPE_CHECKING:
    from occluded_reid.data.occlusion import Occluders
    from occluded_reid.data.occlusion.pins import Place

__all__ = [
    "EmbeddedWithTruth",
    "Occlusion",
    "embed_samples",
    "embed_sides",
    "embed_with_truth",
    "occluded_sample",
    "true_visibility",
]


@dataclass(frozen=True)
class Occlusion:
    """How images are occluded before they are embedded: the share of the body mask, by what, the seed, from where.

    Each image draws from its own generator, keyed by (seed, image name): order, batch size and workers change nothing.
    """

    fraction: float
    occluders: Occluders
    seed: int = 0
    place: Place = "anywhere"

    def __post_init__(self) -> None:
        check_fields(self, EvaluationError)

    def generator(self, name: str) -> np.random.Generator:
        """Return the generator of one image."""
        digest = hashlib.sha256(text_bytes(f"{self.seed}:{name}")).digest()
        return np.random.default_rng(np.frombuffer(digest[:16], dtype=np.uint32))


def occluded_sample(sample: Sample, occlusion: Occlusion) -> tuple[np.ndarray, np.ndarray, float]:
    """Return an occluded image (H, W, 3) uint8, its visible part mask (H, W), and the share of the body covered.

    Raises:
        MaskError: the sample has no part mask, without which the share of the body is unknown.
    """
    from occluded_reid.data.occlusion import occlude

    image = np.asarray(open_image(sample.path))
    parts = _parts(sample, (image.shape[1], image.shape[0]))
    result = occlude(
        image,
        parts > 0,
        occlusion.fraction,
        occlusion.occluders,
        occlusion.generator(sample.name),
        identity=sample.identity,  # cut-out pedestrians may show the very person that is asked for
        place=occlusion.place,
    )
    return result.image, np.where(result.mask, 0, parts).astype(np.uint8), result.fraction


def true_visibility(model: ReIDModel, parts: Sequence[np.ndarray]) -> torch.Tensor:
    """Visibility (N, S) of a model's slots by its own rule, from true part masks instead of predicted ones.

    Args:
        model: gives the rule.
        parts: part masks (H, W), cropped as their images were.

    Raises:
        EvaluationError: no head of the model turns a mask into visibility.
    """
    heads = [head for head in model.heads.values() if hasattr(head, "visibility_of_foreground")]
    if not heads:
        raise EvaluationError(
            f"'{model.name}' has no head that makes visibility from a mask, so there is no true visibility to use. "
            "Leave the matching 'true' out."
        )
    size = (model.preprocess.width, model.preprocess.height)
    resized = [resize_mask(mask, size[1], size[0]) for mask in parts]
    foreground = torch.from_numpy(np.stack(resized) > 0).float()
    columns: dict[str, torch.Tensor] = {}
    for head in heads:
        columns |= head.visibility_of_foreground(foreground)  # type: ignore[operator]
    ones = torch.ones(len(parts))
    return torch.stack([columns.get(slot, ones) for slot in model.slots], 1)


@dataclass(frozen=True)
class EmbeddedWithTruth:
    """Embeddings with predicted visibility, the true one (N, S) beside it, and the share covered of each body (N,)."""

    embedded: EmbeddedSet
    truth: torch.Tensor | None
    shares: np.ndarray

    @property
    def covered(self) -> float:
        """Mean share of the bodies that is covered."""
        return float(self.shares.mean())


@checked(EvaluationError)
def embed_samples(
    model: ReIDModel,
    data: ReIDData,
    samples: Sequence[Sample],
    *,
    occlusion: Occlusion | None = None,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> EmbeddedSet:
    """Embed samples of a data set in batches, with the visibility that the model predicts.

    Memory: one batch of images, and the embeddings of all samples.

    Args:
        model: built or loaded; used in evaluation mode.
        data: the data set, whose identities and cameras are turned into numbers.
        samples: which of its samples.
        occlusion: occlude each image first.
        batch_size: images a batch.
        progress: called with (done, total).

    Raises:
        DataError: an image has no identity.
        EvaluationError: there are no samples.
        ImageError: an image cannot be read; it is named.
    """
    return embed_with_truth(
        model, data, samples, occlusion=occlusion, truth=False, batch_size=batch_size, progress=progress
    ).embedded


@checked(EvaluationError)
def embed_sides(
    model: ReIDModel,
    data: ReIDData,
    *,
    occlusion: Occlusion | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[EmbeddedSet, EmbeddedSet]:
    """Embed the queries and the gallery of a data set; only queries are occluded. Arguments as in `embed_samples`."""
    total = len(data.query) + len(data.gallery)

    def after(before: int) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda n, _: progress(before + n, total)

    query = embed_samples(model, data, data.query, occlusion=occlusion, progress=after(0))
    return query, embed_samples(model, data, data.gallery, progress=after(len(data.query)))


@checked(EvaluationError)
def embed_with_truth(
    model: ReIDModel,
    data: ReIDData,
    samples: Sequence[Sample],
    *,
    occlusion: Occlusion | None = None,
    truth: bool = True,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> EmbeddedWithTruth:
    """Embed as `embed_samples` does, and work out the true visibility from the part masks if `truth` is set.

    Raises:
        EvaluationError: there are no samples, or no head of the model makes visibility from a mask.
        MaskError: a mask that is needed is missing, or of another size than its image.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise EvaluationError(f"batch_size is {batch_size!r}; it must be a whole number of at least 1.")
    data.require_identities(samples, "evaluation")
    if not samples:
        raise EvaluationError(
            f"'{data.name}' has no such samples. A data set with only a training split needs holdout=… (--holdout), "
            "which sets identities aside for testing."
        )
    rows: list[PartEmbeddings] = []
    truths: list[torch.Tensor] = []
    shares = np.zeros(len(samples))

    def prepared(chunk: Sequence[Sample]) -> tuple[Seen, list[np.ndarray], list[float]]:
        parts: list[np.ndarray] = []
        covered: list[float] = []
        if occlusion is not None:
            seen = model.preprocess.see(_occluded(chunk, occlusion, parts, covered))
        else:
            seen = model.preprocess.see([sample.path for sample in chunk])
            parts = [_parts(s, size) for s, size in zip(chunk, seen.sizes, strict=True)] if truth else []
        return seen, parts, covered

    chunks = [samples[start : start + batch_size] for start in range(0, len(samples), batch_size)]
    # A crop is found by a network, which has the processor's cores itself.
    threads = 0 if model.preprocess.crops else min(reading_threads(), len(chunks) - 1)
    done = 0
    for seen, parts, covered in ahead(prepared, chunks, threads):
        if covered:
            shares[done : done + len(covered)] = covered
        rows.append(model.embed(model.preprocess.normalize(seen.pixels)).to("cpu"))
        if truth:
            truths.append(true_visibility(model, [crop_mask(m, box) for m, box in zip(parts, seen.boxes, strict=True)]))
        done += len(seen.pixels)
        if progress is not None:
            progress(done, len(samples))
    identity, camera = data.labels(samples)
    embedded = EmbeddedSet(PartEmbeddings.cat(rows), identity, camera, tuple(s.name for s in samples))
    return EmbeddedWithTruth(embedded, torch.cat(truths) if truths else None, shares)


def _occluded(
    samples: Sequence[Sample], occlusion: Occlusion, parts: list[np.ndarray], shares: list[float]
) -> Iterator[np.ndarray]:
    """Occluded images, one after another; their masks and the shares of the bodies covered are left in two lists."""
    for sample in samples:
        image, mask, share = occluded_sample(sample, occlusion)
        parts.append(mask)
        shares.append(share)
        yield image


def _parts(sample: Sample, size: tuple[int, int]) -> np.ndarray:
    if sample.mask is None:
        raise MaskError(
            f"'{sample.name}' has no part mask; occluding a share of the body, or true visibility, needs one. "
            "Give masks=FOLDER (--masks) with one single-channel PNG for each image."
        )
    return open_mask(sample.mask, size, 8)
