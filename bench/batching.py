"""Batching of calls that take long: scikit-learn's histogram gradient boosting, asked by many at once.

Bars: at concurrency 64 at most 3x the processor time a row of the same model asked in process for 32 rows at once; the
median at concurrency 1 within 10 % + 100 us of no queue at all; at five times what the model can do, memory stays
flat, refusals are fast, and what is answered is answered within its deadline. The control is the same model with
batching off (every call scored alone, in the same thread) and with no queue (computed on the event loop), in the same
run. ``batching.py core`` leaves out HTTP.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
import uvloop
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier

from mainspring.adapters.sklearn.runtime import EstimatorPredictor
from mainspring.declare.batching import Batching
from mainspring.ports.runtime import Card
from mainspring.protocols.http import Router
from mainspring.protocols.oip.rest import add_oip_routes
from mainspring.server.http.asgi import Limits, Listener
from mainspring.server.http.host import bind, run_listeners
from mainspring.serving.calls import Call, Reason, Rejected
from mainspring.serving.inference import ServedModels
from mainspring.serving.metering import ModelMeter
from mainspring.serving.models import LiveModel, queue_of
from mainspring.serving.statistics import Statistics
from mainspring.serving.table import ModelTable

COLUMNS, ROUNDS = 8, 3
MODES = ("batched", "alone", "no queue")
CARD = Card("late", "skops", "", tuple(f"c{n}" for n in range(COLUMNS)), "float32", "binary")
HZ = os.sysconf("SC_CLK_TCK")


class Nobody:
    """A registry of nothing."""

    def names(self) -> Sequence[str]:
        return ()

    def load(self, name: str) -> None:
        raise NotImplementedError

    def unload(self, name: str) -> None:
        raise NotImplementedError


def estimator() -> EstimatorPredictor:
    x, y = make_classification(4000, COLUMNS, n_informative=6, n_redundant=0, random_state=0)
    return EstimatorPredictor(HistGradientBoostingClassifier(max_iter=100).fit(x.astype("f4"), y), True)


def models(predictor: EstimatorPredictor, mode: str, batching: Batching | None = None) -> ServedModels:
    table, counts = ModelTable(), Statistics()
    limits = batching or Batching(1 if mode == "alone" else 1024)
    queue = None if mode == "no queue" else queue_of("late", predictor, limits, ModelMeter(counts))
    table.put("late", LiveModel("1", "", CARD, predictor, queue, statistics=counts))
    return ServedModels(table, dict, Nobody(), None, "bench", 65_536, time.time_ns)


async def callers(count: int, each: int, ask: Callable[[], Awaitable[object]]) -> list[float]:
    """Latencies of so many callers, each with so many calls, one after the other."""
    found: list[float] = []

    async def one() -> None:
        for _ in range(each):
            begun = time.perf_counter()
            await ask()
            found.append(time.perf_counter() - begun)

    await asyncio.gather(*(one() for _ in range(count)))
    return found


def in_process_us(predictor: EstimatorPredictor, rows: int) -> float:
    """Processor time a row of the model itself."""
    matrix = np.random.default_rng(0).normal(size=(rows, COLUMNS)).astype("f4")
    predictor.scores(matrix)
    begun = time.process_time()
    for _ in range(100):
        predictor.scores(matrix)
    return (time.process_time() - begun) / 100 / rows * 1e6


def asking(served: ServedModels) -> Callable[[], Awaitable[object]]:
    matrix = np.random.default_rng(0).normal(size=(1, COLUMNS)).astype("f4")
    return lambda: served.infer(Call("late", {"input": matrix}, "bench"))


def core(predictor: EstimatorPredictor) -> bool:
    """Callers in this process: the queue without HTTP."""
    good = True
    for number in range(ROUNDS):
        plain = in_process_us(predictor, 32)
        cost: dict[str, float] = {}
        for mode in MODES:
            served = models(predictor, mode)
            uvloop.run(callers(8, 10, asking(served)))
            begun = time.process_time()
            uvloop.run(callers(64, 40, asking(served)))
            cost[mode] = (time.process_time() - begun) / 2560 * 1e6
        shown = ", ".join(f"{mode} {us:.0f}" for mode, us in cost.items())
        print(f"round {number + 1}: core at 64: {shown} us CPU a row; the model alone at 32 rows {plain:.1f}", end="; ")
        print(f"{cost['batched'] / plain:.2f}x")
        good = good and cost["batched"] <= 3 * plain
        medians = {}
        for mode in MODES:
            served = models(predictor, mode)
            medians[mode] = statistics.median(uvloop.run(callers(1, 300, asking(served)))) * 1e6
        limit = medians["no queue"] * 1.1 + 100
        print(f"         one caller: {', '.join(f'{m} {us:.0f}' for m, us in medians.items())} us; bar {limit:.0f}")
        good = good and medians["batched"] <= limit
    return good


def overload(predictor: EstimatorPredictor) -> bool:
    """Callers that come five times as fast as the model can, however long the others wait."""
    matrix = np.random.default_rng(0).normal(size=(64, COLUMNS)).astype("f4")
    begun = time.perf_counter()
    for _ in range(20):
        predictor.scores(matrix)
    every = (time.perf_counter() - begun) / 20 / 5
    served = models(predictor, "batched", Batching(64, queue_rows=64 * 40))
    deadline_s, seconds = 0.25, 8.0
    answered: list[float] = []
    refused: list[float] = []
    expired: list[float] = []
    memory: list[int] = []

    async def one() -> None:
        started = time.perf_counter()
        into = answered
        try:
            await served.infer(Call("late", {"input": matrix}, "bench", deadline=time.monotonic() + deadline_s))
        except Rejected as error:
            into = refused if error.reason is Reason.BUSY else expired
        into.append(time.perf_counter() - started)

    async def run() -> None:
        tasks: set[asyncio.Task[None]] = set()
        end, due, loop = time.perf_counter() + seconds, time.perf_counter(), asyncio.get_running_loop()
        while (now := time.perf_counter()) < end:
            while due <= now:
                task = loop.create_task(one())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                due += every
            memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)

    uvloop.run(run())
    half, last = max(memory[: len(memory) // 2]), max(memory)
    accepted = float(np.quantile(answered, 0.99)) if answered else float("inf")
    away = float(np.quantile(refused, 0.99)) if refused else 0.0
    print(
        f"5x overload: {len(answered)} answered, p99 {accepted * 1e3:.0f} ms of {deadline_s * 1e3:.0f}; "
        f"{len(refused)} refused, p99 {away * 1e3:.2f} ms; {len(expired)} expired; "
        f"memory {half / 1e6:.0f} -> {last / 1e6:.0f} MB"
    )
    flat = last <= half * 1.05
    return flat and accepted <= deadline_s * 1.1 and len(refused) + len(expired) > 0


def serve(mode: str) -> None:
    """A server of the model alone."""
    router = Router()
    add_oip_routes(router, models(estimator(), mode), ("mainspring", "bench"), 1 << 20)
    bound = bind("server", Listener(router, Limits(1 << 20, 30.0)), "127.0.0.1", 0, "")

    async def started() -> None:
        print(bound.port, flush=True)

    async def stopping() -> None:
        return

    uvloop.run(run_listeners([bound], 5.0, started, stopping))


async def load(port: int, connections: int, each: int) -> list[float]:
    body = json.dumps(
        {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, COLUMNS], "data": [0.5] * COLUMNS}]}
    ).encode()
    request = f"POST /v2/models/late/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body

    async def connection() -> list[float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        found = []
        for _ in range(each):
            begun = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            found.append(time.perf_counter() - begun)
        writer.close()
        return found

    return [one for many in await asyncio.gather(*(connection() for _ in range(connections))) for one in many]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / HZ


def http() -> None:
    """The same over HTTP, with what HTTP itself costs."""
    for mode in MODES:
        with subprocess.Popen([sys.executable, __file__, "serve", mode], stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            uvloop.run(load(port, 8, 10))
            before = cpu_seconds(server.pid)
            found = uvloop.run(load(port, 64, 40))
            us = (cpu_seconds(server.pid) - before) / 2560 * 1e6
            alone = statistics.median(uvloop.run(load(port, 1, 200))) * 1e6
            print(
                f"over HTTP, {mode}: {us:.0f} us CPU a request at 64, p50 {statistics.median(found) * 1e3:.1f} ms; "
                f"one caller p50 {alone:.0f} us"
            )
            server.terminate()


def main() -> int:
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
        return 0
    predictor = estimator()
    good = core(predictor)
    good = overload(predictor) and good
    if "core" not in sys.argv:
        http()
    print(f"bars: {'met' if good else 'missed'}")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
