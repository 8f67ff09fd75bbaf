"""find_failures() against loops written from the definitions: every slice, the bins, the pairs that share no slot."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation import Protocol, evaluate
from occluded_reid.evaluation.bootstrap import FEW
from occluded_reid.evaluation.studies.failures.find import find_failures
from occluded_reid.evaluation.studies.failures.result import Failures
from occluded_reid.evaluation.studies.failures.slices import Slice
from occluded_reid.matchers import PlainMatcher, VisibilityWeightedMatcher
from occluded_reid.matchers.slots import SlotMatcher

NAMES = ("global", "part_1", "part_2")
FAR = 1e9  # farther than anything that shares a slot


def make(
    rows, seed, *, visibility="binary", slots=NAMES, identities=6, cameras=3, hidden=0.5, named="g"
) -> EmbeddedSet:
    generator = torch.Generator().manual_seed(seed)
    labels = np.random.default_rng(seed)
    centres = torch.randn(len(slots), identities, 8, generator=torch.Generator().manual_seed(99))
    identity, camera = labels.integers(0, identities, rows), labels.integers(0, cameras, rows)
    vectors = tuple((centre[identity] + 1.5 * torch.randn(rows, 8, generator=generator)).float() for centre in centres)
    visible = torch.rand(rows, len(slots), generator=generator)
    if visibility == "binary":
        visible = (visible > hidden).float()
    names = tuple(f"{named}/{n:04}.jpg" for n in labels.permutation(rows))
    return EmbeddedSet(PartEmbeddings(slots, vectors, visible), identity, camera, names)


def pick(rows: EmbeddedSet, index) -> EmbeddedSet:
    index = np.asarray(index)
    return EmbeddedSet(
        rows.embeddings[torch.from_numpy(index)],
        rows.identity[index],
        rows.camera[index],
        tuple(rows.paths[i] for i in index),
    )


def twins(rows: EmbeddedSet) -> EmbeddedSet:
    """Everybody twice, the second time under another's identity: ties that only the name decides."""
    return EmbeddedSet(
        PartEmbeddings.cat([rows.embeddings, rows.embeddings]),
        np.concatenate([rows.identity, np.roll(rows.identity, 1)]),
        np.concatenate([rows.camera, rows.camera]),
        (*rows.paths, *(f"a{name}" for name in rows.paths)),
    )


def cosine(query: EmbeddedSet, gallery: EmbeddedSet, seen=None) -> tuple[np.ndarray, np.ndarray]:
    """Distances weighted by what both show, and the number of shared slots, pair by pair in float64."""
    sides = [[e.double().numpy() for e in side.embeddings.embeddings] for side in (query, gallery)]
    visible = [side.embeddings.visibility.double().numpy() for side in (query, gallery)] if seen is None else seen
    distance, shared = np.full((len(query), len(gallery)), FAR), np.zeros((len(query), len(gallery)), dtype=int)
    for i in range(len(query)):
        for j in range(len(gallery)):
            above = below = 0.0
            for s in range(len(sides[0])):
                x, y, both = sides[0][s][i], sides[1][s][j], visible[0][i, s] * visible[1][j, s]
                above += both * (1 - x @ y / np.sqrt((x @ x) * (y @ y)))
                below += both
                shared[i, j] += both > 0
            if below > 0:
                distance[i, j] = round(above / below, 6)
    return distance, shared


def by_definition(query, gallery, distance, keep, *, ap="hits", exclude=True):
    """Numbers of each query that has a match for which keep(i, j), and how many of those there are."""
    numbers, matches = {}, 0
    for i in range(len(query)):
        ranked = []
        for j in range(len(gallery)):
            same = query.identity[i] == gallery.identity[j]
            if same and ((exclude and query.camera[i] == gallery.camera[j]) or not keep(i, j)):
                continue
            matches += same
            ranked.append((distance[i, j], gallery.paths[j], same))
        ranks = [r for r, (_, _, same) in enumerate(sorted(ranked), start=1) if same]
        if ranks:
            precision = []
            for n, rank in enumerate(ranks, start=1):
                before = 1.0 if rank == 1 else (n - 1) / (rank - 1)
                precision.append(n / rank if ap == "hits" else (n / rank + before) / 2)
            numbers[i] = (sum(precision) / len(ranks), ranks[0], len(ranks) / ranks[-1])
    return numbers, matches


