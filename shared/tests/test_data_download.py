"""Downloads from a server in this process that breaks off, lies, is slow or is not there."""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from shared.data import fetch as make_data
from shared.data.download import extract, fetch
from shared.data.sources import FILES, SOURCES, RemoteFile
from shared.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = {"timeout": 5.0, "attempts": 2, "pause": 0.0}


class Server:
    """Serves `files`; `breaks` are the bytes after which one connection each is cut; logs (path, Range header)."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.breaks: list[int] = []
        self.statuses: list[int] = []
        self.ranges = True
        self.log: list[tuple[str, str | None]] = []
        self.done = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                server.log.append((self.path, asked))
                if self.path == "/slow":  # Answers with a beginning, then nothing until the test is over.
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    self.wfile.write(b"x" * 10)
                    self.wfile.flush()
                    server.done.wait()
                    return
                if server.statuses:
                    return self.send_error(server.statuses.pop(0))
                if self.path not in server.files:
                    return self.send_error(404)
                content, start = server.files[self.path], 0
                if asked and server.ranges:
                    start = int(asked.removeprefix("bytes=").rstrip("-"))
                    if start >= len(content):
                        return self.send_error(416)
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                end = server.breaks.pop(0) + start if server.breaks else len(content)
                self.wfile.write(content[start:end])

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server():
    server = Server()
    server.files["/set.bin"] = CONTENT
    yield server
    server.done.set()
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path / "sub" / "set.bin"


def part(place: Path) -> Path:
    return place.with_name("set.bin.part")


def error_of(*args, **options) -> str:
    with pytest.raises(UserError) as caught:
        fetch(*args, **{**QUICK, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_download_reports_its_progress_and_is_not_repeated(server, place):
    seen = []
    assert fetch(server.url + "/set.bin", place, SHA256, progress=lambda *now: seen.append(now), **QUICK) == place
    assert place.read_bytes() == CONTENT
    assert seen[-1] == (300_000, 300_000)
    assert not part(place).exists()
    fetch(server.url + "/set.bin", place, SHA256, **QUICK)
    assert server.log == [("/set.bin", None)]


def test_lost_connections_are_gone_on_from_where_they_broke(server, place):
    server.breaks = [100_000, 50_000]
    fetch(server.url + "/set.bin", place, SHA256, **QUICK)
    assert place.read_bytes() == CONTENT
    assert [asked for _, asked in server.log] == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_call_goes_on_from_what_an_interrupted_one_left(server, place):
    server.breaks = [100_000, 0, 0]
    message = error_of(server.url + "/set.bin", place, SHA256)
    assert "(the connection was closed early); 100000 bytes are kept, run it again to go on" in message
    assert not place.exists()
    assert part(place).read_bytes() == CONTENT[:100_000]
    server.log.clear()
    fetch(server.url + "/set.bin", place, SHA256, **QUICK)
    assert place.read_bytes() == CONTENT
    assert server.log == [("/set.bin", "bytes=100000-")]


def test_an_interrupt_from_the_keyboard_keeps_what_came(server, place):
    def stop(done: int, total: int | None) -> None:
        if done > 50_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.url + "/set.bin", place, SHA256, progress=stop, **QUICK)
    assert not place.exists()
    fetch(server.url + "/set.bin", place, SHA256, **QUICK)
    assert place.read_bytes() == CONTENT
    start = int(server.log[-1][1].removeprefix("bytes=").rstrip("-"))
    assert 50_000 < start < 300_000


def test_a_server_without_ranges_starts_again(server, place):
    server.ranges, server.breaks = False, [100_000]
    fetch(server.url + "/set.bin", place, SHA256, **QUICK)
    assert place.read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"of another file", CONTENT + b"more"], ids=["other", "longer"])
def test_remains_of_another_file_are_thrown_away(server, place, left):
    place.parent.mkdir()
    part(place).write_bytes(left)
    fetch(server.url + "/set.bin", place, SHA256, **QUICK)
    assert place.read_bytes() == CONTENT
    assert server.log[-1] == ("/set.bin", None)


def test_a_whole_part_file_needs_no_more_bytes(server, place):
    place.parent.mkdir()
    part(place).write_bytes(CONTENT)
    fetch(server.url + "/set.bin", place, SHA256, **QUICK)
    assert place.read_bytes() == CONTENT
    assert server.log == [("/set.bin", "bytes=300000-")]


def test_wrong_content_never_gets_the_name(server, place):
    server.files["/set.bin"] = wrong = b"<html>log in to this network</html>"
    message = error_of(server.url + "/set.bin", place, SHA256)
    assert f"SHA-256 {hashlib.sha256(wrong).hexdigest()} instead of {SHA256}" in message
    assert f"put it at {place}" in message
    assert list(place.parent.iterdir()) == []


def test_a_damaged_destination_is_replaced_only_by_the_right_content(server, place):
    place.parent.mkdir()
    place.write_bytes(b"damaged")
    server.files["/set.bin"] = b"wrong"
    error_of(server.url + "/set.bin", place, SHA256)
    assert place.read_bytes() == b"damaged"
    server.files["/set.bin"] = CONTENT
    fetch(server.url + "/set.bin", place, SHA256, **QUICK)
    assert place.read_bytes() == CONTENT


def test_not_found_is_not_tried_again(server, place):
    message = error_of(server.url + "/gone", place, SHA256)
    assert message == (
        f"{server.url}/gone answers 404 Not Found: get set.bin on another machine (SHA-256 {SHA256}) "
        f"and put it at {place}, then run this again"
    )
    assert len(server.log) == 1


def test_a_busy_server_is_tried_again(server, place):
    server.statuses = [503]
    fetch(server.url + "/set.bin", place, SHA256, **QUICK)
    assert len(server.log) == 2
    server.statuses = [503, 503]
    assert "(the server answers 503 Service Unavailable)" in error_of(
        server.url + "/set.bin", place.with_name("b"), SHA256
    )


def test_a_slow_server_is_given_up(server, place):
    message = error_of(server.url + "/slow", place, SHA256, timeout=0.1, attempts=1)
    assert "(no answer for 0.1 seconds)" in message
    assert part(place).read_bytes() == b"x" * 10


def test_no_connection_says_what_to_put_where(place):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/set.bin"
        message = error_of(url, place, SHA256)  # bound but not listening: refused
    assert message == (
        f"cannot download {url} (Connection refused); without this connection, get set.bin on another machine "
        f"(SHA-256 {SHA256}) and put it at {place}, then run this again"
    )


def test_a_place_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    message = error_of(server.url + "/set.bin", tmp_path / "file" / "set.bin", SHA256)
    assert message.startswith("cannot write ")
    assert "check its permissions" in message


# -- archives ---------------------------------------------------------------------------------------------------------


def archive(path: Path, members: dict[str, bytes | str]) -> Path:
    """A .tar.gz of files (bytes) and symbolic links (str)."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def test_extract_takes_the_folder_and_nothing_else(tmp_path):
    packed = archive(tmp_path / "a.tar.gz", {"set/a.bin": b"new", "../evil": b"x", "other/b": b"x"})
    root = tmp_path / "in" / "root"
    extract(packed, "set", root)
    assert [str(p.relative_to(root)) for p in sorted(root.rglob("*"))] == ["set", "set/a.bin"]
    assert not (tmp_path / "in" / "evil").exists()
    (root / "set" / "a.bin").write_bytes(b"damaged")
    (root / "set" / "mine").write_bytes(b"mine")
    extract(packed, "set", root)
    assert (root / "set" / "a.bin").read_bytes() == b"new"
    assert (root / "set" / "mine").read_bytes() == b"mine"


