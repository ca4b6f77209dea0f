"""What KubeRay reads of a RayJob and a RayService, as JSON Schema, written down by hand.

From the Go types that its definitions are generated from: ``rayjob_types.go``, ``rayservice_types.go`` and
``raycluster_types.go`` below ``ray-operator/apis/ray/v1`` of ray-project/kuberay (1.4). No package registry has the
definitions themselves. Pod templates are the tests' to hold against Kubernetes' own schemas.
"""

from __future__ import annotations

from typing import Any

__all__ = ["KUBERAY"]

_TEXT, _WHOLE, _FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_OTHERS = {"type": "object"}
_TEMPLATE = {"type": "object", "required": ["spec"]}


def _of(required: tuple[str, ...], **fields: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": fields}


_GROUP = {"rayStartParams": _TEXTS, "template": _TEMPLATE}
_HEAD = _of(("rayStartParams", "template"), serviceType=_TEXT, headService=_OTHERS, enableIngress=_FLAG, **_GROUP)
_WORKERS = _of(
    ("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"),
    groupName=_TEXT, replicas=_WHOLE, minReplicas=_WHOLE, maxReplicas=_WHOLE, numOfHosts=_WHOLE, suspend=_FLAG,
    idleTimeoutSeconds=_WHOLE, scaleStrategy=_OTHERS, **_GROUP,
)  # fmt: skip
_CLUSTER = _of(
    ("headGroupSpec",),
    headGroupSpec=_HEAD, workerGroupSpecs={"type": "array", "items": _WORKERS}, rayVersion=_TEXT,
    enableInTreeAutoscaling=_FLAG, autoscalerOptions=_OTHERS, headServiceAnnotations=_TEXTS, suspend=_FLAG,
    managedBy=_TEXT, gcsFaultToleranceOptions=_OTHERS,
)  # fmt: skip
_JOB = _of(
    (),
    activeDeadlineSeconds=_WHOLE, backoffLimit=_WHOLE, rayClusterSpec=_CLUSTER, submitterPodTemplate=_TEMPLATE,
    metadata=_TEXTS, clusterSelector=_TEXTS, submitterConfig=_OTHERS, managedBy=_TEXT, deletionStrategy=_OTHERS,
    entrypoint=_TEXT, runtimeEnvYAML=_TEXT, jobId=_TEXT, entrypointResources=_TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
    entrypointNumCpus={"type": "number"}, entrypointNumGpus={"type": "number"}, ttlSecondsAfterFinished=_WHOLE,
    shutdownAfterJobFinishes=_FLAG, suspend=_FLAG,
)  # fmt: skip
_SERVICE = _of(
    (),
    serveConfigV2=_TEXT, rayClusterConfig=_CLUSTER, serveService=_OTHERS, upgradeStrategy=_OTHERS,
    excludeHeadPodFromServeSvc=_FLAG, rayClusterDeletionDelaySeconds=_WHOLE,
    serviceUnhealthySecondThreshold=_WHOLE, deploymentUnhealthySecondThreshold=_WHOLE,
)  # fmt: skip

KUBERAY = {
    kind: _of(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"}, kind={"const": kind}, metadata=_OTHERS, spec=spec,
    )
    for kind, spec in (("RayJob", _JOB), ("RayService", _SERVICE))
}  # fmt: skip
