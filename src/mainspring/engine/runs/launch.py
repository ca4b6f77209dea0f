"""Starting an attempt: its row, its order to the worker, its log."""

from __future__ import annotations

import itertools
import pickle
import time
from collections.abc import Callable
from pathlib import Path

from mainspring.engine.context import EngineServices
from mainspring.engine.runs.attempts import Log, log_path
from mainspring.engine.runs.kept import KeptResults
from mainspring.engine.runs.keys import Keys
from mainspring.engine.runs.ledger import Ledger
from mainspring.engine.runs.nodes import Job
from mainspring.engine.runs.rows import detail_of, row_of
from mainspring.engine.secrets import revealed
from mainspring.engine.wire import Order
from mainspring.engine.workers.pool import Executor

__all__ = ["Launcher"]


class Launcher:
    """Starts attempts and closes their logs."""

    def __init__(
        self,
        services: EngineServices,
        keys: Keys,
        ledger: Ledger,
        executor: Executor,
        kept: KeptResults,
        begun: Callable[[], None],
    ) -> None:
        self._services = services
        self._keys = keys
        self._ledger = ledger
        self._executor = executor
        self._kept = kept
        self._begun = begun
        self._numbers = itertools.count(1)
        self._logs = Path(services.state, "log", ledger.run_id)

    def prepare(self, job: Job, *, crowded: bool, forced: bool = False) -> None:
        """Number and record the next attempt of a job; `crowded` if others wait, `forced` if kept results do not count.

        Raises:
            ConfigError: MS-3030, MS-3007, a secret of the step is not there.
            UserCodeError: MS-2029, the map's item cannot be sent to a worker.
        """
        task = job.node.task
        secrets = revealed(self._services, task.options.secrets)
        job.secrets = tuple(secrets.values())
        job.number = next(self._numbers)
        if job.number == 1:
            self._begun()
            self._logs.mkdir(parents=True, exist_ok=True)
        job.attempt += 1
        job.fault, job.timed_out = None, False
        job.started_us, job.started = self._ledger.clock(), time.monotonic()
        job.declared = self._keys.declared(task, job.value)
        job.log_path = log_path(self._logs, job.node.index, task.name, job.item, job.attempt)
        job.log = Log(job.log_path, job.secrets)
        job.order = self._order(job, crowded, forced)
        limit = task.options.timeout_us
        job.deadline = None if limit is None else job.started + limit / 1e6
        self._ledger.start(row_of(self._ledger.run_id, job, "running", job.started_us, detail=detail_of(job)))

    def launch(self, job: Job) -> None:
        """Start the prepared attempt."""
        assert job.order is not None
        assert job.log is not None
        log, order, job.order = job.log, job.order, None
        self._executor.launch(job.number, order, log.writing)
        log.handed_over()
        if log.reading >= 0:
            self._executor.watch(log.reading, lambda: self._pump(log))

    def _pump(self, log: Log) -> None:
        if not log.pump():
            self._executor.unwatch(log.reading)

    def close_log(self, job: Job) -> str:
        """Close an attempt's log; its digest, or empty when nothing was written."""
        log, job.log = job.log, None
        if log is None:
            return ""
        if log.reading >= 0:
            self._executor.unwatch(log.reading)
        return log.close()

    def _order(self, job: Job, crowded: bool, forced: bool) -> Order:
        task = job.node.task
        leave_out = task.over if job.item >= 0 else None
        inputs = {n: self._kept.with_meta(result) for n, result in job.node.inputs.items() if n != leave_out}
        return Order(
            task.name,
            job.title,
            self._ledger.run_id,
            job.attempt,
            inputs,
            f"{self._services.state}/work/{self._ledger.run_id}-{job.number}",
            None if job.value is None else pickle.dumps(job.value[0], protocol=5),
            None if job.stored is None else self._kept.with_meta(job.stored),
            job.declared,
            "" if job.secrets else str(job.log_path),
            crowded,
            self._keys.named_files(task),
            forced,
        )
