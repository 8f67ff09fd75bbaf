"""A memory of one centroid for each training identity, contrasted with and followed by a head's embeddings (FED)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import one_hot

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, MapInfo, Targets
from occluded_reid.errors import BuildError, TrainingError
from occluded_reid.functional import gather_rows, memory_logits, moved_memory
from occluded_reid.heads.base import Head
from occluded_reid.registry import HEADS, did_you_mean

if TYPE_CHECKING:
    from occluded_reid.models.model import ReIDModel

__all__ = ["MemoryHead"]

_BATCH = 64  # images that are embedded at once before training


@HEADS.register("memory")
class MemoryHead(Head):
    """Logits of a head's embedding against a bank M (C, D) of centroids, which exists in training only.

    The logits are cos(e, M_c) / τ; their gradient reaches e alone. The bank moves in the backward pass, when the
    gradient of e is known: M_y ← μ M_y + (1 - μ) e, for each clean view of the global batch in its order. So every
    logit of a step, and every search in the bank, sees it as the step before has left it; a step without a backward
    pass moves nothing, and neither does a batch with an embedding that is not finite.

    The bank starts as the mean embedding of each identity over the training images, not augmented, in evaluation
    mode; until then it is zero. It is saved with training checkpoints and left out of exported models.

    Args:
        info: what the builder knows.
        source: head before this one whose embeddings are compared, all its slots side by side.
        start: head whose embeddings the bank starts from; None is `source`. A head with ``initial_embeddings`` gives
            those (occlusion erasing: normalised features that no score has weighed).
        momentum: μ.
        temperature: τ.
        update: "sequential", one embedding after the other (FED); or "class_mean", once a batch.
        update_views: "clean" views move the bank (FED), or "all".
        renormalize: bring centroids that have moved to length 1. Both sides are normalised in the logits anyway; it
            matters for how much weight later embeddings have.
        share_with: memory whose bank is this one's too (FED's released code). The later head moves it first, as its
            gradient is known first.

    Raises:
        BuildError: a head that is named is not there, or widths do not fit.
    """

    bank: Tensor

    def __init__(
        self,
        info: BuildInfo,
        *,
        source: str,
        start: str | None = None,
        momentum: Annotated[float, Field(ge=0, le=1)] = 0.2,
        temperature: Annotated[float, Field(gt=0)] = 0.05,
        update: Literal["sequential", "class_mean"] = "sequential",
        update_views: Literal["clean", "all"] = "clean",
        renormalize: bool = False,
        share_with: str | None = None,
    ) -> None:
        super().__init__(info)
        self.source, self.start, self.share_with = source, start or source, share_with
        self.momentum, self.temperature = momentum, temperature
        self.update, self.update_views, self.renormalize = update, update_views, renormalize
        width = _width(info, source, "compares embeddings of")
        if share_with is None:
            started = info.heads.get(self.start)
            if started is not None and started.training_only:
                raise BuildError(
                    f"head '{info.name}' starts from head '{self.start}', which exists in training only and gives "
                    "nothing before. Set start: to a head that is matched."
                )
            other, what = _width(info, self.start, "starts from"), f"head '{self.start}' gives"
        else:
            if "bank" not in info.heads.get(share_with, HeadInfo()).maps:
                raise BuildError(
                    f"head '{info.name}' shares the bank of head '{share_with}', which is no memory before it."
                    f"{did_you_mean(share_with, list(info.heads))} Reorder the heads, or remove share_with."
                )
            other, what = info.heads[share_with].maps["bank"].channels, f"the bank of '{share_with}' has"
        if width != other:
            raise BuildError(
                f"head '{info.name}': head '{source}' gives embeddings of {width}, but {what} {other}. "
                "Compare heads of one width."
            )
        if share_with is None:
            self.register_buffer("bank", torch.zeros(info.num_classes or 0, width))
        self.info = HeadInfo(maps={"bank": MapInfo(width, info.input_size[0])}, training_only=True)

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return the logits, and the bank as a map (C, D, 1, 1)."""
        bank = self.bank if self.share_with is None else context[self.share_with].maps["bank"].flatten(1)
        embeddings = _side_by_side(context[self.source])
        if self.training and targets is not None and embeddings.requires_grad:
            self._move_in_backward(bank, embeddings, targets)
        # Over a τ of 0.05 the rounding of half precision would grow twentyfold.
        with torch.autocast(embeddings.device.type, enabled=False):
            logits = memory_logits(embeddings.to(bank.dtype), bank, self.temperature)
        return HeadOutput(logits={"memory": logits}, maps={"bank": bank[:, :, None, None]})

    @torch.no_grad()
    def prepare_training(self, model: ReIDModel, loader: Any) -> None:
        """Fill the bank with the mean embedding of each identity.

        Args:
            model: the whole `ReIDModel`.
            loader: a `TrainLoader`, whose images are embedded without augmentation, resized as a model in use resizes
                them; of any other loader the clean views of epoch 0 are taken.

        Raises:
            TrainingError: the loader shows identities that the model has no class for, or the bank is not finite.
        """
        if self.share_with is not None:
            return
        initial = getattr(model.parts[self.start], "initial_embeddings", None)
        sums = torch.zeros_like(self.bank, dtype=torch.float64)
        counts = sums.new_zeros(len(sums), 1)
        was_training = model.training
        model.eval()
        try:
            for images, labels in _training_images(model, loader):
                images = images.to(self.bank.device)
                rows = initial(model.backbone(images)) if initial else _side_by_side(model(images)[self.start])
                owns = one_hot(labels.to(rows.device), len(sums)).T.to(sums.dtype)
                sums += owns @ rows.to(sums.dtype)
                counts += owns.sum(1, keepdim=True)
        finally:
            model.train(was_training)
        sums, counts = gather_rows(sums[None]).sum(0), gather_rows(counts[None]).sum(0)
        if not bool(torch.isfinite(sums).all()):
            raise TrainingError(
                f"the embeddings that the memory '{self.name}' starts from are not finite. Look at the backbone's "
                "weights, and at the training images."
            )
        self.bank.copy_(sums / counts.clamp(min=1))

    def _move_in_backward(self, bank: Tensor, embeddings: Tensor, targets: Targets) -> None:
        """Gather the rows of all processes now, as each comes by here; move the bank when e has its gradient."""
        rows, labels = gather_rows(embeddings.to(bank.dtype)), gather_rows(targets.identity)
        finite = torch.isfinite(rows).all()
        if self.update_views == "clean" and targets.view is not None:
            clean = gather_rows(targets.view) == 0
            rows, labels = rows[clean], labels[clean]

        @torch.no_grad()
        def move(_: Tensor) -> None:
            moved = moved_memory(bank, rows, labels, self.momentum, rule=self.update, renormalize=self.renormalize)
            bank.copy_(torch.where(finite, moved, bank))

        embeddings.register_hook(move)  # type: ignore[no-untyped-call]


