"""The public distance against SGAM Eq. 4 in plain loops, as tiles and as pairs."""

import math

import numpy as np
import pytest
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, UnknownOptionError
from occluded_reid.matchers import NO_SHARED_SLOT, PublicDistanceMatcher, VisibilityWeightedMatcher
from occluded_reid.registry import MATCHERS

NAMES = ("head", "upper_body", "global", "lower_body", "shoes")
WIDTHS = (6, 4, 8, 4, 3)
WHOLE = NAMES.index("global")


def make(rows: int, seed: int) -> PartEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    visibility = torch.rand(rows, len(NAMES), generator=generator)
    visibility[visibility < 0.4] = 0  # of the global slot too: this matcher must not care
    slots = tuple(torch.randn(rows, width, generator=generator) for width in WIDTHS)
    return PartEmbeddings(NAMES, slots, visibility)


def euclidean(x: list[float], y: list[float], normalize: bool) -> float:
    if normalize:
        x, y = ([value / math.sqrt(sum(v * v for v in row)) for value in row] for row in (x, y))
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)))


def by_definition(query: PartEmbeddings, gallery: PartEmbeddings, normalize: bool) -> np.ndarray:
    result = np.zeros((len(query), len(gallery)))
    for m in range(len(query)):
        for n in range(len(gallery)):
            above = below = 0.0
            for i in range(len(NAMES)):
                distance = euclidean(
                    query.embeddings[i][m].double().tolist(), gallery.embeddings[i][n].double().tolist(), normalize
                )
                if i == WHOLE:
                    above, below = above + distance, below + 1
                else:
                    public = float(query.visibility[m, i]) * float(gallery.visibility[n, i])
                    above, below = above + public * distance, below + public
            result[m, n] = above / below  # Eq. 4
    return result


@pytest.mark.parametrize("normalize", [True, False])
def test_tiles_and_pairs_are_equation_4(normalize: bool) -> None:
    matcher = PublicDistanceMatcher(normalize=normalize)
    query, gallery = make(7, 0), make(12, 1)
    expected = by_definition(query, gallery, normalize)
    tile = matcher.distance(query, gallery).numpy()
    np.testing.assert_allclose(tile, expected, rtol=0, atol=2e-6)
    rows, columns = np.divmod(np.arange(7 * 12), 12)
    pairs = matcher.pairs(query, gallery, rows, columns).reshape(7, 12)
    np.testing.assert_allclose(pairs, expected, rtol=0, atol=0.5000001e-6)
    assert (np.argsort(pairs, axis=1) == np.argsort(expected, axis=1)).all(), "the same ranking"
    details = matcher.explain(query, gallery, rows, columns)
    np.testing.assert_array_equal(details.distance.reshape(7, 12), pairs)
    assert (details.shared[:, WHOLE] == 1).all()


def test_with_pixels_the_visibility_is_a_number_of_them() -> None:
    """Eq. 4 with the S_i of Eq. 2 as printed: S = M · v, beside a 1 for the whole."""
    matcher = PublicDistanceMatcher(pixels=192)
    query, gallery = make(5, 0), make(6, 1)
    expected = np.zeros((5, 6))
    for m in range(5):
        for n in range(6):
            above = below = 0.0
            for i in range(len(NAMES)):
                x, y = (rows.embeddings[i][r].double().tolist() for rows, r in ((query, m), (gallery, n)))
                weight = 192 * float(query.visibility[m, i]) * 192 * float(gallery.visibility[n, i])
                weight = 1.0 if i == WHOLE else weight
                above, below = above + weight * euclidean(x, y, True), below + weight
            expected[m, n] = above / below
    np.testing.assert_allclose(matcher.distance(query, gallery).numpy(), expected, rtol=0, atol=2e-6)
    rows, columns = np.divmod(np.arange(30), 6)
    np.testing.assert_allclose(matcher.pairs(query, gallery, rows, columns).reshape(5, 6), expected, rtol=0, atol=6e-7)
    assert matcher.config["options"]["pixels"] == 192
    assert "pixels" not in PublicDistanceMatcher().config["options"]
    for wrong in (0, 2.5, 1 << 21):
        with pytest.raises(UnknownOptionError, match="pixels is"):
            PublicDistanceMatcher(pixels=wrong)  # type: ignore[arg-type]


