"""What a host of our own could save at most, and what our path costs beside a handler of ASGI that does the work alone.

The bare one is an ``asyncio.Protocol`` on httptools and uvloop that hands a request to its handler and writes the
answer once: no limits, no timeouts, no pipelining, no back-pressure, no draining, nothing of what makes a server safe.
So it is the floor of every host, and its ratio to ours bounds what replacing uvicorn can bring on the full path
(validation, metrics, limits, logs). The third side is stock uvicorn with a handler of ASGI that does nothing but the
work: parse, read or score, write. Server CPU a request, kernel included, the sides asked in turns.

    python bench/host.py [gateway|features20|features50|predict ...]

Bars: features <= 1.3x the handler of ASGI, an ONNX row <= 150 us. A ratio of 2 or more to the bare protocol on a route
is when DESIGN would have us write the host.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import feature_service
import gateway
import httptools
import lmdb
import msgspec
import numpy as np
import orjson
import pyarrow as pa
import uvicorn
import uvloop

import mainspring.server.http.host as host
import mainspring.server.process as process
from mainspring.adapters.lmdb.online_store import LmdbStore
from mainspring.cli import main as mainspring
from mainspring.features.online.keys import key_packer
from mainspring.features.online.write import upsert
from mainspring.features.view import View
from mainspring.protocols.http import Request, Router, error_response
from mainspring.protocols.native.features import add_feature_routes
from mainspring.server.http.asgi import Limits, Listener
from mainspring.server.state import WorkerState

ROUNDS, REQUESTS = 5, 6_000
_EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "flights"
_ROW = [10, 10, 5, 12, 4, 2005, 149, 1089]


class Bare(asyncio.Protocol):
    """A connection without any care, over the handlers of a listener."""

    def __init__(self, listener: Listener) -> None:
        self._router, self._guard, self._watch = listener._router, listener._guard, listener._watch
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", {}, []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        path, _, query = self._url.partition(b"?")
        asked = (self._parser.get_method().decode(), path, query, self._headers, b"".join(self._body))
        task = self._loop.create_task(self._answer(*asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, method: str, raw: bytes, query: bytes, headers: Any, body: bytes) -> None:
        began = time.perf_counter()
        request, name = None, "none"
        try:
            handler, path, stars = self._router.find(method, raw)
            name = handler.__name__
            request = Request(method, path, query, headers, body, stars)
            if self._guard is not None:
                self._guard(request)
            response = await handler(request)
        except Exception as error:
            response = error_response(error)
        more = b"".join([b"%s: %s\r\n" % header for header in response.headers])
        head = b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\n%scontent-length: %d\r\n\r\n" % (
            response.status, HTTPStatus(response.status).phrase.encode(), response.content_type, more,
            len(response.body),
        )  # fmt: skip
        self._transport.write(head + response.body)
        if self._watch is not None:
            self._watch(request, name, response.status, time.perf_counter() - began)


async def run_bare(
    listeners: Sequence[host.Bound],
    drain_seconds: float,
    started: Callable[[], Awaitable[None]],
    stopping: Callable[[], Awaitable[None]],
    asked: Callable[[int], None] = lambda number: None,
) -> None:
    """In the place of `host.run_listeners`."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    for bound in listeners:
        await loop.create_server(lambda bound=bound: Bare(bound.listener), sock=bound.socket)  # type: ignore[misc]
    await started()
    await stop.wait()
    await stopping()


async def run_by_hand(app: Any, listening: Any) -> None:
    """Stock uvicorn with an application of ASGI, until SIGTERM."""
    config = uvicorn.Config(
        app, loop="none", http="httptools", lifespan="off", log_config=None, access_log=False, server_header=False,
        date_header=False,
    )  # fmt: skip
    await uvicorn.Server(config).serve(sockets=[listening])


async def run_scorer(listeners: Sequence[host.Bound], *rest: Any) -> None:
    """In the place of `host.run_listeners`: the model that the process has loaded, by hand."""
    state = next(found for found in gc.get_objects() if isinstance(found, WorkerState))
    await run_by_hand(score_by_hand(state.models), listeners[0].socket)


