"""Every door of the library × each of its arguments × odd values: an error of this library's own, or an answer."""

from __future__ import annotations

import importlib
import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import occluded_reid
from occluded_reid import (
    Calibration,
    EmbeddedSet,
    Gallery,
    KReciprocal,
    PartEmbeddings,
    Protocol,
    Reduction,
    build_model,
    compare,
    embed_samples,
    evaluate,
    evaluate_matrix,
    find_failures,
    load_dataset,
    load_model,
    load_recipe,
    open_set_study,
    parse_folder,
    sweep,
    train,
    train_parser,
    tune_model,
)
from occluded_reid.data.benchmarks.cuhk03_mat import extract_cuhk03
from occluded_reid.data.occlusion.kinds import open_kinds
from occluded_reid.data.synthetic import SyntheticOptions
from occluded_reid.data.synthetic.generate import generate
from occluded_reid.errors import OccludedReIDError
from occluded_reid.evaluation import Occlusion, Report
from occluded_reid.evaluation.studies.study import study
from occluded_reid.gallery import field
from occluded_reid.matchers import PlainMatcher
from occluded_reid.parsing.teachers import open_teacher
from occluded_reid.pixels import to_rgb
from occluded_reid.search.exact import exact_topk
from occluded_reid.search.rows import InMemoryRows

ODD: list[Any] = [
    None,
    True,
    -1,
    0.5,
    float("nan"),
    10**30,
    "x",
    "a\0b",
    b"x",
    object(),
    np.array([True, False]),
    ["a"],
    [None],
    {"a": 1},
]
TINY = {"model.input": {"height": 64, "width": 32}, "model.backbone.type": "test_efficientnet"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("doors")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 32, 3), dtype=np.uint8)
    mask = np.repeat(np.arange(8, dtype=np.uint8), 8)[:, None].repeat(32, 1)
    for person, number in itertools.product(("anna", "bert"), range(2)):
        for tree, picture in (("photos", pixels[number]), ("masks", mask)):
            file = root / tree / person / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(file)
    return root


@pytest.fixture(scope="module")
def things(place: Path) -> SimpleNamespace:
    """What is right wherever it is asked for."""
    generator = torch.Generator().manual_seed(0)
    slots = torch.randn(24, 8, generator=generator), torch.randn(24, 4, generator=generator)
    rows = PartEmbeddings(("global", "part_1"), slots, torch.ones(24, 2))
    people, names = [1, 2, 3, 4, 5, 6] * 2, tuple(f"{number}.png" for number in range(24))
    sides = {
        "query": EmbeddedSet(rows[:12], people, [0] * 12, names[:12]),  # type: ignore[arg-type]
        "gallery": EmbeddedSet(rows[12:], people, [1] * 12, names[12:]),  # type: ignore[arg-type]
        "matcher": PlainMatcher(),
    }
    model = build_model("sorn_lite", pretrained=False, **TINY)
    model.save(place / "model")
    store = Gallery.create(place / "gallery", slots=rows.widths, matcher=PlainMatcher(), device="cpu")
    store.add(rows, keys=names, camera=["hall", 7] * 12, identity=people * 2)
    calibration = Calibration.fit(**sides, false_match_rate=0.3)
    store.keep_calibration(calibration)
    quick = Protocol(bootstrap=10)
    report = evaluate(**sides, protocol=quick)
    report.to_json(place / "report.json")
    rows.save(place / "rows.safetensors")
    data = load_dataset("folder", place / "photos", masks=place / "masks", holdout=1)
    teacher = open_teacher("masks", {"folder": str(place / "masks"), "label_set": "sorn8"})
    counter = itertools.count()
    return SimpleNamespace(
        place=place,
        rows=rows,
        sides=sides,
        model=model,
        store=store,
        calibration=calibration,
        protocol=quick,
        report=report,
        data=data,
        teacher=teacher,
        fresh=lambda: place / f"new_{next(counter)}",
    )


def named(instance: Any) -> dict[str, Any]:
    return {each.name: getattr(instance, each.name) for each in fields(instance)}


Doors = dict[str, tuple[Callable[..., Any], dict[str, Any]]]
"""Door -> what to call, and arguments that are right."""


