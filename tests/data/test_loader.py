"""Training batches: right content, and the same for any number of workers, ranks and starting points."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid.config import DataConfig, InputConfig
from occluded_reid.contracts import Batch
from occluded_reid.data.dataset import Sample
from occluded_reid.data.loader import TrainLoader
from occluded_reid.data.views import Part
from occluded_reid.errors import DataError, ImageError, MaskError, RecipeError

INPUT = InputConfig(height=32, width=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
AUGMENT = ["flip", {"type": "pad_crop", "options": {"pad": 3}}, "erase", "color_jitter", "occlude"]
# Python 3.12 and later warn that forking a process with threads, which torch has, may hang.
forking = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    root = tmp_path_factory.mktemp("split")
    random = np.random.default_rng(0)
    made = []
    for number in range(22):
        path, mask = root / f"{number:02d}.png", root / f"{number:02d}_parts.png"
        parts = np.zeros((32, 16), dtype=np.uint8)
        parts[4:30, 3:13] = random.integers(1, 8, (26, 10))
        Image.fromarray(random.integers(0, 256, (32, 16, 3), dtype=np.uint8)).save(path)
        Image.fromarray(parts).save(mask)
        made.append(Sample(path.name, path, f"p{min(number, 20) % 5}" if number < 21 else "p5", number % 3, mask))
    return made


def load(
    samples: list[Sample], augment: Any = (), *, batch: int = 8, sampler: Any = "shuffle", masks: Any = 8, **more: Any
):
    classes = {identity: number for number, identity in enumerate(sorted({s.identity for s in samples}))}
    views = more.pop("views", "single")
    data = DataConfig(batch=batch, sampler=sampler, instances=2, augment=augment, views=views, masks=masks)
    return TrainLoader(samples, classes=classes, input=INPUT, data=data, **{"seed": 4, **more})


def same(first: Iterator[Batch], second: Iterator[Batch]) -> int:
    count = 0
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one.images, two.images)
        assert one.targets.path == two.targets.path
        for name in ("identity", "camera", "parsing", "occlusion_mask", "view"):
            a, b = getattr(one.targets, name), getattr(two.targets, name)
            assert (a is None and b is None) or torch.equal(a, b)
        count += 1
    return count


def test_a_batch_holds_the_normalised_files(samples: list[Sample]) -> None:
    loader = load(samples)
    assert loader.steps_per_epoch == 2
    by_name = {sample.name: sample for sample in samples}
    batches = list(loader.batches(1))
    assert len(batches) == 2
    for batch in batches:
        targets = batch.targets
        assert batch.images.shape == (8, 3, 32, 16)
        assert batch.images.dtype == torch.float32
        assert targets.occlusion_mask is None
        assert targets.parsing is not None
        assert targets.parsing.dtype == targets.identity.dtype == targets.camera.dtype == torch.int64
        for row, name in enumerate(targets.path):
            sample = by_name[name]
            with Image.open(sample.path) as file:
                pixels = np.asarray(file, dtype=np.float64) / 255
            wanted = (pixels - INPUT.mean) / INPUT.std
            assert np.allclose(batch.images[row].permute(1, 2, 0).numpy(), wanted, atol=1e-5)
            assert sample.mask is not None
            with Image.open(sample.mask) as file:
                assert np.array_equal(targets.parsing[row].numpy(), np.asarray(file))
            assert int(targets.identity[row]) == int(sample.identity[1:])
            assert int(targets.camera[row]) == sample.camera
    assert load(samples, masks=0).batches(1).__next__().targets.parsing is None


@forking
@pytest.mark.parametrize("sampler", ["shuffle", "pk"])
def test_workers_change_nothing(samples: list[Sample], sampler: str) -> None:
    before = torch.get_rng_state()
    alone = load(samples, AUGMENT, sampler=sampler)
    helped = load(samples, AUGMENT, sampler=sampler, workers=2)
    assert same(alone.batches(3), helped.batches(3)) == alone.steps_per_epoch
    assert same(alone.batches(3, skip=1), helped.batches(3, skip=1)) == alone.steps_per_epoch - 1
    assert torch.equal(before, torch.get_rng_state()), "torch's global generator was used"


def test_workers_that_are_spawned_make_the_same(samples: list[Sample]) -> None:
    """Where Python does not fork, a worker gets a pickled copy of what makes the batches."""
    options = {"p": 1.0, "kinds": ["generated", "pedestrians"]}
    views = load(samples, ["flip", {"type": "occlude", "options": options}])._views
    copied = pickle.loads(pickle.dumps(views))  # noqa: S301
    part = Part(3, (4, 0, 21, 0), (0, 0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(views[part], copied[part], strict=True))


def test_an_epoch_goes_on_in_the_middle(samples: list[Sample]) -> None:
    loader = load(samples, AUGMENT, batch=4)
    whole = list(loader.batches(2))
    for skip in range(loader.steps_per_epoch + 1):
        assert same(iter(whole[skip:]), loader.batches(2, skip)) == loader.steps_per_epoch - skip
    with pytest.raises(DataError, match="cannot skip 6 batches of an epoch that has 5"):
        next(loader.batches(2, 6))


def test_ranks_share_each_batch_in_order(samples: list[Sample]) -> None:
    whole = list(load(samples, AUGMENT).batches(1))
    shares = [list(load(samples, AUGMENT, rank=rank, world_size=4).batches(1)) for rank in range(4)]
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert [len(part) for part in parts] == [2, 2, 2, 2]
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
        assert sum((part.targets.path for part in parts), ()) == batch.targets.path
        assert torch.equal(torch.cat([part.targets.identity for part in parts]), batch.targets.identity)


def test_augmentation_belongs_to_the_sample_not_to_its_place(samples: list[Sample]) -> None:
    """Other batch sizes shuffle alike into other batches; each image must look the same in both."""

    def pictures(batch: int) -> dict[str, torch.Tensor]:
        return {
            name: image for b in load(samples, AUGMENT, batch=batch).batches(1)
            for name, image in zip(b.targets.path, b.images, strict=True)
        }  # fmt: skip

    small, large = pictures(3), pictures(11)
    assert len(small.keys() & large.keys()) >= 20
    assert all(torch.equal(small[name], large[name]) for name in small.keys() & large.keys())


def test_epochs_and_seeds_differ(samples: list[Sample]) -> None:
    def first(seed: int, epoch: int) -> dict[str, torch.Tensor]:
        batches = load(samples, AUGMENT, batch=11, seed=seed).batches(epoch)
        return {name: image for b in batches for name, image in zip(b.targets.path, b.images, strict=True)}

    base = first(0, 1)
    for other in (first(0, 2), first(1, 1)):
        assert list(base) != list(other)
        assert np.mean([torch.equal(base[n], other[n]) for n in base.keys() & other.keys()]) < 0.3


def test_an_image_shown_twice_is_augmented_twice(samples: list[Sample]) -> None:
    """Identity p5 has one image; a group of two shows it twice."""
    loader = load(samples, AUGMENT, sampler="pk", batch=12)
    differ = []
    for epoch in range(1, 9):
        for batch in loader.batches(epoch):
            rows = [row for row, name in enumerate(batch.targets.path) if name == "21.png"]
            assert len(rows) in (0, 2)
            if rows:
                differ.append(not torch.equal(batch.images[rows[0]], batch.images[rows[1]]))
    assert len(differ) >= 4
    assert all(differ)


def test_occluders_come_with_their_mask(samples: list[Sample]) -> None:
    options = {"p": 0.5, "kinds": ["generated", "pedestrians"], "share": [0.3, 0.5]}
    batches = list(load(samples, [{"type": "occlude", "options": options}]).batches(1))
    plain = list(load(samples).batches(1))
    occluded = 0
    for batch, clean in zip(batches, plain, strict=True):
        mask, parsing = batch.targets.occlusion_mask, batch.targets.parsing
        assert mask is not None
        assert parsing is not None
        assert mask.dtype == torch.float32
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        assert not parsing[mask > 0].any()
        for row in range(8):
            occluded += bool(mask[row].any())
            assert mask[row].any() or torch.equal(batch.images[row], clean.images[row])
    assert 2 <= occluded <= 14


SHARED = ["color_jitter", "flip", {"type": "pad_crop", "options": {"pad": 3}}, "erase"]
NPO = {"type": "npo", "options": {"kinds": ["generated", "strips", "pedestrians"], "patches": 6, "mask": "coverage"}}
OCCLUDE = {"type": "occlude", "options": {"p": 0.5}}
ERASED = {"type": "erase_occluder", "options": {"mask": "coverage"}}
DOUBLED = "clean_and_occluded"


@pytest.mark.parametrize("occluders", [[NPO], [OCCLUDE], [OCCLUDE, NPO], [ERASED]])
@pytest.mark.parametrize("sampler", ["shuffle", "pk"])
def test_either_half_of_a_doubled_batch_is_a_batch_of_single_views(
    samples: list[Sample], occluders: list[Any], sampler: str
) -> None:
    both = load(samples, SHARED + occluders, sampler=sampler, views=DOUBLED)
    clean, occluded = load(samples, SHARED, sampler=sampler), load(samples, SHARED + occluders, sampler=sampler)
    assert both.steps_per_epoch == clean.steps_per_epoch
    for batch, one, two in zip(both.batches(2), clean.batches(2), occluded.batches(2), strict=True):
        targets = batch.targets
        assert len(batch) == 16
        assert targets.view is not None
        assert targets.view.dtype == torch.int64
        assert targets.view.tolist() == [0] * 8 + [1] * 8
        assert targets.path == one.targets.path * 2
        assert targets.occlusion_mask is not None
        assert two.targets.occlusion_mask is not None
        assert one.targets.view is None
        assert not targets.occlusion_mask[:8].any()
        assert torch.equal(targets.occlusion_mask[8:], two.targets.occlusion_mask)
        assert torch.equal(batch.images, torch.cat([one.images, two.images]))
        for name in ("identity", "camera", "parsing"):
            halves = getattr(one.targets, name), getattr(two.targets, name)
            assert torch.equal(getattr(targets, name), torch.cat(halves))
        moved = (batch.images[:8] != batch.images[8:]).any(1)
        assert (moved <= _grown(targets.occlusion_mask[8:])).all()  # the views differ by occluders alone
        assert moved.any()


def _grown(mask: torch.Tensor) -> torch.Tensor:
    """With the occluders' soft edges, which the mask leaves out."""
    return torch.nn.functional.max_pool2d(mask[:, None], 9, 1, 4)[:, 0] > 0


