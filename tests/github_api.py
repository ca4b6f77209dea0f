"""The few routes of GitHub's REST API that a comment needs, on loopback."""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "secret-token"


class GitHubApi(ThreadingHTTPServer):
    """Pull requests by their head, and their comments."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pulls = {"someone:topic": 12}
        self.comments: dict[int, dict] = {}
        self.calls: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/api/v3"

    def add(self, body: str, kind: str = "User") -> int:
        number = len(self.comments) + 1
        self.comments[number] = {"id": number, "body": body, "user": {"type": kind}}
        return number


class _Handler(BaseHTTPRequestHandler):
    server: GitHubApi

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        asked = dict(urllib.parse.parse_qsl(query))
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(data) if data else {}
        self.server.calls.append(f"{self.command} {path}")
        status, found = 404, {"message": "Not Found"}
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            status, found = 401, {"message": "Bad credentials"}
        elif (self.command, path) == ("GET", "/api/v3/repos/team/shop/pulls"):
            number = self.server.pulls.get(asked["head"])
            status, found = 200, [] if number is None else [{"number": number}]
        elif (self.command, path) == ("GET", "/api/v3/repos/team/shop/issues/12/comments"):
            page, size = int(asked["page"]), int(asked["per_page"])
            status, found = 200, list(self.server.comments.values())[(page - 1) * size : page * size]
        elif (self.command, path) == ("POST", "/api/v3/repos/team/shop/issues/12/comments"):
            status, found = 201, self.server.comments[self.server.add(body["body"], "Bot")]
        elif self.command == "PATCH" and path.startswith("/api/v3/repos/team/shop/issues/comments/"):
            self.server.comments[int(path.rpartition("/")[2])]["body"] = body["body"]
            status, found = 200, {}
        text = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PATCH = _answer  # noqa: N815


@contextmanager
def github_api() -> Iterator[GitHubApi]:
    server = GitHubApi()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
