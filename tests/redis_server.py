"""A real Redis for tests, from the system's package: started once a run, on a socket, and without a disk."""

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

_PROCESSES = {}


@contextlib.contextmanager
def running(*options):
    """The URL of a Redis that only this run uses."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("apt-get install redis-server")
    with tempfile.TemporaryDirectory(prefix="mainspring-redis-") as folder:
        socket = Path(folder) / "redis.sock"
        command = [program, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder, *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 30
            while not socket.exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            url = f"unix://{socket}"
            _PROCESSES[url] = process
            yield url
        finally:
            process.terminate()
            process.wait()


def signalled(url, number):
    """Send a signal to a server of `running`."""
    _PROCESSES[url].send_signal(number)
    if number == signal.SIGKILL:
        _PROCESSES[url].wait()
