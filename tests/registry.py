"""Debian's docker-registry for tests, on loopback; with tokens, when a test wants them."""

import base64
import contextlib
import http.client
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest


def program(name):
    """An apt package's program, or a loud skip."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"apt-get install {name}")
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def registry(folder: Path, more: str = ""):
    """The address of a registry that keeps its blobs in a folder."""
    binary = program("docker-registry")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yml"
    config.write_text(f"""version: 0.1
log: {{level: info, accesslog: {{disabled: false}}}}
storage: {{filesystem: {{rootdirectory: {folder / "data"}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}", secret: test}}
{more}
""")
    log = folder / "registry.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [binary, "serve", str(config)],
            stdout=output,
            stderr=output,
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        deadline = time.monotonic() + 120  # of a busy machine
        while True:
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()  # nobody reads what it holds afterwards
        process.wait(60)


def uploads(folder: Path) -> int:
    """How many blobs were put into a registry of `registry`."""
    lines = (folder / "registry.log").read_text().splitlines()
    return sum('"PUT /v2/' in line and "/blobs/uploads/" in line for line in lines)


def head(host: str, path: str) -> int:
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request("HEAD", path)
    try:
        return connection.getresponse().status
    finally:
        connection.close()


STALL = -1
"""A fault: the body is taken, and there is no answer until the test lets go."""


class TokenRegistry:
    """A registry behind a token service: every request needs a token, and tokens run out when the test says so.

    What it lets through goes to a real registry, byte by byte.
    """

    def __init__(self, behind: str, *, user: str = "ada", password: str = "s3cret-pass", faults=()) -> None:
        self.behind, self.login = behind, base64.b64encode(f"{user}:{password}".encode()).decode()
        self.valid, self.issued, self.requests = set(), 0, []
        self.expire_at_put, self.faults = 0, list(faults)
        self.lock = threading.Lock()
        self.stalled, self.let_go = threading.Event(), threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do(self):
                outer.answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do  # noqa: N815

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.let_go.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)

    def say(self, handler, status, body=b"", headers=()):
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    def answer(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if handler.path.startswith("/token"):
            if handler.headers.get("Authorization") != f"Basic {self.login}":
                return self.say(handler, 401, b"{}")
            with self.lock:
                self.issued += 1
                token = f"token-{self.issued}"
                self.valid.add(token)
            return self.say(handler, 200, json.dumps({"token": token}).encode())
        with self.lock:
            self.requests.append((handler.command, handler.path))
            if handler.command == "PUT" and "/blobs/" in handler.path and self.expire_at_put:
                self.expire_at_put -= 1
                if not self.expire_at_put:
                    self.valid.clear()  # all that was issued so far has run out, while a body is on its way
            fault = next((f for f in self.faults if handler.command == f[0] and f[1] in handler.path), None)
            if fault:
                self.faults.remove(fault)
        if fault and fault[2] == STALL:
            self.stalled.set()
            self.let_go.wait(60)
            handler.close_connection = True  # whoever asked has gone
            return None
        if fault:
            if fault[2] == 0:
                handler.close_connection = True
                handler.connection.shutdown(socket.SHUT_RDWR)
                return None
            return self.say(handler, fault[2], b"", [("Retry-After", "1")])
        if (handler.headers.get("Authorization") or "").removeprefix("Bearer ") not in self.valid:
            scope = "repository:x:pull,push" if handler.command in ("POST", "PUT") else "repository:x:pull"
            challenge = f'Bearer realm="http://{self.host}/token",service="test",scope="{scope}"'
            return self.say(handler, 401, b"{}", [("Www-Authenticate", challenge)])
        connection = http.client.HTTPConnection(self.behind, timeout=30)
        headers = {name: value for name, value in handler.headers.items() if name.lower() != "authorization"}
        connection.request(handler.command, handler.path, body, headers)
        got = connection.getresponse()
        data = got.read()
        dropped = ("content-length", "transfer-encoding", "connection")
        kept = [(name, value) for name, value in got.getheaders() if name.lower() not in dropped]
        connection.close()
        return self.say(handler, got.status, data, kept)
