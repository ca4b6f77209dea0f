"""What is there beside what should be: only fields that we own are looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mainspring.adapters.kubernetes.objects import MANAGER
from mainspring.ports.cluster import Object

__all__ = ["differences", "is_ours_alone", "owned_state"]

_SERVERS = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid")
"""What the server writes into the metadata by itself."""
_LONGEST = 120
_MOST = 50


def differences(there: Object, would_be: Object) -> tuple[tuple[str, str, str], ...]:
    """The fields in which a dry run's object differs from the one that is there: path, old and new value."""
    found = []
    for path, old, new in _walk(_plain(there), _plain(would_be), ""):
        found.append((path, _shown(old), _shown(new)))
        if len(found) == _MOST:
            break
    return tuple(found)


def owned_state(there: Object | None, wanted: Object) -> object:
    """What an object's fields that we set hold now, and which object it is: a digest of it tells a moved world.

    Status, counters and what other controllers set, such as replicas under an autoscaler, are not part of it.
    """
    if there is None:
        return None
    return [there["metadata"].get("uid", ""), _projected(there, wanted)]


def is_ours_alone(there: Object, label: str, app: str) -> bool:
    """Whether an object bears our label and was written by us."""
    metadata = there["metadata"]
    managers = {entry.get("manager") for entry in metadata.get("managedFields", ())}
    return (metadata.get("labels") or {}).get(label) == app and MANAGER in managers


def _plain(item: Object) -> Object:
    metadata = {key: value for key, value in item["metadata"].items() if key not in _SERVERS}
    rest = {key: value for key, value in item.items() if key not in ("metadata", "status")}
    return {**rest, "metadata": metadata}


_MISSING: Any = object()


def _walk(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _walk(old.get(key, _MISSING), new.get(key, _MISSING), f"{path}.{key}" if path else str(key))
        return
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            name = one.get("name") if isinstance(one, Mapping) else None
            yield from _walk(one, other, f"{path}[{name or index}]")
        return
    yield path, old, new


def _projected(there: Any, wanted: Any) -> Any:
    """The parts of one value for which another has a place."""
    if isinstance(there, Mapping) and isinstance(wanted, Mapping):
        return {key: _projected(there.get(key), value) for key, value in wanted.items()}
    if isinstance(there, list) and isinstance(wanted, list):
        if len(there) != len(wanted):
            return there
        return [_projected(one, other) for one, other in zip(there, wanted, strict=True)]
    return there


def _shown(value: Any) -> str:
    if value is _MISSING:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), sort_keys=True)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
