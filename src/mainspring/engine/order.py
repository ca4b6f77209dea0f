"""The order of a graph's tasks, and what of the machine each occupies. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mainspring.engine.reference import place_of
from mainspring.engine.task import Task, TaskGraph
from mainspring.errors import DeclarationError, UserCodeError

__all__ = ["Capacity", "Layout", "laid_out"]


class Layout(msgspec.Struct, frozen=True):
    """A graph in the order it can be carried out.

    Attributes:
        tasks: inputs before what takes them.
        needs: for each task, the indexes of those it takes results from.
        feeds: for each task, the indexes of those that take its result.
        height: for each task, the length of the longest path that waits for it; the longest goes first.
    """

    tasks: tuple[Task, ...]
    needs: tuple[frozenset[int], ...]
    feeds: tuple[tuple[int, ...], ...]
    height: tuple[int, ...]


def laid_out(graph: TaskGraph) -> Layout:
    """The layout of a graph.

    Raises:
        DeclarationError: MS-2030, two tasks share a name, an input names no task, or the tasks form a cycle.
    """
    by_name = _by_name(graph)
    tasks = _sorted(graph, by_name)
    index = {task.name: number for number, task in enumerate(tasks)}
    needs = tuple(frozenset(index[output.task] for output in task.inputs.values()) for task in tasks)
    feeds: list[list[int]] = [[] for _ in tasks]
    for number, needed in enumerate(needs):
        for one in needed:
            feeds[one].append(number)
    height = [1] * len(tasks)
    for number in reversed(range(len(tasks))):
        height[number] += max((height[one] for one in feeds[number]), default=0)
    return Layout(tasks, needs, tuple(map(tuple, feeds)), tuple(height))


def _by_name(graph: TaskGraph) -> dict[str, Task]:
    found: dict[str, Task] = {}
    for task in graph.tasks:
        if task.name in found:
            raise _wrong(task, f"two tasks of {graph.name} are called {task.name!r}", "give one of them another name")
        found[task.name] = task
    for task in graph.tasks:
        for parameter, output in task.inputs.items():
            if output.task not in found:
                raise _wrong(
                    task,
                    f"input {parameter!r} of {task.name!r} is the result of {output.task!r}, which is not in the graph",
                    "add that task to the graph",
                )
    return found


def _sorted(graph: TaskGraph, by_name: Mapping[str, Task]) -> tuple[Task, ...]:
    """Depth first without recursion: a chain may be long."""
    done: dict[str, Task] = {}
    for root in graph.tasks:
        path: dict[str, None] = {}
        stack = [root.name]
        while stack:
            name = stack[-1]
            if name in done:
                stack.pop()
                path.pop(name, None)
                continue
            missing = [output.task for output in by_name[name].inputs.values() if output.task not in done]
            if not missing:
                done[name] = by_name[name]
                continue
            path[name] = None
            if any(one in path for one in missing):
                raise _wrong(by_name[name], f"the tasks of {graph.name} form a cycle", "take one of the inputs away")
            stack.extend(missing)
    return tuple(done.values())


def _wrong(task: Task, what: str, fix: str) -> DeclarationError:
    return DeclarationError(what, code="MS-2030", origin=place_of(task), fix=fix)


class Capacity:
    """What the machine has left for steps: cores, GPUs, bytes of memory.

    Args:
        total: how much there is of each.
    """

    def __init__(self, total: Mapping[str, float]) -> None:
        self._total = dict(total)
        self._used = dict.fromkeys(total, 0.0)

    def total(self, name: str) -> float:
        """How much there is of something."""
        return self._total.get(name, 0.0)

    def need(self, task: Task) -> dict[str, float]:
        """What an attempt of a task occupies; one core unless it says otherwise, and never more cores than there are.

        Raises:
            UserCodeError: MS-2031, the machine does not have it.
        """
        wanted = {"cpu": 1.0, **task.options.resources}
        wanted["cpu"] = min(wanted["cpu"], self._total.get("cpu", 1.0))
        for name, amount in wanted.items():
            there = self._total.get(name, 0.0)
            if amount > there:
                raise UserCodeError(
                    f"{task.title or task.name} needs {amount:g} {name}, and this machine has {there:g}",
                    code="MS-2031",
                    origin=place_of(task),
                    fix="run it on a larger machine, or ask for less in resources=",
                )
        return wanted

    def take(self, need: Mapping[str, float]) -> bool:
        """Occupy it; False when it is not free now."""
        if any(self._used.get(name, 0.0) + amount > self._total[name] + 1e-9 for name, amount in need.items()):
            return False
        for name, amount in need.items():
            self._used[name] += amount
        return True

    def give_back(self, need: Mapping[str, float]) -> None:
        """Free it."""
        for name, amount in need.items():
            self._used[name] -= amount
