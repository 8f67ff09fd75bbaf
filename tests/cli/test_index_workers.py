"""`occluded-reid index` in two processes of torchrun: every image once, also when one of them is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from occluded_reid import Gallery, load_dataset
from occluded_reid.cli.workers import Worker, this_worker, wait_for
from occluded_reid.errors import GalleryError

LOST = """
import os, sys
from occluded_reid.gallery.storage.store import Store
append = Store.append
def lose(self, rows):
    if os.environ["RANK"] == "1":
        os._exit(9)  # as if the machine had gone, in the middle of a commit
    append(self, rows)
Store.append = lose
from occluded_reid.cli import main
main()
"""
RUN = "from occluded_reid.cli import main\nmain()\n"


def launch(script: Path, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    script.write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )


def test_two_processes_write_each_image_once_though_one_is_lost(people: Path, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "g"
    arguments = ["index", folder, "--model", trained / "model", "--data", people, "--dataset", "synthetic"]
    arguments += ["--split", "all", "--json"]
    broken = launch(tmp_path / "lost.py", LOST, *arguments)
    assert broken.returncode != 0
    with Gallery.open(folder) as gallery:
        assert gallery.verify().ok
        before = len(gallery)
    again = launch(tmp_path / "run.py", RUN, *arguments)
    assert again.returncode == 0, again.stderr
    told = [json.loads(part) for part in again.stdout.replace("}\n{", "}\n\0{").split("\0")]
    with Gallery.open(folder) as gallery:
        rows = gallery._searcher().rows
        keys = rows.records(range(len(rows)), ["key"]).column("key").to_pylist()
        assert gallery.verify().ok
    data = load_dataset("synthetic", people)
    images = [*data.train, *data.query, *data.gallery]
    assert max(Counter(keys).values()) == 1
    assert len(keys) == len(images)
    assert sum(part["added"] for part in told) == len(images) - before
    assert {part["worker"] for part in told} == {0, 1}


def test_a_process_that_nobody_launched_does_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert this_worker() == Worker()
    assert list(this_worker().share("abc")) == ["a", "b", "c"]


def test_shares_are_all_of_it_and_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in "012":
        monkeypatch.setenv("RANK", rank)
        shares.append("".join(this_worker().share("abcdefgh")))
    assert shares == ["adg", "beh", "cf"]


def test_waiting_ends_with_an_error() -> None:
    with pytest.raises(GalleryError, match="the gallery was not there after 0 s"):
        wait_for(lambda: False, "the gallery", 0)
