"""What is there, and what each object would become: reads and dry runs only."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mainspring.adapters.kubernetes.compare import differences, is_ours_alone, owned_state
from mainspring.adapters.kubernetes.kserve import MODE
from mainspring.adapters.kubernetes.objects import APP, COMPONENT, ORDER, key_of, url_of
from mainspring.adapters.kubernetes.problems import unknown_kind
from mainspring.errors import RefusedError
from mainspring.ports.cluster import Applied, Cluster, Kind, Object
from mainspring.ports.target import Change, Rendered, World, digest_of

__all__ = ["VERSIONS", "Seen", "Sight", "age_of", "kind_of", "observe", "ours", "plan", "refused_object"]

VERSIONS = {
    "ConfigMap": "v1", "Service": "v1", "NetworkPolicy": "networking.k8s.io/v1", "PodDisruptionBudget": "policy/v1",
    "Deployment": "apps/v1", "HorizontalPodAutoscaler": "autoscaling/v2", "CronJob": "batch/v1",
    "InferenceService": "serving.kserve.io/v1beta1", "RayJob": "ray.io/v1", "RayService": "ray.io/v1",
    "HTTPRoute": "gateway.networking.k8s.io/v1", "ServiceMonitor": "monitoring.coreos.com/v1",
    "PrometheusRule": "monitoring.coreos.com/v1", "ExternalSecret": "external-secrets.io/v1",
    "ScaledObject": "keda.sh/v1alpha1",
}  # fmt: skip
"""The kinds that are written, and looked through for what is no longer wanted."""


_LOOKS = 10
"""How often an object is looked at again that others keep writing."""


class Seen(msgspec.Struct, frozen=True):
    """One wanted object: what is there, and what it would become.

    Attributes:
        wanted: as rendered.
        there: as it is; None when there is none of that name.
        would_be: as it would be, by a dry run; None when it has to be replaced.
        conflicts: who owns fields that are to be ours.
    """

    wanted: Object
    there: Object | None
    would_be: Object | None
    conflicts: tuple[str, ...] = ()


class Sight(msgspec.Struct, frozen=True):
    """All that was looked at.

    Attributes:
        world: what the cluster can do.
        seen: each wanted object.
        surplus: objects with the app's label that are wanted no more, in the order in which they are deleted.
    """

    world: World
    seen: tuple[Seen, ...]
    surplus: tuple[Object, ...]


def kind_of(cluster: Cluster, item: Object) -> Kind:
    """An object's kind as the cluster names it.

    Raises:
        RefusedError: MS-5086, the cluster does not know it.
    """
    version, kind, _ = key_of(item)
    found = cluster.kind(version, kind)
    if found is None:
        raise unknown_kind(kind, version)
    return found


def ours(cluster: Cluster, app: str) -> list[Object]:
    """Every object with the app's label, in the order in which they are written."""
    found: list[Object] = []
    for name in ORDER:
        kind = cluster.kind(VERSIONS[name], name)
        if kind is not None:
            found += cluster.list(kind, f"{APP}={app}")
    return found


def observe(rendered: Rendered, cluster: Cluster, world: World, history: int) -> Sight:
    """Look at each wanted object, and for what is wanted no more.

    Args:
        rendered: what is wanted.
        cluster: where.
        world: what it can do.
        history: how many releases are kept.

    Raises:
        RefusedError: MS-5084, the server refuses an object; MS-5086, it does not know a kind.
    """
    labelled = {key_of(item): item for item in ours(cluster, rendered.app)}
    seen = tuple(_seen(item, cluster, labelled.get(key_of(item))) for item in rendered.objects)
    wanted = {key_of(item) for item in rendered.objects}
    rest = [item for key, item in labelled.items() if key not in wanted]
    releases = [item for item in rest if _is_release(item)]
    releases.sort(key=age_of, reverse=True)
    now = sum(_is_release(item) for item in rendered.objects)
    kept = {key_of(item) for item in releases[: max(0, history - now)]}
    surplus = tuple(item for item in reversed(rest) if key_of(item) not in kept)
    return Sight(world, seen, surplus)


def age_of(item: Object) -> tuple[str, int]:
    """When an object was made, for comparison; what was never changed has the version that it was made with."""
    metadata = item["metadata"]
    version = str(metadata.get("resourceVersion") or "")
    return str(metadata.get("creationTimestamp") or ""), int(version) if version.isdigit() else 0


def _is_release(item: Object) -> bool:
    labels = item["metadata"].get("labels") or {}
    return bool(item["kind"] == "ConfigMap" and labels.get(COMPONENT) == "release")


def _seen(item: Object, cluster: Cluster, there: Object | None) -> Seen:
    kind = kind_of(cluster, item)
    if there is None:
        there = cluster.get(kind, item["metadata"]["name"])
    if there is not None and _must_be_replaced(there, item):
        return Seen(item, there, None)
    there, done = _at_once(cluster, kind, item, there)
    conflicts = tuple(done.conflicts)
    if conflicts:
        there, done = _at_once(cluster, kind, item, there, force=True)
    if done.object is None:
        if there is not None and "immutable" in done.refused:
            return Seen(item, there, None, conflicts)
        raise refused_object(item, done)
    return Seen(item, there, done.object, conflicts)


def _at_once(
    cluster: Cluster, kind: Kind, item: Object, there: Object | None, *, force: bool = False
) -> tuple[Object | None, Applied]:
    """What is there and what it would become, of one moment: controllers write in between."""
    for _ in range(_LOOKS):
        done = cluster.apply(kind, item, dry_run=True, force=force)
        if done.object is None or _version(done.object) == _version(there):
            break
        there = cluster.get(kind, item["metadata"]["name"])
        if _version(done.object) == _version(there):
            break
    return there, done


def _version(item: Object | None) -> str:
    return "" if item is None else str(item["metadata"].get("resourceVersion") or "")


def refused_object(item: Object, done: Applied) -> RefusedError:
    """The server takes an object not at all."""
    return RefusedError(
        f"the cluster refuses {url_of(item)}",
        code="MS-5084",
        why=done.refused or "; ".join(done.conflicts),
        origin=url_of(item),
        fix="correct the setting behind that field; a policy of the cluster is told by its administrator",
    )


def _must_be_replaced(there: Object, item: Object) -> bool:
    """KServe leaves behind what another mode has made, unless the object goes first."""
    if item["kind"] != "InferenceService":
        return False
    modes = [(one["metadata"].get("annotations") or {}).get(MODE, "") for one in (there, item)]
    return bool(modes[0] != modes[1])


def plan(rendered: Rendered, sight: Sight) -> tuple[tuple[Change, ...], str]:
    """What would be done, and the hash of that, of what is wanted and of what was there. Pure."""
    changes = [change for one in sight.seen if (change := _change(one, rendered.app)) is not None]
    changes += [Change("delete", url_of(item)) for item in sight.surplus]
    state: Sequence[object] = [owned_state(one.there, one.wanted) for one in sight.seen]
    gone = [[url_of(item), item["metadata"].get("uid", "")] for item in sight.surplus]
    return tuple(changes), digest_of([rendered.objects, changes, state, gone])


def _change(one: Seen, app: str) -> Change | None:
    url = url_of(one.wanted)
    if one.there is None:
        return Change("create", url)
    if one.would_be is None:
        return Change("replace", url, conflicts=one.conflicts)
    fields = differences(one.there, one.would_be)
    if not is_ours_alone(one.there, APP, app):
        return Change("adopt", url, fields, one.conflicts)
    return Change("update", url, fields, one.conflicts) if fields or one.conflicts else None
