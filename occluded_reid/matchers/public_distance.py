"""Matching by the public regions and by the whole (SGAM Eq. 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, UnknownOptionError
from occluded_reid.matchers.slots import SlotMatcher
from occluded_reid.registry import MATCHERS, did_you_mean

__all__ = ["PublicDistanceMatcher"]

_MOST_PIXELS = 1 << 20  # squared it still leaves float32 room for the sum over slots


@MATCHERS.register("public_distance")
class PublicDistanceMatcher(SlotMatcher):
    """D = (Σ_i v_i(q) v_i(g) d_i + d_global) / (Σ_i v_i(q) v_i(g) + 1), d Euclidean (SGAM Eq. 4).

    `visibility_weighted` takes every slot at the visibility it comes with. Here one slot, the whole image, counts fully
    in every pair, whatever its rows say: that is the 1 in the denominator. So each pair has a finite distance, and
    rows that lack that slot are refused instead of being compared by regions alone.

    Args:
        metric: distance of a slot, "euclidean" or "cosine".
        weights: w_s by slot name; a slot left out weighs 1, as in the paper.
        normalize: Euclidean only: bring each slot to length 1 first (unsaid by SGAM).
        always: the slot that is visible in every image.
        pixels: M: the visibility of the other slots is a share of M pixels, and Eq. 4 takes the number of pixels
            S_i = M · v_i, as Eq. 2 is printed. With hundreds of pixels the 1 of the whole then counts for next to
            nothing. None takes v_i itself.

    Raises:
        UnknownOptionError: an option has a value that makes no sense.

    Example:
        >>> import torch
        >>> whole, head = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> q = PartEmbeddings(("global", "head"), (whole, whole), torch.tensor([[1.0, 0.5]]))
        >>> g = PartEmbeddings(("global", "head"), (whole, head), torch.tensor([[1.0, 1.0]]))
        >>> round(float(PublicDistanceMatcher().distance(q, g)), 4)  # 0.5 · √2 / (0.5 + 1)
        0.4714
    """

    name: ClassVar[str] = "public_distance"

    def __init__(
        self,
        *,
        metric: Literal["cosine", "euclidean"] = "euclidean",
        weights: Mapping[str, float] | None = None,
        normalize: bool = True,
        always: str = "global",
        pixels: int | None = None,
    ) -> None:
        super().__init__(metric=metric, weights=weights, normalize=normalize)
        if pixels is not None and not (isinstance(pixels, int) and 1 <= pixels <= _MOST_PIXELS):
            raise UnknownOptionError(
                f"matcher: pixels is {pixels!r}; give the number of pixels that a visibility of 1 stands for, from 1 "
                f"to {_MOST_PIXELS:,}, or leave it out."
            )
        if self.weights.get(always) == 0:
            raise UnknownOptionError(
                f"matcher: slot '{always}' is to count in every pair, and its weight is 0. "
                "Give it a weight, or match by regions alone with 'visibility_weighted'."
            )
        self.always, self.pixels = always, pixels

    @property
    def options(self) -> dict[str, Any]:
        """The options that make a difference."""
        options = {**super().options, "always": self.always}
        return options if self.pixels is None else {**options, "pixels": self.pixels}

    def weights_of(self, names: Sequence[str]) -> tuple[float, ...]:
        """Return w_s of these slots; where pixels are counted, each visibility of the two brings its M."""
        weights = super().weights_of(names)
        if self.pixels is None:
            return weights
        return tuple(w if name == self.always else w * self.pixels**2 for name, w in zip(names, weights, strict=True))

    def visibility_of(self, rows: PartEmbeddings) -> Tensor:
        """Return the visibility that counts, (N, S): as it is, and 1 for the slot that is always visible.

        Raises:
            EmbeddingError: the rows do not have that slot.
        """
        if self.always not in rows.names:
            raise EmbeddingError(
                f"matcher: the slot '{self.always}' is to be visible in every image, but these embeddings lack it."
                f"{did_you_mean(self.always, rows.names)} Slots: {', '.join(rows.names)}. "
                "Name one of them as 'always', or match with 'visibility_weighted'."
            )
        seen = rows.visibility.clone()
        seen[:, rows.names.index(self.always)] = 1
        return seen