@pytest.mark.parametrize("members", [{"set/../../../evil": b"x"}, {"set/link": "/etc/passwd"}], ids=["path", "link"])
def test_unsafe_archives_are_refused_whole(tmp_path, members):
    packed = archive(tmp_path / "a.tar.gz", {"set/a.bin": b"a", **members})
    root = tmp_path / "in" / "root"
    with pytest.raises(UserError, match=r"a.tar.gz is unsafe: .*; it was not extracted, delete it$"):
        extract(packed, "set", root)
    assert sorted(tmp_path.rglob("*")) == [packed, tmp_path / "in", root]


def test_damaged_archives(tmp_path):
    packed = archive(tmp_path / "a.tar.gz", {"set/a.bin": CONTENT})
    whole = packed.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    block = bytearray(gzip.compress(gzip.decompress(whole)))
    block[10] |= 6  # a kind of block that deflate does not have
    no_tar = gzip.compress(b"text" * 1000)
    for content in (b"no archive", no_tar, whole[: len(whole) // 2], whole[:-4], bytes(flipped), bytes(block)):
        packed.write_bytes(content)
        with pytest.raises(UserError, match=r"a.tar.gz is damaged \(.*\): delete it and run `make data`$"):
            extract(packed, "set", tmp_path / "root")
        assert list((tmp_path / "root").iterdir()) == []
    packed.write_bytes(whole)
    with pytest.raises(UserError, match="has no folder cifar in it"):
        extract(packed, "cifar", tmp_path / "root")


# -- make data --------------------------------------------------------------------------------------------------------

X, Y = np.random.default_rng(1).integers(0, 256, (10, 28, 28), dtype=np.uint8), np.arange(10)


def idx(array: np.ndarray) -> bytes:
    head = [2048 + array.ndim, *array.shape]
    return b"".join(n.to_bytes(4, "big") for n in head) + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist_server(server):
    """A small MNIST; the first address of each file is gone, the second serves it."""
    sources = []
    for remote in SOURCES["mnist"]:
        content = idx(X if "images" in remote.name else Y)
        server.files["/" + remote.name] = content
        urls = (f"{server.url}/gone/{remote.name}", f"{server.url}/{remote.name}")
        sources.append(RemoteFile(remote.path, urls, len(content), hashlib.sha256(content).hexdigest()))
    server.sources = {"mnist": tuple(sources)}
    return server


def test_make_data_fetches_what_is_missing_from_whichever_address_has_it(mnist_server, tmp_path):
    detail = make_data.fetch_dataset("mnist", tmp_path, mnist_server.sources, **QUICK)
    assert "10 training and 10 test images" in detail
    mnist_server.log.clear()
    assert make_data.fetch_dataset("mnist", tmp_path, mnist_server.sources, **QUICK) == detail
    assert mnist_server.log == []
    (tmp_path / SOURCES["mnist"][3].path).write_bytes(b"damaged")
    make_data.fetch_dataset("mnist", tmp_path, mnist_server.sources, **QUICK)
    assert mnist_server.log == [
        ("/gone/t10k-labels-idx1-ubyte.gz", None),
        ("/t10k-labels-idx1-ubyte.gz", None),
    ]


def test_make_data_leaves_another_compression_of_a_sound_file_alone(mnist_server, tmp_path):
    file = tmp_path / SOURCES["mnist"][0].path
    file.parent.mkdir(parents=True)
    file.write_bytes(mine := gzip.compress(idx(X), 1))
    for _ in range(2):
        make_data.fetch_dataset("mnist", tmp_path, mnist_server.sources, **QUICK)
        assert file.read_bytes() == mine
    assert ("/train-images-idx3-ubyte.gz", None) not in mnist_server.log


def test_make_data_replaces_sound_files_that_do_not_go_together(mnist_server, tmp_path):
    make_data.fetch_dataset("mnist", tmp_path, mnist_server.sources, **QUICK)
    (tmp_path / SOURCES["mnist"][1].path).write_bytes(idx(Y[:-1]))
    mnist_server.log.clear()
    make_data.fetch_dataset("mnist", tmp_path, mnist_server.sources, **QUICK)
    assert mnist_server.log[-1] == ("/train-labels-idx1-ubyte.gz", None)
    assert len(mnist_server.log) == 2


def test_make_data_unpacks_cifar10_and_removes_the_archive(server, tmp_path):
    record = bytes([3]) + bytes(3072)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    packed = archive(tmp_path / "a.tar.gz", {f"cifar-10-batches-bin/{name}": record for name in names}).read_bytes()
    server.files["/cifar.tar.gz"] = packed
    remote = RemoteFile("c.tar.gz", (server.url + "/cifar.tar.gz",), len(packed), hashlib.sha256(packed).hexdigest())
    root = tmp_path / "root"
    assert "5 training and 1 test images" in make_data.fetch_dataset("cifar10", root, {"cifar10": (remote,)}, **QUICK)
    assert not (root / "c.tar.gz").exists()


def test_an_archive_put_there_by_hand_is_unpacked_without_a_connection(tmp_path):
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    packed = archive(tmp_path / "c.tar.gz", {f"cifar-10-batches-bin/{name}": bytes(3073) for name in names})
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    remote = RemoteFile("c.tar.gz", ("http://127.0.0.1:1/none",), 1, digest)
    make_data.fetch_dataset("cifar10", tmp_path, {"cifar10": (remote,)}, **QUICK)
    assert (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").stat().st_size == 3073


def test_make_data_goes_on_after_a_set_it_cannot_have(monkeypatch, tmp_path, capsys):
    def refuse(url: str, destination: Path, sha256: str, **_: object) -> None:
        raise UserError(f"cannot download {url}")

    monkeypatch.setattr(make_data.download, "fetch", refuse)
    assert make_data.main(["--root", str(tmp_path), "cifar10", "mnits", "digits"]) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 2
    assert (
        out
        == "digits: scikit-learn's digits: 1,797 scanned digits of 8x8 pixels, 1,297 for training and 500 for testing\n"
    )
    assert "error: cannot download https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz\n" in err
    assert (
        "error: unknown data set 'mnits': there are digits, mnist, fashion_mnist, cifar10; did you mean mnist?" in err
    )


def test_make_data_lists_address_size_digest_and_place(tmp_path, capsys):
    assert make_data.main(["--list", "--root", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 14
    assert lines[-5].split()[-1] == str(tmp_path / "topography" / "srtmp300.msl")
    assert lines[-1].split() == [
        "https://gwosc.org/s/events/GW170104/L-L1_LOSC_4_V1-1167559920-32.hdf5",
        "-",
        "-",
        f"{tmp_path}/gwosc/L-L1_LOSC_4_V1-1167559920-32.hdf5",
    ]
    assert lines[-6].split() == [
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "170052171",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        f"{tmp_path}/cifar-10-binary.tar.gz",
    ]


def test_make_data_fetches_a_single_file_and_mends_a_damaged_one(server, tmp_path):
    server.files["/topography.msl"] = content = b"  1  0 1.0 0.0\n"
    remote = RemoteFile(
        "topography/t.msl", (server.url + "/topography.msl",), len(content), hashlib.sha256(content).hexdigest()
    )
    assert "topography" in make_data.fetch_file("topography", tmp_path, [remote], **QUICK)
    assert (tmp_path / remote.path).read_bytes() == content
    make_data.fetch_file("topography", tmp_path, [remote], **QUICK)
    assert len(server.log) == 1  # what is there is left alone
    (tmp_path / remote.path).write_bytes(b"damaged")
    make_data.fetch_file("topography", tmp_path, [remote], **QUICK)
    assert (tmp_path / remote.path).read_bytes() == content


def test_make_data_fetches_files_without_a_digest_and_says_so(server, tmp_path):
    content = b"\x89HDF" + CONTENT
    server.files["/h"], server.files["/l"] = content, b"<html>log in to this network</html>"
    files = [RemoteFile(f"gwosc/{name}", (f"{server.url}/{name}",), 0, "", b"\x89HDF") for name in "hl"]
    (tmp_path / "gwosc").mkdir()
    (tmp_path / "gwosc" / "h.part").write_bytes(b"\x89HDF of another file")  # nothing could tell that it is one
    told = make_data.fetch_file("gw170104", tmp_path, files[:1], **QUICK)
    assert (tmp_path / "gwosc" / "h").read_bytes() == content
    assert told.endswith(f"; not verified, no digest is known to compare with: h {hashlib.sha256(content).hexdigest()}")
    assert server.log == [("/h", None)]
    make_data.fetch_file("gw170104", tmp_path, files[:1], **QUICK)
    assert len(server.log) == 1  # what is there is left alone
    with pytest.raises(UserError, match=r"/l does not give the expected file: it begins with b'<htm' instead of"):
        make_data.fetch_file("gw170104", tmp_path, files, **QUICK)
    assert sorted(path.name for path in (tmp_path / "gwosc").iterdir()) == ["h"]
    server.breaks = [100_000, 100_000]  # a broken connection is still gone on from
    (tmp_path / "gwosc" / "h").write_bytes(b"damaged")
    make_data.fetch_file("gw170104", tmp_path, files[:1], **QUICK)
    assert (tmp_path / "gwosc" / "h").read_bytes() == content


def test_events_are_files_of_both_detectors_and_theirs_is_the_digest_where_one_is_known():
    for name, start in (("gw150914", 1126259446), ("gw170104", 1167559920)):
        files = FILES[name][1]
        assert [file.name[:4] for file in files] == ["H-H1", "L-L1"]
        assert all(str(start) in url and url.endswith(file.name) for file in files for url in file.urls)
        assert all((not file.sha256) == (name == "gw170104") and file.begins for file in files)
