"""Images on their way into a gallery or a query: what they are called, what they hold, and their embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError, ImageError
from occluded_reid.matchers.base import Matcher
from occluded_reid.pixels import TAKEN, Channels, ImageLike, as_list, file_behind, hash_pixels, is_image, to_rgb

__all__ = [
    "EmbeddingModel",
    "ImageLike",
    "Source",
    "as_list",
    "identify",
    "origins_of",
    "tracklets_of",
    "tracks_of_rows",
]


class EmbeddingModel(Protocol):
    """What a gallery asks of a model; a `ReIDModel` is one."""

    @property
    def slots(self) -> Mapping[str, int]:
        """Name and width of each slot."""
        ...

    @property
    def fingerprint(self) -> str:
        """Stable name of configuration and weights, "sorn@3f9a…"."""
        ...

    @property
    def matcher(self) -> Matcher:
        """The system's own matcher."""
        ...

    @property
    def preprocess(self) -> Any:
        """A callable from a list of images to (N, 3, H, W)."""
        ...

    def embed(self, images: Tensor) -> PartEmbeddings:
        """Embed preprocessed images."""
        ...


@dataclass(frozen=True)
class Source:
    """Where an image comes from and what it holds.

    Attributes:
        key: its path as given; for an image in memory its sha256.
        sha256: of the file's bytes; for an image in memory of shape and RGB pixels, in whatever form they are given.
        path: its path as given, or None.
    """

    key: str
    sha256: str
    path: str | None


def tracklets_of(query: Any, channels: Channels = "rgb") -> list[list[ImageLike]] | None:
    """Return the images of each tracklet, where lists of images are asked for; None where it is images alone.

    Raises:
        GalleryError: a tracklet has no image, or stands beside images; its place is named.
    """
    if not isinstance(query, list | tuple):
        return None
    several = [isinstance(part, list | tuple) or getattr(part, "ndim", 0) == 4 for part in query]
    if not any(several):
        return None
    if not all(several):
        raise GalleryError(
            f"query number {several.index(False)} is an image, and others are lists of images. For several tracklets "
            "give a list for each, for single images no list."
        )
    tracklets = [as_list(part, channels) for part in query]
    empty = [number for number, images in enumerate(tracklets) if not images]
    if empty:
        raise GalleryError(f"query number {empty[0]} is a tracklet of no images; give at least one.")
    return tracklets


def tracks_of_rows(query: Any) -> list[PartEmbeddings] | None:
    """Return the embeddings of each tracklet, where several are asked for; None where it is something else.

    Raises:
        GalleryError: a tracklet has no row, or something else stands beside embeddings; its place is named.
    """
    if not isinstance(query, list | tuple) or not any(isinstance(part, PartEmbeddings) for part in query):
        return None
    for number, part in enumerate(query):
        if not isinstance(part, PartEmbeddings) or not len(part):
            what = f"{type(part).__name__}" if not isinstance(part, PartEmbeddings) else "embeddings of no image"
            raise GalleryError(
                f"query number {number} is {what}, beside embeddings of tracklets; give PartEmbeddings of at least one "
                "row for each."
            )
    return list(query)


def identify(image: ImageLike, name: str | None = None) -> Source:
    """Hash an image and give it a key.

    Args:
        image: of any kind; arrays and tensors in the order R, G, B.
        name: what messages call it; by default its path, or what it is.

    Raises:
        ImageError: the file cannot be read, or an image in memory is damaged or has no pixels; it is named.
        ShapeError: an array or a tensor has another type or shape than an image.
        GalleryError: it is nothing that is taken as an image.
    """
    if isinstance(image, str | Path):
        path = Path(image).as_posix()
        try:
            with Path(image).open("rb") as file:
                return Source(path, hashlib.file_digest(file, "sha256").hexdigest(), path)
        except (OSError, ValueError) as cause:
            why = getattr(cause, "strerror", None) or cause
            if isinstance(cause, IsADirectoryError):
                raise ImageError(
                    f"'{path}' is a folder, not an image. Give its images, such as "
                    f"sorted(Path({path!r}).rglob('*.jpg')), or add all of them with "
                    f"`occluded-reid index GALLERY {path}`."
                ) from cause
            raise ImageError(
                f"the image '{path}' cannot be read: {why}. Check the path and its permissions."
            ) from cause
    if not is_image(image):
        raise GalleryError(f"an image is given as {TAKEN}; got {type(image).__name__} for {name or 'it'}.")
    digest = hash_pixels(to_rgb(image, name=name))
    return Source(digest, digest, None)


def origins_of(image: ImageLike, name: str | None = None) -> list[Source]:
    """Return all that an image in a query may be called in a gallery: by its file, and by its pixels.

    A file is known by its path and its bytes, and by its pixels to rows that were added from memory. A PIL image is
    known by its pixels, and by the file that it was opened from while that still holds them. An array, a tensor, or a
    PIL image that was made from another, has no file.

    Raises:
        ImageError, ShapeError: as `identify`.
    """
    own = identify(image, name)
    if isinstance(image, str | Path):
        pixels = hash_pixels(to_rgb(image))
        return [own, Source(pixels, pixels, None)]
    found, pixels = [own], own.sha256
    behind = bytes(image) if isinstance(image, bytes | bytearray | memoryview) else file_behind(image)
    if isinstance(behind, bytes):
        digest = hashlib.sha256(behind).hexdigest()
        found.append(Source(digest, digest, None))
    elif behind is not None:
        try:
            if hash_pixels(to_rgb(behind)) == pixels:
                found.append(identify(behind))
        except ImageError:  # the file has gone, or changed: the picture is known by its pixels alone
            return found
    return found