def check(part: Slice, numbers, matches, protocol: Protocol) -> None:
    found = list(numbers.values())
    assert (part.queries, part.matches) == (len(found), matches)
    assert part.few == (len(found) < 10)
    assert list(part.metrics) == [*(f"Rank-{k}" for k in protocol.ranks), "mAP", "mINP"]
    for k in protocol.ranks:
        assert part.metrics[f"Rank-{k}"] == pytest.approx(np.mean([n[1] <= k for n in found]), abs=1e-12)
    assert part.metrics["mAP"] == pytest.approx(np.mean([n[0] for n in found]), abs=1e-12)
    assert part.metrics["mINP"] == pytest.approx(np.mean([n[2] for n in found]), abs=1e-12)
    assert bool(part.intervals) == (len(found) >= FEW and protocol.bootstrap > 0)
    for name, interval in part.intervals.items():
        assert interval.low <= part.metrics[name] <= interval.high


@pytest.mark.parametrize("visibility", ["binary", "soft"])
@pytest.mark.parametrize("ap", ["hits", "trapezoid"])
@pytest.mark.parametrize("exclude", [True, False])
def test_every_slice_equals_the_definition(visibility, ap, exclude) -> None:
    query, gallery = make(40, 0, visibility=visibility, named="q"), twins(make(50, 1, visibility=visibility))
    protocol = Protocol(ap=ap, exclude_same_camera=exclude, bootstrap=50, ranks=(1, 3))
    found = find_failures(query, gallery, VisibilityWeightedMatcher(), protocol, tile_rows=16)
    distance, shared = cosine(query, gallery)

    def look(part: Slice, keep) -> None:
        check(part, *by_definition(query, gallery, distance, keep, ap=ap, exclude=exclude), protocol)

    assert len(found.by_shared_slots) == (4 if visibility == "binary" else 1)
    assert [part.key for part in found.by_shared_slots] == sorted(part.key for part in found.by_shared_slots)
    for part in found.by_shared_slots:
        look(part, lambda i, j, n=part.key[0]: shared[i, j] == n)
        assert part.name == f"{part.key[0]:.0f} of 3"
    assert len(found.by_camera_pair) == (6 if exclude else 9)
    for part in found.by_camera_pair:
        look(part, lambda i, j, pair=part.key: (query.camera[i], gallery.camera[j]) == pair)
        assert part.name == f"{part.key[0]:.0f} → {part.key[1]:.0f}"
    assert [part.key for part in found.by_query_camera] == [(0,), (1,), (2,)]
    for part in found.by_query_camera:
        look(part, lambda i, j, pair=part.key: query.camera[i] == pair[0])
    mean = query.embeddings.visibility.double().numpy().mean(1)
    np.testing.assert_allclose(found.visibility, mean, atol=1e-6)
    for n, part in enumerate(found.by_visibility):
        if visibility == "binary":
            look(part, lambda i, j, key=part.key: query.embeddings.visibility[i].sum() == key[0])
            assert part.name == f"{part.key[0]:.0f} of 3 slots"
        else:
            low, high = part.key
            last = n == len(found.by_visibility) - 1
            inside = [low <= v < high or (last and v == high) for v in found.visibility]
            look(part, lambda i, j, inside=inside: inside[i])
    assert len(found.by_visibility) == 4
    groups = found.slices.values()
    assert [sum(part.matches for part in group) for group in groups] == [len(found.matches.rows)] * 4


