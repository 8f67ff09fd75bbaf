"""benchmarks/natural.py and its lists of naturally occluded crops."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from occluded_reid import ReIDData, ReIDModel, load_dataset
from occluded_reid.errors import DataError, EvaluationError
from occluded_reid.evaluation import embed_samples
from occluded_reid.evaluation.bootstrap import PeopleResampling

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "natural.py"
LISTS = SCRIPT.with_suffix("")
PEOPLE = 7
MARKET = "OCCLUDED_REID_MARKET1501"
"""Names the folder of the real crops; without it nothing here needs them."""


@pytest.fixture(scope="module")
def natural() -> ModuleType:
    spec = importlib.util.spec_from_file_location("natural_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven people of plain colours with noise, three images under each of two cameras."""
    folder = tmp_path_factory.mktemp("market") / "bounding_box_train"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for person in range(PEOPLE):
        colour = generator.integers(60, 200, 3)
        for camera in (1, 2):
            for frame in range(3):
                pixels = colour + generator.normal(0, 60, (96, 32, 3))
                picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                picture.save(folder / f"{person + 1:04d}_c{camera}s1_{frame:06d}_01.jpg")
    return folder.parent


@pytest.fixture
def held(market: Path) -> ReIDData:
    return load_dataset("market1501", market, holdout=5, seed=0)


def crops_of(natural: ModuleType, data: ReIDData) -> list[object]:
    """One query and two gallery images of the first person, one gallery image of the second."""
    first, second = data.identities("query")[:2]
    query = next(sample.name for sample in data.query if sample.identity == first)
    gallery = [sample.name for sample in data.gallery if sample.identity == first][:2]
    other = next(sample.name for sample in data.gallery if sample.identity == second)
    return [
        natural.Crop(query, "occluded", "lower", "fifth"),
        natural.Crop(gallery[0], "truncated", "upper", "fifth"),
        natural.Crop(gallery[1], "occluded", "side", "tenth"),
        natural.Crop(other, "truncated", "lower", "tenth"),
    ]


def test_the_lists_are_whole_and_share_nobody(natural: ModuleType) -> None:
    people = {}
    said = (LISTS / "README.md").read_text(encoding="utf-8")
    for split in ("holdout", "validation"):
        crops = natural.read_crops(LISTS / f"{split}.csv")
        people[split] = {Path(crop.name).name[:4] for crop in crops}
        count = [len(crops), len(people[split])]
        count += [sum(g in crop.groups for crop in crops) for g in ("fifth", "occluded", "truncated")]
        line = next(line for line in said.splitlines() if line.startswith(f"| `{split}.csv`"))
        assert [int(cell) for cell in re.findall(r"\| (\d+) (?=\|)", line)] == count
        assert [crop.name for crop in crops] == sorted(crop.name for crop in crops)
    assert not people["holdout"] & people["validation"]


@pytest.mark.skipif(MARKET not in os.environ, reason=f"{MARKET} names no folder of the real crops")
@pytest.mark.parametrize("split", ["holdout", "validation"])
def test_every_crop_of_the_lists_is_set_aside(natural: ModuleType, split: str) -> None:
    data = load_dataset("market1501", os.environ[MARKET], holdout=100, validation=natural.VALIDATION[split], seed=0)
    crops = natural.read_crops(LISTS / f"{split}.csv")
    asked = natural.questions(data, crops)
    assert sum("all" in groups for groups in asked.groups) == len(crops)


def test_numbers_are_those_of_the_definitions(
    natural: ModuleType, held: ReIDData, tiny: Callable[..., ReIDModel]
) -> None:
    model, crops = tiny(num_classes=None).eval(), crops_of(natural, held)
    asked = natural.questions(held, crops)
    found = natural.measure(model, held, asked)
    names = [crop.name for crop in crops]
    people = {sample.identity for sample in (*held.query, *held.gallery) if sample.name in names}
    names += [s.name for s in held.query if s.identity in people and s.name not in names]
    assert list(asked.names) == names
    samples = {sample.name: sample for sample in (*held.query, *held.gallery)}
    query = embed_samples(model, held, [samples[name] for name in names])
    gallery = embed_samples(model, held, held.gallery)
    distance = model.matcher.distance(query.embeddings, gallery.embeddings).numpy()
    for row, name in enumerate(names):
        asking = samples[name]
        kept = [
            (distance[row, column], sample.identity == asking.identity)
            for column, sample in enumerate(held.gallery)
            if not (sample.identity == asking.identity and sample.camera == asking.camera)
        ]
        right = [same for _, same in sorted(kept, key=lambda pair: pair[0])]
        precisions = [sum(right[: n + 1]) / (n + 1) for n, same in enumerate(right) if same]
        np.testing.assert_allclose(found.values[row], [right[0], np.mean(precisions)], atol=1e-12)
    for group, rows in {"all": [0, 1, 2, 3], "fifth": [0, 1], "tenth": [2, 3], "occluded": [0, 2]}.items():
        mean = [value.value for value in natural.numbers(found, group, PeopleResampling(10))]
        np.testing.assert_allclose(mean, found.values[rows].mean(0))
    others = [value.value for value in natural.numbers(found, "others", PeopleResampling(10))]
    np.testing.assert_allclose(others, found.values[4:].mean(0))


