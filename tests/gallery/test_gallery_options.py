"""Smaller embeddings, answers of nobody, and several processes that add at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from occluded_reid.calibration.calibration import Calibration
from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import CalibrationError, GalleryError, GalleryLockedError, GalleryMismatchError
from occluded_reid.gallery import Gallery
from occluded_reid.gallery.storage.writer import Writer
from occluded_reid.matchers import VisibilityWeightedMatcher
from occluded_reid.search.exact import exact_topk
from occluded_reid.search.projection import Reduction
from occluded_reid.search.rerank.k_reciprocal import KReciprocal
from occluded_reid.search.rerank.neighbors import NeighbourLists
from occluded_reid.search.rerank.per_query import rerank_topk
from occluded_reid.search.rows import InMemoryRows

Rows = Callable[..., PartEmbeddings]
SLOTS = {"global": 8, "part_1": 5, "part_2": 5}


def test_rows_come_in_full_width_and_are_reduced(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(60)
    with Gallery.create(tmp_path / "g", slots=SLOTS, reduce={"global": 3}, sample=make_rows(50, 9)) as gallery:
        assert gallery.manifest.slots == {"global": 3, "part_1": 5, "part_2": 5}
        gallery.add(rows, keys=[f"k{i}" for i in range(60)])
    with Gallery.open(tmp_path / "g") as gallery:
        reduction = gallery.reduction
        assert reduction is not None
        assert gallery.manifest.reduction == reduction.fingerprint
        full = gallery.search(rows[:5], 4)
        small = gallery.search(reduction.apply(rows[:5]), 4)
        assert full == small
        assert [f[0].key for f in full] == [f"k{i}" for i in range(5)]
        assert gallery.verify().ok
        gallery.build_index("Flat")
        assert gallery.search(rows[:5], 4, effort=(1000, 1)) == full
        with pytest.raises(GalleryMismatchError, match="global 3"):
            gallery.search(make_rows(2, 0, {"global": 7, "part_1": 5, "part_2": 5}), 1)
    content = bytearray((tmp_path / "g" / "reduction.safetensors").read_bytes())
    content[-1] ^= 64
    (tmp_path / "g" / "reduction.safetensors").write_bytes(content)
    with pytest.raises(GalleryError, match=r"reduction .*gallery\.json names|cannot be read"):
        Gallery.open(tmp_path / "g")


def test_a_reduction_that_cannot_be_is_refused(tmp_path: Path, make_rows: Rows, model: Any) -> None:
    rows = make_rows(30)
    with pytest.raises(GalleryError, match="without anything to fit them on"):
        Gallery.create(tmp_path / "g", slots=SLOTS, reduce={"global": 3})
    with pytest.raises(GalleryError, match="no reduce"):
        Gallery.create(tmp_path / "g", slots=SLOTS, sample=rows)
    with pytest.raises(GalleryError, match="no model was given to embed them"):
        Gallery.create(tmp_path / "g", slots=SLOTS, reduce={"global": 3}, sample=["a.png"])
    matcher = VisibilityWeightedMatcher()
    other = Reduction.fit(rows, {"global": 3}, matcher=matcher)
    with pytest.raises(GalleryError, match="takes the slots"):
        Gallery.create(tmp_path / "g", slots={"global": 8}, reduce=other)
    assert not (tmp_path / "g").exists()


def test_a_model_fits_the_gallery_that_reduces_its_embeddings(tmp_path: Path, pictures: list[Path], model: Any) -> None:
    with Gallery.create(tmp_path / "g", model=model, reduce={"global": 2}, sample=pictures) as gallery:
        assert gallery.add(pictures).added == 7
    with Gallery.open(tmp_path / "g", model=model) as gallery:
        assert gallery.add(pictures).skipped == 7
        assert gallery.search(pictures[2], 1, exclude_self=False)[0][0].key == pictures[2].as_posix()
        assert gallery.manifest.slots == {"global": 2, "part_1": 3}


def people(count: int, first: int, seed: int) -> EmbeddedSet:
    """Rows of `count` people from number `first` on, four of each, in slots that are often hidden."""
    source = torch.Generator().manual_seed(seed)
    who = torch.arange(first, first + count).repeat_interleave(4)
    slots = []
    for number, width in enumerate(SLOTS.values()):
        centres = torch.randn(400, width, generator=torch.Generator().manual_seed(number))
        slots.append((centres[who] + 0.2 * torch.randn(len(who), width, generator=source)).half().float())
    visible = (torch.rand(len(who), 3, generator=source) > 0.4).float()
    visible[visible.sum(1) == 0] = 1
    return EmbeddedSet(PartEmbeddings(tuple(SLOTS), tuple(slots), visible), who.numpy(), np.zeros(len(who)))


def test_nobody_here_is_an_answer(tmp_path: Path) -> None:
    here, asked, strangers = people(60, 0, 1), people(60, 0, 2), people(60, 100, 3)
    gallery = Gallery.create(tmp_path / "g", slots=SLOTS)
    gallery.add(here.embeddings, keys=[f"k{i}" for i in range(240)], identity=[str(i) for i in here.identity])
    with pytest.raises(CalibrationError, match="keeps no calibration"):
        gallery.search(asked.embeddings, 3, threshold="calibrated")
    held_out = people(150, 200, 4), people(150, 200, 5)
    found = gallery.calibrate(*held_out, false_match_rate=0.1, per="search", exclude_same_camera=False)
    assert gallery.verify().ok
    with Gallery.open(tmp_path / "g") as opened:
        assert opened.calibration == found
        known = opened.search(asked.embeddings, 3, threshold="calibrated")
        unknown = opened.search(strangers.embeddings, 3, threshold="calibrated")
    assert np.mean([bool(hits) for hits in known]) > 0.5
    assert np.mean([bool(hits) for hits in unknown]) < 0.25
    # By hand: every hit of a search for everything, at the threshold of the slots that it shares.
    for hits, everything in zip(known, gallery.search(asked.embeddings, 240), strict=True):
        near = []
        for hit in everything:
            shared = sum(value > 0 for value in hit.shared_visibility.values())
            if shared and hit.distance <= found.groups[shared - 1].threshold:
                near.append((hit.key, hit.distance))
        assert [(hit.key, hit.distance) for hit in hits] == near[:3]
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
        assert all(hit.probability is not None and 0 <= hit.probability <= 1 for hit in hits)


def test_a_plain_distance_may_be_the_threshold(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(40)
    gallery = Gallery.create(tmp_path / "g", slots=SLOTS)
    gallery.add(rows, keys=[f"k{i}" for i in range(40)])
    for hits, near in zip(gallery.search(rows, 40), gallery.search(rows, 40, threshold=0.6), strict=True):
        assert near == [hit for hit in hits if hit.distance <= 0.6]
    assert gallery.search(make_rows(1, 77), 5, threshold=-1.0) == [[]]
    for wrong in (float("nan"), "near"):
        with pytest.raises(CalibrationError, match="give a distance"):
            gallery.search(rows, 1, threshold=wrong)  # type: ignore[arg-type]


def test_images_and_their_index_are_one_write(
    tmp_path: Path, pictures: list[Path], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody comes between what was added and the index, so that an addition that counts never ends in an error."""
    gallery = Gallery.create(tmp_path / "g", model=model)
    other = Gallery.open(tmp_path / "g", model=type(model)())

    def come_between() -> None:
        with pytest.raises(GalleryLockedError):
            other.remove("nothing")

    monkeypatch.setattr(gallery, "_written", come_between)
    assert gallery.add(pictures).added == 7


