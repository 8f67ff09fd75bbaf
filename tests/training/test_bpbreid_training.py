"""BPBreID trains on drawn people, and its parts go through evaluation, gallery and index."""

from __future__ import annotations

from pathlib import Path

import pytest

from occluded_reid import Gallery, load_dataset, load_model, load_recipe, train
from occluded_reid.data.synthetic import SyntheticOptions, generate
from occluded_reid.evaluation.studies.study import evaluate_model

DRAWN = SyntheticOptions(
    train_identities=12, test_identities=6, cameras=2, images_per_camera=4, distractors=0, occluded_queries=0.5
)
SMALL = {
    "model.input.height": 96,
    "model.input.width": 32,
    "model.backbone": {"type": "test_efficientnet", "options": {"last_stride": 1}},
    "data.batch": 16,
    "data.augment": ["flip"],
    "data.masks": 5,
    "model.heads.parts.options.classes": 5,
    "optim.lr": 1e-2,
    "optim.epochs": 16,
    "optim.warmup_epochs": 1,
    "optim.steps": {},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("bpbreid")
    data = load_dataset("synthetic", generate(folder / "people", DRAWN))
    records = []
    train(
        load_recipe("bpbreid_lite", SMALL), data, folder / "run", pretrained=False, show=False, on_epoch=records.append
    )
    return data, folder / "run" / "model", records


def test_every_loss_falls_and_the_parts_appear(trained):
    _, _, records = trained
    first, last = records[0].losses, records[-1].losses
    for name in ("identity_foreground", "identity_global", "identity_concat", "attention"):
        assert last[name] < first[name], name
    assert last["triplet_parts"] > 0  # some pair shares a part that the classifier has learnt to see


def test_it_evaluates_and_matches_by_what_both_images_show(trained):
    data, folder, _ = trained
    model = load_model(folder)
    assert tuple(model.slots) == (*(f"part_{k}" for k in range(1, 5)), "foreground")
    assert not {"global", "concat"} & set(model.parts)
    report = evaluate_model(model, data)
    assert report.mAP > 1.5 / DRAWN.test_identities  # chance over six people is about a sixth


def test_a_gallery_with_an_index_answers_as_the_exact_search(trained, tmp_path: Path):
    data, folder, _ = trained
    model = load_model(folder)
    files = [sample.path for sample in data.gallery]
    with Gallery.create(tmp_path / "gallery", model=model) as gallery:
        gallery.add(files)
        exact = gallery.search(files[:3], k=3)
        gallery.build_index()
        approximate = gallery.search(files[:3], k=3, effort="auto")
    assert [[(hit.key, hit.distance) for hit in hits] for hits in approximate] == [
        [(hit.key, hit.distance) for hit in hits] for hits in exact
    ]
    rows = model.embed(files)
    seen = rows.visibility[:, :-1]
    assert set(seen.unique().tolist()) == {0.0, 1.0}
    assert bool((rows.visibility[:, -1] == 1).all())
