"""Writing: one apply at a time, step by step, so that a killed one is gone on with."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from mainspring.adapters.kubernetes.objects import APP, COMPONENT, MANAGER, key_of, named, object_of, url_of
from mainspring.adapters.kubernetes.observing import Seen, Sight, kind_of, refused_object
from mainspring.errors import MainspringError, RefusedError
from mainspring.ports.cluster import Cluster, Kind, Object
from mainspring.ports.target import Change, Told

__all__ = ["LEASE", "carry_out", "check", "lease", "moved"]

LEASE = "coordination.k8s.io/v1"
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


def moved(expected: str, found: str) -> RefusedError:
    """Something is otherwise than it was when the plan was made."""
    return RefusedError(
        "the cluster has changed since the plan was made",
        code="MS-5080",
        why=f"the plan is {expected}, and now it would be {found}",
        fix="mainspring deploy plan, look at it, and apply that",
    )


def check(changes: Sequence[Change], *, force: bool, adopt: bool) -> None:
    """Refuse what needs a word of the user's.

    Raises:
        RefusedError: MS-5081, fields are somebody else's; MS-5082, an object is.
    """
    for change in changes:
        if change.what == "adopt" and not adopt:
            raise RefusedError(
                f"{change.url} is there, and is not ours",
                code="MS-5082",
                why=f"it has no label {APP} of this app, or somebody else has written it",
                origin=change.url,
                fix="delete or rename it; or take it over: mainspring deploy apply --adopt",
            )
        if change.conflicts and not force:
            more = f", and {len(change.conflicts) - 1} more" if len(change.conflicts) > 1 else ""
            raise RefusedError(
                f"a field of {change.url} is somebody else's",
                code="MS-5081",
                why=f"{change.conflicts[0]}{more}",
                origin=change.url,
                fix="leave the field to them; or take it: mainspring deploy apply --force",
            )


def carry_out(sight: Sight, changes: Sequence[Change], cluster: Cluster, told: Told, renew: Callable[[], None]) -> int:
    """Write what differs, then delete what is wanted no more; how many objects were.

    Raises:
        RefusedError: MS-5084, the server refuses an object.
    """
    by_url = {url_of(one.wanted): one for one in sight.seen}
    surplus = {url_of(item): item for item in sight.surplus}
    for change in changes:
        renew()
        if change.what == "delete":
            _delete(surplus[change.url], cluster)
        else:
            _write(by_url[change.url], change, cluster)
        told(f"{change.what} {change.url}")
    return len(changes)


def _write(one: Seen, change: Change, cluster: Cluster) -> None:
    if change.what == "replace":
        assert one.there is not None
        _delete(one.there, cluster)
        _wait_gone(one.there, cluster)
    kind = kind_of(cluster, one.wanted)
    done = cluster.apply(kind, one.wanted, force=bool(change.conflicts))
    if done.object is None:
        raise refused_object(one.wanted, done)


def _delete(item: Object, cluster: Cluster) -> None:
    cluster.delete(kind_of(cluster, item), key_of(item)[2], item["metadata"].get("uid", ""))


def _wait_gone(item: Object, cluster: Cluster, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    kind = kind_of(cluster, item)
    while (found := cluster.get(kind, key_of(item)[2])) is not None:
        if found["metadata"].get("uid") != item["metadata"].get("uid") or time.monotonic() > until:
            return
        time.sleep(0.2)


@contextlib.contextmanager
def lease(app: str, cluster: Cluster, seconds: int) -> Iterator[Callable[[], None]]:
    """Hold the app's lease; what is yielded renews it.

    Whoever was killed holds it until it runs out.

    Raises:
        RefusedError: MS-5083, somebody else applies.
    """
    kind = cluster.kind(LEASE, "Lease") or Kind(LEASE, "Lease", "leases")
    holder = f"{socket.gethostname()}/{os.getpid()}/{time.monotonic_ns()}"
    held = _take(app, kind, cluster, holder, seconds)
    renewed = time.monotonic()

    def renew() -> None:
        nonlocal held, renewed
        if time.monotonic() - renewed < seconds / 3:
            return
        written = cluster.replace(kind, held | {"spec": _spec(holder, seconds)})
        if written is None:
            raise _lost(cluster.get(kind, held["metadata"]["name"]))
        held = written
        renewed = time.monotonic()

    try:
        yield renew
    finally:
        with contextlib.suppress(MainspringError):  # it runs out by itself
            cluster.delete(kind, held["metadata"]["name"], held["metadata"]["uid"])


def _take(app: str, kind: Kind, cluster: Cluster, holder: str, seconds: int) -> Object:
    name = named(app, "deploy")
    labels = {APP: app, COMPONENT: "deploy", "app.kubernetes.io/managed-by": MANAGER}
    wanted = object_of(LEASE, "Lease", name, cluster.namespace, labels, spec=_spec(holder, seconds))
    made = cluster.create(kind, wanted)
    if made is not None:
        return made
    there = cluster.get(kind, name)
    if there is not None and _runs_out(there, cluster, kind):
        taken = cluster.replace(kind, {**there, "spec": _spec(holder, seconds)})
        if taken is not None:
            return taken
    raise _lost(there)


def _runs_out(there: Object, cluster: Cluster, kind: Kind) -> bool:
    """Whether its time has passed and nobody renews it; the machines' clocks are taken to agree within that time."""
    spec = there.get("spec") or {}
    written = datetime.strptime(str(spec.get("renewTime")), _TIME).replace(tzinfo=UTC).timestamp()
    left = min(float(spec.get("leaseDurationSeconds") or 0), written + spec["leaseDurationSeconds"] - time.time())
    if left > 0:
        time.sleep(min(left, 2.0))
        if left > 2.0:
            return False
    now = cluster.get(kind, there["metadata"]["name"])
    return now is not None and now["metadata"]["resourceVersion"] == there["metadata"]["resourceVersion"]


def _spec(holder: str, seconds: int) -> Object:
    now = datetime.now(UTC).strftime(_TIME)
    return {"holderIdentity": holder, "leaseDurationSeconds": seconds, "acquireTime": now, "renewTime": now}


def _lost(there: Object | None) -> RefusedError:
    spec = {} if there is None else there.get("spec") or {}
    return RefusedError(
        "somebody else applies this app right now",
        code="MS-5083",
        why=f"the lease is {spec.get('holderIdentity', 'somebody')}'s",
        fix=f"wait until it is done; one that was killed makes way after {spec.get('leaseDurationSeconds', 30)} s",
    )
