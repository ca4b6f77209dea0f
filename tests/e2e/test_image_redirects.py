"""Registries that lead elsewhere for blobs: the token is for the registry alone, and is not shown to where it leads."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mainspring.deploy.image.reference import reference_of
from mainspring.deploy.image.registry import Registry

BLOB = b"a layer" * 1000
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"
TOKEN = "c2VjcmV0"


class Side(http.server.BaseHTTPRequestHandler):
    """A registry whose blobs are elsewhere, and that elsewhere; each notes what it is asked with."""

    protocol_version = "HTTP/1.1"
    elsewhere = ""
    seen: list[tuple[str, str]]

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        login = self.headers.get("Authorization", "")
        self.seen.append((f"{self.command} {self.path.partition('?')[0]}", login))
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.elsewhere:
            self._answer(201 if self.command == "PUT" else 200, BLOB if self.command == "GET" else b"")
        elif not login:
            self._answer(401, Www_Authenticate='Basic realm="registry"')
        elif self.command == "POST":
            self._answer(202, Location=f"{self.elsewhere}/upload/1")
        else:
            self._answer(307, Location=f"{self.elsewhere}/storage/blob")

    do_POST = do_PUT = do_GET  # noqa: N815 - http.server's names

    def log_message(self, *words: object) -> None:
        pass


@contextmanager
def served(elsewhere: str = "") -> Iterator[tuple[str, list[tuple[str, str]]]]:
    seen: list[tuple[str, str]] = []
    handler = type("Handler", (Side,), {"elsewhere": elsewhere, "seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}", seen
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Registry, list[tuple[str, str]], list]]:
    """A registry that asks for a login, what it saw, and what the other place saw."""
    with served() as (storage, there), served(f"http://{storage}") as (host, here):
        config = tmp_path / "config.json"
        config.write_text(f'{{"auths": {{"{host}": {{"auth": "{TOKEN}"}}}}}}')
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        registry = Registry(reference_of(f"{host}/team/shop"), sleep=lambda seconds: None)
        yield registry, here, there
        registry._wire.close()


def test_a_blob_elsewhere_is_fetched_without_the_login(login) -> None:
    registry, here, there = login
    assert registry.blob(DIGEST) == BLOB
    assert [word for _, word in here] == ["", f"Basic {TOKEN}"]
    assert there == [("GET /storage/blob", "")]


def test_an_upload_elsewhere_is_sent_without_the_login(login) -> None:
    registry, here, there = login
    registry.put_blob(DIGEST, len(BLOB), lambda: BLOB)
    assert here[-1] == ("POST /v2/team/shop/blobs/uploads/", f"Basic {TOKEN}")
    assert there == [("PUT /upload/1", "")]
