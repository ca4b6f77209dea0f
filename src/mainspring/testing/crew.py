"""Processes that do the same at the same moment."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

__all__ = ["Crew", "serve"]

Given = TypeVar("Given")
T = TypeVar("T")


class Crew:
    """Processes that do the same at the same moment; start them once, they cost an interpreter each.

    What they do is a function of a module, and what it is given is pickled.
    """

    def __init__(self, size: int = 4) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        code = "from mainspring.testing.crew import serve; serve()"
        self._members = [
            subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
            for _ in range(size)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for member in self._members:
            member.communicate()

    def together(self, work: Callable[[Given, int], T], given: Given) -> list[T]:
        """What each member's `work` gave, in order; it is handed what is given and the member's number.

        Raises:
            AssertionError: a member's work raised.
        """
        for member in self._members:
            _put(member, (work, given))
        for member in self._members:
            assert member.stdout is not None
            assert member.stdout.readline() == b"ready\n"
        for number, member in enumerate(self._members):
            _put(member, number)
        results = [pickle.load(member.stdout) for member in self._members if member.stdout]
        assert all(ok for ok, _ in results), [result for _, result in results]
        return [result for _, result in results]


def _put(member: subprocess.Popen[bytes], value: object) -> None:
    assert member.stdin is not None
    pickle.dump(value, member.stdin)
    member.stdin.flush()


def serve() -> None:
    """What a member of a `Crew` runs until its input ends."""
    given, told = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            work, its = pickle.load(given)
        except EOFError:
            return
        told.write(b"ready\n")
        told.flush()
        number = pickle.load(given)
        try:
            result = (True, work(its, number))
        except Exception as error:
            result = (False, f"{type(error).__name__}: {error}")
        pickle.dump(result, told)
        told.flush()
