"""How a deployment is: its revisions, its pods, and why they are not well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mainspring.adapters.kubernetes.objects import CANARY, COMPONENT, RECORD, REVISION, SERVER, release_name, url_of
from mainspring.adapters.kubernetes.observing import age_of, ours
from mainspring.errors import RefusedError
from mainspring.ports.cluster import Cluster, Kind, Object
from mainspring.ports.target import Health, Part, Revision, Split

__all__ = ["revisions_of", "running_of", "status_of"]

_STUCK = frozenset({
    "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "CrashLoopBackOff", "CreateContainerConfigError",
    "CreateContainerError", "RunContainerError",
})  # fmt: skip
_POD = Kind("v1", "Pod", "pods")
_WORST = ("failed", "degraded", "progressing", "healthy")
_BY_OPERATORS = ("InferenceService", "RayService")
"""Kinds whose operators say by the condition Ready how they are."""
_RUNS = ("Deployment", "InferenceService", "RayService")


def revisions_of(found: Sequence[Object]) -> list[Revision]:
    """The revisions whose records are kept, the newest first.

    Raises:
        RefusedError: MS-5087, a record is no longer what it was.
    """
    records = [item for item in found if item["kind"] == "ConfigMap" and RECORD in _annotations(item)]
    records.sort(key=age_of, reverse=True)
    return [_revision(item) for item in records]


def _revision(item: Object) -> Revision:
    told = _labels(item).get(REVISION, "")
    try:
        found = msgspec.json.decode(_annotations(item)[RECORD], type=Revision)
    except msgspec.DecodeError as error:
        raise _tampered(item, str(error)) from error
    if found.id != told:
        raise _tampered(item, f"its label says {told}, and its content is {found.id}")
    return found


def _tampered(item: Object, why: str) -> RefusedError:
    return RefusedError(
        f"the record of a release was changed: {url_of(item)}",
        code="MS-5087",
        why=why,
        origin=url_of(item),
        fix="delete that ConfigMap; a release that still runs is recorded again by mainspring deploy apply",
    )


def running_of(found: Sequence[Object], app: str) -> tuple[Revision | None, Split | None]:
    """The revision that runs, and the one beside it with its share."""
    main, beside = _runs(found, SERVER), _runs(found, CANARY)
    known = {
        item["metadata"]["name"]: item for item in found if item["kind"] == "ConfigMap" and RECORD in _annotations(item)
    }

    def revision(item: Object | None) -> Revision | None:
        record = None if item is None else known.get(release_name(app, _labels(item).get(REVISION, "")))
        return None if record is None else _revision(record)

    stable, second = revision(main), revision(beside)
    return stable, None if second is None else Split(second, _percent(found))


def _runs(found: Sequence[Object], component: str) -> Object | None:
    of_component = (item for item in found if item["kind"] in _RUNS and _labels(item).get(COMPONENT) == component)
    return next(of_component, None)


def _percent(found: Sequence[Object]) -> int:
    for item in found:
        if item["kind"] == "HTTPRoute":
            for rule in item["spec"].get("rules", ()):
                for behind in rule.get("backendRefs", ()):
                    if str(behind.get("name", "")).endswith(f"-{CANARY}"):
                        return int(behind.get("weight", 0))
    return 0


def status_of(app: str, cluster: Cluster, lines: int) -> Health:
    """How an app is, with so many last lines of the log of what is not well."""
    found = ours(cluster, app)
    parts = [_deployment(item, cluster, lines) for item in found if item["kind"] == "Deployment"]
    parts += [_service(item) for item in found if item["kind"] in _BY_OPERATORS]
    if not parts:
        return Health("absent")
    stable, split = running_of(found, app)
    state = next(word for word in _WORST if any(part.state == word for part in parts))
    return Health(
        state,  # type: ignore[arg-type]
        "" if stable is None else stable.id,
        "" if stable is None else stable.release.image,
        "" if split is None else split.revision.id,
        0 if split is None else split.percent,
        tuple(parts),
        tuple(revision.id for revision in revisions_of(found)),
    )


def _deployment(item: Object, cluster: Cluster, lines: int) -> Part:
    status, wanted = item.get("status") or {}, item["spec"].get("replicas", 1)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    seen = status.get("observedGeneration", 0) >= item["metadata"].get("generation", 1)
    if seen and updated == available == wanted == status.get("replicas", 0):
        return Part(url_of(item), "healthy", available, wanted)
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    why, log = _stuck(item, cluster, lines)
    if (failure := conditions.get("ReplicaFailure", {})).get("status") == "True":
        why = why or str(failure.get("message", ""))
    elif (progress := conditions.get("Progressing", {})).get("reason") == "ProgressDeadlineExceeded":
        why = why or str(progress.get("message", ""))
    if not why or not seen:
        return Part(url_of(item), "progressing", available, wanted, why, log)
    return Part(url_of(item), "degraded" if available else "failed", available, wanted, why, log)


def _stuck(item: Object, cluster: Cluster, lines: int) -> tuple[str, tuple[str, ...]]:
    """Why the newest pods do not come up, and the last lines of the one that told most."""
    labels = ",".join(f"{key}={value}" for key, value in item["spec"]["selector"]["matchLabels"].items())
    revision = _labels(item["spec"]["template"]).get(REVISION, "")
    for pod in cluster.list(_POD, f"{labels},{REVISION}={revision}" if revision else labels):
        for container in (pod.get("status") or {}).get("containerStatuses") or ():
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") in _STUCK:
                name, text = pod["metadata"]["name"], str(waiting.get("message", ""))
                log = cluster.log(name, container["name"], lines) if container.get("restartCount") else ()
                return f"{name}: {waiting['reason']}{': ' if text else ''}{text}"[:500], tuple(log)
        for condition in (pod.get("status") or {}).get("conditions") or ():
            if condition.get("reason") == "Unschedulable":
                return f"{pod['metadata']['name']}: {condition.get('message', '')}"[:500], ()
    return "", ()


def _service(item: Object) -> Part:
    conditions = {one["type"]: one for one in (item.get("status") or {}).get("conditions") or ()}
    ready = conditions.get("Ready", {})
    if ready.get("status") == "True":
        return Part(url_of(item), "healthy")
    bad = next((one for one in conditions.values() if one.get("status") == "False" and one.get("message")), ready)
    state = "failed" if ready.get("status") == "False" and bad.get("severity") != "Info" else "progressing"
    return Part(url_of(item), state, why=str(bad.get("message", "")))


def _labels(item: Object) -> Mapping[str, str]:
    return item["metadata"].get("labels") or {}


def _annotations(item: Object) -> Mapping[str, str]:
    return item["metadata"].get("annotations") or {}
