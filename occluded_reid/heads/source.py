"""Where a head reads: a stage of the backbone, or a map that an earlier head gives."""

from __future__ import annotations

from occluded_reid.contracts import BuildInfo, MapInfo
from occluded_reid.errors import BuildError
from occluded_reid.registry import did_you_mean

__all__ = ["map_source"]


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
            "Reorder the heads, or leave source out to read the backbone."
        )
    head, name, given = maps[source]
    return (head, name), given
