from __future__ import annotations

import pytest

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.milvus.effort import MilvusEffort, index_params, search_params


@pytest.mark.parametrize(
    ("spec", "kind", "params"),
    [
        ("Flat", "FLAT", {}),
        ("IVF64,Flat", "IVF_FLAT", {"nlist": 64}),
        ("IVF64, SQ8", "IVF_SQ8", {"nlist": 64}),
        ("IVF64,PQ16", "IVF_PQ", {"nlist": 64, "m": 16, "nbits": 8}),
        ("IVF64,PQ16x4", "IVF_PQ", {"nlist": 64, "m": 16, "nbits": 4}),
        ("HNSW32", "HNSW", {"M": 32, "efConstruction": 200}),
        ("HNSW64,Flat", "HNSW", {"M": 64, "efConstruction": 256}),
    ],
)
def test_factory_strings_in_the_servers_words(spec: str, kind: str, params: dict[str, int]) -> None:
    assert index_params(spec, "L2", 32) == {"index_type": kind, "metric_type": "L2", "params": params}


@pytest.mark.parametrize(
    "spec", ["", "IVF,Flat", "IVF0,Flat", "IVF70000,Flat", "HNSW2", "HNSW100", "LSH", "IVF4,PQ0x", "IVF4"]
)
def test_other_strings_are_refused_with_those_that_are_not(spec: str) -> None:
    with pytest.raises(GalleryError, match="Give Flat, IVFx,Flat"):
        index_params(spec, "COSINE", 32)


def test_pq_must_divide_the_width() -> None:
    with pytest.raises(GalleryError, match="cuts 30 numbers into 16 equal parts"):
        index_params("IVF4,PQ16", "COSINE", 30)


def test_how_hard_an_index_looks() -> None:
    assert search_params({"index_type": "FLAT"}, MilvusEffort(10)) == {}
    assert search_params({"index_type": "IVF_PQ", "nlist": "64"}, MilvusEffort(10)) == {"nprobe": 16}
    assert search_params({"index_type": "IVF_SQ8", "nlist": "2"}, MilvusEffort(10)) == {"nprobe": 1}
    assert search_params({"index_type": "IVF_FLAT", "nlist": "64"}, MilvusEffort(10, 100)) == {"nprobe": 64}
    assert search_params({"index_type": "HNSW"}, MilvusEffort(10, 5)) == {"ef": 10}
    assert search_params({"index_type": "HNSW"}, MilvusEffort(10)) == {"ef": 20}


def test_efforts_that_make_no_sense() -> None:
    for candidates, search in ((0, None), (20_000, None), (5, 0)):
        with pytest.raises(GalleryError, match=r"give 1 … 16,384 candidates"):
            MilvusEffort(candidates, search)
    assert MilvusEffort(10_000, 3).wider(8) == MilvusEffort(16_384, 3)
