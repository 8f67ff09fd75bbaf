"""A gallery on a real server beside one in a folder: the same rows, the same calls, the same answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from occluded_reid import Gallery, Hit, PartEmbeddings
from occluded_reid.errors import GalleryError, GalleryMismatchError, MissingExtraError
from occluded_reid.gallery.filters.where import Condition, field, to_milvus, to_sql
from occluded_reid.gallery.milvus import MilvusGallery
from occluded_reid.gallery.milvus.upkeep import remove_orphans
from occluded_reid.matchers import (
    DistanceSumMatcher,
    Matcher,
    PlainMatcher,
    PublicDistanceMatcher,
    VisibilityWeightedMatcher,
)

SLOTS = {"global": 8, "part_1": 5, "part_2": 1}
TEXTS = ["", "O'Brien", 'say "hi"', "back\\slash", "\\", "'", "%", "é人😀", "a\nb\t\0\x1b", None]
COUNT = 330
MOST = (COUNT, COUNT)  # so many candidates that no row can be missed


def labels(count: int) -> dict[str, Any]:
    return {
        "keys": [f"{TEXTS[i % 9]}#{i}" for i in range(count)],
        "identity": [TEXTS[i * 7 % 10] for i in range(count)],
        "camera": [None if i % 11 == 0 else i % 5 - 1 for i in range(count)],
        "time": [None if i % 6 == 0 else i / 3 for i in range(count)],
        "track": [None if i % 4 == 0 else f"t{i // 40}" for i in range(count)],
        "metadata": [{"n": i, "text": TEXTS[i % 9]} for i in range(count)],
    }


def drawn(count: int, slots: dict[str, int], seed: int, people: int = 40, hidden: float = 0.3) -> PartEmbeddings:
    """People with some images each; soft visibility, and a part of the slots hidden."""
    source = torch.Generator().manual_seed(seed)
    who = torch.randint(people, (count,), generator=source)
    centres = torch.Generator().manual_seed(99)
    visible = torch.rand(count, len(slots), generator=source)
    visible[visible < hidden] = 0
    visible[:, 0] = 1
    return PartEmbeddings(
        tuple(slots),
        tuple(
            torch.randn(people, width, generator=centres)[who] + 0.7 * torch.randn(count, width, generator=source)
            for width in slots.values()
        ),
        visible,
    )


def told(hits: list[list[Hit]]) -> list[list[tuple[Any, ...]]]:
    return [
        [(h.rank, h.key, h.distance, h.identity, h.camera, h.time, h.track, h.metadata, h.slot_distances) for h in line]
        for line in hits
    ]


@pytest.fixture(scope="module")
def both(new_address: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gallery, Gallery]]:
    """The same rows in a folder and on the server; tests must not change them."""
    rows = drawn(COUNT, SLOTS, seed=0)
    rows = PartEmbeddings.cat([rows[:-10], rows[:10]])  # the last ten are copies of the first ten: ties
    folder = Gallery.create(tmp_path_factory.mktemp("both") / "gallery", slots=SLOTS, fingerprint="fake@1234")
    address = new_address()
    server = Gallery.create(address, slots=SLOTS, fingerprint="fake@1234")
    assert isinstance(server, MilvusGallery)
    folder.add(rows, **labels(COUNT))
    assert server.add(rows, **labels(COUNT)).added == COUNT
    yield folder, server
    server.drop()
    folder.close()
    assert not Gallery.exists(address)


CONDITIONS: list[Condition] = [
    field("camera") == 3,
    field("camera") != 3,
    ~(field("camera") == 3),
    (field("camera") < 1) | field("camera").is_null(),
    field("camera").is_in([-1, 2]) & (field("time") > 30),
    ~field("camera").is_in([]),
    field("camera").is_in([]),
    field("time").between(10, 20.5),
    ~field("time").between(10, 20.5),
    (field("identity") >= "a") | ~(field("track") == "t1"),
    field("identity") < "O'Brien",
    field("key").is_null() | ~field("metadata").is_null() & (field("track") <= "t3"),
    *(field("identity") == text for text in TEXTS if text is not None),
    *(field("key") == f"{text}#{i}" for i, text in enumerate(TEXTS[:9])),
    field("metadata").is_in(['{"n": 2, "text": "say \\"hi\\""}']),
]


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda c: c.sql())
def test_both_understand_a_condition_alike(both: tuple[Gallery, Gallery], condition: Condition) -> None:
    found = [
        sorted(
            key
            for batch in gallery._opened().scan(["key"], render(condition))
            for key in batch.column("key").to_pylist()
        )
        for gallery, render in zip(both, (to_sql, to_milvus), strict=True)
    ]
    assert found[0] == found[1]


QUESTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one mapping": {"where": {"camera": [1, 2], "track": None}},
    "typed": {"where": (field("time") > 40) & ~(field("identity") == "O'Brien")},
    "few rows": {"where": {"identity": "\\", "camera": 2}, "k": 50},
    "no rows": {"where": {"identity": "nobody"}},
    "other cameras": {"query_camera": [i % 5 - 1 for i in range(9)]},
    "not this person here": {"query_camera": 1, "query_identity": ["O'Brien", None, *["é人😀"] * 7]},
    "groups": {"group_by": "identity", "k": 8},
    "groups of few": {"group_by": "track", "where": {"camera": 2}, "k": 30},
    "one person": {"combine": True},
    "more than there is": {"k": COUNT + 5},
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_same_hits_as_from_a_folder(both: tuple[Gallery, Gallery], question: str) -> None:
    folder, server = both
    query = drawn(9, SLOTS, seed=1)
    query = query.with_visibility(torch.cat([query.visibility[:8], torch.zeros(1, 3)]))  # the last one shows nothing
    options = {"k": 7, **QUESTIONS[question]}
    wanted = told(folder.search(query, effort="exact", **options))
    assert told(server.search(query, effort=MOST, **options)) == wanted
    assert told(server.search(query, effort="exact", **options)) == wanted
    if question == "plain":
        assert told(server.search(query, effort="auto", **options)) == wanted  # 100 candidates are enough here


@pytest.mark.parametrize(
    "matcher",
    [
        PlainMatcher(),
        PublicDistanceMatcher(),
        DistanceSumMatcher(weights={"part_1": 0.5, "part_2": 0.0}),
        VisibilityWeightedMatcher(visibility="binary", threshold=0.6),
    ],
    ids=repr,
)
def test_another_matcher_decides_what_is_visible(both: tuple[Gallery, Gallery], matcher: Matcher) -> None:
    folder, server = both
    query = drawn(6, SLOTS, seed=2)
    with Gallery.open(folder.path, matcher=matcher) as one, Gallery.open(reopened(server), matcher=matcher) as other:
        assert told(other.search(query, 9, effort=MOST)) == told(one.search(query, 9, effort="exact"))


def test_a_matcher_of_another_metric_needs_an_exact_search(both: tuple[Gallery, Gallery]) -> None:
    folder, server = both
    matcher = VisibilityWeightedMatcher(metric="euclidean", normalize=False)
    query = drawn(3, SLOTS, seed=2)
    with Gallery.open(folder.path, matcher=matcher) as one, Gallery.open(reopened(server), matcher=matcher) as other:
        assert told(other.search(query, 9)) == told(one.search(query, 9))
        with pytest.raises(GalleryError, match="does not compare slots as the gallery's indexes do"):
            other.search(query, 9, effort=(100, 1))


def reopened(server: Gallery) -> str:
    return f"{server.path}?timeout=120"


SYSTEMS: dict[str, tuple[dict[str, int], Matcher]] = {
    "sorn_lite": ({"global": 768, "part_1": 320, "part_2": 320, "part_3": 320}, VisibilityWeightedMatcher()),
    "sgam_lite": (dict.fromkeys(("global", "head", "upper_body", "lower_body", "shoes"), 128), PublicDistanceMatcher()),
    "ocnet_lite": ({"backbone": 320, "final": 1280}, DistanceSumMatcher(weights={"backbone": 1.0})),
}


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_systems_own_slots_and_matcher(new_address: Callable[[], str], tmp_path: Path, system: str) -> None:
    slots, matcher = SYSTEMS[system]
    rows, query = drawn(2000, slots, seed=7, people=100), drawn(20, slots, seed=8, people=100)
    given = {"keys": [str(i) for i in range(2000)], "camera": [i % 6 for i in range(2000)]}
    folder = Gallery.create(tmp_path / "gallery", slots=slots, matcher=matcher)
    server = Gallery.create(new_address(), slots=slots, matcher=matcher)
    assert isinstance(server, MilvusGallery)
    try:
        folder.add(rows, **given)
        server.add(rows, **given)
        for options in ({}, {"query_camera": [i % 6 for i in range(20)]}):
            wanted = told(folder.search(query, 20, effort="exact", **options))
            assert told(server.search(query, 20, effort=(300, 1), **options)) == wanted
    finally:
        server.drop()


def test_hidden_slots_propose_nothing(both: tuple[Gallery, Gallery]) -> None:
    _, server = both
    assert isinstance(server, MilvusGallery)
    store = server._rows
    hidden = set()
    for batch in store.scan(["row", "visibility"]):
        seen = np.array(batch.column("visibility").to_pylist())[:, 1]
        hidden |= set(batch.column("row").to_numpy()[seen == 0].tolist())
    assert hidden
    from occluded_reid.gallery.milvus.candidates import CandidateSearch
    from occluded_reid.gallery.milvus.effort import MilvusEffort
    from occluded_reid.gallery.search.request import SearchRequest

    query = drawn(4, SLOTS, seed=3)
    only = query.with_visibility(torch.tensor([[0.0, 1.0, 0.0]]).repeat(4, 1))
    request = SearchRequest(rows=only, origins=[[]] * 4, k=5)
    index = server._collections.indexes(server.manifest)
    search = CandidateSearch(store, VisibilityWeightedMatcher(), request, MilvusEffort(COUNT), index)
    proposed = search._propose(np.arange(4), dict.fromkeys(range(4)), MilvusEffort(COUNT))
    for numbers in proposed.values():
        assert len(numbers) == COUNT - len(hidden)
        assert not hidden & set(numbers.tolist())


def test_own_images_are_left_out_by_key_and_content(
    new_address: Callable[[], str], tmp_path: Path, model: Any, pictures: list[Path]
) -> None:
    copied = tmp_path / "copy.png"
    copied.write_bytes(pictures[0].read_bytes())
    folder = Gallery.create(tmp_path / "gallery", model=model)
    server = Gallery.create(new_address(), model=model)
    assert isinstance(server, MilvusGallery)
    try:
        for gallery in (folder, server):
            gallery.add([*pictures, copied], identity="x", camera=1)
        for options in ({}, {"exclude_self": False}, {"combine": True}):
            wanted = told(folder.search(pictures[:2], 4, effort="exact", **options))
            assert told(server.search(pictures[:2], 4, effort="auto", **options)) == wanted
        with pytest.raises(GalleryMismatchError, match="this model is other@9"):
            Gallery.open(reopened(server), model=type(model)("other@9"))
    finally:
        server.drop()


def test_writes_may_be_repeated_and_broken_ones_leave_nothing(
    new_address: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = {"global": 4, "part_1": 3}
    rows = drawn(40, slots, seed=5)
    given = {key: values[:40] for key, values in labels(40).items()}
    address = new_address()
    server = Gallery.create(address, slots=slots)
    assert isinstance(server, MilvusGallery)
    try:
        # The connection is lost when the slots are written, and before the labels are.
        send = server._rows._send

        def lost(collection: str, message: Any) -> None:
            if collection == server._rows.labels:
                raise GalleryError("the line is cut")
            send(collection, message)

        with monkeypatch.context() as patch:
            patch.setattr(server._rows, "_send", lost)
            with pytest.raises(GalleryError, match="the line is cut"):
                server.add(rows, **given)
        assert len(server) == 0
        assert server.search(rows[:1], 3) == [[]]
        assert server.add(rows, **given).added == 40
        assert server.add(rows, **given).skipped == 40
        assert len(server) == 40
        assert len({hit.key for hit in server.search(rows[:1], 50, effort="auto")[0]}) == 40
        assert remove_orphans(server._rows) == 0  # they are young
        assert remove_orphans(server._rows, young=-60) == 2 * 40
        assert server.verify().ok

        # Another program sees it; replaced images stay single, removed ones stay away.
        with Gallery.open(f"{address}&consistency=Session") as other:
            assert len(other) == 40
            assert other.remove(given["keys"][:5]) == 5
            new = drawn(3, slots, seed=6)
            relabelled = {"keys": given["keys"][5:8], "camera": [77, 78, None]}
            with pytest.raises(GalleryError, match="Pass replace=True"):
                other.add(new, **relabelled)
            assert other.add(new, **relabelled, replace=True).replaced == 3
        assert len(server) == 35
        with pytest.raises(GalleryError, match="are not in the gallery"):
            server.remove(given["keys"][:6])
        found = server.search(new, 1, effort="auto")
        assert [(line[0].key, line[0].camera) for line in found] == list(zip(*relabelled.values(), strict=True))
        assert len(server.search(new, 50, effort=(50, 1))[0]) == 35
        assert server.verify().ok
        assert server.erase(given["keys"][10:12]).images == 2
        assert remove_orphans(server._rows, young=-60) == 0
        assert {hit.key for hit in server.search(new, 50, effort="exact")[0]} == {
            hit.key for hit in server.search(new, 50, effort="auto")[0]
        }
        # A slot that has lost an image is named.
        number = next(server._rows.scan(["row"])).column("row")[0].as_py()
        server._rows.server.call("written", "delete", server._rows.slots[1], ids=[number])
        assert [name.split(" (")[0] for name in server.verify().damaged] == ["slot 'part_1'"]
    finally:
        server.drop()


def test_what_a_server_refuses_is_said_in_words(both: tuple[Gallery, Gallery], new_address: Callable[[], str]) -> None:
    _, server = both
    query = drawn(1, SLOTS, seed=1)
    assert len(server.search(query, 3, where='camera == -1 and identity == "\'"')[0]) == 3
    for effort in ("auto", "exact"):
        with pytest.raises(GalleryError, match=r"where 'camrea = 3' is not understood.*expression of Milvus"):
            server.search(query, where="camrea = 3", effort=effort)
    with pytest.raises(GalleryError, match=r"metadata of 'k' has 70,0.* bytes; a server keeps up to 65,535"):
        server.add(query, keys=["k"], metadata=[{"text": "x" * 70_000}])
    with pytest.raises(GalleryError, match=r"exists already\. Open it with"):
        Gallery.create(reopened(server), slots=SLOTS)
    with pytest.raises(GalleryError, match=r"there is no gallery 'milvus://.*the server has"):
        Gallery.open(new_address())
    with pytest.raises(GalleryError, match="holds one slot of a gallery; open 'occluded_reid_test_"):
        Gallery.open(f"{server.path}__slot_0")
    with pytest.raises(GalleryError, match="A server keeps no older versions"):
        Gallery.open(server.path, version=1)
    with pytest.raises(GalleryError, match="keeps no neighbour lists"):
        server.search(query, rerank=True)
    with pytest.raises(GalleryError, match=r"effort=0.98 is for galleries in a folder"):
        server.search(query, effort=0.98)
    with pytest.raises(GalleryError, match="no index of a server is named 'LSH'"):
        server.build_index("LSH")
    with pytest.raises(GalleryError, match="Milvus takes up to 32,768"):
        Gallery.create(new_address(), slots={"global": 40_000})


def test_nobody_is_waited_for_too_long() -> None:
    pytest.importorskip("pymilvus")
    with pytest.raises(GalleryError, match=r"the Milvus server 127.0.0.1:1 does not answer .* up to 0.3 s. Start it"):
        Gallery.open("milvus://127.0.0.1:1/mall?timeout=0.3")


def test_without_pymilvus_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pymilvus", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'occluded_reid\[milvus\]'"):
        Gallery.open("milvus://localhost/mall")