def measuring(t: SimpleNamespace) -> Doors:
    said: dict[str, Any] = {"fingerprint": "", "tuned": "", "test_time": "", "progress": None}
    return {
        "evaluate": (evaluate, {**t.sides, "protocol": t.protocol, "rerank": None, **said}),
        "evaluate_matrix": (
            evaluate_matrix,
            {
                "distance": np.eye(2),
                "query_identity": [1, 2],
                "gallery_identity": [1, 2],
                "query_camera": [0, 0],
                "gallery_camera": [1, 1],
                "protocol": t.protocol,
            },
        ),
        "compare": (compare, {"reports": {"a": t.report, "b": [t.report]}, "base": "a"}),
        "find_failures": (
            find_failures,
            {
                **t.sides,
                "protocol": t.protocol,
                "visibility_edges": None,
                "cameras_known": True,
                "camera_names": None,
                **said,
            },
        ),
        "open_set_study": (
            open_set_study,
            {
                **t.sides,
                "calibration": t.calibration,
                "ranks": (1,),
                "resampling": None,
                "data": "",
                "fingerprint": "",
                "notes": None,
                "tile_rows": 8,
                "progress": None,
            },
        ),
        "Calibration.fit": (
            Calibration.fit,
            {
                **t.sides,
                "false_match_rate": 0.3,
                "per": "search",
                "gallery_size": None,
                "prior": 0.5,
                "exclude_same_camera": True,
                "fingerprint": None,
                "reduction": None,
                "data": "",
                "people": (),
                "part": "",
                "tile_rows": 8,
                "progress": None,
            },
        ),
        "calibration.accepts": (t.calibration.accepts, {"distance": [0.1], "shared": [1]}),
        "calibration.probability": (t.calibration.probability, {"distance": [0.1], "shared": [1], "prior": None}),
        "calibration.save": (t.calibration.save, {"path": t.place / "calibration.json"}),
        "Calibration.load": (Calibration.load, {"path": t.place / "calibration.json"}),
        "Reduction.fit": (
            Reduction.fit,
            {"sample": t.rows, "widths": {"global": 4}, "matcher": PlainMatcher(), "normalize": None, "model": None},
        ),
        "Protocol": (Protocol, named(Protocol())),
        "KReciprocal": (KReciprocal, named(KReciprocal())),
        "EmbeddedSet": (EmbeddedSet, {"embeddings": t.rows, "identity": [1] * 24, "camera": [1] * 24, "paths": ()}),
        "PartEmbeddings": (
            PartEmbeddings,
            {"names": ("a",), "embeddings": (torch.ones(2, 2),), "visibility": torch.ones(2, 1)},
        ),
        "rows[…]": (lambda rows: t.rows[rows], {"rows": [0]}),
        "rows.select": (t.rows.select, {"names": ["global"]}),
        "rows.slot": (t.rows.slot, {"name": "global"}),
        "rows.to": (t.rows.to, {"device": "cpu", "dtype": None}),
        "PartEmbeddings.cat": (PartEmbeddings.cat, {"parts": [t.rows]}),
        "rows.save": (t.rows.save, {"path": t.place / "rows.safetensors"}),
        "PartEmbeddings.load": (PartEmbeddings.load, {"path": t.place / "rows.safetensors"}),
        "report.rank": (t.report.rank, {"k": 1}),
        "report.compare": (t.report.compare, {"other": t.report, "resamples": 9, "seed": 0, "confidence": 0.9}),
        "report.to_csv": (t.report.to_csv, {"path": None}),
        "Report.from_json": (Report.from_json, {"path": t.place / "report.json"}),
        "Report.from_dict": (Report.from_dict, {"content": t.report.to_dict()}),
        "exact_topk": (
            exact_topk,
            {
                "query": t.rows[:2],
                "rows": InMemoryRows(t.rows),
                "matcher": PlainMatcher(),
                "k": 3,
                "tile_rows": None,
                "device": "cpu",
            },
        ),
    }


def images(t: SimpleNamespace) -> Doors:
    kinds = open_kinds(["bottom"])
    few = SyntheticOptions(train_identities=1, test_identities=0, cameras=1, distractors=0)
    return {
        "embed_samples": (
            embed_samples,
            {
                "model": t.model,
                "data": t.data,
                "samples": t.data.query,
                "occlusion": None,
                "batch_size": 4,
                "progress": None,
            },
        ),
        "sweep": (
            sweep,
            {
                "model": t.model,
                "data": t.data,
                "kinds": kinds,
                "severities": (0.2,),
                "seeds": (0,),
                "protocol": None,
                "name": "",
                "batch_size": 4,
                "progress": None,
            },
        ),
        "study": (
            study,
            {
                "model": t.model,
                "data": t.data,
                "matchings": ("own",),
                "fractions": (0.0,),
                "occluders": None,
                "seeds": (0,),
                "protocol": None,
                "rerank": None,
                "tuned": "",
                "progress": None,
            },
        ),
        "tune_model": (
            tune_model,
            {
                "model": t.model,
                "data": t.data,
                "choices": {"normalize": [True]},
                "metric": "mAP",
                "protocol": None,
                "embedding": None,
                "progress": None,
            },
        ),
        "open_kinds": (
            open_kinds,
            {"names": ["bottom"], "occluders": "generated", "people": (), "take": "all", "seed": 0},
        ),
        "load_dataset": (
            lambda **given: load_dataset(given.pop("name"), given.pop("root"), **given),
            {
                "name": "folder",
                "root": t.place / "photos",
                "masks": None,
                "holdout": 0,
                "validation": 0,
                "seed": 0,
                "skip_unreadable": False,
            },
        ),
        "to_rgb": (to_rgb, {"image": np.zeros((2, 2, 3), np.uint8), "name": None, "channels": "rgb", "max_pixels": 9}),
        "parse_folder": (
            lambda **given: parse_folder(**{"output": t.fresh(), **given}),
            {
                "images": t.place / "photos",
                "teacher": t.teacher,
                "to": "sorn8",
                "limit": None,
                "overwrite": False,
                "clothes": None,
                "progress": None,
            },
        ),
        "extract_cuhk03": (extract_cuhk03, {"root": t.place / "photos", "out": None, "progress": None}),
        "generate": (lambda progress: generate(t.fresh(), few, progress=progress), {"progress": None}),
        "Occlusion": (Occlusion, {"fraction": 0.2, "occluders": kinds[0].occluders, "seed": 0, "place": "bottom"}),
        "SyntheticOptions": (SyntheticOptions, named(SyntheticOptions())),
        "data.split": (t.data.split, {"name": "train"}),
        "data.labels": (t.data.labels, {"samples": t.data.query}),
        "data.with_masks": (t.data.with_masks, {"folder": t.place / "masks"}),
    }


