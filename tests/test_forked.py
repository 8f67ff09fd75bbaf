"""A process forked after its parent has computed is refused; it would wait for threads that it does not have."""

import os
import signal
import time

import pytest
import torch

from occluded_reid import Gallery, OccludedReIDError
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import DeviceError, GalleryError
from occluded_reid.forked import require_own_process

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
LONGEST = 60  # seconds: nothing here takes one, but a child that waits for a thread waits for ever


def in_a_fork(work, folder, threads=2):
    """What `work` says or raises in a forked child."""
    answer = folder / "answer"
    child = os.fork()
    if not child:
        try:
            torch.set_num_threads(threads)
            said = work()
        except OccludedReIDError as error:
            said = f"{type(error).__name__}: {error}"
        except BaseException as error:  # noqa: BLE001 - a child must not go on as a second test run
            said = f"raw {type(error).__name__}: {error}"
        answer.write_text(str(said))
        os._exit(0)
    end = time.monotonic() + LONGEST
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "it never ended"
        time.sleep(0.02)
    return answer.read_text()


@pytest.fixture
def images():
    return torch.zeros(2, 3, 96, 32)


def test_a_model_that_has_embedded_refuses_a_forked_child_and_says_what_to_do(tiny, images, tmp_path):
    model = tiny(num_classes=None)
    model.embed(images)
    said = in_a_fork(lambda: model.embed(images), tmp_path)
    assert said.startswith(f"{DeviceError.__name__}: process ")
    assert f"forked from process {os.getpid()}" in said
    assert "get_context('spawn')" in said


def test_a_worker_with_one_thread_has_nothing_to_wait_for(tiny, images, tmp_path):
    model = tiny(num_classes=None)
    model.embed(images)
    assert in_a_fork(lambda: len(model.embed(images)), tmp_path, threads=1) == "2"


def test_a_gallery_is_not_used_by_a_fork_of_the_process_that_opened_it(tmp_path):
    rows = PartEmbeddings(("global",), (torch.eye(3),), torch.ones(3, 1))
    with Gallery.create(tmp_path / "mall", slots={"global": 3}) as gallery:
        gallery.add(rows, keys=["a", "b", "c"])
        for use in (
            lambda: gallery.search(rows, k=1),
            lambda: gallery.add(rows, keys=["d", "e", "f"]),
            lambda: len(gallery),
        ):
            said = in_a_fork(use, tmp_path)
            assert said.startswith(f"{GalleryError.__name__}: the gallery '{tmp_path}/mall' was opened by process")
        assert len(gallery) == 3


def test_a_gallery_opened_in_the_fork_itself_is_not_searched_with_threads_that_are_missing(tmp_path):
    rows = PartEmbeddings(("global",), (torch.eye(3),), torch.ones(3, 1))
    with Gallery.create(tmp_path / "mall", slots={"global": 3}) as gallery:
        gallery.add(rows, keys=["a", "b", "c"])
        gallery.search(rows, k=1)
        said = in_a_fork(lambda: Gallery.open(tmp_path / "mall").search(rows, k=1), tmp_path)
    assert said.startswith(f"{DeviceError.__name__}: process ")
    assert "cannot search" in said


def test_the_process_that_made_it_may_use_it():
    require_own_process(os.getpid(), "the gallery", GalleryError)
    with pytest.raises(GalleryError, match=r"the gallery was opened by process -1 and is used by process"):
        require_own_process(-1, "the gallery", GalleryError)
