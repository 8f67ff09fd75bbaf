"""A model's network: backbone and heads in order, with preprocessing; all that decides an embedding."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from occluded_reid.backbones.base import Backbone
from occluded_reid.config import Recipe
from occluded_reid.contracts import FeatureMaps, HeadOutput, ModelOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.heads.base import Head
from occluded_reid.models.preprocess import Preprocess

__all__ = ["InferenceGraph", "Network"]


class Network(nn.Module):
    """What a `ReIDModel` computes with; engines and exports know no more of it.

    Args:
        recipe: that it was built from.
        num_classes: identities it classifies in training, or None.
        backbone: its backbone.
        heads: by name, in the recipe's order.
        preprocess: None makes the recipe's, without a parser.
    """

    def __init__(
        self,
        recipe: Recipe,
        num_classes: int | None,
        backbone: Backbone,
        heads: Mapping[str, Head],
        preprocess: Preprocess | None = None,
    ) -> None:
        super().__init__()
        self.recipe, self.num_classes = recipe, num_classes
        self.backbone = backbone
        self.heads = nn.ModuleDict(dict(heads))
        self.preprocess = Preprocess(recipe.model.input) if preprocess is None else preprocess
        self.slots = {slot: head.info.slots[slot] for head in heads.values() for slot in head.info.inference_slots}

    @property
    def parts(self) -> dict[str, Head]:
        """The heads by name, in the recipe's order."""
        return dict(cast("list[tuple[str, Head]]", list(self.heads.items())))

    @property
    def name(self) -> str:
        """Name of the recipe."""
        return self.recipe.name

    @property
    def judged(self) -> tuple[str, ...]:
        """The slots whose visibility is judged in each image; the others count as visible in all of them."""
        given = {slot for head in self.parts.values() for slot in head.info.visibility_of}
        return tuple(slot for slot in self.slots if slot in given)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def forward(self, images: Tensor, targets: Targets | None = None) -> ModelOutput:
        """Run the backbone and every head in the recipe's order.

        Args:
            images: (N, 3, H, W), normalised.
            targets: labels in training.

        Raises:
            BuildError: the images have another size than the model was built for.
        """
        self._require_images(images)
        features: FeatureMaps = self.backbone(images)
        context: dict[str, HeadOutput] = {}
        for name, head in self.parts.items():
            if self.training or not head.info.training_only:
                context[name] = head(features, context, targets)
        return ModelOutput(features, context)

    def _require_images(self, images: Tensor) -> None:
        size = (self.preprocess.height, self.preprocess.width)
        if images.ndim != 4 or images.shape[1] != 3 or tuple(images.shape[2:]) != size:
            raise BuildError(
                f"'{self.name}' takes images (N, 3, {size[0]}, {size[1]}); got {tuple(images.shape)}. "
                "Use model.preprocess, or build with another input size."
            )

    def slot_tensors(self, output: ModelOutput) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return what `collect` gathers as plain tensors, unchecked: (N, D_s) for each slot, and (N, S)."""
        embeddings, visibility = {}, {}
        for name, head in self.parts.items():
            for slot in head.info.inference_slots:
                embeddings[slot] = output[name].embeddings[slot].float()
            if name in output.heads:
                visibility.update(output[name].visibility)
        seen = [
            visibility[slot].float() if slot in visibility else embeddings[slot].new_ones(embeddings[slot].shape[0])
            for slot in self.slots
        ]
        return tuple(embeddings[slot] for slot in self.slots), torch.stack(seen, 1)

    def inference_state(self) -> dict[str, Tensor]:
        """Return the tensors that embedding needs: no classifiers, no losses, no heads that exist in training only."""
        dropped = tuple(f"heads.{name}." for name, head in self.parts.items() if head.info.training_only)
        return {
            key: value
            for key, value in self.state_dict().items()
            if not key.startswith((*dropped, "_criterion.")) and ".classifier" not in key
        }

    @property
    def fingerprint(self) -> str:
        """``name@`` and twelve digits of a hash over what decides an embedding: configuration and inference weights."""
        model = self.recipe.model.model_dump(mode="json", exclude={"losses", "matcher"})
        model["backbone"] = {"type": model["backbone"]["type"], "options": model["backbone"]["options"]}
        # Where weights once came from decides nothing; and what a model does without must not change its name.
        parser = model.pop("parser")
        if parser is not None:
            model["parser"] = {"type": parser["type"], "options": parser["options"]}
        if model["input"]["crop"]["rule"] == "none":
            del model["input"]["crop"]
        digest = hashlib.sha256(json.dumps(model, sort_keys=True).encode())
        for key, value in sorted(self.inference_state().items()):
            if not key.endswith("num_batches_tracked"):
                digest.update(key.encode())
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return f"{self.name}@{digest.hexdigest()[:12]}"


class InferenceGraph(nn.Module):
    """Images (N, 3, H, W) in, normalised; every slot (N, D_s) and, last, the visibility (N, S) out.

    Args:
        model: whose backbone and heads these are.
        copied: take copies of them, in evaluation mode and without gradients, which may be changed freely.
    """

    def __init__(self, model: Network, *, copied: bool = False) -> None:
        super().__init__()
        self._model = (model,)  # no part of this module: the heads' own names may be words of Python
        self.names = [name for name, head in model.parts.items() if not head.info.training_only]
        parts = (model.backbone, nn.ModuleList(model.parts[name] for name in self.names))
        self.backbone, self.heads = copy.deepcopy(parts) if copied else parts
        if copied:
            self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the slots in the model's order, and the visibility."""
        features = self.backbone(images)
        context: dict[str, HeadOutput] = {}
        for name, head in zip(self.names, self.heads, strict=True):
            context[name] = head(features, context, None)
        embeddings, visibility = self._model[0].slot_tensors(ModelOutput(features, context))
        # An output that is another output's tensor would lose its name in an exported graph.
        return (*(rows.clone() for rows in embeddings), visibility.clone())
