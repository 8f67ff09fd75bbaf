"""Reduction: embeddings with fewer numbers that keep what the matcher measures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from occluded_reid.arguments import checked
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError
from occluded_reid.files import read_safetensors, write_safetensors
from occluded_reid.matchers.base import Matcher
from occluded_reid.matchers.slots import HIDDEN_BELOW, SlotMatcher
from occluded_reid.registry import did_you_mean

__all__ = ["REDUCTION_FILE", "Reduction"]

REDUCTION_FILE = "reduction.safetensors"
"""Its name in the folder of a gallery."""

FORMAT = "occluded_reid.reduction"
FORMAT_VERSION = 1
_CHUNK = 4096  # sample rows in float64 at a time


@dataclass(frozen=True)
class Reduction:
    """A projection for each slot onto the directions that hold most of its energy.

    What is to be kept is what the matcher adds up: v(q) · v(g) · ⟨x, y⟩. For cosine, and for Euclidean distances of
    unit vectors, rows are brought to length 1 first and are *not* centred: the leading eigenvectors of Σ v² x xᵀ keep
    inner products best, and taking the mean off would change angles. Raw Euclidean distances do not see the mean, so
    there it is taken off (principal component analysis proper). Slots that are not named are left as they are.

    Args:
        slots_in: slot -> width of what goes in.
        slots_out: slot -> width of what comes out, in the same order.
        projections: slot -> (width in, width out), float32, orthonormal columns; the reduced slots only.
        means: slot -> (width in,) float32, taken off first; empty unless distances are raw Euclidean.
        normalize: bring rows to length 1 first.
        explained: reduced slot -> share of the sample's energy (of its variance, where centred) that is kept.
        rows: reduced slot -> rows of the sample that show the slot.
        model: fingerprint of the model whose embeddings these are, or None.

    Example:
        >>> from occluded_reid.matchers import PlainMatcher
        >>> sample = PartEmbeddings(("global",), (torch.eye(4)[[0, 0, 1, 1, 1, 2]],), torch.ones(6, 1))
        >>> reduction = Reduction.fit(sample, {"global": 2}, matcher=PlainMatcher())
        >>> reduction.apply(sample).widths, round(reduction.explained["global"], 3)
        ({'global': 2}, 0.833)
    """

    slots_in: Mapping[str, int]
    slots_out: Mapping[str, int]
    projections: Mapping[str, Tensor] = field(repr=False)
    means: Mapping[str, Tensor] = field(repr=False)
    normalize: bool
    explained: Mapping[str, float]
    rows: Mapping[str, int]
    model: str | None = None

    @staticmethod
    @checked(EmbeddingError)
    def fit(
        sample: PartEmbeddings,
        widths: Mapping[str, int],
        *,
        matcher: Matcher,
        normalize: bool | None = None,
        model: str | None = None,
    ) -> Reduction:
        """Learn the projections from a sample of embeddings.

        Memory: one (D, D) float64 matrix and a few thousand rows at a time. The same sample gives the same projections
        (with as many threads; more or fewer of them change last digits, and with them the fingerprint).

        Args:
            sample: rows of images like those to come, such as the training images; never the test set.
            widths: slot -> width wanted, for the slots to reduce.
            matcher: what measures the reduced rows; it says which slots are visible and whether lengths count.
            normalize: bring rows to length 1 first; None asks the matcher (cosine: yes; Euclidean: its `normalize`).
            model: fingerprint of the model.

        Raises:
            EmbeddingError: a slot does not exist, a width is below 1, or larger than the slot or the number of sample
                rows that show it, nothing gets smaller, or the matcher does not say whether lengths count.
        """
        _require_widths(sample, widths)
        unit = _measures_unit_vectors(matcher) if normalize is None else normalize
        visible = matcher.visibility_of(sample) if isinstance(matcher, SlotMatcher) else sample.visibility
        projections, means, explained, rows = {}, {}, {}, {}
        for name, width in widths.items():
            if width == sample.widths[name]:
                continue
            seen = visible[:, sample.names.index(name)].double()
            kept = (seen >= HIDDEN_BELOW).nonzero().flatten()
            if len(kept) < width:
                raise EmbeddingError(
                    f"slot '{name}' is visible in {len(kept)} of the {len(sample)} rows of the sample; {width} numbers "
                    f"need at least {width} rows. Give a larger sample, or a smaller width."
                )
            mean, moment = _moments(sample.slot(name), seen, kept, unit)
            values, vectors = np.linalg.eigh(moment)
            projections[name] = torch.from_numpy(_signed(vectors[:, ::-1][:, :width])).float()
            if mean is not None:
                means[name] = torch.from_numpy(mean).float()
            energy = values.clip(min=0)[::-1]
            explained[name] = float(energy[:width].sum() / energy.sum()) if energy.sum() > 0 else 1.0
            rows[name] = len(kept)
        slots_out = {name: widths.get(name, width) for name, width in sample.widths.items()}
        return Reduction(sample.widths, slots_out, projections, means, unit, explained, rows, model)

    @checked(EmbeddingError)
    def apply(self, rows: PartEmbeddings) -> PartEmbeddings:
        """Return the rows with reduced slots, in the order of `slots_in`; visibility stays.

        Computed in float32 (float64 for float64 rows) and returned in the type that came. A vector of length 0 stays 0
        where lengths do not count.

        Raises:
            EmbeddingError: the rows have other slots or widths than the sample had.
        """
        if not self.fits(rows):
            raise EmbeddingError(
                f"the reduction takes the slots {dict(self.slots_in)}; these rows hold {rows.widths}. "
                "Embed with the model that it was fitted for, or fit another reduction."
            )
        rows = rows if rows.names == tuple(self.slots_in) else rows.select(tuple(self.slots_in))
        return PartEmbeddings(
            rows.names,
            tuple(self._reduced(name, slot) for name, slot in zip(rows.names, rows.embeddings, strict=True)),
            rows.visibility,
        )

    def fits(self, rows: PartEmbeddings) -> bool:
        """Return whether these rows have the slots, in any order, and the full widths."""
        return rows.widths == dict(self.slots_in)

    def require(self, *, matcher: Matcher, model: str | None = None) -> None:
        """Refuse a matcher or a model that these projections were not made for.

        Args:
            matcher: what is to measure the reduced rows.
            model: fingerprint of the model in use; None, here or in the reduction, is not compared.

        Raises:
            EmbeddingError: lengths count for one and not for the other, or the model is another one.
        """
        if isinstance(matcher, SlotMatcher) and _measures_unit_vectors(matcher) != self.normalize:
            raise EmbeddingError(
                f"the reduction was fitted {'without' if self.normalize else 'with'} regard to lengths, and {matcher} "
                f"measures {'with' if self.normalize else 'without'}. Fit another reduction for this matcher."
            )
        if model is not None and self.model is not None and model != self.model:
            raise EmbeddingError(
                f"the reduction was fitted for embeddings of {self.model}; this model is {model}. Fit another one."
            )

    @cached_property
    def fingerprint(self) -> str:
        """The first 12 hex digits of the SHA-256 of everything that changes what comes out."""
        digest = hashlib.sha256(json.dumps([[*self.slots_in.items()], self.normalize], sort_keys=True).encode())
        for kind, tensors in (("projection", self.projections), ("mean", self.means)):
            for name in sorted(tensors):
                digest.update(f"{kind}.{name} {tuple(tensors[name].shape)}".encode())
                digest.update(tensors[name].contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    def bytes_per_image(self, number: int = 2) -> tuple[int, int]:
        """Return the bytes of one image's slots before and after, each number taking 2 (float16) or 4 bytes."""
        return number * sum(self.slots_in.values()), number * sum(self.slots_out.values())

    def save(self, path: str | Path) -> None:
        """Write projections and what they stand on to one safetensors file, whole or not at all.

        Raises:
            EmbeddingError: the file cannot be written.
        """
        tensors = {f"projection.{name}": tensor for name, tensor in self.projections.items()}
        tensors |= {f"mean.{name}": tensor for name, tensor in self.means.items()}
        description = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "slots_in": dict(self.slots_in),
            "slots_out": dict(self.slots_out),
            "normalize": self.normalize,
            "explained": dict(self.explained),
            "rows": dict(self.rows),
            "model": self.model,
            "fingerprint": self.fingerprint,
        }
        write_safetensors(path, tensors, {"reduction": json.dumps(description)}, EmbeddingError)

    @staticmethod
    def load(path: str | Path) -> Reduction:
        """Read what `save` has written.

        Raises:
            EmbeddingError: the file is missing, damaged, of a newer library, or holds something else.
        """
        tensors, metadata = read_safetensors(path, EmbeddingError)
        try:
            content = json.loads(metadata["reduction"])
            if content["format"] != FORMAT:
                raise ValueError(content["format"])
            version = content["format_version"]
        except (KeyError, TypeError, ValueError) as cause:
            raise EmbeddingError(f"'{path}' holds no reduction; write one with Reduction.save().") from cause
        if version > FORMAT_VERSION:
            raise EmbeddingError(
                f"the reduction '{path}' has format {version}; this library reads formats up to {FORMAT_VERSION}. "
                "Update it: pip install --upgrade occluded_reid."
            )
        try:
            return _checked(content, tensors)
        except (AttributeError, KeyError, TypeError, ValueError) as cause:
            raise EmbeddingError(
                f"the reduction '{path}' is damaged: {cause}. Restore the file from a copy, or fit it again."
            ) from cause

    def _reduced(self, name: str, slot: Tensor) -> Tensor:
        if name not in self.projections:
            return slot
        kind = torch.promote_types(slot.dtype, torch.float32)
        rows = slot.to(kind)
        if self.normalize:
            rows = _unit_rows(rows)
        if name in self.means:
            rows = rows - self.means[name].to(rows)
        return (rows @ self.projections[name].to(rows)).to(slot.dtype)


