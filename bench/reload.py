"""A hundred reloads under load: no failed request, flat memory.

Versions of a small ONNX model are promoted in turn in a running server, whose callers never stop asking; each promotion
loads the version, warms it, leads calls to it, and lets the one before drain. The bar is 0 failures and a resident set
that grows by no more than 5 % over what as many requests without a reload let it grow: what is logged and watched costs
memory of its own when it happens for the first time, so the same traffic goes first without reloads, twice.

    python bench/reload.py [--reloads 100] [--callers 4]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from mainspring.choose.services import Services
from mainspring.server.rollouts.deciding import promote_whole

BODY = json.dumps({"customer": "c01", "amount": 20.0}).encode()
WIRE = json.dumps({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}).encode()
REQUESTS = 200
"""Requests without a reload, for each reload that follows."""


class Callers:
    """Ask both ways, the endpoint by keys and the model by its columns, until told to stop."""

    def __init__(self, url: str, count: int) -> None:
        self.failed: list[str] = []
        self.versions: set[str] = set()
        self.asked = 0
        self._host, self._stop = urlsplit(url), threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self, number: int) -> None:
        client = http.client.HTTPConnection(str(self._host.hostname), int(self._host.port or 0), timeout=60)
        path, body = ("/endpoint/returns", BODY) if number % 2 else ("/v2/models/returns/infer", WIRE)
        while not self._stop.is_set():
            try:
                client.request("POST", path, body)
                answer = client.getresponse()
                found = json.loads(answer.read())
            except OSError as error:
                self.failed.append(repr(error))
                client.close()
                continue
            self.asked += 1
            if answer.status != 200:
                self.failed.append(f"{answer.status}: {found}")
            else:
                self.versions.add(found.get("version") or found["model_version"])
            time.sleep(0.002)
        client.close()


def resident(process: int) -> int:
    """The resident set of a process in bytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def steady(url: str, process: int, callers: int, requests: int) -> int:
    """The resident set after so many requests and no reload."""
    asking = Callers(url, callers)
    while asking.asked < requests:
        time.sleep(0.05)
    asking.stop()
    return resident(process)


def reload(project: Path, url: str, process: int, reloads: int, callers: int) -> tuple[Callers, list[int]]:
    """Promote two versions in turn; the callers with what they saw, and the resident set after each reload."""
    services = Services.of_project(project)
    asking, found = Callers(url, callers), []
    try:
        for n in range(reloads):
            version = 2 - n % 2
            promote_whole(services.catalog, "returns", version, "bench", force=True)
            deadline = time.monotonic() + 60
            while _version(url) != str(version):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"version {version} never answered")
                time.sleep(0.02)
            found.append(resident(process))
    finally:
        asking.stop()
        services.close()
    return asking, found


def _version(url: str) -> str:
    host = urlsplit(url)
    client = http.client.HTTPConnection(str(host.hostname), int(host.port or 0), timeout=60)
    try:
        client.request("POST", "/endpoint/returns", BODY)
        return str(json.loads(client.getresponse().read())["version"])
    finally:
        client.close()


def built(folder: Path) -> Path:
    """The template project with two versions of its model."""
    command = [sys.executable, "-m", "mainspring.cli"]
    subprocess.run([*command, "new", "shop"], cwd=folder, check=True, capture_output=True)
    project = folder / "shop"
    subprocess.run([*command, "apply"], cwd=project, check=True, capture_output=True)
    app = project / "shop.py"
    app.write_text(app.read_text().replace("LogisticRegression())", "LogisticRegression(C=0.01))"))
    subprocess.run([*command, "run", "returns"], cwd=project, check=True, capture_output=True)
    return project


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--callers", type=int, default=4)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        project = built(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = subprocess.Popen(
            [sys.executable, "-m", "mainspring.cli", "serve", "--port", str(port)],
            cwd=project,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    _version(url)
                    break
                except (OSError, KeyError):
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
            warm = [steady(url, server.pid, asked.callers, asked.reloads * REQUESTS) for _ in range(2)]
            begun = time.monotonic()
            asking, sizes = reload(project, url, server.pid, asked.reloads, asked.callers)
            took = time.monotonic() - begun
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    (first, last), before = (warm[1], sizes[-1]), warm[1] - warm[0]
    growth = (last - first - max(before, 0)) / first
    print(f"reloads   {len(sizes)} in {took:.0f} s, versions {', '.join(sorted(asking.versions))} have answered")
    print(f"requests  {asking.asked:,}, failed {len(asking.failed)}")
    print(f"resident  {' -> '.join(f'{size / 2**20:.1f}' for size in warm)} MiB by as many requests without a reload")
    print(f"          {last / 2**20:.1f} MiB after the reloads: {growth:+.1%} by them")
    for failure in asking.failed[:5]:
        print(f"          {failure}")
    met = not asking.failed and growth <= 0.05
    print("met" if met else "MISSED")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
