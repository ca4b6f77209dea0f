"""A server that is only there to be measured: its own process, its own log, and its processor time."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mainspring.errors import ServiceError

__all__ = ["Tried", "cpu_of", "tried"]

_TICKS = os.sysconf("SC_CLK_TCK")
_START_S = 120.0
_STOP_S = 60.0


class Tried(msgspec.Struct, frozen=True):
    """A server under trial.

    Attributes:
        host: where it listens.
        port: of the endpoints.
        pid: its process.
    """

    host: str
    port: int
    pid: int


@contextlib.contextmanager
def tried(project: Path, profile: str, endpoint: str) -> Iterator[Tried]:
    """Serve an endpoint of a project in a process of its own, until the block ends.

    Its predictions are logged, as they are where it is served, into a folder that is removed; no monitor sees them.

    Raises:
        ServiceError: MS-4384, it does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="mainspring-trial-") as folder:
        port = _free_port()
        own = {
            "MAINSPRING_SERVING_TRIAL": folder,
            "MAINSPRING_MANAGEMENT_ENABLED": "false",
            "MAINSPRING_GRPC_PORT": "0",
            "MAINSPRING_CONSOLE_ENABLED": "false",
            **{f"MAINSPRING_SERVER_{name}": "" for name in ("CERTIFICATE", "PRIVATE_KEY", "CLIENT_CA")},
        }
        command = [
            sys.executable,
            "-m",
            "mainspring.cli",
            "serve",
            endpoint,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        log = Path(folder) / "server.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [*command, "--project", str(project), "--profile", profile],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **own},
                start_new_session=True,
            )
        try:
            _wait(process, port, log)
            yield Tried("127.0.0.1", port, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    told = log.read_text("utf-8", "replace").strip().splitlines()
    raise ServiceError(
        "the server to be measured does not come up",
        code="MS-4384",
        why=told[-1] if told else "it said nothing",
        fix="mainspring serve tells why; a model without a champion cannot answer: mainspring apply",
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_of(pid: int) -> float:
    """Processor seconds of a process and all that it has started, as far as they live."""
    total, waiting = 0.0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / _TICKS
    return total
