"""A sweep is evaluate() cell by cell; areas, intervals and differences are those of plain loops over the queries."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from occluded_reid import Protocol, ReIDData, ReIDModel, embed_samples, evaluate, load_dataset
from occluded_reid.data.occlusion import Occluders
from occluded_reid.data.occlusion.kinds import OcclusionKind, open_kinds
from occluded_reid.data.synthetic import SyntheticOptions, generate
from occluded_reid.errors import EvaluationError, ImageError, MaskError
from occluded_reid.evaluation.embed import Occlusion, embed_with_truth
from occluded_reid.evaluation.studies.sweep.measure import SEVERITIES, is_sweep_of, sweep, sweep_settings
from occluded_reid.evaluation.studies.sweep.result import Sweep
from occluded_reid.evaluation.studies.sweep.settings import SweepSettings
from occluded_reid.evaluation.studies.sweep.sweeps import Sweeps, read_sweeps

PROTOCOL = Protocol(dataset="drawn", bootstrap=40, seed=4)
SHARES = (0.6, 0.2)  # unevenly spaced with 0, and in no order


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReIDData:
    options = SyntheticOptions(
        train_identities=1, test_identities=4, cameras=2, images_per_camera=1, distractors=2, width=32, height=96
    )
    return load_dataset("synthetic", generate(tmp_path_factory.mktemp("people") / "set", options))


@pytest.fixture(scope="module")
def kinds(data: ReIDData) -> tuple[OcclusionKind, ...]:
    few = Occluders.generated(0, count=6)
    return tuple(
        kind if kind.name == "pedestrian" else replace(kind, occluders=few)
        for kind in open_kinds(["top", "pedestrian"], people=data.gallery)
    )


def sweeping(model: ReIDModel, data: ReIDData, kinds: tuple[OcclusionKind, ...], **options) -> Sweep:
    return sweep(model, data, **{"kinds": kinds, "severities": SHARES, "seeds": (0, 1), "protocol": PROTOCOL} | options)


@pytest.fixture
def result(tiny: Callable[..., ReIDModel], data: ReIDData, kinds) -> Sweep:
    return sweeping(tiny(None), data, kinds)


def made(seed: int, **changes) -> Sweep:
    """A sweep of numbers that nobody measured: 2 kinds, 4 uneven severities, 9 queries, 2 metrics."""
    random = np.random.default_rng(seed)
    values = random.random((2, 4, 9, 2))
    values[:, 0] = values[0, 0]
    settings = SweepSettings(
        "drawn", "test", 10, 20, "abc", (("bottom", "up"), ("object", "any")), (0.0, 0.1, 0.4, 0.5), (0,),
        {"seed": 7}, "1.0", bootstrap=30,
    )  # fmt: skip
    cells = np.zeros((2, 4))
    return Sweep(
        f"model{seed}", f"model{seed}@0", {"type": "plain"}, settings, ("Rank-1", "mAP"), values, cells,
        cells.astype(np.int64), {"data": "drawn", "matcher": "plain()"},
    )  # fmt: skip


def test_every_cell_is_evaluate(tiny: Callable[..., ReIDModel], data: ReIDData, kinds, result: Sweep) -> None:
    model = tiny(None)
    gallery = embed_samples(model, data, data.gallery)
    assert result.settings.severities == (0.0, 0.2, 0.6)
    assert result.metrics == ("Rank-1", "Rank-5", "Rank-10", "mAP", "mINP")
    clean = evaluate(embed_samples(model, data, data.query), gallery, model.matcher, PROTOCOL)
    for k, kind in enumerate(kinds):
        assert np.array_equal(result.values[k, 0], clean.query_values)
        for s, severity in enumerate((0.2, 0.6), start=1):
            reports, shares = [], []
            for seed in (0, 1):
                query = embed_with_truth(
                    model,
                    data,
                    data.query,
                    occlusion=Occlusion(severity, kind.occluders, seed, kind.place),
                    truth=False,
                )
                reports.append(evaluate(query.embedded, gallery, model.matcher, PROTOCOL).query_values)
                shares += query.shares.tolist()
            assert np.array_equal(result.values[k, s], (reports[0] + reports[1]) / 2)
            assert result.covered[k, s] == pytest.approx(sum(shares) / len(shares))
            assert result.covered[k, s] == pytest.approx(severity, abs=0.03)
            assert result.missed[k, s] == sum(abs(share - severity) > 0.03 for share in shares)
    assert not np.array_equal(result.values[0], result.values[1]), "kinds that always agree would hide a mix-up"
    assert result.value("mAP", "top", 0.0) == pytest.approx(clean.mAP)
    assert result.model == model.fingerprint


def test_numbers_depend_neither_on_batches_nor_on_the_order_of_what_is_asked(
    tiny: Callable[..., ReIDModel], data: ReIDData, kinds, result: Sweep
) -> None:
    other = sweeping(
        tiny(None), data, tuple(reversed(kinds)), severities=(0, 0.2, 0.6, 0.2), seeds=(1, 0, 1), batch_size=3
    )
    assert np.array_equal(other.values[::-1], result.values)
    assert np.array_equal(other.covered[::-1], result.covered)
    turned = sweeping(tiny(None), replace(data, query=data.query[::-1]), kinds)
    assert np.array_equal(turned.values[:, :, ::-1], result.values)
    assert np.allclose(turned.covered, result.covered)
    assert turned.settings != result.settings, "queries in another order are not paired one by one"


def test_misses_are_counted(tiny: Callable[..., ReIDModel], data: ReIDData, kinds, tmp_path: Path) -> None:
    """A speck for a body: no occluder covers 20 % of two pixels."""
    samples = []
    for sample in data.query:
        with Image.open(sample.mask) as mask:
            speck = np.zeros((mask.height, mask.width), dtype=np.uint8)
        speck[10, 10:12] = 1
        path = tmp_path / f"{Path(sample.name).stem}.png"
        Image.fromarray(speck).save(path)
        samples.append(replace(sample, mask=path))
    found = sweeping(tiny(None), replace(data, query=tuple(samples)), kinds[:1], severities=(0.2,))
    assert found.missed.tolist() == [[0, 2 * len(samples)]]
    assert found.covered[0, 1] in (0.0, 0.5)


def test_areas_are_trapezoids_of_each_query() -> None:
    found = made(1)
    severities = found.settings.severities
    for m, metric in enumerate(found.metrics):
        of_kinds = []
        for k, kind in enumerate(("bottom", "object")):
            total = 0.0
            for query in range(9):
                area = 0.0
                for s in range(3):
                    left, right = found.values[k, s, query, m], found.values[k, s + 1, query, m]
                    area += (severities[s + 1] - severities[s]) * (left + right) / 2
                total += area / 0.5
            of_kinds.append(total / 9)
            assert found.value(metric, kind) == pytest.approx(of_kinds[-1], abs=1e-12)
            for s, severity in enumerate(severities):
                expected = sum(found.values[k, s, query, m] for query in range(9)) / 9
                assert found.value(metric, kind, severity) == pytest.approx(expected, abs=1e-12)
        assert found.value(metric) == pytest.approx(sum(of_kinds) / 2, abs=1e-12)
    flat = replace(found, values=np.full_like(found.values, 0.3))
    assert flat.value("mAP") == pytest.approx(0.3)
    assert str(flat.interval("mAP")) == "[30.0%, 30.0%]"


def areas_by_hand(found: Sweep, kind: int, metric: int) -> list[float]:
    severities = found.settings.severities
    areas = []
    for query in range(found.values.shape[2]):
        curve = found.values[kind, :, query, metric]
        areas.append(sum((severities[s + 1] - severities[s]) * (curve[s] + curve[s + 1]) for s in range(3)) / 2 / 0.5)
    return areas


def percentile(numbers: list[float], share: float) -> float:
    """Linear interpolation between the sorted numbers."""
    ordered = sorted(numbers)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def test_intervals_and_paired_differences_resample_queries() -> None:
    one, two = made(1), made(2)
    draws = np.random.default_rng(7).integers(0, 9, (30, 9))
    for m, metric in enumerate(one.metrics):
        for k, kind in enumerate(("bottom", "object")):
            first, second = areas_by_hand(one, k, m), areas_by_hand(two, k, m)
            means = [sum(first[i] for i in row) / 9 for row in draws]
            band = one.interval(metric, kind)
            assert band is not None
            assert (band.low, band.high) == pytest.approx((percentile(means, 0.025), percentile(means, 0.975)))
            means = [sum(second[i] - first[i] for i in row) / 9 for row in draws]
            difference = two.minus(one, metric, kind)
            assert difference.value == pytest.approx(sum(second) / 9 - sum(first) / 9)
            assert difference.interval.low == pytest.approx(percentile(means, 0.025))
            assert difference.interval.high == pytest.approx(percentile(means, 0.975))
            assert Sweeps((one, two)).differences(metric)["model2"][kind] == difference
    at = two.minus(one, "mAP", "object", 0.4)
    assert at.value == pytest.approx((two.values[1, 2, :, 1] - one.values[1, 2, :, 1]).mean())
    same = one.minus(one, "mAP")
    assert same.value == same.interval.low == same.interval.high == 0
    fewer = replace(one, settings=replace(one.settings, bootstrap=5))
    assert two.minus(fewer, "mAP") == two.minus(one, "mAP"), "the draws are those of the first"


def test_without_resamples_there_are_no_intervals() -> None:
    plain = replace(made(1), settings=replace(made(1).settings, bootstrap=0))
    assert plain.interval("mAP") is None
    assert np.isnan(plain.points("mAP")[0][2:]).all()
    assert "[" not in Sweeps((plain,)).to_markdown()
    assert Sweeps((plain,)).to_dict()["sweeps"][0]["numbers"]["mAP"]["mean"][-1]["interval"] is None
    difference = plain.minus(made(2), "mAP")
    assert difference.interval.low < difference.value < difference.interval.high


def test_what_is_saved_is_read_again(tmp_path: Path, result: Sweep) -> None:
    other = replace(result, name="other", model="other@1", values=result.values[..., ::-1].copy())
    both = Sweeps((result, other))
    paths = both.save(tmp_path / "out")
    assert sorted(path.name for path in paths) == ["sweep.csv", "sweep.json", "sweep.md", "sweep.png", "sweep.svg"]
    before = {path: path.read_bytes() for path in paths}
    back = Sweeps(read_sweeps(tmp_path / "out/sweep.json"))
    assert [s.name for s in back] == ["sorn_lite", "other"]
    for one, again in zip(both, back, strict=True):
        assert np.array_equal(one.values, again.values)
        assert (one.settings, one.settings.bootstrap, one.matcher) == (again.settings, 40, again.matcher)
        assert one.to_dict() == again.to_dict()
    back.save(tmp_path / "out")
    assert {path: path.read_bytes() for path in paths} == before, "the same numbers give the same files"


def test_the_files_say_the_numbers(tmp_path: Path, result: Sweep) -> None:
    other = replace(result, name="other|one", model="other@1", values=result.values * 0.5)
    both = Sweeps((result, other))
    both.save(tmp_path)
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 2 * 3 * 4 * 5  # models, kinds and mean, severities and area, metrics
    for row in rows:
        severity = None if row["severity"] == "area" else float(row["severity"])
        of = {"sorn_lite": result, "other|one": other}[row["name"]]
        band = of.interval(row["metric"], row["kind"], severity)
        assert float(row["value"]) == pytest.approx(of.value(row["metric"], row["kind"], severity), abs=1e-6)
        assert band is not None
        assert (float(row["low"]), float(row["high"])) == pytest.approx((band.low, band.high), abs=1e-6)
        assert (row["covered"] == "") == (row["kind"] == "mean" or severity is None)
    page = (tmp_path / "sweep.md").read_text(encoding="utf-8")
    assert f"| sorn_lite | {result.value('mAP', 'top'):.1%} {result.interval('mAP', 'top')} |" in page
    assert r"other\|one − sorn_lite" in page
    assert str(both.differences("Rank-1")["other|one"]["mean"]) in page
    for fact in ("kind 'top': from the upper edge down; generated", "whose pictures stay in the gallery", "seeds 0, 1"):
        assert fact in page
    assert result.settings.data_sha256 in page
    assert f"0 of {len(data_queries(result)) * 2 * 2 * 2} images are more than 3 points off" in page
    drawing = ET.fromstring((tmp_path / "sweep.svg").read_text(encoding="utf-8"))
    titles = [text for text in drawing.itertext() if text.startswith(("Rank-1: ", "mAP: "))]
    assert len(titles) == 2 * 3  # two kinds and their mean
    with Image.open(tmp_path / "sweep.png") as picture:
        assert picture.size == (3 * 1120, 2 * 640 + 50)  # one legend for all
    content = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    assert content == json.loads(json.dumps(both.to_dict(), allow_nan=False))
    assert content["differences"][0]["minus"] == "sorn_lite"
    assert "clean" not in both.to_dict(per_query=False)["sweeps"][0]
    card = both.card()
    assert f"other|one − sorn_lite, mAP, top: {both.differences('mAP')['other|one']['top']}" in card
    assert f"sorn_lite: {result.model}; " in card
    assert both.table().row_count == 2 * 2
    file = io.StringIO()
    Console(file=file, width=80).print(Sweeps((result, replace(other, name="[two]"))).table())
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if "[two]" in line)
    assert row.split("│")[2].strip() == f"{other.value('Rank-1', 'top'):.1%}"


def data_queries(result: Sweep) -> range:
    return range(result.settings.queries)


def test_charts_share_their_axis(result: Sweep) -> None:
    charts = Sweeps((result,)).charts("mAP")
    assert [chart.title for chart in charts] == ["mAP: top", "mAP: pedestrian", "mAP: mean over kinds"]
    assert len({chart.y_range for chart in charts}) == 1
    assert list(charts[0].series[0].x) == [0, 20, 60]
    assert list(charts[2].series[0].y) == [result.value("mAP", "mean", s) for s in (0.0, 0.2, 0.6)]
    low, high = charts[0].y_range or (1, 0)
    assert low <= min(charts[0].series[0].low or [0])
    assert high >= max(charts[0].series[0].high or [1])
    alone = replace(made(1), settings=replace(made(1).settings, kinds=(("bottom", "up"),)), values=made(1).values[:1],
                    covered=np.zeros((1, 4)), missed=np.zeros((1, 4), dtype=np.int64))  # fmt: skip
    assert len(Sweeps((alone,)).charts("mAP")) == 1, "the mean of one kind is that kind"


def test_it_is_known_whether_a_model_was_measured(
    tiny: Callable[..., ReIDModel], data: ReIDData, kinds, result: Sweep, tmp_path: Path
) -> None:
    model = tiny(None)
    Sweeps((result,)).save(tmp_path)
    (found,) = read_sweeps(tmp_path / "sweep.json")

    def settings(**changes) -> SweepSettings:
        options = {"kinds": kinds, "severities": SHARES, "seeds": (0, 1), "protocol": PROTOCOL} | changes
        return sweep_settings(options.pop("data", data), **options)

    assert is_sweep_of(found, model, settings())
    assert is_sweep_of(found, model, settings(protocol=replace(PROTOCOL, bootstrap=9, name="other")))
    assert not is_sweep_of(found, tiny(None, **{"model.matcher.options": {"weights": {"part_1": 2.0}}}), settings())
    torch.manual_seed(1)
    with torch.no_grad():
        next(model.heads.parameters()).add_(1.0)
    assert not is_sweep_of(found, model, settings())
    changed = tmp_path / "mask.png"
    with Image.open(data.query[0].mask) as mask:
        mask.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(changed)
    flipped = replace(data, query=(replace(data.query[0], mask=changed), *data.query[1:]))
    for change in (
        {"severities": (0.2, 0.5)},
        {"seeds": (0,)},
        {"kinds": kinds[:1]},
        {"kinds": open_kinds(["top", "pedestrian"], people=data.gallery, seed=1)},
        {"protocol": replace(PROTOCOL, ap="trapezoid")},
        {"protocol": replace(PROTOCOL, exclude_same_camera=False)},
        {"data": flipped},
        {"data": replace(data, gallery=data.gallery[1:])},
    ):
        other = settings(**change)
        assert not is_sweep_of(found, tiny(None), other), change
        assert found.settings.differing(other)


@pytest.mark.parametrize("seeds", [(0,), (3, 5)])
def test_progress_rises_to_all_images(tiny: Callable[..., ReIDModel], data: ReIDData, kinds, seeds) -> None:
    told: list[tuple[int, int]] = []
    sweeping(
        tiny(None), data, kinds[:1], seeds=seeds, batch_size=3, progress=lambda done, total: told.append((done, total))
    )
    total = len(data.gallery) + len(data.query) * (1 + 2 * len(seeds))
    assert {t for _, t in told} == {total}
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1] == (total, total)


def test_all_kinds_and_shares_by_default(tiny: Callable[..., ReIDModel], data: ReIDData) -> None:
    few = replace(data, query=data.query[:2])
    found = sweep(tiny(None), few, protocol=Protocol(bootstrap=0), name="mine")
    assert found.settings.names == ("bottom", "side", "top", "object", "pedestrian")
    assert found.settings.severities == SEVERITIES == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert (found.name, found.settings.seeds) == ("mine", (0,))
    assert found.values.shape == (5, 8, 2, 5)
    assert found.headline == ("Rank-1", "mAP")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"severities": (35,)}, "occlude is 35.0; give 0 … 1: 0.35 means 35 %"),
        ({"severities": (-0.1,)}, "occlude is -0.1"),
        ({"severities": (float("nan"), 0.5)}, "occlude is nan"),
        ({"severities": ()}, "at least one share of the body to occlude; give one above 0"),
        ({"severities": (0,)}, "at least one share of the body"),
        ({"seeds": ()}, r"seeds to occlude with are \[\]; give at least one"),
        ({"seeds": (-1,)}, "none negative"),
        ({"kinds": ()}, "the kinds of occlusion are .*give at least one, and each once"),
    ],
)
def test_wrong_arguments_say_what_was_wanted(
    tiny: Callable[..., ReIDModel], data: ReIDData, kinds, options, message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        sweeping(tiny(None), data, **({"kinds": kinds} | options))


def test_data_that_does_not_do(tiny: Callable[..., ReIDModel], data: ReIDData, kinds, tmp_path: Path) -> None:
    bare = replace(data, query=(data.query[0], *(replace(s, mask=None) for s in data.query[1:])))
    told: list[int] = []
    with pytest.raises(
        MaskError, match=rf"7 of 8 queries have no part mask, the first '{data.query[1].name}'.*--masks"
    ):
        sweeping(tiny(None), bare, kinds, progress=lambda done, _: told.append(done))
    assert told == [], "nothing was embedded in vain"
    lost = replace(data, gallery=(replace(data.gallery[0], path=tmp_path / "gone.png"), *data.gallery[1:]))
    with pytest.raises(ImageError, match=r"gone\.png' cannot be read: No such file"):
        sweeping(tiny(None), lost, kinds)
    with pytest.raises(EvaluationError, match="has no such samples"):
        sweeping(tiny(None), replace(data, gallery=()), kinds)
    with pytest.raises(EvaluationError, match=r"kinds of occlusion are \['top', 'top'\]"):
        sweeping(tiny(None), data, (kinds[0], kinds[0]))


def test_sweeps_that_cannot_be_compared(tmp_path: Path) -> None:
    one, two = made(1), made(2)
    for name, value, here in (
        ("severities", (0.0, 0.1, 0.4, 0.6), r"0\.5\) and \(0\.0, 0\.1, 0\.4, 0\.6\)"),
        ("seeds", (1,), r"\(0,\) and \(1,\)"),
        ("data_sha256", "xyz", "abc and xyz"),
        ("kinds", (("bottom", "up"), ("top", "down")), r": object \(any\) and top \(down\)"),
        ("kinds", (("object", "any"), ("bottom", "up")), r"\('bottom', 'up'\), .* and \(\('object', 'any'\)"),
        ("rules", {"seed": 8}, "7.* and .*8"),
    ):
        other = replace(two, settings=replace(two.settings, **{name: value}))
        with pytest.raises(EvaluationError, match=rf"'model1' and 'model2' cannot be compared.*{name}.*{here}"):
            Sweeps((one, other))
        with pytest.raises(EvaluationError, match="cannot be compared"):
            one.minus(other, "mAP")
    with pytest.raises(EvaluationError, match="queries with an answer: 9 and 8"):
        Sweeps((one, replace(two, values=two.values[:, :, :8])))
    with pytest.raises(EvaluationError, match="hold other metrics: Rank-1, mAP and Rank-1, mINP"):
        Sweeps((one, replace(two, metrics=("Rank-1", "mINP"))))
    with pytest.raises(EvaluationError, match="two sweeps are named 'model1'"):
        Sweeps((one, one))
    with pytest.raises(EvaluationError, match="there is no sweep to show"):
        Sweeps(())
    with pytest.raises(
        EvaluationError, match=r"no kind 'left' at severity 0\.1; it holds bottom, object, mean at 0, 0.1"
    ):
        one.value("mAP", "left", 0.1)
    with pytest.raises(EvaluationError, match=r"no kind 'bottom' at severity 0\.2"):
        one.value("mAP", "bottom", 0.2)
    with pytest.raises(EvaluationError, match="holds no 'map'; it holds Rank-1, mAP"):
        one.value("map")
    with pytest.raises(EvaluationError, match=r"values of a sweep are \(2, 3, 9, 2\); wanted \(kinds 2, severities 4"):
        replace(one, values=one.values[:, :3])
    with pytest.raises(EvaluationError, match=r"covered shares are \(2, 3\)"):
        replace(one, covered=one.covered[:, :3])


def test_files_that_hold_no_sweeps(tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    with pytest.raises(EvaluationError, match="could not be read as JSON"):
        read_sweeps(path)
    Sweeps((made(1),)).save(tmp_path)
    good = json.loads(path.read_text(encoding="utf-8"))

    def written(**changes) -> Path:
        path.write_text(json.dumps({**good, **changes}))
        return path

    with pytest.raises(EvaluationError, match="holds no sweeps; write some"):
        read_sweeps(written(format="report"))
    with pytest.raises(EvaluationError, match="version 2; this release reads version 1"):
        read_sweeps(written(version=2))
    for broken in (
        {"clean": [[0.5]]},
        {"occluded": None},
        {"settings": {"dataset": "x"}},
        {"settings": None},
        {"metrics": ["mAP"]},
        {"covered": [[1.0]]},
    ):
        with pytest.raises(EvaluationError, match=r"sweep\.json"):
            read_sweeps(written(sweeps=[{**good["sweeps"][0], **broken}]))
    with pytest.raises(EvaluationError, match=r"sweep\.json' is incomplete"):
        read_sweeps(written(sweeps=None))