def models(t: SimpleNamespace) -> Doors:
    run: dict[str, Any] = {"output": t.place / "run", "seed": 0, "workers": 0, "evaluate_every": 0, "resume": False}
    run |= {"tensorboard": False, "checkpoint_every": 1.0, "show": False, "on_epoch": None}
    parts = ("model", "model.heads", "model.losses", "model.matcher", "model.input", "model.backbone", "data", "optim")

    def changed(**changes: Any) -> Any:
        """Of dotted keys, all are None but one, which is what is tried."""
        tried = {name: value for name, value in changes.items() if value is not None}
        return build_model("sorn_lite", pretrained=False, **{**TINY, **tried})

    return {
        "load_recipe": (load_recipe, {"name_or_path": "sorn_lite", "overrides": None}),
        "build_model": (
            build_model,
            {"name_or_recipe": "sorn_lite", "num_classes": None, "backbone": None, "heads": None, "pretrained": False},
        ),
        "build_model(heads=…)": (
            lambda **heads: build_model("sorn_lite", pretrained=False, heads=heads, **TINY),
            {"local": "local"},
        ),
        "overrides of a recipe": (changed, dict.fromkeys(parts)),
        "load_model": (load_model, {"folder": t.place / "model", "num_classes": None, "heads": None, "preset": None}),
        "model.save": (t.model.save, {"folder": t.place / "model"}),
        "model.export": (t.model.export, {"file": t.place / "model.txt"}),
        "model.embed": (t.model.embed, {"images": torch.zeros(1, 3, 64, 32)}),
        "model.preprocess": (t.model.preprocess, {"images": torch.zeros(3, 64, 32), "channels": "rgb"}),
        # Without data, so that nothing is trained whatever else is right.
        "train": (train, {"recipe": "sorn_lite", "data": None, **run, "heads": None, "start": None, "evaluate": None}),
        "train_parser": (train_parser, {"recipe": "small_parser", "data": None, **run, "limit_bytes": 100}),
    }


