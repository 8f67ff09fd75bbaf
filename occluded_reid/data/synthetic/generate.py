"""Writing the synthetic set in the layout of Market-1501, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from math import floor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image

from occluded_reid.arguments import checked
from occluded_reid.data.synthetic.canvas import Bytes
from occluded_reid.data.synthetic.options import FORMAT_VERSION, SyntheticOptions, generator
from occluded_reid.data.synthetic.render import Drawing, render
from occluded_reid.errors import DataError
from occluded_reid.files import absolute, is_folder, temporary_folder

LISTING = "synthetic.json"
"""File in the root that describes the set and every image."""

SPLITS = ("bounding_box_train", "query", "bounding_box_test")
_FIRST_DISTRACTOR = 10_000  # behind every identity that four digits can name


@checked(DataError)
def generate(
    root: str | Path,
    options: SyntheticOptions | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 0,
) -> Path:
    """Write the procedural pedestrians: images, part masks, occlusion masks and their description.

    The tree is laid out as Market-1501, with `masks/<split>/<name>.png` (classes 0 to 7 of the visible body),
    `occlusion/<split>/<name>.png` (255 where an occluder is) and `synthetic.json` beside it. Equal options give
    byte-identical files. The tree is built beside `root` and renamed, so `root` is whole or absent.

    Args:
        root: folder to make; it may exist if it is empty or holds this very set, which is then left untouched.
        options: size and content; None: the set of the demo.
        progress: called with the number of images done and the number of all images.
        workers: processes to draw with; 0 draws in this one.

    Returns:
        The root.

    Raises:
        DataError: the folder holds something else, or cannot be written.

    Example:
        >>> import tempfile
        >>> small = SyntheticOptions(train_identities=1, test_identities=1, cameras=1, distractors=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sorted(path.name for path in generate(Path(folder) / "set", small).iterdir())
        ['bounding_box_test', 'bounding_box_train', 'masks', 'occlusion', 'query', 'synthetic.json']
    """
    target = absolute(root, DataError)
    options = SyntheticOptions() if options is None else options
    if _holds(target, options):
        return target
    try:
        with temporary_folder(target) as beside:
            tree = beside / "tree"
            _write_tree(tree, options, progress, workers)
            if target.is_dir():
                target.rmdir()  # empty, or _holds would have refused it
            tree.rename(target)
    except OSError as cause:
        raise DataError(
            f"synthetic set '{target}' could not be written: {cause.strerror or cause}. "
            "Free some space or choose a folder that may be written to; nothing half-written was left."
        ) from cause
    return target


def plan(options: SyntheticOptions) -> list[Drawing]:
    """All pictures of a set, in the order of their files.

    Args:
        options: of the set.

    Returns:
        The samples; which of them are occluded is settled here.
    """
    samples: list[Drawing] = []
    last_train = options.train_identities
    for person in range(1, last_train + options.test_identities + 1):
        for camera in range(1, options.cameras + 1):
            if person <= last_train:
                samples += (
                    _ordinary(options, SPLITS[0], person, person, camera, i) for i in range(options.images_per_camera)
                )
                continue
            gallery = options.gallery_per_camera
            samples += (_ordinary(options, SPLITS[2], person, person, camera, i) for i in range(gallery))
            for i in range(options.queries_per_camera):
                # Counted along identities and cameras, so that neither is always or never occluded.
                turn = person + camera + i
                occluded = floor((turn + 1) * options.occluded_queries) > floor(turn * options.occluded_queries)
                cover = options.query_cover if occluded else None
                samples.append(Drawing(SPLITS[1], person, person, camera, gallery + i, cover))
    for i in range(options.distractors):
        samples.append(_ordinary(options, SPLITS[2], 0, _FIRST_DISTRACTOR + i, 1 + i % options.cameras, i))
    return sorted(samples, key=lambda sample: (SPLITS.index(sample.split), sample.name))


def _ordinary(options: SyntheticOptions, split: str, label: int, person: int, camera: int, index: int) -> Drawing:
    chance = generator(options.seed, "cover", (person, camera, index)).random()
    if split == SPLITS[0]:
        cover = options.train_cover if chance < options.occluded_train else None
    else:
        cover = options.gallery_cover if chance < options.occluded_gallery else None
    return Drawing(split, label, person, camera, index, cover)


def _holds(root: Path, options: SyntheticOptions) -> bool:
    """Whether root is this very set already; an absent or empty folder is not."""
    there = is_folder(root, DataError)
    try:
        empty = there and not any(root.iterdir())
    except OSError as cause:
        raise DataError(f"the folder '{root}' cannot be read: {cause.strerror}. Look at its permissions.") from cause
    if not root.exists() or empty:
        return False
    advice = "Choose another folder, or remove this one to have it made anew."
    if root.exists() and not there:
        raise DataError(f"'{root}' is a file; wanted the folder of a synthetic set. Choose another place.")
    listing = root / LISTING
    if not listing.is_file():
        raise DataError(f"'{root}' is not empty and holds no synthetic set ({LISTING} is missing). {advice}")
    try:
        found = json.loads(listing.read_text(encoding="utf-8"))
        made, version = dict(found["options"]), found["format"]
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise DataError(
            f"'{listing}' cannot be read as the description of a synthetic set: {cause}. {advice}"
        ) from cause
    if version != FORMAT_VERSION:
        raise DataError(
            f"'{root}' holds a synthetic set of format {version}; this is format {FORMAT_VERSION}. {advice}"
        )
    wanted = options.to_dict()
    other = sorted(key for key in wanted.keys() | made.keys() if wanted.get(key) != made.get(key))
    if other:
        differences = ", ".join(f"{key} {made.get(key)} instead of {wanted.get(key)}" for key in other)
        raise DataError(f"'{root}' holds a synthetic set made with other options: {differences}. {advice}")
    return True


def _write_tree(
    tree: Path, options: SyntheticOptions, progress: Callable[[int, int], None] | None, workers: int
) -> None:
    samples = plan(options)
    for split in SPLITS:
        for folder in (tree / split, tree / "masks" / split, tree / "occlusion" / split):
            folder.mkdir(parents=True)
    listing, images = hashlib.sha256(), {}
    for done, (sample, lines, facts) in enumerate(_draw(tree, options, samples, workers), start=1):
        images[f"{sample.split}/{sample.name}"] = facts
        listing.update("".join(f"{digest}  {path}\n" for path, digest in lines).encode())
        if progress is not None:
            progress(done, len(samples))
    description = {
        "format": FORMAT_VERSION,
        "options": options.to_dict(),
        "listing_sha256": listing.hexdigest(),
        "images": images,
    }
    (tree / LISTING).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


_Written = tuple[Drawing, list[tuple[str, str]], dict[str, Any]]


def _draw(tree: Path, options: SyntheticOptions, samples: Iterable[Drawing], workers: int) -> Iterator[_Written]:
    work = partial(_write_one, tree, options)
    if workers <= 0:
        yield from map(work, samples)
        return
    # Spawned, not forked: a fork of a process with threads may hang.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield from pool.map(work, samples, chunksize=32)
    finally:
        # No process may write on while the temporary folder is being removed.
        pool.shutdown(wait=True, cancel_futures=True)


def _write_one(tree: Path, options: SyntheticOptions, sample: Drawing) -> _Written:
    made = render(options, sample)
    path = f"{sample.split}/{sample.name}"
    files: dict[str, Image.Image | Bytes] = {
        path: made.picture,
        f"masks/{path}": made.mask,
        f"occlusion/{path}": made.occlusion,
    }
    lines = []
    for name, content in files.items():
        encoded = _png(content)
        (tree / name).write_bytes(encoded)
        lines.append((name, hashlib.sha256(encoded).hexdigest()))
    facts = {
        "identity": sample.label,
        "camera": sample.camera,
        "occluded_fraction": round(made.occluded_fraction, 6),
        "occluder": made.occluder,
        "body_area": made.body_area,
    }
    return sample, lines, facts


def _png(content: Image.Image | Bytes) -> bytes:
    stream = io.BytesIO()
    picture = content if isinstance(content, Image.Image) else Image.fromarray(content)
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