@forking
def test_doubled_views_with_workers_from_the_middle_and_in_shares(samples: list[Sample]) -> None:
    made = {"views": DOUBLED, "sampler": "pk"}
    whole = load(samples, [*SHARED, NPO], **made)
    helped = load(samples, [*SHARED, NPO], workers=2, **made)
    assert same(whole.batches(3), helped.batches(3)) == whole.steps_per_epoch > 1
    assert same(whole.batches(3, 1), helped.batches(3, 1)) == whole.steps_per_epoch - 1
    assert same(iter(list(whole.batches(3))[1:]), whole.batches(3, 1)) == whole.steps_per_epoch - 1
    shares = [load(samples, [*SHARED, NPO], rank=rank, world_size=2, **made).batches(3) for rank in range(2)]
    for batch, *parts in zip(whole.batches(3), *shares, strict=True):
        assert [len(part) for part in parts] == [8, 8]
        assert all(part.targets.view.tolist() == [0] * 4 + [1] * 4 for part in parts)
        assert torch.equal(batch.images[:8], torch.cat([part.images[:4] for part in parts]))  # clean
        assert torch.equal(batch.images[8:], torch.cat([part.images[4:] for part in parts]))  # occluded
        assert all(part.targets.path[:4] == part.targets.path[4:] for part in parts)
        assert batch.targets.path[:8] == parts[0].targets.path[:4] + parts[1].targets.path[:4]