def test_the_report_is_that_of_evaluate_bit_by_bit() -> None:
    query, gallery = make(40, 2, named="q"), twins(make(50, 3))
    words = {"fingerprint": "m@1", "tuned": "nothing", "test_time": "flip"}
    protocol = Protocol(bootstrap=50, name="here")
    found = find_failures(query, gallery, VisibilityWeightedMatcher(), protocol, **words)
    whole = evaluate(query, gallery, VisibilityWeightedMatcher(), protocol, **words)
    assert found.report.to_dict() == whole.to_dict()
    assert found.report.intervals == whole.intervals


@pytest.mark.parametrize("visibility", ["binary", "soft"])
def test_neither_tiles_nor_the_order_of_the_gallery_change_a_bit(visibility) -> None:
    query, gallery = make(40, 4, visibility=visibility, named="q"), twins(make(50, 5, visibility=visibility))
    order = np.random.default_rng(0).permutation(len(gallery))
    seen = []
    for rows in (gallery, pick(gallery, order)):
        for tile_rows in (1, 7, 1024):
            found = find_failures(query, rows, VisibilityWeightedMatcher(), Protocol(bootstrap=50), tile_rows=tile_rows)
            content = found.to_dict()
            seen.append((json.dumps(content, allow_nan=False), found.to_csv(), found.worst(1000)))
    assert all(other == seen[0] for other in seen)


def test_soft_bins_hold_quarters_of_the_queries_that_count() -> None:
    query, gallery = make(43, 6, visibility="soft", named="q"), make(90, 7, visibility="soft")
    query.identity[:3] = 77  # nobody to find
    found = find_failures(query, gallery, VisibilityWeightedMatcher(), Protocol(bootstrap=0))
    assert [part.queries for part in found.by_visibility] == [10, 10, 10, 10]
    values = np.sort(found.visibility[3:])
    assert [part.key[0] for part in found.by_visibility[1:]] == [values[10], values[20], values[30]]
    assert found.by_visibility[0].name.startswith("[0.")
    assert [part.name[-1] for part in found.by_visibility] == [")", ")", ")", "]"]


def test_edges_can_be_given() -> None:
    query, gallery = make(40, 8, visibility="soft", named="q"), make(90, 9, visibility="soft")
    query.embeddings.visibility[:4] = 0.5  # on an edge: it belongs to the bin above
    matcher = VisibilityWeightedMatcher()
    found = find_failures(query, gallery, matcher, Protocol(bootstrap=0), visibility_edges=(0.25, 0.5, 0.99))
    keys = [(0.0, 0.25), (0.25, 0.5), (0.5, 0.99), (0.99, 1.0)]
    counts = [sum(low <= v < high for v in found.visibility[found.report.answerable]) for low, high in keys]
    assert counts[3] == 0
    assert [(part.key, part.queries) for part in found.by_visibility] == list(zip(keys, counts, strict=True))[:3]
    assert found.by_visibility[2].name == "[0.500, 0.990)"
    # Visibility of 0 and 1 can be put into such bins too.
    binary = make(40, 8, named="q")
    bins = find_failures(binary, gallery, matcher, Protocol(bootstrap=0), visibility_edges=(0.5,)).by_visibility
    assert [part.key for part in bins] == [(0.0, 0.5), (0.5, 1.0)]
    for wrong in ((0.5, 0.5), (0.7, 0.2), (0.0, 0.5), (0.5, 1.0), (float("nan"),), ((0.1, 0.2),)):
        with pytest.raises(EvaluationError, match=r"ascending numbers between 0 and 1|give a number"):
            find_failures(query, gallery, matcher, visibility_edges=wrong)


