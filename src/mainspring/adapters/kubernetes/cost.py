"""What a plan asks a cluster for: cores, memory, GPUs, pods, at least and at most; in money, where prices are named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from mainspring.adapters.kubernetes.objects import key_of
from mainspring.adapters.kubernetes.quota import SCALERS, amount
from mainspring.adapters.kubernetes.settings import PriceSettings
from mainspring.ports.cluster import Object
from mainspring.ports.target import Cost

__all__ = ["cost_of"]

_GIB = 2**30
_GPU = "nvidia.com/gpu"
_Range = tuple[int, int]


def cost_of(wanted: Sequence[Object], there: Sequence[Object], prices: PriceSettings | None) -> Cost:
    """What runs all the time: now, and as rendered at least and at most. Pure.

    Jobs run at their times only, and are not counted; nor is one pod more while a Deployment changes.

    Args:
        wanted: as rendered.
        there: what of it is there now, and what will be deleted.
        prices: of an hour; None when money is not reckoned.
    """
    now = _total(there, 0, running=True)
    least, most = _total(wanted, 0), _total(wanted, 1)
    if prices is None:
        return Cost(now, least, most)
    hourly = tuple(round(_price(one, prices), 6) for one in (now, least, most))
    return Cost(now, least, most, (hourly[0], hourly[1], hourly[2]), prices.currency)


def _total(items: Sequence[Object], end: int, *, running: bool = False) -> dict[str, float]:
    """What all pods ask for together, at one end of their range; or as many as run."""
    scaled = _scaled(items)
    found: dict[str, Fraction] = {}
    for item in items:
        for pod, (least, most) in _pods(item, scaled):
            count = (least, most)[end]
            if running and item["kind"] == "Deployment":
                count = int(item["spec"].get("replicas", 1))
            for name, value in _requests(pod).items():
                found[name] = found.get(name, Fraction()) + count * value
    return {name: round(float(value), 3) for name, value in sorted(found.items()) if value}


def _scaled(items: Iterable[Object]) -> dict[str, _Range]:
    """Least and most replicas of what an autoscaler has, by its name."""
    found = {}
    for item in items:
        if item["kind"] in SCALERS:
            target, least = SCALERS[item["kind"]]
            spec = item["spec"]
            floor = spec.get("idleReplicaCount", spec.get(least) or 0)
            found[spec[target]["name"]] = (int(floor), int(spec[least.replace("min", "max")]))
    return found


def _pods(item: Object, scaled: Mapping[str, _Range]) -> list[tuple[Object, _Range]]:
    """The pods of an object, and how many of each there are at least and at most."""
    kind, spec = item["kind"], item.get("spec") or {}
    if kind == "Deployment":
        own = int(spec.get("replicas", 1))
        return [(spec["template"]["spec"], scaled.get(key_of(item)[2], (own, own)))]
    if kind == "InferenceService":
        predictor = spec["predictor"]
        return [(predictor, (int(predictor["minReplicas"]), int(predictor["maxReplicas"])))]
    if kind == "RayService":
        cluster = spec["rayClusterConfig"]
        head = [(cluster["headGroupSpec"]["template"]["spec"], (1, 1))]
        return head + [
            (one["template"]["spec"], (int(one["minReplicas"]), int(one["maxReplicas"])))
            for one in cluster["workerGroupSpecs"]
        ]
    return []


def _requests(pod: Object) -> dict[str, Fraction]:
    found = {"pods": Fraction(1)}
    for container in pod["containers"]:
        resources = container.get("resources") or {}
        asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for name, key, unit in (("cpu", "cpu", 1), ("memory_gib", "memory", _GIB), ("gpu", _GPU, 1)):
            if key in asked:
                found[name] = found.get(name, Fraction()) + amount(asked[key]) / unit
    return found


def _price(amounts: Mapping[str, float], prices: PriceSettings) -> float:
    each = {"cpu": prices.cpu, "memory_gib": prices.memory, "gpu": prices.gpu}
    return sum(amounts.get(name, 0.0) * price for name, price in each.items())
