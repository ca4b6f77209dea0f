"""Settings of a deployment to Kubernetes: ``[targets.NAME]``."""

from typing import Annotated

import msgspec

__all__ = [
    "EngineSettings", "ExternalSettings", "KedaSettings", "KubernetesSettings", "PriceSettings", "RaySettings",
]  # fmt: skip

_Quantity = Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
_Count = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
_Image = Annotated[str, msgspec.Meta(pattern=r"^[^\s@]+@sha256:[0-9a-f]{64}$")]


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A vLLM for a declared language model: ``[targets.NAME.engines.LLM]``.

    Attributes:
        image: vLLM's image, by its digest.
        model: the model's folder on the claim, or its name on the hub that filled the claim.
        claim: the PersistentVolumeClaim with the weights, as a cache of Hugging Face's, readable by many nodes.
        revision: the commit of the model's repository; needed when `model` is a name.
        gpus: GPUs of a replica; those of ``[capacity.LLM]`` when left out.
        length: most tokens of a sequence; that of ``[capacity.LLM]`` when left out.
        utilisation: share of a GPU's memory; that of ``[capacity.LLM]`` when left out, else 0.9.
        replicas: least replicas.
        replicas_max: most replicas.
        cpu: of a replica.
        memory: of a replica.
        start_s: seconds that loading may take; reckoned from the weights when left out.
        read_mb_s: megabytes of weights that are read in a second, for that.
        shutdown_s: seconds that generations under way may take.
        priority: the PriorityClass.
        selector: the label of the nodes with the right GPU, as ``key=value``.
        arguments: further arguments of ``vllm serve``.
    """

    image: _Image
    model: str
    claim: _Name
    revision: str = ""
    gpus: _Count | None = None
    length: _Count | Annotated[int, msgspec.Meta(ge=1, le=100_000_000)] | None = None
    utilisation: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    replicas: _Count = 1
    replicas_max: _Count = 4
    cpu: _Quantity = "8"
    memory: _Quantity = "32Gi"
    start_s: Annotated[int, msgspec.Meta(ge=60, le=14_400)] | None = None
    read_mb_s: Annotated[float, msgspec.Meta(gt=0)] = 400.0
    shutdown_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 120
    priority: str = ""
    selector: str = ""
    arguments: tuple[str, ...] = ()


class RaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Ray cluster of its own for each run of a job, and for the server: ``[targets.NAME.ray]``.

    Attributes:
        version: Ray's version in the image.
        image: by its digest, another image with the app, Ray and its command ``ray``; the release's own when left
            out, which has them when its lock has Ray.
        jobs: what is run as a RayJob: ``pipeline/nightly``.
        serve: whether the server runs as replicas of Ray Serve, by a RayService, and not by a Deployment.
        operator: the namespace that KubeRay's operator asks from.
        workers: workers.
        cpu: of a worker.
        memory: of a worker.
    """

    version: Annotated[str, msgspec.Meta(pattern=r"^\d+\.\d+\.\d+$")]
    image: _Image | None = None
    jobs: tuple[str, ...] = ()
    serve: bool = False
    operator: _Name = "kuberay-system"
    workers: _Count = 2
    cpu: _Quantity = "4"
    memory: _Quantity = "16Gi"


class ExternalSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An ExternalSecret that fills the app's Secret from a store outside: ``[targets.NAME.external]``.

    Attributes:
        store: the SecretStore, or ClusterSecretStore, that reads from there.
        cluster: whether it is a ClusterSecretStore.
        key: what the secrets are properties of there; ``{name}`` is a secret's name, where each has a key of its own.
        refresh_s: seconds between two looks.
    """

    store: _Name
    key: str
    cluster: bool = False
    refresh_s: Annotated[int, msgspec.Meta(ge=1, le=2_592_000)] = 3600


class KedaSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ScaledObject of KEDA in the place of the server's autoscaler: ``[targets.NAME.keda]``.

    Attributes:
        prometheus: the address of the Prometheus that it asks for the requests under way.
        wake: what Prometheus is asked for to know that somebody asks while none runs, such as the Gateway's requests;
            with it none runs when it and the requests under way were 0 for `cooldown_s` seconds. What asks meanwhile
            must be held back by whatever stands before: a Service alone refuses it.
        oldest: what Prometheus is asked for the age, in seconds, of the oldest message that waits to be put to the app,
            such as that of a queue; by it the app is scaled, too, whoever takes from the queue.
        oldest_s: seconds that such a message may wait: twice as old asks for twice the replicas.
        cooldown_s: seconds.
        poll_s: seconds between two looks.
    """

    prometheus: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s]+$")]
    wake: str = ""
    oldest: str = ""
    oldest_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 30
    cooldown_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 300
    poll_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 15


class PriceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the cluster's nodes cost, for plans to reckon with: ``[targets.NAME.prices]``.

    Attributes:
        cpu: a core for an hour.
        memory: a GiB for an hour.
        gpu: a GPU for an hour.
        currency: the money.
    """

    cpu: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    memory: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    gpu: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}$")] = "USD"


class KubernetesSettings(msgspec.Struct, frozen=True):
    """Where and how large.

    Attributes:
        namespace: the namespace; that of the context when left out.
        context: the kubeconfig's context; its current one when left out.
        kubeconfig: its path; ``KUBECONFIG``, or ``~/.kube/config``, or the service account when left out.
        timeout: seconds that one answer of the server may take.
        version: the version that is rendered for when no cluster is asked.
        replicas: least replicas of the server.
        replicas_max: most replicas.
        cpu: of a replica; twice as much is the limit.
        memory: of a replica; the limit as well.
        tmp: what ``/tmp`` may hold.
        inflight: requests under way at once for each replica, beyond which another is started; 0 looks at CPU only.
        cpu_target: percent of `cpu` beyond which another is started.
        secret: the name of the Secret with the app's secrets; the app's name when left out.
        metrics: whether the metrics are served, with the token ``management-token`` of the Secret, and a
            ServiceMonitor tells Prometheus.
        prometheus: the namespace that Prometheus asks from.
        gateway: the Gateway of the app's HTTPRoute, ``namespace/name`` or ``name``; without one there is no route,
            and no canary.
        hostnames: names by which the route is asked for.
        clients: namespaces that may ask the app, besides its own; ``*`` is all.
        egress: hosts' networks that the app may reach, such as ``10.0.0.0/8``; empty is anywhere.
        pull_secrets: Secrets to pull the image with.
        service_account: the ServiceAccount; its token is not mounted.
        jobs: whether timetables become CronJobs; otherwise the server keeps them.
        job_deadline_s: seconds that a job may take.
        priority: the PriorityClass.
        history: releases that are kept to go back to.
        lease_s: seconds after which an apply that was killed makes way for the next.
        engines: a vLLM for each of these declared language models.
        ray: jobs, or the server, that run on Ray clusters of their own.
        external: where the app's Secret is filled from by the External Secrets operator.
        keda: KEDA scales the server, by its requests under way, down to none where that is wanted.
        prices: what cores, memory and GPUs cost, for plans to say what they come to.
    """

    namespace: _Name | None = None
    context: str | None = None
    kubeconfig: str | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0, le=600)] = 15.0
    version: Annotated[str, msgspec.Meta(pattern=r"^1\.\d+$")] = "1.29"
    replicas: _Count = 2
    replicas_max: _Count = 10
    cpu: _Quantity = "500m"
    memory: _Quantity = "1Gi"
    tmp: _Quantity = "1Gi"
    inflight: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 8
    cpu_target: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 70
    secret: str = ""
    metrics: bool = True
    prometheus: _Name = "monitoring"
    gateway: str = ""
    hostnames: tuple[str, ...] = ()
    clients: tuple[str, ...] = ("*",)
    egress: tuple[str, ...] = ()
    pull_secrets: tuple[_Name, ...] = ()
    service_account: str = ""
    jobs: bool = True
    job_deadline_s: Annotated[int, msgspec.Meta(ge=1, le=604_800)] = 3600
    priority: str = ""
    history: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
    lease_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 30
    engines: dict[str, EngineSettings] = {}
    ray: RaySettings | None = None
    external: ExternalSettings | None = None
    keda: KedaSettings | None = None
    prices: PriceSettings | None = None
