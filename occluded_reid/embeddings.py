"""PartEmbeddings: a few slots per image, each with a visibility."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from occluded_reid.arguments import checked, is_several, shown
from occluded_reid.errors import DeviceError, EmbeddingError, ShapeError
from occluded_reid.numbered import whole_numbers
from occluded_reid.registry import did_you_mean

__all__ = ["EmbeddedSet", "PartEmbeddings"]


@dataclass(frozen=True)
class PartEmbeddings:
    """N images as S named slots with a visibility each.

    Args:
        names: the S slot names, all different: ``("global", "part_1", …)``.
        embeddings: S tensors (N, D_s), floating point; the widths may differ.
        visibility: (N, S) in [0, 1]: how much of what the slot describes can be seen.

    Raises:
        ShapeError: the shapes do not fit each other.
        EmbeddingError: an embedding is NaN or infinite, or a visibility lies outside [0, 1]; the row is named.

    Example:
        >>> rows = PartEmbeddings(("global", "part_1"), (torch.ones(2, 4), torch.ones(2, 3)), torch.ones(2, 2))
        >>> len(rows), rows.widths
        (2, {'global': 4, 'part_1': 3})
        >>> rows.select(["global"]).concatenate().shape
        torch.Size([2, 4])
    """

    names: tuple[str, ...]
    embeddings: tuple[Tensor, ...]
    visibility: Tensor

    def __post_init__(self) -> None:
        for field, value in (("names", self.names), ("embeddings", self.embeddings)):
            if not is_several(value):
                raise ShapeError(f"{field} is {shown(value)}; give one for each slot, in a tuple.")
            object.__setattr__(self, field, tuple(value))
        if not all(isinstance(name, str) for name in self.names):
            raise ShapeError(f"slot names are texts; got {shown(self.names)}.")
        if not self.names or len(set(self.names)) != len(self.names):
            raise ShapeError(f"slot names must be given and differ; got {self.names}. Name each slot once.")
        if len(self.embeddings) != len(self.names):
            raise ShapeError(
                f"{len(self.names)} slots {self.names} need as many embeddings; got {len(self.embeddings)}. "
                "Give one (N, D) tensor for each name."
            )
        for part in (self.visibility, *self.embeddings):
            if not isinstance(part, Tensor):
                raise ShapeError(
                    f"embeddings and visibility are tensors; got {type(part).__name__}. Convert with torch.as_tensor()."
                )
        rows = self.visibility.shape[0] if self.visibility.ndim == 2 else -1
        if self.visibility.ndim != 2 or self.visibility.shape[1] != len(self.names):
            raise ShapeError(
                f"visibility must be (N, {len(self.names)}), one column for each slot; "
                f"got {tuple(self.visibility.shape)}."
            )
        if not self.visibility.is_floating_point():
            raise ShapeError(
                f"visibility must be floating-point; got {self.visibility.dtype}. Convert it with .float()."
            )
        for name, rows_of_slot in zip(self.names, self.embeddings, strict=True):
            if rows_of_slot.ndim != 2 or rows_of_slot.shape[0] != rows or not rows_of_slot.is_floating_point():
                raise ShapeError(
                    f"slot '{name}' must be a floating-point ({rows}, D) tensor; "
                    f"got {rows_of_slot.dtype} {tuple(rows_of_slot.shape)}."
                )
            # A sum is finite only if every term is, unless it overflows: one cheap pass, and a slow one on suspicion.
            wide = torch.promote_types(rows_of_slot.dtype, torch.float32)
            if rows_of_slot.numel() and not bool(rows_of_slot.sum(dtype=wide).isfinite()):
                bad = (~rows_of_slot.isfinite()).any(1).nonzero().flatten()
                if bad.numel():
                    raise EmbeddingError(
                        f"slot '{name}' holds NaN or infinity in {bad.numel()} of {rows} rows, the first is row "
                        f"{int(bad[0])}. Look at that image and at the weights of the model."
                    )
        if self.visibility.numel():
            seen = self.visibility.detach()
            low, high = float(seen.min()), float(seen.max())
            if not (low >= 0.0 and high <= 1.0):
                wrong = ~((self.visibility >= 0) & (self.visibility <= 1))
                row, slot = (int(i) for i in wrong.nonzero()[0])
                raise EmbeddingError(
                    f"visibility of slot '{self.names[slot]}' in row {row} is {float(self.visibility[row, slot])}; "
                    "it must lie in [0, 1]."
                )

    def __len__(self) -> int:
        return self.visibility.shape[0]

    def __repr__(self) -> str:
        slots = ", ".join(f"{name} {width}" for name, width in self.widths.items())
        return f"PartEmbeddings({len(self)} rows: {slots})"

    @property
    def widths(self) -> dict[str, int]:
        """Width of each slot, in the order of the slots."""
        return {name: e.shape[1] for name, e in zip(self.names, self.embeddings, strict=True)}

    def __getitem__(self, rows: slice | Tensor | Sequence[int]) -> PartEmbeddings:
        """Return the chosen rows; a slice shares memory with this object."""
        if isinstance(rows, slice):
            # Rows of checked rows need no second look: tiles are cut many times a search.
            cut = object.__new__(PartEmbeddings)
            object.__setattr__(cut, "names", self.names)
            object.__setattr__(cut, "embeddings", tuple(e[rows] for e in self.embeddings))
            object.__setattr__(cut, "visibility", self.visibility[rows])
            return cut
        try:
            index = torch.as_tensor(rows)
            if not index.numel():
                index = index.long()  # an empty list has no type of its own
            return PartEmbeddings(self.names, tuple(e[index] for e in self.embeddings), self.visibility[index])
        except (IndexError, RuntimeError, TypeError, ValueError) as cause:
            if isinstance(cause, EmbeddingError | ShapeError):
                raise
            raise EmbeddingError(
                f"rows {shown(rows)} cannot be taken of {len(self)}: {cause}. Give a slice, or a list of whole numbers."
            ) from cause

    @checked(EmbeddingError)
    def slot(self, name: str) -> Tensor:
        """Return the (N, D) embeddings of one slot.

        Raises:
            EmbeddingError: there is no such slot.
        """
        return self.embeddings[self._position(name)]

    @checked(EmbeddingError)
    def select(self, names: Sequence[str]) -> PartEmbeddings:
        """Return the same rows with these slots only, in this order."""
        positions = [self._position(name) for name in names]
        return PartEmbeddings(tuple(names), tuple(self.embeddings[p] for p in positions), self.visibility[:, positions])

    def with_visibility(self, visibility: Tensor) -> PartEmbeddings:
        """Return the same rows with another visibility (N, S)."""
        return PartEmbeddings(self.names, self.embeddings, visibility)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> PartEmbeddings:
        """Return the same rows on another device, or with embeddings of another type (visibility stays float32).

        Raises:
            DeviceError: there is no such device or type.
        """
        try:
            moved = tuple(e.to(device=device, dtype=dtype) for e in self.embeddings)
            visibility = self.visibility.to(device=device)
        except (RuntimeError, TypeError, ValueError) as cause:
            raise DeviceError(
                f"embeddings cannot be moved to device {shown(device)} and type {shown(dtype)}: "
                f"{str(cause).splitlines()[0]}. Give 'cpu', 'cuda' or the like, and a floating-point type of torch."
            ) from cause
        return PartEmbeddings(self.names, moved, visibility)

    def concatenate(self) -> Tensor:
        """Return all slots side by side, (N, ΣD), without visibility."""
        return torch.cat(self.embeddings, dim=1)

    @checked(EmbeddingError)
    def require_same_slots(self, other: PartEmbeddings) -> None:
        """Raise EmbeddingError unless the other rows have the same slots and widths."""
        if self.widths != other.widths or self.names != other.names:
            raise EmbeddingError(
                f"slots do not fit: one side holds {self.widths}, the other {other.widths}. "
                "Embed both sides with the same model, or select() the slots they share."
            )

    @staticmethod
    @checked(EmbeddingError)
    def cat(parts: Sequence[PartEmbeddings]) -> PartEmbeddings:
        """Return the rows of several objects with equal slots, one after another.

        Raises:
            EmbeddingError: nothing is given, or the slots differ.
        """
        if not parts:
            raise EmbeddingError("nothing to concatenate: give at least one PartEmbeddings.")
        for other in parts[1:]:
            parts[0].require_same_slots(other)
        columns = tuple(torch.cat(column) for column in zip(*(p.embeddings for p in parts), strict=True))
        return PartEmbeddings(parts[0].names, columns, torch.cat([p.visibility for p in parts]))

    def save(self, path: str | Path) -> None:
        """Write all slots and the visibility to one safetensors file, whole or not at all.

        Raises:
            EmbeddingError: the file cannot be written.
        """
        from occluded_reid.files import write_safetensors

        tensors = {f"slot.{name}": e for name, e in zip(self.names, self.embeddings, strict=True)}
        metadata = {"slots": json.dumps(self.names)}
        write_safetensors(path, {**tensors, "visibility": self.visibility}, metadata, EmbeddingError)

    @staticmethod
    def load(path: str | Path) -> PartEmbeddings:
        """Read what `save` has written.

        Raises:
            EmbeddingError: the file is missing, damaged, or holds something else.
        """
        from occluded_reid.files import read_safetensors

        tensors, metadata = read_safetensors(path, EmbeddingError)
        try:
            names = tuple(json.loads(metadata["slots"]))
            embeddings, visibility = tuple(tensors[f"slot.{n}"] for n in names), tensors["visibility"]
        except (KeyError, TypeError, ValueError) as cause:
            raise EmbeddingError(
                f"'{path}' holds no part embeddings (it lacks {cause}); write them with PartEmbeddings.save()."
            ) from cause
        return PartEmbeddings(names, embeddings, visibility)

    def _position(self, name: str) -> int:
        if name not in self.names:
            raise EmbeddingError(f"no slot is named '{name}'.{did_you_mean(name, self.names)} Slots: {self.names}.")
        return self.names.index(name)


@dataclass(frozen=True)
class EmbeddedSet:
    """Embeddings of a query or gallery set with what evaluation needs to know about each row.

    Args:
        embeddings: N rows.
        identity: (N,) int64; equal numbers are the same person. A distractor has a number that no query has.
        camera: (N,) int64.
        paths: N names of images for pictures and messages, or empty.

    Raises:
        ShapeError: the labels have another length than the rows, or are no whole numbers.
    """

    embeddings: PartEmbeddings
    identity: np.ndarray
    camera: np.ndarray
    paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.embeddings, PartEmbeddings):
            raise ShapeError(f"embeddings are {shown(self.embeddings)}; give PartEmbeddings, as model.embed() does.")
        for name in ("identity", "camera"):
            object.__setattr__(self, name, whole_numbers(name, getattr(self, name), ShapeError))
        rows = len(self.embeddings)
        for name, length in (("identity", self.identity.shape), ("camera", self.camera.shape)):
            if length != (rows,):
                raise ShapeError(f"{name} must be ({rows},), one for each embedded row; got {length}.")
        if not is_several(self.paths):
            raise ShapeError(f"paths is {shown(self.paths)}; give the name of each image as a text, or nothing.")
        object.__setattr__(self, "paths", tuple(self.paths))
        if not all(isinstance(path, str) for path in self.paths):
            odd = next(path for path in self.paths if not isinstance(path, str))
            raise ShapeError(f"paths holds {shown(odd)}; give the name of each image as a text.")
        if self.paths and len(self.paths) != rows:
            raise ShapeError(f"paths must be empty or name all {rows} rows; got {len(self.paths)}.")

    def __len__(self) -> int:
        return len(self.embeddings)

    def select(self, names: Sequence[str]) -> EmbeddedSet:
        """Return the same rows with these slots only."""
        return EmbeddedSet(self.embeddings.select(names), self.identity, self.camera, self.paths)
