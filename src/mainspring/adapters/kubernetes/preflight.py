"""What would keep a deployment from working, before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from mainspring.adapters.kubernetes.objects import ORDER
from mainspring.adapters.kubernetes.observing import VERSIONS
from mainspring.adapters.kubernetes.ray import serves_on_ray
from mainspring.adapters.kubernetes.settings import KubernetesSettings, RaySettings
from mainspring.errors import MainspringError, RefusedError
from mainspring.ports.cluster import Cluster, Kind
from mainspring.ports.target import App, Finding, ImageFacts, Release, World

__all__ = ["OPTIONAL", "TESTED", "clock", "image_fits", "look", "preflight"]

TESTED = ((1, 29), (1, 37))
"""The versions whose schemas the tests hold everything against."""
OPTIONAL = (
    "ExternalSecret", "HTTPRoute", "InferenceService", "PrometheusRule", "RayJob", "RayService", "ScaledObject",
    "ServiceMonitor",
)  # fmt: skip
_ENTRYPOINT = ("python3", "-m", "mainspring")
_APART_S = 5.0
"""Clocks may differ by so much: servers tell theirs by the second, and answers take their time."""
_VERBS = ("get", "list", "patch", "create", "delete")


def look(cluster: Cluster) -> World:
    """Ask the cluster what it can do.

    Raises:
        RefusedError: MS-5088, it is too old.
    """
    version = cluster.version()
    if version < TESTED[0]:
        raise RefusedError(
            f"the cluster is Kubernetes {version[0]}.{version[1]}",
            code="MS-5088",
            why=f"what we write needs {TESTED[0][0]}.{TESTED[0][1]} or newer",
            fix="upgrade the cluster, or name another context",
        )
    known = tuple(kind for kind in OPTIONAL if cluster.kind(VERSIONS[kind], kind) is not None)
    return World(version, known)


def preflight(app: App, settings: KubernetesSettings, cluster: Cluster, world: World, *, kserve: bool) -> list[Finding]:
    """What the cluster and the app tell."""
    found = [*_version(world), *_namespace(cluster), *_kinds(settings, world, kserve), *_rights(cluster, world)]
    return [*found, *_secrets(app, settings, cluster), *_metrics(settings, cluster), *_stores(app, settings)]


def _version(world: World) -> list[Finding]:
    if world.version <= TESTED[1]:
        return []
    name = ".".join(map(str, world.version))
    last = ".".join(map(str, TESTED[1]))
    return [Finding("warning", f"Kubernetes {name} is newer than what was tested", f"tested up to {last}")]


def _namespace(cluster: Cluster) -> list[Finding]:
    try:
        there = cluster.get(Kind("v1", "Namespace", "namespaces"), cluster.namespace)
    except MainspringError:  # who may work in a namespace may often not look at it from outside
        return []
    if there is not None:
        return []
    name = cluster.namespace
    return [Finding("error", f"namespace {name!r} is not there", f"kubectl create namespace {name}")]


def _kinds(settings: KubernetesSettings, world: World, kserve: bool) -> list[Finding]:
    needed = {
        "HTTPRoute": (bool(settings.gateway) and not kserve, "the Gateway API"),
        "InferenceService": (kserve, "KServe"),
        "RayJob": (settings.ray is not None and bool(settings.ray.jobs), "KubeRay"),
        "RayService": (serves_on_ray(settings) and not kserve, "KubeRay"),
        "ExternalSecret": (settings.external is not None, "the External Secrets operator"),
        "ScaledObject": (settings.keda is not None and not kserve, "KEDA"),
    }
    return [
        Finding("error", f"the cluster knows no {kind}", f"install {what}, or leave out what asks for it")
        for kind, (asked, what) in needed.items()
        if asked and not world.knows(kind)
    ]


def _rights(cluster: Cluster, world: World) -> list[Finding]:
    found = []
    for name in ORDER:
        if name in OPTIONAL and not world.knows(name):
            continue
        kind = cluster.kind(VERSIONS[name], name)
        if kind is None:
            found.append(Finding("error", f"the cluster knows no {name} of {VERSIONS[name]}", "upgrade the cluster"))
            continue
        group = kind.version.partition("/")[0] if "/" in kind.version else ""
        lacking = [verb for verb in _VERBS if not cluster.may(verb, group, kind.plural)]
        if lacking:
            what = f"you may not {', '.join(lacking)} {kind.plural} in {cluster.namespace}"
            rule = f"{','.join(lacking)} of {kind.plural}{'.' if group else ''}{group}"
            found.append(Finding("error", what, f"have a Role with {rule} bound to you"))
    return found


def _secrets(app: App, settings: KubernetesSettings, cluster: Cluster) -> list[Finding]:
    names = {name for secret in app.secrets for name in secret.names}
    names |= {"management-token"} if settings.metrics else set()
    if not names:
        return []
    secret = settings.secret or app.name
    literals = " ".join(f"--from-literal={name}=..." for name in sorted(names))
    make = f"kubectl -n {cluster.namespace} create secret generic {secret} {literals}"
    try:
        there = cluster.get(Kind("v1", "Secret", "secrets"), secret)
    except MainspringError:
        return [Finding("warning", f"Secret {secret!r} may not be read: whether it has {', '.join(sorted(names))}")]
    if settings.external is not None and there is None:
        return []  # it is made from the store, once the ExternalSecret is there
    if there is None:
        return [Finding("error", f"Secret {secret!r} is not there", make)]
    missing = sorted(names - set(there.get("data") or {}))
    return [Finding("error", f"Secret {secret!r} has no {', '.join(missing)}", make)] if missing else []


def _metrics(settings: KubernetesSettings, cluster: Cluster) -> list[Finding]:
    groups = cluster.groups()
    found = []
    if "metrics.k8s.io" not in groups:
        found.append(Finding("warning", "no metrics server: nothing is scaled by CPU", "install metrics-server"))
    if settings.inflight and settings.metrics and settings.keda is None and "custom.metrics.k8s.io" not in groups:
        what = "no adapter for custom metrics: nothing is scaled by mainspring_inflight_requests"
        found.append(Finding("warning", what, "install prometheus-adapter, or set targets.NAME.inflight = 0"))
    return found


def _stores(app: App, settings: KubernetesSettings) -> list[Finding]:
    found = []
    if app.counted_apart:
        what = "each replica counts budgets for itself: together they give what is allowed so many times"
        found.append(Finding("warning", what, "name a Redis or a Postgres in the profile: budgets.url"))
    if not app.embedded:
        return found
    what = f"each replica has its own {', '.join(app.embedded)}"
    if app.jobs and settings.jobs:
        what += ", and its timetables in the server: no CronJob would find them"
    return [*found, Finding("warning", what, "name shared ones in the profile: catalog.url, online.url")]


def clock(cluster: Cluster, lease_s: int, now: Callable[[], float]) -> list[Finding]:
    """Whether this machine's clock is the cluster's: a lease, by which applies part, runs out by both."""
    begun = now()
    there = cluster.clock()
    if there is None:
        return []
    # The server's time is cut to a second, and is of some moment between asking and having the answer.
    apart = max(begun - there - 1.0, there - now(), 0.0)
    if apart < _APART_S:
        return []
    way = "ahead of" if begun > there else "behind"
    level: Literal["error", "warning"] = "error" if apart >= lease_s else "warning"
    what = f"this machine's clock is {apart:.0f} s {way} the cluster's: leases and tokens run out by it"
    return [Finding(level, what, "set the clock, by NTP: timedatectl set-ntp true")]


def image_fits(
    image: ImageFacts, release: Release | None, cluster: Cluster, ray: RaySettings | None = None
) -> list[Finding]:
    """Whether the image keeps the contract that its pods have."""
    found = []
    if image.entrypoint != _ENTRYPOINT:
        runs = " ".join(image.entrypoint) or "nothing"
        what = f"the image runs {runs}, and not {' '.join(_ENTRYPOINT)}: it would not serve"
        found.append(Finding("error", what, "mainspring build --image"))
    if not image.user.partition(":")[0].strip("0"):
        what = "the image is made to run as root, and pods run it as 10001"
        found.append(Finding("warning", what, "mainspring build --image --for kubernetes"))
    profile = "" if release is None else release.variables.get("MAINSPRING_PROFILE", "")
    if image.profile and profile and image.profile != profile:
        what = f"the image was built for profile {image.profile}, and runs {profile}"
        found.append(Finding("warning", what, "build it again, so that its files were checked for that one's secrets"))
    return [*found, *_ray(image, ray), *_architectures(image, cluster)]


def _ray(image: ImageFacts, ray: RaySettings | None) -> list[Finding]:
    """Whether KubeRay can start the image, where it is to."""
    if ray is None or ray.image is not None or image.ray == ray.version:
        return []
    if not image.ray:
        fix = "ask for mainspring[ray] in requirements.in, lock and build anew; or name targets.NAME.ray.image"
        return [Finding("error", "the image has no Ray, and KubeRay is to start it", fix)]
    what = f"the image has Ray {image.ray}, and targets.NAME.ray.version is {ray.version}"
    return [Finding("error", what, f'ray.version = "{image.ray}"')]


def _architectures(image: ImageFacts, cluster: Cluster) -> list[Finding]:
    try:
        nodes = cluster.list(Kind("v1", "Node", "nodes"))
    except MainspringError:  # who may work in a namespace may often not look at nodes
        return []
    told = [(node.get("status") or {}).get("nodeInfo") or {} for node in nodes]
    there = {f"linux/{one['architecture']}" for one in told if one.get("architecture")}
    strange = sorted(there - set(image.platforms))
    if not strange:
        return []
    made = f"the image is made for {', '.join(image.platforms)}"
    fix = f"mainspring build --image {' '.join(f'--platform {one}' for one in sorted(there | set(image.platforms)))}"
    if len(strange) == len(there):
        return [Finding("error", f"{made}, and the nodes are {', '.join(strange)}", fix)]
    return [Finding("warning", f"{made}: pods that land on nodes of {', '.join(strange)} do not start", fix)]
