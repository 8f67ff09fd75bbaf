"""Parser folders: weights and JSON, from which a parser is made again without anything else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from occluded_reid.backbones.weights import read_weights
from occluded_reid.errors import CheckpointError, WeightsError
from occluded_reid.files import read_json, read_safetensors, write_json, write_safetensors
from occluded_reid.parsing.network import ParsingNetwork
from occluded_reid.registry import PARSERS, check_options

__all__ = ["load_parser", "load_parser_weights", "parser_folder", "read_parser_options", "save_parser"]

_FORMAT = 1


def save_parser(parser: ParsingNetwork, folder: str | Path, facts: Mapping[str, Any] | None = None) -> None:
    """Write ``parser.safetensors`` and ``parser.json``, each whole or not at all.

    Args:
        parser: its kind, options and weights are written.
        folder: where to.
        facts: plain JSON that is kept beside them, such as what it was trained on.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    folder = Path(folder)
    fingerprint = parser.fingerprint
    write_safetensors(folder / "parser.safetensors", parser.state_dict(), {"fingerprint": fingerprint}, CheckpointError)
    content = {
        "format": _FORMAT,
        "type": parser.kind,
        "options": parser.options,
        "fingerprint": fingerprint,
        "regions": list(parser.names),
        "facts": dict(facts or {}),
    }
    write_json(folder / "parser.json", content, CheckpointError)


def load_parser(folder: str | Path) -> ParsingNetwork:
    """Make a saved parser again, frozen.

    Args:
        folder: what `save_parser` has written, or the folder of a training run.

    Raises:
        CheckpointError: files are missing, damaged, or do not belong together.

    Example:
        ``load_parser("runs/parser").parse([image], ["image.jpg"])``
    """
    kind, options = read_parser_options(folder)
    factory = PARSERS.get(kind)
    parser = factory(**check_options(factory, options, f"parser '{kind}'"))
    if not isinstance(parser, ParsingNetwork):
        raise CheckpointError(
            f"'{folder}' names the parser '{kind}', which is no ParsingNetwork. Use the right folder."
        )
    load_parser_weights(parser, folder)
    return parser


def parser_folder(place: str | Path) -> Path | None:
    """Return the parser folder at a place, which may be the folder of a training run; None for a weights file."""
    place = Path(place)
    if (place / "model" / "parser.json").is_file() and not (place / "parser.json").is_file():
        return place / "model"
    return place if place.is_dir() else None


def read_parser_options(place: str | Path) -> tuple[str, dict[str, Any]]:
    """Return kind and options of a saved parser.

    Raises:
        CheckpointError: there is no parser.json, or it is of another format.
    """
    content = _read_description(parser_folder(place) or Path(place))
    return str(content["type"]), dict(content["options"])


def load_parser_weights(parser: ParsingNetwork, place: str | Path) -> None:
    """Load a parser folder, or a file of tensors, into a network; what it measured of areas is optional in a file.

    Raises:
        CheckpointError: the folder's files are missing, damaged, or do not belong together.
        WeightsError: the file is no file of tensors, or tensors are missing or of another shape.
    """
    folder = parser_folder(place)
    if folder is None:
        tensors = parser.adapted(read_weights(place))
    else:
        description = _read_description(folder)
        tensors, metadata = read_safetensors(folder / "parser.safetensors", CheckpointError)
        if metadata.get("fingerprint") != description["fingerprint"]:
            raise CheckpointError(
                f"'{folder}' holds weights of {metadata.get('fingerprint')} and a description of "
                f"{description['fingerprint']}. The two files do not belong together; copy the folder whole."
            )
    own = parser.state_dict()
    wanted = {key for key in own if key != "reference" and not key.endswith("num_batches_tracked")}
    if missing := sorted(wanted - set(tensors)):
        raise WeightsError(
            f"'{place}' misses {len(missing)} of {len(wanted)} tensors of the parser '{parser.kind}', such as "
            f"'{missing[0]}'; it has {', '.join(sorted(tensors)[:3])}, …. Give a file of this network."
        )
    if wrong := sorted(key for key in wanted if tensors[key].shape != own[key].shape):
        raise WeightsError(_misfit(parser, place, wrong[0], tensors[wrong[0]], own[wrong[0]]))
    areas = tensors.get("reference")
    if areas is not None and areas.shape != own["reference"].shape:
        raise WeightsError(_misfit(parser, place, "reference", areas, own["reference"]))
    parser.load_state_dict({key: value for key, value in tensors.items() if key in own}, strict=False)


def _misfit(parser: ParsingNetwork, place: str | Path, key: str, given: Tensor, wanted: Tensor) -> str:
    return (
        f"'{place}': '{key}' has shape {tuple(given.shape)}; the parser '{parser.kind}' with the {parser.classes} "
        f"classes of '{parser.label_set}' wants {tuple(wanted.shape)}. Give the options that it was trained with."
    )


def _read_description(folder: Path) -> dict[str, Any]:
    content = read_json(folder / "parser.json", CheckpointError)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise CheckpointError(
            f"'{folder}' has format {found}; this version reads format {_FORMAT}. Update the library."
        )
    return content
