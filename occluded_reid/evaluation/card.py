"""The protocol card: what the numbers of a report stand on, beside the protocol's rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ProtocolCard"]


@dataclass(frozen=True)
class ProtocolCard:
    """What the numbers of a report stand on, beside the protocol's rules.

    Attributes:
        queries: images asked for.
        gallery: images searched.
        query_identities: different people among the queries.
        gallery_identities: different identity numbers in the gallery, distractors included.
        excluded_pairs: pairs dropped for having one identity and one camera.
        pairs_without_shared_slot: pairs left in that share no visible slot; they rank last.
        slots: slot name -> width.
        matcher: type and options.
        fingerprint: of the model, or empty.
        version: of this library.
        queries_sha256: hash of the queries' identities, cameras and names, in order.
        gallery_sha256: of the gallery's, in any order.
        reranking: what re-ranked the images before they were counted, with its parameters, or empty.
        tuned: what was chosen on which other data, or empty.
        test_time: what was done beside the model itself, or empty.
        libraries: versions of Python and of the libraries that computed the numbers.
        only_own_camera: queries that were skipped although the gallery shows the person, but under the query's own
            camera alone; None in reports of before they were counted.
    """

    queries: int
    gallery: int
    query_identities: int
    gallery_identities: int
    excluded_pairs: int
    pairs_without_shared_slot: int
    slots: Mapping[str, int]
    matcher: Mapping[str, Any]
    fingerprint: str
    version: str
    queries_sha256: str
    gallery_sha256: str = ""
    reranking: str = ""
    tuned: str = ""
    test_time: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)
    only_own_camera: int | None = None
