"""What is kept for features and nothing reads any more: noted when that is first seen, swept a day after.

A changed definition has its rows beside those of the old one, which a champion may go on reading, or a replica that has
not been told yet. When a thing was first seen unused, used again, or swept, is an event of the catalog, so that every
process of a project goes by the same clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

import msgspec

from mainspring.features.online.keys import view_prefix
from mainspring.features.online.watermark import mark_key
from mainspring.ports.catalog import Catalog, Event
from mainspring.ports.online import OnlineStore

__all__ = ["KEEP_US", "Unused", "drop_online", "kept_online", "online_subject", "sweep", "unused_of"]

KEEP_US = 86_400_000_000
"""For how long what is not used any more stays, in microseconds."""

_KEPT = "kept."
_USED, _UNUSED, _SWEPT = "kept.used", "kept.unused", "kept.swept"
_MANY = 1 << 30


class Unused(msgspec.Struct, frozen=True):
    """Something that nothing reads.

    Attributes:
        subject: its URL: ``/online_view/3``, ``/vector_collection/NAME``.
        what: in words.
        since_us: when that was first seen, in microseconds since 1970; None when it was not yet.
        sweep_us: when it may be swept, or None.
    """

    subject: str
    what: str
    since_us: int | None
    sweep_us: int | None


def online_subject(number: int) -> str:
    """The URL of what is kept online under a number."""
    return f"/online_view/{number}"


def unused_of(catalog: Catalog, there: Mapping[str, str], used: Set[str]) -> list[Unused]:
    """What is there and is not used; nothing is noted.

    Args:
        catalog: where it is on record.
        there: what there is, in words by its subject.
        used: the subjects of what is read.
    """
    found = []
    states = _states(catalog)
    for subject, what in there.items():
        state = states.get(subject)
        if subject in used:
            continue
        since = state.at if state is not None and state.what == _UNUSED else None
        found.append(Unused(subject, what, since, None if since is None else since + KEEP_US))
    return found


def sweep(
    catalog: Catalog,
    there: Mapping[str, str],
    used: Set[str],
    drop: Callable[[str], object],
    *,
    now_us: int,
    actor: str,
) -> list[Unused]:
    """Note what is not used, and what is again; drop what was not for a day.

    Args:
        catalog: where it is on record.
        there: what there is, in words by its subject.
        used: the subjects of what is read.
        drop: removes what a subject stands for; may be called again for what is gone.
        now_us: the present, in microseconds since 1970.
        actor: who does it.

    Returns:
        What was dropped.
    """
    states = _states(catalog)
    for subject in used:
        state = states.get(subject)
        if state is not None and state.what != _USED:
            catalog.add_event(Event(now_us, actor, _USED, subject))
    dropped = []
    for unused in unused_of(catalog, there, used):
        if unused.sweep_us is None:
            catalog.add_event(Event(now_us, actor, _UNUSED, unused.subject, {"what": unused.what}))
        elif unused.sweep_us <= now_us:
            drop(unused.subject)
            catalog.add_event(Event(now_us, actor, _SWEPT, unused.subject, {"what": unused.what}))
            dropped.append(unused)
    return dropped


def _states(catalog: Catalog) -> dict[str, Event]:
    """The newest event of each subject."""
    found: dict[str, Event] = {}
    for event in catalog.last_events(what=_KEPT, limit=_MANY):
        found.setdefault(event.subject, event)
    return found


def kept_online(catalog: Catalog, store: OnlineStore) -> dict[str, str]:
    """What is kept online, in words by its subject: what has a mark, or was noted as unused and may lack one."""
    entities = {one.version: one for one in catalog.entities("online_view", "all", limit=_MANY)}
    noted = {subject for subject, state in _states(catalog).items() if state.what == _UNUSED}
    marks = store.get_many([mark_key(number) for number in entities])
    return {
        online_subject(number): f"rows online of feature view {entity.spec.get('view', '')}, "
        f"as {str(entity.spec.get('log', '')).rpartition('/')[2][:8]} (number {number})"
        for (number, entity), mark in zip(entities.items(), marks, strict=True)
        if mark is not None or online_subject(number) in noted
    }


def drop_online(store: OnlineStore, number: int) -> int:
    """Remove all rows that are kept online under a number; how many there were.

    Whoever brings the view up to date meanwhile begins anew afterwards: its mark goes first, so that nobody goes on
    from it, and again at last, so that none stands that was written while rows were removed.
    """
    mark = mark_key(number)
    store.delete([mark])
    dropped = store.drop(view_prefix(number))
    store.delete([mark])
    return dropped
