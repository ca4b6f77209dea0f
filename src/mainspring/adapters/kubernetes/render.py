"""From a revision to objects. Pure: the same revision, settings and world give the same objects."""

from __future__ import annotations

from mainspring.adapters.kubernetes.engines import engine_objects
from mainspring.adapters.kubernetes.jobs import cron_job
from mainspring.adapters.kubernetes.kserve import inference_service
from mainspring.adapters.kubernetes.objects import CANARY, ORDER, SERVER, hashed, key_of, url_of
from mainspring.adapters.kubernetes.operators import external_secret, scaled_object
from mainspring.adapters.kubernetes.ray import ray_job, ray_service, serves_on_ray
from mainspring.adapters.kubernetes.serving import (
    budget,
    canary_replicas,
    component_objects,
    monitor,
    network_policy,
    release_map,
    route,
)
from mainspring.adapters.kubernetes.settings import KubernetesSettings
from mainspring.errors import UsageError
from mainspring.ports.cluster import Object
from mainspring.ports.target import LanguageModel, Rendered, Revision, Split, World

__all__ = ["jobs_rendered", "render"]

_WATCHING = ("PrometheusRule", "ServiceMonitor")


def jobs_rendered(revision: Revision, settings: KubernetesSettings) -> bool:
    """Whether timetables become CronJobs: they must find the catalog that the server has."""
    return settings.jobs and not revision.app.embedded


def render(
    revision: Revision,
    split: Split | None,
    settings: KubernetesSettings,
    namespace: str,
    world: World,
    *,
    kserve: bool = False,
) -> Rendered:
    """The objects of a revision, and of a second one beside it, in the order in which they are written."""
    app = revision.app
    found = _release(revision, settings, namespace)
    found += network_policy(app.name, settings, namespace, bool(settings.engines))
    if settings.external is not None:
        found += external_secret(app, settings.external, settings, namespace)
    if kserve:
        found += [inference_service(revision, settings, namespace, world), budget(app.name, SERVER, namespace, world)]
    else:
        found += _served(revision, split, settings, namespace, world)
    if jobs_rendered(revision, settings):
        found += [cron_job(job, revision, settings, namespace, world) for job in app.jobs]
    if (ray := settings.ray) is not None:
        found += [ray_job(target, ray, revision, settings, namespace, world) for target in ray.jobs]
    models = {model.name: model for model in app.language_models}
    for name, engine in sorted(settings.engines.items()):
        model = models.get(name) or LanguageModel(name, engine.gpus or 1, engine.length or 8192, 0.9, 0.0)
        found += engine_objects(engine, model, app.name, settings, namespace, world)
    known = [one for one in found if one["kind"] not in _WATCHING or world.knows(one["kind"])]
    known.sort(key=lambda item: (ORDER.index(item["kind"]), item["metadata"]["name"]))
    _apart(known)
    return Rendered(app.name, revision.id, tuple(map(hashed, known)), "" if split is None else split.revision.id)


def _apart(items: list[Object]) -> None:
    """Refuse two objects of one name: the second would write over the first."""
    seen: set[tuple[str, str, str]] = set()
    for item in items:
        if key_of(item) in seen:
            raise UsageError(
                f"two things of the app would both be {url_of(item)}",
                code="MS-2736",
                why="names of a cluster have small letters, digits and dashes only",
                fix="give one of the schedules or language models another name",
            )
        seen.add(key_of(item))


def _release(revision: Revision, settings: KubernetesSettings, namespace: str) -> list[Object]:
    kept = ",".join(revision.app.kept) or "none"
    return [release_map(revision, settings, namespace, kept if jobs_rendered(revision, settings) else "*")]


def _served(
    revision: Revision, split: Split | None, settings: KubernetesSettings, namespace: str, world: World
) -> list[Object]:
    app = revision.app.name
    routed = [route(app, split, settings, namespace)] if settings.gateway else []
    if settings.ray is not None and serves_on_ray(settings):
        return [ray_service(settings.ray, revision, settings, namespace, world), *routed]
    replicas = (settings.replicas, settings.replicas_max)
    found = component_objects(revision, SERVER, replicas, settings, namespace, world)
    if split is not None:
        if split.revision != revision:
            found += _release(split.revision, settings, namespace)
        least = canary_replicas(settings, split.percent)
        found += component_objects(split.revision, CANARY, least, settings, namespace, world)
    if (keda := settings.keda) is not None:
        found.append(scaled_object(app, SERVER, replicas, keda, settings, namespace))
        if split is not None:
            found.append(scaled_object(app, CANARY, least, keda, settings, namespace))
    if settings.metrics:
        components = [SERVER] + ([] if split is None else [CANARY])
        found += [monitor(app, component, settings, namespace) for component in components]
    return found + routed
