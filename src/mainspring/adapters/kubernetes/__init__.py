"""Kubernetes: plain objects, KServe's InferenceService, and the API server."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER", "KSERVE"]

_CLIENT = {
    "client": "mainspring.adapters.kubernetes.cluster:open_cluster",
    "client_modules": ("lightkube",),
    "forms": ("manifests", "helm", "kustomize"),
}
"""Rendering needs nothing installed: only who talks to a cluster needs the client."""

ADAPTER = Adapter(
    port="target",
    name="kubernetes",
    factory="mainspring.adapters.kubernetes.target:open_target",
    settings="mainspring.adapters.kubernetes.settings:KubernetesSettings",
    extra="kubernetes",
    capabilities={**_CLIENT, "traffic": True},
)

KSERVE = Adapter(
    port="target",
    name="kserve",
    factory="mainspring.adapters.kubernetes.target:open_kserve",
    settings="mainspring.adapters.kubernetes.settings:KubernetesSettings",
    extra="kubernetes",
    capabilities={**_CLIENT, "traffic": False},
)
