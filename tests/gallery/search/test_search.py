from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, GalleryError, GalleryMismatchError, ImageError
from occluded_reid.gallery import Gallery, Hit, hits_table, mean_query
from occluded_reid.matchers import NO_SHARED_SLOT, PlainMatcher

Rows = Callable[..., PartEmbeddings]

COUNT = 40
IDENTITY = [None if i % 7 == 0 else f"p{i % 5}" for i in range(COUNT)]
CAMERA = [None if i % 11 == 0 else i % 3 for i in range(COUNT)]
TRACK = [f"t{i // 4}" for i in range(COUNT)]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Gallery, PartEmbeddings]:
    """Forty rows from several additions, the last five the same as the first five, with all labels."""
    source = torch.Generator().manual_seed(1)
    slots = {"global": 8, "part_1": 5, "part_2": 5}
    visible = (torch.rand(COUNT, 3, generator=source) > 0.3).float()
    columns = [torch.randn(COUNT, width, generator=source).half().float() for width in slots.values()]
    for column in (*columns, visible):
        column[-5:] = column[:5]
    rows = PartEmbeddings(tuple(slots), tuple(columns), visible)
    gallery = Gallery.create(tmp_path_factory.mktemp("filled") / "g", slots=slots)
    for first in range(0, COUNT, 15):
        part = slice(first, first + 15)
        gallery.add(
            rows[part],
            keys=[f"k{i}" for i in range(COUNT)][part],
            identity=IDENTITY[part],
            camera=CAMERA[part],
            track=TRACK[part],
            time=[float(i) for i in range(COUNT)][part],
            metadata=[{"number": i} for i in range(COUNT)][part],
        )
    return gallery, rows


def naive(
    gallery: Gallery, rows: PartEmbeddings, query: PartEmbeddings, q: int, allowed: list[int], labels: list[Any] | None
) -> list[tuple[str, float]]:
    """Every allowed row, nearest first, ties by position; of each label the first."""
    distance = gallery.matcher.pairs(query, rows, [q] * len(rows), list(range(len(rows))))
    best: list[tuple[str, float]] = []
    seen = set()
    for d, position in sorted((float(distance[p]), p) for p in allowed):
        label = labels[position] if labels else None
        if label is None or label not in seen:
            best.append((f"k{position}", d))
            seen.add(label)
    return best


def keys_and_distances(hits: list[Hit]) -> list[tuple[str, float]]:
    return [(hit.key, hit.distance) for hit in hits]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_search_is_the_naive_loop(filled: tuple[Gallery, PartEmbeddings], make_rows: Rows, data: st.DataObject) -> None:
    gallery, rows = filled
    query = PartEmbeddings.cat([make_rows(2, data.draw(st.integers(0, 9))), rows[:1]])
    k = data.draw(st.sampled_from([1, 3, 10, 100]))
    group_by: Any = data.draw(st.sampled_from([None, "identity", "track"]))
    where = data.draw(st.sampled_from([None, "time < 20", {"camera": [0, 2]}, {"identity": None}, "false"]))
    camera = data.draw(st.none() | st.lists(st.sampled_from([0, 1, 9, None]), min_size=3, max_size=3))
    identity = None if camera is None else data.draw(st.sampled_from([None, "p1", ["p0", None, "stranger"]]))
    found = gallery.search(query, k, where=where, query_camera=camera, query_identity=identity, group_by=group_by)
    keep = {
        "None": lambda i: True,
        "time < 20": lambda i: i < 20,
        "{'camera': [0, 2]}": lambda i: CAMERA[i] in (0, 2),
        "{'identity': None}": lambda i: IDENTITY[i] is None,
        "false": lambda i: False,
    }[str(where)]
    labels = {None: None, "identity": IDENTITY, "track": TRACK}[group_by]
    for q in range(3):
        allowed = []
        for i in filter(keep, range(COUNT)):
            same = camera is not None and camera[q] is not None and CAMERA[i] == camera[q]
            if identity is not None:
                name = identity if isinstance(identity, str) else identity[q]
                same = same and name is not None and IDENTITY[i] == name
            if not same:
                allowed.append(i)
        assert keys_and_distances(found[q]) == naive(gallery, rows, query, q, allowed, labels)[:k]
        assert [hit.rank for hit in found[q]] == list(range(1, len(found[q]) + 1))


