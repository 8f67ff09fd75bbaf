"""The masks of the synthetic set: classes, agreement with the occlusion, and the fractions in the description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from occluded_reid.data.synthetic import LISTING, SPLITS, SyntheticOptions, generate
from occluded_reid.data.synthetic.occluders import KINDS, _best_shift
from occluded_reid.data.synthetic.render import Drawing, render

OPTIONS = SyntheticOptions(train_identities=2, test_identities=6, cameras=3, distractors=2, seed=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("synthetic") / "set", OPTIONS)


@pytest.fixture(scope="module")
def facts(made: Path) -> dict[str, Any]:
    images: dict[str, Any] = json.loads((made / LISTING).read_text())["images"]
    return images


def load(path: Path, mode: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(path) as image:
        assert image.mode == mode
        assert image.size == (OPTIONS.width, OPTIONS.height)
        return np.asarray(image)


def test_every_image_is_described(made: Path, facts: dict[str, Any]) -> None:
    assert set(facts) == {f"{split}/{path.name}" for split in SPLITS for path in (made / split).iterdir()}
    for name, fact in facts.items():
        stem = Path(name).name
        assert (fact["identity"], fact["camera"]) == (int(stem[:4]), int(stem[6]))


def test_masks_hold_eight_classes_and_nothing_under_an_occluder(made: Path, facts: dict[str, Any]) -> None:
    classes: set[int] = set()
    for name in facts:
        load(made / name, "RGB")
        mask, occlusion = load(made / "masks" / name, "L"), load(made / "occlusion" / name, "L")
        assert set(np.unique(occlusion)) <= {0, 255}
        assert not mask[occlusion == 255].any()
        classes |= {int(value) for value in np.unique(mask)}
    assert classes == set(range(8))


def test_fractions_are_those_of_the_masks(made: Path, facts: dict[str, Any]) -> None:
    for name, fact in facts.items():
        visible = int((load(made / "masks" / name, "L") > 0).sum())
        assert fact["occluded_fraction"] == pytest.approx(1 - visible / fact["body_area"], abs=1e-6)
        covered = bool(load(made / "occlusion" / name, "L").any())
        assert covered == (fact["occluder"] is not None)
        if not covered:
            assert fact["occluded_fraction"] == 0
            assert visible == fact["body_area"]


def test_queries_are_clean_or_occluded_by_20_to_40_percent(facts: dict[str, Any]) -> None:
    queries = [fact for name, fact in facts.items() if name.startswith("query/")]
    occluded = [fact["occluded_fraction"] for fact in queries if fact["occluder"]]
    assert len(occluded) == round(0.4 * len(queries))
    assert all(0.2 <= fraction <= 0.4 for fraction in occluded)


def test_an_occluder_changes_no_more_than_what_it_covers() -> None:
    free = Drawing("query", 1, 1, 1, 0, None)
    before, after = render(OPTIONS, free), render(OPTIONS, Drawing("query", 1, 1, 1, 0, (0.3, 0.6)))
    hidden = after.occlusion > 0
    assert np.array_equal(before.mask[~hidden], after.mask[~hidden])
    assert before.body_area == after.body_area
    pictures = [np.asarray(made.picture, float) for made in (before, after)]
    change = np.abs(pictures[0] - pictures[1]).mean(2)
    assert change[hidden].mean() > 20
    assert change[~hidden].mean() < 3


def test_every_kind_of_occluder_appears_and_no_stripe_is_preferred() -> None:
    kinds: set[str | None] = set()
    edges: list[float] = []
    for person in range(70):
        made = render(OPTIONS, Drawing("query", 1, person, 1, 0, (0.3, 0.6)))
        kinds.add(made.occluder)
        rows = np.flatnonzero((made.occlusion > 0).mean(1) > 0.8)
        if rows.size and rows[-1] == OPTIONS.height - 1:
            edges.append(rows[0] / OPTIONS.height)
    assert kinds == set(KINDS)
    assert np.std(edges) > 0.03


def test_identities_look_alike_in_colour_but_not_in_build() -> None:
    def body_mask(person: int, index: int) -> int:
        return render(OPTIONS, Drawing("query", 1, person, 1, index, None)).body_area

    areas = np.array([[body_mask(person, index) for index in range(4)] for person in range(1, 9)], float)
    assert areas.mean(1).std() > areas.std(1).mean()


def test_best_shift_equals_a_plain_search() -> None:
    rng = np.random.default_rng(0)
    solid, body = rng.random((12, 8)) < 0.6, rng.random((12, 8)) < 0.7
    for side, (down, right) in {"below": (1, 0), "above": (-1, 0), "left": (0, -1), "right": (0, 1)}.items():
        best = []
        for step in range(8 if right else 12):
            covered = 0
            for y in range(12):
                for x in range(8):
                    source = y - down * step, x - right * step
                    inside = 0 <= source[0] < 12 and 0 <= source[1] < 8
                    covered += bool(body[y, x] and inside and solid[source])
            best.append(abs(covered / body.sum() - 0.3))
        step = int(np.argmin(best))
        assert _best_shift(solid, body, side, 0.3) == (down * step, right * step)
