"""What the synthetic set shall hold, and every constant that makes it easy or hard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from occluded_reid.arguments import check_fields
from occluded_reid.errors import DataError

FORMAT_VERSION = 1
"""Raised whenever the same options would draw other pictures; a folder of another version is refused."""

PARTS = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg", "foot")
"""Names of the mask classes 0 to 7; hands belong to the lower arm."""


@dataclass(frozen=True)
class Difficulty:
    """How hard the synthetic set is: the one place to calibrate it.

    Args:
        upper_colours: colours shared by all upper garments (at most 8); fewer make identities look more alike.
        lower_colours: colours shared by all lower garments (at most 6).
        colour_jitter: standard deviation, in grey levels of 255, of an identity's own shade of a shared colour.
        plain_share: share of garments without any texture.
        carrying: share of identities with a backpack or a bag.
        camera_cast: standard deviation of a camera's log gain per colour channel.
        camera_gamma: largest deviation of a camera's log gamma.
        camera_haze: largest lift of the darkest tone, as a fraction of white.
        camera_blur: largest factor by which a camera's pictures are reduced and enlarged again.
        camera_noise: largest standard deviation of a camera's noise, in grey levels.
        views: part of the half circle over which the cameras' own directions are spread; 1 shows every side.
        view_spread: standard deviation in radians of the walking direction around a camera's own two directions.
        swing: largest swing of the legs in radians.
        crop_jitter: standard deviation of the box's shift and scale, as a fraction of the body height.
    """

    upper_colours: int = 6
    lower_colours: int = 5
    colour_jitter: float = 6.0
    plain_share: float = 0.1
    carrying: float = 0.6
    camera_cast: float = 0.08
    camera_gamma: float = 0.12
    camera_haze: float = 0.06
    camera_blur: float = 1.5
    camera_noise: float = 5.0
    views: float = 0.5
    view_spread: float = 0.3
    swing: float = 0.45
    crop_jitter: float = 0.012


@dataclass(frozen=True)
class SyntheticOptions:
    """Size and content of a synthetic data set; equal options give byte-identical files.

    Args:
        train_identities: persons in `bounding_box_train`, numbered from 1.
        test_identities: persons in `query` and `bounding_box_test`, numbered after those of training.
        cameras: cameras, each of which sees every person.
        images_per_camera: training images per person and camera.
        gallery_per_camera: gallery images per person and camera.
        queries_per_camera: queries per person and camera.
        distractors: gallery images of passers-by who carry the identity 0000.
        occluded_queries: share of the queries that an occluder covers.
        query_cover: least and largest fraction of the body that is covered in an occluded query.
        occluded_train: share of occluded training images. A network that never saw an occluder lets it disturb the
            features of every part (the receptive field is larger than a stripe), and no visibility can mend that.
        train_cover: least and largest covered fraction there.
        occluded_gallery: share of occluded images in the gallery, distractors included.
        gallery_cover: least and largest covered fraction there.
        seed: everything follows from it.
        width: image width in pixels.
        height: image height in pixels.
        difficulty: the constants that make the set easy or hard.

    Raises:
        DataError: a number is out of its range.

    Example:
        >>> SyntheticOptions(train_identities=2, test_identities=3, cameras=2, distractors=0).images
        {'bounding_box_train': 12, 'query': 6, 'bounding_box_test': 12}
    """

    train_identities: int = 160
    test_identities: int = 60
    cameras: int = 4
    images_per_camera: int = 3
    gallery_per_camera: int = 2
    queries_per_camera: int = 1
    distractors: int = 40
    occluded_queries: float = 0.4
    query_cover: tuple[float, float] = (0.2, 0.4)
    occluded_train: float = 0.25
    train_cover: tuple[float, float] = (0.1, 0.55)
    occluded_gallery: float = 0.12
    gallery_cover: tuple[float, float] = (0.08, 0.28)
    seed: int = 0
    width: int = 64
    height: int = 192
    difficulty: Difficulty = field(default_factory=Difficulty)

    def __post_init__(self) -> None:
        check_fields(self, DataError)
        least = {"cameras": 1, "width": 16, "height": 48}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, int) and value < least.get(item.name, 0):
                raise DataError(f"synthetic set: {item.name} is {value}; give {least.get(item.name, 0)} or more.")
        if not 0 < self.train_identities + self.test_identities <= 9999:
            raise DataError(
                f"synthetic set: {self.train_identities} training and {self.test_identities} test identities; "
                "file names hold four digits: give between 1 and 9999 in all."
            )
        if self.cameras > 9:
            raise DataError(f"synthetic set: {self.cameras} cameras; file names hold one digit: give 9 or fewer.")
        for name in ("occluded_queries", "occluded_train", "occluded_gallery"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"synthetic set: {name} is {getattr(self, name)}; it is a share: give 0 to 1.")
        for name in ("query_cover", "train_cover", "gallery_cover"):
            low, high = getattr(self, name)
            if not 0.02 <= low < high <= 0.9:
                raise DataError(
                    f"synthetic set: {name} is ({low}, {high}); give two rising fractions from 0.02 to 0.9."
                )

    @property
    def images(self) -> dict[str, int]:
        """Number of images in each split."""
        return {
            "bounding_box_train": self.train_identities * self.cameras * self.images_per_camera,
            "query": self.test_identities * self.cameras * self.queries_per_camera,
            "bounding_box_test": self.test_identities * self.cameras * self.gallery_per_camera + self.distractors,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dictionaries, as JSON would read them back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def generator(seed: int, purpose: str, numbers: Sequence[int] = ()) -> np.random.Generator:
    """A random generator that depends on nothing but its arguments.

    Args:
        seed: seed of the data set.
        purpose: what is drawn, so that two uses of the same numbers stay independent.
        numbers: identity, camera, index: whatever is drawn for.

    Returns:
        A fresh generator.
    """
    return np.random.default_rng([seed, *purpose.encode(), *numbers])
