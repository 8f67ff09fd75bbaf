from __future__ import annotations

from pathlib import Path

import pytest

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.milvus import MilvusAddress


def test_every_part_of_an_address_is_understood() -> None:
    text = "milvus://me%40home:p%2Fw@db.local:1953/mall_2?database=cams&tls=true&consistency=bounded&timeout=2.5"
    address = MilvusAddress.parse(text)
    assert address == MilvusAddress("db.local", 1953, "mall_2", "me@home", "p/w", "cams", True, "Bounded", 2.5)
    assert address.uri == "https://db.local:1953"
    assert MilvusAddress.parse("milvus://[::1]/x").uri == "http://[::1]:19530"


def test_what_is_left_out_has_a_usual_value() -> None:
    address = MilvusAddress.parse("milvus://localhost/mall")
    assert (address.port, address.user, address.tls, address.consistency) == (19530, "", False, "Strong")
    assert MilvusAddress.parse(str(Path("milvus://localhost:7/mall"))) == MilvusAddress.parse(
        "milvus://localhost:7/mall"
    )


def test_no_message_shows_the_password() -> None:
    address = MilvusAddress.parse("milvus://me:secret@localhost/mall")
    assert "secret" not in str(address) + repr(address)
    with pytest.raises(GalleryError, match=r"//me:…@localhost") as error:
        MilvusAddress.parse("milvus://me:secret@localhost/1")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("milvus:///mall", "names no server"),
        ("http://localhost/mall", "names no server"),
        ("milvus://localhost", "names the collection ''"),
        ("milvus://localhost/a/b", "names the collection 'a/b'"),
        ("milvus://localhost/1mall", "no digit first"),
        ("milvus://localhost:x/mall", "port that is no number"),
        ("milvus://localhost:99999/mall", "port that is no number"),
        ("milvus://localhost/mall?time=3", "no option is named 'time'. Did you mean 'timeout'"),
        ("milvus://localhost/mall?timeout=0", "a number of seconds above 0"),
        ("milvus://localhost/mall?timeout=soon", "timeout is 'soon'"),
        ("milvus://localhost/mall?consistency=weak", "give one of Strong, Session, Bounded, Eventually"),
        ("milvus://localhost/mall?tls=perhaps", "tls is 'perhaps'; give one of false, true"),
    ],
)
def test_what_is_wrong_is_said(text: str, match: str) -> None:
    with pytest.raises(GalleryError, match=match.replace("?", r"\?")):
        MilvusAddress.parse(text)
