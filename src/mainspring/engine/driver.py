"""Running a graph: the public door of the engine."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Literal

from mainspring.engine.context import EngineServices
from mainspring.engine.environment import GitState, capacity_of, environment_of
from mainspring.engine.files import FileDigests
from mainspring.engine.order import Capacity, laid_out
from mainspring.engine.runs.keys import Keys
from mainspring.engine.runs.ledger import Ledger, new_id, now_us, recover
from mainspring.engine.runs.progress import Progress, Watch, silent
from mainspring.engine.runs.report import RunReport, StepReport
from mainspring.engine.runs.run import GraphRun, Wiring
from mainspring.engine.secrets import refuse_secrets
from mainspring.engine.task import TaskGraph
from mainspring.engine.values import load as load_value
from mainspring.engine.wire import StoredResult
from mainspring.engine.workers.pool import Executor, Inline, Pool
from mainspring.engine.workers.processes import this_process
from mainspring.errors import StoreError, UsageError

__all__ = ["RunReport", "StepReport", "load", "run_graph"]


def run_graph(
    graph: TaskGraph,
    services: EngineServices,
    *,
    watch: Watch = silent,
    mode: Literal["pool", "inline"] = "pool",
    workers: int | None = None,
    reason: str = "",
    force: frozenset[str] = frozenset(),
    stop: Callable[[], bool] = lambda: False,
    keep_going: bool = False,
) -> RunReport:
    """Carry out a graph. What is finished is not run again, whatever happened to earlier runs.

    Args:
        graph: the tasks.
        services: the opened services; a worker opens its own.
        watch: told what happens, from this thread.
        mode: ``pool`` isolates each attempt in a worker; ``inline`` runs in this process, for a debugger.
        workers: how many attempts run at once; one a core when None.
        reason: why the run was started, for the record.
        force: names of tasks whose kept results are not used.
        stop: asked several times a second; when it says so the run is stopped.
        keep_going: after a failure, finish what does not depend on it, whatever the failed step's ``on_error`` says.

    Returns:
        What each step came to; failures of steps are in it and are not raised.

    Raises:
        DeclarationError: MS-2030, the graph makes no sense; MS-1110, code that must be cached has no key.
        UsageError: MS-2610, `force` names no task.
        RefusedError: MS-5022, a param holds a secret.
        ServiceError: MS-4020, another driver has taken the run; or as the stores raise.
        KeyboardInterrupt: after the first SIGINT, or when `stop` said so; everything has been cleaned up.
    """
    began = time.perf_counter()
    layout = laid_out(graph)
    _known(force, graph)
    refuse_secrets(graph, services)
    files = FileDigests(services.state)
    keys = Keys(files, dict(os.environ))
    for task in layout.tasks:
        if task.options.cache or task.options.once:
            keys.closures(task)
    owner = this_process()
    recover(services.catalog, owner)
    ledger = Ledger(services.catalog, owner, new_id(now_us()), f"run:{reason}" if reason else "run")
    ledger.open(graph.name, reason, {"tasks": len(layout.tasks)}, environment_of(services.project))
    executor: Executor = (Pool if mode == "pool" else Inline)({task.name: task for task in layout.tasks}, services)
    git = GitState(services.project, os.environ)
    with _interrupts(stop) as stopped:
        wiring = Wiring(
            services,
            keys,
            ledger,
            executor,
            Capacity(capacity_of(workers)),
            watch,
            force,
            stopped,
            git.begin,
            keep_going,
        )
        run = GraphRun(layout, wiring)
        watch(Progress("run", ledger.run_id, steps=len(layout.tasks), text=graph.name))
        _carry_out(run, executor, ledger, keys, git)
    failed = any(node.settled not in ("ok", "hit") for node in run.nodes)
    wall = time.perf_counter() - began
    waited = run.waited + (executor.seconds if isinstance(executor, Inline) else 0.0)
    report = RunReport(
        ledger.run_id,
        "failed" if failed else "ok",
        tuple(node.report() for node in run.nodes),
        wall - waited,
        wall,
        tuple(executor.notes),
    )
    watch(
        Progress("end", ledger.run_id, settled=len(run.nodes), steps=len(run.nodes), seconds=wall, text=report.status)
    )
    return report


def _carry_out(run: GraphRun, executor: Executor, ledger: Ledger, keys: Keys, git: GitState) -> None:
    try:
        run.carry_out()
    except BaseException as error:
        executor.close()
        git.close()
        with contextlib.suppress(StoreError):
            run.abandon()
        with contextlib.suppress(StoreError):
            ledger.close("stopped" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    finally:
        executor.close()
        keys.save()
    dirty = git.dirty()
    if dirty:
        ledger.catalog.tag(ledger.run_id, {"git.dirty": dirty})
    failed = any(node.settled not in ("ok", "hit") for node in run.nodes)
    ledger.close("failed" if failed else "ok")


def _known(force: frozenset[str], graph: TaskGraph) -> None:
    names = {task.name for task in graph.tasks}
    for name in sorted(force - names):
        raise UsageError(
            f"there is no step {name!r} to force",
            code="MS-2610",
            fix=f"the steps of {graph.name} are {', '.join(sorted(names))}",
        )


@contextlib.contextmanager
def _interrupts(stop: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """The first SIGINT stops the run in good order; the second one is as Python has it."""
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    caught: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def remember(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(signal.SIGINT, before)

    if before not in (signal.SIG_IGN, None):
        signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: bool(caught) or stop()
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def load(
    services: EngineServices, of: StepReport | StoredResult | str, wanted: object = None, place: Path | None = None
) -> object:
    """A stored result as a value.

    Args:
        services: where it is.
        of: a step's report, a stored result, or a digest.
        wanted: the type to restore it as; None leaves it as its producer returned it.
        place: a folder to copy a stored folder into.

    Raises:
        StoreError: MS-4121, nothing is known by that digest; or as the object store raises.
        UserCodeError: MS-2023, the result does not fit `wanted`.
    """
    return load_value(_stored(services, of), services.objects, wanted, place)


def _stored(services: EngineServices, of: StepReport | StoredResult | str) -> StoredResult:
    if isinstance(of, StoredResult):
        return of
    if isinstance(of, StepReport) and of.result is not None:
        return of.result
    digest = of.outputs if isinstance(of, StepReport) else of
    known = services.catalog.artifacts([digest]).get(digest)
    if known is None:
        raise StoreError(
            f"no result {digest[:12]!r} is recorded",
            code="MS-4121",
            fix="mainspring show run lists what has been computed",
        )
    return StoredResult(known.digest, known.kind, known.size, known.media_type, known.meta)
