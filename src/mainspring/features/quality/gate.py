"""The gate before a commit: results gathered, refusals raised, and all of it put on record."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from mainspring.features.quality.results import CheckResult, in_words, refusal, refused
from mainspring.ports.catalog import Catalog, Event

__all__ = ["CHECKED", "PUSHED", "REPLAYED", "Gate", "last_results"]

CHECKED = "checks.done"
"""The event that tells what the checks of a source or view found in a batch."""
PUSHED = "checks.pushed"
"""The event that tells of checks that failed in pushed rows."""
REPLAYED = "replay.mismatch"
"""The event that tells of online answers that are others offline."""


class Gate:
    """What checks find in one batch.

    Args:
        subject: whose they are: ``/source/weather``.
        tell: is told the event's data when the batch is through or refused; a batch that nothing was judged in is
            not told of.
        note: is told in a line what failed and did not refuse.
        origin: what to name as the cause.
    """

    def __init__(
        self,
        subject: str,
        tell: Callable[[dict[str, object]], None],
        note: Callable[[str], None] = lambda line: None,
        origin: str = "",
    ) -> None:
        self._subject = subject
        self._tell = tell
        self._note = note
        self._origin = origin
        self.results: list[CheckResult] = []

    def take(self, results: Sequence[CheckResult]) -> None:
        """Gather results, and refuse the batch as soon as one of them does.

        Raises:
            DataError: MS-2180.
        """
        self.results += results
        if refused(self.results):
            self._told(True)
            _, kind, name = self._subject.split("/")
            raise refusal(f"{kind.replace('_', ' ')} {name!r}", self.results, self._origin)

    def passed(self) -> None:
        """Tell what was found: the batch is committed."""
        if self.results:
            self._told(False)
            if failed := [result for result in self.results if result.state in ("warned", "set_aside")]:
                self._note("; ".join(map(in_words, failed)))

    def _told(self, refuses: bool) -> None:
        self._tell({"refused": refuses, "checks": msgspec.to_builtins(self.results)})


def last_results(catalog: Catalog, subject: str, what: str = CHECKED) -> dict[str, object] | None:
    """What the checks of a source or view found last, with the moment; None where they never judged anything.

    Args:
        catalog: where it is on record.
        subject: whose checks: ``/source/weather``.
        what: `CHECKED`, or `PUSHED` for the last pushed rows that failed.
    """
    found: Sequence[Event] = catalog.last_events(what=what, subject=subject, limit=1)
    return {"at": found[0].at, **found[0].data} if found else None