def test_a_difference_is_that_of_the_two_views(samples: list[Sample]) -> None:
    options = {"mask": "difference", "kinds": ["strips"], "p": 0.7}
    loader = load(samples, [*SHARED, {"type": "npo", "options": options}], views=DOUBLED, masks=0)
    batch = next(loader.batches(1))
    mask = batch.targets.occlusion_mask
    assert mask is not None
    assert mask.dtype == torch.float32
    assert batch.targets.parsing is None
    std = torch.tensor(INPUT.std).view(1, 3, 1, 1)
    difference = ((batch.images[8:] - batch.images[:8]) * std).abs().sum(1)
    assert torch.allclose(mask[8:], difference, atol=1e-5)
    assert not mask[:8].any()
    assert mask.max() > 1  # summed over three channels
    assert {bool(row.any()) for row in mask[8:]} == {True, False}


def test_views_that_a_recipe_cannot_have(samples: list[Sample]) -> None:
    for augment in ([], SHARED):
        with pytest.raises(
            RecipeError, match=r"holds no transform that occludes\. Add 'npo', 'occlude' or 'erase_occluder' at its end"
        ):
            load(samples, augment, views=DOUBLED)
    for late in ("flip", "color_jitter"):
        with pytest.raises(RecipeError, match=rf"'{late}' comes after 'npo', which occludes.*Put '{late}' before it"):
            load(samples, [NPO, OCCLUDE, late], views=DOUBLED)
    load(samples, [NPO, "flip"])  # single views may do so
    with pytest.raises(RecipeError, match="compares an image with what it was before its only occluder; there are 2"):
        load(samples, ["npo", OCCLUDE])
    with pytest.raises(RecipeError, match=r"'npo': 'pedestrians' are cut out with part masks, and data.masks is 0"):
        load(samples, [NPO], views=DOUBLED, masks=0)


