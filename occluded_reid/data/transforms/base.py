"""What a transform is, and how a recipe's line becomes one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from occluded_reid.config import Component
from occluded_reid.data.occlusion import Occluders
from occluded_reid.errors import RecipeError
from occluded_reid.registry import Registry, check_options

__all__ = ["TRANSFORMS", "Amount", "Colour", "Share", "Stock", "Transform", "View", "make_transform"]

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Colour = tuple[float, float, float]
Stock = Callable[[], Occluders]  # made on demand, as cutting people out takes time and memory


@dataclass(frozen=True)
class View:
    """One image on its way into a batch; its arrays may be shared, so a transform copies what it changes.

    Attributes:
        image: (H, W, 3) uint8.
        parsing: (H, W) uint8 part classes, or None.
        occlusion: where an occluder was pasted, or None where none was: (H, W) bool; or, from a transform whose mask is
            "difference", (H, W) float32, how much each pixel has changed, summed over the channels in 0 … 1.
        identity: who is to be seen, so that nobody is occluded by himself.
    """

    image: np.ndarray
    parsing: np.ndarray | None = None
    occlusion: np.ndarray | None = None
    identity: str | None = None


class Transform(ABC):
    """Turns a view into another with draws from the generator it is given, and from nothing else.

    Attributes:
        uses: keywords that `make_transform` supplies unless the recipe gives them: ``"mean"``, ``"std"``, ``"people"``,
            ``"strips"``.
        occludes: whether it pastes occluders, so that batches carry an occlusion mask, and so that of two views of an
            image the second alone passes through it.
        mask: what it writes to `View.occlusion`.
    """

    uses: ClassVar[tuple[str, ...]] = ()
    occludes: ClassVar[bool] = False
    mask: Literal["coverage", "difference"] = "coverage"

    @abstractmethod
    def __call__(self, view: View, generator: np.random.Generator) -> View:
        """Return the transformed view."""


TRANSFORMS: Registry[Transform] = Registry("transform")


def make_transform(
    component: Component,
    *,
    mean: Colour = (0.485, 0.456, 0.406),
    std: Colour = (0.229, 0.224, 0.225),
    people: Stock | None = None,
    strips: Stock | None = None,
) -> Transform:
    """Make a transform that a recipe lists.

    Args:
        component: its type and options.
        mean: RGB mean of the recipe's input, in 0 … 1.
        std: likewise its standard deviation.
        people: gives pedestrians to occlude with; called only if they are asked for. None where there are no masks.
        strips: gives border strips of training images; likewise.

    Raises:
        UnknownNameError: no transform has that name.
        UnknownOptionError: it takes no such option, or not such a value.
        RecipeError: its options do not fit each other, or it was given `on` or a weight.

    Example:
        >>> flip = make_transform(Component(type="flip", options={"p": 1.0}))
        >>> flip(View(np.arange(6).reshape(1, 2, 3)), np.random.default_rng(0)).image.tolist()
        [[[3, 4, 5], [0, 1, 2]]]
    """
    kind = TRANSFORMS.get(component.type)
    if component.on is not None or component.weight != 1.0:
        raise RecipeError(f"data.augment '{component.type}' takes neither 'on' nor 'weight'. Remove them.")
    supplied: dict[str, Any] = {"mean": mean, "std": std, "people": people, "strips": strips}
    options = check_options(kind, component.options, f"data.augment '{component.type}'")
    return kind(**{**{name: supplied[name] for name in getattr(kind, "uses", ())}, **options})


def moved(view: View, move: Callable[[np.ndarray], np.ndarray]) -> View:
    """Move the image and whatever masks there are alike."""
    return replace(
        view,
        image=move(view.image),
        parsing=None if view.parsing is None else move(view.parsing),
        occlusion=None if view.occlusion is None else move(view.occlusion),
    )


def background(parsing: np.ndarray | None, where: Any) -> np.ndarray | None:
    """The part mask with background there."""
    if parsing is None:
        return None
    parsing = parsing.copy()
    parsing[where] = 0
    return parsing


def require_order(transform: str, option: str, low: float, high: float) -> None:
    """Raise RecipeError unless the smaller bound comes first."""
    if low > high:
        raise RecipeError(f"data.augment '{transform}': {option} is ({low}, {high}); the smaller bound comes first.")
