"""The LLM gateway: server CPU a JSON request and a streamed chunk, every step on; beside LiteLLM and Portkey.

    python bench/gateway.py                 ours alone
    python bench/gateway.py --peers         and LiteLLM and Portkey, each put under bench/.peers by this script
    python bench/gateway.py --peer portkey  Portkey alone, in turns with ours before the same upstream; or litellm

On are: keys (hashed), limits on requests, tokens and concurrency, a budget of money, routing over two targets, prices,
and a record of every request in SQLite. Ours and LiteLLM answer from memory (LiteLLM's ``mock_response``), so that no
upstream's client counts; Portkey, which cannot, proxies to a small upstream in a process of its own, and in its lines
ours proxies there too, by the ``openai`` adapter.

Bars: <= 200 us a request, <= 15 us a chunk, >= 50x LiteLLM's and >= 5x Portkey's requests a CPU second.
Also printed, without a bar here: how long after its client has left a stream's engine is cancelled.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import uvloop

CONNECTIONS, ROUNDS = 64, 3
CHUNKS, STREAMS = 400, 64
HZ = os.sysconf("SC_CLK_TCK")
HERE = Path(__file__).resolve().parent
PEERS = HERE / ".peers"
LITELLM = "litellm==1.74.9"
LITELLM_HASH = "sha256:ab8f8a6e4d8689d3c7c4f9c3bbc7e46212cc3ebc74ddd0f3c0c921bb459c9874"
PORTKEY = "@portkey-ai/gateway@1.15.2"
BODY = {
    "model": "chat",
    "messages": [
        {"role": "system", "content": "You answer in one sentence. " * 12},
        {"role": "user", "content": "What is the difference between a process and a thread? " * 8},
    ],
    "temperature": 0.7,
    "max_tokens": 256,
}
ANSWER = "A process has its own memory; threads share one."


def cpu_seconds(pid: int) -> float:
    """Of a process and the children that it has waited for, and of those that run."""
    total = 0.0
    for found in [pid, *children(pid)]:
        fields = Path(f"/proc/{found}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / HZ
    return total


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *children(int(child))]
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def post(path: str, body: object, headers: Sequence[str] = ()) -> bytes:
    data = json.dumps(body).encode()
    more = "".join(f"{header}\r\n" for header in headers)
    more += f"content-type: application/json\r\ncontent-length: {len(data)}\r\n"
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{more}\r\n"
    return head.encode() + data


# -- load --------------------------------------------------------------------------------------------------------------


async def answer_of(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    low = head.lower()
    if b"content-length: " in low:
        length = int(low.split(b"content-length: ")[1].split(b"\r\n")[0])
        return head, await reader.readexactly(length)
    body = b""
    while True:
        size = int((await reader.readline()).strip(), 16)
        body += (await reader.readexactly(size + 2))[:-2]
        if not size:
            return head, body


async def load(port: int, request: bytes, count: int, connections: int = CONNECTIONS) -> list[bytes]:
    """Send requests over keep-alive connections; the body of the last answer of each connection."""
    bodies: list[bytes] = []

    async def connection(share: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
        body = b""
        for _ in range(share):
            writer.write(request)
            head, body = await answer_of(reader)
            assert head.startswith(b"HTTP/1.1 200"), head + body
        bodies.append(body)
        writer.close()

    await asyncio.gather(*(connection(count // connections) for _ in range(connections)))
    return bodies


def measured(pid: int, port: int, request: bytes, count: int) -> tuple[float, float, list[bytes]]:
    """Server CPU a request in microseconds, requests a second, and some of the bodies."""
    before, began = cpu_seconds(pid), time.monotonic()
    bodies = uvloop.run(load(port, request, count))
    return (cpu_seconds(pid) - before) / count * 1e6, count / (time.monotonic() - began), bodies


def wait_for(port: int, request: bytes, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            asyncio.run(load(port, request, 1, 1))
            return
        except (OSError, asyncio.IncompleteReadError, AssertionError) as error:
            if time.monotonic() > end or process.poll() is not None:
                raise SystemExit(f"the server on {port} does not answer: {error}") from error
            time.sleep(0.2)


# -- the sides ---------------------------------------------------------------------------------------------------------


def serve_ours(port: int, folder: Path, behind: int = 0) -> None:
    """Our server, in this process, until SIGTERM; it answers from memory, or by the upstream at the port `behind`."""
    from mainspring.adapters.openai.engine import open_engine
    from mainspring.adapters.openai.settings import OpenAISettings
    from mainspring.llm.cost import Price, PriceTable
    from mainspring.llm.gateway import Gateway
    from mainspring.llm.keys import digest_of
    from mainspring.llm.record import Recorder
    from mainspring.llm.store import CallStore
    from mainspring.llm.stored import StoredResponses
    from mainspring.llm.values import Key, Limits, Route, Target
    from mainspring.ports.llm import Capabilities, End, Event, Generation, Start, Text, Usage
    from mainspring.protocols.http import Request, Response, Router
    from mainspring.protocols.llm.mount import add_llm_routes
    from mainspring.server.http.asgi import Limits as Sizes
    from mainspring.server.http.asgi import Listener
    from mainspring.server.http.host import bind, run_listeners

    class Memory:
        """Answers from memory: at once, or as many pieces as were asked for, each in a turn of the loop of its own."""

        left: float = 0.0
        can = Capabilities()

        def capabilities(self) -> Capabilities:
            return self.can

        async def generate(self, request: Generation) -> AsyncIterator[Event]:
            pieces = request.sampling.max_tokens or 0
            yield Start(250)
            if pieces == 256:
                yield Text(ANSWER, 10)
                yield End(("stop",), Usage(250, 10))
                return
            try:
                for _ in range(pieces):
                    await asyncio.sleep(0)
                    yield Text(" piece", 1)
            finally:
                Memory.left = time.monotonic()
            yield End(("stop",), Usage(250, pieces))

    async def alone(request: Request) -> Response:
        return Response(200, b"{}")

    piece = b'data: {"id":"chatcmpl-' + b"x" * 160 + b'"}\n\n'

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(CHUNKS):
            await asyncio.sleep(0)
            yield piece

    async def streamed(request: Request) -> Response:
        return Response(200, content_type=b"text/event-stream", stream=pieces())

    async def left(request: Request) -> Response:
        return Response(200, json.dumps(Memory.left).encode())

    upstream = OpenAISettings(url=f"http://127.0.0.1:{behind}/v1", model="m")
    engines = [open_engine(upstream, folder) if behind else Memory() for _ in range(2)]
    targets = tuple(
        Target(name=f"u{n}", engine=engine, model="m", provider="p")  # type: ignore[arg-type]
        for n, engine in enumerate(engines)
    )
    limits = Limits(requests=10**9, tokens=10**12, concurrent=10_000, money_micro=10**15)
    keys = [Key(id=f"k{n}", digest=digest_of(f"sk-{n}"), tenant="t", limits=limits) for n in range(100)]
    prices = PriceTable([Price(provider="p", model="m", version="1", input=150_000, output=600_000)])
    recorder = Recorder([CallStore(folder / "llm.db", lambda: 1.0)])
    recorder.start()
    gateway = Gateway(
        [Route(name="chat", targets=targets, limits=limits)],
        keys=keys,
        tenants={"t": limits},
        prices=prices,
        recorder=recorder,
    )
    router = Router()
    router.add("GET", "/alone", alone)
    router.add("GET", "/streamed", streamed)
    router.add("GET", "/left", left)
    stored = StoredResponses(None, time.time)
    add_llm_routes(router, gateway, stored)
    bound = bind("server", Listener(router, Sizes(1 << 20, 30.0)), "127.0.0.1", port, "here")

    async def nothing() -> None: ...

    uvloop.run(run_listeners([bound], 5.0, nothing, nothing))
    stored.close()
    recorder.stop()
    print(json.dumps({"dropped": recorder.dropped}))


def serve_upstream(port: int) -> None:
    """A small OpenAI-shaped upstream: one answer from memory, as cheap as a protocol on the event loop can be."""
    usage = {"prompt_tokens": 250, "completion_tokens": 10, "total_tokens": 260}
    message = {"role": "assistant", "content": ANSWER}
    body = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage,
        }
    ).encode()
    whole = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body

    class Upstream(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport, self.data = transport, b""

        def data_received(self, data: bytes) -> None:
            self.data += data
            while (end := self.data.find(b"\r\n\r\n")) >= 0:
                head = self.data[:end].lower()
                length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0]) if b"content-length: " in head else 0
                if len(self.data) < end + 4 + length:
                    return
                self.data = self.data[end + 4 + length :]
                self.transport.write(whole)  # type: ignore[attr-defined]

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(serve())


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(HERE / "gateway.py"), *arguments], stdout=subprocess.DEVNULL)


def litellm(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """LiteLLM's proxy in a venv of its own, its wheel by its hash."""
    python = PEERS / "litellm" / "bin" / "python"
    if not python.exists():
        print("making a venv for LiteLLM ...", file=sys.stderr)
        venv.create(PEERS / "litellm", with_pip=True)
        pinned = folder / "litellm.txt"
        pinned.write_text(f"{LITELLM} --hash={LITELLM_HASH}\n")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", pinned], check=True)
        subprocess.run([*pip, f"{LITELLM.replace('==', '[proxy]==')}"], check=True)
    config = folder / "litellm.yaml"
    config.write_text(
        "model_list:\n"
        "  - model_name: chat\n"
        f"    litellm_params: {{model: openai/m, api_key: x, mock_response: {ANSWER!r}}}\n"
        "litellm_settings: {telemetry: false}\n"
        "general_settings: {master_key: sk-7}\n"
    )
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DISABLE_ADMIN_UI": "True"}
    command = [PEERS / "litellm" / "bin" / "litellm", "--config", config, "--port", str(port), "--host", "127.0.0.1"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def portkey(port: int) -> subprocess.Popen[bytes]:
    """Portkey's gateway, from npm."""
    folder = PEERS / "portkey"
    if not (folder / "node_modules").exists():
        print("fetching Portkey's gateway ...", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run([*npm, PORTKEY], check=True)
    script = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    command = ["node", str(script), f"--port={port}", "--headless"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def stop(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# -- what is measured --------------------------------------------------------------------------------------------------

KEY = ("authorization: Bearer sk-7",)


def ours(folder: Path, count: int) -> tuple[float, float]:
    """The best round's CPU a request and a chunk: what else runs on the machine only ever adds."""
    port = free_port()
    server = start("--serve", "ours", str(port), str(folder))
    ask = post("/v1/chat/completions", BODY, KEY)
    stream = post("/v1/chat/completions", {**BODY, "stream": True, "max_tokens": CHUNKS}, KEY)
    alone = b"GET /alone HTTP/1.1\r\nhost: x\r\n\r\n"
    best = [float("inf"), float("inf")]
    try:
        wait_for(port, ask, server)
        measured(server.pid, port, ask, count // 4)
        for number in range(ROUNDS):
            request, rate, _ = measured(server.pid, port, ask, count)
            floor, _, _ = measured(server.pid, port, alone, count)
            streams, _, bodies = measured(server.pid, port, stream, STREAMS)
            assert all(body.count(b"data: ") == CHUNKS + 3 for body in bodies), "a chunk is missing"
            chunk = (streams - request) / CHUNKS
            bare = measured(server.pid, port, b"GET /streamed HTTP/1.1\r\nhost: x\r\n\r\n", STREAMS)[0] / CHUNKS
            best = [min(best[0], request), min(best[1], chunk)]
            print(
                f"round {number + 1}: {request:6.1f} us CPU a request ({rate:,.0f}/s; HTTP alone {floor:.1f} us), "
                f"{chunk:5.2f} us a chunk (HTTP alone {bare:.2f} us)",
                flush=True,
            )
        print(f"a client's leaving reaches the engine after {leaving(port):.1f} ms")
    finally:
        stop(server)
    return best[0], best[1]


def leaving(port: int) -> float:
    """Milliseconds from a client's leaving to the engine's end, the longest of ten."""
    request = post("/v1/chat/completions", {**BODY, "stream": True, "max_tokens": 10_000_000}, KEY)
    longest = 0.0
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request)
            for _ in range(20):
                connection.recv(4096)
        left = time.monotonic()
        while (ended := float(uvloop.run(load(port, b"GET /left HTTP/1.1\r\nhost: x\r\n\r\n", 1, 1))[0])) < left:
            time.sleep(0.001)
        longest = max(longest, (ended - left) * 1e3)
    return longest


def beside_litellm(folder: Path) -> tuple[float, float]:
    """LiteLLM's and our CPU a request, in microseconds, in turns; the best round of each."""
    port, our_port = free_port(), free_port()
    process, own = litellm(folder, port), start("--serve", "ours", str(our_port), str(folder))
    best = [float("inf"), float("inf")]
    ask = post("/v1/chat/completions", BODY, KEY)
    sides = ((process, port, 64, 256), (own, our_port, 4_000, 16_000))
    try:
        for side, its_port, few, _ in sides:
            wait_for(its_port, ask, side)
            measured(side.pid, its_port, ask, few)
        for number in range(ROUNDS):
            costs = [measured(side.pid, its_port, ask, count)[0] for side, its_port, _, count in sides]
            best = [min(pair) for pair in zip(best, costs, strict=True)]
            print(
                f"round {number + 1}: LiteLLM {costs[0]:,.0f} us CPU a request, ours {costs[1]:,.1f}: "
                f"{costs[0] / costs[1]:.1f}x",
                flush=True,
            )
    finally:
        stop(process, own)
    return best[0], best[1]


def beside_portkey(folder: Path) -> tuple[float, float] | None:
    """Portkey's and our CPU a request, in microseconds, in turns before one upstream; the best round of each."""
    if shutil.which("npm") is None:
        print("Portkey is left out: apt-get install nodejs npm", file=sys.stderr)
        return None
    behind, port, our_port = free_port(), free_port(), free_port()
    upstream, process = start("--serve", "upstream", str(behind), ""), portkey(port)
    own = start("--serve", "ours", str(our_port), str(folder), str(behind))
    best = [float("inf"), float("inf")]
    headers = (
        "authorization: Bearer x",
        "x-portkey-provider: openai",
        f"x-portkey-custom-host: http://127.0.0.1:{behind}/v1",
    )
    try:
        asks = post("/v1/chat/completions", BODY, headers), post("/v1/chat/completions", BODY, KEY)
        sides = tuple(zip((process, own), (port, our_port), asks, strict=True))
        for side, its_port, ask in sides:
            wait_for(its_port, ask, side)
            answers = measured(side.pid, its_port, ask, 640)[2]
            assert all(ANSWER.encode() in answer for answer in answers), "an answer is not the upstream's"
        for number in range(ROUNDS):
            costs = [measured(side.pid, its_port, ask, 3200)[0] for side, its_port, ask in sides]
            best = [min(pair) for pair in zip(best, costs, strict=True)]
            print(
                f"round {number + 1}: Portkey {costs[0]:,.0f} us CPU a proxied request, ours {costs[1]:,.1f}: "
                f"{costs[0] / costs[1]:.1f}x",
                flush=True,
            )
    finally:
        stop(process, upstream, own)
    return best[0], best[1]


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--serve"]:
        if arguments[1] == "ours":
            serve_ours(int(arguments[2]), Path(arguments[3]), *map(int, arguments[4:]))
        else:
            serve_upstream(int(arguments[2]))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder, met = Path(temporary), list[tuple[str, bool]]()
        if "--peer" not in arguments:
            request, chunk = ours(folder, 16_000)
            met += [("200 us a request", request <= 200), ("15 us a chunk", chunk <= 15)]
        for name, bar, beside in (("litellm", 50, beside_litellm), ("portkey", 5, beside_portkey)):
            if ("--peers" in arguments or arguments[-1:] == [name]) and (both := beside(folder)) is not None:
                print(f"{name}: {both[0]:,.0f} us CPU a request, ours {both[1]:,.1f}: {both[0] / both[1]:.1f}x")
                met.append((f"{bar}x {name}", both[0] / both[1] >= bar))
    for bar, well in met:
        print(f"bar {bar}: {'met' if well else 'missed'}")
    return int(not all(well for _, well in met))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