def test_distance_is_the_matchers_and_hits_explain_it(filled: tuple[Gallery, PartEmbeddings], make_rows: Rows) -> None:
    gallery, rows = filled
    query = make_rows(1, 3)
    distance = gallery.matcher.distance(query, rows)[0]
    for hit in gallery.search(query, COUNT)[0]:
        place = int(hit.key[1:])
        assert hit.distance == pytest.approx(float(distance[place]), abs=2e-5)
        assert (hit.identity, hit.camera, hit.track, hit.time) == (IDENTITY[place], CAMERA[place], TRACK[place], place)
        assert hit.metadata == {"number": place}
        total, weight = 0.0, 0.0
        for s, name in enumerate(rows.names):
            shared = float(query.visibility[0, s] * rows.visibility[place, s])
            a, b = query.slot(name)[0].double(), rows.slot(name)[place].double()
            d = 1 - float(a @ b / a.norm() / b.norm())
            assert hit.shared_visibility[name] == shared
            assert hit.slot_distances[name] == pytest.approx(d, abs=1e-6)
            total, weight = total + shared * d, weight + shared
        assert hit.distance == pytest.approx(total / weight if weight else NO_SHARED_SLOT, abs=1e-6)


def test_order_survives_replacing_which_moves_rows_in_the_table(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(30)
    gallery = Gallery.create(tmp_path / "g", slots=rows.widths)
    gallery.add(rows, keys=[f"k{i}" for i in range(30)])
    swapped = [5, 25, 1, 17]
    new = make_rows(7, 9)  # four of them replace, three are new, in between each other
    keys = ["n0", "k5", "k25", "n1", "k1", "k17", "n2"]
    assert gallery.add(new, keys=keys, replace=True).replaced == 4
    order = [f"k{i}" for i in range(30) if i not in swapped] + ["k5", "k25", "k1", "k17", "n0", "n1", "n2"]
    everything = PartEmbeddings.cat([rows, new])
    place = {**{f"k{i}": i for i in range(30)}, **{key: 30 + i for i, key in enumerate(keys)}}
    query = make_rows(2, 4)
    for q, hits in enumerate(gallery.search(query, 100)):
        distance = gallery.matcher.pairs(query, everything, [q] * len(order), [place[key] for key in order])
        assert [h.key for h in hits] == [order[i] for i in np.lexsort((range(len(order)), distance))]
    with Gallery.open(tmp_path / "g") as again:
        assert again.search(query, 100) == gallery.search(query, 100)


def test_one_large_group_hides_no_other(tmp_path: Path) -> None:
    count = 60
    near = torch.tensor([[1.0, i / count] for i in range(count)])
    rows = PartEmbeddings(("a",), (near,), torch.ones(count, 1))
    gallery = Gallery.create(tmp_path / "g", slots={"a": 2}, dtype="float32")
    identity = ["crowd"] * 50 + ["late"] * 3 + [None] * 3 + ["last"] * 4
    gallery.add(rows, keys=[str(i) for i in range(count)], identity=identity)
    hits = gallery.search(rows[:1], 5, group_by="identity")[0]
    assert [h.key for h in hits] == ["0", "50", "53", "54", "55"]
    assert [h.key for h in gallery.search(rows[:1], 9, group_by="identity")[0]] == ["0", "50", "53", "54", "55", "56"]


def test_quotes_in_filters_are_texts_and_nothing_else(tmp_path: Path, make_rows: Rows) -> None:
    names = ["O'Brien", 'say "hi"', "a' OR '1'='1", "`tick`", "back\\slash", "semi; DROP TABLE images --", "plain"]
    gallery = Gallery.create(tmp_path / "g", slots=make_rows(1).widths)
    gallery.add(make_rows(7), keys=names, identity=names)
    query = make_rows(1, 2)
    for name in names:
        assert [h.key for h in gallery.search(query, where={"identity": name})[0]] == [name]
        assert [h.key for h in gallery.search(query, where={"key": [name, "nobody"]})[0]] == [name]
    assert [h.key for h in gallery.search(query, where="identity = 'O''Brien'")[0]] == ["O'Brien"]
    assert len(gallery) == 7
    assert gallery.remove(names[:3]) == 3


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("camera = ", "where 'camera = ' is not understood.*Expected"),
        ("identity = 'O'Brien'", "is not understood"),
        ("colour = 'red'", "No field named colour"),
        ("camera/0 > 1", "Divide by zero"),
        ("  ", "where is blank"),
        ({"camra": 3}, "no column is named 'camra'. Did you mean 'camera'"),
        ({"camera": "3"}, "give a whole number"),
        ({"identity": 3.5}, "give a text"),
        (3, "give SQL text, a mapping"),
    ],
)
def test_a_wrong_filter_is_named(filled: tuple[Gallery, PartEmbeddings], where: Any, message: str) -> None:
    gallery, rows = filled
    with pytest.raises(GalleryError, match=message) as caught:
        gallery.search(rows[:1], where=where)
    assert ".rs:" not in str(caught.value)


