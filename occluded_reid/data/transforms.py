"""Augmentation: image, part mask and occluder mask move together, by chance from a generator of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image, ImageEnhance
from pydantic import Field

from occluded_reid.config import Component
from occluded_reid.data.occlusion import Occluders, occlude
from occluded_reid.errors import RecipeError
from occluded_reid.registry import Registry, check_options

__all__ = [
    "TRANSFORMS",
    "ColorJitter",
    "Erase",
    "Flip",
    "Occlude",
    "PadCrop",
    "Transform",
    "View",
    "make_transform",
]

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class View:
    """One image on its way into a batch; its arrays may be shared, so a transform copies what it changes.

    Attributes:
        image: (H, W, 3) uint8.
        parsing: (H, W) uint8 part classes, or None.
        occlusion: (H, W) bool, True where an occluder was pasted, or None where none was.
        identity: who is to be seen, so that nobody is occluded by himself.
    """

    image: np.ndarray
    parsing: np.ndarray | None = None
    occlusion: np.ndarray | None = None
    identity: str | None = None


class Transform(ABC):
    """Turns a view into another with draws from the generator it is given, and from nothing else.

    Attributes:
        uses: keywords that `make_transform` supplies unless the recipe gives them: ``"mean"``, ``"people"``.
        occludes: whether it pastes occluders, so that batches carry an occlusion mask.
    """

    uses: ClassVar[tuple[str, ...]] = ()
    occludes: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, view: View, generator: np.random.Generator) -> View:
        """Return the transformed view."""


TRANSFORMS: Registry[Transform] = Registry("transform")


@TRANSFORMS.register("flip")
class Flip(Transform):
    """Mirror left and right; left and right limbs share a class, so labels stay as they are.

    Args:
        p: probability.
    """

    def __init__(self, *, p: Share = 0.5) -> None:
        self.p = p

    def __call__(self, view: View, generator: np.random.Generator) -> View:
        """Return the view, mirrored or not."""
        return _moved(view, lambda a: a[:, ::-1]) if generator.random() < self.p else view


@TRANSFORMS.register("pad_crop")
class PadCrop(Transform):
    """Pad all sides with black and background, and cut the old size out at a random place (Luo et al., BoT, 2019).

    Args:
        pad: pixels on each side.
    """

    def __init__(self, *, pad: Annotated[int, Field(ge=0)] = 10) -> None:
        self.pad = pad

    def __call__(self, view: View, generator: np.random.Generator) -> View:
        """Return the shifted view."""
        top, left = generator.integers(0, 2 * self.pad + 1, 2)
        height, width = view.image.shape[:2]

        def shift(array: np.ndarray) -> np.ndarray:
            padded = np.pad(array, [(self.pad, self.pad), (self.pad, self.pad), (0, 0)][: array.ndim])
            return padded[top : top + height, left : left + width]

        return _moved(view, shift)


@TRANSFORMS.register("erase")
class Erase(Transform):
    """Fill a random rectangle with the mean colour; what lay there is background (Zhong et al., Random Erasing, 2020).

    Args:
        p: probability.
        area: smallest and largest share of the image.
        aspect: smallest and largest height / width.
        mean: RGB in 0 … 1; by default the mean of the recipe's input, which normalisation turns into 0.
    """

    uses = ("mean",)

    def __init__(
        self,
        *,
        p: Share = 0.5,
        area: tuple[Share, Share] = (0.02, 0.4),
        aspect: tuple[Amount, Amount] = (0.3, 3.33),
        mean: Colour = (0.485, 0.456, 0.406),
    ) -> None:
        _require_order("erase", "area", *area)
        _require_order("erase", "aspect", *aspect)
        if not area[0] or not aspect[0]:
            raise RecipeError(f"data.augment 'erase': area and aspect must be above 0; got {area} and {aspect}.")
        self.p, self.area, self.aspect = p, area, aspect
        self.fill = np.round(np.asarray(mean) * 255).astype(np.uint8)

    def __call__(self, view: View, generator: np.random.Generator) -> View:
        """Return the view with a rectangle erased, or as it is."""
        if generator.random() >= self.p:
            return view
        height, width = view.image.shape[:2]
        for _ in range(100):  # as often as BoT tries before it leaves an image whole
            area, aspect = generator.uniform(*self.area) * height * width, generator.uniform(*self.aspect)
            rows, columns = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if 0 < rows < height and 0 < columns < width:
                top, left = generator.integers(0, height - rows + 1), generator.integers(0, width - columns + 1)
                box = np.s_[top : top + rows, left : left + columns]
                image = view.image.copy()
                image[box] = self.fill
                return replace(view, image=image, parsing=_background(view.parsing, box))
        return view


@TRANSFORMS.register("color_jitter")
class ColorJitter(Transform):
    """Change brightness, contrast and saturation, in this order, each by a factor drawn from 1 ± its amount.

    Args:
        p: probability.
        brightness: 0 leaves it as it is.
        contrast, saturation: likewise.
    """

    def __init__(
        self, *, p: Share = 1.0, brightness: Amount = 0.2, contrast: Amount = 0.15, saturation: Amount = 0.15
    ) -> None:
        self.p, self.amounts = p, (brightness, contrast, saturation)

    def __call__(self, view: View, generator: np.random.Generator) -> View:
        """Return the view in other colours; masks stay."""
        if generator.random() >= self.p:
            return view
        image = Image.fromarray(view.image)
        for enhancer, amount in zip(
            (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), self.amounts, strict=True
        ):
            image = enhancer(image).enhance(generator.uniform(max(0.0, 1 - amount), 1 + amount))
        return replace(view, image=np.asarray(image))


@TRANSFORMS.register("occlude")
class Occlude(Transform):
    """Paste an occluder over a random share of the body, or of the image where there are no part masks.

    The part mask becomes background under it, and `View.occlusion` is set.

    Args:
        p: probability.
        share: smallest and largest share of the body to cover.
        kinds: "generated" shapes, cut-outs from a "folder", other "pedestrians" of the training split (needs masks).
        folder: of cut-outs with transparency.
        take: all cut-outs of the folder, or the even or odd ones, which keeps the others for testing.
        seed: of the generated shapes.
        people: gives the pedestrians; a loader supplies it.
    """

    uses = ("people",)
    occludes = True

    def __init__(
        self,
        *,
        p: Share = 0.5,
        share: tuple[Share, Share] = (0.1, 0.5),
        kinds: tuple[Literal["generated", "folder", "pedestrians"], ...] = ("generated",),
        folder: Path | None = None,
        take: Literal["all", "even", "odd"] = "all",
        seed: Annotated[int, Field(ge=0)] = 0,
        people: Callable[[], Occluders] | None = None,
    ) -> None:
        _require_order("occlude", "share", *share)
        if not kinds or ("folder" in kinds) != (folder is not None):
            raise RecipeError(
                f"data.augment 'occlude': kinds is {list(kinds)} and folder is {folder}; give at least one kind, and a "
                "folder exactly if 'folder' is among them."
            )
        if "pedestrians" in kinds and people is None:
            raise RecipeError(
                "data.augment 'occlude': 'pedestrians' are cut out with part masks, and data.masks is 0. "
                "Set data.masks, or take another kind."
            )
        stocks: list[Occluders] = []
        if "generated" in kinds:
            stocks.append(Occluders.generated(seed))
        if folder is not None:
            chosen = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}[take]
            stocks.append(Occluders.from_folder(folder)[chosen])
        if "pedestrians" in kinds and people is not None:
            stocks.append(people())
        self.p, self.share = p, share
        self.occluders = stocks[0]
        for stock in stocks[1:]:
            self.occluders += stock

    def __call__(self, view: View, generator: np.random.Generator) -> View:
        """Return the view with an occluder on it, or as it is."""
        if generator.random() >= self.p:
            return view
        body = np.ones(view.image.shape[:2], dtype=bool) if view.parsing is None else view.parsing > 0
        share = generator.uniform(*self.share)
        result = occlude(view.image, body, share, self.occluders, generator, identity=view.identity)
        occlusion = result.mask if view.occlusion is None else result.mask | view.occlusion
        return replace(view, image=result.image, parsing=_background(view.parsing, result.mask), occlusion=occlusion)


def make_transform(
    component: Component,
    *,
    mean: Colour = (0.485, 0.456, 0.406),
    people: Callable[[], Occluders] | None = None,
) -> Transform:
    """Make a transform that a recipe lists.

    Args:
        component: its type and options.
        mean: RGB mean of the recipe's input, in 0 … 1.
        people: gives pedestrians to occlude with; called only if they are asked for. None where there are no masks.

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
    supplied: dict[str, Any] = {"mean": mean, "people": people}
    options = check_options(kind, component.options, f"data.augment '{component.type}'")
    return kind(**{**{name: supplied[name] for name in getattr(kind, "uses", ())}, **options})


def _moved(view: View, move: Callable[[np.ndarray], np.ndarray]) -> View:
    """Move the image and whatever masks there are alike."""
    return replace(
        view,
        image=move(view.image),
        parsing=None if view.parsing is None else move(view.parsing),
        occlusion=None if view.occlusion is None else move(view.occlusion),
    )


def _background(parsing: np.ndarray | None, where: Any) -> np.ndarray | None:
    if parsing is None:
        return None
    parsing = parsing.copy()
    parsing[where] = 0
    return parsing


def _require_order(transform: str, option: str, low: float, high: float) -> None:
    if low > high:
        raise RecipeError(f"data.augment '{transform}': {option} is ({low}, {high}); the smaller bound comes first.")
