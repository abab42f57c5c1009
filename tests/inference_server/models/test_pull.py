"""`pull` against a local server that speaks the part of the hub's protocol that a download uses. Real sockets."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from host_bridge.errors import ModelError
from inference_server.models.cards import Card, official_card
from inference_server.models.pull import DOWNLOADS, by_hand, fetch
from inference_server.models.store import Folder
from tests.inference_server.models.conftest import part

Cards = Callable[..., Card]
MEBI = 1 << 20


@dataclass
class Hub:
    """A repository `who/what` with one file, told how to misbehave."""

    data: bytes
    url: str = ""
    etag: str = ""
    commit: str = "a" * 40
    drop_after: list[int] = field(default_factory=list)  # one entry per GET: bytes sent before the line is cut
    stall_after: int | None = None
    status: int = 200
    redirect: bool = True
    ranges: list[str | None] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.etag = hashlib.sha256(self.data).hexdigest()


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _headers(self, status: int, length: int, **extra: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.send_header("X-Repo-Commit", hub.commit)
            self.send_header("ETag", f'"{hub.etag}"')
            for name, value in extra.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def do_HEAD(self) -> None:
            if self.path != "/who/what/resolve/main/models/tiny.pt":
                self._headers(404, 0, X_Error_Code="EntryNotFound")
            elif hub.status != 200:
                self._headers(hub.status, 0)
            elif hub.redirect:  # as for large files: the hub sends one on to its storage
                size, etag = str(len(hub.data)), f'"{hub.etag}"'
                storage = hub.url.replace("127.0.0.1", "localhost") + "/storage/1"  # another host, as in real life
                self._headers(302, 0, Location=storage, X_Linked_Size=size, X_Linked_Etag=etag)
            else:
                self._headers(200, len(hub.data))

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            hub.ranges.append(asked)
            start = int(m[1]) if (m := re.fullmatch(r"bytes=(\d+)-", asked or "")) else 0
            body = hub.data[start:]
            if start:
                whole = f"bytes {start}-{len(hub.data) - 1}/{len(hub.data)}"
                self._headers(206, len(body), Content_Range=whole)
            else:
                self._headers(200, len(body))
            cut = hub.drop_after.pop(0) if hub.drop_after else None
            if hub.stall_after is not None:
                self.wfile.write(body[: hub.stall_after])
                self.wfile.flush()
                hub.gone.wait(30)
                self.close_connection = True
            else:
                self.wfile.write(body[:cut])
                self.close_connection = cut is not None

    return Handler


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], Hub]]:
    servers: list[tuple[ThreadingHTTPServer, Hub]] = []

    def start(data: bytes) -> Hub:
        hub = Hub(data)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append((server, hub))
        return hub

    yield start
    for server, hub in servers:
        hub.gone.set()
        server.shutdown()
        server.server_close()


HUB_CARD = 'sources = [{ host = "huggingface", repo = "who/what", path = "models/tiny.pt" }]\n'


def tiny(card: Cards, more: str = "") -> Card:
    return card(HUB_CARD + more + part("bisenet", {}))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "own", True)


@pytest.mark.parametrize("redirect", [True, False])
def test_fetches_the_file_once(serve: Callable[[bytes], Hub], card: Cards, folder: Folder, redirect: bool) -> None:
    hub = serve(os.urandom(300_000))
    hub.redirect = redirect
    own = tiny(card, f'sha256 = "{hub.etag}"\nbytes = 300000\n')
    path = fetch(own, folder, endpoint=hub.url)
    assert path.read_bytes() == hub.data
    assert hub.ranges == [None]
    assert fetch(own, folder, endpoint="http://127.0.0.1:9") == path  # whole and right: nobody is asked


def test_goes_on_after_a_cut_line(serve: Callable[[bytes], Hub], card: Cards, folder: Folder) -> None:
    hub = serve(os.urandom(25 * MEBI))
    hub.drop_after = [12 * MEBI]
    assert fetch(tiny(card), folder, endpoint=hub.url).read_bytes() == hub.data
    assert hub.ranges == [None, f"bytes={10 * MEBI}-"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
def test_goes_on_after_the_process_was_killed(
    serve: Callable[[bytes], Hub], card: Cards, folder: Folder, tmp_path: Path
) -> None:
    hub = serve(os.urandom(25 * MEBI))
    hub.stall_after = 12 * MEBI
    own = tiny(card)
    code = f"""