def test_an_empty_gallery_and_no_query_answer_nothing(tmp_path: Path, make_rows: Rows) -> None:
    gallery = Gallery.create(tmp_path / "g", slots=make_rows(1).widths)
    assert gallery.search(make_rows(2)) == [[], []]
    assert gallery.search(make_rows(2), group_by="track", query_camera=1) == [[], []]
    with pytest.raises(GalleryError, match="not understood"):
        gallery.search(make_rows(1), where="=")
    gallery.add(make_rows(2), keys=["a", "b"])
    assert gallery.search(make_rows(2)[:0]) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": True}, "k is True"),
        ({"k": 2.5}, "k is 2.5"),
        ({"group_by": "camera"}, "group_by is 'camera'"),
        ({"query_identity": "p1"}, "without query_camera"),
        ({"query_camera": [1, 2]}, "2 values for 1 queries"),
    ],
)
def test_wrong_arguments_are_refused(
    filled: tuple[Gallery, PartEmbeddings], arguments: dict[str, Any], message: str
) -> None:
    gallery, rows = filled
    with pytest.raises(GalleryError, match=message):
        gallery.search(rows[:1], **arguments)


def test_query_slots_must_fit_and_may_come_in_another_order(filled: tuple[Gallery, PartEmbeddings]) -> None:
    gallery, rows = filled
    assert gallery.search(rows[:2].select(["part_2", "global", "part_1"])) == gallery.search(rows[:2])
    with pytest.raises(GalleryMismatchError, match=r"global 8, part_1..2 5\); the query has the slots \(global 8\)"):
        gallery.search(rows[:1].select(["global"]))


def test_another_matcher_may_be_chosen_at_opening(filled: tuple[Gallery, PartEmbeddings], make_rows: Rows) -> None:
    gallery, rows = filled
    plain = PlainMatcher(metric="euclidean")
    with Gallery.open(gallery.path, matcher=plain) as other:
        query = make_rows(1, 5)
        distance = plain.pairs(query, rows, [0] * COUNT, list(range(COUNT)))
        assert [h.distance for h in other.search(query, COUNT)[0]] == sorted(distance)


