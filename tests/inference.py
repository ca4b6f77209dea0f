"""A real HTTP server that speaks the protocols of model servers, with the default embedder behind it, and faults."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from mainspring.ports.embedder import Embedder

__all__ = ["Fault", "ModelServer", "drip", "drop", "garbage", "half", "json_answer", "stall", "status"]

Fault = Callable[[BaseHTTPRequestHandler], None]


class ModelServer:
    """Serves on a free port of the loopback until closed; each request takes the next fault, if one is left.

    Attributes:
        faults: what the next requests meet; None is no fault.
        seen: path, headers and body of each request.
        running: requests under way now, and the most that were.
    """

    def __init__(self, embedder: Embedder | None = None, scores: Callable[[str, str], float] | None = None) -> None:
        self.faults: list[Fault | None] = []
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.running = self.most = 0
        self._lock = threading.Lock()
        self._embedder = embedder
        self._scores = scores or (lambda query, text: float(len(set(query.split()) & set(text.split()))))
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.serve(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self._lock:
            headers = {key.lower(): value for key, value in handler.headers.items()}
            self.seen.append((handler.path, headers, body))
            fault = self.faults.pop(0) if self.faults else None
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            if fault is None:
                json_answer(self._answer(handler.path, body))(handler)
            else:
                fault(handler)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with self._lock:
                self.running -= 1

    def _answer(self, path: str, body: Any) -> object:
        if path.endswith("/embeddings"):
            return _openai(self._vectors(body["input"]), body)
        if path.endswith("/embed"):
            return self._vectors(body["inputs"]).tolist()
        if path.endswith("/tokenize"):
            assert self._embedder is not None
            return [[{"id": 0}] * count for count in self._embedder.count(body["inputs"])]
        if path == "/rerank":
            scores = [self._scores(body["query"], text) for text in body["texts"]]
            return [{"index": place, "score": scores[place]} for place in np.argsort(scores)[::-1].tolist()]
        scores = [self._scores(body["query"], text) for text in body["documents"]]
        ranked = np.argsort(scores)[::-1][: body["top_n"]].tolist()
        return {"results": [{"index": place, "relevance_score": scores[place]} for place in ranked]}

    def _vectors(self, texts: Sequence[str]) -> np.ndarray:
        assert self._embedder is not None
        return self._embedder.embed_documents(texts)


def _openai(vectors: np.ndarray, body: Any) -> object:
    coded = body.get("encoding_format") == "base64"
    data = [
        {
            "object": "embedding",
            "index": place,
            "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode() if coded else vector.tolist(),
        }
        for place, vector in enumerate(vectors)
    ]
    return {"object": "list", "data": data[::-1], "model": body["model"], "usage": {"prompt_tokens": 1}}


def _send(handler: BaseHTTPRequestHandler, code: int, data: bytes, headers: dict[str, str] | None = None) -> None:
    handler.send_response(code)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(data)))
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


def json_answer(value: object) -> Fault:
    return lambda handler: _send(handler, 200, json.dumps(value).encode())


def status(code: int, headers: dict[str, str] | None = None, body: bytes = b'{"error": "no"}') -> Fault:
    return lambda handler: _send(handler, code, body, headers)


def garbage(handler: BaseHTTPRequestHandler) -> None:
    _send(handler, 200, b"<html>welcome to the wifi</html>")


def drop(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.close()


def half(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "100000")
    handler.end_headers()
    handler.wfile.write(b'[[0.1, 0.2, "')
    drop(handler)


def stall(seconds: float) -> Fault:
    def wait(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        drop(handler)

    return wait


def drip(seconds: float) -> Fault:
    """A byte now and then: each read is in time, the whole never."""

    def slowly(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "1000")
        handler.end_headers()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.02)
        drop(handler)

    return slowly
