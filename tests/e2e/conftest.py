"""A real project, built and served by the real command line on free ports."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import image_kit


def mainspring(
    *words: str, cwd: Path, status: int | None = 0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would."""
    done = subprocess.run(
        [sys.executable, "-m", "mainspring.cli", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, **(env or {})},
        check=False,
    )
    if status is not None:
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def call(url: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, bytes, dict[str, str]]:
    """One HTTP request; errors are answers too."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), dict(error.headers)


@dataclass
class Served:
    project: Path
    url: str
    console: str
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def serve(project: Path, verb: str = "dev", *words: str) -> Served:
    """Start a server and wait until it is ready."""
    port, console = free_port(), free_port()
    command = [sys.executable, "-m", "mainspring.cli", verb, "--port", str(port), *words]
    if verb == "dev":
        command += ["--console-port", str(console), *([] if "--watch" in words else ["--no-watch"])]
    env = {"MAINSPRING_MANAGEMENT_PORT": str(console), "MAINSPRING_GRPC_PORT": "0", **os.environ}
    log = project / "server.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, cwd=project, env=env, stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )
    served = Served(project, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{console}", process, log)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if call(f"{served.url}/v2/health/ready")[0] == 200:
                return served
        except OSError:
            pass
        time.sleep(0.1)
    process.kill()
    raise AssertionError(log.read_text())


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that is made once for all test processes, which only read it."""
    at = factory.getbasetemp()
    made = (at.parent if "PYTEST_XDIST_WORKER" in os.environ else at) / name
    with open(f"{made}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made / "ready").exists():
            shutil.rmtree(made, ignore_errors=True)  # by one that did not come to its end
            made.mkdir()
            make(made)
            (made / "ready").touch()
    return made


def _build(folder: Path) -> None:
    mainspring("new", "shop", cwd=folder)
    mainspring("apply", cwd=folder / "shop")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template project, built once for all test processes; each has a copy, and tests that change it copy that."""
    own = tmp_path_factory.mktemp("projects") / "shop"
    shutil.copytree(once(tmp_path_factory, "built", _build) / "shop", own)
    return own


@pytest.fixture(scope="session")
def shipped(built: Path, tmp_path_factory: pytest.TempPathFactory) -> image_kit.Shipped:
    """What a first build of the template project's image has made, once for all test processes."""
    return image_kit.Shipped(once(tmp_path_factory, "shipped", lambda folder: image_kit.first_build(folder, built)))


@pytest.fixture(scope="session")
def served(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A copy of it at work; tests push to it, and those that copy the built one see nothing of that."""
    project = tmp_path_factory.mktemp("served") / "shop"
    shutil.copytree(built, project)
    found = serve(project)
    try:
        yield found
    finally:
        assert found.stop() == 0, found.log.read_text()
