"""What all objects share: names, labels, and how they are told apart."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from mainspring.ports.cluster import Object
from mainspring.ports.target import digest_of

__all__ = [
    "APP",
    "CANARY",
    "COMPONENT",
    "MANAGER",
    "ORDER",
    "PLAN",
    "RECORD",
    "REVISION",
    "SERVER",
    "hashed",
    "key_of",
    "labels_of",
    "named",
    "object_of",
    "release_name",
    "selector_of",
    "url_of",
]  # fmt: skip

MANAGER = "mainspring"
"""The field manager of what we write."""
APP, COMPONENT, REVISION = "mainspring.dev/app", "mainspring.dev/component", "mainspring.dev/revision"
"""The labels that are all of our state."""
PLAN = "mainspring.dev/plan-hash"
"""The label that tells an object as it was planned: the digest of all of it but this label."""
RECORD = "mainspring.dev/release"
"""The annotation of a release's ConfigMap that holds its record."""
SERVER, CANARY = "server", "canary"
ORDER = (
    "ExternalSecret", "ConfigMap", "NetworkPolicy", "Service", "PodDisruptionBudget", "Deployment",
    "HorizontalPodAutoscaler", "ScaledObject", "InferenceService", "RayService", "CronJob", "RayJob", "HTTPRoute",
    "ServiceMonitor", "PrometheusRule",
)  # fmt: skip
"""The kinds in the order in which they are written; they are deleted the other way round."""
_LONGEST = 63


def named(*parts: str, longest: int = _LONGEST) -> str:
    """A name of parts; when it is too long, the front is cut, and a digest of all of it makes it unique again.

    >>> named("flights", "server")
    'flights-server'
    """
    plain = (re.sub(r"[^a-z0-9-]+", "-", part.lower()).strip("-") for part in parts)
    whole = "-".join(part for part in plain if part)
    if len(whole) <= longest:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{whole[: longest - 9].rstrip('-')}-{digest}"


def release_name(app: str, revision: str) -> str:
    """The name of a revision's record: its digest is never cut."""
    return f"{named(app, 'release', longest=_LONGEST - 9)}-{revision[:8]}"


def selector_of(app: str, component: str) -> dict[str, str]:
    """The labels by which pods are found: no version, they never change."""
    return {"app.kubernetes.io/name": app, "app.kubernetes.io/component": component}


def labels_of(app: str, component: str, revision: str = "") -> dict[str, str]:
    """The labels of an object, and with its revision of pods."""
    found = selector_of(app, component) | {
        "app.kubernetes.io/instance": app,
        "app.kubernetes.io/managed-by": MANAGER,
        APP: app,
        COMPONENT: component,
    }
    return found | ({REVISION: revision} if revision else {})


def object_of(version: str, kind: str, name: str, namespace: str, labels: Mapping[str, str], /, **more: Any) -> Object:
    """An object; ``annotations`` go to its metadata, all else to its top."""
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": dict(labels)}
    if annotations := more.pop("annotations", None):
        metadata["annotations"] = annotations
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **more}


def hashed(item: Object) -> Object:
    """An object with the digest of what is planned for it among its labels.

    It is each object's own: one of the whole plan would have every object written whenever one of them changes. KServe
    hands its labels on to pods, which would start anew for a change of their number alone: its objects have none.
    """
    if item["kind"] == "InferenceService":
        return item
    metadata = item["metadata"]
    return {**item, "metadata": {**metadata, "labels": {**metadata["labels"], PLAN: digest_of(item)}}}


def key_of(item: Object) -> tuple[str, str, str]:
    """Which object: group and version, kind, name."""
    return item["apiVersion"], item["kind"], item["metadata"]["name"]


def url_of(item: Object) -> str:
    """Which object, for people: ``apps/v1/Deployment/flights-server``."""
    return "/".join(key_of(item))
