"""Compute: other machines that carry out parts of one piece of work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

__all__ = ["Compute"]

T = TypeVar("T")
R = TypeVar("R")


@runtime_checkable
class Compute(Protocol):
    """Where parts are carried out. The files that parts name must be there under the same paths."""

    def map(self, function: Callable[[T], R], parts: Iterable[T]) -> Iterator[R]:
        """What a function makes of each part, in the order of the parts; only a few wait at a time.

        Args:
            function: at the top level of a module that is installed there too.
            parts: what it is given, one by one; they and what it returns can be pickled.

        Raises:
            MainspringError: as the function raises.
            ServiceError: MS-4240, the machines cannot be reached; MS-4241, they lost a part, again and again.
        """

    def close(self) -> None:
        """Let go of them."""
