"""The door of a registry: whether an image may be pushed is asked while it is built, and not after."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from mainspring.deploy.image.registry import Registry
from mainspring.deploy.image.threads import begun

__all__ = ["OPEN", "Door", "door_of"]


class Door:
    """Where an image is to go; of one that is not pushed, none.

    It is knocked at when something is found to be made anew: then something will be sent, too. What is sent first takes
    the upload that was begun to ask, so that asking costs the registry nothing.
    """

    def __init__(self, registry: Registry | None = None) -> None:
        self._registry = registry
        self._answer: Callable[[], None] | None = None

    def knock(self) -> None:
        """Ask whether one may push, once; nobody waits for the answer here."""
        if self._registry is not None and self._answer is None:
            self._answer = begun(self._registry.knock)

    def wait(self) -> None:
        """Wait for the answer, before what takes long.

        Raises:
            ServiceError: MS-4080, MS-4081, MS-4083, MS-8303; RefusedError: MS-5070.
        """
        self.knock()
        self.enter()

    def enter(self) -> None:
        """Wait for the answer, if it was asked for.

        Raises:
            ServiceError: MS-4080, MS-4081, MS-4083, MS-8303; RefusedError: MS-5070.
        """
        if self._answer is not None:
            self._answer()


OPEN = Door()
"""That of what is pushed nowhere."""


@contextlib.contextmanager
def door_of(registry: Registry | None) -> Iterator[Door]:
    """The door of a registry; an upload that was begun to ask, and that nothing took, is taken back."""
    try:
        yield Door(registry)
    finally:
        if registry is not None:
            registry.leave()
