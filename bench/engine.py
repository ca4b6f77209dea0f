"""What the engine costs beside its peers: durable steps in processes of their own.

    python bench/engine.py                ours: a chain of 20, 200 at once, cached re-runs, resume, long maps
    python bench/engine.py --peer         the same for DBOS (sqlite), Hamilton (cache) and Kedro, in their own venv

Bars (medians of the rounds, one run of this script on a quiet machine):
- 20 linear durable isolated no-op steps: >= 4 x faster than DBOS and Hamilton with the same isolation: the step's
  function called in a process of its own, as the standard library does it (``spawn``: they have threads, which a fork
  would break).
- 200 steps at once: >= 3 x faster than Hamilton and Kedro on threads, each step's function in a process.
- a cached re-run: <= 1.5 ms a step.
- resume with 15 of 20 done: <= 1.3 x (cached + what remains), nothing finished run again.
- a map of 10,000 items costs <= 1.3 x as much an item as one of 100.

Two stricter comparisons are printed beside the bars: peers whose steps start a bare interpreter that prints a number
and loads nothing, and the driver's own time against peers without any isolation.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import venv

from mainspring.choose.services import Services
from mainspring.engine.driver import run_graph
from mainspring.engine.task import Output, Task, TaskGraph

HERE = pathlib.Path(__file__).resolve().parent
PEERS = ("dbos==3.4.0", "sf-hamilton==1.90.0", "kedro==1.7.0")
PEER = r'''
import importlib.util, json, logging, os, statistics, subprocess, sys, tempfile, time, types, warnings
warnings.simplefilter("ignore")
os.environ.update(HAMILTON_TELEMETRY_ENABLED="false", KEDRO_DISABLE_TELEMETRY="true", DO_NOT_TRACK="1")
rounds, base = int(sys.argv[1]), tempfile.mkdtemp()
answer = {}

def isolated(n, before=0):
    """A step's body in a process of its own, as a user of a library without isolation writes it."""
    return int(subprocess.run([sys.executable, "-c", f"print({n})"], capture_output=True, check=True).stdout)

def plain(n, before=0):
    return n

open(f"{base}/alone.py", "w").write("def step(n, before=0):\n    return n\n")
sys.path.insert(0, base)
sys.modules["__main__"].__spec__ = None
import alone
import concurrent.futures, multiprocessing

