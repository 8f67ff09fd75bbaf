"""The pages of the worst queries: in order, what was found, what should have been found, and nothing of elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid import Protocol, ReIDData, ReIDModel, load_dataset
from occluded_reid.data.occlusion import Occluders
from occluded_reid.data.synthetic import SyntheticOptions, generate
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import EvaluationError, ImageError
from occluded_reid.evaluation import embed_samples
from occluded_reid.evaluation.embed import Occlusion, occluded_sample
from occluded_reid.evaluation.studies.failures import worst_pages as module
from occluded_reid.evaluation.studies.failures.find import find_failures
from occluded_reid.evaluation.studies.failures.ranked_rows import ranked_rows
from occluded_reid.evaluation.studies.failures.result import Failures
from occluded_reid.evaluation.studies.failures.worst_pages import worst_pages, write_worst
from occluded_reid.visualize import RankedQuery


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReIDData:
    options = SyntheticOptions(
        train_identities=1, test_identities=6, cameras=2, images_per_camera=1, distractors=9, width=32, height=96
    )
    return load_dataset("synthetic", generate(tmp_path_factory.mktemp("people") / "set", options))


@pytest.fixture
def model(tiny: Callable[..., ReIDModel]) -> ReIDModel:
    return tiny(None)


@pytest.fixture
def sides(model: ReIDModel, data: ReIDData) -> tuple[EmbeddedSet, EmbeddedSet]:
    return embed_samples(model, data, data.query), embed_samples(model, data, data.gallery)


@pytest.fixture
def failures(model: ReIDModel, sides: tuple[EmbeddedSet, EmbeddedSet]) -> Failures:
    return find_failures(*sides, model.matcher, Protocol(bootstrap=0))


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[RankedQuery]]]:
    """Title and rows of every page, which are not drawn, five rows each."""
    asked: list[tuple[str, list[RankedQuery]]] = []

    def note(rows: list[RankedQuery], *, title: str, **_: object) -> Image.Image:
        asked.append((title, rows))
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(module, "ranked_lists", note)
    monkeypatch.setattr(module, "ROWS", 5)
    return asked


def test_rows_come_worst_first_with_what_should_have_been_found(
    model: ReIDModel, data: ReIDData, sides: tuple[EmbeddedSet, EmbeddedSet], failures: Failures, pages
) -> None:
    query, gallery = sides
    assert len(list(worst_pages(model, data, query, gallery, failures, 7))) == 2
    assert [title.split(",")[0] for title, _ in pages] == ["Worst queries 1-5 of 7", "Worst queries 6-7 of 7"]
    rows = [row for _, page in pages for row in page]
    worst = failures.worst(7)
    assert len(rows) == len(worst) == 7
    distance = model.matcher.distance(query.embeddings, gallery.embeddings).numpy()
    appended = 0
    for place, (row, q) in enumerate(zip(rows, worst, strict=True), 1):
        sample = data.query[q]
        assert (row.identity, row.camera) == (sample.identity, sample.camera)
        (number, name, precision) = re.match(r"(\d+)\. (.+): AP ([\d.]+%)", row.note).groups()  # type: ignore[union-attr]
        assert (int(number), name) == (place, sample.name)
        assert precision == f"{failures.report.average_precision[q]:.1%}"
        first = int(failures.report.first_match_rank[q])
        assert f"rank {first}" in row.note
        kept = [
            g
            for g, other in enumerate(data.gallery)
            if (other.identity, other.camera) != (sample.identity, sample.camera)
        ]
        kept.sort(key=lambda g: (round(float(distance[q, g]), 6), data.gallery[g].name))
        shown = [data.gallery[g] for g in kept[:10]]
        assert [hit.identity for hit in row.hits[:10]] == [other.identity for other in shown]
        assert [hit.rank for hit in row.hits[:10]] == [None] * 10
        if first <= 10:
            assert len(row.hits) == 10
            continue
        appended += 1
        (last,) = row.hits[10:]
        assert (last.rank, last.correct, last.identity) == (first, True, sample.identity)
        assert last.distance == pytest.approx(float(distance[q, kept[first - 1]]), abs=2e-6)
    assert appended, "somebody's match is not among the ten"


def test_equally_near_images_come_by_name_as_they_are_counted(
    model: ReIDModel, data: ReIDData, sides: tuple[EmbeddedSet, EmbeddedSet], failures: Failures
) -> None:
    """The gallery backwards: embeddings are all the same, so that only names decide."""
    query, gallery = sides
    same = replace(gallery, embeddings=gallery.embeddings[[0] * len(gallery)])
    order = np.arange(len(gallery))[::-1].copy()
    turned = EmbeddedSet(
        same.embeddings[torch.from_numpy(order)],
        same.identity[order],
        same.camera[order],
        tuple(same.paths[i] for i in order),
    )
    backwards = replace(data, gallery=data.gallery[::-1])
    straight, found = find_failures(query, same, model.matcher), find_failures(query, turned, model.matcher)
    for q in range(len(query)):
        rows = [
            ranked_rows(model, there, query, rows, [q], matches=ranks.matches)[0]
            for there, rows, ranks in ((data, same, straight), (backwards, turned, found))
        ]
        hits = [[(hit.identity, hit.camera, hit.rank) for hit in row.hits] for row in rows]
        assert hits[0] == hits[1]
        right = [n for n, hit in enumerate(rows[0].hits[:10], 1) if hit.correct]
        assert (right or [rows[0].hits[-1].rank])[0] == straight.report.first_match_rank[q]


def test_occluded_queries_are_drawn_as_they_were_embedded(model: ReIDModel, data: ReIDData, sides, pages) -> None:
    hide = Occlusion(0.5, Occluders.generated(0, count=6), seed=3)
    query = embed_samples(model, data, data.query, occlusion=hide)
    found = find_failures(query, sides[1], model.matcher, Protocol(bootstrap=0))
    list(worst_pages(model, data, query, sides[1], found, 2, occlusion=hide))
    for row, q in zip(pages[0][1], found.worst(2), strict=True):
        seen = occluded_sample(data.query[q], hide)[0]
        np.testing.assert_array_equal(np.asarray(row.image), seen)
        assert (seen != np.asarray(Image.open(data.query[q].path).convert("RGB"))).any()
        assert row.visibility == dict(zip(model.slots, query.embeddings.visibility[q].tolist(), strict=True))


def test_pages_are_drawn_and_written_one_after_another(
    model: ReIDModel, data: ReIDData, sides, failures: Failures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", 5)
    folder = tmp_path / "deep"
    folder.mkdir()
    for name in ("worst_09.png", "worst_2019.png", "worst_best.png"):
        (folder / name).write_bytes(b"before")
    written = write_worst(folder, worst_pages(model, data, *sides, failures, 7))
    assert [path.name for path in written] == ["worst_01.png", "worst_02.png"]
    kept = sorted(path.name for path in folder.iterdir())
    assert kept == ["worst_01.png", "worst_02.png", "worst_2019.png", "worst_best.png"]
    with Image.open(written[0]) as first, Image.open(written[1]) as second:
        assert first.format == "PNG"
        assert max(first.width, second.width) <= 1500
        assert second.height < first.height < 5 * 300 + 100
        assert np.asarray(first).std() > 10
    again = [path.read_bytes() for path in written]
    assert [p.read_bytes() for p in write_worst(folder, worst_pages(model, data, *sides, failures, 7))] == again
    everything = list(worst_pages(model, data, *sides, failures))
    assert len(everything) == -(-int(failures.report.answerable.sum()) // 5)


def test_what_does_not_belong_together_is_refused(model: ReIDModel, data: ReIDData, sides, failures: Failures) -> None:
    query, gallery = sides
    with pytest.raises(EvaluationError, match="Give what find_failures"):
        next(worst_pages(model, data, EmbeddedSet(query.embeddings[:2], [0, 1], [0, 0]), gallery, failures))
    with pytest.raises(EvaluationError, match="query embeddings are not those of"):
        next(worst_pages(model, replace(data, query=data.query[::-1]), query, gallery, failures))
    with pytest.raises(EvaluationError, match="gallery embeddings are not those of"):
        next(worst_pages(model, replace(data, gallery=data.gallery[1:]), query, gallery, failures))
    with pytest.raises(EvaluationError, match="at least 1"):
        next(worst_pages(model, data, query, gallery, failures, 0))
    moved = tuple(replace(sample, path=Path("gone.png")) for sample in data.query)
    with pytest.raises(ImageError, match=r"gone\.png"):
        next(worst_pages(model, replace(data, query=moved), query, gallery, failures))
