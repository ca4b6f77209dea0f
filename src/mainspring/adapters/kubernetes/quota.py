"""Whether a namespace's quotas leave room for what is to be written, before any of it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from mainspring.adapters.kubernetes.objects import url_of
from mainspring.errors import MainspringError, RefusedError
from mainspring.ports.cluster import Cluster, Kind, Object
from mainspring.ports.target import Change

__all__ = ["SCALERS", "amount", "demand", "refuse_beyond", "shortfalls"]

_QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")
_UNITS = {"": 0, "m": -1, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([eE][-+]?[0-9]+)|(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?)")
_PLURALS = {
    "ConfigMap": "configmaps", "Service": "services", "Deployment": "deployments.apps", "CronJob": "cronjobs.batch",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers.autoscaling",
    "PodDisruptionBudget": "poddisruptionbudgets.policy",
    "NetworkPolicy": "networkpolicies.networking.k8s.io",
}  # fmt: skip
_OLD_NAMES = ("configmaps", "services")
"""Kinds that a quota also counts without ``count/``."""
SCALERS = {
    "HorizontalPodAutoscaler": ("scaleTargetRef", "minReplicas"),
    "ScaledObject": ("scaleTargetRef", "minReplicaCount"),
}
"""What scales: where it names whom, and the least replicas."""


def amount(quantity: object) -> Fraction:
    """A quantity of Kubernetes: ``500m`` is a half, ``1Ki`` 1024.

    Raises:
        ValueError: it is none.
    """
    match = _QUANTITY.fullmatch(str(quantity))
    if match is None:
        raise ValueError(f"{quantity!r} is no quantity")
    number, power, unit = Fraction(match[1]), match[2], match[3] or ""
    if power:
        return number * Fraction(10) ** int(power[1:])
    if unit.endswith("i"):
        return number * Fraction(1024) ** _UNITS[{"K": "k"}.get(unit[0], unit[0])]
    return number * Fraction(1000) ** _UNITS[unit]


def demand(objects: Sequence[Object], there: Mapping[str, Object], changes: Iterable[Change]) -> dict[str, Fraction]:
    """What a quota will count more than now, once the objects are written and their least replicas run.

    Of a Deployment that changes one pod more runs for a while beside the others. More than the least replicas are the
    autoscaler's to ask for, and are not counted.

    Args:
        objects: what is wanted.
        there: what is there of it, by its URL.
        changes: what will be written.
    """
    least = _least(objects)
    found: dict[str, Fraction] = {}
    changed = {change.url: change.what for change in changes}
    for item in objects:
        what = changed.get(url_of(item))
        if what == "create" and (plural := _PLURALS.get(item["kind"])):
            names = [f"count/{plural}", *([plural] if plural in _OLD_NAMES else [])]
            _add(found, dict.fromkeys(names, Fraction(1)))
        if what is not None and item["kind"] == "Deployment":
            wanted = least.get(item["metadata"]["name"], int(item["spec"].get("replicas", 1)))
            running = (there.get(url_of(item)) or {}).get("spec") or {}
            now = int(running.get("replicas") or 0)
            _add(found, _of_pods(item["spec"]["template"]["spec"], max(0, wanted - now) + (1 if now else 0)))
    return found


def _least(objects: Sequence[Object]) -> dict[str, int]:
    """The least replicas of what is scaled, by its name."""
    return {
        item["spec"][SCALERS[item["kind"]][0]]["name"]: int(item["spec"].get(SCALERS[item["kind"]][1]) or 0)
        for item in objects
        if item["kind"] in SCALERS
    }


def _of_pods(pod: Object, pods: int) -> dict[str, Fraction]:
    found = {"pods": Fraction(pods), "count/pods": Fraction(pods)}
    for container in pod["containers"]:
        for kind, values in (container.get("resources") or {}).items():
            _add(found, {f"{kind}.{resource}": pods * amount(value) for resource, value in values.items()})
    return found | {name: found[f"requests.{name}"] for name in ("cpu", "memory") if f"requests.{name}" in found}


def _add(found: dict[str, Fraction], more: Mapping[str, Fraction]) -> None:
    for name, value in more.items():
        found[name] = found.get(name, Fraction()) + value


def shortfalls(quotas: Iterable[Object], wanted: Mapping[str, Fraction]) -> list[str]:
    """What does not fit, in words; quotas for some pods only, by scopes, are left to the server."""
    found = []
    for quota in quotas:
        spec, status = quota.get("spec") or {}, quota.get("status") or {}
        if spec.get("scopes") or spec.get("scopeSelector"):
            continue
        used = status.get("used") or {}
        for name, hard in sorted((status.get("hard") or spec.get("hard") or {}).items()):
            need = wanted.get(name, Fraction())
            if need and amount(used.get(name, "0")) + need > amount(hard):
                what = f"{name} of ResourceQuota {quota['metadata']['name']!r}"
                found.append(f"{what}: {used.get(name, 0)} of {hard} is used, {_spelled(name, need)} more is needed")
    return found


def _spelled(name: str, value: Fraction) -> str:
    if name.endswith("memory"):
        return f"{float(value / 2**20):g}Mi"
    return f"{int(value * 1000)}m" if name.endswith("cpu") else f"{float(value):g}"


def refuse_beyond(
    objects: Sequence[Object], there: Mapping[str, Object], changes: Sequence[Change], cluster: Cluster
) -> None:
    """Refuse what the namespace's quotas have no room for; nothing is written yet.

    Raises:
        RefusedError: MS-5085, it does not fit.
    """
    try:
        quotas = cluster.list(_QUOTA)
    except MainspringError:  # who may write objects may often not read quotas: then the server says so, later
        return
    if missing := shortfalls(quotas, demand(objects, there, changes)):
        raise RefusedError(
            f"the namespace {cluster.namespace!r} has no room for it",
            code="MS-5085",
            why="; ".join(missing),
            origin="ResourceQuota",
            fix="raise the ResourceQuota, or ask for less: targets.NAME.replicas, cpu, memory",
        )
