"""The exception tree.

Everything that this library raises on purpose descends from `OccludedReIDError`, so one `except` catches it all.
Each message answers three questions: what was given, what was wanted, what to do.
"""

from __future__ import annotations

__all__ = [
    "AssociationError",
    "BuildError",
    "CalibrationError",
    "CheckpointError",
    "DataError",
    "DeviceError",
    "DuplicateNameError",
    "EmbeddingError",
    "EvaluationError",
    "GalleryError",
    "GalleryLockedError",
    "GalleryMismatchError",
    "ImageError",
    "MaskError",
    "MissingExtraError",
    "NonFiniteLossError",
    "OccludedReIDError",
    "PluginWarning",
    "RecipeError",
    "RegistryError",
    "ShapeError",
    "TrainingError",
    "UnknownNameError",
    "UnknownOptionError",
    "UnsupportedError",
    "WeightsError",
]


class OccludedReIDError(Exception):
    """Base of every error that this library raises on purpose."""


class RegistryError(OccludedReIDError):
    """A registry was used in a way it refuses."""


class UnknownNameError(RegistryError, LookupError):
    """No object is registered under that name; the message suggests the closest ones."""


class DuplicateNameError(RegistryError, ValueError):
    """The name is taken; the message names its owner."""


class UnknownOptionError(RegistryError, TypeError):
    """A registered class takes no such keyword, or not a value of that type."""


class RecipeError(OccludedReIDError, ValueError):
    """A recipe, or an override of one, is not valid; the message starts with the path of the key."""


class BuildError(OccludedReIDError, ValueError):
    """The parts of a model do not fit together."""


class ShapeError(OccludedReIDError, ValueError):
    """A tensor has not the shape, type or range that was asked for."""


class EmbeddingError(OccludedReIDError, ValueError):
    """Embeddings hold NaN, visibility outside [0, 1], or do not fit each other."""


class WeightsError(OccludedReIDError, ValueError):
    """A weights file does not fit the network; the message shows both key layouts."""


class CheckpointError(OccludedReIDError, ValueError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class DataError(OccludedReIDError, ValueError):
    """A data set on disk is empty, incomplete, or not what its layout promises."""


class ImageError(DataError):
    """An image cannot be read; the message names the file."""


class MaskError(DataError):
    """A part mask is missing, has another size than its image, or holds unknown classes."""


class DeviceError(OccludedReIDError, RuntimeError):
    """The device asked for is not there, or cannot do what is asked of it."""


class EvaluationError(OccludedReIDError, ValueError):
    """Queries, gallery and protocol do not make an evaluation."""


class CalibrationError(OccludedReIDError, ValueError):
    """A threshold cannot be calibrated as asked, or a calibration belongs to another model or matcher."""


class TrainingError(OccludedReIDError, RuntimeError):
    """Training cannot start or go on."""


class NonFiniteLossError(TrainingError):
    """A loss became NaN or infinite; the message names the loss and the files of the batch."""


class AssociationError(OccludedReIDError, ValueError):
    """Tracks cannot be put together as asked, or decisions about them contradict each other."""


class GalleryError(OccludedReIDError, ValueError):
    """A gallery cannot be opened, written or searched as asked."""


class GalleryLockedError(GalleryError):
    """Another process is writing to the gallery, or has written meanwhile; try again."""


class GalleryMismatchError(GalleryError):
    """The gallery holds embeddings of another model; the message names both."""


class UnsupportedError(GalleryError):
    """A gallery's back end cannot do what was asked; the message names both, and what to do instead."""


class MissingExtraError(OccludedReIDError, ImportError):
    """An optional dependency is not installed; the message gives the `pip install` line."""


class PluginWarning(UserWarning):
    """A third-party plug-in could not be loaded; the built-ins work on."""
