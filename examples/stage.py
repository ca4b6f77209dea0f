"""What the demos share: the served project, a client, and how the story is told."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["BIN", "ROOT", "Client", "Server", "free_port", "progress", "running", "say", "wait_until"]

ROOT = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent


def say(text: str = "") -> None:
    print(text, flush=True)


def progress(text: str) -> None:
    """A line that the next one takes the place of; nothing where nobody looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


@dataclass
class Server:
    """``mainspring dev`` of the demo's project, in a process of its own."""

    project: Path
    port: int
    console: int
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(default_factory=Path)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.log = self.project / "server.log"
        command = [BIN / "mainspring", "dev", "--no-watch", "--port", self.port, "--console-port", self.console]
        with open(self.log, "wb") as output:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.project,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
            )
        wait_until(self.ready, 180, self)

    def ready(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise SystemExit(f"the server ended:\n{self.log.read_text()}")
        try:
            status, _ = Client(self.port).send("GET", "/v2/health/ready", None)
        except OSError:
            return False
        return status == 200

    def stop(self) -> int:
        if self.process is None or self.process.poll() is not None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int, seconds: float = 60) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)

    def send(self, method: str, path: str, body: object) -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body).encode()
        self.connection.request(method, path, data, {"content-type": "application/json"})
        answer = self.connection.getresponse()
        return answer.status, answer.read()


def wait_until(true: object, seconds: float, server: Server) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing after {seconds:.0f} s:\n{server.log.read_text()[-2000:]}")
        time.sleep(0.1)


def free_port(wanted: int) -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.close()
            with contextlib.closing(socket.socket()) as other:
                other.bind(("127.0.0.1", 0))
                return int(other.getsockname()[1])
    return wanted


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()
