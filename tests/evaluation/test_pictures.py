"""What an evaluation and a search look like: right and wrong marked as they are, and a page that stands alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from occluded_reid import Gallery, Protocol, ReIDData, ReIDModel, build_model, load_dataset
from occluded_reid.data.occlusion import Occluders
from occluded_reid.data.synthetic import SyntheticOptions, generate
from occluded_reid.errors import EvaluationError, ImageError
from occluded_reid.evaluation.pictures import map_pictures, query_rows, save_picture, search_picture, write_report
from occluded_reid.evaluation.studies.study import Study, study
from occluded_reid.visualize import RankedQuery

SETTINGS = {"occluders": Occluders.generated(0, count=6), "protocol": Protocol(bootstrap=20)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReIDData:
    options = SyntheticOptions(
        train_identities=1, test_identities=3, cameras=2, images_per_camera=1, distractors=2, width=32, height=96
    )
    return load_dataset("synthetic", generate(tmp_path_factory.mktemp("people") / "set", options))


@pytest.fixture
def model(tiny: Callable[..., ReIDModel]) -> ReIDModel:
    return tiny(None)


@pytest.fixture
def result(model: ReIDModel, data: ReIDData) -> Study:
    return study(model, data, matchings=("global", "own"), fractions=(0.3,), **SETTINGS)


@pytest.mark.parametrize("exclude", [True, False])
def test_ranked_rows_are_the_evaluations(model: ReIDModel, data: ReIDData, exclude: bool) -> None:
    found = study(model, data, protocol=Protocol(bootstrap=0, exclude_same_camera=exclude))
    distances = model.matcher.distance(found.query.embeddings, found.gallery.embeddings).numpy()
    rows = query_rows(model, data, found, range(len(data.query)))
    (report,) = found.get("own").reports
    for i, (row, sample) in enumerate(zip(rows, data.query, strict=True)):
        kept = [
            g
            for g, other in enumerate(data.gallery)
            if not (exclude and other.identity == sample.identity and other.camera == sample.camera)
        ]
        kept.sort(key=lambda g: (round(float(distances[i, g]), 6), g))
        assert len(row.hits) == 10
        for item, g in zip(row.hits, kept, strict=False):
            assert item.distance == pytest.approx(float(distances[i, g]), abs=2e-6)
            assert item.correct == (item.identity == sample.identity)
        right = [n for n, item in enumerate(row.hits, 1) if item.correct]
        assert right[0] == report.first_match_rank[i]
        assert (row.identity, row.camera) == (sample.identity, sample.camera)
        assert row.visibility == dict(zip(model.slots, found.query.embeddings.visibility[i].tolist(), strict=True))
        assert row.mask is not None
        assert row.classes == 8


def test_maps_are_drawn_for_each_head_that_has_some(model: ReIDModel, data: ReIDData) -> None:
    pictures = map_pictures(model, data.query[:3])
    assert [name for name, _, _ in pictures] == ["global_aggregation_maps.png", "semantic_part_masks.png"]
    assert [re.findall(r"'(\w+)'", caption) for _, caption, _ in pictures] == [["global"], ["semantic"]]
    assert all(picture.width > 3 * 32 and np.asarray(picture).std() > 1 for _, _, picture in pictures)
    assert map_pictures(model, []) == []
    bare = build_model(model.recipe, heads={"semantic": None, "global": None})
    assert map_pictures(bare, data.query[:1]) == []


def test_the_report_stands_alone(model: ReIDModel, data: ReIDData, result: Study, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    record = {"lr": 0.1, "seconds": 1.0, "images_per_second": 9.0, "losses": {"total": 2.5, "spc": 0.5}, "scores": {}}
    log.write_text("".join(json.dumps({"epoch": epoch, **record}) + "\n" for epoch in (1, 2)))
    page = write_report(tmp_path / "deep" / "report", model, data, result, log=log)
    assert page == tmp_path / "deep" / "report" / "report.html"
    names = sorted(path.name for path in page.parent.iterdir())
    pictures = ["global_aggregation_maps.png", "ranked_lists.png", "semantic_part_masks.png"]
    assert names == sorted([*pictures, "report.html", "study.json"])
    for name in pictures:
        with Image.open(page.parent / name) as picture:
            assert picture.format == "PNG"
    html = page.read_text(encoding="utf-8")
    loaded = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')>\s]+)""", html)
    assert loaded
    assert all(address.startswith(("data:", "#")) for address in loaded), "nothing is fetched from elsewhere"
    assert "<script" not in html
    fails = ("Where it fails", "cameras of query and match", "<td>1 → 2</td>", "true matches among them")
    for text in (
        model.fingerprint,
        "Rank-1 30%",
        "95% bootstrap intervals",
        "Training",
        "look here first",
        "spc",
        *fails,
    ):
        assert text in html, text
    for condition in result.conditions:
        assert f"{condition.metrics['mAP']:.1%}" in html
    assert json.loads((page.parent / "study.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(result.to_dict())
    )
    first = page.read_bytes()
    write_report(page.parent, model, data, result, log=log)
    assert page.read_bytes() == first, "the same study gives the same page"


def test_a_report_without_the_usual_things(model: ReIDModel, data: ReIDData, tmp_path: Path) -> None:
    """No interval, no Rank-1, no own matching, no log, no part masks."""
    bare = build_model(model.recipe, heads={"semantic": None})
    found = study(bare, data, matchings=("global", "all_slots"), protocol=Protocol(ranks=(3,), bootstrap=0))
    html = write_report(tmp_path, bare, data, found, log=tmp_path / "none.jsonl").read_text(encoding="utf-8")
    assert "Rank-3 clean" in html
    assert "bootstrap intervals" not in html
    assert "Training" not in html
    assert "global − all_slots" in html


def test_a_place_that_cannot_be_written_is_named(
    model: ReIDModel, data: ReIDData, result: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EvaluationError, match=r"ranked_lists\.png' could not be written"):
        write_report(tmp_path / "file" / "report", model, data, result)
    with pytest.raises(EvaluationError, match=r"a\.png' could not be written"):
        save_picture(Image.new("RGB", (2, 2)), tmp_path / "file" / "a.png")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    (tmp_path / "b.png").write_bytes(b"before")
    with pytest.raises(EvaluationError, match=r"No space left on device.*nothing half-written"):
        save_picture(Image.new("RGB", (2, 2)), tmp_path / "b.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.png", "file"]
    assert (tmp_path / "b.png").read_bytes() == b"before"


def told_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Warnings, but for the one that this model was never trained."""
    return [record.getMessage() for record in caplog.records if "model" not in record.name]


def test_a_search_is_drawn_though_a_hit_has_gone(
    model: ReIDModel, data: ReIDData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = [sample.path for sample in data.gallery[:3]]
    moved = tmp_path / "moved.png"
    Image.open(data.gallery[3].path).save(moved)
    broken = tmp_path / "broken.png"
    Image.open(data.gallery[4].path).save(broken)
    with Gallery.create(tmp_path / "gallery", model=model) as gallery:
        gallery.add([*kept, moved, broken], keys=["a", "b", "c", "gone", "cut"])
        asked = [data.query[0].path, data.query[1].path]
        found = gallery.search(asked, 9)
        whole = np.asarray(search_picture(model, asked, found, title="two people"))
        assert not told_of(caplog)
        moved.unlink()
        broken.write_bytes(broken.read_bytes()[:100])
        without = np.asarray(search_picture(model, asked, found, title="two people"))
    (told,) = told_of(caplog)
    assert told.startswith("2 hits have no picture: ")
    assert f"'gone': file not found: {moved}" in told
    assert f"'cut': file cannot be read: {broken}" in told
    assert "replace=True" in told
    assert [len(hits) for hits in found] == [5, 5]
    assert whole.shape == without.shape
    assert 0 < (whole != without).any(2).mean() < 0.5
    with pytest.raises(ImageError, match=r"moved\.png' does not exist"):
        search_picture(model, [moved], [[]])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The positions of the queries whose ranked lists a report draws; nothing is drawn."""
    asked: list[list[int]] = []

    def note(model: ReIDModel, data: ReIDData, result: Study, positions: list[int]) -> list[object]:
        asked.append(list(positions))
        return []

    monkeypatch.setattr("occluded_reid.evaluation.pictures.query_rows", note)
    monkeypatch.setattr("occluded_reid.evaluation.pictures.map_pictures", lambda *_: [])
    return asked


def test_the_worst_queries_are_those_of_the_own_matching(
    model: ReIDModel, data: ReIDData, result: Study, drawn: list[list[int]], tmp_path: Path
) -> None:
    """Although another matching was asked for first."""
    (own,), (other,) = result.get("own").reports, result.get("global").reports
    worst = np.argsort(own.average_precision, kind="stable").tolist()
    assert worst != np.argsort(other.average_precision, kind="stable").tolist()
    write_report(tmp_path, model, data, result)
    assert drawn == [list(range(6)), worst]


def test_a_query_without_an_answer_is_not_drawn(
    model: ReIDModel, data: ReIDData, drawn: list[list[int]], tmp_path: Path
) -> None:
    alone = replace(data.query[0], identity="9999", name="query/9999.png")
    lonely = replace(data, query=(alone, *data.query))
    found = study(model, lonely, protocol=Protocol(bootstrap=0))
    assert found.get("own").reports[0].unanswerable == 1
    write_report(tmp_path, model, lonely, found)
    assert [sorted(positions) for positions in drawn] == [[1, 2, 3, 4, 5, 6]] * 2


def test_a_heads_name_leads_nowhere_else(
    model: ReIDModel, data: ReIDData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures are named after heads, and a recipe from elsewhere may call a head what it likes."""
    monkeypatch.setattr("occluded_reid.evaluation.pictures.query_rows", lambda *_: [])
    heads = dict(model.recipe.model.heads)
    renamed = build_model(model.recipe, heads={"semantic": None, "/nowhere/semantic": heads["semantic"]})
    found = study(renamed, data, protocol=Protocol(bootstrap=0))
    with pytest.raises(EvaluationError, match="leads out of"):
        write_report(tmp_path / "deep" / "report", renamed, data, found)
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_a_search_is_drawn_from_another_working_folder(
    model: ReIDModel,
    data: ReIDData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Added by relative paths, found from anywhere; what somebody kept as a relative path is said to be one."""
    sample = data.gallery[0].path
    monkeypatch.chdir(sample.parent)
    with Gallery.create(tmp_path / "gallery", model=model) as gallery:
        gallery.add([Path(sample.name)])
        monkeypatch.chdir(tmp_path)
        query = np.asarray(Image.open(data.query[0].path).convert("RGB"))
        search_picture(model, [query], gallery.search([query]))
        assert not told_of(caplog)
        gallery.add([data.gallery[1].path], keys=["other"], path=["some/where.png"])
        search_picture(model, [query], gallery.search([query]))
    (told,) = told_of(caplog)
    assert f"'other': file not found: some/where.png (kept relative, looked for in '{tmp_path}')" in told


def test_large_hits_are_scaled_down_as_they_are_read(
    model: ReIDModel, data: ReIDData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large.jpg"
    Image.new("RGB", (3000, 6000), (200, 30, 30)).save(large)
    drawn: list[RankedQuery] = []

    def keep(rows: list[RankedQuery], **_: object) -> Image.Image:
        drawn.extend(rows)
        return Image.new("RGB", (2, 2))

    monkeypatch.setattr("occluded_reid.evaluation.pictures.ranked_lists", keep)
    with Gallery.create(tmp_path / "gallery", model=model) as gallery:
        gallery.add([large])
        search_picture(model, [large], gallery.search([large], exclude_self=False))
    hit = drawn[0].hits[0].image
    assert isinstance(hit, Image.Image)
    assert hit.size == (640, 1280)
    assert isinstance(drawn[0].image, np.ndarray)
    assert max(drawn[0].image.shape) <= 1280