def test_what_only_one_image_shows_does_not_count() -> None:
    """Legs behind a car: their slot holds the car, and with plain matching the car decides."""
    whole, person, car = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    names = ("global", "legs")
    hidden = PartEmbeddings(names, (whole, car), torch.tensor([[1.0, 0.0]]))
    gallery = PartEmbeddings(
        names,
        (torch.cat([whole, torch.tensor([[0.8, 0.6]])]), torch.cat([person, car])),
        torch.tensor([[1.0, 1.0], [1.0, 0.0]]),
    )
    public = PublicDistanceMatcher().distance(hidden, gallery)[0]
    assert public[0] < public[1], "the person, not the other one behind the same car"
    plain = MATCHERS.create("plain", metric="euclidean").distance(hidden, gallery)[0]
    assert plain[0] > plain[1]


def test_it_is_the_weighted_mean_with_a_whole_that_always_counts() -> None:
    query, gallery = make(6, 2), make(5, 3)
    weighted = VisibilityWeightedMatcher(metric="euclidean")
    public = PublicDistanceMatcher()
    assert not torch.allclose(public.distance(query, gallery), weighted.distance(query, gallery))

    def whole(rows: PartEmbeddings) -> PartEmbeddings:
        seen = rows.visibility.clone()
        seen[:, WHOLE] = 1
        return rows.with_visibility(seen)

    same = weighted.distance(whole(query), whole(gallery))
    torch.testing.assert_close(public.distance(query, gallery), same)


def test_every_pair_has_a_finite_distance() -> None:
    query = make(4, 4)
    blind = query.with_visibility(torch.zeros_like(query.visibility))
    public = PublicDistanceMatcher().distance(blind, blind)
    assert (public < 3).all()
    assert (VisibilityWeightedMatcher().distance(blind, blind) == NO_SHARED_SLOT).all()
    rows = np.arange(4)
    np.testing.assert_array_equal(PublicDistanceMatcher().pairs(blind, blind, rows, rows), np.zeros(4))


def test_visibility_of_leaves_the_rows_alone() -> None:
    rows = make(5, 5)
    before = rows.visibility.clone()
    seen = PublicDistanceMatcher().visibility_of(rows)
    assert (seen[:, WHOLE] == 1).all()
    assert torch.equal(rows.visibility, before)
    assert torch.equal(seen[:, [0, 1, 3, 4]], before[:, [0, 1, 3, 4]])


def test_config_and_its_way_back() -> None:
    matcher = MATCHERS.create("public_distance", weights={"shoes": 2}, always="whole")
    assert matcher.config == {
        "type": "public_distance",
        "options": {"metric": "euclidean", "weights": {"shoes": 2.0}, "normalize": True, "always": "whole"},
    }
    assert MATCHERS.create(matcher.config["type"], **matcher.config["options"]).config == matcher.config


def test_rows_without_the_whole_are_refused() -> None:
    rows = make(3, 6)
    regions = rows.select(["head", "shoes"])
    with pytest.raises(EmbeddingError, match=r"'global' is to be visible in every image.*Slots: head, shoes\. Name"):
        PublicDistanceMatcher().distance(regions, regions)
    with pytest.raises(EmbeddingError, match=r"'globl'.*Did you mean 'global'"):
        PublicDistanceMatcher(always="globl").pairs(rows, rows, [0], [0])
    assert PublicDistanceMatcher(always="head").distance(regions, regions).shape == (3, 3)


def test_a_whole_without_weight_is_refused() -> None:
    with pytest.raises(UnknownOptionError, match="'global' is to count in every pair, and its weight is 0"):
        PublicDistanceMatcher(weights={"global": 0})
