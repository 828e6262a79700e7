"""The demo's service without a browser: what it tells, and what it refuses."""

from __future__ import annotations

import io
import json
import random
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from shared.errors import UserError
from spatial_textvqa.ask import Asker
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.demo import app as demo
from spatial_textvqa.demo import serve

OCR = json.dumps([{"text": "EXIT", "box": [10, 20, 60, 35]}]).encode()


def picture(kind: str = "PNG", size: tuple[int, int] = (100, 50), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def service(small_checkpoint: Path, shown_scenes: list[Sample]) -> Any:
    return demo.create_app(Asker.load(small_checkpoint), shown_scenes)


@pytest.fixture
def client(service: Any) -> Iterator[TestClient]:
    with TestClient(service, base_url="http://127.0.0.1:8018") as client:
        yield client


def upload(client: TestClient, **files: bytes) -> Any:
    return client.post("/api/upload", files={name: ("../../etc/passwd", content) for name, content in files.items()})


def test_the_page_asks_for_nothing_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/page.css", "/page.js"):
        reply = client.get(path)
        assert reply.status_code == 200
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert not re.search(r"https?://|//[a-z]+\.", reply.text.replace("http://www.w3.org/2000/svg", ""))


def test_a_scene_is_asked_and_its_question_flipped(client: TestClient, shown_scenes: list[Sample]) -> None:
    assert client.get("/api/start").json()["scenes"] == len(shown_scenes)
    scene = client.get("/api/scene/1").json()
    assert scene["question"] == shown_scenes[1].question
    found = client.post("/api/ask", json={"picture": scene["picture"], "question": scene["question"]}).json()
    assert found["answer"] == shown_scenes[1].answers[0]
    assert found["words"][0]["source"] == "OCR"
    assert found["edges"]
    assert all(edge["text"].startswith(f"“{found['answer']}” ") for edge in found["edges"])
    flipped = client.post("/api/flip", json={"question": scene["question"]}).json()["question"]
    assert shown_scenes[1].flipped is not None
    assert flipped == shown_scenes[1].flipped[0]
    found = client.post("/api/ask", json={"picture": scene["picture"], "question": flipped}).json()
    assert found["answer"] == shown_scenes[1].flipped[1]


def test_an_upload_is_shown_and_asked_whatever_its_name(client: TestClient) -> None:
    objects = json.dumps([{"box": [0, 0, 65, 50], "label": "<b>door</b>"}]).encode()
    told = upload(client, image=picture(), ocr=OCR, objects=objects).json()
    assert "passwd" not in json.dumps(told)
    assert "data:image/jpeg;base64," in told["svg"]
    assert "&lt;b&gt;door" in told["svg"]
    assert told["notes"] == ["the objects have no features: the network knows their places, not what they look like"]
    found = client.post("/api/ask", json={"picture": told["picture"], "question": "left red square"})
    assert found.status_code == 200
    assert found.json()["notes"][0] == told["notes"][0]


def test_an_upload_of_an_ocr_file_that_tells_its_size_needs_no_picture(client: TestClient) -> None:
    ocr = json.dumps({"width": 100, "height": 50, "ocr": json.loads(OCR)}).encode()
    assert "<image" not in upload(client, ocr=ocr).json()["svg"]


REFUSED: dict[str, tuple[dict[str, bytes], int, str]] = {
    "no ocr": ({"image": picture()}, 422, "choose an OCR file"),
    "no size": ({"ocr": OCR}, 422, "the OCR file: does not say the image's size"),
    "shape": ({"image": picture(), "ocr": b'{"a": 1}'}, 422, "the OCR file: expected a list of"),
    "no text": ({"image": picture(), "ocr": b"\xff\xfe"}, 422, "the OCR file: expected UTF-8 text"),
    "nan": ({"image": picture(), "ocr": b'[{"text": "A", "box": [NaN, 0, 1, 1]}]'}, 422, "word 0 ('A'): box [nan,"),
    "deep": ({"image": picture(), "ocr": b"[" * 100_000}, 422, "the OCR file"),
    "gif": ({"image": picture("GIF"), "ocr": OCR}, 422, "the picture: not an image of a kind that is read here"),
    "script": ({"image": b"<svg onload='x'/>", "ocr": OCR}, 422, "the picture: not an image of a kind"),
    "half": ({"image": picture(size=(600, 600))[:400], "ocr": OCR}, 422, "the picture: the image is damaged"),
    "50 megapixels": ({"image": picture(size=(10_000, 5_000), mode="1"), "ocr": OCR}, 422, "50.0 megapixels"),
    "large ocr": ({"image": picture(), "ocr": b" " * (2**20 + 1)}, 413, "the OCR file is larger than 1 MB"),
    "large image": ({"image": b" " * (8 * 2**20 + 1), "ocr": OCR}, 413, "the picture is larger than 8 MB"),
    "larger": ({"image": b" " * (11 * 2**20), "ocr": OCR}, 413, "are too much: at most 10.1 MB"),
    "objects": ({"image": picture(), "ocr": OCR, "objects": b"{}"}, 422, "the objects file: found None"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_upload_that_is_wrong_is_refused_in_one_line(client: TestClient, what: str) -> None:
    files, status, message = REFUSED[what]
    reply = upload(client, **files)
    assert (reply.status_code, message in reply.json()["error"]) == (status, True), reply.text[:300]
    assert "\n" not in reply.json()["error"]
    assert "nosniff" in reply.headers["x-content-type-options"]


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"\xff", b"{", b'{"picture": 1, "question": "a"}', b'{"picture": "x"}']
)
def test_a_request_that_is_none_is_refused(client: TestClient, content: bytes) -> None:
    reply = client.post("/api/ask", content=content)
    assert reply.status_code == 422
    assert reply.json()["error"]


def test_questions_that_cannot_be_asked(client: TestClient) -> None:
    for question, message in (
        ("quo vadis", "no word of the question"),
        ("", "not blank"),
        ("w" * 1001, "1001 characters"),
    ):
        reply = client.post("/api/ask", json={"picture": "scene-0", "question": question})
        assert (reply.status_code, message in reply.json()["error"]) == (422, True)
    assert client.post("/api/ask", content=b"x" * 70_000).status_code == 413
    assert "no spatial word" in client.post("/api/flip", json={"question": "what is it"}).json()["error"]


@pytest.mark.parametrize("name", ["scene-99", "../scene-0", "", "x" * 1000])
def test_a_picture_that_is_not_there(client: TestClient, name: str) -> None:
    reply = client.post("/api/ask", json={"picture": name, "question": "left red square"})
    assert (reply.status_code, reply.json()["error"][:33]) == (422, "this picture is no longer here: s")


@pytest.mark.parametrize(
    "path", ["/api/scene/99", "/api/scene/x", "/../app.py", "/%2e%2e/app.py", "/page.py", "/api/scene/-1"]
)
def test_no_path_leads_to_a_file(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (404, 422)


def test_pages_of_other_sites_are_refused(client: TestClient) -> None:
    asked = {"picture": "scene-0", "question": "left red square"}
    assert client.post("/api/ask", json=asked, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.post("/api/ask", json=asked, headers={"origin": "null"}).status_code == 403
    assert client.post("/api/ask", json=asked, headers={"host": "evil.example:8018"}).status_code == 400
    assert client.post("/api/ask", json=asked, headers={"origin": "http://127.0.0.1:8018"}).status_code == 200


def test_a_request_has_to_tell_its_length(client: TestClient) -> None:
    def slowly() -> Iterator[bytes]:
        yield b"{}"

    assert client.post("/api/ask", content=slowly()).status_code == 411


def test_only_the_last_uploads_are_kept(small_checkpoint: Path) -> None:
    shelf = demo.Shelf({})
    shown = demo.Shown(demo.Picture("x", 1, 1), "", "", ())
    names = [shelf.put(shown) for _ in range(demo.KEPT + 1)]
    with pytest.raises(UserError, match="no longer here"):
        shelf.get(names[0])
    assert shelf.get(names[1]) is shown


def test_nothing_is_written(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    upload(client, image=picture(), ocr=OCR)
    assert list(tmp_path.iterdir()) == []


def test_a_large_upload_is_not_written_either(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def written(*_: object, **__: object) -> None:
        raise AssertionError("a part was written to a temporary file")

    monkeypatch.setattr(tempfile, "TemporaryFile", written)
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", written)
    side, noise = 836, random.Random(0).randbytes(836 * 836 * 3)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (side, side), noise).save(buffer, "PNG", compress_level=0)
    assert len(buffer.getvalue()) > 2 * 2**20
    assert "data:image/jpeg" in upload(client, image=buffer.getvalue(), ocr=OCR).json()["svg"]


@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000])
def test_numbers_and_texts_that_are_none_are_refused_in_one_line(client: TestClient, number: str) -> None:
    ocr = f'[{{"text": "A", "box": [1, {number}, 3, 4]}}]'.encode()
    reply = upload(client, image=picture(), ocr=ocr)
    assert (reply.status_code, "has a coordinate that is not finite" in reply.json()["error"]) == (422, True)
    for path in ("/api/ask", "/api/flip"):
        asked = b'{"picture": "scene-0", "question": "left \\ud800"}'
        reply = client.post(path, content=asked)
        assert (reply.status_code, "half of a surrogate pair" in reply.json()["error"]) == (422, True)


def test_an_error_of_the_program_is_answered_in_the_usual_form(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(question: str) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(demo, "flip_question", broken)
    reply = client.post("/api/flip", json={"question": "left"})
    assert reply.status_code == 500
    assert reply.json()["error"].startswith("the demo failed at this request")
    assert "secret" not in reply.text
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert "RuntimeError: secret" in caplog.text


def test_an_upload_in_another_form_is_refused(client: TestClient) -> None:
    assert client.post("/api/upload", content=b"x").status_code == 422
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/api/upload", content=b"--y\r\n", headers=kind).status_code == 400


def test_other_machines_need_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(serve.VARIABLE, raising=False)
    assert serve.token_for("127.0.0.1") == ""
    with pytest.raises(UserError, match=r"--host 0\.0\.0\.0 can be reached from other machines: set SPATIAL"):
        serve.serve_until_stopped(tmp_path / "none.ckpt", "0.0.0.0", 0, "none")
    monkeypatch.setenv(serve.VARIABLE, "short")
    with pytest.raises(UserError, match="at least 16 characters"):
        serve.token_for("0.0.0.0")
    monkeypatch.setenv(serve.VARIABLE, "sixteen letters.")
    assert serve.token_for("0.0.0.0") == "sixteen letters."
    file = tmp_path / "token"
    with pytest.raises(UserError, match="cannot be read"):
        serve.token_for("0.0.0.0", file)
    file.write_text("another token of a file\n")
    file.chmod(0o644)
    with pytest.raises(UserError, match="may be read by others"):
        serve.token_for("0.0.0.0", file)
    file.chmod(0o600)
    assert serve.token_for("0.0.0.0", file) == "another token of a file"


def test_a_token_is_asked_for(small_checkpoint: Path, shown_scenes: list[Sample]) -> None:
    service = demo.create_app(Asker.load(small_checkpoint), shown_scenes[:1], ("*",), "sixteen letters.")
    with TestClient(service) as client:
        for headers in ({}, {"authorization": "Bearer sixteen letters"}, {"authorization": "Basic ???"}):
            reply = client.get("/api/start", headers=headers)
            assert (reply.status_code, reply.json()) == (401, {"error": "a token is needed"})
            assert "nosniff" in reply.headers["x-content-type-options"]
        assert client.get("/api/start", headers={"authorization": "Bearer sixteen letters."}).status_code == 200
        assert client.get("/api/start", auth=("any", "sixteen letters.")).status_code == 200
