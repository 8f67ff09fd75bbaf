"""Third-party packages, pip-installed as a user would: one that works, and one that fails at import."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import occluded_reid

HERE = Path(__file__).parent


def install(name: str, folder: Path) -> Path:
    """pip-install a copy of a package into a folder of its own; nothing of it stays in the tree."""
    source, target = folder / "source" / name, folder / name
    shutil.copytree(HERE / name, source)
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--target", str(target), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("site")
    return {name: install(name, folder) for name in ("waist_plugin", "broken_plugin")}


def run(script: str, *targets: Path) -> dict:
    """Run a script in a fresh interpreter that sees these folders; it prints one line of JSON."""
    path = os.pathsep.join([*map(str, targets), str(Path(occluded_reid.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "default::occluded_reid.errors.PluginWarning", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=HERE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


USE = """
import json, sys, torch
from occluded_reid import HEADS, MATCHERS, PartEmbeddings, build_model
from occluded_reid.errors import DuplicateNameError, UnknownOptionError

listed = "waist" in HEADS.names() and "waist_only" in MATCHERS and "waist_plugin" not in sys.modules

def message(error, action):
    try:
        action()
    except error as caught:
        return str(caught)

taken = message(DuplicateNameError, lambda: HEADS.register("waist")(type("Mine", (), {})))
model = build_model("waist.yaml", num_classes=3)
rows = model.embed(torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0)))
apart = {s: torch.dist(*torch.nn.functional.normalize(rows.slot(s))) for s in rows.names}
by_hand = apart["waist"] + 0.0625 * apart["global"]
override = {"model.heads.waist.options.share": 1.0}
print(json.dumps({
    "listed": listed,
    "taken": taken,
    "slots": model.slots,
    "share": model.heads["waist"].share,
    "matcher": model.matcher.config,
    "distance": float(model.matcher.distance(rows, rows)[0, 1]),
    "by_hand": float(by_hand / 1.0625),
    "overridden": build_model("waist.yaml", **override).heads["waist"].share,
    "added": list(build_model("sorn_lite", heads={"waist": "waist"}).slots),
    "misspelt": message(UnknownOptionError, lambda: build_model("waist.yaml", **{"model.heads.waist.options.shar": 1})),
    "wrong": message(UnknownOptionError, lambda: build_model("waist.yaml", **{"model.matcher.options.others": "few"})),
}))
"""


def test_a_plugin_is_used_from_a_recipe_with_its_own_options(installed):
    found = run(USE, installed["waist_plugin"])
    assert found["listed"], "names are known before the plug-in is imported"
    assert "the head name 'waist' is taken by waist_plugin:WaistHead" in found["taken"]
    assert found["slots"] == {"global": 512, "waist": 512}
    assert found["share"] == 0.5
    assert found["matcher"]["type"] == "waist_only"
    assert found["matcher"]["options"]["others"] == 0.25
    assert found["matcher"]["options"]["metric"] == "euclidean"
    assert found["distance"] == pytest.approx(found["by_hand"], abs=1e-5)
    assert found["overridden"] == 1.0
    assert found["added"] == ["global", "part_1", "part_2", "part_3", "waist"]
    assert "'waist' takes no 'shar'. Did you mean 'share'?" in found["misspelt"]
    assert "model.heads.waist.options" in found["misspelt"]
    assert "'others' was given 'few'" in found["wrong"]


BROKEN = """
import json, sys, warnings
from occluded_reid import HEADS, build_model
from occluded_reid.errors import PluginWarning, RegistryError

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    slots = list(build_model("sorn_lite").slots)
    untouched = "broken_plugin" not in sys.modules and not told
    names = HEADS.names()
    local = HEADS.get("local").__module__
    try:
        refusal = HEADS.get("broken")
    except RegistryError as error:
        refusal = str(error)
    again = list(build_model("sorn_lite").slots)
print(json.dumps({
    "slots": slots, "again": again, "untouched": untouched, "names": names, "local": local, "refusal": refusal,
    "told": [str(w.message) for w in told if issubclass(w.category, PluginWarning)],
    "others": [str(w.message) for w in told if not issubclass(w.category, PluginWarning)],
}))
"""


def test_a_broken_plugin_only_warns(installed):
    found = run(BROKEN, installed["broken_plugin"], installed["waist_plugin"])
    assert found["slots"] == found["again"] == ["global", "part_1", "part_2", "part_3"]
    assert found["untouched"], "the built-ins need no plug-in"
    assert {"broken", "global", "local", "waist"} <= set(found["names"])
    assert found["local"] == "occluded_reid.heads.local"
    assert "broken_plugin:BrokenHead" in found["refusal"]
    assert "failed to load" in found["refusal"]
    taken, broken = found["told"]
    assert "'local' of occluded_reid.heads (broken_plugin:BrokenHead) is left out" in taken
    assert "taken by occluded_reid.heads.local:LocalHead" in taken
    assert "'broken' of occluded_reid.heads (broken_plugin:BrokenHead) could not be loaded" in broken
    assert "OSError: libwaist.so.3" in broken
    assert found["others"] == []