def galleries(t: SimpleNamespace) -> Doors:
    where: dict[str, Any] = {"path": t.place / "gallery", "model": None, "matcher": None, "device": "cpu"}
    add: dict[str, Any] = {"identity": None, "camera": None, "time": None, "track": None, "path": None}

    def make(**given: Any) -> Gallery:
        return Gallery.create(**{"path": t.fresh(), **given})

    def put(**given: Any) -> Any:
        return t.store.add(given.pop("images"), **{"keys": [t.fresh().name for _ in range(2)], **given})

    return {
        "Gallery.open": (lambda **given: Gallery.open(**given).close(), {**where, "version": None}),
        "Gallery.create": (
            make,
            {"slots": {"global": 8}, "fingerprint": None, "matcher": None, "dtype": "float16", "reduce": None},
        ),
        "Gallery.exists": (Gallery.exists, {"path": t.place / "gallery"}),
        "store.add": (
            put,
            {
                "images": t.rows[:2],
                **add,
                "metadata": None,
                "batch_size": 4,
                "replace": False,
                "skip_unreadable": False,
                "channels": "rgb",
                "progress": None,
                "wait": 0.0,
            },
        ),
        "store.search": (
            t.store.search,
            {
                "query": t.rows[:2],
                "k": 2,
                "key": None,
                "where": None,
                "query_camera": None,
                "query_identity": None,
                "exclude_self": True,
                "group_by": None,
                "effort": "exact",
                "threshold": None,
                "rerank": False,
                "combine": False,
                "channels": "rgb",
                "batch_size": 4,
            },
        ),
        "store.list": (t.store.list, {"where": None, "limit": None, "offset": 0}),
        "store.get": (t.store.get, {"key": "1.png"}),
        "store.relabel": (
            t.store.relabel,
            {"keys": ["1.png"], "identity": "x", "camera": 1, "time": 1.0, "track": "t"},
        ),
        "store.name_cameras": (t.store.name_cameras, {"names": {"door": 70}, "wait": 0.0}),
        "store.remove": (t.store.remove, {"keys": "0.png", "wait": 0.0}),
        "store.verify": (t.store.verify, {"progress": None}),
        "store.compact": (t.store.compact, {"keep_versions": 2, "wait": 0.0, "progress": None}),
        "store.erase": (t.store.erase, {"keys": ["none"], "caches": (), "wait": 0.0, "progress": None}),
        "store.estimate_index": (t.store.estimate_index, {"factory": None}),
        "store.build_index": (
            t.store.build_index,
            {"factory": "Flat", "type": "faiss", "options": None, "training_rows": 9, "seed": 0, "progress": None},
        ),
        "store.build_neighbours": (t.store.build_neighbours, {"k1": 3, "effort": "exact", "progress": None}),
        "store.calibrate": (
            t.store.calibrate,
            {"query": t.sides["query"], "gallery": t.sides["gallery"], "false_match_rate": 0.3},
        ),
        "store.keep_calibration": (t.store.keep_calibration, {"calibration": t.calibration, "wait": 0.0}),
        "where": (lambda where: t.store.list({"camera": where, "time": where}), {"where": 1}),
        "is_in": (lambda values: field("camera").is_in(values), {"values": [1]}),
        "field": (lambda value: field("time") >= value, {"value": 1}),
    }


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd values are taken as paths too: what is written by them lies in the test's own folder."""
    monkeypatch.chdir(tmp_path)


def tried(doors: Doors) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every call with one argument that is odd, and what it is called."""
    for name, (door, right) in doors.items():
        for argument, odd in itertools.product(right, ODD):
            yield f"{name}({argument}={odd!r:.40})", lambda d=door, g={**right, argument: odd}: d(**g)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("room", [measuring, images, models, galleries])
def test_an_odd_value_is_refused_or_taken_and_never_an_error_of_python(
    room: Callable[[SimpleNamespace], Doors], things: SimpleNamespace
) -> None:
    troubles = []
    refused = 0
    for called, call in tried(room(things)):
        try:
            call()
        except OccludedReIDError as error:
            refused += 1
            if len(str(error)) < 20 or "\n\n" in str(error):
                troubles.append(f"{called}: says next to nothing: {error}")
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            troubles.append(f"{called}: {type(error).__name__}: {error}")
    assert not troubles, "\n".join(troubles)
    assert refused > 100


@pytest.mark.parametrize("room", [measuring, images, models, galleries])
def test_what_is_right_is_taken(room: Callable[[SimpleNamespace], Doors], things: SimpleNamespace) -> None:
    """Without this the test above might see one and the same refusal all the time."""
    never = {"train", "train_parser", "extract_cuhk03", "model.export", "store.remove", "store.erase"}
    for name, (door, right) in room(things).items():
        if name not in never:
            door(**right)


def public() -> Iterator[tuple[str, Any]]:
    """The functions and methods of the package's face and of the API's page."""
    page = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
    things = {name: getattr(occluded_reid, name) for name in occluded_reid.__all__}
    for module, name in re.findall(r"^::: (\S+)\.(\w+)$", page, re.MULTILINE):
        things[name] = getattr(importlib.import_module(module), name)
    for name, thing in things.items():
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing):
            for owner in thing.__mro__:
                for method, function in vars(owner).items():
                    plain = function.__func__ if isinstance(function, staticmethod | classmethod) else function
                    ours = owner.__module__.startswith("occluded_reid")
                    if ours and inspect.isfunction(plain) and not method.startswith("_"):
                        yield f"{owner.__name__}.{method}", plain


def test_every_door_with_a_flag_or_a_callback_checks_them() -> None:
    looked_at = 0
    for name, function in public():
        annotations = {each.name: str(each.annotation) for each in inspect.signature(function).parameters.values()}
        careful = [n for n, kind in annotations.items() if kind == "bool" or "Callable" in kind or n == "progress"]
        looked_at += len(careful)
        abstract = getattr(function, "__isabstractmethod__", False)
        if careful and not abstract and name not in ("Preprocess.train", "KReciprocal.normalise"):
            assert getattr(function, "checked", False), f"{name} takes {careful} unseen: put @checked(…) on it"
    assert looked_at > 40
