"""Two trees of the product under the same load in turns: server CPU a request of each, and what one is of the other.

    git worktree add ../before COMMIT
    python bench/paired.py ../before [--rounds 9] [--only "row of JSON"]

Both servers run at once, of the same project with a model each of its own, everything on: validation, metrics, limits,
prediction log. Each round asks them in turns in many short loads, the order changing, so that what else the machine
does meets both; what is told is the median over the rounds of each round's ratio, for microseconds of a busy machine
mean little. CPU is the scheduler's own count of the server's threads, kernel included.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import predict_grpc
import uvloop
from gateway import load, post

TREE = Path(__file__).resolve().parent.parent
ROW = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [7.0, 3.0, 21.5]}]}
LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
COUNT, SLICES = 640, 4


def cpu_seconds(pid: int) -> float:
    """CPU of a process's living threads, by the scheduler's nanoseconds."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def served(tree: Path, project: Path, folder: Path) -> tuple[int, int, int]:
    """A server of a tree's code: its process, its port of HTTP, its port of gRPC."""
    own = shutil.copytree(project, folder / "shop")
    log = folder / "server.log"
    ports = {"MAINSPRING_GRPC_PORT": "0", "MAINSPRING_MANAGEMENT_PORT": "0"}
    environment = {**os.environ, **ports, "PYTHONPATH": str(tree / "src")}
    with open(log, "wb") as output:
        command = [sys.executable, "-m", "mainspring.cli", "serve", "--port", "0"]
        process = subprocess.Popen(command, cwd=own, env=environment, stdout=output, stderr=output)
    for _ in range(600):
        told = log.read_text()
        found = [re.search(rf"^{name} +\S+:(\d+)$", told, re.MULTILINE) for name in ("server", "grpc")]
        if all(found):
            return process.pid, *(int(one[1]) for one in found if one is not None)  # type: ignore[return-value]
        assert process.poll() is None, told
        time.sleep(0.1)
    raise TimeoutError(log.read_text())


def asked(name: str, together: int) -> Callable[[int, int], None]:
    """Puts a short load on a server."""
    if name == "gRPC":
        message = predict_grpc.messages(3)[f"raw {predict_grpc.INFER}"]
        return lambda http, grpc: void(predict_grpc.load(grpc, predict_grpc.INFER, message, COUNT, together))
    request = LIVE if name == "live" else post("/v2/models/returns/infer", ROW)
    return lambda http, grpc: void(load(http, request, COUNT, together))


def void(asking: object) -> None:
    """Run a load to its end."""
    uvloop.run(asking)  # type: ignore[arg-type]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("before", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="loads, by commas: row, live, gRPC")
    given = parser.parse_args()
    loads = [(name, together) for name in ("row", "live", "gRPC") for together in (1, 16, 64)]
    loads = [one for one in loads if one[1] > 1 or one[0] == "row"]
    loads = [one for one in loads if not given.only or one[0] in given.only.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        command = [sys.executable, "-m", "mainspring.cli"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([*command, "new", "shop"], cwd=place, check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*command, "apply"], cwd=place / "shop", check=True, **quiet)  # type: ignore[call-overload]
        sides = [served(tree, place / "shop", made(place / name)) for name, tree in pair(given.before)]
        try:
            for name, together in loads:
                told(name, together, sides, given.rounds)
        finally:
            for pid, _, _ in sides:
                os.kill(pid, signal.SIGTERM)
    return 0


def pair(before: Path) -> Sequence[tuple[str, Path]]:
    return (("before", before.resolve()), ("now", TREE))


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def told(name: str, together: int, sides: Sequence[tuple[int, int, int]], rounds: int) -> None:
    """Ask both sides in turns, and print what a request of each costs."""
    ask = asked(name, together)
    for _, http, grpc in sides:
        ask(http, grpc)
    costs: list[list[float]] = []
    for number in range(rounds):
        spent = [0.0, 0.0]
        for turn in range(SLICES):
            for place in (0, 1) if (number + turn) % 2 == 0 else (1, 0):
                pid, http, grpc = sides[place]
                began = cpu_seconds(pid)
                ask(http, grpc)
                spent[place] += cpu_seconds(pid) - began
        costs.append([seconds / COUNT / SLICES * 1e6 for seconds in spent])
    before, now = (statistics.median(side) for side in zip(*costs, strict=True))
    ratios = sorted(after / first for first, after in costs)
    middle = statistics.median(ratios)
    width = f"{ratios[len(ratios) // 4]:.2f} to {ratios[-1 - len(ratios) // 4]:.2f}"
    print(
        f"{name:<5}{together:>3} callers: {before:6.1f} us before, {now:6.1f} us now; {middle:.3f} ({width})",
        flush=True,
    )


if __name__ == "__main__":
    asyncio.set_event_loop_policy(None)
    sys.exit(main())