def test_intervals_draw_people(natural: ModuleType) -> None:
    resampling = PeopleResampling(400, 0.9, 3)
    person = np.array([5, 5, 5, 2, 9, 9])
    values = np.random.default_rng(1).random((6, 2))
    means = []
    for weights in resampling.weights(person):
        for times in weights:
            rows = [row for row, count in enumerate(times) for _ in range(count)]
            means.append(values[rows].mean(0))
    found = natural.means(values, person, resampling)
    for column in range(2):
        low, high = np.percentile([mean[column] for mean in means], [5, 95])
        assert found[column].value == pytest.approx(values[:, column].mean())
        assert (found[column].interval.low, found[column].interval.high) == pytest.approx((low, high))
    # All rows of one person come together: with one person there is nothing to draw.
    alone = natural.means(values, np.zeros(6, dtype=int), resampling)[0]
    assert alone.interval.low == pytest.approx(alone.value) == pytest.approx(alone.interval.high)


def test_from_the_command_to_tables_and_json(
    natural: ModuleType,
    market: Path,
    held: ReIDData,
    tiny: Callable[..., ReIDModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = [f"{crop.name},{crop.kind},{crop.what},{crop.hidden}" for crop in crops_of(natural, held)]
    listed = tmp_path / "crops.csv"
    listed.write_text("\n".join(["name,kind,what,hidden", *lines]) + "\n", encoding="utf-8")
    tiny(num_classes=None).save(tmp_path / "run" / "model")
    monkeypatch.setattr(natural, "HOLDOUT", 5)
    models = ["--model", str(tmp_path / "run" / "model"), "--model", f"again={tmp_path / 'run' / 'model'}"]
    command = ["natural.py", "--data", str(market), *models, "--list", str(listed), "--base", "again"]
    monkeypatch.setattr(sys, "argv", [*command, "--output", str(tmp_path / "out.json"), "--threads", "1"])
    natural.main()
    shown = capsys.readouterr().out
    assert "all (4 of 2 people)" in shown
    assert "| run minus again | +0.0 [+0.0, +0.0] / +0.0 [+0.0, +0.0] |" in shown  # the same model twice
    assert "resamples of the people" in shown
    content = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert content["queries"] == {"all": 4, "fifth": 2, "tenth": 2, "occluded": 2, "truncated": 2, "others": 3}
    rank, low, high = content["models"]["run"]["all"]["Rank-1"]
    assert low <= rank <= high
    assert content["models"]["run"]["minus again"]["all"]["mAP"] == [0, 0, 0]

    monkeypatch.setattr(sys, "argv", [*command, "--base", "nobody"])
    with pytest.raises(EvaluationError, match="no model is named 'nobody'"):
        natural.main()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,kind\na.jpg,occluded\n", "wanted the columns 'name,kind,what,hidden'"),
        ("name,kind,what,hidden\na.jpg,hidden,lower,fifth\n", "line 2 .* kind: occluded, truncated"),
        ("name,kind,what,hidden\na.jpg,occluded,lower\n", "line 2"),
        ("name,kind,what,hidden\na.jpg,occluded,lower,fifth\na.jpg,truncated,lower,tenth\n", "line 3 .* again"),
        ("name,kind,what,hidden\n", "names no crop"),
        ("", "is empty"),
    ],
)
def test_damaged_lists_are_refused(natural: ModuleType, tmp_path: Path, text: str, message: str) -> None:
    listed = tmp_path / "crops.csv"
    listed.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        natural.read_crops(listed)


def test_crops_of_others_are_refused(natural: ModuleType, held: ReIDData) -> None:
    crops = [natural.Crop(held.train[0].name, "occluded", "lower", "fifth"), *crops_of(natural, held)]
    with pytest.raises(DataError, match=f"1 of 5 crops, such as '{held.train[0].name}', are neither in"):
        natural.questions(held, crops)


def test_reports_over_other_queries_are_not_paired(
    natural: ModuleType, held: ReIDData, tiny: Callable[..., ReIDModel]
) -> None:
    model, crops = tiny(num_classes=None).eval(), crops_of(natural, held)
    whole, part = (natural.measure(model, held, natural.questions(held, some)) for some in (crops, crops[:3]))
    with pytest.raises(EvaluationError, match="different queries"):
        natural.differences(whole, part, "all", PeopleResampling(10))