async def answer(send: Any, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def features_by_hand(folder: Path, of: View, rows: pa.Table) -> Any:
    """Features and nothing else: LMDB and msgpack, no checks, no definitions."""
    raw, pack = lmdb.open(str(folder / "raw"), map_size=1 << 28), key_packer(of.id, of.keys)
    encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode
    with raw.begin(write=True) as transaction:
        for number, row in enumerate(zip(*(rows.column(c.name).to_pylist() for c in of.columns), strict=True)):
            transaction.put(pack({"k": f"e{number:06d}"}), encode(row))
    names = [feature.name for feature in of.features]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked = orjson.loads((await receive())["body"])
        keys = [pack({"k": key}) for key in asked["entities"]["k"]]
        with raw.begin() as transaction:
            found = [decode(transaction.get(key)) for key in keys]
        status, moments = {"v": "P" * len(found)}, {"v": [feature_service.NOW] * len(found)}
        await answer(send, orjson.dumps({"names": names, "rows": found, "status": status, "event_us": moments}))

    return app


def score_by_hand(models: Any) -> Any:
    """A score and nothing else: no checks, no log, no metrics."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tensor = orjson.loads((await receive())["body"])["inputs"][0]
        scores = models.get("late").scores(np.array(tensor["data"], "f4").reshape(tensor["shape"]))
        output = {"name": "score", "datatype": "FP64", "shape": [len(scores)], "data": scores.tolist()}
        await answer(send, orjson.dumps({"model_name": "late", "model_version": "1", "outputs": [output]}))

    return app


# -- the servers -------------------------------------------------------------------------------------------------------


def serve_features(side: str, port: int, folder: Path, wide: int) -> None:
    """A feature service over LMDB."""
    of = feature_service.view(1, wide)
    table = feature_service.rows(of)
    if side == "asgi":
        listening = socket.create_server(("127.0.0.1", port))
        uvloop.run(run_by_hand(features_by_hand(folder, of, table), listening))
        return
    store = LmdbStore(folder / "online", 1 << 28)
    upsert(of, store, table, time.time_ns() // 1000)
    service, router = feature_service.service(of, store), Router()
    now = lambda: feature_service.NOW  # noqa: E731
    add_feature_routes(router, lambda: {"bench": service}, feature_service.Allowed(), now, asyncio.to_thread)
    bound = host.bind("server", Listener(router, Limits(1 << 23, 30.0)), "127.0.0.1", port, "here")

    async def nothing() -> None: ...

    uvloop.run(host.run_listeners([bound], 5.0, nothing, nothing))


def serve(side: str, what: str, port: int, folder: Path) -> None:
    """One server in this process, until SIGTERM."""
    if side == "bare":
        host.run_listeners = process.run_listeners = run_bare  # type: ignore[assignment]
    if what == "gateway":
        gateway.serve_ours(port, folder)
    elif what.startswith("features"):
        serve_features(side, port, folder, int(what.removeprefix("features")))
    else:
        if side == "asgi":
            host.run_listeners = process.run_listeners = run_scorer  # type: ignore[assignment]
        mainspring(["serve", "--port", str(port)])


def requests_of(what: str) -> dict[str, bytes]:
    """What each server is asked."""
    if what == "gateway":
        return {"chat completion": gateway.post("/v1/chat/completions", gateway.BODY, gateway.KEY)}
    if what.startswith("features"):
        return {
            f"{count} x {what.removeprefix('features')} features": gateway.post(
                "/feature-services/bench/read", {"entities": {"k": [f"e{n:06d}" for n in range(count)]}}
            )
            for count in (1, 100)
        }
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, len(_ROW)], "data": _ROW}
    keys = {"origin": "JFK", "carrier": "UA", "tailnum": "N37293", "distance": 1089, "now": "2013-12-30T20:00:00Z"}
    return {
        "ONNX row": gateway.post("/v2/models/late/infer", {"inputs": [tensor]}),
        "endpoint by keys": gateway.post("/endpoint/late", keys),
    }


def compared(what: str, folder: Path) -> None:
    """Start both sides, ask them in turns, and print what a request of each costs."""
    servers, project = {}, folder
    if what == "predict":
        project = built(folder / "flights")
    sides = ("ours", "bare") if what == "gateway" else ("ours", "bare", "asgi")
    for side in sides:
        port = gateway.free_port()
        own = folder / side
        own.mkdir(exist_ok=True)
        if what == "predict":
            own = shutil.copytree(project, own / "flights")
        command = [sys.executable, str(Path(__file__).resolve()), "--serve", side, what, str(port), str(own)]
        environment = {**os.environ, "MAINSPRING_MANAGEMENT_PORT": "0"}
        servers[side] = (subprocess.Popen(command, cwd=own, env=environment, stderr=subprocess.DEVNULL), port)
    try:
        for name, request in requests_of(what).items():
            count = REQUESTS if "100" not in name else REQUESTS // 4
            there = {side: found for side, found in servers.items() if side != "asgi" or "keys" not in name}
            best = dict.fromkeys(there, float("inf"))
            for server, port in there.values():
                gateway.wait_for(port, request, server)
                measured(server.pid, port, request, count // 4)
            for _ in range(ROUNDS):
                for side, (server, port) in there.items():
                    best[side] = min(best[side], measured(server.pid, port, request, count))
            beside = ", ".join(f"{side} {us:6.1f} us ({best['ours'] / us:.2f}x)" for side, us in best.items())
            print(f"{name:<17} {beside}", flush=True)
    finally:
        gateway.stop(*(server for server, _ in servers.values()))


def measured(pid: int, port: int, request: bytes, count: int) -> float:
    """Server CPU a request in microseconds, by the scheduler's own clock."""
    before = scheduled_ns(pid)
    uvloop.run(gateway.load(port, request, count))
    return (scheduled_ns(pid) - before) / count / 1e3


def scheduled_ns(pid: int) -> int:
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def built(project: Path) -> Path:
    """The flights example, its model trained."""
    shutil.copytree(_EXAMPLE, project, ignore=shutil.ignore_patterns(".mainspring", "__pycache__"))
    if not (project / "data" / "planes.parquet").exists():
        subprocess.run([sys.executable, "data.py"], cwd=project, check=True, stdout=subprocess.DEVNULL)
    command = [sys.executable, "-m", "mainspring.cli", "apply"]
    subprocess.run(command, cwd=project, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return project


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--serve"]:
        serve(arguments[1], arguments[2], int(arguments[3]), Path(arguments[4]))
        return 0
    for what in arguments or ("gateway", "features20", "features50", "predict"):
        with tempfile.TemporaryDirectory() as folder:
            compared(what, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
