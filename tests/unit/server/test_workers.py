"""The parent of workers, over processes that end as the tests want."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from mainspring.choose.services import Services
from mainspring.errors import ConfigError, ServiceError
from mainspring.server.workers.ports import check_platform, hold
from mainspring.server.workers.supervisor import Supervisor, pause_after

ANSWERS = "import socket,sys,time; s=socket.socket(fileno=0); s.sendall(b'1'); "
STAYS = ANSWERS + "time.sleep(600)"


def supervised(codes: Sequence[str], told: list[str], drain: float = 5.0) -> Supervisor:
    """A parent whose n-th process runs the n-th code; the last one is run again and again."""
    begun: list[int] = []

    def start(number: int, link: socket.socket) -> subprocess.Popen[bytes]:
        code = codes[min(len(begun), len(codes) - 1)]
        begun.append(number)
        return subprocess.Popen([sys.executable, "-c", code], stdin=link.fileno())

    return Supervisor(2, start, lambda number: told.append(f"ended {number}"), told.append, drain)


def stop_when(told: list[str], line: str) -> threading.Thread:
    """Send SIGTERM to this process, whose main thread the parent runs in, when something has been told."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while not any(line in found for found in told) and time.monotonic() < deadline:
            time.sleep(0.01)
        signal.raise_signal(signal.SIGTERM)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_pauses_double_up_to_half_a_minute() -> None:
    pauses = [pause_after(failures) for failures in (1, 2, 3, 7, 8, 10_000)]
    assert pauses == [0.25, 0.5, 1.0, 16.0, 30.0, 30.0]


def test_a_worker_that_ends_is_replaced() -> None:
    told: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    stopping = stop_when(told, "is replaced")
    assert supervised([STAYS, ANSWERS + "time.sleep(0.5); sys.exit(7)", STAYS], told).run() == 0
    stopping.join()
    assert "workers     2 answer" in told
    assert "worker 1 has ended with status 7: another takes its place in 0.25 s" in told
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_signal_reaches_workers_that_still_drain() -> None:
    told: list[str] = []
    over = threading.Event()
    code = (
        "import signal; asked=[]; signal.signal(15, lambda *a: asked.append(1) or (len(asked) > 1 and sys.exit(0))); "
    )
    stopping = stop_when(told, "2 answer")

    def again() -> None:
        stopping.join()
        while not over.wait(0.2):
            signal.raise_signal(signal.SIGTERM)

    second = threading.Thread(target=again)
    second.start()
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what comes when the parent is over ends no test
    try:
        assert supervised(["import sys; " + code + STAYS], told, drain=600.0).run() == 0
        over.set()
        second.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert sorted(line for line in told if line.startswith("ended")) == ["ended 0", "ended 1"]


def test_the_status_of_a_worker_that_refuses_to_start_is_that_of_the_server() -> None:
    told: list[str] = []
    assert supervised(["import sys; sys.exit(3)"], told).run() == 3
    assert told == ["ended 0"], "the second one was never started"


def test_a_worker_that_is_killed_before_it_answers_is_an_error() -> None:
    with pytest.raises(ServiceError, match="before it answered") as caught:
        supervised([STAYS, "import os; os.kill(os.getpid(), 9)"], []).run()
    assert (caught.value.code, "worker 1 ended with SIGKILL" in caught.value.why) == ("MS-4390", True)


def test_a_port_is_shared_by_workers_and_refused_to_another_server() -> None:
    with hold("127.0.0.1", 0, "") as held, socket.socket() as worker:
        port = held.getsockname()[1]
        worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        worker.bind(("127.0.0.1", port))
        worker.listen()
        with socket.create_connection(("127.0.0.1", port), timeout=30):  # the held socket takes none of them
            worker.accept()[0].close()
        with pytest.raises(ConfigError) as caught:
            hold("127.0.0.1", port, "mainspring.toml:3")
        assert (caught.value.code, caught.value.origin) == ("MS-3016", "mainspring.toml:3")


def test_several_workers_need_linux(tmp_path: Path) -> None:
    (tmp_path / "mainspring.toml").write_text("[server]\nworkers = 2\n")
    settings = Services.of_project(tmp_path).settings
    check_platform(settings, "linux")
    with pytest.raises(ConfigError) as caught:
        check_platform(settings, "darwin")
    assert caught.value.code == "MS-3111"
    assert "mainspring.toml" in caught.value.origin
