"""One replica of the server, read from what was rendered, for a machine that is no cluster."""

from __future__ import annotations

from typing import Any

from mainspring.adapters.kubernetes.objects import SERVER, key_of, named
from mainspring.adapters.kubernetes.pods import HTTP, SECRETS
from mainspring.adapters.kubernetes.quota import amount
from mainspring.errors import UsageError
from mainspring.ports.cluster import Object
from mainspring.ports.target import Probe, Rendered, Workload

__all__ = ["workload_of"]


def workload_of(rendered: Rendered) -> Workload:
    """The server's pod as one process.

    Raises:
        UsageError: MS-5160, a cluster of Ray runs it.
    """
    pod = _server_pod(rendered)
    (container,) = pod["containers"]
    volumes = {one["name"]: one for one in pod["volumes"]}
    secrets = [item["key"] for item in volumes.get("secrets", {}).get("secret", {}).get("items", ())]
    return Workload(
        arguments=tuple(container["args"]),
        variables=_variables(rendered, container),
        secrets=tuple(secrets),
        secrets_at=SECRETS,
        port=HTTP,
        startup=_probe(container["startupProbe"]),
        readiness=_probe(container["readinessProbe"]),
        liveness=_probe(container["livenessProbe"]),
        grace_s=float(pod["terminationGracePeriodSeconds"]),
        user=int(pod["securityContext"]["runAsUser"]),
        memory=int(amount(container["resources"]["limits"]["memory"])),
        scratch=int(amount(volumes["tmp"]["emptyDir"]["sizeLimit"])),
        cpu=float(amount(container["resources"]["limits"].get("cpu", 0))),
    )


def _server_pod(rendered: Rendered) -> Object:
    for item in rendered.objects:
        if item["kind"] == "Deployment" and key_of(item)[2] == named(rendered.app, SERVER):
            return dict(item["spec"]["template"]["spec"])
        if item["kind"] == "InferenceService":
            return dict(item["spec"]["predictor"])
    raise UsageError(
        f"the server of {rendered.app} cannot be run as one process",
        code="MS-5160",
        why="a RayService runs it, which takes a cluster of Ray",
        fix="name a target without ray.serve: mainspring deploy --local --target NAME",
    )


def _variables(rendered: Rendered, container: Object) -> dict[str, str]:
    wanted = {one["configMapRef"]["name"] for one in container["envFrom"]}
    maps = [item for item in rendered.objects if item["kind"] == "ConfigMap" and key_of(item)[2] in wanted]
    return {name: value for item in maps for name, value in item["data"].items()}


def _probe(given: dict[str, Any]) -> Probe:
    every, timeout = float(given["periodSeconds"]), float(given["timeoutSeconds"])
    return Probe(given["httpGet"]["path"], every, timeout, int(given["failureThreshold"]))
