"""How hard a search on a server tries, and which index it searches: FAISS's words in Milvus's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from occluded_reid.errors import GalleryError, UnknownOptionError
from occluded_reid.search.index.factory import parse_factory

__all__ = ["MilvusEffort", "index_params", "search_params"]


@dataclass(frozen=True)
class MilvusEffort:
    """How many rows each slot proposes, and how hard its index looks for them.

    Args:
        candidates: rows that each slot proposes for a query; the matcher decides among all of them. At most 16,384.
        search: cells that an IVF index visits (`nprobe`), or the list that an HNSW index keeps (`ef`); None is a
            quarter of the cells, or twice the candidates. A flat index misses nothing and needs none.

    Raises:
        GalleryError: a number is below 1, or there are more candidates than a server gives.
    """

    MOST: ClassVar[int] = 16_384
    """Rows that a server gives for one query."""

    candidates: int = 100
    search: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.candidates <= self.MOST or (self.search is not None and self.search < 1):
            raise GalleryError(
                f"candidates is {self.candidates} and search {self.search}; give 1 … {self.MOST:,} candidates, "
                "and a search of at least 1."
            )

    def wider(self, times: int) -> MilvusEffort:
        """Return an effort with that many times the candidates, as far as a server gives them."""
        return MilvusEffort(min(self.MOST, self.candidates * times), self.search)


def index_params(spec: str, metric: str, width: int) -> dict[str, Any]:
    """Return Milvus's index for a FAISS factory string.

    Args:
        spec: "Flat", "IVFx,Flat", "IVFx,SQ8", "IVFx,PQm", "IVFx,PQmxb" or "HNSWx".
        metric: of Milvus, "COSINE" or "L2".
        width: of the slot; PQ cuts it into m parts.

    Raises:
        GalleryError: the string is not one of these, or does not fit the width.

    Example:
        >>> index_params("IVF1024,SQ8", "COSINE", 128)
        {'index_type': 'IVF_SQ8', 'metric_type': 'COSINE', 'params': {'nlist': 1024}}
    """
    built = _in_its_words(spec)
    if built is None:
        raise GalleryError(
            f"no index of a server is named '{spec}'. Give Flat, IVFx,Flat, IVFx,SQ8, IVFx,PQm or HNSWx "
            "(x: cells from 1 to 65,536, links of an HNSW index from 4 to 64)."
        )
    kind, params = built
    if "m" in params and width % params["m"]:
        raise GalleryError(f"'{spec}': PQ cuts {width} numbers into {params['m']} equal parts, which do not exist.")
    return {"index_type": kind, "metric_type": metric, "params": params}


def _in_its_words(spec: str) -> tuple[str, dict[str, int]] | None:
    """Return Milvus's name and numbers of an index; None where it has none such."""
    try:
        asked = parse_factory(spec.replace(" ", ""))
    except UnknownOptionError:
        return None
    if asked.prefix or asked.cells > 65_536:
        return None
    if asked.kind == "HNSW":
        params = {"M": asked.links, "efConstruction": max(200, 4 * asked.links)}
        return ("HNSW", params) if asked.coding == "Flat" and 4 <= asked.links <= 64 else None
    if asked.kind == "Flat":
        return "FLAT", {}
    if asked.coding == "PQ":
        return "IVF_PQ", {"nlist": asked.cells, "m": asked.codes, "nbits": asked.bits}
    name = {"Flat": "IVF_FLAT", "SQ8": "IVF_SQ8"}.get(asked.coding)
    return (name, {"nlist": asked.cells}) if name else None


def search_params(index: Mapping[str, Any], effort: MilvusEffort) -> dict[str, int]:
    """Return the search parameters of an index as the server describes it.

    Example:
        >>> search_params({"index_type": "HNSW", "M": "16"}, MilvusEffort(100))
        {'ef': 200}
    """
    kind = str(index.get("index_type", "FLAT"))
    if kind.startswith("IVF"):
        cells = int(index.get("nlist", 1))
        return {"nprobe": min(cells, effort.search or max(1, cells // 4))}
    if kind.startswith("HNSW"):
        return {"ef": max(effort.candidates, effort.search or 2 * effort.candidates)}
    return {}