def test_the_matchers_own_rule_says_what_is_visible() -> None:
    query, gallery = make(40, 10, visibility="soft", named="q"), make(90, 11, visibility="soft")
    matcher = VisibilityWeightedMatcher(visibility="binary", threshold=0.6, weights={"part_2": 0.0})
    found = find_failures(query, gallery, matcher, Protocol(bootstrap=0))
    seen = [(side.embeddings.visibility >= 0.6).double().numpy()[:, :2] for side in (query, gallery)]
    np.testing.assert_array_equal(found.visibility, seen[0].mean(1))
    assert {part.name for part in found.by_visibility} == {"0 of 2 slots", "1 of 2 slots", "2 of 2 slots"}
    two = [EmbeddedSet(s.embeddings.select(NAMES[:2]), s.identity, s.camera, s.paths) for s in (query, gallery)]
    distance, shared = cosine(*two, seen)
    for part in found.by_shared_slots:
        numbers, matches = by_definition(*two, distance, lambda i, j, n=part.key[0]: shared[i, j] == n)
        check(part, numbers, matches, Protocol(bootstrap=0))

    class Doubtful(SlotMatcher):
        """Somebody's own rule."""

        def visibility_of(self, rows: PartEmbeddings) -> torch.Tensor:
            return rows.visibility.square()

    own = find_failures(query, gallery, Doubtful(), Protocol(bootstrap=0))
    np.testing.assert_allclose(own.visibility, query.embeddings.visibility.square().mean(1).numpy(), atol=1e-6)


@pytest.mark.parametrize("slots", [("global",), NAMES])
def test_where_all_is_visible_there_is_one_bin_and_it_says_so(slots) -> None:
    query, gallery = make(30, 12, slots=slots, named="q"), make(80, 13, slots=slots)
    found = find_failures(query, gallery, PlainMatcher(), Protocol(bootstrap=20))
    count = len(slots)
    assert [part.name for part in found.by_visibility] == [f"{count} of {count} slot{'s' * (count > 1)}"]
    assert [part.name for part in found.by_shared_slots] == [f"{count} of {count}"]
    assert dict(found.by_visibility[0].metrics) == found.report.metrics == dict(found.by_shared_slots[0].metrics)
    assert dict(found.by_visibility[0].intervals) == found.report.intervals
    assert "so visibility says nothing here" in " ".join(found.notes)
    assert "their number says nothing here" in " ".join(found.notes)
    even = replace(query, embeddings=query.embeddings.with_visibility(torch.full((30, count), 0.7)))
    soft = find_failures(even, gallery, VisibilityWeightedMatcher(), Protocol(bootstrap=0))
    assert [part.key for part in soft.by_visibility] == [(0.7, 0.7)]
    assert "as visible as every other" in " ".join(soft.notes)


def unshared_by_definition(query, gallery, shared, exclude):
    pairs = every = matches = all_matches = 0
    such = only = nothing = 0
    for i in range(len(query)):
        meets = own = own_shared = 0
        for j in range(len(gallery)):
            same = query.identity[i] == gallery.identity[j]
            if exclude and same and query.camera[i] == gallery.camera[j]:
                continue
            every += 1
            pairs += shared[i, j] == 0
            meets += shared[i, j] > 0
            own += same
            own_shared += same and shared[i, j] > 0
        matches += own - own_shared
        all_matches += own
        such += own > own_shared
        only += own > 0 and own_shared == 0
        nothing += meets == 0
    return (pairs, every, matches, all_matches, such, only, nothing)


def counts(found: Failures) -> tuple[int, ...]:
    return tuple(found.unshared.to_dict().values())


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("hidden", [0.5, 0.8, 0.95])
def test_pairs_that_share_nothing_are_counted(exclude, hidden) -> None:
    query, gallery = make(40, 14, hidden=hidden, named="q"), make(60, 15, hidden=hidden)
    protocol = Protocol(bootstrap=0, exclude_same_camera=exclude)
    found = find_failures(query, gallery, VisibilityWeightedMatcher(), protocol, tile_rows=7)
    _, shared = cosine(query, gallery)
    wanted = unshared_by_definition(query, gallery, shared, exclude)
    assert counts(found) == wanted
    assert found.unshared.pairs == found.report.card.pairs_without_shared_slot > 0
    assert found.unshared.facts["pairs that share no slot"] == f"{wanted[0]:,} of {wanted[1]:,}"
    if hidden == 0.95:
        assert wanted[5] > 0
        assert wanted[6] > 0


