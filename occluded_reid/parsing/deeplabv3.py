"""DeepLabV3, SGAM's parsing network (§4.2), with a backbone of torchvision."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
import torchvision
from torch import Tensor

from occluded_reid.backbones.hub import no_weights, unreachable
from occluded_reid.backbones.weights import load_into
from occluded_reid.errors import WeightsError
from occluded_reid.parsing.network import ParsingNetwork
from occluded_reid.registry import PARSERS

__all__ = ["DeepLabV3Parser"]


@PARSERS.register("deeplabv3")
class DeepLabV3Parser(ParsingNetwork):
    """DeepLabV3 (Chen et al., 2017): dilated backbone, spatial pyramid of dilated convolutions, 1×1 classifier.

    A weights file of torchvision's own DeepLabV3 fits, if it has the same number of classes.

    Args:
        backbone: unsaid by SGAM.
        label_set: name of the classes in `LABEL_SETS`; SGAM trains on LIP.
        height, width: input size in pixels.
        mean, std: of the normalisation; by default ImageNet's.
        background: see `ParsingNetwork`.
    """

    kind = "deeplabv3"

    def __init__(
        self,
        *,
        backbone: Literal["resnet101", "resnet50", "mobilenet_v3_large"] = "resnet101",
        label_set: str = "lip20",
        height: int = 320,
        width: int = 320,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        background: bool = True,
    ) -> None:
        options = {
            **{"backbone": backbone, "label_set": label_set, "height": height, "width": width},
            **{"mean": list(mean), "std": list(std), "background": background},
        }
        shared = {"label_set": label_set, "height": height, "width": width, "mean": mean, "std": std}
        super().__init__(options, **shared, background=background)  # type: ignore[arg-type]
        self._backbone_name = backbone
        whole = torchvision.models.get_model(
            f"deeplabv3_{backbone}", weights=None, weights_backbone=None, num_classes=self.classes, aux_loss=False
        )
        self.backbone = whole.backbone
        # Not "classifier", as torchvision calls it: that name is for layers which an exported model leaves out.
        self.decoder = whole.classifier
        self.freeze()

    def logits(self, images: Tensor) -> Tensor:
        """Return (N, K, height / 8, width / 8); with the mobile backbone a sixteenth."""
        scores: Tensor = self.decoder(self.backbone(images)["out"])
        return scores

    def adapted(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors under this network's names, whether they have these or torchvision's."""
        kept = {key: value for key, value in tensors.items() if not key.startswith("aux_classifier.")}
        return {
            f"decoder.{key.removeprefix('classifier.')}" if key.startswith("classifier.") else key: value
            for key, value in kept.items()
        }

    def load_backbone(self, source: str, match: str = "names") -> None:
        """Load ImageNet weights of the backbone from torchvision's hub ("hub"), or from a file.

        Raises:
            WeightsError: the hub cannot be reached, or the file does not fit.
        """
        if source == "hub":
            weights = torchvision.models.get_model_weights(self._backbone_name)["DEFAULT"]
            cached = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
            why = None if cached.is_file() else unreachable(weights.url)
            if why is not None:
                raise WeightsError(no_weights(self._backbone_name, "torchvision's hub", why))
            try:
                # By itself torchvision would unpickle whatever comes.
                fetched = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
                whole = torchvision.models.get_model(self._backbone_name, weights=None)
                whole.load_state_dict(fetched)
            except (OSError, RuntimeError, pickle.UnpicklingError) as error:
                raise WeightsError(no_weights(self._backbone_name, "torchvision's hub", error)) from error
        else:
            whole = torchvision.models.get_model(self._backbone_name, weights=None)
            load_into(whole, source, match)
        features = whole.features if hasattr(whole, "features") else whole
        given = features.state_dict()
        self.backbone.load_state_dict({key: given[key] for key in self.backbone.state_dict()})
