"""One run of a graph: what is ready is looked up, else carried out, committed, and releases what waits for it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from mainspring.engine.context import EngineServices
from mainspring.engine.order import Capacity, Layout
from mainspring.engine.runs.attempts import Death, backoff_seconds, death, error_of, oom_kills
from mainspring.engine.runs.kept import KeptResults
from mainspring.engine.runs.keys import Keys, suspects
from mainspring.engine.runs.launch import Launcher
from mainspring.engine.runs.ledger import Ledger
from mainspring.engine.runs.maps import MapSteps, gather
from mainspring.engine.runs.nodes import Job, Node, Queue
from mainspring.engine.runs.progress import Happened, Progress, Watch
from mainspring.engine.runs.report import StepResult
from mainspring.engine.runs.rows import detail_of, event_of, row_of, unknown, winner
from mainspring.engine.task import Task
from mainspring.engine.values import load as load_value
from mainspring.engine.wire import Computed, Done, Exited, Failed, Fault, Measured, Noted, Reply, StoredResult
from mainspring.engine.workers.pool import Executor
from mainspring.engine.workers.worker import fault_of
from mainspring.errors import ConfigError, DataError, DeclarationError, MainspringError, RefusedError, UserCodeError
from mainspring.ports.catalog import Metric, StepStatus

__all__ = ["GraphRun", "Wiring"]

_HEARTBEAT_SECONDS = 10.0
_ELSEWHERE_SECONDS = 0.05
_STOP_SECONDS = 0.2
_WINDOW = 64
_WRITING_A_CORE = 3
# What concerns one step only; anything else (a store that fails, a lost lease) ends the run.
_STEP_FAULTS = (UserCodeError, RefusedError, ConfigError, DeclarationError, DataError)


class Wiring(msgspec.Struct, frozen=True):
    """What a run works with.

    Attributes:
        services: the opened services of the driver.
        keys: computes keys.
        ledger: what is written into the catalog.
        executor: where attempts run.
        capacity: what the machine has.
        watch: told what happens.
        force: names of the tasks whose kept results are not used.
        stop: asked now and then whether to stop.
        begun: called before the first attempt; not called when all is kept.
        keep_going: after a failure, finish what does not depend on it, whatever the failed step's ``on_error`` says.
    """

    services: EngineServices
    keys: Keys
    ledger: Ledger
    executor: Executor
    capacity: Capacity
    watch: Watch
    force: frozenset[str]
    stop: Callable[[], bool]
    begun: Callable[[], None]
    keep_going: bool = False


class GraphRun:
    """Carries out one graph, in one thread."""

    def __init__(self, layout: Layout, wiring: Wiring) -> None:
        self.wiring = wiring
        self.keys, self.ledger, self._executor = wiring.keys, wiring.ledger, wiring.executor
        self.objects = wiring.services.objects
        self.kept = KeptResults(wiring.services.catalog, self.objects)
        self.nodes = [
            Node(number, task, set(layout.needs[number]), layout.feeds[number], layout.height[number])
            for number, task in enumerate(layout.tasks)
        ]
        self.queue = Queue()
        self.stopping = False
        self.waited = 0.0
        self._launcher = Launcher(wiring.services, wiring.keys, wiring.ledger, wiring.executor, self.kept, wiring.begun)
        self._maps = MapSteps(self)
        self._index = {node.task.name: node for node in self.nodes}
        self._todo = deque(node for node in self.nodes if not node.waits)
        self._running: dict[int, Job] = {}
        self._in_work: dict[str, Job] = {}
        self._settled = 0
        self._beat = time.monotonic()
        self._oom = oom_kills()

    # -- the loop -------------------------------------------------------------------------------------------------

    def carry_out(self) -> None:
        """Carry out the graph; every step is settled afterwards.

        Raises:
            KeyboardInterrupt: `stop` said so.
            MainspringError: a store failed, or another driver has taken the run.
        """
        while True:
            self._advance()
            if not self._running and (self.stopping or not self.queue):
                break
            self._wait()
        for job in self.queue.clear():
            self._let_go(job)
        for node in self.nodes:
            if node.settled is None:
                self._maps.stop(node)
                self._settle(node, "skipped")
        self.ledger.flush()

    def _advance(self) -> None:
        """Prepare what has become ready and start what the machine has room for."""
        while True:
            while self._todo:
                node = self._todo.popleft()
                if not self.stopping:
                    self.guarded(node, self._prepare)
            self._start_ready()
            if not self._todo:
                return

    def guarded(self, node: Node, act: Callable[[Node], None]) -> None:
        """Do something for a step; what goes wrong with the step itself fails the step."""
        try:
            act(node)
        except _STEP_FAULTS as error:
            self.fail(node, error)

    def _wait(self) -> None:
        if self.wiring.stop():
            raise KeyboardInterrupt
        self.ledger.flush()
        before = time.perf_counter()
        happened = self._executor.wait(self._patience())
        self.waited += time.perf_counter() - before
        for number, message in happened:
            job = self._running.get(number)
            if job is not None:
                self._heard(job, message)
        self._by_the_clock()

    def _patience(self) -> float:
        now = time.monotonic()
        moments = [self._beat + _HEARTBEAT_SECONDS, now + _STOP_SECONDS]
        moments += [job.deadline for job in self._running.values() if job.deadline is not None]
        due = self.queue.next_due()
        if due is not None:
            moments.append(due)
        if self.queue.elsewhere:
            moments.append(now + _ELSEWHERE_SECONDS)
        return max(0.0, min(moments) - now)

    def _by_the_clock(self) -> None:
        now = time.monotonic()
        for job in self._running.values():
            if job.deadline is not None and now >= job.deadline:
                job.deadline, job.timed_out = None, True
                self._executor.kill(job.number)
        if now - self._beat >= _HEARTBEAT_SECONDS:
            self._beat = now
            self.ledger.renew([job.keyed.key for job in self._in_work.values() if job.claimed])
        self.queue.ripen(now)
        for _ in range(len(self.queue.elsewhere)):
            self._look_up(self.queue.elsewhere.popleft())

    # -- a step becomes ready -------------------------------------------------------------------------------------

    def _prepare(self, node: Node) -> None:
        """All inputs are there: take the key, and look for a kept result."""
        node.inputs = {name: self._result_of(output.task) for name, output in node.task.inputs.items()}
        node.started_us, node.started = self.ledger.clock(), time.monotonic()
        if node.task.given is not None:
            self.settle_with(node, node.task.given, "hit", 0.0)
            return
        if node.task.function is gather:
            self._maps.gather(node)
            return
        for note in (*suspects(node.task, self.wiring.services.project), *self.keys.remarks(node.task)):
            node.notes[note] = None
        node.keyed = self.keys.of(node.task, node.inputs)
        node.keyed.detail["from"] = {name: output.task for name, output in node.task.inputs.items()}
        if node.keyed.problem:
            node.notes[node.keyed.problem] = None
        node.cacheable = bool(node.keyed.key) and (node.task.options.cache or node.task.options.once)
        job = Job(node, node.keyed, need=self.need(node.task))
        if node.task.over is None:
            self._look_up(job)
            return
        kept = self._kept_for(job)
        if kept is not None:
            self._hit(job, kept)
        else:
            self._maps.begin(node)

    def _result_of(self, name: str) -> StoredResult:
        result = self._index[name].result
        assert result is not None
        return result

    def need(self, task: Task) -> dict[str, float]:
        """What an attempt of a task occupies of the machine.

        Raises:
            UserCodeError: MS-2031, the machine does not have it.
        """
        return self.wiring.capacity.need(task)

    def may_reuse(self, job: Job) -> bool:
        """Whether a kept result may stand for the job."""
        return job.cacheable and job.node.task.name not in self.wiring.force

    def _kept_for(self, job: Job) -> StoredResult | None:
        """The kept result that may stand for the job; one that does not hold any more is forgotten."""
        kept = self.kept.one(job.keyed.key) if self.may_reuse(job) else None
        task = job.node.task
        if kept is None or task.holds is None:
            return kept
        if task.holds(self.wiring.services, task.params, load_value(kept, self.objects)):
            return kept
        self.kept.forget(job.keyed.key)
        return None

    def _look_up(self, job: Job) -> None:
        """Use a kept result, or make the job due."""
        kept = self._kept_for(job)
        if kept is not None:
            self._hit(job, kept)
        else:
            self.queue.push(job)

    def _hit(self, job: Job, result: StoredResult) -> None:
        self._let_go(job)
        self.note_hit(job)
        self.deliver(job, result, "hit")

    def note_hit(self, job: Job) -> None:
        """Record that a kept result was used."""
        now = self.ledger.clock()
        self.ledger.note(row_of(self.ledger.run_id, job, "hit", now, now, note="; ".join(job.node.notes)))

    # -- attempts -------------------------------------------------------------------------------------------------

    def _start_ready(self) -> None:
        aside: list[Job] = []
        while not self.stopping and len(aside) < _WINDOW and (job := self.queue.pop()) is not None:
            if self._has_room(job):
                self._try_to_start(job)
            else:
                aside.append(job)
        for job in aside:
            self.queue.push(job)

    def _has_room(self, job: Job) -> bool:
        mapped, limit = job.node.mapped, job.node.task.options.max_parallel
        if job.item >= 0 and mapped is not None and limit is not None and mapped.running >= limit:
            return False
        return self.wiring.capacity.take(job.need)

    def _try_to_start(self, job: Job) -> None:
        started = False
        try:
            if not job.cacheable or job.claimed or self._claim(job):
                self._start(job)
                started = True
        except _STEP_FAULTS as error:
            self._give_up(job, error)
        finally:
            if not started:
                self.wiring.capacity.give_back(job.need)

    def _start(self, job: Job) -> None:
        self._launcher.prepare(job, crowded=bool(self.queue), forced=job.node.task.name in self.wiring.force)
        self._running[job.number] = job
        if job.node.mapped is not None and job.item >= 0:
            job.node.mapped.running += 1
        self.tell("start", job)
        try:
            self._launcher.launch(job)
        except MainspringError as error:
            fault = fault_of(error, job.node.task)
            self._attempt_failed(self._ended(job), fault, silent=False, log_digest=self._launcher.close_log(job))

    def _claim(self, job: Job) -> bool:
        """Make the key ours. Else wait: for a job of this run, or for another driver."""
        key, once = job.keyed.key, job.node.task.options.once
        first = self._in_work.get(key)
        if first is not None:
            first.followers.append(job)
            return False
        holder = self.ledger.claim(key, once=once, force=once and not self.may_reuse(job))
        if holder is not None:
            self._held_elsewhere(job, holder.gone)
            return False
        job.claimed = True
        self._in_work[key] = job
        kept = self._kept_for(job)
        if kept is None:
            return True
        self._hit(job, kept)  # another driver has finished it since we looked
        return False

    def _held_elsewhere(self, job: Job, dead: bool) -> None:
        """Another driver computes the key: wait for it; a dead one may have done a thing that must not be repeated."""
        kept = self._kept_for(job) if dead else None
        if kept is not None:
            self._hit(job, kept)
        elif dead:
            raise unknown(job)
        else:
            self.queue.elsewhere.append(job)

    # -- what workers say -----------------------------------------------------------------------------------------

    def _heard(self, job: Job, message: Reply | Exited) -> None:
        if isinstance(message, Done):
            self._finished(job, message)
        elif isinstance(message, Failed):
            job.fault = message.fault
        elif isinstance(message, Exited):
            self._gone(job, message)
        elif isinstance(message, Computed):
            self._computed(job)
        elif isinstance(message, Measured):
            self.ledger.measure(Metric(message.name, message.value, message.step, message.at))
            self.tell("metric", job, text=f"{message.name} {message.value:g}")
        elif isinstance(message, Noted):
            job.node.notes[message.text] = None
        else:
            self.tell("moved", job, done=message.done, total=message.total)

    def _computed(self, job: Job) -> None:
        """While the result is written, which waits for the disk, the core may serve another step."""
        if len(self._running) <= _WRITING_A_CORE * self.wiring.capacity.total("cpu"):
            self.wiring.capacity.give_back({"cpu": job.need.get("cpu", 0.0)})
            job.need = {**job.need, "cpu": 0.0}

    def _finished(self, job: Job, done: Done) -> None:
        """The result is stored: record it, and let others have it."""
        job.done = True
        task, ended = job.node.task, self.ledger.clock()
        reasons = list(done.undeclared)
        if not self.keys.inputs_unchanged(job.declared):
            reasons.append("a file that is its input changed while it ran")
        keep = job.cacheable and (not reasons or task.options.once)
        if reasons and job.cacheable and not keep:
            job.node.cacheable = False
            job.node.notes[f"not kept for other runs: {'; '.join(reasons)}"] = None
        row = row_of(
            self.ledger.run_id,
            job,
            "ok",
            job.started_us,
            ended,
            note="; ".join(job.node.notes),
            log_digest=self._launcher.close_log(job),
            detail=detail_of(job),
        )
        inputs = [result.digest for result in job.node.inputs.values()]
        standing = self.ledger.commit(row, done.result, inputs, cache=keep)
        if standing is None:
            raise self.ledger.taken()
        result = winner(done.result, standing) if self.may_reuse(job) else done.result
        self._let_go(job)
        self.deliver(job, result, "ok")

    def _gone(self, job: Job, exited: Exited) -> None:
        """The worker has ended; if it did so without a word, that is a failure."""
        if self._ended(job).done:
            return
        log_digest = self._launcher.close_log(job)
        silent = job.fault is None or job.timed_out
        if silent:
            how = Death(exited, job.timed_out, oom_kills() > self._oom)
            job.fault = death(job.node.task, job.title, job.log_path or Path(), how)
        assert job.fault is not None
        self._attempt_failed(job, job.fault, silent, log_digest)

    def _ended(self, job: Job) -> Job:
        """The attempt occupies nothing any more."""
        del self._running[job.number]
        self.wiring.capacity.give_back(job.need)
        if job.node.mapped is not None and job.item >= 0:
            job.node.mapped.running -= 1
        return job

    def _attempt_failed(self, job: Job, fault: Fault, silent: bool, log_digest: str) -> None:
        task = job.node.task
        status: StepStatus = "unknown" if silent and task.options.once else "failed"
        error = error_of(fault, job.secrets)
        text = f"{error.code} {error.what}: {error.why}".rstrip(": ")
        ended = self.ledger.clock()
        self.ledger.end(
            row_of(self.ledger.run_id, job, status, job.started_us, ended, error=text, log_digest=log_digest)
        )
        job.unclear = status == "unknown"
        if job.unclear:
            self._give_up(job, unknown(job))
        elif job.attempt <= task.options.retries and not self.stopping:
            job.need = self.need(task)
            pause = backoff_seconds(task, job.attempt)
            self.queue.delay(job, time.monotonic() + pause)
            self.tell("retry", job, text=f"{error.what}; again in {pause:g} s")
        else:
            self._give_up(job, error)

    def _let_go(self, job: Job) -> None:
        """Give the claim back; those who waited for the key in this run are due again."""
        if self._in_work.get(job.keyed.key) is job:
            del self._in_work[job.keyed.key]
        # After success the kept result answers before anybody asks for the claim, which runs out by itself. The claim
        # on a thing that must not be repeated stays when nobody knows whether it was done.
        if job.claimed and not (job.done or job.unclear):
            self.ledger.release(job.keyed.key)
        job.claimed = False
        followers, job.followers = job.followers, []
        for follower in followers:
            self._look_up(follower)

    def _give_up(self, job: Job, error: MainspringError) -> None:
        """The job has failed for good."""
        self._let_go(job)
        if job.item >= 0:
            self._maps.item_failed(job, error)
        else:
            self.fail(job.node, error)

    # -- settling -------------------------------------------------------------------------------------------------

    def deliver(self, job: Job, result: StoredResult, status: StepResult) -> None:
        """A result is there: of a step, or of an item of a map."""
        if job.item >= 0:
            self._maps.item_done(job, result, status)
        else:
            self.settle_with(job.node, result, status, time.monotonic() - job.started if job.attempt else 0.0)

    def settle_with(self, node: Node, result: StoredResult, status: StepResult, seconds: float) -> None:
        """A step has its result."""
        node.result, node.seconds = result, seconds
        self._settle(node, status)

    def _settle(self, node: Node, status: StepResult) -> None:
        node.settled = status
        job = Job(node, node.keyed)
        if status in ("ok", "hit"):
            self._release(node)
        elif status == "skipped":
            now = self.ledger.clock()
            self.ledger.note(row_of(self.ledger.run_id, job, "skipped", now, now, note="; ".join(node.notes)))
        self._settled += 1
        text = node.error.what if node.error is not None else "; ".join(node.notes)
        self.tell(status, job, seconds=node.seconds, text=text)

    def _release(self, node: Node) -> None:
        for index in node.feeds:
            waiting = self.nodes[index]
            waiting.waits.discard(node.index)
            if not waiting.waits and waiting.settled is None:
                self._todo.append(waiting)

    def fail(self, node: Node, error: MainspringError) -> None:
        """A step has failed for good; what needs it is skipped, and unless it says otherwise, nothing else is begun."""
        if node.settled is not None:
            return
        node.error = error
        node.seconds = time.monotonic() - node.started if node.started else 0.0
        self._maps.end_failed(node, error)
        self._settle(node, "unknown" if error.code == "MS-5023" else "failed")
        if node.task.options.on_error == "fail" and not self.wiring.keep_going:
            self.stopping = True
        waiting = [self.nodes[index] for index in node.feeds]
        while waiting:
            one = waiting.pop()
            if one.settled is None:
                one.notes[f"{node.title} failed"] = None
                self._settle(one, "skipped")
                waiting += [self.nodes[index] for index in one.feeds]

    def tell(self, what: Happened, job: Job, **more: object) -> None:
        """Tell who watches."""
        self.wiring.watch(event_of(what, self.ledger.run_id, job, (self._settled, len(self.nodes)), **more))

    def say(self, note: str) -> None:
        """Tell who watches something about the run as a whole."""
        self.wiring.watch(Progress("note", self.ledger.run_id, steps=len(self.nodes), text=note))

    def abandon(self) -> None:
        """Mark what was running as stopped, after the executor has been closed."""
        for job in self._running.values():
            if not job.done:
                digest, now = self._launcher.close_log(job), self.ledger.clock()
                self.ledger.end(row_of(self.ledger.run_id, job, "stopped", job.started_us, now, log_digest=digest))
        for job in list(self._in_work.values()):
            if job.claimed and not job.node.task.options.once:
                self.ledger.release(job.keyed.key)
        for node in self.nodes:
            self._maps.stop(node)