def test_a_query_whose_only_shared_images_were_dropped_shares_nothing() -> None:
    slots = PartEmbeddings(("a", "b"), (torch.eye(2)[[0, 0, 0]],) * 2, torch.tensor([[1.0, 0], [0, 1.0], [0, 1.0]]))
    gallery = EmbeddedSet(slots, [5, 5, 6], [0, 1, 1])
    query = EmbeddedSet(slots[:1], [5], [0])
    kept = find_failures(query, gallery, VisibilityWeightedMatcher(), Protocol(exclude_same_camera=False))
    assert counts(kept) == (2, 3, 1, 2, 1, 0, 0)
    dropped = find_failures(query, gallery, VisibilityWeightedMatcher(), Protocol())
    assert counts(dropped) == (2, 2, 1, 1, 1, 1, 1)
    assert [part.name for part in dropped.by_shared_slots] == ["0 of 2"]
    assert dropped.by_shared_slots[0].metrics["mAP"] == 1.0, "the earlier of two images that share nothing"


def test_the_worst_come_first_and_ties_go_by_name() -> None:
    query, gallery = make(60, 16, named="q"), make(30, 17)
    query.identity[:4] = 77
    found = find_failures(query, gallery, VisibilityWeightedMatcher(), Protocol(bootstrap=0))
    numbers, _ = by_definition(query, gallery, cosine(query, gallery)[0], lambda i, j: True)
    keyed = sorted((round(ap, 12), round(inp, 12), query.paths[i], i) for i, (ap, _, inp) in numbers.items())
    assert found.worst(1000) == [i for *_, i in keyed]
    assert found.worst(7) == found.worst()[:7]
    assert len({key[:2] for key in keyed}) < len(keyed), "there are ties"
    assert not set(range(4)) & set(found.worst(1000))
    unnamed = find_failures(replace(query, paths=()), gallery, VisibilityWeightedMatcher(), Protocol(bootstrap=0))
    assert unnamed.worst(1000) == [i for *_, i in sorted((a, b, i) for a, b, _, i in keyed)]
    with pytest.raises(EvaluationError, match="ask for at least 1"):
        found.worst(0)


def test_of_equal_average_precision_the_one_with_the_hardest_match_is_worse() -> None:
    """Matches at ranks 2, 4, 6 and at 1, 8, 12 both give a half."""
    query, gallery = make(4, 24, named="q"), make(30, 25)
    found = find_failures(query, gallery, VisibilityWeightedMatcher(), Protocol(bootstrap=0))
    report = replace(
        found.report,
        average_precision=np.array([0.5, 0.5, 0.5, 0.4]),
        first_match_rank=np.array([2, 1, 2, 9]),
        inverse_negative_penalty=np.array([3 / 6, 3 / 12, 3 / 6, 0.9]),
    )
    assert replace(found, report=report, names=("d", "c", "b", "a")).worst() == [3, 1, 2, 0]
    assert replace(found, report=report, names=()).worst() == [3, 1, 0, 2]


def test_cameras_that_nobody_knows_make_no_slices() -> None:
    query, gallery = make(30, 18, named="q"), make(60, 19)
    query.camera[:], gallery.camera[:] = np.arange(30), np.arange(30, 90)
    found = find_failures(query, gallery, VisibilityWeightedMatcher(), Protocol(bootstrap=0), cameras_known=False)
    assert found.by_camera_pair == found.by_query_camera == ()
    assert list(found.slices) == ["visibility of the query", "slots that query and match share"]
    assert "no slices by camera" in " ".join(found.notes)


def test_it_refuses_what_evaluate_refuses() -> None:
    query, gallery = make(10, 20, named="q"), make(20, 21)
    matcher = VisibilityWeightedMatcher()
    none = pick(query, np.arange(0))
    with pytest.raises(EvaluationError, match="the query set is empty"):
        find_failures(none, gallery, matcher)
    with pytest.raises(EvaluationError, match="cannot be compared"):
        find_failures(query.select(["global"]), gallery, matcher)
    with pytest.raises(EvaluationError, match="stands twice"):
        find_failures(query, replace(gallery, paths=gallery.paths[:1] * 20), matcher)
    with pytest.raises(EvaluationError, match="numbered alike"):
        find_failures(replace(query, identity=query.identity + 50), gallery, matcher)
    with pytest.raises(EvaluationError, match="shots='multi'"):
        find_failures(query, gallery, matcher, Protocol(shots="single"))


