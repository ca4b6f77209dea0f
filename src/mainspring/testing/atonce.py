"""Things done at the same time, in threads and in forked children."""

from __future__ import annotations

import os
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence

__all__ = ["fork", "forked", "in_children", "together"]


def in_children(work: Sequence[Callable[[], object]]) -> list[int]:
    """Do things in forked children at the same time.

    Returns:
        Their exit statuses: 0 when nothing was raised, negative when killed by that signal.
    """
    children = [forked(one) for one in work]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def forked(work: Callable[[], object]) -> int:
    """Begin something in a forked child; its process id. It exits with 0 when nothing was raised, else with 1."""
    child = fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def fork() -> int:
    """Fork, whatever threads libraries have: the children of these tests use none of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def together(work: Sequence[Callable[[], object]]) -> None:
    """Do things in threads at the same time; raises what one of them raised."""
    failed: list[BaseException] = []

    def run(one: Callable[[], object]) -> None:
        try:
            one()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