def test_a_calibration_of_other_distances_is_refused(tmp_path: Path) -> None:
    gallery = Gallery.create(tmp_path / "g", slots=SLOTS)
    held_out = people(30, 0, 1), people(30, 0, 2)
    other = Calibration.fit(
        *held_out, VisibilityWeightedMatcher(metric="euclidean"), false_match_rate=0.1, exclude_same_camera=False
    )
    with pytest.raises(CalibrationError, match="euclidean"):
        gallery.search(held_out[0].embeddings, 1, threshold=other)
    with pytest.raises(CalibrationError, match="euclidean"):
        gallery.keep_calibration(other)


def test_processes_that_wait_share_the_gallery(
    tmp_path: Path, pictures: list[Path], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second writer comes while the first one embeds: with wait it may write, and no image is written twice."""
    Gallery.create(tmp_path / "g", model=model)
    first, second = (Gallery.open(tmp_path / "g", model=type(model)()) for _ in range(2))
    embed = first._model.embed  # type: ignore[union-attr]

    def meanwhile(images: torch.Tensor) -> PartEmbeddings:
        if not results:
            results.append(second.add(pictures[:5], wait=5))
        return embed(images)

    results: list[Any] = []
    monkeypatch.setattr(first._model, "embed", meanwhile)
    results.append(first.add(pictures, wait=5))
    assert [(r.added, r.skipped) for r in results] == [(5, 0), (2, 5)]
    with Gallery.open(tmp_path / "g") as gallery:
        assert len(gallery) == 7
        assert gallery.verify().ok


def test_a_writer_that_does_not_wait_has_the_gallery_for_itself(
    tmp_path: Path, pictures: list[Path], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gallery.create(tmp_path / "g", model=model)
    first, second = (Gallery.open(tmp_path / "g", model=type(model)()) for _ in range(2))
    commit = Writer._commit

    def meanwhile(self: Writer, *options: Any) -> None:
        with pytest.raises(GalleryLockedError, match="process"):
            second.add(pictures[:2])
        commit(self, *options)

    monkeypatch.setattr(Writer, "_commit", meanwhile)
    assert first.add(pictures).added == 7


def test_reranked_hits_are_those_of_the_algorithm(tmp_path: Path) -> None:
    people_here, asked = people(12, 0, 1), people(12, 0, 2).embeddings[::4]
    names, cameras = [f"k{i}" for i in range(48)], [i % 2 for i in range(48)]
    gallery = Gallery.create(tmp_path / "g", slots=SLOTS)
    gallery.add(people_here.embeddings, keys=names, camera=cameras, identity=[str(i) for i in people_here.identity])
    with pytest.raises(GalleryError, match="build_neighbours"):
        gallery.search(asked, 5, rerank=True)
    rerank = KReciprocal(k1=6, k2=3)
    gallery.build_neighbours(6)
    assert gallery.verify().ok
    rows, matcher = InMemoryRows(people_here.embeddings), gallery.matcher
    lists = NeighbourLists.build(rows, matcher, 6).locate(np.arange(48))
    wanted = rerank_topk(asked, exact_topk(asked, rows, matcher, 48), rows, matcher, rerank, 48, lists=lists)
    found = gallery.search(asked, 5, rerank=rerank)
    plain = gallery.search(asked, 48)
    for hits, positions, distances, every in zip(found, wanted.positions, wanted.distances, plain, strict=True):
        assert [hit.key for hit in hits] == [names[p] for p in positions[:5]]
        assert [hit.reranked for hit in hits] == distances[:5].tolist()
        known = {hit.key: hit.distance for hit in every}
        assert [hit.distance for hit in hits] == [known[hit.key] for hit in hits]
    # What a query may not find stays in its neighbourhood, and out of the answer.
    for hits, positions in zip(gallery.search(asked, 5, rerank=rerank, query_camera=1), wanted.positions, strict=True):
        assert [hit.key for hit in hits] == [names[p] for p in positions if p % 2 == 0][:5]
    groups = gallery.search(asked, 5, rerank=rerank, group_by="identity", where="camera = 0")
    for hits, positions in zip(groups, wanted.positions, strict=True):
        kept = [p for p in positions if p % 2 == 0]
        first = [p for n, p in enumerate(kept) if p // 4 not in {o // 4 for o in kept[:n]}]
        assert [hit.key for hit in hits] == [names[p] for p in first[:5]]
    with pytest.raises(GalleryError, match="one of the two"):
        gallery.search(asked, 5, rerank=True, threshold=0.5)
    with pytest.raises(GalleryError, match="rerank is 20"):
        gallery.search(asked, 5, rerank=20)  # type: ignore[arg-type]


def test_lists_serve_a_gallery_that_changes_and_go_with_an_erasure(tmp_path: Path) -> None:
    here, asked = people(12, 0, 1), people(12, 0, 2).embeddings[::4]
    gallery = Gallery.create(tmp_path / "g", slots=SLOTS)
    gallery.add(here.embeddings, keys=[f"k{i}" for i in range(48)])
    gallery.build_neighbours(6, effort="exact")
    gallery.build_index("Flat")
    gallery.remove("k0")
    gallery.add(asked[:1], keys=["new"])
    hits = gallery.search(asked, 48, rerank=KReciprocal(k1=6, k2=3), effort=(100, 1))
    assert hits[0][0].key == "new"
    assert {hit.key for hit in hits[0]} == {"new", *(f"k{i}" for i in range(1, 48))}
    gallery.erase("k5")
    assert not list((tmp_path / "g").rglob("lists.safetensors"))
    with pytest.raises(GalleryError, match="build_neighbours"):
        gallery.search(asked, 5, rerank=True)


def test_lists_that_cannot_be_made_anew_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = people(12, 0, 1).embeddings
    gallery = Gallery.create(tmp_path / "g", slots=SLOTS)
    gallery.add(here, keys=[f"k{i}" for i in range(48)])
    gallery.build_neighbours(6)
    wanted = [hit.key for hit in gallery.search(here[:1], 5, rerank=KReciprocal(k1=6, k2=3))[0]]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(NeighbourLists, "save", full)
    with pytest.raises(GalleryError, match=r"No space left on device.*the lists before them, .* are kept"):
        gallery.build_neighbours(7)
    monkeypatch.undo()
    assert [entry.name for entry in (tmp_path / "g" / "indexes").iterdir()] == ["neighbours"]
    assert gallery.verify().ok
    with Gallery.open(tmp_path / "g") as other:
        assert [hit.key for hit in other.search(here[:1], 5, rerank=KReciprocal(k1=6, k2=3))[0]] == wanted
    gallery.build_neighbours(7)
    assert [entry.name for entry in (tmp_path / "g" / "indexes").iterdir()] == ["neighbours"]


@pytest.mark.parametrize("place", [9, 500, -1])
def test_damaged_lists_are_named_and_stop_no_other_search(tmp_path: Path, place: int) -> None:
    here = people(12, 0, 1).embeddings
    gallery = Gallery.create(tmp_path / "g", slots=SLOTS)
    gallery.add(here, keys=[f"k{i}" for i in range(48)])
    gallery.build_neighbours(6)
    file = tmp_path / "g" / "indexes" / "neighbours" / "lists.safetensors"
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)
    with Gallery.open(tmp_path / "g") as other:
        with pytest.raises(GalleryError, match=r"neighbour lists .* cannot be used.*build_neighbours\(\)"):
            other.search(here[:1], 5, rerank=KReciprocal(k1=6))
        assert other.search(here[:1], 1)[0][0].key == "k0"
        other.build_neighbours(6)
        assert other.search(here[:1], 5, rerank=KReciprocal(k1=6))[0][0].key == "k0"


def test_a_time_of_minus_zero_is_zero(tmp_path: Path, make_rows: Rows) -> None:
    gallery = Gallery.create(tmp_path / "g", slots=SLOTS)
    gallery.add(make_rows(2), keys=["a", "b"], time=[-0.0, 1.0])
    (hits,) = gallery.search(make_rows(1), 5, where={"time": 0})
    assert [(hit.key, str(hit.time)) for hit in hits] == [("a", "0.0")]
