"""FaissIndex against naive distances; saved and loaded; and its errors."""

import subprocess
import sys

import numpy as np
import pytest

from occluded_reid.errors import DeviceError, GalleryError, ShapeError, UnknownOptionError
from occluded_reid.registry import INDEXES
from occluded_reid.search.index.faiss import FaissIndex

FACTORIES = [
    *(f"{p}{body}" for p in ("", "PCA4,") for body in ("Flat", "IVF16,Flat", "IVF16,SQ8", "IVF16,SQfp16", "HNSW8,SQ8")),
    # Codewords take seconds to learn, so each place of theirs is tried once; other pairs with OPQ are read alike.
    "HNSW8",
    "IVF16,PQ2",
    "OPQ2,Flat",
    "OPQ2_4,IVF16,PQ2",
    "OPQ2,HNSW8",
]


def vectors(count: int = 600, width: int = 16, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def build(factory: str = "Flat", rows: np.ndarray | None = None, metric: str = "inner_product") -> FaissIndex:
    rows = vectors() if rows is None else rows
    index = FaissIndex(rows.shape[1], metric=metric, factory=factory)
    index.train(rows)
    index.add(rows, np.arange(len(rows)) * 2)
    return index


@pytest.mark.parametrize("metric", ["inner_product", "l2"])
@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat"])
def test_full_effort_finds_the_nearest_with_their_distances(factory, metric) -> None:
    rows, queries = vectors(), vectors(50, seed=1)
    index = build(factory, rows, metric)
    distances, ids = index.search(queries, 9, effort=index.efforts[-1])
    for q in range(50):
        naive = [
            1 - float(np.dot(queries[q].astype(float), row))
            if metric == "inner_product"
            else float(((queries[q].astype(float) - row) ** 2).sum())
            for row in rows.astype(float)
        ]
        order = np.argsort(naive)[:9]
        assert ids[q].tolist() == (2 * order).tolist()
        np.testing.assert_allclose(distances[q], np.array(naive)[order], atol=1e-6)
    assert index.exact == (factory == "Flat")


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    """10,000 rows, which product quantisation learns from, of 8 numbers that are nearly 4."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((10_000, 4)) @ rng.standard_normal((4, 8)) + 0.02 * rng.standard_normal((10_000, 8))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("factory", FACTORIES)
def test_every_supported_string_trains_saves_loads_and_searches(factory, many, tmp_path) -> None:
    index = build(factory, many)
    assert (index.factory.text, index.notes, len(index)) == (factory, [], 10_000)
    queries, allowed = many[:40], np.arange(20_000) % 3 == 0
    found = index.search(queries, 10, effort=index.efforts[-1])
    lossy = "PCA" in factory or "_4" in factory or ",PQ" in factory
    assert np.mean([2 * q in found[1][q] for q in range(40)]) > (0.2 if lossy else 0.9)  # by chance: 0.001
    picked = index.search(queries, 10, allowed=allowed)
    assert (picked[1] % 3 == 0)[picked[1] >= 0].all()
    index.save(tmp_path / "index")
    for mmap in (True, False):
        loaded = FaissIndex.load(tmp_path / "index", mmap=mmap)
        assert (loaded.factory, loaded.efforts, len(loaded)) == (index.factory, index.efforts, 10_000)
        for ours, theirs in zip(found, loaded.search(queries, 10, effort=index.efforts[-1]), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for ours, theirs in zip(picked, loaded.search(queries, 10, allowed=allowed), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("factory", ["Flat", "IVF8,SQ8", "HNSW8"])
def test_a_fresh_process_gives_the_same_answer(factory, tmp_path) -> None:
    rows = vectors()
    index = build(factory, rows)
    index.save(tmp_path / "index")
    np.save(tmp_path / "queries.npy", rows[:20])
    code = (
        "import sys, numpy as np; from pathlib import Path; from occluded_reid.search.index.faiss import FaissIndex;"
        "f = Path(sys.argv[1]); d, i = FaissIndex.load(f / 'index').search(np.load(f / 'queries.npy'), 7);"
        "np.savez(f / 'found.npz', d=d, i=i)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    distances, ids = index.search(rows[:20], 7)
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_array_equal(found["d"], distances)
    np.testing.assert_array_equal(found["i"], ids)


@pytest.mark.parametrize("factory", ["Flat", "IVF8,SQfp16", "HNSW8"])
def test_threads_and_company_change_nothing(factory) -> None:
    import faiss

    rows = vectors(3000)
    threads, answers = faiss.omp_get_max_threads(), []
    try:
        for count in (1, 3):
            faiss.omp_set_num_threads(count)
            answers.append(build(factory, rows).search(rows[:60], 12, effort=2))
            assert faiss.omp_get_max_threads() == count
    finally:
        faiss.omp_set_num_threads(threads)
    index = build(factory, rows)
    singles = [index.search(rows[i : i + 1], 12, effort=2) for i in range(60)]
    alone = [np.concatenate(part) for part in zip(*singles, strict=True)]
    for ours, theirs, single in zip(*answers, alone, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(ours, single)


def test_fewer_vectors_than_asked_for() -> None:
    index = build(rows=vectors(3))
    distances, ids = index.search(vectors(2, seed=1), 5)
    assert (ids[:, 3:] == -1).all()
    assert np.isinf(distances[:, 3:]).all()
    assert sorted(ids[0, :3].tolist()) == [0, 2, 4]
    distances, ids = index.search(vectors(2, seed=1), 5, allowed=np.array([False, False, True]))
    assert ids.tolist() == [[2, -1, -1, -1, -1]] * 2
    empty = FaissIndex(16, metric="l2")
    assert empty.search(vectors(2), 3)[1].tolist() == [[-1] * 3] * 2
    assert index.search(vectors(0), 3)[1].shape == (0, 3)


def test_efforts_and_costs_rise() -> None:
    ivf, hnsw, flat = build("IVF12,Flat"), build("HNSW8"), build()
    assert ivf.efforts == (1, 2, 4, 8, 12)
    assert hnsw.efforts[0] == 16
    assert flat.efforts == (1,)
    for index in (ivf, hnsw):
        costs = [index.cost(effort) for effort in index.efforts]
        assert costs == sorted(costs)
        assert min(costs) <= index.cost() <= max(costs)
    assert flat.cost(3) == flat.cost() == 600
    best = [float(ivf.search(vectors(80, seed=2), 5, effort=e)[0].sum()) for e in ivf.efforts]
    assert best == sorted(best, reverse=True)
    np.testing.assert_array_equal(*(ivf.search(vectors(5), 3, effort=e)[1] for e in (12, 999)))


def test_a_slot_with_few_rows_gets_fewer_cells_or_becomes_flat() -> None:
    small = build("IVF64,SQ8", vectors(200))
    assert small.factory.text == "IVF5,SQ8"
    assert small.notes == ["IVF64,SQ8 became IVF5,SQ8: 200 rows are enough for 5 cells (39 rows each)."]
    flat = build("OPQ4,IVF64,PQ4", vectors(200))
    assert flat.factory.text == "Flat"
    assert flat.exact
    assert "too few" in flat.notes[0]


def test_notes_are_kept_on_the_disk(tmp_path) -> None:
    small = build("IVF64,SQ8", vectors(200))
    small.save(tmp_path)
    assert FaissIndex.load(tmp_path).notes == small.notes
    assert str(FaissIndex.load(tmp_path).wanted) == "IVF64,SQ8"


def test_the_seed_decides_the_cells() -> None:
    def found(seed: int) -> np.ndarray:
        index = FaissIndex(16, metric="inner_product", factory="IVF16,Flat", seed=seed)
        index.train(vectors(2000))
        index.add(vectors(2000), np.arange(2000))
        return index.search(vectors(50, seed=3), 10, effort=1)[1]

    np.testing.assert_array_equal(found(0), found(0))
    assert (found(0) != found(1)).any()


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat"])
def test_a_mapped_index_is_read_only_and_can_be_saved_elsewhere(factory, tmp_path) -> None:
    index = build(factory)
    index.save(tmp_path / "one")
    mapped = FaissIndex.load(tmp_path / "one")
    with pytest.raises(GalleryError, match="memory-mapped"):
        mapped.add(vectors(1), np.array([7]))
    mapped.save(tmp_path / "two")
    (tmp_path / "one" / "index.faiss").unlink()
    copy = FaissIndex.load(tmp_path / "two", mmap=False)
    copy.add(vectors(1), np.array([7]))
    assert len(copy) == 601
    np.testing.assert_array_equal(copy.search(vectors(3, seed=4), 2)[0].shape, (3, 2))


def test_bad_input() -> None:
    index = build("IVF8,Flat")
    with pytest.raises(ShapeError, match=r"vectors of 16 numbers; got an array \(2, 8\)"):
        index.search(vectors(2, width=8), 3)
    with pytest.raises(ShapeError, match="NaN"):
        index.add(np.full((1, 16), np.nan, np.float32), np.array([5]))
    with pytest.raises(ShapeError, match="as many ids"):
        index.add(vectors(2), np.array([5]))
    with pytest.raises(ShapeError, match="at least 0"):
        index.add(vectors(1), np.array([-5]))
    for wrong in ({"m": 0}, {"m": 1, "effort": 0}):
        with pytest.raises(ShapeError, match="at least 1"):
            index.search(vectors(1), **wrong)
    with pytest.raises(GalleryError, match=r"call train\(\) before add"):
        FaissIndex(16, metric="l2", factory="IVF8,Flat").add(vectors(1), np.array([0]))
    with pytest.raises(GalleryError, match="never trained"):
        FaissIndex(16, metric="l2", factory="IVF8,Flat").save("nowhere")
    with pytest.raises(GalleryError, match="holds 600 vectors already"):
        index.train(vectors())
    with pytest.raises(UnknownOptionError, match="metric is 'cosine'"):
        FaissIndex(16, metric="cosine")


def test_damaged_and_foreign_files(tmp_path) -> None:
    build().save(tmp_path / "index")
    with pytest.raises(GalleryError, match=r"index\.json"):
        FaissIndex.load(tmp_path)
    file, text = tmp_path / "index" / "index.faiss", tmp_path / "index" / "index.json"
    whole, described = file.read_bytes(), text.read_text()
    for damaged in (b"", b"not FAISS at all", whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(GalleryError, match="Build the index again"):
            FaissIndex.load(tmp_path / "index", mmap=False)
    file.write_bytes(whole)
    for wrong, message in [
        (described.replace('"vectors": 600', '"vectors": 7'), "7 of 16 were written"),
        (described.replace('"format": 1', '"format": 9'), "this version reads 1"),
        ("{}", "holds no index"),
        ("[]", "holds no index"),
    ]:
        text.write_text(wrong)
        with pytest.raises(GalleryError, match=message):
            FaissIndex.load(tmp_path / "index")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "give 'cpu', 'cuda'"),
        ("cuda:", "give 'cpu'"),
        ("cuda:99", "sees|without GPUs"),
        ("cuda:0,0", "sees|out"),
    ],
)
def test_a_device_that_is_not_there(device, message) -> None:
    with pytest.raises(DeviceError, match=message):
        FaissIndex(16, metric="l2", device=device)


def test_it_is_registered() -> None:
    INDEXES.get("faiss") if "faiss" in INDEXES else pytest.fail("not registered")
    assert isinstance(INDEXES.create("faiss", 4, metric="l2", factory="HNSW8"), FaissIndex)
