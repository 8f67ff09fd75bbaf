"""Weights and their description in one folder: NAME.safetensors and NAME.json, each with the checksum of its content.

A bit that flipped on a disk changes embeddings without any other sign: what is read is what was written, or an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from occluded_reid.errors import OccludedReIDError
from occluded_reid.files import open_file, read_json, read_safetensors, write_json, write_safetensors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["file_sha256", "read_sealed", "read_sealed_tensors", "write_sealed"]

_FORMAT = 2
_UNSEALED = 1  # written before there were checksums


def write_sealed(
    folder: Path, name: str, content: Mapping[str, Any], tensors: Mapping[str, Tensor], error: type[OccludedReIDError]
) -> None:
    """Write the two files, each whole or not at all.

    Args:
        folder: made if it does not exist.
        name: of the files, without their endings.
        content: plain JSON with a "fingerprint".
        tensors: the weights.
        error: the kind of error to raise.

    Raises:
        error: the folder cannot be written.
    """
    weights = folder / f"{name}.safetensors"
    write_safetensors(weights, tensors, {"fingerprint": str(content["fingerprint"])}, error)
    described = {"format": _FORMAT, **content, "sha256": {"weights": file_sha256(weights, error)}}
    described = json.loads(json.dumps(described))  # as it will be read: JSON has text alone as keys
    described["sha256"]["description"] = _digest(described)
    write_json(folder / f"{name}.json", described, error)


def read_sealed(folder: Path, name: str, error: type[OccludedReIDError]) -> dict[str, Any]:
    """Read the description; its content is what was written, or, from before there were checksums, has a fingerprint.

    Raises:
        error: it is missing, damaged, or of a newer format.
    """
    path = folder / f"{name}.json"
    content = read_json(path, error)
    if not isinstance(content, dict) or content.get("format") not in (_UNSEALED, _FORMAT):
        found = content.get("format") if isinstance(content, dict) else None
        raise error(
            f"'{folder}' has format {found}; this version reads formats {_UNSEALED} and {_FORMAT}. Is '{path.name}' "
            "whole? If it is, update the library."
        )
    sums = content.get("sha256")
    sealed = content["format"] == _FORMAT or sums is not None
    if sealed and (not isinstance(sums, dict) or sums.get("description") != _digest(content)):
        raise error(
            f"'{path}' has changed since it was written: its content does not have the checksum that it names. "
            "Use another copy of the folder; change a model by code (load it, change it, save it), not by hand."
        )
    if not isinstance(content.get("fingerprint"), str):
        raise error(f"'{path}' names no fingerprint. It is damaged; use another copy of the folder.")
    return content


def read_sealed_tensors(
    folder: Path, name: str, content: Mapping[str, Any], error: type[OccludedReIDError]
) -> dict[str, Tensor]:
    """Read the weights that a description was written with.

    Raises:
        error: they are missing, damaged, or those of another description.
    """
    path = folder / f"{name}.safetensors"
    sums = content.get("sha256")
    if sums is not None and file_sha256(path, error) != sums.get("weights"):
        raise error(
            f"'{path}' is damaged, or does not belong to '{name}.json': its content does not have the checksum named "
            "there. Copy the folder whole, or use another copy of it."
        )
    tensors, metadata = read_safetensors(path, error)
    if metadata.get("fingerprint") != content["fingerprint"]:
        raise error(
            f"'{folder}' holds weights of {metadata.get('fingerprint')} and a description of {content['fingerprint']}. "
            "The two files do not belong together; copy the folder whole."
        )
    return tensors


def file_sha256(path: Path, error: type[OccludedReIDError]) -> str:
    """Return the SHA-256 of a file's content.

    Raises:
        error: it cannot be read.
    """
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as cause:
        raise error(f"'{path}' could not be read: {cause.strerror or cause}. Look at the path.") from cause


def _digest(content: Mapping[str, Any]) -> str:
    """The SHA-256 of a description without its own checksum, however it is laid out."""
    sums = {key: value for key, value in content["sha256"].items() if key != "description"}
    text = json.dumps({**content, "sha256": sums}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
