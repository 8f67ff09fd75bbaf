"""Occluders: what may be pasted over a person: generated shapes, files of a folder, other pedestrians, strips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from occluded_reid.arguments import checked
from occluded_reid.data.occlusion.cutouts import Cutout, make_cutout
from occluded_reid.data.occlusion.generated import GeneratedCutouts
from occluded_reid.errors import DataError, ImageError, ShapeError
from occluded_reid.pixels import to_rgba

__all__ = ["Occluders"]

SUFFIXES = (".png", ".webp", ".tif", ".tiff")
CROPS = (*SUFFIXES, ".jpg", ".jpeg", ".bmp")
STRIP = 0.3  # of the width or height of the picture that a strip is cut from


class Occluders:
    """A stock of cut-outs, made with `generated`, `from_folder`, `pedestrians`, `strips`, or by adding such stocks.

    A draw picks one of the added stocks first and then one of its cut-outs, each with equal chance, so that a small
    folder beside thousands of pedestrians is still seen.

    Args:
        stocks: (name, cut-outs) of each stock; none is empty.

    Raises:
        DataError: there is nothing in a stock.

    Example:
        >>> occluders = Occluders.generated(seed=0, count=12)
        >>> len(occluders), len(occluders[::2]), occluders.description
        (12, 6, 'generated (12)')
    """

    def __init__(self, stocks: Sequence[tuple[str, Sequence[Cutout]]]) -> None:
        if not stocks or not all(len(cutouts) for _, cutouts in stocks):
            raise DataError("there is nothing to occlude with: every stock of occluders needs at least one cut-out.")
        self._stocks = tuple(stocks)

    @classmethod
    def generated(cls, seed: int = 0, count: int = 240) -> Occluders:
        """Return crates, discs, shrubs, poles, cars and umbrellas, in turn, drawn on first use.

        Args:
            seed: not negative; with a cut-out's number it settles how it looks.
            count: how many different ones.
        """
        if seed < 0:
            raise DataError(f"the seed of generated occluders must not be negative; got {seed}.")
        return cls([("generated", GeneratedCutouts(seed, max(count, 0)))])

    @classmethod
    @checked(DataError)
    def from_folder(cls, folder: str | Path, *, crops: bool = False) -> Occluders:
        """Return the cut-outs of a folder: PNG, WebP or TIFF files with transparency, in the order of their names.

        Every other one is ``Occluders.from_folder(folder)[::2]``.

        Args:
            folder: its sub-folders are not looked into.
            crops: take files without transparency, too, JPEG and BMP among them; they cover a whole rectangle.

        Raises:
            DataError: no such folder, no such files, or, unless `crops`, a file without transparency.
            ImageError: a file cannot be read; it is named.
        """
        root = Path(folder)
        wanted = "PNG, WebP or TIFF files with transparency"
        if crops:
            wanted = f"pictures of what stands in front of people: {wanted}, or rectangular crops (JPEG, PNG, …)"
        if not root.is_dir():
            raise DataError(f"'{root}' is no folder. Give a folder of cut-outs: {wanted}.")
        paths = sorted(path for path in root.iterdir() if path.suffix.lower() in (CROPS if crops else SUFFIXES))
        if not paths:
            raise DataError(f"'{root}' holds no cut-outs. Put {wanted} there, or use generated occluders.")
        return cls([(f"folder {root.name}", tuple(_read(path, crops) for path in paths))])

    @classmethod
    def pedestrians(
        cls, images: Sequence[np.ndarray], masks: Sequence[np.ndarray], identities: Sequence[str] | None = None
    ) -> Occluders:
        """Return people cut out of their pictures; those with a body mask below 2 % of the picture are left out.

        Args:
            images: each (H, W, 3) uint8.
            masks: for each image (H, W), not 0 on the body.
            identities: for each image; nobody is then occluded by himself.

        Raises:
            ShapeError: images, masks and identities do not fit each other.
            DataError: no picture shows enough of a body.
        """
        if len(images) != len(masks) or (identities is not None and len(identities) != len(images)):
            count = "none" if identities is None else str(len(identities))
            raise ShapeError(
                f"{len(images)} images need as many masks and identities; got {len(masks)} masks, {count} identities."
            )
        who: Sequence[str | None] = [None] * len(images) if identities is None else identities
        return cls.cut_out(zip(images, masks, who, strict=True))

    @classmethod
    def cut_out(cls, people: Iterable[tuple[np.ndarray, np.ndarray, str | None]]) -> Occluders:
        """Return people cut out of their pictures, as `pedestrians` does, looking at one picture after another.

        Args:
            people: image (H, W, 3) uint8, mask (H, W), not 0 on the body, and identity of each.

        Raises:
            ShapeError: a mask does not fit its image.
            DataError: no picture shows enough of a body.
        """
        cutouts: list[Cutout] = []
        number = -1
        for number, (image, mask, identity) in enumerate(people):
            if image.shape != (*mask.shape, 3):
                raise ShapeError(f"image {number} is {image.shape}, its mask {mask.shape}; they must be of one size.")
            body = mask > 0
            if body.mean() >= 0.02:
                cut = np.dstack([image, body.astype(np.uint8) * 255])
                cutouts.append(make_cutout(cut, "pedestrian", identity))
        if not cutouts:
            raise DataError(f"none of {number + 1} pictures shows enough of a body to cut out. Look at the masks.")
        return cls([("pedestrians", tuple(cutouts))])

    @classmethod
    def strips(cls, images: Sequence[np.ndarray], identities: Sequence[str] | None = None) -> Occluders:
        """Return border strips of pictures of people, 30 % of a side: mostly what stands around a person.

        One is cut from each picture, from the left, the right, and from the top or the bottom in turn.

        Args:
            images: each (H, W, 3) uint8.
            identities: for each image; nobody is then occluded by a strip of his own picture.

        Raises:
            ShapeError: images and identities do not fit each other.
            DataError: there are no images.
        """
        if identities is not None and len(identities) != len(images):
            raise ShapeError(f"{len(images)} images need as many identities; got {len(identities)}.")
        made: list[Cutout] = []
        for number, image in enumerate(images):
            rows, columns = (max(round(STRIP * side), 1) for side in image.shape[:2])
            sides = (np.s_[:, :columns], np.s_[:, -columns:], np.s_[-rows:] if number % 2 else np.s_[:rows])
            strip = image[sides[number % 3]]
            opaque = np.full(strip.shape[:2], 255, dtype=np.uint8)
            who = None if identities is None else identities[number]
            made.append(make_cutout(np.dstack([strip, opaque]), "strip", who))
        return cls([("strips", tuple(made))])

    @property
    def description(self) -> str:
        """What is in stock, for reports: ``"generated (240) + folder signs (12)"``."""
        return " + ".join(f"{name} ({len(cutouts)})" for name, cutouts in self._stocks)

    def __repr__(self) -> str:
        return f"Occluders({self.description})"

    def __len__(self) -> int:
        return sum(len(cutouts) for _, cutouts in self._stocks)

    def __add__(self, other: Occluders) -> Occluders:
        return Occluders([*self._stocks, *other._stocks])

    def __getitem__(self, chosen: slice) -> Occluders:
        """Return these cut-outs of each stock, such as ``[::2]`` for one half and ``[1::2]`` for the other.

        Raises:
            DataError: nothing is left of a stock.
        """
        return Occluders([(name, cutouts[chosen]) for name, cutouts in self._stocks])

    def pooled(self) -> Occluders:
        """Return the same cut-outs as one stock, from which each is drawn with equal chance."""
        name = " + ".join(name for name, _ in self._stocks)
        return Occluders([(name, tuple(cutout for _, cutouts in self._stocks for cutout in cutouts))])

    def at_most(self, count: int, seed: int = 0) -> Occluders:
        """Return a stock of which each part keeps at most `count` cut-outs, chosen by a seed, in their old order."""
        if count < 1 or seed < 0:
            raise DataError(f"at_most needs a count of 1 or more and a seed that is not negative; got {count}, {seed}.")
        kept: list[tuple[str, Sequence[Cutout]]] = []
        for number, (name, cutouts) in enumerate(self._stocks):
            if len(cutouts) > count:
                order = np.random.default_rng(np.random.SeedSequence([seed, number])).permutation(len(cutouts))
                cutouts = tuple(cutouts[int(chosen)] for chosen in np.sort(order[:count]))
            kept.append((name, cutouts))
        return Occluders(kept)

    def draw(self, generator: np.random.Generator, identity: str | None = None) -> Cutout:
        """Return a random cut-out.

        Args:
            generator: the only source of chance.
            identity: of the person to be occluded, who is not drawn.

        Raises:
            DataError: the stock holds nothing but that very person.
        """
        name, cutouts = self._stocks[int(generator.integers(len(self._stocks)))]
        first = int(generator.integers(len(cutouts)))
        for offset in range(len(cutouts)):
            cutout = cutouts[(first + offset) % len(cutouts)]
            if identity is None or cutout.identity != identity:
                return cutout
        raise DataError(
            f"all cut-outs of '{name}' show identity '{identity}', who is to be occluded. Add other people."
        )


def _read(path: Path, crops: bool) -> Cutout:
    try:
        picture, clear, mode = to_rgba(path)
    except ImageError as cause:
        raise ImageError(f"the cut-out '{path}' cannot be read: {cause} Or take it out of the folder.") from cause
    if not crops and not clear:
        raise DataError(
            f"the cut-out '{path}' has no transparency (mode {mode}). Save it with an alpha channel, or take it out of "
            "the folder."
        )
    return make_cutout(np.asarray(picture), path.stem)
