"""What a serving process does again and again beside answering: champions, monitors, schedules, sweeps."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from mainspring.errors import MainspringError
from mainspring.server.answering.assistants import Assistants
from mainspring.server.answering.language import Language
from mainspring.server.answering.watching import AnswerMonitors
from mainspring.server.rollouts.drive import Rollouts
from mainspring.server.schedules import Schedules
from mainspring.server.state import WorkerState

__all__ = ["Faults", "Upkeep"]

_ALIAS_SECONDS = 0.25
_THREADS_SECONDS = 60.0
_ROLLOUT_SECONDS = 1.0
"""How often rollouts are looked at."""
_UNUSED_SECONDS = 3600.0
_REFILL_SECONDS = 5.0
"""How often it is looked whether the online store still has what it had."""
_FOLLOW_SECONDS = 0.5
"""How often vector indexes look for rows that came: pushes that come between are taken together."""
_PUBLISH_SECONDS = 0.5
"""How often a worker writes down what others show of it, and cannot count when it happens."""
_AGAIN_SECONDS = 60.0
"""How long a fault that lasts is not told again: what is done four times a second would fill the disk with it."""


class Upkeep:
    """The repeated tasks of a serving process.

    Args:
        state: the process's.
        rollouts: the driver of its models' versions.
        assistants: whose old threads are swept.
        answers: the monitors of assistants.
        language: is brought up, and its prompts are followed.
        leads: whether it is the worker that judges, keeps the timetables, drives rollouts and sweeps: one alone does.
        told: told what a person should know, a line at a time.
    """

    def __init__(
        self,
        state: WorkerState,
        rollouts: Rollouts,
        assistants: Assistants,
        answers: AnswerMonitors,
        language: Language,
        leads: bool,
        told: Callable[[str], None],
    ) -> None:
        self._state = state
        self._rollouts = rollouts
        self._assistants = assistants
        self._answers = answers
        self._language = language
        self._leads = leads
        self._told = told
        self._moved: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, and bring the language models up; inside the event loop."""
        self._tasks.append(asyncio.create_task(self._language.start()))
        for pause, action in self._actions():
            self._tasks.append(asyncio.create_task(self._every(pause, action)))
        if self._leads:
            self._tasks.append(asyncio.create_task(self._sweep_threads()))

    async def stop(self) -> None:
        """Cancel the tasks, and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def described(self) -> list[tuple[str, float]]:
        """What is done, and the pause between two times in seconds."""
        return [(_named(action), pause) for pause, action in self._actions()]

    def _actions(self) -> list[tuple[float, Callable[[], object]]]:
        state = self._state
        actions: list[tuple[float, Callable[[], object]]] = [
            (_ALIAS_SECONDS, self._refresh),
            (_FOLLOW_SECONDS, state.vector_indexes.follow),
        ]
        if state.together is not None:
            actions += [(_PUBLISH_SECONDS, state.publish_metrics), (_PUBLISH_SECONDS, state.levels.follow)]
        if not self._leads:
            return actions
        seconds = state.services.settings.number("monitoring.every")
        actions += [(seconds, state.monitor_once), (seconds, self._answers.once), (seconds, state.replay_once)]
        if not state.tried:
            actions += [
                (1.0, Schedules(state.services, state.plan, self._told).fire),
                (1.0, state.scorings.once),
                (_UNUSED_SECONDS, state.sweep_once),
                (_REFILL_SECONDS, state.refilling.once),
                (_ROLLOUT_SECONDS, self._rollouts.once),
                (_ROLLOUT_SECONDS, state.watch.once),
                (seconds, self._rollouts.compact),
            ]
        return actions

    def _refresh(self) -> None:
        state = self._state
        for name in state.refresh():
            live = state.models.get(name)
            self._told(f"model {name} version {live.version if live else '?'} answers now")
            if state.together is not None and self._leads:
                self._moved.add(name)
        for name in tuple(self._moved):
            live = state.models.get(name)
            if state.together is not None and live is not None and state.together.everywhere(name, live.version):
                self._moved.discard(name)
                self._told(f"model {name} version {live.version} answers in all workers")
        for line in self._language.prompts.refresh():
            self._told(line)

    async def _sweep_threads(self) -> None:
        """Delete the threads of assistants whose time is over."""
        while True:
            await asyncio.sleep(_THREADS_SECONDS)
            for name, assistant in self._assistants.items():
                try:
                    await assistant.sweep()
                except MainspringError as error:
                    self._told(f"assistant {name}: {error.lines()}")

    async def _every(self, seconds: float, action: Callable[[], object]) -> None:
        """Call something in a thread again and again; a fault is told, and the next call tries again."""
        name = getattr(action, "__name__", "task").strip("_")
        faults = Faults(self._told, name)
        while True:
            try:
                await asyncio.to_thread(action)
            except MainspringError as error:
                faults.came(error.lines())
            except Exception as error:
                faults.came(f"{name}: {type(error).__name__}: {error}")
            else:
                faults.over()
            await asyncio.sleep(seconds)


class Faults:
    """Tells of the faults of something that is done again and again: one that lasts once a minute, and its end.

    Args:
        told: told a line at a time.
        what: what is done.
        clock: seconds.
    """

    def __init__(self, told: Callable[[str], None], what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._told = told
        self._what = what
        self._clock = clock
        self._last: dict[str, float] = {}
        self._since: float | None = None

    def came(self, text: str) -> None:
        """It has failed, as the text tells."""
        now = self._clock()
        since, self._since = self._since, now if self._since is None else self._since
        if now - self._last.get(text, -_AGAIN_SECONDS) < _AGAIN_SECONDS:
            return
        self._last = {known: at for known, at in self._last.items() if now - at < _AGAIN_SECONDS} | {text: now}
        self._told(text if since is None or now == since else f"{self._what}, for {now - since:.0f} s now: {text}")

    def over(self) -> None:
        """It has been done."""
        since, self._since = self._since, None
        if since is not None and self._clock() - since >= _AGAIN_SECONDS:
            self._told(f"{self._what}: done again, after {self._clock() - since:.0f} s")


def _named(action: Callable[[], object]) -> str:
    return f"{action.__module__}.{getattr(action, '__qualname__', 'task')}"