def _width(info: BuildInfo, head: str, what: str) -> int:
    if head not in info.heads:
        raise BuildError(
            f"head '{info.name}' {what} head '{head}', which does not come before it."
            f"{did_you_mean(head, list(info.heads))} Heads so far: {', '.join(info.heads) or 'none'}. "
            "Reorder the heads, or name another."
        )
    if not info.heads[head].slots:
        raise BuildError(f"head '{info.name}' {what} head '{head}', which gives no slots. Name another head.")
    return sum(info.heads[head].slots.values())


def _side_by_side(output: HeadOutput) -> Tensor:
    slots = list(output.embeddings.values())
    return slots[0] if len(slots) == 1 else torch.cat(slots, dim=1)


def _training_images(model: ReIDModel, loader: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised images and class indices: this process's share of the training split, a batch at a time."""
    images, samples, classes = (getattr(loader, name, None) for name in ("images", "samples", "classes"))
    if images is None or samples is None or classes is None:
        for batch in loader.batches(0):
            clean = slice(None) if batch.targets.view is None else batch.targets.view == 0
            yield batch.images[clean], batch.targets.identity[clean]
        return
    if len(classes) != model.num_classes:
        raise TrainingError(
            f"the loader shows {len(classes)} identities; the model classifies {model.num_classes}. "
            f"Build it with num_classes={len(classes)}."
        )
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank, count = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
    images = getattr(loader, "plain", images)
    for start in _shown(range(rank * _BATCH, len(samples), count * _BATCH), quiet=rank > 0):
        positions = range(start, min(start + _BATCH, len(samples)))
        pixels = np.stack([images[position][0] for position in positions])
        yield model.preprocess.normalize(pixels), torch.tensor([classes[samples[p].identity] for p in positions])


def _shown(batches: range, quiet: bool) -> Iterator[int]:
    """Draw a progress bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(
        batches, "filling the memory", console=console, transient=True, disable=quiet or not console.is_terminal
    )