def spawned(n, before=0):
    """A step's function in a process of its own, by the standard library."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        return pool.submit(alone.step, n, before).result()

def timed(name, act, most=99):
    seconds = []
    for salt in range(min(rounds, most) + 1):
        start = time.perf_counter()
        act(salt)
        seconds.append(time.perf_counter() - start)
    answer[name] = statistics.median(seconds[1:])

def dbos():
    from dbos import DBOS
    DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{base}/dbos.sqlite", "run_admin_server": False,
                 "log_level": "ERROR"})
    @DBOS.step()
    def step_plain(n, before): return plain(n, before)
    @DBOS.step()
    def step_isolated(n, before): return isolated(n, before)
    @DBOS.step()
    def step_spawned(n, before): return spawned(n, before)
    steps = {"plain": step_plain, "isolated": step_isolated, "spawned": step_spawned}
    @DBOS.workflow()
    def chain(count, salt, how):
        value = 0
        for number in range(count):
            value = steps[how](salt * 1000 + number, value)
        return value
    DBOS.launch()
    timed("dbos chain", lambda salt: chain(20, salt, "plain"))
    timed("dbos chain bare interpreter", lambda salt: chain(20, salt + 100, "isolated"))
    timed("dbos chain isolated", lambda salt: chain(20, salt + 200, "spawned"), 2)
    DBOS.destroy()

def module(count, salt, linear, call):
    name = f"steps_{count}_{salt}_{linear}_{call}"
    lines = []
    for n in range(count):
        needs = f"step{n - 1}: int" if linear and n else "salt: int"
        value = f"step{n - 1}" if linear and n else "salt"
        lines.append(f"def step{n}({needs}) -> int:\n    return {call}({salt * 1000 + n}, {value})\n")
    if not linear:
        lines.append(f"def last({', '.join(f'step{n}: int' for n in range(count))}) -> int:\n    return 0\n")
    path = f"{base}/{name}.py"
    open(path, "w").write("from __main__ import isolated, plain, spawned\n" + "\n".join(lines))
    spec = importlib.util.spec_from_file_location(name, path)
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made

def hamilton():
    from hamilton import driver
    from hamilton.execution import executors
    def chain(salt, how):
        built = driver.Builder().with_modules(module(20, salt, True, how)).with_cache(path=f"{base}/cache").build()
        start = time.perf_counter()
        built.execute(["step19"], inputs={"salt": salt})
        return time.perf_counter() - start
    def middle(how, first, most):
        return statistics.median([chain(salt + first, how) for salt in range(most + 1)][1:])
    answer["hamilton chain"] = middle("plain", 0, rounds)
    answer["hamilton chain cached"] = middle("plain", 0, rounds)
    answer["hamilton chain bare interpreter"] = middle("isolated", 50, rounds)
    answer["hamilton chain isolated"] = middle("spawned", 100, 2)
    def wide(salt, how):
        from hamilton.plugins.h_threadpool import FutureAdapter
        built = driver.Builder().with_modules(module(200, salt, False, how)).with_adapters(
            FutureAdapter(max_workers=os.cpu_count())).build()
        start = time.perf_counter()
        built.execute(["last"], inputs={"salt": salt})
        return time.perf_counter() - start
    answer["hamilton wide bare interpreter"] = statistics.median([wide(salt, "isolated") for salt in range(2)])
    answer["hamilton wide isolated"] = wide(2, "spawned")

def kedro():
    logging.disable(logging.CRITICAL)
    from kedro.io import DataCatalog, MemoryDataset
    from kedro.pipeline import node, pipeline
    from kedro.runner import ThreadRunner
    def wide(salt, call):
        def make(number):
            def step(salt):
                return call(number, salt)
            return node(step, "salt", f"out{number}", name=f"step{number}")
        made = pipeline([make(number) for number in range(200)])
        start = time.perf_counter()
        ThreadRunner(max_workers=os.cpu_count()).run(made, DataCatalog({"salt": MemoryDataset(salt)}))
        return time.perf_counter() - start
    answer["kedro wide bare interpreter"] = statistics.median([wide(salt, isolated) for salt in range(2)])
    answer["kedro wide isolated"] = wide(2, spawned)

for peer in (dbos, hamilton, kedro):
    try:
        peer()
    except Exception as fault:
        answer[peer.__name__] = repr(fault)
print("ANSWER" + json.dumps(answer))
'''


def noop(n: int, before: int = 0) -> int:
    return n


def chain(count: int, salt: int) -> TaskGraph:
    tasks = []
    for number in range(count):
        inputs = {"before": Output(f"step{number - 1}")} if number else {}
        tasks.append(Task(f"step{number}", noop, {"n": salt * 100_000 + number}, inputs))
    return TaskGraph("chain", tuple(tasks))


def wide(count: int, salt: int) -> TaskGraph:
    return TaskGraph("wide", tuple(Task(f"step{n}", noop, {"n": salt * 100_000 + n}) for n in range(count)))


def mapped(count: int, salt: int) -> TaskGraph:
    items = [salt * 100_000 + n for n in range(count)]
    return TaskGraph("map", (Task("map", noop, {"n": items}, over="n"),))


def part(graph: TaskGraph, count: int) -> TaskGraph:
    return TaskGraph(graph.name, graph.tasks[:count])


def middle(act, rounds: int) -> tuple[float, float]:
    """Medians of the driver's own and of all seconds, over the rounds but the first."""
    reports = [act(salt).check() for salt in range(rounds + 1)][1:]
    return statistics.median(r.engine_seconds for r in reports), statistics.median(r.wall_seconds for r in reports)


