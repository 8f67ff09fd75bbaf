"""Kill -9 at random moments: a gallery must keep all that was acknowledged, and nothing by halves.

A process changes a gallery without end (add in batches, add one by one, replace, relabel, remove, erase, compact,
build_index), and says in a pipe what it begins and what is done. It is killed in the middle of an operation. A fresh
process then opens the gallery and reads all of it: what must be there is known from the pipe, up to the one operation
that was under way, of which every batch is there whole or not at all. Then the next process goes on with the same
gallery. Old versions are dropped early (with more than 12), so that many a kill comes while that is done, or while
small pieces are joined.

    python benchmarks/kills.py --kills 200 --seed 0
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.gallery import Gallery, TableRows
from occluded_reid.gallery.storage import upkeep, writer
from occluded_reid.gallery.storage.store import Store

SLOTS = {"global": 6, "part_1": 4}
BATCH = 8  # rows of one commit; an `add` has several
OPERATIONS = {
    "add": 6,
    "add_singly": 8,
    "replace": 3,
    "relabel": 3,
    "remove": 3,
    "erase": 2,
    "compact": 2,
    "build_index": 2,
}
"""How often each is drawn."""
VERSIONS_MOST, VERSIONS_KEPT = 12, 5
State = dict[str, int]
"""Key -> which content it was given last, and RELABELLED times the label that it was given since, if it was."""
RELABELLED = 1 << 40


def rows_of(state: State) -> PartEmbeddings:
    """The embeddings that these keys have: they follow from key and content, and float16 holds them exactly."""
    seeds = [
        int.from_bytes(hashlib.sha256(f"{key} {content % RELABELLED}".encode()).digest()[:8])
        for key, content in state.items()
    ]
    width = sum(SLOTS.values())
    numbers = torch.from_numpy(
        np.stack([np.random.default_rng(seed).standard_normal(width).astype(np.float16) for seed in seeds])
        if seeds
        else np.empty((0, width), np.float16)
    ).float()
    return PartEmbeddings(tuple(SLOTS), tuple(numbers.split(list(SLOTS.values()), 1)), torch.ones(len(seeds), 2))


def read(gallery: Gallery) -> tuple[list[str], list[str], PartEmbeddings]:
    """Keys, identities and embeddings of all images."""
    table = TableRows(Store(gallery.path, gallery.manifest))
    labels = table.records(range(len(table)), ["key", "identity"])
    return labels.column("key").to_pylist(), labels.column("identity").to_pylist(), table.take(range(len(table)))


# The process that is killed


def choose(rng: random.Random, state: State, life: int, number: int) -> dict[str, Any]:
    """An operation, as it is announced: what, and for which keys with which content."""
    weights = OPERATIONS if len(state) > 2 * BATCH else {"add": 1}
    kind = rng.choices(list(weights), list(weights.values()))[0]
    keys = sorted(state)
    if kind == "add":
        fresh = {f"person-{life:04d}-{number:03d}-{i:02d}": 0 for i in range(rng.randint(1, 4 * BATCH))}
        return {"kind": kind, "content": fresh}
    if kind == "add_singly":
        fresh = {f"person-{life:04d}-{number:03d}-{i:02d}": 0 for i in range(rng.randint(2, 2 * BATCH))}
        return {"kind": kind, "content": fresh}
    if kind == "replace":
        chosen = rng.sample(keys, rng.randint(1, 2 * BATCH))
        return {"kind": kind, "content": {key: state[key] % RELABELLED + 1 for key in chosen}}
    if kind == "relabel":
        return {"kind": kind, "keys": rng.sample(keys, rng.randint(1, 2 * BATCH)), "label": life * 1000 + number + 1}
    if kind in ("remove", "erase"):
        most = min(len(keys) - 1, BATCH if len(keys) < 200 else 6 * BATCH)
        return {"kind": kind, "keys": rng.sample(keys, rng.randint(1, most))}
    if kind == "compact":
        return {"kind": kind, "keep": rng.randint(1, 4)}
    return {"kind": kind, "factory": rng.choice(["Flat", "HNSW4", "IVF2,Flat"])}


def perform(gallery: Gallery, operation: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    kind = operation["kind"]
    if kind in ("add", "replace"):
        content = operation["content"]
        gallery.add(
            rows_of(content),
            keys=list(content),
            identity="0",
            metadata=[{"name": f"of {key}"} for key in content],
            replace=kind == "replace",
            progress=lambda done, _: say({"batches": done}),
        )
    elif kind == "add_singly":
        for done, (key, one) in enumerate(operation["content"].items(), 1):
            gallery.add(rows_of({key: one}), keys=[key], identity="0", metadata={"name": f"of {key}"})
            say({"batches": done})
    elif kind == "relabel":
        gallery.relabel(operation["keys"], identity=str(operation["label"]))
    elif kind == "remove":
        gallery.remove(operation["keys"])
    elif kind == "erase":
        gallery.erase(operation["keys"])
    elif kind == "compact":
        gallery.compact(operation["keep"])
    elif kind == "build_index":
        gallery.build_index(operation["factory"])


def live(folder: Path, pipe: int, seed: int, life: int) -> None:
    """Change the gallery until killed."""

    def say(line: dict[str, Any]) -> None:
        os.write(pipe, json.dumps(line).encode() + b"\n")

    writer._COMMIT_ROWS = BATCH
    upkeep.VERSIONS_MOST, upkeep.VERSIONS_KEPT = VERSIONS_MOST, VERSIONS_KEPT
    rng = random.Random(f"{seed} {life}")
    gallery = Gallery.open(folder)
    say({"begin": {"kind": "settle"}})
    gallery.add(rows_of({}), keys=[])  # whoever writes first finishes what was broken off
    say({"done": True})
    keys, _, _ = read(gallery)
    state: State = dict.fromkeys(keys, life * 1000)  # content that was never used: no replacement is a no-op
    for number in range(1_000_000):
        operation = choose(rng, state, life, number)
        say({"begin": operation})
        perform(gallery, operation, say)
        say({"done": True})
        state = after(state, operation)


def after(state: State, operation: dict[str, Any], batches: int | None = None) -> State:
    """The state that an operation leaves, or the first `batches` rows of it."""
    if "content" in operation:
        return state | dict(list(operation["content"].items())[:batches])
    if operation["kind"] == "relabel":
        return state | {key: state[key] % RELABELLED + RELABELLED * operation["label"] for key in operation["keys"]}
    return {key: content for key, content in state.items() if key not in set(operation.get("keys", ()))}


# The process that looks at what is left


def check(folder: Path, allowed: list[State], erased: State) -> dict[str, Any]:
    """Open the gallery, and say in which of the allowed states it is (None: in none), and what else is wrong."""
    before = tree(folder)
    with Gallery.open(folder) as gallery:
        keys, identities, rows = read(gallery)
        found = None
        for number, state in enumerate(allowed):
            if len(keys) == len(state) and identities == [str(state.get(key, -1) // RELABELLED) for key in keys]:
                wanted = rows_of({key: state[key] for key in keys})
                if torch.equal(rows.concatenate(), wanted.concatenate()):
                    found = number
        some = list(range(0, len(keys), max(1, len(keys) // 16)))
        missed = sum(hits[0].key != keys[i] for i, hits in zip(some, gallery.search(rows[some], 1), strict=True))
        indexed = gallery.index is not None
        quick = gallery.search(rows[some], 1, effort="auto")
        missed_by_index = sum(not hits or hits[0].key != keys[i] for i, hits in zip(some, quick, strict=True))
        report = gallery.verify()
    files = [file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()]
    texts = {key: key.encode() for key in erased}
    slot = rows_of(erased).embeddings[0].numpy()
    texts |= {f"{key} float16": row.astype(np.float16).tobytes() for key, row in zip(erased, slot, strict=True)}
    texts |= {f"{key} float32": row.tobytes() for key, row in zip(erased, slot, strict=True)}
    return {
        "state": found,
        "keys": len(keys),
        "missed": missed,
        "indexed": indexed,
        "missed_by_index": missed_by_index,
        "looked_up": len(some),
        "damaged": report.damaged,
        "changed": tree(folder) != before,
        "unfinished": report.unfinished,
        "leftovers": len(report.leftovers),
        "seen": [name for name, text in texts.items() if any(text in file for file in files)],
    }


def look_and_say(folder: Path, allowed: list[State], erased: State, pipe: int) -> None:
    os.write(pipe, json.dumps(check(folder, allowed, erased)).encode())


def tree(folder: Path) -> dict[str, str]:
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.rglob("*")) if file.is_file()
    }


# The process that kills


def forked(work: Callable[[int], object]) -> tuple[int, int]:
    """Run something in a child; returns its process number and the end of a pipe that it writes to.

    The parent never opens a table, so that LanceDB's threads are not there yet when it forks.
    """
    theirs, mine = os.pipe()
    child = os.fork()
    if child:
        os.close(mine)
        return child, theirs
    os.close(theirs)
    try:
        work(mine)
    except BaseException:  # noqa: BLE001 - the child must never go on as a second parent
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def in_child(work: Callable[[int], object]) -> bytes:
    """Run something in a child to its end; returns what it has written."""
    child, pipe = forked(work)
    text = b""
    while piece := os.read(pipe, 1 << 16):
        text += piece
    os.close(pipe)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("a process that was not to be killed has failed")
    return text


def lines_of(pipe: int, pending: bytearray) -> list[dict[str, Any]]:
    """What has arrived, line by line; waits for something."""
    pending += os.read(pipe, 1 << 16)
    *whole, rest = bytes(pending).split(b"\n")
    pending[:] = rest
    return [json.loads(line) for line in whole]


def one_kill(folder: Path, seed: int, life: int, usual: dict[str, float]) -> list[dict[str, Any]]:
    """Let a process work, kill it at a random moment of its n-th operation; returns all that it has said."""
    rng = random.Random(f"kill {seed} {life}")
    target, said, pending = rng.randint(1, 3), [], bytearray()
    child, pipe = forked(lambda mine: live(folder, mine, seed, life))
    begun, since, kind = -1, time.perf_counter(), ""
    while begun < target:
        lines = lines_of(pipe, pending)
        if not lines and not pending:
            raise SystemExit(f"life {life} ended by itself")
        for line in lines:
            now = time.perf_counter()
            if "done" in line:
                usual[kind] = 0.7 * usual.get(kind, now - since) + 0.3 * (now - since)
            elif "begin" in line:
                begun, since, kind = begun + 1, now, line["begin"]["kind"]
        said += lines
    time.sleep(rng.random() * usual.get(kind, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while arrived := lines_of(pipe, pending):
        said += arrived
    os.close(pipe)
    return said


def allowed_states(state: State, doomed: State, said: list[dict[str, Any]]) -> tuple[State, list[State], Any]:
    """Replay what was said: what is certainly erased, the states that may be found, and what was under way.

    `doomed` is what an erasure was to erase that was broken off before: the first to write finishes it.
    """
    settled, under_way, batches = False, None, 0
    rest = {key: content for key, content in state.items() if key not in doomed}
    erased: State = {}
    for line in said:
        if "begin" in line:
            under_way, batches = line["begin"], 0
        elif "batches" in line:
            batches = line["batches"]
        else:
            if not settled:
                state, settled, erased = rest, True, dict(doomed)
            if under_way["kind"] == "erase":
                erased |= {key: state[key] for key in under_way["keys"]}
            state, under_way = after(state, under_way), None
    if not settled:
        return {}, [state, rest], under_way
    if under_way is None:
        return erased, [state], None
    if "content" in under_way:
        size = 1 if under_way["kind"] == "add_singly" else BATCH
        ends = [*range(batches, len(under_way["content"]), size), len(under_way["content"])]
        return erased, [after(state, under_way, end) for end in ends], under_way
    return erased, [state, after(state, under_way)], under_way


def run(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill, check, and go on; returns the figures."""
    warnings.filterwarnings("ignore", message=".*fork")
    torch.set_num_threads(1)
    in_child(lambda _: Gallery.create(folder, slots=SLOTS).close())
    state: State = {}
    doomed: State = {}
    erased: State = {}
    usual: dict[str, float] = {}
    moments: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    began = time.perf_counter()
    for life in range(kills):
        said = one_kill(folder, seed, life, usual)
        for line in said:
            totals["operations"] += "done" in line
        gone, allowed, under_way = allowed_states(state, doomed, said)
        erased |= gone
        look = partial(look_and_say, folder, allowed, erased)
        found = json.loads(in_child(look))
        wrong = found["state"] is None or found["missed"] or found["damaged"] or found["changed"] or found["seen"]
        if wrong:
            raise SystemExit(f"kill {life} during {under_way}: {found}")
        state = allowed[found["state"]]
        if len(said) > 1:  # whoever writes has first finished an erasure that was broken off
            doomed = {}
        if under_way and under_way["kind"] == "erase":
            chosen = {key: content for key, content in allowed[0].items() if key in under_way["keys"]}
            doomed = chosen if found["unfinished"] else {}
            erased |= chosen if found["state"] == 1 and not found["unfinished"] else {}
        moments[under_way["kind"] if under_way else "between"] += 1
        totals["images"] += found["keys"]
        totals["looked_up_by_index"] += found["looked_up"] * found["indexed"]
        totals["missed_by_index"] += found["missed_by_index"] * found["indexed"]
        totals["unfinished"] += found["unfinished"]
        if (life + 1) % 20 == 0:
            print(f"{life + 1} kills, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        totals["leftovers"] += found["leftovers"] > 0
    return {
        "kills": kills,
        "seed": seed,
        "killed_during": dict(sorted(moments.items())),
        "operations_acknowledged": totals["operations"],
        "images_checked": totals["images"],
        "lost_or_half": 0,
        "erased_and_never_seen_again": len(erased),
        "looked_up_by_index": totals["looked_up_by_index"],
        "missed_by_index": totals["missed_by_index"],
        "left_files_of_broken_writes": totals["leftovers"],
        "left_an_unfinished_task": totals["unfinished"],
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep the gallery here; it must not exist")
    arguments = parser.parse_args()
    if arguments.folder is not None:
        result = run(arguments.kills, arguments.seed, arguments.folder)
    else:
        with tempfile.TemporaryDirectory() as folder:
            result = run(arguments.kills, arguments.seed, Path(folder) / "gallery")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