from pathlib import Path
from inference_server.models.cards import read_cards
from inference_server.models.pull import fetch
from inference_server.models.store import Folder
card = read_cards(Path({str(tmp_path / "tiny.card.toml")!r}))[0]
fetch(card, Folder(Path({str(folder.path)!r}), True), endpoint={hub.url!r})
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    place = folder.path / DOWNLOADS / "tiny"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(p.stat().st_size >= 10 * MEBI for p in place.glob("*.partial")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    partial = next(place.glob("*.partial"))
    there = partial.stat().st_size
    assert 10 * MEBI <= there < 25 * MEBI
    hub.stall_after = None
    hub.gone.set()
    assert fetch(own, folder, endpoint=hub.url).read_bytes() == hub.data
    assert hub.ranges == [None, f"bytes={there}-"]


def test_a_new_version_on_the_server_starts_over(serve: Callable[[bytes], Hub], card: Cards, folder: Folder) -> None:
    hub = serve(os.urandom(1000))
    place = folder.path / DOWNLOADS / "tiny"
    place.mkdir(parents=True)
    (place / ("0" * 40 + ".partial")).write_bytes(b"of another version")
    (place / (hub.etag[:40] + ".partial")).write_bytes(b"x" * 2000)  # longer than what there is
    assert fetch(tiny(card), folder, endpoint=hub.url).read_bytes() == hub.data
    assert hub.ranges == [None]


def test_wrong_content_is_thrown_away(serve: Callable[[bytes], Hub], card: Cards, folder: Folder) -> None:
    hub = serve(os.urandom(1000))
    own = tiny(card, f'sha256 = "{"0" * 64}"\n')
    with pytest.raises(ModelError, match=f"expected sha256 {'0' * 64}, got {hub.etag}") as caught:
        fetch(own, folder, endpoint=hub.url)
    assert caught.value.code == "model.hash"
    assert list((folder.path / DOWNLOADS / "tiny").iterdir()) == []
    hub.etag = "1" * 64  # the server's own hash is believed where the card has none
    with pytest.raises(ModelError, match=f"expected sha256 {'1' * 64}"):
        fetch(tiny(card), folder, endpoint=hub.url)
    with pytest.raises(ModelError, match="the server's file has 1000 bytes, expected 7"):
        fetch(tiny(card, "bytes = 7\n"), folder, endpoint=hub.url)


def test_failures_name_the_reason_and_the_way_out(
    serve: Callable[[bytes], Hub], card: Cards, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = serve(b"x" * 10)
    elsewhere = card(HUB_CARD.replace("tiny.pt", "moved.pt") + part("bisenet", {}))
    with pytest.raises(ModelError, match="the server answered 404") as caught:
        fetch(elsewhere, folder, endpoint=hub.url)
    assert caught.value.code == "model.download"
    assert "faceplate models import FILE --id tiny" in caught.value.remedy
    hub.status = 403
    with pytest.raises(ModelError, match="the server answered 403"):
        fetch(tiny(card), folder, endpoint=hub.url)
    with pytest.raises(ModelError, match="could not be fetched"):
        fetch(tiny(card), folder, endpoint="http://127.0.0.1:9")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        fetch(tiny(card), folder, endpoint=hub.url)


def test_files_published_elsewhere_are_explained(folder: Folder) -> None:
    with pytest.raises(ModelError) as caught:
        fetch(official_card("e4e-ffhq"), folder)
    assert caught.value.code == "model.manual"
    assert "https://drive.google.com/file/d/1cUv_reLE6k3604or78EranS7XzuVMWeO" in caught.value.remedy
    assert "faceplate models import e4e_ffhq_encode.pt --id e4e-ffhq" in caught.value.remedy
    assert "--template vtoonify-d-any --id NAME" in by_hand(official_card("vtoonify-d-any"))
