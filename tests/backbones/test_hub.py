"""A hub that is out of reach is one quick message."""

import http.server
import socket
import threading

import huggingface_hub
import pytest
import timm

from occluded_reid.backbones import create_backbone, hub
from occluded_reid.backbones.hub import quick_hub, unreachable
from occluded_reid.errors import WeightsError
from occluded_reid.parsing.deeplabv3 import DeepLabV3Parser


@pytest.fixture
def server():
    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(403)
            self.end_headers()

        def log_message(self, *_): ...

    with http.server.HTTPServer(("127.0.0.1", 0), Refuses) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}/x"
        made.shutdown()


def test_whoever_answers_is_there(server):
    assert unreachable(server) is None


def test_nobody_there_is_said_with_the_reason():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        assert "refused" in str(unreachable(f"http://127.0.0.1:{taken.getsockname()[1]}/"))


def test_silence_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        why = unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.2)
    assert why is not None
    assert "no answer" in why or "timed out" in why


def test_the_hub_is_asked_once_and_its_cache_is_still_used(monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "unreachable", lambda address: asked.append(address) or "no network")
    with quick_hub() as why:
        assert why == "no network"
        assert huggingface_hub.constants.is_offline_mode()
    assert asked == [huggingface_hub.constants.ENDPOINT]
    assert not huggingface_hub.constants.is_offline_mode()
    monkeypatch.setattr(hub, "unreachable", lambda _: None)
    with quick_hub() as why:
        assert why is None
        assert not huggingface_hub.constants.is_offline_mode()


def test_without_network_the_message_names_the_ways_out(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "unreachable", lambda _: "no network")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(timm, "create_model", _fetching(timm.create_model))
    with pytest.raises(WeightsError, match=r"timm's hub \(no network\).*--weights FILE.*--weights none"):
        create_backbone("test_efficientnet", (96, 32)).load_pretrained("hub")


def _fetching(create):
    """timm's create_model, whose downloads are those of huggingface_hub."""

    def made(name, *, pretrained, **keywords):
        if pretrained:
            huggingface_hub.hf_hub_download(f"timm/{name}", "model.safetensors")
        return create(name, pretrained=False, **keywords)

    return made


def test_so_does_that_of_torchvisions_hub(monkeypatch, tmp_path):
    monkeypatch.setattr("occluded_reid.parsing.deeplabv3.unreachable", lambda _: "no network")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    parser = DeepLabV3Parser(backbone="mobilenet_v3_large", label_set="sgam5", height=64, width=32)
    with pytest.raises(WeightsError, match=r"torchvision's hub \(no network\).*--weights none"):
        parser.load_backbone("hub")
