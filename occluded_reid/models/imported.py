"""What a weights file of another project holds for the heads: the batch normalisation after the pool."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from torch import nn

from occluded_reid.backbones.layouts import Imported
from occluded_reid.heads.base import Head
from occluded_reid.heads.class_token import ClassTokenHead
from occluded_reid.heads.global_ import GlobalHead

__all__ = ["fill_necks", "has_own_weights"]

_LOG = logging.getLogger(__name__)


def fill_necks(imported: Imported, heads: Mapping[str, Head], last: str, source: str) -> tuple[str, ...]:
    """Give the normalisation of a file to every head that normalises the same feature; the log says which.

    Args:
        imported: what the file held.
        heads: the model's heads by name.
        last: name of the backbone's last stage, whose mean projects normalise.
        source: name of the file, for the log.

    Returns:
        The names of the heads that took it.
    """
    if imported.neck is None:
        return ()
    width = int(imported.neck["weight"].shape[0])
    taken = []
    for name, head in heads.items():
        neck = getattr(head, "neck", None)
        if isinstance(neck, nn.BatchNorm1d) and neck.num_features == width and _takes(imported, head, last):
            neck.load_state_dict(dict(imported.neck), strict=False)
            taken.append(name)
    what = f"batch normalisation of {width} numbers in '{source}' (layout {imported.layout})"
    if taken:
        _LOG.info("the %s goes to the neck of: %s", what, ", ".join(taken))
    else:
        kind = "'class_token'" if imported.of == "class_token" else "'global'"
        _LOG.warning(
            "the %s is left out: no head normalises that feature. A head %s with options.neck: bnneck takes it",
            *(what, kind),
        )
    return tuple(taken)


def has_own_weights(heads: Mapping[str, Head], filled: Collection[str]) -> bool:
    """Whether a head has weights that did not come from the file, so that there is something to be trained yet.

    Args:
        heads: the model's heads by name.
        filled: those that took the file's normalisation.
    """
    return any(
        not (name in filled and weight.startswith("neck."))
        for name, head in heads.items()
        for weight, _ in head.named_parameters()
    )


def _takes(imported: Imported, head: Head, last: str) -> bool:
    """Whether a head normalises the very feature that the file's normalisation is of."""
    if imported.of == "class_token":
        return isinstance(head, ClassTokenHead) and head.token == "cls"
    return isinstance(head, GlobalHead) and (head.source, head.pooling, len(head.project)) == (
        (None, last),
        "average",
        0,
    )
