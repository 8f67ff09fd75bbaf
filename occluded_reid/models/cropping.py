"""Automatic cropping: what of an image is kept, decided by the regions that a human parser sees (SGAM §3.1)."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from occluded_reid.config import CropConfig
from occluded_reid.contracts import RegionParser
from occluded_reid.data.resize import Box, resize_image
from occluded_reid.errors import BuildError, DataError
from occluded_reid.files import absolute
from occluded_reid.functional.checks import require_rank
from occluded_reid.functional.regions import region_visibility
from occluded_reid.parsing.network import hash_weights
from occluded_reid.registry import did_you_mean

__all__ = ["CropCache", "Cropper", "forget_crops", "visible_box"]

_BATCH = 64
_WAIT = 60.0  # seconds for another process that writes
_TABLE = "create table if not exists crops (key text, image text, box text, primary key (key, image)) without rowid"


def visible_box(
    probabilities: Tensor,
    visible: Sequence[bool],
    size: tuple[int, int],
    *,
    rule: Literal["rows", "box"] = "rows",
    threshold: float = 0.5,
    margin: float = 0.02,
    min_height: float = 0.3,
    when: Literal["hidden", "always"] = "hidden",
    middle: Literal["cut", "keep"] = "cut",
) -> Box | None:
    """The part of an image in which its visible regions lie (SGAM §3.1, which gives no rule).

    With every region visible, or with none of which a cell is seen, the image stays whole. Otherwise the cells in which
    the visible regions together have a probability above `threshold` are bounded; the bound, taken to the image's
    pixels and widened to whole ones, grows by the margin on each side, and then about its middle to the least size.

    One rectangle cannot leave out what hides a region between two visible ones (head, lower body and shoes seen, the
    upper body not). There the visible regions fall into pieces that follow each other without a hidden one; pieces
    whose rows meet, or would with their margins, are one, and the piece of the most cells is kept, the upper one of
    equals.

    Args:
        probabilities: (R, h, w) of one image; regions from the top of a body to its feet.
        visible: whether each region counts as visible.
        size: (height, width) of the image in pixels.
        rule: "rows" keeps the full width, "box" bounds columns too.
        threshold: of the summed probability.
        margin: share of the image's height (and width) that is added on each side.
        min_height: least share of the image's height (with "box", of its width too) that is kept.
        when: "hidden" crops where some region is hidden; "always" also where every region is visible, which with "box"
            takes away a pillar at the side.
        middle: of regions hidden between visible ones, "cut" as above, "keep" bounds all that is visible, and what
            hides the middle with it.

    Returns:
        (left, top, right, bottom) in pixels, or None where the image stays whole.

    Raises:
        ShapeError: probabilities is not (R, h, w).

    Example:
        >>> upper = torch.tensor([[[0.9], [0.8], [0.0], [0.0]], [[0.0], [0.0], [0.0], [0.1]]])
        >>> visible_box(upper, [True, False], (100, 40), margin=0.0)
        (0, 0, 40, 50)
    """
    require_rank(probabilities, 3, "probabilities", "(R, h, w)")
    chosen = [region for region, seen in enumerate(visible) if seen]
    if not chosen or (len(chosen) == len(visible) and when == "hidden"):
        return None
    cells: np.ndarray = (probabilities[chosen].sum(0) > threshold).cpu().numpy()
    if not cells.any():
        return None
    if middle == "cut":
        cells = _one_piece(cells, probabilities, chosen, threshold, margin)
    top, bottom = _bounds(np.any(cells, axis=1), size[0], margin, min_height)
    left, right = _bounds(np.any(cells, axis=0), size[1], margin, min_height) if rule == "box" else (0, size[1])
    box = (left, top, right, bottom)
    return None if box == (0, 0, size[1], size[0]) else box


def _one_piece(
    cells: np.ndarray, probabilities: Tensor, chosen: Sequence[int], threshold: float, margin: float
) -> np.ndarray:
    """Keep of the visible cells those in the rows of one piece of the body, where a hidden region parts it."""
    spans: list[tuple[int, int]] = []
    hidden = [-1, *(region for region in range(len(probabilities)) if region not in chosen), len(probabilities)]
    for above, below in pairwise(hidden):
        run = list(range(above + 1, below))
        rows = np.flatnonzero((probabilities[run].sum(0) > threshold).any(1).cpu().numpy())
        if len(rows):
            spans.append((int(rows[0]), int(rows[-1]) + 1))
    pieces: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if pieces and start - pieces[-1][1] <= round(2 * margin * len(cells), 6):
            pieces[-1] = (pieces[-1][0], max(pieces[-1][1], stop))
        else:
            pieces.append((start, stop))
    if len(pieces) < 2:
        return cells
    start, stop = max(pieces, key=lambda piece: int(cells[piece[0] : piece[1]].sum()))
    kept = np.zeros_like(cells)
    kept[start:stop] = cells[start:stop]
    return kept


def _bounds(seen: np.ndarray, length: int, margin: float, least: float) -> tuple[int, int]:
    """First and last pixel + 1 of the cells that are set, with margin, and not shorter than the least share."""
    cells = np.flatnonzero(seen)
    # Rounded first: 0.02 · 150 is a trifle above 3, and would widen by a whole pixel.
    start = math.floor(round(int(cells[0]) * length / len(seen) - margin * length, 6))
    stop = math.ceil(round((int(cells[-1]) + 1) * length / len(seen) + margin * length, 6))
    start, stop = max(0, start), min(length, stop)
    wanted = min(length, math.ceil(round(least * length, 6)))
    if stop - start < wanted:
        start = min(max(0, start - (wanted - (stop - start)) // 2), length - wanted)
        stop = start + wanted
    return start, stop


class Cropper:
    """Decides the crop of images with a model's parser, in batches, and remembers it on disk where that is asked for.

    Args:
        parser: the model's; it stays the property of whoever made it.
        config: the rule.
        input_size: (height, width) that images are brought to for a parser that names no size of its own.
        resample: how they are brought there.

    Raises:
        BuildError: there is no parser, or the rule asks for what it does not have.
    """

    def __init__(
        self, parser: RegionParser | None, config: CropConfig, input_size: tuple[int, int], resample: str
    ) -> None:
        if parser is None:
            raise BuildError(
                f"model.input.crop.rule is '{config.rule}', which asks a human parser for what is visible, and this "
                "model has none. Name one: model.parser: {type: small, weights: FOLDER}; or set the rule to none."
            )
        self.parser, self.config, self.resample = parser, config, resample
        self.size: tuple[int, int] = getattr(parser, "input_size", None) or input_size
        self.thresholds = _thresholds(config.visible, parser.names)
        if config.visibility == "ref" and not isinstance(getattr(parser, "reference", None), Tensor):
            raise BuildError(
                f"model.input.crop.visibility is 'ref', but the parser {type(parser).__name__} knows no usual area of "
                "its regions (a buffer 'reference'). Set visibility to area, relative or peak."
            )
        self._cache: CropCache | None = None

    def remember_in(self, folder: str | Path) -> None:
        """Keep boxes in a folder from now on, under parser, rule and image; call it when the weights are loaded."""
        parser = [type(self.parser).__qualname__, hash_weights(self.parser), self.size, self.resample]
        what = json.dumps([self.config.model_dump(mode="json"), parser], sort_keys=True)
        self._cache = CropCache(folder, hashlib.sha256(what.encode()).hexdigest())

    def boxes(self, images: Sequence[Image.Image]) -> list[Box | None]:
        """Return the box that is kept of each RGB picture, or None where it stays whole."""
        found: list[Box | None] = []
        for start in range(0, len(images), _BATCH):
            chunk = images[start : start + _BATCH]
            found += self._parsed(chunk) if self._cache is None else self._cache.get(chunk, self._parsed)
        return found

    @torch.no_grad()
    def _parsed(self, images: Sequence[Image.Image]) -> list[Box | None]:
        device = next((tensor.device for tensor in self.parser.state_dict().values()), torch.device("cpu"))
        pixels = torch.from_numpy(np.stack([resize_image(image, *self.size, self.resample) for image in images]))
        maps = self.parser(pixels.to(device).permute(0, 3, 1, 2).float() / 255).float()
        reference = getattr(self.parser, "reference", None) if self.config.visibility == "ref" else None
        visibility = region_visibility(maps, self.config.visibility, reference)
        seen = (visibility.cpu() >= torch.tensor(self.thresholds)).tolist()
        return [
            visible_box(
                one,
                visible,
                (image.height, image.width),
                rule="box" if self.config.rule == "box" else "rows",
                threshold=self.config.threshold,
                margin=self.config.margin,
                min_height=self.config.min_height,
                when=self.config.when,
                middle=self.config.middle,
            )
            for image, one, visible in zip(images, maps.cpu(), seen, strict=True)
        ]


def _thresholds(visible: float | dict[str, float], names: Sequence[str]) -> list[float]:
    if not isinstance(visible, dict):
        return [visible] * len(names)
    if strange := sorted(set(visible) - set(names)):
        raise BuildError(
            f"model.input.crop.visible names the region '{strange[0]}', which the parser does not have."
            f"{did_you_mean(strange[0], names)} Its regions: {', '.join(names)}."
        )
    if missing := [name for name in names if name not in visible]:
        raise BuildError(
            f"model.input.crop.visible gives no threshold for {', '.join(missing)}. Name every region of the parser "
            f"({', '.join(names)}), or give one number for all."
        )
    return [visible[name] for name in names]


class CropCache:
    """Remembers crops under a key of parser and rule, and the sha256 of each image's pixels.

    It is a file ``crops.sqlite`` that several processes may use at a time; a crop is written whole or not at all. It
    holds nothing that cannot be made again: it may be deleted at any time.

    Args:
        folder: where the file is, or is made.
        key: of everything but the image that decides a crop.

    Raises:
        DataError: the folder cannot be written to, or the file is damaged.
    """

    def __init__(self, folder: str | Path, key: str) -> None:
        self.path, self.key = absolute(folder, DataError) / "crops.sqlite", key
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as database, database:
                database.execute(_TABLE)
        except (OSError, sqlite3.Error) as cause:
            raise self._trouble(cause) from cause

    def get(
        self, images: Sequence[Image.Image], decide: Callable[[Sequence[Image.Image]], Sequence[Box | None]]
    ) -> list[Box | None]:
        """Return the crops of some RGB pictures; those that are not known are decided, and remembered.

        Raises:
            DataError: the file cannot be read or written.
        """
        names = [_sha256(image) for image in images]
        try:
            with closing(self._connect()) as database, database:
                asked = ", ".join("?" * len(names))
                rows = database.execute(
                    f"select image, box from crops where key = ? and image in ({asked})", [self.key, *names]
                )
                known = {name: _read(box) for name, box in rows}
            new = {name: image for name, image in zip(names, images, strict=True) if name not in known}
            if new:
                decided = dict(zip(new, decide(list(new.values())), strict=True))
                with closing(self._connect()) as database, database:
                    lines = [(self.key, name, _write(box)) for name, box in decided.items()]
                    database.executemany("insert or replace into crops values (?, ?, ?)", lines)
                known |= decided
        except sqlite3.Error as cause:
            raise self._trouble(cause) from cause
        return [known[name] for name in names]

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_WAIT)

    def _trouble(self, cause: Exception) -> DataError:
        return DataError(
            f"the cache of crops '{self.path}' cannot be used: {cause}. Delete it (crops are then decided anew), or "
            "choose another folder."
        )


def forget_crops(folder: str | Path, images: Iterable[Image.Image] | None) -> int:
    """Delete the crops of some RGB pictures from a cache, under every key, so that no byte of them is left in its file.

    Args:
        folder: where the cache is.
        images: the pictures, looked at one after another, so that they need not be there at once; what they raise is
            raised, and nothing is deleted then. None deletes the crops of all.

    Returns:
        How many crops were deleted.

    Raises:
        DataError: there is no cache, or it cannot be written.
    """
    path = Path(folder) / "crops.sqlite"
    if not path.is_file():
        raise DataError(f"there is no cache of crops '{path}'. Give a folder that cache_crops() was given.")
    names = None if images is None else [(_sha256(image),) for image in images]
    try:
        with closing(sqlite3.connect(path, timeout=_WAIT)) as database:
            database.execute("pragma secure_delete = on")
            with database:
                if names is None:
                    deleted = database.execute("delete from crops").rowcount
                else:
                    deleted = database.executemany("delete from crops where image = ?", names).rowcount
            database.execute("vacuum")
    except sqlite3.Error as cause:
        raise DataError(f"the cache of crops '{path}' could not be written: {cause}. Delete the file.") from cause
    return max(0, deleted)


def _sha256(image: Image.Image) -> str:
    """Of size and pixels: a file, a picture and an array with the same pixels are the same image."""
    digest = hashlib.sha256(f"{image.size}".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def _write(box: Box | None) -> str:
    return "" if box is None else " ".join(map(str, box))


def _read(text: str) -> Box | None:
    if not text:
        return None
    left, top, right, bottom = map(int, text.split())
    return left, top, right, bottom
