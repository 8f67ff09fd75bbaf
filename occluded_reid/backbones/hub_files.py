"""Other people's weights on the Hugging Face hub: fetched when they are named, as safetensors and JSON alone.

An address is ``hf-hub:owner/name``, with ``@revision`` and ``:file.safetensors`` where these are to be others than the
newest one and the usual one. Nothing that is fetched is executed or unpickled; what is in the hub's cache already is
taken from there when the hub cannot be reached.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from occluded_reid.backbones.hub import quick_hub
from occluded_reid.config import HUB
from occluded_reid.errors import WeightsError

__all__ = ["WEIGHTS", "HubAddress", "fetch", "hub_weights"]

WEIGHTS = "model.safetensors"
"""The file of weights that is taken where none is named."""

_ADDRESS = re.compile(
    rf"{HUB}(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+(?:/[\w.-]+)*))?(?::(?P<file>[\w.-]+(?:/[\w.-]+)*))?"
)
_READ = (".safetensors", ".json")
# The client's own errors of the connection stand in different packages in different versions of it.
_TROUBLE = (OSError, ValueError, *(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError"))


@dataclass(frozen=True)
class HubAddress:
    """What is named on the hub.

    Attributes:
        repository: ``owner/name``.
        revision: a branch, a tag or a commit; None is the newest.
        file: of weights.
    """

    repository: str
    revision: str | None = None
    file: str = WEIGHTS

    def __str__(self) -> str:
        return f"{HUB}{self.repository}" + ("" if self.revision is None else f"@{self.revision}")

    @staticmethod
    def of(text: str) -> HubAddress:
        """Read an address.

        Raises:
            WeightsError: it is none, or names a file that may hold code.

        Example:
            >>> HubAddress.of("hf-hub:anna/coats@v2")
            HubAddress(repository='anna/coats', revision='v2', file='model.safetensors')
        """
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise WeightsError(
                f"'{text}' is no address on the hub. Give {HUB}owner/name, {HUB}owner/name@revision, or "
                f"{HUB}owner/name:file.safetensors."
            )
        file = found["file"] or WEIGHTS
        if Path(file).suffix != ".safetensors" or ".." in file.split("/"):
            raise WeightsError(
                f"'{text}' names '{file}'; from the hub only .safetensors are taken, which hold numbers and no code. "
                "Convert the weights, or fetch the file yourself and give its path."
            )
        return HubAddress(found["repository"], found["revision"], file)


def hub_weights(text: str) -> Path:
    """Fetch the weights that an address names.

    Raises:
        WeightsError: the hub cannot be reached, or has no such file.
    """
    address = HubAddress.of(text)
    found = fetch(address, address.file)
    if found is None:
        raise WeightsError(
            f"{address} has no '{address.file}'. If its weights are called otherwise: {address}:NAME.safetensors."
        )
    return found


def fetch(address: HubAddress, file: str, *, ask: bool = True) -> Path | None:
    """Return a file of a repository in the hub's cache, fetched before where it may be asked for.

    Args:
        address: of the repository.
        file: its name; it ends in .safetensors or .json.
        ask: False takes what the cache has, and asks nobody.

    Returns:
        Its path; None where the repository has no such file, or, unasked, the cache.

    Raises:
        WeightsError: the hub cannot be reached and the cache has no such file; or there is no such repository or
            revision.
    """
    if not file.endswith(_READ):
        raise WeightsError(f"'{file}' is not fetched; from the hub only {' and '.join(_READ)} are taken.")
    settings = huggingface_hub.constants

    def get(local: bool) -> Path:
        return Path(
            huggingface_hub.hf_hub_download(
                address.repository,
                file,
                revision=address.revision,
                cache_dir=settings.HF_HUB_CACHE,
                local_files_only=local,
            )
        )

    if not ask:
        try:
            return get(local=True)
        except LocalEntryNotFoundError:
            return None
    with quick_hub() as why:
        try:
            return get(local=why is not None)
        except LocalEntryNotFoundError as cause:
            raise WeightsError(
                f"'{file}' of {address} could not be fetched from the hub ({why or cause}), and is not in its cache. "
                "Try again where there is a network, or give the path of a file or folder."
            ) from cause
        except EntryNotFoundError:
            return None
        except (RepositoryNotFoundError, RevisionNotFoundError) as cause:
            missing = "revision" if isinstance(cause, RevisionNotFoundError) else "repository"
            raise WeightsError(
                f"the hub has no {missing} {address}, or it is not open to you. Look at the address."
            ) from cause
        except _TROUBLE as cause:
            raise WeightsError(f"'{file}' of {address} could not be fetched from the hub: {cause}") from cause