def _checked(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Reduction:
    """Rebuild a reduction and hold it against its own description."""
    slots_in, slots_out = content["slots_in"], content["slots_out"]
    kinds: dict[str, dict[str, Tensor]] = {"projection": {}, "mean": {}}
    for key, tensor in tensors.items():
        kind, _, name = key.partition(".")
        kinds[kind][name] = tensor
    for name, tensor in kinds["projection"].items():
        if tensor.shape != (slots_in[name], slots_out[name]) or not bool(tensor.isfinite().all()):
            raise ValueError(f"the projection of slot '{name}' is {tuple(tensor.shape)} or not finite")
    if {name for name in slots_in if slots_in[name] != slots_out[name]} != set(kinds["projection"]):
        raise ValueError(f"it has projections of {sorted(kinds['projection'])} for {slots_in} to {slots_out}")
    found = Reduction(
        slots_in,
        slots_out,
        kinds["projection"],
        kinds["mean"],
        content["normalize"],
        content["explained"],
        content["rows"],
        content["model"],
    )
    if found.fingerprint != content["fingerprint"]:
        raise ValueError(f"its content is {found.fingerprint}, and it was written as {content['fingerprint']}")
    return found


def _require_widths(sample: PartEmbeddings, widths: Mapping[str, int]) -> None:
    """Refuse widths that make no sense for these slots.

    Raises:
        EmbeddingError: a slot does not exist, its width is out of range, or nothing gets smaller.
    """
    for name, width in widths.items():
        if name not in sample.names:
            raise EmbeddingError(
                f"there is no slot '{name}' to reduce.{did_you_mean(name, sample.names)} "
                f"Slots: {', '.join(sample.names)}."
            )
        if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= sample.widths[name]:
            raise EmbeddingError(
                f"slot '{name}' is to have {width!r} numbers; it has {sample.widths[name]}. "
                f"Give a whole number from 1 to {sample.widths[name]}."
            )
    if all(width == sample.widths[name] for name, width in widths.items()):
        raise EmbeddingError(
            f"nothing gets smaller: the widths {dict(widths)} are those of the slots. Name a smaller width for a slot, "
            "or leave the reduction out."
        )


def _measures_unit_vectors(matcher: Matcher) -> bool:
    """Return whether a matcher measures unit vectors: lengths do not count.

    Raises:
        EmbeddingError: it is none of ours and does not say.
    """
    if not isinstance(matcher, SlotMatcher):
        raise EmbeddingError(
            f"{matcher!r} does not say whether the lengths of vectors count. Say normalize=True if they do not, or "
            "normalize=False."
        )
    return matcher.metric == "cosine" or matcher.normalize


def _moments(slot: Tensor, seen: Tensor, kept: Tensor, unit: bool) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the mean (None for unit vectors) and Σ v² (x - mean)(x - mean)ᵀ of some rows of a slot, in float64.

    Args:
        slot: (N, D).
        seen: (N,) visibility v.
        kept: numbers of the rows that count.
        unit: bring rows to length 1, and take no mean off.
    """
    weight = seen[kept].square()

    def chunks() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(kept), _CHUNK):
            part = kept[start : start + _CHUNK]
            rows = slot[part].detach().cpu().double()
            yield (_unit_rows(rows) if unit else rows), weight[start : start + _CHUNK, None].cpu()

    width = slot.shape[1]
    mean = torch.zeros(width, dtype=torch.float64)
    if not unit:
        for rows, factor in chunks():
            mean += (rows * factor).sum(0)
        mean /= weight.sum()
    moment = torch.zeros(width, width, dtype=torch.float64)
    for rows, factor in chunks():
        rows = (rows - mean) * factor.sqrt()
        moment.addmm_(rows.T, rows)
    return (None if unit else mean.numpy()), moment.numpy()


def _unit_rows(rows: Tensor) -> Tensor:
    """Return rows of length 1; a row of length 0 stays."""
    # By the largest entry first: squares of very large or small numbers would leave the range of the type.
    largest = rows.abs().amax(1, keepdim=True)
    rows = rows / torch.where(largest > 0, largest, 1)
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(length > 0, length, 1)


def _signed(vectors: np.ndarray) -> np.ndarray:
    """Return the same directions, the largest entry of each column positive: an eigenvector alone has no sign."""
    largest = np.abs(vectors).argmax(0)
    return np.ascontiguousarray(vectors * np.where(vectors[largest, range(vectors.shape[1])] < 0, -1.0, 1.0))
