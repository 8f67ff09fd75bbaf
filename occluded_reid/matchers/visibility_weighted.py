"""Matching by what both images show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import UnknownOptionError
from occluded_reid.matchers.slots import SlotMatcher
from occluded_reid.registry import MATCHERS

__all__ = ["VisibilityWeightedMatcher"]


@MATCHERS.register("visibility_weighted")
class VisibilityWeightedMatcher(SlotMatcher):
    """Mean over slots, each weighted by the visibility in both images (SORN, Eq. 13-15; SGAM, Eq. 4).

    Args:
        metric: distance of a slot, "cosine" or "euclidean".
        weights: w_s by slot name; a slot left out weighs 1.
        visibility: "soft" uses visibility as it is; "binary" makes it 1 from `threshold` on and 0 below.
        threshold: in (0, 1], for "binary" only; None is 0.5 there.
        normalize: Euclidean only: bring each slot to length 1 first.

    Raises:
        UnknownOptionError: an option has a value that makes no sense.

    Example:
        >>> import torch
        >>> q = PartEmbeddings(("global", "part_1"), (torch.ones(1, 2), torch.ones(1, 2)), torch.tensor([[1.0, 0.2]]))
        >>> g = PartEmbeddings(("global", "part_1"), (torch.ones(1, 2), -torch.ones(1, 2)), torch.ones(1, 2))
        >>> [round(float(VisibilityWeightedMatcher(visibility=v).distance(q, g)), 3) for v in ("soft", "binary")]
        [0.333, 0.0]
    """

    name: ClassVar[str] = "visibility_weighted"

    def __init__(
        self,
        *,
        metric: Literal["cosine", "euclidean"] = "cosine",
        weights: Mapping[str, float] | None = None,
        visibility: Literal["soft", "binary"] = "soft",
        threshold: float | None = None,
        normalize: bool = True,
    ) -> None:
        super().__init__(metric=metric, weights=weights, normalize=normalize)
        if visibility not in ("soft", "binary"):
            raise UnknownOptionError(f"matcher: visibility is {visibility!r}; give 'soft' or 'binary'.")
        if visibility == "soft" and threshold is not None:
            raise UnknownOptionError(
                f"matcher: threshold is {threshold}, but soft visibility has none; leave it out, or ask for 'binary'."
            )
        if threshold is not None and not 0 < threshold <= 1:
            raise UnknownOptionError(f"matcher: threshold is {threshold}; it must lie in (0, 1].")
        self.visibility = visibility
        self.threshold = 0.5 if visibility == "binary" and threshold is None else threshold

    @property
    def options(self) -> dict[str, Any]:
        """The options that make a difference."""
        options = {**super().options, "visibility": self.visibility}
        return options if self.threshold is None else {**options, "threshold": self.threshold}

    def visibility_of(self, rows: PartEmbeddings) -> Tensor:
        """Return the visibility that counts, (N, S): as it is, or its indicator."""
        if self.threshold is None:
            return rows.visibility
        return (rows.visibility >= self.threshold).to(rows.visibility.dtype)
