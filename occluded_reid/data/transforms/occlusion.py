"""Transforms that occlude: over a share of the body, along the border as FED does, or by erasing a rectangle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from occluded_reid.data.occlusion import Occluded, Occluders, occlude, paste_npo
from occluded_reid.data.occlusion.stock import take_slice
from occluded_reid.data.transforms.base import (
    TRANSFORMS,
    Amount,
    Colour,
    Share,
    Stock,
    Transform,
    View,
    background,
    require_order,
)
from occluded_reid.data.transforms.colour import Erase
from occluded_reid.errors import RecipeError

__all__ = ["EraseOccluder", "Npo", "Occlude"]

Seed = Annotated[int, Field(ge=0)]
Take = Literal["all", "even", "odd"]


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
        take: Take = "all",
        seed: Seed = 0,
        people: Stock | None = None,
    ) -> None:
        require_order("occlude", "share", *share)
        if not kinds or ("folder" in kinds) != (folder is not None):
            raise RecipeError(
                f"data.augment 'occlude': kinds is {list(kinds)} and folder is {folder}; give at least one kind, and a "
                "folder exactly if 'folder' is among them."
            )
        stocks: list[Occluders] = []
        if "generated" in kinds:
            stocks.append(Occluders.generated(seed))
        if folder is not None:
            stocks.append(Occluders.from_folder(folder)[take_slice(take)])
        if "pedestrians" in kinds:
            stocks.append(_people("occlude", people))
        self.p, self.share, self.occluders = p, share, _together(stocks)

    def __call__(self, view: View, generator: np.random.Generator) -> View:
        """Return the view with an occluder on it, or as it is."""
        if generator.random() >= self.p:
            return view
        body = np.ones(view.image.shape[:2], dtype=bool) if view.parsing is None else view.parsing > 0
        share = generator.uniform(*self.share)
        return _covered(view, occlude(view.image, body, share, self.occluders, generator, identity=view.identity))


@TRANSFORMS.register("npo")
class Npo(Transform):
    """Paste a patch that reaches from border to border into a corner: FED's non-pedestrian occlusion.

    See `paste_npo`. The part mask becomes background under it, and `View.occlusion` is set.

    Args:
        p: probability.
        kinds: files of a "folder" (cut-outs with transparency, or crops, which are pasted as whole rectangles);
            "generated" shapes; "strips" from the borders of other people's training images; other "pedestrians" of the
            training split, cut out (needs masks). A draw picks a kind first, then a patch, each with equal chance.
        folders: one or more, whose files make one set.
        take: all files of each folder, or the even ones (1st, 3rd, … by name) or the odd ones, which keeps the others
            for testing.
        patches: keep at most so many of each kind; None keeps all.
        size: smallest and largest share of the image's width, or height, that a patch takes.
        vertical_above: height / width above which a patch stands upright.
        jitter: amount by which brightness, contrast and saturation of lying patches change.
        mask: "difference" sums, over the channels, how much each pixel has changed (FED, Fig. 2), which overlooks a
            patch of the colour that it covers; "coverage" is true where the patch is at least half opaque.
        seed: of the generated shapes, and of which patches are kept.
        people: gives the pedestrians; a loader supplies it.
        strips: likewise the strips.
    """

    uses = ("people", "strips")
    occludes = True

    def __init__(
        self,
        *,
        p: Share = 1.0,
        kinds: tuple[Literal["folder", "generated", "strips", "pedestrians"], ...] = ("generated",),
        folders: tuple[Path, ...] = (),
        take: Take = "all",
        patches: Annotated[int, Field(ge=1)] | None = None,
        size: tuple[Share, Share] = (0.25, 0.5),
        vertical_above: Amount = 2.0,
        jitter: Amount = 0.5,
        mask: Literal["coverage", "difference"] = "difference",
        seed: Seed = 0,
        people: Stock | None = None,
        strips: Stock | None = None,
    ) -> None:
        require_order("npo", "size", *size)
        if not kinds or ("folder" in kinds) != bool(folders):
            raise RecipeError(
                f"data.augment 'npo': kinds is {list(kinds)} and folders is {[str(f) for f in folders]}; give at least "
                "one kind, and folders exactly if 'folder' is among them."
            )
        stocks: list[Occluders] = []
        if folders:
            found = [Occluders.from_folder(folder, crops=True)[take_slice(take)] for folder in folders]
            stocks.append(_together(found).pooled())
        if "generated" in kinds:
            stocks.append(Occluders.generated(seed))
        if "strips" in kinds:
            if strips is None:
                raise RecipeError("data.augment 'npo': 'strips' are cut from training images; only a loader has them.")
            stocks.append(strips())
        if "pedestrians" in kinds:
            stocks.append(_people("npo", people))
        occluders = _together(stocks)
        self.occluders = occluders if patches is None else occluders.at_most(patches, seed)
        self.p, self.size, self.vertical_above, self.jitter, self.mask = p, size, vertical_above, jitter, mask

    def __call__(self, view: View, generator: np.random.Generator) -> View:
        """Return the view with a patch on it, or as it is."""
        if generator.random() >= self.p:
            return view
        result = paste_npo(
            view.image,
            self.occluders,
            generator,
            size=self.size,
            vertical_above=self.vertical_above,
            jitter=self.jitter,
            identity=view.identity,
        )
        return _covered(view, result, self.mask)


@TRANSFORMS.register("erase_occluder")
class EraseOccluder(Transform):
    """Erase a rectangle in place of pasting an occluder: what FED's pasted patches are compared with.

    Random erasing as `erase` does it, but as an occluder: of two views of an image the second alone is erased, the part
    mask becomes background there, and `View.occlusion` is set. The defaults are those of the line that stands in FED's
    code in place of the patches, commented out: every image, 0.05 … 0.4 of it, timm's noise and aspects.

    Args:
        p: probability.
        area: smallest and largest share of the image.
        aspect: smallest and largest height / width.
        aspect_draw: "log_uniform" or "uniform", as of `erase`.
        fill: "noise" or "mean", as of `erase`.
        mask: "difference" or "coverage", as of `npo`.
        mean: RGB in 0 … 1; by default the mean of the recipe's input.
        std: likewise its standard deviation.
    """

    uses = ("mean", "std")
    occludes = True

    def __init__(
        self,
        *,
        p: Share = 1.0,
        area: tuple[Share, Share] = (0.05, 0.4),
        aspect: tuple[Amount, Amount] = (0.3, 3.3333),
        aspect_draw: Literal["uniform", "log_uniform"] = "log_uniform",
        fill: Literal["mean", "noise"] = "noise",
        mask: Literal["coverage", "difference"] = "difference",
        mean: Colour = (0.485, 0.456, 0.406),
        std: Colour = (0.229, 0.224, 0.225),
    ) -> None:
        self.erase = Erase(p=p, area=area, aspect=aspect, aspect_draw=aspect_draw, fill=fill, mean=mean, std=std)
        self.p, self.mask = p, mask

    def __call__(self, view: View, generator: np.random.Generator) -> View:
        """Return the view with a rectangle erased, or as it is."""
        if generator.random() >= self.p:
            return view
        found = self.erase.erased(view.image, generator)
        if found is None:
            return view
        image, box = found
        where = np.zeros(image.shape[:2], dtype=bool)
        where[box] = True
        return _covered(view, Occluded(image, where, float(where.mean()), "erased"), self.mask)


def _covered(view: View, result: Occluded, mask: str = "coverage") -> View:
    """The view with this occluder on it, too; what was occluded before stays so."""
    occlusion = result.mask
    if mask == "difference":
        change = np.abs(result.image.astype(np.int16) - view.image).sum(2, dtype=np.int16)
        occlusion = change.astype(np.float32) / np.float32(255)
    if view.occlusion is not None:
        occlusion = np.maximum(view.occlusion, occlusion)
    return replace(view, image=result.image, parsing=background(view.parsing, result.mask), occlusion=occlusion)


def _people(transform: str, people: Stock | None) -> Occluders:
    if people is None:
        raise RecipeError(
            f"data.augment '{transform}': 'pedestrians' are cut out with part masks, and data.masks is 0. "
            "Set data.masks, or take another kind."
        )
    return people()


def _together(stocks: Sequence[Occluders]) -> Occluders:
    first, *others = stocks
    for other in others:
        first += other
    return first
