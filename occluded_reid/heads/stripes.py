"""The stripes of another head, and their visibility from a foreground mask (SORN Eq. 11-12)."""

from __future__ import annotations

from torch import Tensor

from occluded_reid.contracts import BuildInfo
from occluded_reid.errors import BuildError
from occluded_reid.functional import stripe_visibility
from occluded_reid.registry import did_you_mean

__all__ = ["stripes_of", "visibility_of_stripes"]


def stripes_of(info: BuildInfo, head: str | None) -> tuple[str, ...]:
    """Return the slots of an earlier head, from the top stripe to the bottom one; none of None.

    Args:
        info: what the builder knows.
        head: its name.

    Raises:
        BuildError: it does not come before this one.
    """
    if head is None:
        return ()
    if head not in info.heads:
        raise BuildError(
            f"head '{info.name}' gives the visibility of head '{head}', which does not come before it."
            f"{did_you_mean(head, list(info.heads))} Heads so far: {', '.join(info.heads) or 'none'}. "
            "Reorder the heads, or set visibility_of."
        )
    return tuple(info.heads[head].slots)


def visibility_of_stripes(
    foreground: Tensor, slots: tuple[str, ...], threshold: float | None, rows: int
) -> dict[str, Tensor]:
    """Return the visibility (N,) of each stripe.

    Args:
        foreground: (N, H, W), 1 where a body is seen.
        slots: from the top stripe to the bottom one.
        threshold: τ of Eq. 12; None gives the fractions of Eq. 11.
        rows: of the feature map whose bands the stripes are.
    """
    if not slots:
        return {}
    scores = stripe_visibility(foreground, len(slots), threshold, rows=rows)
    return {name: scores[:, p] for p, name in enumerate(slots)}
