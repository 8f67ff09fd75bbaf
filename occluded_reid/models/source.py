"""Where a model comes from that was named: the package, the hub, or a folder."""

from __future__ import annotations

from pathlib import Path

from occluded_reid.backbones.hub_files import WEIGHTS, HubAddress, fetch
from occluded_reid.config import is_hub, is_packaged
from occluded_reid.errors import WeightsError
from occluded_reid.models.packaged import packaged_folder

__all__ = ["folder_of", "hub_folder"]

_DESCRIPTION, _CALIBRATION = "model.json", "calibration.json"


def hub_folder(text: str, *, ask: bool = True) -> tuple[Path, str]:
    """Return the folder in the hub's cache of a model that somebody has saved with this library, and where it is from.

    Args:
        text: ``hf-hub:owner/name``, perhaps with ``@revision``.
        ask: False takes what the cache has, and asks nobody.

    Returns:
        The folder, and the address with the commit, which is the same model for ever.

    Raises:
        WeightsError: the hub cannot be reached, or has no such model.
    """
    address = HubAddress.of(text)
    if address.file != WEIGHTS:
        raise WeightsError(f"'{text}' names a file; a model is {address}. A file is for a backbone (--weights {text}).")
    described = fetch(address, _DESCRIPTION, ask=ask)
    if described is None and not ask:
        raise WeightsError(
            f"{address} is not in the hub's cache, and the hub is not asked for what was not named now. Name it: "
            f"--model {address}."
        )
    if described is None:
        raise WeightsError(
            f"{address} has no {_DESCRIPTION}, so it is no model that this library has saved. Weights of a backbone "
            f"are given to a recipe: --weights {address}."
        )
    exactly = HubAddress(address.repository, described.parent.name)  # all files of one commit
    if fetch(exactly, WEIGHTS, ask=ask) is None:
        raise WeightsError(f"{address} has a {_DESCRIPTION} and no {WEIGHTS}. Look at the address.")
    fetch(exactly, _CALIBRATION, ask=ask)  # where there is one
    return described.parent, str(exactly)


def folder_of(source: str) -> Path:
    """Return where the files of a loaded model lie, by its `source`; nothing is fetched.

    Raises:
        CheckpointError, WeightsError: it comes with the library or from the hub, and is not there any more.
    """
    if is_packaged(source):
        return packaged_folder(source)
    return hub_folder(source, ask=False)[0] if is_hub(source) else Path(source)
