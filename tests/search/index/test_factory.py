"""Factory strings: what is read, what is refused and how, what is changed for few rows, what it is said to take."""

import numpy as np
import pytest

from occluded_reid.errors import UnknownOptionError
from occluded_reid.search.index.factory import Factory, estimate, parse_factory
from occluded_reid.search.index.faiss import FaissIndex

GOOD = {
    "Flat": Factory(),
    "IVF64,Flat": Factory("IVF", cells=64),
    "IVF64,SQ8": Factory("IVF", cells=64, coding="SQ8"),
    "IVF64,SQfp16": Factory("IVF", cells=64, coding="SQfp16"),
    "IVF64,PQ4": Factory("IVF", cells=64, coding="PQ", codes=4),
    "HNSW16": Factory("HNSW", links=16),
    "HNSW16,SQ8": Factory("HNSW", links=16, coding="SQ8"),
    "OPQ4,IVF64,PQ4": Factory("IVF", cells=64, coding="PQ", codes=4, prefix="OPQ", parts=4),
    "OPQ4_8,IVF64,PQ4": Factory("IVF", cells=64, coding="PQ", codes=4, prefix="OPQ", parts=4, reduced=8),
    "PCA8,IVF64,SQfp16": Factory("IVF", cells=64, coding="SQfp16", prefix="PCA", reduced=8),
    "PCA8,Flat": Factory(prefix="PCA", reduced=8),
    "OPQ2,HNSW8": Factory("HNSW", links=8, prefix="OPQ", parts=2),
}


@pytest.mark.parametrize("text", GOOD)
def test_supported_strings_are_read_and_written_alike(text) -> None:
    assert parse_factory(text) == GOOD[text]
    assert str(parse_factory(text)) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("ivf1024,flat", "Did you mean 'IVF1024,Flat'"),
        ("IVF1024, SQFP16", "Did you mean 'IVF1024,SQfp16'"),
        ("Flt", "Did you mean 'Flat'"),
        ("IVF1024,SQ4", "Did you mean 'IVF1024,"),
        ("HNSW32,PQ8", "Did you mean 'HNSW32"),
        ("IVF0,Flat", "Did you mean"),
        ("IVF1024", ""),
        ("IVF1024_HNSW32,Flat", ""),
        ("IMI2x8,Flat", ""),
        ("LSH", ""),
        ("PQ16", ""),
        ("OPQ16", ""),
        ("OPQ0,Flat", ""),
        ("OPQ8_0,Flat", ""),
        ("PCAR64,Flat", ""),
        ("PCA64,OPQ8,Flat", ""),
        ("HNSW1", ""),
        ("IVF64,PQ0", ""),
        ("Flat,Flat", ""),
        ("", ""),
    ],
)
def test_other_strings_are_refused_with_what_is_supported(text, hint) -> None:
    with pytest.raises(UnknownOptionError, match="is not supported") as error:
        parse_factory(text)
    assert hint in str(error.value)
    assert "Supported: Flat, IVFx,{Flat,SQ8,SQfp16,PQm} and HNSWx[,SQ8], each with an OPQm[_d]" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("IVF64,PQ5", r"PQ5 cuts 12 numbers into 5 equal parts, but 5 does not divide 12.*PQ3, PQ4, PQ6"),
        ("OPQ5,IVF64,PQ4", "OPQ5 cuts 12"),
        ("OPQ4_6,IVF64,Flat", "OPQ4 cuts 6 numbers"),
        ("PCA8,IVF64,PQ3", "PQ3 cuts 8 numbers"),
        ("PCA16,Flat", "PCA would make 16 of them; give at most 12"),
        ("IVF64,PQ24", "PQ24 cuts 12"),
    ],
)
def test_a_width_that_does_not_fit_is_refused_before_anything_is_built(text, message) -> None:
    with pytest.raises(UnknownOptionError, match=message):
        FaissIndex(12, metric="l2", factory=text)
    with pytest.raises(UnknownOptionError, match="'part_1' of 12 numbers"):
        estimate(text, 1000, {"part_1": 12})


def test_few_rows_make_fewer_cells_and_very_few_a_flat_index() -> None:
    fitted, notes = parse_factory("PCA4,IVF64,SQ8").fit(390, 8)
    assert fitted.text == "PCA4,IVF10,SQ8"
    assert notes == ["PCA4,IVF64,SQ8 became PCA4,IVF10,SQ8: 390 rows are enough for 10 cells (39 rows each)."]
    assert parse_factory("IVF64,Flat").fit(64 * 39, 8) == (parse_factory("IVF64,Flat"), [])
    for text, rows, least in [
        ("IVF64,Flat", 77, "78"),
        ("IVF4,PQ4", 9983, "9,984"),
        ("OPQ4,HNSW8", 9983, "9,984"),
        ("PCA4,Flat", 7, "8"),
        ("HNSW16,SQ8", 0, "1"),
    ]:
        flat, notes = parse_factory(text).fit(rows, 8)
        assert flat == Factory()
        assert notes[0].startswith(f"{text} became Flat: {rows:,} rows are too few")
        assert notes[0].endswith(f"which takes {least}.")


def test_training_rows() -> None:
    assert parse_factory("Flat").training_rows(10**6) == 0
    assert parse_factory("HNSW32").training_rows(10**6) == 0
    assert parse_factory("IVF1000,Flat").training_rows(10**6) == 64_000
    assert parse_factory("IVF1000,Flat").training_rows(5000) == 5000
    assert parse_factory("IVF16,PQ8").training_rows(10**6) == 65_536
    assert parse_factory("HNSW32,SQ8").training_rows(10**6) == 65_536


@pytest.mark.parametrize("text", ["Flat", "IVF16,SQfp16", "IVF16,SQ8", "IVF16,PQ2", "PCA8,IVF16,Flat", "HNSW16"])
def test_the_estimate_of_the_disk_is_near_the_truth(text, tmp_path) -> None:
    vectors = np.random.default_rng(0).standard_normal((12_000, 16)).astype(np.float32)
    index = FaissIndex(16, metric="l2", factory=text)
    index.train(vectors)
    index.add(vectors, np.arange(12_000))
    index.save(tmp_path)
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    expected = estimate(text, 15_000, {"global": 16}, visible=0.8)
    assert expected.disk == pytest.approx(size, rel=0.1)
    assert expected.opened <= expected.disk <= expected.building


def test_the_estimate_prints_well_and_says_what_few_rows_do() -> None:
    text = str(estimate("IVF4096,SQfp16", 1_000_000, {"a": 256, "b": 256}, 0.8))
    assert text.startswith("IVF4096,SQfp16 for 1,000,000 rows: 840 MB on disk, 8.39 MB of memory when opened")
    assert "262,144 training rows" in text
    assert "Too few rows for IVF64,Flat: Flat is built." in str(estimate("IVF64,Flat", 50, {"a": 8}))
    assert "Rows are enough for 25 cells." in str(estimate("IVF64,Flat", 1000, {"a": 8}))
