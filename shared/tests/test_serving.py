"""Where a command serves pages, and who may ask."""

from __future__ import annotations

import base64
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from shared.errors import UserError

from shared import serving

TOKEN = "sixteen letters."


def test_a_port_is_taken_once_and_messages_name_the_fix() -> None:
    with serving.listen("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        assert serving.address_of(bound) == f"http://127.0.0.1:{port}/"
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 is in use: give another --port"):
            serving.listen("127.0.0.1", port)
    with pytest.raises(UserError, match=r"between 0 .* and 65535"):
        serving.listen("127.0.0.1", 70_000)
    with pytest.raises(UserError, match="no address"):
        serving.listen("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("host", "own"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("name", False)]
)
def test_loopback_is_known_by_its_names(host: str, own: bool) -> None:
    assert serving.is_loopback(host) is own


def test_any_name_is_trusted_only_where_a_token_guards() -> None:
    with serving.listen("127.0.0.1", 0) as bound:
        assert "*" not in serving.trusted_hosts(bound)
        assert serving.trusted_hosts(bound, TOKEN) == ("*",)
    with serving.listen("0.0.0.0", 0) as bound:
        assert serving.trusted_hosts(bound) == ("*",)


def test_other_machines_need_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(host: str, file: Path | None = None) -> str:
        return serving.token_for(host, "A_TOKEN", file, option="--token-file")

    monkeypatch.delenv("A_TOKEN", raising=False)
    assert [asked(host) for host in ("127.0.0.1", "::1", "localhost")] == ["", "", ""]
    with pytest.raises(UserError, match=r"can be reached from other machines: set A_TOKEN, or give --token-file"):
        asked("0.0.0.0")
    monkeypatch.setenv("A_TOKEN", TOKEN)
    assert asked("0.0.0.0") == asked("127.0.0.1") == TOKEN
    monkeypatch.setenv("A_TOKEN", "short")
    with pytest.raises(UserError, match="at least 16"):
        asked("0.0.0.0")
    file = tmp_path / "token"
    with pytest.raises(UserError, match="cannot be read"):
        asked("0.0.0.0", file)
    file.write_text("another token of a file\n")
    file.chmod(0o644)
    with pytest.raises(UserError, match=r"may be read by others \(mode 0644\): chmod 600"):
        asked("0.0.0.0", file)
    file.chmod(0o600)
    assert asked("0.0.0.0", file) == "another token of a file"
    file.write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        asked("0.0.0.0", file)


@pytest.mark.parametrize(
    ("header", "right"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer {TOKEN}", True),
        ("Basic " + base64.b64encode(f"any:{TOKEN}".encode()).decode(), True),
        ("Basic " + base64.b64encode(f"{TOKEN}:any".encode()).decode(), False),
        ("Basic ???", False),
        (f"Digest {TOKEN}", False),
        (TOKEN, False),
        (f"Bearer {TOKEN}x", False),
        ("", False),
    ],
)
def test_who_brings_the_token(header: str, right: bool) -> None:
    assert serving.brings(header, TOKEN) is right


async def _application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def _answer(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=10) as reply:
        content: bytes = reply.read()
    return content


def test_a_service_answers_for_as_long_as_its_block() -> None:
    pytest.importorskip("uvicorn")
    with serving.listen("127.0.0.1", 0) as bound:
        address = serving.address_of(bound)
        with serving.served(_application, bound, "test"):
            assert _answer(f"{address}here") == b"/here"
        with serving.served(_application, bound, "test"):  # the socket was kept: no other can have taken it meanwhile
            assert _answer(f"{address}again") == b"/again"
