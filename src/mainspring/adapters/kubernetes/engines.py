"""A vLLM on GPUs for a declared language model."""

from __future__ import annotations

import math
from typing import Any

from mainspring.adapters.kubernetes.objects import labels_of, named, object_of, selector_of
from mainspring.adapters.kubernetes.pods import USER, common_pod, pre_stop, secure_container
from mainspring.adapters.kubernetes.serving import autoscaler, budget, pods_metric
from mainspring.adapters.kubernetes.settings import EngineSettings, KubernetesSettings
from mainspring.ports.cluster import Object
from mainspring.ports.target import LanguageModel, World

__all__ = ["engine_objects"]

PORT = 8000
_PRE_STOP_S = 15
"""Longer than it takes until no proxy sends requests any more."""
_LEAST_START_S = 300
_CACHE = "/models"
_GATE = """
import json, urllib.request as u
base = "http://127.0.0.1:{port}/v1/"
u.urlopen(base + "models", timeout=5).read()
body = json.dumps({{"model": {name!r}, "prompt": "a", "max_tokens": 1}}).encode()
u.urlopen(u.Request(base + "completions", body, {{"Content-Type": "application/json"}}), timeout=25).read()
"""
"""Ready is who has made one token: the server answers 200 also when its GPU is at fault."""


def engine_objects(
    engine: EngineSettings, model: LanguageModel, app: str, settings: KubernetesSettings, namespace: str, world: World
) -> list[Object]:
    """What runs, finds, scales, guards and watches the engine of a language model."""
    component = named("llm", model.name)
    name, selector = named(app, component), selector_of(app, component)
    labels = labels_of(app, component) | {"app.kubernetes.io/part-of": "engine"}
    deployment = object_of(
        "apps/v1", "Deployment", name, namespace, labels,
        spec={
            "selector": {"matchLabels": selector},
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": _start_seconds(engine, model) + 600,
            # GPUs are scarce: the old one makes way first.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod(engine, model, app, component, settings, world),
            },
        },
    )  # fmt: skip
    ports = [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}]
    service = object_of(
        "v1", "Service", name, namespace, labels, spec={"type": "ClusterIP", "selector": selector, "ports": ports}
    )
    waiting = [
        pods_metric("vllm_num_requests_waiting", "1"),
        pods_metric("vllm_kv_cache_usage_perc", "800m"),
    ]
    replicas = (engine.replicas, engine.replicas_max)
    found = [
        deployment,
        service,
        autoscaler(app, component, "Deployment", replicas, waiting, namespace),
        budget(app, component, namespace, world),
    ]
    if settings.metrics:
        found += _watch(app, component, name, namespace)
    return found


def _start_seconds(engine: EngineSettings, model: LanguageModel) -> int:
    """Three times what reading the weights takes, and never less than five minutes."""
    if engine.start_s is not None:
        return engine.start_s
    return max(_LEAST_START_S, math.ceil(3 * model.weights / (engine.read_mb_s * 1e6)))


def _pod(
    engine: EngineSettings, model: LanguageModel, app: str, component: str, settings: KubernetesSettings, world: World
) -> Object:
    gpus = engine.gpus or model.gpus
    spec = common_pod(app, component, settings, grace=_PRE_STOP_S + engine.shutdown_s + 15)
    spec |= {
        "containers": [_container(engine, model, gpus, world)],
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": "8Gi"}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{2 * gpus}Gi"}},
            {"name": "models", "persistentVolumeClaim": {"claimName": engine.claim, "readOnly": True}},
        ],
    }
    if engine.priority:
        spec["priorityClassName"] = engine.priority
    if engine.selector:
        key, _, value = engine.selector.partition("=")
        spec["nodeSelector"] = {key: value}
    return spec


def _container(engine: EngineSettings, model: LanguageModel, gpus: int, world: World) -> Object:
    arguments = [
        "--host", "0.0.0.0", "--port", str(PORT),
        "--served-model-name", model.name,
        "--max-model-len", str(engine.length or model.length),
        "--gpu-memory-utilization", f"{engine.utilisation or model.utilisation:g}",
        "--tensor-parallel-size", str(gpus),
        "--shutdown-timeout", str(engine.shutdown_s),
        *(("--revision", engine.revision) if engine.revision else ()),
        *engine.arguments,
    ]  # fmt: skip
    environment = {
        "HF_HOME": _CACHE, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HOME": "/tmp",
        "USER": str(USER), "VLLM_CACHE_ROOT": "/tmp/vllm", "TRITON_CACHE_DIR": "/tmp/triton",
        "VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1",
    }  # fmt: skip
    gate = _GATE.format(port=PORT, name=model.name).strip()
    period = 10
    resources: dict[str, Any] = {"cpu": engine.cpu, "memory": engine.memory, "nvidia.com/gpu": str(gpus)}
    return {
        "name": "vllm",
        "image": engine.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["vllm", "serve", engine.model],
        "args": arguments,
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "startupProbe": {
            "exec": {"command": ["python3", "-c", gate]},
            "periodSeconds": period,
            "timeoutSeconds": 30,
            "failureThreshold": math.ceil(_start_seconds(engine, model) / period),
        },
        "readinessProbe": {
            "httpGet": {"path": "/v1/models", "port": "http"},
            "periodSeconds": 5,
            "timeoutSeconds": 3,
            "failureThreshold": 3,
        },
        "livenessProbe": {
            "httpGet": {"path": "/health", "port": "http"},
            "periodSeconds": 20,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
        "lifecycle": {"preStop": pre_stop(world, _PRE_STOP_S)},
        "securityContext": secure_container(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "models", "mountPath": _CACHE, "readOnly": True},
        ],
    }


def _watch(app: str, component: str, name: str, namespace: str) -> list[Object]:
    """Its metrics, and the alarms that say why answers are slow."""
    labels = labels_of(app, component)
    chosen = f'{{namespace="{namespace}",service="{name}"}}'
    rules = [
        ("Preempting", f"rate(vllm:num_preemptions_total{chosen}[5m]) > 0.1", "sequences are thrown out of the cache"),
        ("Waiting", f"vllm:num_requests_waiting{chosen} > 10", "requests wait for a place"),
        ("CacheFull", f"vllm:kv_cache_usage_perc{chosen} > 0.95", "the cache of keys and values is full"),
        ("FirstTokenLate", _slow("time_to_first_token_seconds", chosen, 5), "95 in 100 first tokens take up to 5 s"),
        ("TokensSlow", _slow("inter_token_latency_seconds", chosen, 0.2), "95 in 100 tokens take up to 0.2 s"),
    ]
    alerts = [
        {
            "alert": f"LanguageModel{alert}",
            "expr": expression,
            "for": "5m",
            "labels": {"severity": "warning", "app": app, "component": component},
            "annotations": {"summary": f"{name}: {summary}"},
        }
        for alert, expression, summary in rules
    ]
    monitoring = "monitoring.coreos.com/v1"
    chosen_service = {"matchLabels": selector_of(app, component)}
    return [
        object_of(
            monitoring, "ServiceMonitor", name, namespace, labels,
            spec={"selector": chosen_service, "endpoints": [{"port": "http", "path": "/metrics", "interval": "15s"}]},
        ),
        object_of(
            monitoring, "PrometheusRule", name, namespace, labels, spec={"groups": [{"name": name, "rules": alerts}]}
        ),
    ]  # fmt: skip


def _slow(histogram: str, chosen: str, seconds: float) -> str:
    rate = f"rate(vllm:{histogram}_bucket{chosen}[5m])"
    return f"histogram_quantile(0.95, sum by (le) ({rate})) > {seconds:g}"