def ours(services: Services, rounds: int, items: int) -> dict[str, float]:
    found: dict[str, float] = {}
    found["chain engine"], found["chain"] = middle(lambda salt: run_graph(chain(20, salt), services), rounds)
    found["chain cached"], _ = middle(lambda salt: run_graph(chain(20, salt), services), rounds)

    def resumed(salt: int):
        run_graph(part(chain(20, 1000 + salt), 15), services).check()
        report = run_graph(chain(20, 1000 + salt), services)
        assert sum(step.status == "ok" for step in report.steps) == 5, "a finished step was run again"
        return report

    _, found["resumed"] = middle(resumed, rounds)
    _, found["remaining"] = middle(lambda salt: run_graph(part(chain(20, 2000 + salt), 5), services), rounds)
    _, found["wide"] = middle(lambda salt: run_graph(wide(200, 3000 + salt), services), max(1, rounds // 2))
    for count in (100, items):
        report = run_graph(mapped(count, 4000 + count), services).check()
        found[f"item of {count}"] = report.wall_seconds / count
    return found


def peers(rounds: int) -> dict[str, float]:
    home = HERE / ".peers" / "engine"
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS], check=True)
    done = subprocess.run([python, "-c", PEER, str(rounds)], capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    if not lines:
        sys.exit(done.stderr)
    return json.loads(lines[-1].removeprefix("ANSWER"))


def row(name: str, seconds: float | str, note: str = "") -> None:
    text = f"{seconds * 1000:10.2f} ms" if isinstance(seconds, float) else f"  {seconds}"
    print(f"  {name:<44}{text}  {note}")


def verdict(words: str, value: float, least: float) -> None:
    print(f"  {'met ' if value >= least else 'MISSED'}  {words}: {value:.2f}, to be at least {least:g}")


def beside(words: str, value: float) -> None:
    print(f"          {words}: {value:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", action="store_true", help="measure DBOS, Hamilton and Kedro, too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--items", type=int, default=2000, help="length of the long map (the bar says 10000)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        pathlib.Path(folder, "mainspring.toml").write_text('app = "bench:app"\n')
        services = Services.of_project(pathlib.Path(folder))
        started = time.perf_counter()
        mine = ours(services, arguments.rounds, arguments.items)
        services.close()
    print(f"mainspring, {arguments.rounds} rounds on {os.cpu_count()} cores, {time.perf_counter() - started:.0f} s")
    for name, seconds in mine.items():
        row(name, seconds)
    verdict("cached re-run, steps a 1.5 ms", 1.5e-3 / (mine["chain cached"] / 20), 1)
    verdict(
        "resume, (cached + remaining) x 1.3 / resumed",
        1.3 * (mine["chain cached"] + mine["remaining"]) / mine["resumed"],
        1,
    )
    verdict("long map, 1.3 x short / long an item", 1.3 * mine["item of 100"] / mine[f"item of {arguments.items}"], 1)
    if not arguments.peer:
        return
    theirs = peers(arguments.rounds)
    print("peers")
    for name, seconds in theirs.items():
        row(name, seconds)
    for peer in ("dbos", "hamilton"):
        verdict(f"chain, {peer} isolated / ours", theirs[f"{peer} chain isolated"] / mine["chain"], 4)
        beside(f"{peer} bare interpreter / ours", theirs[f"{peer} chain bare interpreter"] / mine["chain"])
        beside(f"{peer} without isolation / the driver's own time", theirs[f"{peer} chain"] / mine["chain engine"])
    for peer in ("hamilton", "kedro"):
        verdict(f"200 at once, {peer} on threads / ours", theirs[f"{peer} wide isolated"] / mine["wide"], 3)
        beside(f"{peer} bare interpreter / ours", theirs[f"{peer} wide bare interpreter"] / mine["wide"])
    verdict("cached, hamilton / ours", theirs["hamilton chain cached"] / mine["chain cached"], 1)


if __name__ == "__main__":
    main()
