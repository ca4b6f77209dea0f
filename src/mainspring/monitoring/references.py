"""Which reference a monitor goes by: the events ``monitor.reference`` tell it, also to other processes."""

from __future__ import annotations

from mainspring.ports.catalog import Catalog, Event

__all__ = ["reference_of"]

_LATE = 8
"""How many writers may have told of an older reference after a newer one."""


def reference_of(catalog: Catalog, monitor: str) -> Event | None:
    """What was said last of a monitor's reference; None before anything was.

    Of one subject the reference that begins last holds, whichever was written last: a process that was taking a block
    to the old reference while somebody else began anew tells of the old one after the new.
    """
    told = catalog.last_events(what="monitor.reference", subject=f"/monitor/{monitor}", limit=_LATE)
    same = [event for event in told if event.data["reference"] == told[0].data["reference"]]
    return max(same, key=lambda event: (int(str(event.data["from"])), event.seq), default=None)
