"""Transforms that change colours where they are: a rectangle erased, brightness, contrast, saturation."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
from PIL import Image, ImageEnhance

from occluded_reid.data.transforms.base import (
    TRANSFORMS,
    Amount,
    Colour,
    Share,
    Transform,
    View,
    background,
    require_order,
)
from occluded_reid.errors import RecipeError

__all__ = ["ColorJitter", "Erase"]


@TRANSFORMS.register("erase")
class Erase(Transform):
    """Fill a random rectangle with the mean colour or with noise; what lay there is background.

    Random Erasing of Zhong et al., 2020. BoT fills with the mean, draws the aspect uniformly, and erases up to 0.4;
    TransReID takes timm's: noise (mode `pixel`), log of the aspect uniform, up to 1/3.

    Args:
        p: probability.
        area: smallest and largest share of the image.
        aspect: smallest and largest height / width.
        aspect_draw: "uniform" draws height / width between the two bounds, so that with 0.3 … 3.33 three rectangles of
            four are upright; "log_uniform" draws its logarithm, so that upright and lying ones are alike.
        fill: "mean", which normalisation turns into 0; "noise", which it turns into a standard normal value for each
            pixel and channel, but for what bytes cannot hold: values outside of black … white become black or white.
        mean: RGB in 0 … 1; by default the mean of the recipe's input.
        std: likewise its standard deviation.
    """

    uses = ("mean", "std")

    def __init__(
        self,
        *,
        p: Share = 0.5,
        area: tuple[Share, Share] = (0.02, 0.4),
        aspect: tuple[Amount, Amount] = (0.3, 3.33),
        aspect_draw: Literal["uniform", "log_uniform"] = "uniform",
        fill: Literal["mean", "noise"] = "mean",
        mean: Colour = (0.485, 0.456, 0.406),
        std: Colour = (0.229, 0.224, 0.225),
    ) -> None:
        require_order("erase", "area", *area)
        require_order("erase", "aspect", *aspect)
        if not area[0] or not aspect[0]:
            raise RecipeError(f"data.augment 'erase': area and aspect must be above 0; got {area} and {aspect}.")
        self.p, self.area, self.aspect, self.aspect_draw, self.fill = p, area, aspect, aspect_draw, fill
        self.mean, self.std = np.asarray(mean) * 255, np.asarray(std) * 255

    def __call__(self, view: View, generator: np.random.Generator) -> View:
        """Return the view with a rectangle erased, or as it is."""
        if generator.random() >= self.p:
            return view
        found = self.erased(view.image, generator)
        return view if found is None else replace(view, image=found[0], parsing=background(view.parsing, found[1]))

    def erased(
        self, image: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, tuple[slice, slice]] | None:
        """Return a copy of the image with a rectangle erased, and its rows and columns; None where none was found."""
        height, width = image.shape[:2]
        for _ in range(100):  # as often as BoT tries before it leaves an image whole
            area, aspect = generator.uniform(*self.area) * height * width, self._aspect(generator)
            rows, columns = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if 0 < rows < height and 0 < columns < width:
                top, left = generator.integers(0, height - rows + 1), generator.integers(0, width - columns + 1)
                box = np.s_[top : top + rows, left : left + columns]
                values = self.mean
                if self.fill == "noise":
                    values = values + self.std * generator.standard_normal((rows, columns, 3))
                result = image.copy()
                result[box] = np.round(np.clip(values, 0, 255))
                return result, box
        return None

    def _aspect(self, generator: np.random.Generator) -> float:
        if self.aspect_draw == "uniform":
            return float(generator.uniform(*self.aspect))
        return math.exp(generator.uniform(math.log(self.aspect[0]), math.log(self.aspect[1])))


@TRANSFORMS.register("color_jitter")
class ColorJitter(Transform):
    """Change brightness, contrast and saturation, each by a factor drawn from 1 ± its amount.

    Args:
        p: probability.
        brightness: 0 leaves it as it is.
        contrast, saturation: likewise.
        order: "fixed" is the order of the first line; "random" draws one of the six for each image, as torchvision's
            transform of this name does.
    """

    def __init__(
        self,
        *,
        p: Share = 1.0,
        brightness: Amount = 0.2,
        contrast: Amount = 0.15,
        saturation: Amount = 0.15,
        order: Literal["fixed", "random"] = "fixed",
    ) -> None:
        self.p, self.order = p, order
        self.steps = tuple(
            zip(
                (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color),
                (brightness, contrast, saturation),
                strict=True,
            )
        )

    def __call__(self, view: View, generator: np.random.Generator) -> View:
        """Return the view in other colours; masks stay."""
        if generator.random() >= self.p:
            return view
        image = Image.fromarray(view.image)
        for step in generator.permutation(3) if self.order == "random" else range(3):
            enhancer, amount = self.steps[step]
            image = enhancer(image).enhance(generator.uniform(max(0.0, 1 - amount), 1 + amount))
        return replace(view, image=np.asarray(image))
