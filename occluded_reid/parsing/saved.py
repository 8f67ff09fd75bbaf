"""Parser folders: weights and JSON, from which a parser is made again without anything else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from torch import Tensor

from occluded_reid.backbones.weights import read_weights
from occluded_reid.errors import CheckpointError, WeightsError
from occluded_reid.files import look
from occluded_reid.parsing.network import ParsingNetwork
from occluded_reid.registry import PARSERS, check_options
from occluded_reid.sealed import read_sealed, read_sealed_tensors, write_sealed

__all__ = ["load_parser", "load_parser_weights", "parser_folder", "read_parser_options", "save_parser"]


def save_parser(parser: ParsingNetwork, folder: str | Path, facts: Mapping[str, Any] | None = None) -> None:
    """Write ``parser.safetensors`` and ``parser.json``, each whole or not at all, with their checksums.

    Args:
        parser: its kind, options and weights are written.
        folder: where to.
        facts: plain JSON that is kept beside them, such as what it was trained on.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    content = {
        "type": parser.kind,
        "options": parser.options,
        "fingerprint": parser.fingerprint,
        "regions": list(parser.names),
        "facts": dict(facts or {}),
    }
    write_sealed(Path(folder), "parser", content, parser.state_dict(), CheckpointError)


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
    strange = f"'{folder}' names the parser '{kind}', which is no ParsingNetwork. Use the right folder."
    if isinstance(factory, type) and not issubclass(factory, ParsingNetwork):
        raise CheckpointError(strange)  # before it opens what its options name
    parser = factory(**check_options(factory, options, f"parser '{kind}'"))
    if not isinstance(parser, ParsingNetwork):
        raise CheckpointError(strange)
    load_parser_weights(parser, folder)
    description = _read_description(parser_folder(folder) or Path(folder))
    if "sha256" not in description and parser.fingerprint != description["fingerprint"]:
        raise CheckpointError(
            f"'{folder}' is damaged: its weights and options make {parser.fingerprint}; parser.json names "
            f"{description['fingerprint']}. Use another copy of the folder."
        )
    return parser


def parser_folder(place: str | Path) -> Path | None:
    """Return the parser folder at a place, which may be the folder of a training run; None for a weights file."""
    place = Path(place)
    here, below = (look(folder / "parser.json", CheckpointError) for folder in (place, place / "model"))
    if below is not None and here is None:
        return place / "model"
    found = look(place, CheckpointError)
    return place if found is not None and S_ISDIR(found.st_mode) else None


def read_parser_options(place: str | Path) -> tuple[str, dict[str, Any]]:
    """Return kind and options of a saved parser.

    Raises:
        CheckpointError: there is no parser.json, or it is of another format.
    """
    content = _read_description(parser_folder(place) or Path(place))
    return content["type"], dict(content["options"])


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
        tensors = read_sealed_tensors(folder, "parser", description, CheckpointError)
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
    content = read_sealed(folder, "parser", CheckpointError)
    if not isinstance(content.get("type"), str) or not isinstance(content.get("options"), dict):
        raise CheckpointError(
            f"'{folder / 'parser.json'}' is damaged: wanted the type of a parser, a text, and its options, a mapping. "
            "Use another copy of the folder."
        )
    return content
