"""A driver as a process of its own, to be killed: a pipeline of chain, map and join over one folder.

Usage: python engine_driver.py FOLDER [--fault POINT:N] [--slow SECONDS]
"""

import argparse
import itertools
import os
import signal
import sys
import time
from pathlib import Path

from engine_bench import BenchServices, ran
from mainspring.engine.driver import run_graph
from mainspring.engine.task import Output, Task, TaskGraph

PAUSE = float(os.environ.get("ENGINE_TEST_PAUSE", "0.01"))


def start(folder: str) -> list[int]:
    ran(folder, "start")
    time.sleep(PAUSE)
    return list(range(6))


def item(x: int, folder: str) -> str:
    ran(folder, f"item{x}")
    print("item", x)
    time.sleep(PAUSE)
    return f"item {x} " + "x" * 2000


def joined(parts: list[str], folder: str) -> str:
    ran(folder, "joined")
    time.sleep(PAUSE)
    return "\n".join(parts)


def length(text: str, folder: str, by: int) -> int:
    ran(folder, f"length{by}")
    time.sleep(PAUSE)
    return len(text) * by


def report(sizes: list[int], folder: str) -> dict[str, int]:
    ran(folder, "report")
    return {"total": sum(sizes), "count": len(sizes)}


def pipeline(folder: str) -> TaskGraph:
    """Twelve things to do: start, six items, joined, three lengths, report."""
    where = {"folder": folder}
    lengths = [Task(f"length{by}", length, {**where, "by": by}, {"text": Output("joined")}) for by in (1, 2, 3)]
    return TaskGraph(
        "killed",
        (
            Task("start", start, where),
            Task("items", item, where, {"x": Output("start")}, over="x"),
            Task("joined", joined, where, {"parts": Output("items")}),
            *lengths,
            Task("report", last, where, {f"by{by}": Output(f"length{by}") for by in (1, 2, 3)}),
        ),
    )


def last(folder: str, by1: int, by2: int, by3: int) -> dict[str, int]:
    return report([by1, by2, by3], folder)


def killer(point: str, number: int):
    """Dies by SIGKILL the n-th time a point is passed, in whichever process that is."""
    counts = itertools.count(1)

    def fault(passed: str) -> None:
        if passed == point and next(counts) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return fault


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--fault", default="")
    arguments = parser.parse_args()
    point, _, number = arguments.fault.rpartition(":")
    fault = killer(point, int(number)) if point else lambda passed: None
    Path(arguments.folder).mkdir(parents=True, exist_ok=True)
    services = BenchServices(arguments.folder, fault)
    report = run_graph(pipeline(arguments.folder), services, workers=2)
    for step in report.steps:
        print(step.name, step.status, step.outputs)
    services.close()
    sys.exit(0 if report.status == "ok" else 1)


if __name__ == "__main__":
    main()
