"""What a serving process does again and again beside answering: champions, monitors, schedules, sweeps."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from mainspring.errors import MainspringError
from mainspring.server.answering.assistants import Assistants
from mainspring.server.answering.language import Language
from mainspring.server.answering.watching import AnswerMonitors
from mainspring.server.rollouts.drive import Rollouts
from mainspring.server.schedules import Schedules
from mainspring.server.state import WorkerState

__all__ = ["Upkeep"]

_ALIAS_SECONDS = 0.25
_THREADS_SECONDS = 60.0
_ROLLOUT_SECONDS = 1.0
"""How often rollouts are looked at."""
_UNUSED_SECONDS = 3600.0
_FOLLOW_SECONDS = 0.5
"""How often vector indexes look for rows that came: pushes that come between are taken together."""
_PUBLISH_SECONDS = 0.5
"""How often a worker writes down what others show of it, and cannot count when it happens."""


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
                (1.0, Schedules(state.services, state.plan).fire),
                (1.0, state.scorings.once),
                (_UNUSED_SECONDS, state.sweep_once),
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
        while True:
            try:
                await asyncio.to_thread(action)
            except MainspringError as error:
                self._told(error.lines())
            except Exception as error:
                self._told(f"{getattr(action, '__name__', 'task')}: {type(error).__name__}: {error}")
            await asyncio.sleep(seconds)


def _named(action: Callable[[], object]) -> str:
    return f"{action.__module__}.{getattr(action, '__qualname__', 'task')}"
