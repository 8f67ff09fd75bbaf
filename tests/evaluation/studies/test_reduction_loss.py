"""What a reduction costs: both reports are those of `evaluate`, and it is never fitted on people who are asked for."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from occluded_reid.data.synthetic import SyntheticOptions, generate, load_synthetic
from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import EmbeddingError, EvaluationError
from occluded_reid.evaluation import Protocol, evaluate
from occluded_reid.evaluation.studies import reduction_loss as module
from occluded_reid.evaluation.studies.reduction_loss import fit_on_training, reduction_loss
from occluded_reid.matchers import PlainMatcher, VisibilityWeightedMatcher
from occluded_reid.search.projection import Reduction


def make(rows: int, seed: int) -> EmbeddedSet:
    generator, labels = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    identity = labels.integers(0, 12, rows)
    centres = torch.randn(12, 16, generator=torch.Generator().manual_seed(7))
    slots = tuple(centres[identity] + torch.randn(rows, 16, generator=generator) for _ in range(2))
    visible = torch.ones(rows, 2)
    visible[:, 1] = (torch.rand(rows, generator=generator) > 0.4).float()
    return EmbeddedSet(PartEmbeddings(("global", "part_1"), slots, visible), identity, labels.integers(0, 4, rows))


def test_it_holds_the_reports_of_full_and_reduced_rows_and_pairs_them() -> None:
    query, gallery, sample = make(60, 0), make(120, 1), make(200, 2)
    matcher, protocol = VisibilityWeightedMatcher(), Protocol(dataset="twelve", name="drawn", seed=4, bootstrap=200)
    reduction = Reduction.fit(sample.embeddings, {"global": 3, "part_1": 8}, matcher=matcher)
    loss = reduction_loss(query, gallery, matcher, reduction, protocol, fingerprint="m@1", fitted_on="200 others")
    small = [replace(rows, embeddings=reduction.apply(rows.embeddings)) for rows in (query, gallery)]
    full = evaluate(query, gallery, matcher, protocol)
    reduced = evaluate(*small, matcher, protocol)
    assert loss.full.metrics == full.metrics
    assert loss.reduced.metrics == reduced.metrics
    assert loss.reduced.card.slots == {"global": 3, "part_1": 8}
    expected = reduced.compare(full, resamples=200, seed=4)
    assert loss.difference.differences == expected.differences
    assert loss.difference["mAP"].value == pytest.approx(reduced.mAP - full.mAP)
    assert loss.reduced.protocol.name == f"drawn, reduced by {reduction.fingerprint}"
    printed = json.loads(json.dumps(loss.to_dict(), allow_nan=False))
    assert printed["float16_bytes_per_image"] == {"full": 64, "reduced": 22}
    assert printed["difference"]["mAP"]["value"] == pytest.approx(printed["reduced"]["metrics"]["mAP"] - full.mAP)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(loss.table())
    for text in (str(loss), console.export_text()):
        for fact in (reduction.fingerprint, "global 16 to 3", "200 others", "64 to 22 (34.4%)", "points ["):
            assert fact in text


def test_directions_that_hold_everything_cost_nothing() -> None:
    query, gallery = make(40, 3), make(80, 4)
    flat = [
        replace(
            rows,
            embeddings=PartEmbeddings(
                ("a",), (torch.nn.functional.pad(rows.embeddings.slot("global"), (0, 8)),), torch.ones(len(rows), 1)
            ),
        )
        for rows in (query, gallery)
    ]
    reduction = Reduction.fit(flat[1].embeddings, {"a": 16}, matcher=PlainMatcher())
    loss = reduction_loss(*flat, PlainMatcher(), reduction, Protocol(bootstrap=0))
    assert loss.difference["mAP"].value == 0
    assert loss.full.intervals == {}


def test_a_reduction_for_other_embeddings_or_matchers_is_refused() -> None:
    query, gallery = make(40, 5), make(80, 6)
    reduction = Reduction.fit(gallery.embeddings, {"global": 3}, matcher=PlainMatcher(), model="m@1")
    with pytest.raises(EmbeddingError, match="takes the slots"):
        reduction_loss(query.select(["global"]), gallery.select(["global"]), PlainMatcher(), reduction)
    with pytest.raises(EmbeddingError, match="m@2"):
        reduction_loss(query, gallery, PlainMatcher(), reduction, fingerprint="m@2")
    with pytest.raises(EmbeddingError, match="lengths"):
        reduction_loss(query, gallery, PlainMatcher(metric="euclidean", normalize=False), reduction)


def test_it_is_fitted_on_training_images_alone(tiny, tmp_path, monkeypatch) -> None:
    options = SyntheticOptions(train_identities=4, test_identities=2, cameras=2, width=32, height=96)
    data = load_synthetic(generate(tmp_path / "set", options))
    model = tiny()
    steps: list[tuple[int, int]] = []
    reduction, told = fit_on_training(
        model, data, {"global": 4}, progress=lambda done, total: steps.append((done, total))
    )
    assert steps[-1] == (len(data.train), len(data.train))
    assert reduction.rows == {"global": len(data.train)}
    assert reduction.model == model.fingerprint
    assert told == f"{len(data.train)} of the {len(data.train)} training images of '{data.name}', 4 people"
    monkeypatch.setattr(module, "FIT_IMAGES", 5)
    fewer, told = fit_on_training(model, data, {"global": 4})
    assert fewer.rows == {"global": 5}
    assert told.startswith(f"5 of the {len(data.train)}")
    with pytest.raises(EvaluationError, match="no training images"):
        fit_on_training(model, replace(data, train=()), {"global": 4})
    with pytest.raises(EvaluationError, match="both in training and asked for"):
        fit_on_training(model, replace(data, query=data.train[:2]), {"global": 4})