def test_own_image_is_left_out_by_key_and_by_content(tmp_path: Path, pictures: list[Path], model: Any) -> None:
    gallery = Gallery.create(tmp_path / "g", model=model)
    gallery.add(pictures, keys=[f"k{i}" for i in range(7)])
    assert gallery.search(pictures[2], 1, exclude_self=False)[0][0].key == "k2"
    assert {h.key for h in gallery.search(pictures[2], 9)[0]} == {f"k{i}" for i in range(7) if i != 2}
    copy = tmp_path / "copy.png"
    copy.write_bytes(pictures[3].read_bytes())
    both = gallery.search([pictures[2], copy], 9)
    assert [len(hits) for hits in both] == [6, 6]
    assert "k3" not in [h.key for h in both[1]]
    assert len(gallery.search([pictures[2], copy], 9, combine=True)[0]) == 5
    gallery.add(pictures[0], keys=[pictures[5].as_posix()])  # the key of one image, the pixels of another
    assert len(gallery.search(pictures[5], 9)[0]) == 6
    array = np.asarray(Image.open(pictures[1]))
    gallery.add([array])
    opened, turned = Image.open(pictures[1]), torch.from_numpy(array.copy()).permute(2, 0, 1)
    for form in (pictures[1], pictures[1].read_bytes(), opened, opened.copy(), array, turned):  # the file goes, too
        hits = gallery.search(form, 9)[0]
        assert len(hits) == 7
        assert "k1" not in [hit.key for hit in hits]
        assert len(gallery.search(form, 9, exclude_self=False)[0]) == 9
    assert len(gallery.search([array, pictures[0]], 9, combine=True)[0]) == 6
    assert len(gallery.search(pictures[5], 9, where={"key": ["k1", "k5"]})[0]) == 1


def test_query_images_and_their_embeddings_find_the_same(tmp_path: Path, pictures: list[Path], model: Any) -> None:
    gallery = Gallery.create(tmp_path / "g", model=model)
    gallery.add(pictures)
    rows = model.embed(model.preprocess(pictures))
    assert gallery.search(pictures, 9, exclude_self=False, batch_size=2) == gallery.search(rows, 9)
    one = gallery.search(pictures[:3], 9, exclude_self=False, combine=True)
    assert one == gallery.search(mean_query(rows[:3]), 9) == gallery.search(rows[:3], 9, combine=True)
    with pytest.raises(ImageError, match=r"nowhere.png"):
        gallery.search(tmp_path / "nowhere.png")
    with pytest.raises(GalleryError, match="no images"):
        gallery.search([])
    with (
        Gallery.open(tmp_path / "g") as without,
        pytest.raises(GalleryError, match=r"opened without a model.*fake@1234"),
    ):
        without.search(pictures[0])


def test_mean_query_is_the_weighted_mean(make_rows: Rows) -> None:
    rows = make_rows(4).with_visibility(torch.tensor([[1.0, 0.5, 0], [1, 0, 0], [0.2, 0.25, 0], [0, 0, 0]]))
    mean = mean_query(rows)
    assert mean.visibility.tolist() == [[1.0, 0.5, 0.0]]
    for s, name in enumerate(rows.names):
        weights = [float(v) for v in rows.visibility[:, s]]
        weights = weights if sum(weights) else [1.0] * 4
        wanted = sum(w * rows.slot(name)[n].double() for n, w in enumerate(weights)) / sum(weights)
        torch.testing.assert_close(mean.slot(name)[0].double(), wanted, rtol=1e-6, atol=1e-6)
    with pytest.raises(EmbeddingError, match="no images"):
        mean_query(rows[:0])


def test_hits_print_well(filled: tuple[Gallery, PartEmbeddings]) -> None:
    from rich.console import Console

    gallery, rows = filled
    hits = gallery.search(rows[:1], 2)[0]
    assert repr(hits[0]) == "Hit(1: 'k0' at 0.0000, track='t0', time=0.0)"
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(hits_table([*hits, Hit("[red]x", 0.5, 3, {}, {})]))
    text = console.export_text()
    assert "k0" in text
    assert "[red]x" in text
    assert "shared: how much both images show of global" in text
    assert "1.0" in text
