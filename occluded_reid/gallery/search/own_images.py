"""A query from memory and its own file: the same picture, though nothing in the gallery's table says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from occluded_reid.errors import ImageError
from occluded_reid.gallery.hit import Hit
from occluded_reid.gallery.images import Source
from occluded_reid.gallery.search.request import SearchRequest
from occluded_reid.pixels import hash_pixels, to_rgb

__all__ = ["without_own_files"]

_NEAR = 0.02  # the same pixels lie within what storage in float16 does to a distance; others are seldom so near


def without_own_files(request: SearchRequest, ask: Callable[[SearchRequest], list[list[Hit]]]) -> list[list[Hit]]:
    """Answer a request, and leave out hits whose file holds the very pixels of a query that was given in memory.

    An array, a tensor, or a PIL image that was made from another does not say which file it comes from, and the gallery
    knows files by their bytes. So the files of hits at almost no distance are looked at, and where one is the query
    itself, the search is made again without it. A file that is not where it was is not found out.

    Args:
        request: its origins say what queries are made of.
        ask: answers a request.
    """
    hits = ask(request)
    origins = [list(sources) for sources in request.origins]
    seen: dict[str, str | None] = {}
    waiting = [q for q, sources in enumerate(origins) if sources and all(source.path is None for source in sources)]
    while waiting:
        again = []
        for q in waiting:
            own = _own(hits[q], {source.sha256 for source in origins[q]}, seen)
            if own:
                origins[q] += [Source(hit.key, hit.key, hit.path) for hit in own]
                again.append(q)
        if again:
            part = replace(request, origins=origins).part(np.array(again))
            for q, found in zip(again, ask(part), strict=True):
                hits[q] = found
        waiting = again
    return hits


def _own(hits: Sequence[Hit], pixels: set[str], seen: dict[str, str | None]) -> list[Hit]:
    return [hit for hit in hits if hit.distance <= _NEAR and hit.path and _pixels(hit.path, seen) in pixels]


def _pixels(path: str, seen: dict[str, str | None]) -> str | None:
    """The hash of a file's pixels; None where there is no such image any more."""
    if path not in seen:
        try:
            seen[path] = hash_pixels(to_rgb(Path(path))) if Path(path).is_file() else None
        except (ImageError, OSError, ValueError):
            seen[path] = None
    return seen[path]
