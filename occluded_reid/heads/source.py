"""Where a head reads: a stage of the backbone, or a map or the features that earlier heads give."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from occluded_reid.contracts import BuildInfo, HeadOutput, MapInfo
from occluded_reid.errors import BuildError
from occluded_reid.registry import did_you_mean

__all__ = ["map_source", "read_features", "slot_sources"]


def map_source(info: BuildInfo, on: str | int, source: str | None) -> tuple[tuple[str | None, str], MapInfo]:
    """Return where the map is, and what it is like.

    Args:
        info: what the builder knows.
        on: stage of the backbone.
        source: map of an earlier head instead, as "head.map"; None for the stage.

    Returns:
        (head or None, map or stage), its channels and its stride.

    Raises:
        BuildError: there is no such stage or map, or both are given.
    """
    if source is None:
        stage = info.stage_name(on)
        return (None, stage), MapInfo(info.stages[stage].channels, info.stages[stage].stride)
    if on != "last":
        raise BuildError(f"head '{info.name}' is given both on: {on} and source: {source}. Leave one of them out.")
    maps = {
        f"{head}.{name}": (head, name, given)
        for head, what in info.heads.items()
        if not what.training_only
        for name, given in what.maps.items()
    }
    if source not in maps:
        raise BuildError(
            f"head '{info.name}' reads the map '{source}', which no head before it gives."
            f"{did_you_mean(source, list(maps))} Maps so far: {', '.join(maps) or 'none'}. "
            "Put a head that gives it before this one (a head of an override takes before: NAME), or leave source out "
            "to read the backbone."
        )
    head, name, given = maps[source]
    return (head, name), given


def slot_sources(
    info: BuildInfo, heads: tuple[str, ...], what: str, *, same_width: bool = True
) -> tuple[tuple[tuple[str, str], ...], int]:
    """Return (head, slot) of each feature that some earlier heads give, and their width.

    Args:
        info: what the builder knows.
        heads: their names, in order; every slot of theirs is a feature.
        what: what the head does with them, for messages: "relates".
        same_width: refuse features of several widths; the width that is returned is the sum of all otherwise.

    Raises:
        BuildError: a head does not come before this one or has no slot, there is none, or the widths differ.
    """
    widths: dict[tuple[str, str], int] = {}
    for head in heads:
        if head not in info.heads:
            raise BuildError(
                f"head '{info.name}' {what} head '{head}', which does not come before it."
                f"{did_you_mean(head, list(info.heads))} Heads so far: {', '.join(info.heads) or 'none'}. "
                f"Put it there (a head of an override takes before: {info.name}), or leave it out of heads."
            )
        given = info.heads[head]
        if not given.slots or given.training_only:
            why = "exists in training only" if given.training_only else "has no slots"
            raise BuildError(f"head '{info.name}' {what} head '{head}', which {why}. Leave it out of heads.")
        widths |= {(head, slot): width for slot, width in given.slots.items()}
    if not widths or (same_width and len(set(widths.values())) != 1):
        shown = ", ".join(f"{head} {width}" for (head, _), width in widths.items())
        one = "features of one width" if same_width else "features"
        raise BuildError(
            f"head '{info.name}' {what} {one}; it was given {shown or 'none'}. Name at least one head"
            f"{', and give all of them the same width' if same_width else ''}."
        )
    return tuple(widths), next(iter(widths.values())) if same_width else sum(widths.values())


def read_features(
    name: str, context: Mapping[str, HeadOutput], sources: tuple[tuple[str, str], ...], what: str
) -> list[Tensor]:
    """Return the features before the neck, (N, D) each.

    Args:
        name: of the head that reads.
        context: outputs of the heads before it.
        sources: as `slot_sources` gives them.
        what: as there.

    Raises:
        BuildError: a head gives no feature for its slot.
    """
    for head, slot in sources:
        if slot not in context[head].features:
            raise BuildError(
                f"head '{name}' {what} features before the neck, which head '{head}' does not give for its "
                f"slot '{slot}' (HeadOutput.features). Leave it out of heads."
            )
    return [context[head].features[slot] for head, slot in sources]
