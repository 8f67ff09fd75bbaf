"""Searching by indexes finds the exact answer as far as they can, and they follow what happens to a gallery."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError, UnknownOptionError
from occluded_reid.gallery import Gallery
from occluded_reid.gallery.index import upkeep
from occluded_reid.gallery.storage import checksums
from occluded_reid.matchers import VisibilityWeightedMatcher
from occluded_reid.registry import INDEXES
from occluded_reid.search.index.base import SlotIndex
from occluded_reid.search.rerank.k_reciprocal import KReciprocal

SLOTS = {"global": 8, "part_1": 6}
Rows = Callable[..., PartEmbeddings]


def people(count: int, seed: int = 0, identities: int = 40) -> PartEmbeddings:
    """Noisy copies of a direction for each person and slot; row i is person i % identities."""
    source = torch.Generator().manual_seed(99)
    centres = [torch.randn(identities, width, generator=source) for width in SLOTS.values()]
    source.manual_seed(seed)
    who = torch.arange(count) % identities
    slots = tuple(
        (centre[who] + 0.5 * torch.randn(count, centre.shape[1], generator=source)).half().float() for centre in centres
    )
    visible = torch.rand(count, 2, generator=source).round(decimals=2)
    visible[torch.rand(count, 2, generator=source) < 0.2] = 0
    visible[:, 0] = visible[:, 0].clamp(min=0.1)
    return PartEmbeddings(tuple(SLOTS), slots, visible)


def fill(path: Path, count: int = 400, **options: Any) -> tuple[Gallery, PartEmbeddings]:
    rows = people(count)
    gallery = Gallery.create(path, slots=SLOTS, **options)
    gallery.add(
        rows,
        keys=[f"k{i}" for i in range(count)],
        identity=[str(i % 40) for i in range(count)],
        camera=[i % 3 for i in range(count)],
    )
    return gallery, rows


def keys(hits: list[list[Any]]) -> list[list[str]]:
    return [[hit.key for hit in found] for found in hits]


EVERYTHING = (10_000, 1)  # as many candidates as there are rows, from an exact index


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"where": "camera <> 1"},
        {"where": {"identity": ["3", "4"]}},  # leaves 1 in 20: searched exhaustively
        {"query_camera": [i % 3 for i in range(12)]},
        {"query_camera": 0, "query_identity": [str(i) for i in range(12)]},
        {"group_by": "identity"},
        {"group_by": "identity", "where": "camera <> 1", "query_camera": 2},
    ],
    ids=str,
)
def test_with_all_candidates_it_is_the_exact_answer(tmp_path: Path, options: dict[str, Any]) -> None:
    gallery, _ = fill(tmp_path / "g")
    gallery.build_index("Flat")
    query = people(12, seed=5)
    exact = gallery.search(query, 7, **options)
    found = gallery.search(query, 7, effort=EVERYTHING, **options)
    assert [[(h.key, h.distance) for h in f] for f in found] == [[(h.key, h.distance) for h in f] for f in exact]
    assert found == exact


def test_a_relative_path_is_as_good_as_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gallery, rows = fill(Path("g"), 60)
    gallery.build_index("Flat")
    gallery.build_neighbours(5)
    with Gallery.open("g") as other:
        assert keys(other.search(rows[:5], 3, effort=EVERYTHING)) == keys(gallery.search(rows[:5], 3))
        assert other.search(rows[:5], 3, rerank=KReciprocal(k1=5, k2=2))
        assert other.verify().ok
        other.erase("k7")
        assert other.compact(1).versions == (other.version,)
        told = other.index
        assert told is not None
        assert told.rows == 59


def test_a_measured_recall_is_about_what_is_found(tmp_path: Path) -> None:
    gallery, _ = fill(tmp_path / "g", 3000)
    info = gallery.build_index("IVF32,Flat")
    assert info.rows == 3000
    assert info.efforts
    assert all(0 < e.recall(whole=False) <= 1 for e in info.efforts)
    query = people(80, seed=5)
    exact, found = gallery.search(query, 1), gallery.search(query, 1, effort=0.9)
    assert np.mean([a[0].key == b[0].key for a, b in zip(exact, found, strict=True)]) > 0.8
    assert "IVF32,Flat" in str(info)


def test_what_is_added_is_found_and_what_is_removed_never_comes_back(tmp_path: Path) -> None:
    gallery, rows = fill(tmp_path / "g")
    gallery.build_index("Flat")
    new = people(30, seed=7)
    gallery.add(new, keys=[f"new{i}" for i in range(30)])
    gallery.remove([f"k{i}" for i in range(0, 400, 2)])
    gallery.add(rows[1:2], keys=["k3"], replace=True)  # another image under an old key
    told = gallery.index
    assert told is not None
    assert (told.rows, told.new, told.removed) == (400, 31, 201)
    query = PartEmbeddings.cat([new, rows[:50]])
    exact, found = gallery.search(query, 9), gallery.search(query, 9, effort=EVERYTHING)
    assert keys(found) == keys(exact)
    assert [f[0].key for f in found[:30]] == [f"new{i}" for i in range(30)]
    assert not {f"k{i}" for i in range(0, 400, 2)} & {key for found_ in keys(found) for key in found_}
    for version in gallery.versions():  # an index serves versions before and after it
        with Gallery.open(tmp_path / "g", version=version.version) as old:
            assert keys(old.search(query[:9], 4, effort=EVERYTHING)) == keys(old.search(query[:9], 4))


def test_growth_is_merged_and_wear_is_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_LEAST_NEW", 20)
    gallery, _ = fill(tmp_path / "g")
    gallery.build_index("IVF4,Flat")
    gallery.add(people(90, seed=8), keys=[f"new{i}" for i in range(90)])
    told = gallery.index
    assert told is not None
    assert (told.rows, told.new) == (490, 0)
    query = people(20, seed=9)
    assert keys(gallery.search(query, 6, effort=(10_000, 4))) == keys(gallery.search(query, 6))
    gallery.remove([f"k{i}" for i in range(300)])
    told = gallery.index
    assert told is not None
    assert (told.rows, told.new, told.removed) == (190, 0, 0)
    assert keys(gallery.search(query, 6, effort=(10_000, 4))) == keys(gallery.search(query, 6))
    assert gallery.verify().ok


def test_a_write_keeps_to_the_matcher_of_the_index_and_outlives_its_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(upkeep, "_LEAST_NEW", 20)
    fill(tmp_path / "g")[0].build_index("IVF4,Flat")
    with Gallery.open(tmp_path / "g", matcher=VisibilityWeightedMatcher(metric="euclidean")) as other:
        other.add(people(90, seed=8), keys=[f"new{i}" for i in range(90)])
    with Gallery.open(tmp_path / "g") as gallery:
        told = gallery.index
        assert told is not None
        assert (told.rows, told.new) == (490, 0)
        monkeypatch.setattr(upkeep, "merge", lambda *_: (_ for _ in ()).throw(GalleryError("the disk is full")))
        assert gallery.add(people(200, seed=9), keys=[f"more{i}" for i in range(200)]).added == 200
        assert "the disk is full" in caplog.text
        query = people(20, seed=9)
        assert keys(gallery.search(query, 6, effort=(10_000, 4))) == keys(gallery.search(query, 6))


def test_an_erased_image_leaves_the_index_too(tmp_path: Path) -> None:
    gallery, rows = fill(tmp_path / "g")
    gallery.build_index("Flat")
    gallery.erase("k17")
    told = gallery.index
    assert told is not None
    assert told.rows == 399  # built anew
    needle = rows[17:18].concatenate().half().numpy().tobytes()
    assert not [f for f in (tmp_path / "g").rglob("*") if f.is_file() and needle in f.read_bytes()]
    assert "k17" not in keys(gallery.search(rows[17:18], 50, effort=EVERYTHING))[0]


def test_a_lost_or_damaged_index_is_left_out_and_built_again_by_the_next_write(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gallery, rows = fill(tmp_path / "g")
    gallery.build_index("Flat")
    vectors = next((tmp_path / "g" / "indexes").rglob("embeddings.bin"))
    content = bytearray(vectors.read_bytes())
    content[100] ^= 1
    vectors.write_bytes(content)
    damaged = gallery.verify().damaged
    assert list(damaged) == [vectors.relative_to(tmp_path / "g").as_posix()]
    vectors.write_bytes(content[:-1])
    with Gallery.open(tmp_path / "g") as other:
        assert keys(other.search(rows[:3], 2, effort="auto")) == keys(other.search(rows[:3], 2))
        assert keys(other.search(rows[:3], 2, effort=0.9)) == keys(other.search(rows[:3], 2))
        assert keys(other.search(rows[:3], 2, effort=EVERYTHING)) == keys(other.search(rows[:3], 2))
        assert caplog.text.count("is not used, and searches compare with every image") == 1
        assert "build_index()" in caplog.text
        other.remove("k1")
        told = other.index
        assert told is not None
        assert told.rows == 399
    with Gallery.open(tmp_path / "g") as other:
        assert other.verify().ok


def flipped(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= 0x40
    file.write_bytes(content)


def answers(gallery: Gallery, rows: PartEmbeddings, **options: Any) -> list[list[tuple[str, float]]]:
    return [[(hit.key, hit.distance) for hit in hits] for hits in gallery.search(rows, 9, **options)]


@pytest.mark.parametrize(("name", "place"), [("embeddings.bin", 1001), ("visibility.bin", 0), ("embeddings.bin", -1)])
def test_a_flipped_bit_in_the_copy_changes_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, place: int
) -> None:
    gallery, rows = fill(tmp_path / "g")
    wanted = answers(gallery, rows[:5])
    gallery.build_index("Flat")
    flipped(next((tmp_path / "g" / "indexes").rglob(name)), place)
    for effort in ("exact", EVERYTHING, "auto"):
        with Gallery.open(tmp_path / "g") as other:
            for _ in range(2):
                assert answers(other, rows[:5], effort=effort) == wanted
            other.refresh()
            assert answers(other, rows[:5], effort=effort) == wanted
    told = [record.getMessage() for record in caplog.records if "is not used" in record.getMessage()]
    assert len(told) == 3
    assert all("build_index()" in text for text in told)
    gallery.build_index()
    assert answers(Gallery.open(tmp_path / "g"), rows[:5], effort=EVERYTHING) == wanted
    assert len([record for record in caplog.records if "is not used" in record.getMessage()]) == 3


def test_any_derived_file_may_be_missing_or_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gallery, rows = fill(tmp_path / "base", 60)
    wanted = answers(gallery, rows[:3])
    gallery.build_index("Flat")
    gallery.close()
    files = sorted(f.relative_to(tmp_path / "base") for f in (tmp_path / "base/indexes").rglob("*") if f.is_file())
    assert {"numbers.npy", "blocks.bin", "index.faiss", "current.json", "checksums.json"} <= {f.name for f in files}
    for number, file in enumerate(files):
        for how in ("deleted", "empty") if number % 2 else ("first", "last"):
            path = tmp_path / f"{number}-{how}"
            shutil.copytree(tmp_path / "base", path)
            if how == "deleted":
                (path / file).unlink()
            elif how == "empty":
                (path / file).write_bytes(b"")
            else:
                flipped(path / file, 0 if how == "first" else -1)
            caplog.clear()
            with Gallery.open(path) as other:
                for effort in ("exact", "auto", EVERYTHING, 0.98):
                    assert answers(other, rows[:3], effort=effort) == wanted, (file, how)
                assert caplog.text.count("is not used") == 1, (file, how)
                assert other.add(people(1, seed=5), keys=["new"]).added == 1
                assert other.search(people(1, seed=5), 1, effort="auto")[0][0].key == "new"
            shutil.rmtree(path)


def test_an_index_of_an_older_release_answers_from_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, rows = fill(tmp_path / "g")
    wanted = answers(gallery, rows[:5])
    gallery.build_index("Flat")
    folder = next((tmp_path / "g" / "indexes").glob("build-*"))
    (folder / "blocks.bin").unlink()
    for name, gone in (("packed.json", "block_rows"), ("slot_0/index.json", "checked")):
        described = json.loads((folder / name).read_text())
        del described[gone]
        (folder / name).write_text(json.dumps(described))
    checksums.write(folder)
    flipped(folder / "embeddings.bin", 5)
    with Gallery.open(tmp_path / "g") as other:
        assert answers(other, rows[:5]) == answers(other, rows[:5], effort=EVERYTHING) == wanted
        told = other.index
        assert told is not None
        assert (told.rows, told.new) == (400, 0)
        monkeypatch.setattr(upkeep, "_LEAST_NEW", 0)
        other.add(people(100, seed=5), keys=[f"n{i}" for i in range(100)])  # built anew: nothing of it is copied
        assert next((tmp_path / "g" / "indexes").glob("build-*/blocks.bin")).stat().st_size == 16
        assert other.verify().ok


def test_numbers_beyond_the_gallery_cost_no_memory(tmp_path: Path) -> None:
    gallery, rows = fill(tmp_path / "g", 50)
    gallery.build_index("Flat")
    wanted = keys(gallery.search(rows[:3], 50))
    huge = 1 << 40
    assert keys(gallery.search(rows[:3], huge, effort=(huge, huge))) == wanted
    assert keys(gallery.search(rows[:3], huge, effort=(1, 1))) == wanted
    gallery.build_neighbours(60)
    few = keys(gallery.search(rows[:3], huge, rerank=KReciprocal(k1=60)))
    gallery.build_neighbours(huge)
    everything = KReciprocal(k1=huge, k2=huge)
    assert len(keys(gallery.search(rows[:3], huge, rerank=everything))[0]) == 50
    assert keys(gallery.search(rows[:3], huge, rerank=KReciprocal(k1=60))) == few


def test_a_damaged_pointer_to_the_index_stops_no_search_and_the_next_write_mends_it(tmp_path: Path) -> None:
    gallery, rows = fill(tmp_path / "g")
    gallery.build_index("Flat", seed=3)
    pointer = tmp_path / "g" / "indexes" / "current.json"
    pointer.write_bytes(pointer.read_bytes().replace(b"build-", b"built-"))
    with Gallery.open(tmp_path / "g") as other:
        assert other.index is None
        assert keys(other.search(rows[:3], 2, effort="auto")) == keys(other.search(rows[:3], 2))
        assert list(other.verify().damaged) == ["indexes/current.json"]
        other.remove("k1")
        told = other.index
        assert told is not None
        assert told.rows == 399
        assert other.verify().ok
        other.build_index(training_rows=50, seed=4)
    description = next((tmp_path / "g" / "indexes").glob("build-*/index.json"))
    assert json.loads(description.read_text())["seed"] == 4  # asked for again, with another seed


def test_every_bit_of_an_index_is_verified(tmp_path: Path) -> None:
    gallery, _ = fill(tmp_path / "g", 60)
    gallery.build_index("Flat")
    files = [f for f in (tmp_path / "g" / "indexes").rglob("*") if f.is_file()]
    assert len(files) > 8
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 4]))
        assert file.relative_to(tmp_path / "g").as_posix() in gallery.verify().damaged
        file.write_bytes(content)
    assert gallery.verify().ok


def test_readers_go_on_with_the_index_they_have(tmp_path: Path) -> None:
    gallery, rows = fill(tmp_path / "g")
    gallery.build_index("Flat")
    with Gallery.open(tmp_path / "g") as reader:
        before = keys(reader.search(rows[:5], 3, effort=EVERYTHING))
        gallery.build_index("IVF4,Flat")
        assert keys(reader.search(rows[:5], 3, effort=EVERYTHING)) == before
    assert len([p for p in (tmp_path / "g" / "indexes").iterdir() if p.is_dir()]) == 1


def test_wrong_requests_are_refused(tmp_path: Path) -> None:
    gallery, rows = fill(tmp_path / "g", 50)
    with pytest.raises(UnknownOptionError, match="IVF"):
        gallery.build_index("IVFPQ77")
    assert gallery.index is None
    with pytest.raises(GalleryError, match=r"effort is 1\.5"):
        gallery.search(rows[:1], 1, effort=1.5)
    gallery.build_index()
    with Gallery.open(tmp_path / "g", matcher=VisibilityWeightedMatcher(metric="euclidean")) as other:
        with pytest.raises(GalleryError, match="built for the matcher"):
            other.search(rows[:1], 1, effort=(10, 1))
        assert other.search(rows[:1], 1)
    with Gallery.open(tmp_path / "g", matcher=VisibilityWeightedMatcher(weights={"part_1": 0.5})) as other:
        assert keys(other.search(rows[:9], 4, effort=EVERYTHING)) == keys(other.search(rows[:9], 4))


def test_an_index_of_ones_own_is_kept_by_a_gallery(tmp_path: Path) -> None:
    class Sums(SlotIndex):
        """All rows by brute force, in NumPy, as JSON: slow and honest."""

        def __init__(self, width: int, *, metric: Any) -> None:
            super().__init__(width, metric=metric)
            self.rows, self.ids = np.empty((0, width), np.float32), np.empty(0, np.int64)

        def __len__(self) -> int:
            return len(self.ids)

        @property
        def exact(self) -> bool:
            return True

        def add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
            self.rows, self.ids = np.concatenate([self.rows, vectors]), np.concatenate([self.ids, ids])

        def search(
            self, queries: np.ndarray, m: int, *, effort: int | None = None, allowed: np.ndarray | None = None
        ) -> tuple[np.ndarray, np.ndarray]:
            distances = 1 - queries @ self.rows.T
            if allowed is not None:
                distances[:, ~allowed[self.ids]] = np.inf
            order = np.argsort(distances, axis=1, kind="stable")[:, :m]
            near = np.take_along_axis(distances, order, axis=1)
            ids = np.where(np.isfinite(near), self.ids[order], -1)
            pad = m - order.shape[1]
            return np.pad(near, ((0, 0), (0, pad)), constant_values=np.inf), np.pad(
                ids, ((0, 0), (0, pad)), constant_values=-1
            )

        def save(self, path: Path) -> None:
            path.write_text(json.dumps({"rows": self.rows.tolist(), "ids": self.ids.tolist(), "metric": self.metric}))

        @classmethod
        def load(cls, path: Path, *, mmap: bool = True, device: str = "cpu") -> Self:
            content = json.loads(path.read_text())
            index = cls(len(content["rows"][0]), metric=content["metric"])
            index.add(np.array(content["rows"], np.float32), np.array(content["ids"]))
            return index

    INDEXES.register("sums")(Sums)
    try:
        gallery, rows = fill(tmp_path / "g", 60)
        gallery.build_index(type="sums")
        assert keys(gallery.search(rows[:9], 4, effort=EVERYTHING)) == keys(gallery.search(rows[:9], 4))
        with pytest.raises(GalleryError, match="type='faiss'"):
            gallery.build_index("Flat", type="sums")
    finally:
        INDEXES.unregister("sums")


def test_an_index_of_ones_own_must_be_whole(tmp_path: Path) -> None:
    class Half(SlotIndex):
        """Has no `save` and no `load`."""

        exact = True

        def __len__(self) -> int:
            return 0

        def add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
            raise AssertionError

        def search(self, *_: Any, **__: Any) -> Any:
            raise AssertionError

    gallery, _ = fill(tmp_path / "g", 60)
    for kind, why in ((Half, r"'half' \(Half\) lacks load, save"), (dict, "register a subclass of SlotIndex")):
        INDEXES.register("half")(kind)
        try:
            with pytest.raises(GalleryError, match=why):
                gallery.build_index(type="half")
        finally:
            INDEXES.unregister("half")
    assert gallery.index is None


def test_an_index_that_is_no_longer_registered_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gallery, rows = fill(tmp_path / "g", 60)
    gallery.build_index("Flat")
    folder = next((tmp_path / "g" / "indexes").glob("build-*"))
    described = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**described, "type": "somebodys"}))
    checksums.write(folder)
    with Gallery.open(tmp_path / "g") as other:
        assert keys(other.search(rows[:2], 3, effort=0.98)) == keys(other.search(rows[:2], 3))
    assert "somebodys" in caplog.text
