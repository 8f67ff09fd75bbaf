"""Parameters that learn alone in the first epochs, while the rest of the model is held (PCB's part classifier)."""

from __future__ import annotations

from timm.layers import DropPath
from torch import nn

from occluded_reid.config import AloneConfig
from occluded_reid.errors import RecipeError
from occluded_reid.registry import did_you_mean

__all__ = ["Alone"]

_HELD = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, DropPath)


class Alone:
    """Lets some parameters of a model learn, and holds all others, batch by batch.

    The others get gradients as ever, which are dropped before each step: so several processes exchange the same tensors
    in every epoch, and neither weight decay nor momentum moves what has no gradient.

    Args:
        model: to be trained.
        config: which parameters, and for how many epochs.

    Raises:
        RecipeError: no parameter's name begins so.
    """

    def __init__(self, model: nn.Module, config: AloneConfig) -> None:
        self.model, self.epochs = model, config.epochs
        self.parts = tuple(f"{part.rstrip('.')}." for part in config.parts)
        known = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        for given, part in zip(config.parts, self.parts, strict=True):
            if not any(f"{name}.".startswith(part) for name in known):
                above = sorted({name.rpartition(".")[0] for name in known})
                raise RecipeError(
                    f"optim.alone.parts: no parameter that learns has a name that begins with '{given}'."
                    f"{did_you_mean(given, above)} Name a module, such as {', '.join(above[-3:])}."
                )

    def hold_layers(self) -> None:
        """Let batch normalisation that is held use and keep its running statistics, and dropout drop nothing.

        Everything else stays in training mode, so that every loss is computed as ever.
        """
        for name, module in self.model.named_modules():
            if isinstance(module, _HELD) and not self._learns(name):
                module.eval()

    def drop_gradients(self) -> None:
        """Forget the gradients of what is held."""
        for name, parameter in self.model.named_parameters():
            if not self._learns(name):
                parameter.grad = None

    def _learns(self, name: str) -> bool:
        return f"{name}.".startswith(self.parts)
