"""What `index` is given to read: a data set, folders of images, image files, or a list of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from occluded_reid.cli.console import open_data, say_notes

if TYPE_CHECKING:
    from occluded_reid.data.dataset import ReIDData, Sample

__all__ = ["GivenImages", "given_images"]


@dataclass(frozen=True)
class GivenImages:
    """Where images are, and how they are read.

    Attributes:
        paths: folders, image files, or one CSV file.
        dataset: name of their layout; None reads images of any shape, without identities.
        root: what their keys are relative to; None is the folder that they are in.
        labels: what their paths say of cameras and times: options of the loaders.
    """

    paths: Sequence[Path]
    dataset: str | None
    root: Path | None
    labels: Mapping[str, str]

    def load(self, masks: Path | None, holdout: int, seed: int, options: list[str] | None) -> ReIDData:
        """Read them.

        Raises:
            DataError: there is no image, or it is not what its layout promises.
        """
        first, more = self.paths[0], dict(self.labels)
        name = self.dataset or ("folder" if first.suffix.lower() == ".csv" else "images")
        if len(self.paths) > 1 or (name == "images" and not first.is_dir()):
            return self._files(masks, holdout, options)
        if self.dataset is None and name == "folder" and self.root is not None:
            first, more = self.root, {**more, "csv": str(first.absolute())}
        return open_data(name, first, masks, holdout, seed, options=options, more=more)

    def name_of(self, sample: Sample) -> str:
        """Return the key of an image, without a prefix.

        Raises:
            DataError: it does not lie below the root that was given.
        """
        from occluded_reid.errors import DataError

        if self.root is None:
            return sample.name
        base, path = self.root.absolute(), sample.path.absolute()
        for above, below in ((base, path), (base.resolve(), path.resolve())):
            if below.is_relative_to(above):
                return below.relative_to(above).as_posix()
        raise DataError(f"'{path}' does not lie below --root '{base}'. Give a folder above all images.")

    def _files(self, masks: Path | None, holdout: int, options: list[str] | None) -> ReIDData:
        """Several folders and files."""
        from occluded_reid.data.images import IMAGE_SUFFIXES, image_files, refuse_linked_folders
        from occluded_reid.data.left_out import LeftOut
        from occluded_reid.data.unlabelled import unlabelled
        from occluded_reid.errors import DataError

        if masks is not None or holdout or options:
            raise typer.BadParameter("--masks, --holdout and --option are for one data set; leave them out.")
        files, left_out = list[Path](), LeftOut()
        for path in self.paths:
            if path.is_dir():
                refuse_linked_folders(path)
                passed = LeftOut()
                files += image_files(path, recursive=True, left_out=passed)
                left_out.take(passed, f"{path}/")
            elif not path.is_file():
                raise DataError(f"'{path}' does not exist. Give folders of images, image files, or one CSV file.")
            elif path.suffix.lower() not in IMAGE_SUFFIXES:
                known = ", ".join(sorted(IMAGE_SUFFIXES))
                raise DataError(f"'{path}' is no image by its suffix; known are {known}. A CSV file is given alone.")
            else:
                files.append(path)
        once = list(dict.fromkeys(file.absolute() for file in files))
        folders = [str(path.absolute() if path.is_dir() else path.absolute().parent) for path in self.paths]
        labels: Any = dict(self.labels)
        found = unlabelled(once, os.path.commonpath(folders), **labels)
        found = replace(found, notes=(*found.notes, *left_out.notes()))
        say_notes(found)
        return found


def given_images(
    images: Sequence[Path] | None,
    data: Path | None,
    dataset: str | None,
    root: Path | None,
    labels: Mapping[str, str | None],
) -> GivenImages:
    """Check what was given; anything else is wrong usage.

    Args:
        images: folders, image files, or one CSV file.
        data: instead, the folder of a data set.
        dataset: its layout.
        root: what keys are relative to.
        labels: options of loaders, None where one was not given.
    """
    if bool(images) == (data is not None):
        raise typer.BadParameter("give the images to index: folders, image files or a CSV file; or --data, a data set.")
    told = {name: text for name, text in labels.items() if text is not None}
    if data is not None:
        return GivenImages([data], dataset or "market1501", root, told)
    paths = list(images or ())
    if len(paths) > 1 and (dataset is not None or any(path.suffix.lower() == ".csv" for path in paths)):
        raise typer.BadParameter("a data set (--dataset) and a CSV file are given alone; for more call it again.")
    return GivenImages(paths, dataset, root, told)
