"""Flip bytes of a gallery and of a saved model, one at a time: a right answer or a named error, and nothing else.

A small gallery is made, with all that a gallery can hold: several versions, removed images, named cameras, an index,
neighbour lists, a calibration. Then a byte of a file is changed, and a process of its own opens the gallery, searches
it exactly, by the index and re-ranked, reads its labels, and verifies it. Allowed are the answers of the unharmed
gallery, with or without a warning, and errors of this library; `verify` must name what was changed. A model is loaded
and embeds images. Not allowed are other answers, other errors, a process that dies by a signal, and one that does not
end.

    python benchmarks/flips.py                       # every byte of small files, 400 of each other one: hours
    python benchmarks/flips.py --sample 4 --seed 1   # four bytes of each file: minutes
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from occluded_reid import PartEmbeddings, build_model, load_model
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import OccludedReIDError
from occluded_reid.gallery import Gallery

SLOTS = {"global": 6, "part_1": 4}
MASKS = {"low": 0x01, "high": 0x80, "all": 0xFF}
"""What a byte is changed by: its lowest bit, its highest, or all of it."""
SMALL = 4096  # bytes up to which every byte of a file is tried
PLACES = 400  # of larger files
LIMIT = 60.0  # seconds after which a case counts as hanging


def rows(count: int, seed: int) -> PartEmbeddings:
    """Embeddings that float16 holds exactly, a fifth of the parts hidden."""
    source = torch.Generator().manual_seed(seed)
    visible = (torch.rand(count, len(SLOTS), generator=source) > 0.2).float()
    visible[:, 0] = 1
    vectors = tuple(torch.randn(count, width, generator=source).half().float() for width in SLOTS.values())
    return PartEmbeddings(tuple(SLOTS), vectors, visible)


def make(folder: Path) -> None:
    """Make `gallery/` and `model/` in a folder."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with Gallery.create(folder / "gallery", slots=SLOTS) as gallery:
        for part in range(3):
            gallery.add(
                rows(20, part),
                keys=[f"image {part} {i:02d}" for i in range(20)],
                identity=[f"person {i % 7}" for i in range(20)],
                camera=[("gate", "hall", "yard")[i % 3] for i in range(20)],
                time=[float(i) for i in range(20)],
                metadata=[{"number": i} for i in range(20)],
            )
        gallery.remove([f"image 0 {i:02d}" for i in range(0, 8, 3)])
        gallery.build_index("Flat")
        gallery.build_neighbours()
        people = [i // 4 for i in range(80)]
        query, other = (
            EmbeddedSet(rows(80, seed), people, [camera] * 80, [f"{seed} {i}" for i in range(80)])
            for camera, seed in ((0, 7), (1, 8))
        )
        gallery.calibrate(query, other, false_match_rate=0.2, per="comparison")
        gallery.add(rows(5, 9), keys=[f"late {i}" for i in range(5)])  # not in the index
        gallery.remove(["image 1 03"])
    small = {
        "model.input": {"height": 32, "width": 16},
        "model.backbone": {"type": "test_efficientnet", "options": {"last_stride": 1}},
        "model.heads.local.options.num_parts": 2,
    }
    build_model("pcb_lite", **small).save(folder / "model")


def say(hits: list[list[Any]]) -> list[list[list[Any]]]:
    """What is compared: keys, distances and labels of the hits, as JSON holds them."""
    return [[[h.key, round(h.distance, 6), h.identity, h.camera, h.time, h.metadata] for h in each] for each in hits]


def search(folder: Path) -> dict[str, Any]:
    """Open the gallery and ask it in every way."""
    query = rows(4, 11)
    with Gallery.open(folder / "gallery") as gallery:
        return {
            "size": len(gallery),
            "exact": say(gallery.search(query, 6)),
            "index": say(gallery.search(query, 6, effort=(60, 1))),
            "where": say(gallery.search(query, 6, where={"camera": 1})),
            "rerank": say(gallery.search(query, 6, rerank=True)),
            "threshold": say(gallery.search(query, 6, threshold="calibrated")),
        }


def verify(folder: Path) -> dict[str, Any]:
    """Verify the gallery; damage is an answer, whose names are not compared."""
    with Gallery.open(folder / "gallery") as gallery:
        return {"ok": gallery.verify().ok}


def embed(folder: Path) -> dict[str, Any]:
    """Load the model and embed two images."""
    model = load_model(folder / "model")
    images = torch.rand(2, 3, 32, 16, generator=torch.Generator().manual_seed(3))
    found = model.embed(images)
    numbers = [[round(float(x), 4) for x in slot.flatten()] for slot in found.embeddings]
    return {"slots": list(found.names), "numbers": numbers, "matcher": model.matcher.config}


ACTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {"search": search, "verify": verify, "embed": embed}


def answer(action: str, folder: Path) -> dict[str, Any]:
    """The answer of an action, or the error it ended with."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {"answer": ACTIONS[action](folder)}
    except OccludedReIDError as error:
        return {"refused": type(error).__name__, "said": str(error)}
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the finding
        return {"raw": "".join(traceback.format_exception_only(error)).strip(), "trace": traceback.format_exc()}


def in_child(actions: tuple[str, ...], folder: Path) -> dict[str, dict[str, Any]]:
    """Do some actions in a forked process, which may die or hang; this one has only imported."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            with os.fdopen(writing, "w") as pipe:
                for action in actions:
                    pipe.write(json.dumps([action, answer(action, folder)]) + "\n")
                    pipe.flush()
        finally:
            os._exit(0)  # whatever happens, a child must not go on as its parent would
    os.close(writing)
    told, deadline, hung = b"", time.monotonic() + LIMIT, False
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while True:
            if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
                hung = True
                os.kill(child, signal.SIGKILL)
                break
            piece = pipe.read(1 << 16)
            if not piece:
                break
            told += piece
    status = os.waitpid(child, 0)[1]
    found = dict(json.loads(line) for line in told.splitlines() if line.endswith(b"]"))
    for action in actions:
        if action not in found:
            end = f"no end after {LIMIT:.0f} s" if hung else f"signal {status & 127}, exit code {status >> 8}"
            found[action] = {"died": end}
            break
    return found


def verdict(action: str, right: dict[str, Any], found: dict[str, Any]) -> str | None:
    """What is wrong with the end of an action; None where it may end so."""
    if "died" in found:
        return f"{action}: died: {found['died']}"
    if "raw" in found:
        return f"{action}: {found['raw']}"
    if "refused" in found:
        return None
    if action == "verify":
        return "verify: sees nothing" if found["answer"]["ok"] else None
    if found != right:
        other = [key for key in right["answer"] if right["answer"][key] != found["answer"].get(key)]
        return f"{action}: another answer: {', '.join(other)}"
    return None


def places(size: int, sample: int | None, rng: random.Random) -> list[tuple[int, str]]:
    """Which bytes are changed, and how."""
    if sample is not None:
        return [(rng.randrange(size), rng.choice(list(MASKS))) for _ in range(min(sample, size))]
    if size <= SMALL:
        return [(place, rng.choice(list(MASKS))) for place in range(size)]
    return [(place, rng.choice(list(MASKS))) for place in sorted(rng.sample(range(size), PLACES))]


def flip_all(folder: Path, sample: int | None, seed: int, only: str = "") -> dict[str, Any]:
    """Change bytes of every file, one at a time, and put each back."""
    right = {}
    for actions in (("search", "verify"), ("embed",)):
        right |= in_child(actions, folder)
    for action, found in right.items():
        if "answer" not in found or found["answer"].get("ok") is False:
            raise SystemExit(f"the unharmed files already fail at {action}: {found}")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    ends: Counter[str] = Counter()
    findings: dict[str, list[str]] = {}
    cases = 0
    for file in files:
        name = file.relative_to(folder).as_posix()
        if only not in name:
            continue
        actions = ("search", "verify") if name.startswith("gallery/") else ("embed",)
        rng = random.Random(f"{seed} {kind_of(name)}")
        before = file.read_bytes()
        for place, how in places(len(before), sample, rng):
            changed = bytearray(before)
            changed[place] ^= MASKS[how]
            file.write_bytes(changed)
            try:
                found = in_child(actions, folder)
            finally:
                file.write_bytes(before)
            cases += 1
            for action in actions:
                if action not in found:  # it died before
                    continue
                ends["refused" if "refused" in found[action] else "answered"] += "answer" in found[action] or (
                    "refused" in found[action]
                )
                wrong = verdict(action, right[action], found[action])
                if wrong is not None:
                    findings.setdefault(f"{kind_of(name)}: {wrong}", []).append(f"{name} byte {place} {how}")
    return {"files": len(files), "cases": cases, **ends, "findings": findings}


def kind_of(name: str) -> str:
    """A file's name without what differs from run to run: digits, and names that are drawn."""
    parts = []
    for part in Path(name).parts:
        stem, dot, suffix = part.partition(".")
        drawn = sum(letter.isdigit() for letter in stem) > 3 or (len(stem) > 12 and "_" not in stem)
        parts.append(f"*{dot}{suffix}" if drawn or stem.isdecimal() else part)
    return "/".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, help="bytes of each file; without it all of small ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="files whose path holds this text")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        # Made by a process of its own: what has computed must not be forked.
        maker = multiprocessing.get_context("spawn").Process(target=make, args=(Path(scratch),))
        maker.start()
        maker.join()
        if maker.exitcode:
            raise SystemExit("the gallery could not be made")
        result = flip_all(Path(scratch), options.sample, options.seed, options.only)
    result["seconds"] = round(time.monotonic() - started, 1)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print({key: value for key, value in result.items() if key != "findings"})
        for what, where in result["findings"].items():
            print(f"{len(where):5d} × {what}\n        such as {where[0]}")
    raise SystemExit(1 if result["findings"] else 0)


if __name__ == "__main__":
    main()