def test_tables_and_files_say_the_same(tmp_path: Path) -> None:
    query, gallery = make(60, 22, named="q"), make(60, 23)
    found = find_failures(query, gallery, VisibilityWeightedMatcher(), Protocol(bootstrap=30, name="a|b"))
    markdown = found.to_markdown(tmp_path / "deep" / "failures.md")
    assert (tmp_path / "deep" / "failures.md").read_text(encoding="utf-8") == markdown
    console = Console(width=200, file=io.StringIO(), markup=True)
    for table in found.tables():
        console.print(table)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for title, slices in found.slices.items():
        assert f"| {title} |" in markdown
        assert title in shown
        for part in slices:
            count = f"{part.queries}{' (few)' if part.few else ''}"
            line = f"| {part.name} | {count} | {part.matches} | {part.cell('Rank-1')} |"
            assert line in markdown
            assert part.cell("mAP") in shown
    assert any(part.few for part in found.by_camera_pair + found.by_visibility)
    assert found.report.to_markdown().strip() in markdown
    lines = list(csv.DictReader(io.StringIO(found.to_csv(tmp_path / "failures.csv"))))
    assert (tmp_path / "failures.csv").read_text(encoding="utf-8") == found.to_csv()
    every = [("all", "all", name, value) for name, value in found.report.metrics.items()]
    every += [(t, p.name, name, v) for t, parts in found.slices.items() for p in parts for name, v in p.metrics.items()]
    assert [(r["sliced by"], r["slice"], r["metric"], float(r["value"])) for r in lines] == every
    assert float(lines[0]["low"]) == found.report.intervals["Rank-1"].low
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [entry["query"] for entry in content["worst"]] == found.worst()
    first = content["worst"][0]
    assert first["name"] == query.paths[first["query"]]
    assert first["average_precision"] == found.report.average_precision[first["query"]]
    assert [part["queries"] for part in content["by_camera_pair"]] == [part.queries for part in found.by_camera_pair]
    assert set(content["by_visibility"][-1]["intervals"]) in (set(), set(found.report.metrics))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 25),
    st.integers(0, 2**31),
    st.sampled_from(["binary", "soft"]),
    st.booleans(),
    st.sampled_from([1, 3, 1024]),
)
def test_slices_add_up(queries, images, seed, visibility, exclude, tile_rows) -> None:
    settings_ = {"visibility": visibility, "identities": 4, "cameras": 2, "hidden": 0.6}
    query, gallery = make(queries, seed, named="q", **settings_), make(images, seed + 1, **settings_)
    protocol = Protocol(bootstrap=0, exclude_same_camera=exclude)
    distance, shared = cosine(query, gallery)
    if not by_definition(query, gallery, distance, lambda i, j: True, exclude=exclude)[1]:
        with pytest.raises(EvaluationError, match="none of the"):
            find_failures(query, gallery, VisibilityWeightedMatcher(), protocol)
        return
    found = find_failures(query, gallery, VisibilityWeightedMatcher(), protocol, tile_rows=tile_rows)
    assert counts(found) == unshared_by_definition(query, gallery, shared, exclude)
    answerable = int(found.report.answerable.sum())
    for group in found.slices.values():
        assert sum(part.matches for part in group) == len(found.matches.rows)
        assert all(part.queries > 0 and 0 <= value <= 1 for part in group for value in part.metrics.values())
    for group in (found.by_visibility, found.by_query_camera):
        assert sum(part.queries for part in group) == answerable
        for name, value in found.report.metrics.items():
            mean = sum(part.queries * part.metrics[name] for part in group) / answerable
            assert mean == pytest.approx(value, abs=1e-12)
    assert sorted(found.worst(1000)) == np.flatnonzero(found.report.answerable).tolist()
    json.dumps(found.to_dict(), allow_nan=False)
