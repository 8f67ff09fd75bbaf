"""One row of slots for a whole track: what one crop hides, another may show."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from occluded_reid.arguments import checked, shown
from occluded_reid.data.tracklet import Tracklet, crop_weights
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError
from occluded_reid.models.embedding import Embeds, embed_images
from occluded_reid.pixels import ImageLike, name_of

__all__ = ["tracklet_embeddings", "tracklet_row"]

_CROPS = 1024  # of several tracks that are embedded together


@checked(EmbeddingError, only=("best", "blur", "batch_size"))
def tracklet_embeddings(
    model: Embeds,
    tracklets: Sequence[Tracklet],
    *,
    best: int | None = None,
    blur: bool = True,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> PartEmbeddings:
    """Embed tracks: each becomes one row, by `tracklet_row` with the weights of `crop_weights`.

    Memory: the rows, and the crops' embeddings of about 1,024 crops at a time.

    Args:
        model: embeds the crops.
        tracklets: N tracks.
        best: take for each slot only so many crops, the most visible ones that differ; None takes all.
        blur: let blurred crops count less.
        batch_size: crops in one pass; it changes no answer.
        progress: called with (tracks done, tracks in all).

    Returns:
        N rows on the CPU.

    Raises:
        EmbeddingError: there is no track, something else stands among them, or the model gives NaN.
        ImageError: a crop cannot be read; it is named.
    """
    tracklets = require_tracklets(tracklets)
    if not callable(getattr(model, "embed", None)) or not hasattr(model, "preprocess"):
        raise EmbeddingError(f"model is {shown(model)}; give a model, such as load_model() returns.")
    if batch_size < 1:
        raise EmbeddingError(f"batch_size is {batch_size}; give at least 1.")
    rows: list[PartEmbeddings] = []
    first = 0
    while first < len(tracklets):
        last, images, names = first, list[ImageLike](), list[str]()
        while last < len(tracklets) and (last == first or len(images) + len(tracklets[last]) <= _CROPS):
            images += tracklets[last].images
            own = [f"{tracklets[last].name}[{n}]" for n in range(len(tracklets[last]))]
            names += [name_of(image, n, own) for n, image in enumerate(tracklets[last].images)]
            last += 1
        crops = PartEmbeddings.cat(list(embed_images(model, images, names, batch_size)))
        begin = 0
        for track in tracklets[first:last]:
            part = crops[begin : begin + len(track)]
            rows.append(tracklet_row(part, crop_weights(track, blur=blur), best=best))
            begin += len(track)
        if progress is not None:
            progress(last, len(tracklets))
        first = last
    return PartEmbeddings.cat(rows)


@checked(EmbeddingError, only=("rows", "best"))
def tracklet_row(
    rows: PartEmbeddings, weights: Sequence[float] | np.ndarray | None = None, *, best: int | None = None
) -> PartEmbeddings:
    """Put the crops of one person together.

    Each slot is Σ_n w_n v_n e_n / Σ_n w_n v_n, and its visibility max_n v_n over the crops with w_n > 0. A slot that no
    crop shows has visibility 0 and the plain mean. With `best`, a slot takes k crops only: first the one with the
    largest w_n v_n, then again and again the one with the largest w_n v_n · (1 - max cos), where max cos is its
    similarity, at least 0, to those taken: many sharp crops of one moment say no more than one of them.

    Args:
        rows: N ≥ 1 crops of one person.
        weights: (N,) at least 0, not all 0; None counts all alike.
        best: k; None takes all crops.

    Returns:
        One row.

    Raises:
        EmbeddingError: there is no crop, the weights do not fit, or best is below 1.

    Example:
        >>> rows = PartEmbeddings(("a",), (torch.tensor([[1.0, 0.0], [0.0, 1.0]]),), torch.tensor([[1.0], [0.5]]))
        >>> tracklet_row(rows, [1, 2]).slot("a")
        tensor([[0.5000, 0.5000]])
    """
    if not len(rows):
        raise EmbeddingError("a tracklet of no crops was given; give at least one.")
    if best is not None and best < 1:
        raise EmbeddingError(f"best is {best}; give at least 1 crop for each slot, or None for all.")
    weight = torch.from_numpy(_checked_weights(weights, len(rows)))[:, None]
    seen = torch.where(weight > 0, rows.visibility.double().cpu(), 0.0)
    counts = weight * seen
    slots = []
    for s, slot in enumerate(rows.embeddings):
        vectors = slot.detach().cpu().double()
        share = counts[:, s]
        if best is not None and best < len(rows) and bool(share.any()):
            share = torch.where(_diverse(vectors, share, best), share, 0.0)
        if not bool(share.any()):
            share = torch.ones(len(rows), dtype=torch.float64)
        slots.append(((share / share.sum())[:, None] * vectors).sum(0, keepdim=True).to(slot.dtype))
    return PartEmbeddings(rows.names, tuple(slots), seen.amax(0, keepdim=True).to(rows.visibility.dtype))


def require_tracklets(tracklets: Sequence[Tracklet]) -> list[Tracklet]:
    """Return them as a list.

    Raises:
        EmbeddingError: there is none, something else stands among them, or two have one name.
    """
    if isinstance(tracklets, Tracklet) or not isinstance(tracklets, Sequence) or isinstance(tracklets, str | bytes):
        raise EmbeddingError(f"tracklets is {shown(tracklets)}; give a list of Tracklet.")
    odd = next((number for number, track in enumerate(tracklets) if not isinstance(track, Tracklet)), None)
    if odd is not None:
        raise EmbeddingError(f"tracklets holds {shown(tracklets[odd])} (number {odd}); give Tracklet objects alone.")
    if not tracklets:
        raise EmbeddingError("no tracklet was given; give at least one.")
    names = [track.name for track in tracklets]
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise EmbeddingError(f"two tracklets are named '{twice}'; give each a name of its own.")
    return list(tracklets)


def _checked_weights(weights: Sequence[float] | np.ndarray | None, count: int) -> np.ndarray:
    if weights is None:
        return np.ones(count)
    try:
        found = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as cause:
        raise EmbeddingError(f"weights is {shown(weights)}; give a number for each crop.") from cause
    if found.shape != (count,) or not (np.isfinite(found) & (found >= 0)).all() or not found.any():
        raise EmbeddingError(f"weights is {shown(weights)}; give {count} numbers of at least 0, not all 0.")
    return found


def _diverse(vectors: Tensor, share: Tensor, best: int) -> Tensor:
    """Which of N crops are taken, (N,) boolean; of equals the first."""
    unit = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp(min=1e-12)
    taken = torch.zeros(len(vectors), dtype=torch.bool)
    near = torch.zeros(len(vectors), dtype=torch.float64)
    for _ in range(best):
        worth = torch.where(taken | (share <= 0), -1.0, share * (1 - near))
        chosen = int(worth.argmax())
        if float(worth[chosen]) < 0:  # all that show the slot are taken
            break
        taken[chosen] = True
        near = torch.maximum(near, (unit @ unit[chosen]).clamp(0, 1))
    return taken
