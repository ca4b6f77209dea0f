"""Versions that not all workers have: what worker 0 tells of them, and when it has waited long enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mainspring.errors import ServiceError
from mainspring.server.workers.status import Flip

__all__ = ["FlipWatch"]


class FlipWatch:
    """Watches what the workers do not answer with yet.

    Args:
        flips: called for what that is.
        seconds: how long a version may take until it is in all of them.
        told: told of what takes longer, once each.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        flips: Callable[[], Sequence[Flip]],
        seconds: float,
        told: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._flips = flips
        self._seconds = seconds
        self._told = told
        self._clock = clock
        self._since: dict[tuple[str, str], float] = {}
        self._late: dict[tuple[str, str], Flip] = {}

    def once(self) -> None:
        """Look at them; what cannot be loaded somewhere, or takes too long, is told."""
        now, found = self._clock(), {(flip.model, flip.version): flip for flip in self._flips()}
        self._since = {key: self._since.get(key, now) for key in found}
        for key in list(self._late):
            if key not in found:
                del self._late[key]
        for key, flip in found.items():
            if (flip.refused or now - self._since[key] > self._seconds) and key not in self._late:
                self._told(self._error(flip, now - self._since[key]).lines())
                self._late[key] = flip
            elif key in self._late:
                self._late[key] = flip

    def late(self) -> Mapping[str, str]:
        """What is wrong, by model."""
        return {model: flip.told() for (model, _), flip in self._late.items()}

    def _error(self, flip: Flip, waited: float) -> ServiceError:
        return ServiceError(
            f"model {flip.model!r} version {flip.version} is not taken over: version {flip.answers} goes on",
            code="MS-5132",
            why=flip.told() if flip.refused else f"after {waited:.0f} s {flip.told()}",
            fix=f"mainspring rollback {flip.model}, or mend it: it is tried again, and taken over when all have it",
        )
