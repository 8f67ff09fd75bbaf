"""Proposing occluders: pieces of background from pictures of people, where part masks show nobody."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from occluded_reid.arguments import checked
from occluded_reid.data.dataset import mirrored
from occluded_reid.data.images import image_files, open_image, open_mask
from occluded_reid.data.left_out import LeftOut
from occluded_reid.errors import DataError, MaskError
from occluded_reid.files import is_folder, temporary_folder, write_json
from occluded_reid.registry import did_you_mean

__all__ = ["Proposal", "Proposals", "propose_box", "propose_occluders"]

TRAINING = "bounding_box_train"
"""In the layout of Market-1501 the only folder that is looked into: test pictures must not teach."""
LOOK = "look"
"""Sub-folder for what is to be looked at; folders of occluders are read without their sub-folders."""
_TRIES = 24  # shapes that are drawn for each picture, of which the largest that fits is taken
_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R 601-2, as in Pillow


@dataclass(frozen=True)
class Proposal:
    """One piece of background.

    Attributes:
        file: name of the crop in the folder of occluders.
        source: name of its picture, relative to `Proposals.images`.
        left: first column of the box in the picture, in pixels.
        top: first row.
        width: columns.
        height: rows.
    """

    file: str
    source: str
    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Proposals:
    """What `propose_occluders` has written.

    Attributes:
        output: folder of the crops.
        images: folder that the sources are relative to.
        masks: folder of their masks.
        proposals: in the order of their files.
        seen: pictures that were looked at.
        passed: reason -> pictures that gave nothing for it.
    """

    output: Path
    images: Path
    masks: Path
    proposals: tuple[Proposal, ...]
    seen: int
    passed: dict[str, int]

    def summary(self) -> str:
        """Return one line: how many, of how many pictures, and why others gave none."""
        reasons = "".join(f"; {count:,} {reason}" for reason, count in self.passed.items() if count)
        return f"{len(self.proposals):,} occluders from {self.seen:,} pictures in {self.output}{reasons}"


def propose_box(
    body: np.ndarray,
    generator: np.random.Generator,
    *,
    size: tuple[float, float] = (0.15, 1.0),
    margin: float = 0.03,
    least_pixels: int = 8,
) -> tuple[int, int, int, int] | None:
    """Choose a box that holds no pixel of the body.

    Some shapes are drawn, each side a share of the picture's. The largest that fits anywhere is put on one of the
    places where it fits, each as likely.

    Args:
        body: (H, W), not 0 on the person.
        generator: the only source of chance.
        size: smallest and largest share of the picture's width and of its height.
        margin: share of the picture's longer side that is kept clear around the body, as masks miss its border.
        least_pixels: no side is shorter.

    Returns:
        (left, top, width, height) in pixels; None where nothing that was drawn fits.

    Raises:
        DataError: a number is out of range.

    Example:
        >>> body = np.zeros((40, 20), bool); body[:, 10:] = True
        >>> left, top, width, height = propose_box(body, np.random.default_rng(0), margin=0.05)
        >>> left + width <= 8, height > 7
        (True, True)
    """
    if not (0 < size[0] <= size[1] <= 1 and 0 <= margin < 1 and least_pixels >= 1):
        raise DataError(
            f"size {size} must be two shares above 0 and up to 1, the smaller one first, margin {margin} a share in "
            f"[0, 1), and least_pixels {least_pixels} at least 1."
        )
    rows, columns = body.shape
    # taken[r, c]: pixels of the body above row r and left of column c, so that four of them count a box.
    taken = np.zeros((rows + 1, columns + 1), dtype=np.int64)
    taken[1:, 1:] = _grown(body > 0, round(margin * max(rows, columns))).cumsum(0).cumsum(1)
    best: tuple[int, int] | None = None
    for _ in range(_TRIES):
        high, wide = (max(round(generator.uniform(*size) * side), min(least_pixels, side)) for side in (rows, columns))
        if min(high, wide) < least_pixels or (best is not None and high * wide <= best[0] * best[1]):
            continue
        if _free(taken, high, wide).any():
            best = high, wide
    if best is None:
        return None
    places = np.argwhere(_free(taken, *best))
    top, left = places[int(generator.integers(len(places)))]
    return int(left), int(top), best[1], best[0]


@checked(DataError)
def propose_occluders(
    images: str | Path,
    masks: str | Path,
    output: str | Path,
    *,
    count: int = 200,
    size: tuple[float, float] = (0.15, 1.0),
    margin: float = 0.03,
    least_body: float = 0.05,
    least_contrast: float = 12.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Proposals:
    """Write pieces of background as a folder of occluders, one from each picture at most.

    A proposal is no occluder yet: a mask may have missed a person, and a piece of bare ground teaches little. The list
    in ``look/proposals.json`` says where each comes from; delete what does not please, and give the folder to `npo`.

    What is chosen from a picture depends on the picture's name, its mask and the seed alone; pictures are taken in an
    order that the seed and their names settle.

    Args:
        images: folder of training pictures with their sub-folders. Of a folder in the layout of Market-1501 only the
            training split is taken.
        masks: folder that mirrors `images`, .png for the suffix; 0 is background.
        output: a new or empty folder.
        count: how many at most.
        size: see `propose_box`.
        margin: see `propose_box`.
        least_body: a picture whose mask shows less of a body than this share is passed over, as the mask may have
            missed it.
        least_contrast: standard deviation of the grey values, 0 … 255, below which a piece is passed over as bare.
        seed: of everything that is drawn.
        progress: called with (proposals so far, count).

    Raises:
        DataError: no such folder, no pictures, a number out of range, an output that holds something, or nothing found.
        MaskError: no picture has a mask, or a mask does not fit its picture.
        ImageError: a picture cannot be read.
    """
    if count < 1 or seed < 0 or not 0 <= least_body <= 1 or not 0 <= least_contrast <= 127.5:
        raise DataError(
            f"count {count} must be at least 1, seed {seed} not negative, least_body {least_body} in [0, 1] and "
            f"least_contrast {least_contrast} in [0, 127.5]."
        )
    root, masked, target = _folders(Path(images), Path(masks), Path(output))
    names = [path.relative_to(root).as_posix() for path in image_files(root, recursive=True, left_out=LeftOut())]
    if not names:
        raise DataError(f"'{root}' holds no pictures. Give the folder of the training images.")
    files = {name: mask for name in names if (mask := mirrored(masked, name)) is not None}
    if not files:
        raise MaskError(
            f"none of {len(names):,} pictures in '{root}' has a mask in '{masked}', which must mirror its tree: "
            f"'{Path(names[0]).with_suffix('.png')}' is not there. Make masks with: "
            f"occluded-reid parse '{root}' --out MASKS."
        )
    passed = dict.fromkeys(("without a mask", "show too little of a body", "have no room", "are bare there"), 0)
    found: list[Proposal] = []
    seen = 0
    with temporary_folder(target) as folder:
        (folder / LOOK).mkdir()
        for name in sorted(names, key=lambda name: _digest(seed, name)):
            if len(found) == count:
                break
            seen += 1
            if name not in files:
                passed["without a mask"] += 1
                continue
            picture = open_image(root / name)
            body = open_mask(files[name], picture.size, 256) > 0
            if body.mean() < least_body:
                passed["show too little of a body"] += 1
                continue
            generator = np.random.default_rng(list(_digest(seed, name)))
            box = propose_box(body, generator, size=size, margin=margin)
            if box is None:
                passed["have no room"] += 1
                continue
            left, top, width, height = box
            crop = picture.crop((left, top, left + width, top + height))
            if (np.asarray(crop) @ _GREY).std() < least_contrast:
                passed["are bare there"] += 1
                continue
            file = f"{len(found):05d}_{Path(name).stem}.png"
            crop.save(folder / file)
            found.append(Proposal(file, name, left, top, width, height))
            if progress is not None:
                progress(len(found), count)
        proposals = Proposals(target, root, masked, tuple(found), seen, passed)
        if not found:
            raise DataError(
                f"no occluder was found: {proposals.summary()}. Allow smaller pieces (size), a smaller margin or less "
                "contrast, or look at the masks."
            )
        write_json(
            folder / LOOK / "proposals.json",
            {"seed": seed, "size": list(size), "margin": margin, "proposals": [asdict(each) for each in found]},
        )
        if target.exists():
            target.rmdir()
        folder.rename(target)
    return proposals


def _folders(images: Path, masks: Path, output: Path) -> tuple[Path, Path, Path]:
    """The folders of pictures and of their masks, of a data set those of its training split; and the output."""
    for folder, what in ((images, "pictures"), (masks, "masks")):
        if not is_folder(folder, DataError):
            near = [each.name for each in folder.parent.iterdir()] if is_folder(folder.parent, DataError) else []
            raise DataError(f"the folder of {what} '{folder}' does not exist.{did_you_mean(folder.name, near)}")
    if output.exists() and (not is_folder(output, DataError) or any(output.iterdir())):
        raise DataError(f"'{output}' is there already and not an empty folder. Give a new one for the occluders.")
    if is_folder(images / TRAINING, DataError):
        images = images / TRAINING
        masks = masks / TRAINING if is_folder(masks / TRAINING, DataError) else masks
    if output.resolve().is_relative_to(images.resolve()):
        raise DataError(f"'{output}' lies below the pictures, which would then be read anew. Give another folder.")
    return images, masks, output


def _digest(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest()


def _grown(body: np.ndarray, radius: int) -> np.ndarray:
    """The body and all that lies within `radius` pixels of it, across and down."""
    if not radius:
        return body
    side = 2 * radius + 1
    padded = np.pad(body, radius)
    across = np.lib.stride_tricks.sliding_window_view(padded, side, axis=1).any(-1)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(across, side, axis=0).any(-1))


def _free(taken: np.ndarray, high: int, wide: int) -> np.ndarray:
    """For each place of a box's upper left corner, whether the box holds nothing of the body."""
    inside = taken[high:, wide:] - taken[:-high, wide:] - taken[high:, :-wide] + taken[:-high, :-wide]
    return np.asarray(inside == 0)
