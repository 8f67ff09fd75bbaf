"""Somebody's weights on the hub: asked for when named, safetensors and JSON alone, one quick message offline."""

from __future__ import annotations

import hashlib
import http.server
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm

from occluded_reid import Gallery, build_model, load_model
from occluded_reid.backbones import create_backbone, hub
from occluded_reid.backbones.hub_files import HubAddress, fetch
from occluded_reid.errors import GalleryError, WeightsError
from occluded_reid.evaluation.same import calibration_of
from occluded_reid.files import write_safetensors

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A server that speaks as the hub does, over some folders: ``owner/name`` -> its files."""

    def __init__(self) -> None:
        self.repositories: dict[str, Path] = {}
        self.asked: list[str] = []
        hub_ = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                parts = self.path.strip("/").split("/")
                if len(parts) < 5 or parts[2] != "resolve":
                    self.reply(200, {}, b"")
                    return
                name, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
                hub_.asked.append(file)
                folder = hub_.repositories.get(name)
                if folder is None:
                    self.reply(404, {"X-Error-Code": "RepoNotFound"}, b"")
                elif revision not in ("main", COMMIT):
                    self.reply(404, {"X-Error-Code": "RevisionNotFound"}, b"")
                elif not (folder / file).is_file():
                    self.reply(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b"")
                else:
                    content = (folder / file).read_bytes()
                    mark = hashlib.sha256(content).hexdigest()
                    self.reply(200, {"ETag": f'"{mark}"', "X-Repo-Commit": COMMIT}, content, body=body)

            def reply(self, code: int, headers: dict[str, str], content: bytes, *, body: bool = False) -> None:
                self.send_response(code)
                for key, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub()
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", made.address)
    template = made.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "unreachable", lambda _: "no network")


@pytest.fixture
def theirs(served: Hub, packaged: Path, tmp_path: Path) -> Path:
    """What somebody has put onto the hub as anna/coats: a saved model, and a pickle that nobody may touch."""
    folder = tmp_path / "theirs"
    shutil.copytree(packaged, folder)
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    served.repositories["anna/coats"] = folder
    return folder


def test_a_model_that_somebody_has_saved(
    served: Hub, theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model("hf-hub:anna/coats")
    assert model.fingerprint == load_model(theirs).fingerprint
    assert model.source == f"hf-hub:anna/coats@{COMMIT}"
    assert set(served.asked) == {"model.json", "model.safetensors", "calibration.json"}
    known = calibration_of(model)
    assert known is not None
    assert known.model == model.fingerprint
    Gallery.create(tmp_path / "mall", model=model).close()
    # From now on without the hub: by its cache.
    monkeypatch.setattr(hub, "unreachable", lambda _: "no network")
    served.asked.clear()
    assert load_model("hf-hub:anna/coats").fingerprint == model.fingerprint
    with Gallery.open(tmp_path / "mall") as mall:
        assert mall.manifest.model == model.source == mall.model.source
    assert served.asked == []
    shutil.rmtree(tmp_path / "cache")
    # A gallery may be a stranger's: what it names is not fetched by itself.
    monkeypatch.setattr(hub, "unreachable", lambda _: None)
    with (
        Gallery.open(tmp_path / "mall") as mall,
        pytest.raises(GalleryError, match=rf"--model hf-hub:anna/coats@{COMMIT}"),
    ):
        _ = mall.model
    assert served.asked == []


def test_weights_of_a_backbone(served: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    source = create_backbone("test_efficientnet", (96, 32))
    whole = timm.create_model("test_efficientnet", pretrained=False)
    write_safetensors(folder / "model.safetensors", whole.state_dict())
    write_safetensors(folder / "other" / "best.safetensors", whole.state_dict())
    served.repositories["anna/lite"] = folder
    for address, file in (
        ("hf-hub:anna/lite", "model.safetensors"),
        ("hf-hub:anna/lite@main:other/best.safetensors", "other/best.safetensors"),
    ):
        served.asked.clear()
        source.load_pretrained(address)
        assert set(served.asked) == {file}
    recipe = {"name": "own", "model": {"backbone": "test_efficientnet", "heads": {"global": "global"}}}
    model = build_model(recipe, pretrained="hf-hub:anna/lite", **{"model.input": {"height": 96, "width": 32}})
    assert model.origin.weights == "hf-hub:anna/lite"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf-hub:anna", "is no address on the hub"),
        ("hf-hub:../../etc", "is no address on the hub"),
        ("hf-hub:anna/coats:pytorch_model.bin", "only .safetensors are taken"),
        ("hf-hub:anna/coats:weights.pkl", "only .safetensors are taken"),
        ("hf-hub:anna/coats:../x.safetensors", "is no address|only .safetensors"),
        ("hf-hub:anna/coats:other.safetensors", "names a file; a model is hf-hub:anna/coats"),
        ("hf-hub:anna/nothing", "the hub has no repository hf-hub:anna/nothing"),
        ("hf-hub:anna/coats@v9", "the hub has no revision hf-hub:anna/coats@v9"),
    ],
)
def test_what_is_no_model_there(served: Hub, theirs: Path, address: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_model(address)
    assert "pytorch_model.bin" not in served.asked


def test_a_repository_without_a_model_or_without_its_file(served: Hub, theirs: Path) -> None:
    (theirs / "model.json").unlink()
    with pytest.raises(WeightsError, match=r"has no model\.json.*--weights hf-hub:anna/coats"):
        load_model("hf-hub:anna/coats")
    (theirs / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"has no 'model\.safetensors'.*hf-hub:anna/coats:NAME\.safetensors"):
        create_backbone("test_efficientnet", (96, 32)).load_pretrained("hf-hub:anna/coats")
    with pytest.raises(WeightsError, match=r"only \.safetensors and \.json are taken"):
        fetch(HubAddress("anna/coats"), "pytorch_model.bin")


@pytest.mark.usefixtures("offline")
def test_without_network_it_is_one_message(served: Hub, tmp_path: Path) -> None:
    for door in (load_model, create_backbone("test_efficientnet", (96, 32)).load_pretrained):
        with pytest.raises(
            WeightsError, match=r"of hf-hub:anna/coats could not be fetched from the hub \(no network\)"
        ):
            door("hf-hub:anna/coats")
    assert served.asked == []


def test_a_hub_that_is_not_there_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        with pytest.raises(WeightsError, match="refused"):
            load_model("hf-hub:anna/coats")
