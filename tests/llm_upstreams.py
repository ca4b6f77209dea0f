"""Upstreams for tests: llama.cpp's own server over TCP, and a server that answers bytes from a script."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import sys
from pathlib import Path

from mainspring.adapters.llamacpp.engine import model_path

KEY = "sk-test-not-a-secret"


@contextlib.contextmanager
def llama_server(**more):
    """llama.cpp's own server on a free port of the loopback; its address with the version."""
    told = {
        "path": str(model_path("smollm2", Path())),
        "name": "smollm2",
        "slots": 3,
        "context": 1024,
        "threads": 1,
        "gpu_layers": 0,
        "embedding": False,
        "pooling": "mean",
        "cache_ram_mib": 16,
        "template": "",
        "key": KEY,
        "socket": "127.0.0.1",
        "parent": os.getpid(),
        **more,
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "mainspring.adapters.llamacpp.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        server.stdin.write(json.dumps(told) + "\n")
        server.stdin.flush()
        yield json.loads(server.stdout.readline())["listening"] + "/v1"
    finally:
        server.kill()
        server.wait()
        server.stdin.close()
        server.stdout.close()


def response(body, *, status="200 OK", kind="application/json", **headers):
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", f"content-type: {kind}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
HANG = "hang"
LOSE = "lose"


def chunked(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def sse(*payloads):
    """Events of a stream, a payload may be any JSON or bytes."""
    data = b"".join(
        b"data: " + (one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n\n" for one in payloads
    )
    return chunked(data)


def delta(content=None, *, finish=None, index=0, **more):
    """A chunk of a chat completion."""
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "choices": [
            {"index": index, "delta": {"content": content} if content is not None else {}, "finish_reason": finish}
        ],
        **more,
    }


class _LostError(Exception):
    """The script has lost the connection."""


class Scripted:
    """A server on the running loop; each request is answered by the next of its scripts, the last for ever.

    A script is a list of bytes, sent one write each, of numbers, which are waited for in seconds, `HANG`, which waits
    until the client has left, and `LOSE`, which resets the connection.

    Attributes:
        requests: head and body of each.
        left: how many clients have left while they were answered.
    """

    def __init__(self, *scripts, tls=None):
        self.scripts = list(scripts)
        self.requests = []
        self.connections = 0
        self.left = 0
        self._tls = tls

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        scheme, host = ("https", "localhost") if self._tls else ("http", "127.0.0.1")
        self.url = f"{scheme}://{host}:{self.port}/v1"
        return self

    async def __aexit__(self, *error):
        self._server.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.lower().split(b"\r\n")
                        if line.startswith(b"content-length")
                    ),
                    0,
                )
                self.requests.append((head, await reader.readexactly(length)))
                script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                for step in script:
                    await self._step(step, reader, writer)
        except (asyncio.IncompleteReadError, ssl.SSLError, _LostError):
            pass
        except ConnectionError:
            self.left += 1
        finally:
            writer.close()

    async def _step(self, step, reader, writer):
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
        elif step == HANG:
            if not await reader.read(1):
                raise ConnectionError
            raise _LostError
        elif step == LOSE:
            writer.transport.abort()
            raise _LostError
        else:
            await asyncio.sleep(step)

    def bodies(self):
        """What was posted."""
        return [json.loads(body) for _, body in self.requests if body]


def certificates(folder):
    """A certificate authority's file and a server's context for localhost, made by openssl."""
    run = lambda *words: subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)  # noqa: E731
    run(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-days",
        "2",
        "-subj",
        "/CN=test ca",
    )
    run("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "own.key", "-out", "own.csr", "-subj", "/CN=localhost")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1", "utf-8")
    run(
        "x509",
        "-req",
        "-in",
        "own.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-out",
        "own.pem",
        "-days",
        "2",
        "-extfile",
        "names",
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "own.pem", folder / "own.key")
    return str(folder / "ca.pem"), context