def test_training_images_are_resized_as_their_own_option_says(samples: list[Sample]) -> None:
    """FED's released code: bicubic in training, bilinear in use and for what its memory starts from."""
    size = (20, 48)
    classes = {identity: number for number, identity in enumerate(sorted({s.person for s in samples}))}
    for chosen, trained in ((None, "bilinear"), ("bilinear", "bilinear"), ("bicubic", "bicubic")):
        loader = TrainLoader(
            samples, classes=classes, input=InputConfig(height=48, width=20), data=DataConfig(batch=8, resample=chosen)
        )
        assert (loader.plain is loader.images) == (trained == "bilinear")
        for position, sample in enumerate(samples[:3]):
            with Image.open(sample.path) as file:
                ways = {
                    "bilinear": np.asarray(file.resize(size, Image.Resampling.BILINEAR)),
                    "bicubic": np.asarray(file.resize(size, Image.Resampling.BICUBIC)),
                }
            assert not np.array_equal(ways["bilinear"], ways["bicubic"])
            assert np.array_equal(loader.images[position][0], ways[trained])
            assert np.array_equal(loader.plain[position][0], ways["bilinear"])


@forking
@pytest.mark.parametrize("workers", [0, 1])
def test_broken_files(tmp_path: Path, samples: list[Sample], workers: int) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(samples[0].path.read_bytes())
    with_broken = [*samples, Sample("broken.png", broken, "p1", 0, samples[0].mask)]
    late = load(with_broken, batch=23, limit_bytes=0, workers=workers)
    broken.write_bytes(b"gone")
    with pytest.raises(ImageError, match=r"^'[^']*broken\.png'"):  # the message, without a worker's stack around it
        list(late.batches(1))
    loader = load(with_broken, skip_unreadable=True)
    assert loader.images.skipped == ("broken.png",)
    assert len(loader.samples) == 22


def test_bad_input(samples: list[Sample]) -> None:
    data = DataConfig(batch=8)
    with pytest.raises(DataError, match="no images to decode"):
        load([])
    with pytest.raises(DataError, match=r"1 training images are of identities without a class, the first is '21.png'"):
        TrainLoader(samples, classes={f"p{n}": n for n in range(5)}, input=INPUT, data=data)
    with pytest.raises(DataError, match="3 images of 1 identities"):
        load([samples[0], samples[5], samples[10]], batch=2)
    with pytest.raises(DataError, match="do not fill one batch of 64"):
        load(samples, batch=64)
    with pytest.raises(DataError, match="cannot be shared equally, in images, by 3 processes"):
        load(samples, world_size=3)
    with pytest.raises(DataError, match="in groups of 2 images, by 2 processes"):
        load(samples, batch=6, sampler="pk", world_size=2)
    with pytest.raises(DataError, match="process 2 of 2 does not exist"):
        load(samples, rank=2, world_size=2)
    with pytest.raises(MaskError, match="no part mask"):
        load([Sample(s.name, s.path, s.identity, s.camera) for s in samples])
