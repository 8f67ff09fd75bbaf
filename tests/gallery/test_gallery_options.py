"""Smaller embeddings, answers of nobody, and several processes that add at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import CalibrationError, GalleryError, GalleryLockedError, GalleryMismatchError
from occluded_reid.gallery import Gallery
from occluded_reid.gallery.writer import Writer
from occluded_reid.matchers import VisibilityWeightedMatcher
from occluded_reid.search.calibration import Calibration
from occluded_reid.search.reduction import Reduction

Rows = Callable[..., PartEmbeddings]
SLOTS = {"global": 8, "part_1": 5, "part_2": 5}


def test_rows_come_in_full_width_and_are_reduced(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(60)
    with Gallery.create(tmp_path / "g", slots=SLOTS, reduce={"global": 3}, sample=make_rows(50, 9)) as gallery:
        assert gallery.layout.slots == {"global": 3, "part_1": 5, "part_2": 5}
        gallery.add(rows, keys=[f"k{i}" for i in range(60)])
    with Gallery.open(tmp_path / "g") as gallery:
        reduction = gallery.reduction
        assert reduction is not None
        assert gallery.layout.reduction == reduction.fingerprint
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
        assert gallery.layout.slots == {"global": 2, "part_1": 3}


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
