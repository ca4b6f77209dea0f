"""The target: Kubernetes with plain objects, or with KServe's InferenceService."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mainspring.adapters.kubernetes import applying, looking, observing, preflight
from mainspring.adapters.kubernetes.cost import cost_of
from mainspring.adapters.kubernetes.files import chart, kustomization, manifests
from mainspring.adapters.kubernetes.objects import APP, url_of
from mainspring.adapters.kubernetes.quota import refuse_beyond
from mainspring.adapters.kubernetes.ray import serves_on_ray
from mainspring.adapters.kubernetes.render import render
from mainspring.adapters.kubernetes.settings import KubernetesSettings
from mainspring.adapters.kubernetes.workload import workload_of
from mainspring.errors import UsageError
from mainspring.ports.cluster import Cluster
from mainspring.ports.target import (
    App,
    Change,
    Cost,
    Finding,
    Health,
    ImageFacts,
    Release,
    Rendered,
    Revision,
    Split,
    Told,
    Workload,
    World,
)

__all__ = ["KubernetesTarget", "open_kserve", "open_target"]


def open_target(settings: KubernetesSettings, place: Path) -> KubernetesTarget:
    """Plain objects."""
    return KubernetesTarget(settings)


def open_kserve(settings: KubernetesSettings, place: Path) -> KubernetesTarget:
    """KServe's InferenceService."""
    return KubernetesTarget(settings, kserve=True)


class KubernetesTarget:
    """Renders, compares and writes in one namespace.

    Args:
        settings: where and how large.
        kserve: whether KServe runs the server.
    """

    def __init__(self, settings: KubernetesSettings, *, kserve: bool = False) -> None:
        self._settings = settings
        self._kserve = kserve
        self._namespace = settings.namespace or "default"

    @property
    def world(self) -> World:
        """What is rendered for when no cluster is asked: all optional kinds are taken to be known."""
        major, _, minor = self._settings.version.partition(".")
        return World((int(major), int(minor)))

    def preflight(
        self, app: App, release: Release | None, client: Cluster, image: ImageFacts | None = None
    ) -> list[Finding]:
        """What would keep a deployment from working. Reads only."""
        found = preflight.preflight(app, self._settings, client, preflight.look(client), kserve=self._kserve)
        found += preflight.clock(client, self._settings.lease_s, time.time)
        if image is not None:
            found += preflight.image_fits(image, release, client, self._settings.ray)
        return sorted(found, key=lambda item: item.level != "error")

    def look(self, app: str, client: Cluster) -> World:
        """Ask the cluster what it can do, and which namespace the context names."""
        self._namespace = client.namespace
        return preflight.look(client)

    def render(self, revision: Revision, split: Split | None, world: World) -> Rendered:
        """The objects of a revision, and of a second one beside it. Pure.

        Raises:
            UsageError: MS-2740, there is nothing that could share the traffic out.
        """
        if split is not None and (why := self._undivided()):
            raise UsageError(
                "the traffic cannot be shared out",
                code="MS-2740",
                why=why,
                fix='set targets.NAME.gateway = "NAMESPACE/NAME" of the kubernetes target, or apply without --canary',
            )
        return render(revision, split, self._settings, self._namespace, world, kserve=self._kserve)

    def _undivided(self) -> str:
        """Why nothing shares the traffic out; empty when something does."""
        if self._kserve:
            return "KServe shares traffic out in its Knative mode only"
        if serves_on_ray(self._settings):
            return "a RayService leads all requests to one revision at a time"
        return "" if self._settings.gateway else "there is no Gateway"

    def workload(self, rendered: Rendered) -> Workload:
        """One replica of the server. Pure.

        Raises:
            UsageError: MS-5160, a cluster of Ray runs it.
        """
        return workload_of(rendered)

    def observe(self, rendered: Rendered, client: Cluster) -> observing.Sight:
        """What is there, and what each object would become; reads and dry runs only."""
        return observing.observe(rendered, client, preflight.look(client), self._settings.history)

    def plan(self, rendered: Rendered, observed: observing.Sight) -> tuple[tuple[Change, ...], str]:
        """What an apply would do, and its hash. Pure."""
        return observing.plan(rendered, observed)

    def cost(self, rendered: Rendered, observed: observing.Sight) -> Cost:
        """What the pods ask for now, and at least and at most afterwards. Pure."""
        there = [one.there for one in observed.seen if one.there is not None]
        return cost_of(rendered.objects, [*there, *observed.surplus], self._settings.prices)

    def apply(
        self,
        rendered: Rendered,
        expected: str,
        client: Cluster,
        told: Told,
        *,
        force: bool = False,
        adopt: bool = False,
    ) -> int:
        """Carry out the plan of that hash; how many objects were written.

        Raises:
            RefusedError: MS-5080 to MS-5085, the world has moved, somebody else applies, something is not ours, a quota
                has no room.
        """
        sight = self.observe(rendered, client)
        changes, found = self.plan(rendered, sight)
        if found != expected:
            raise applying.moved(expected, found)
        if not changes:
            return 0
        applying.check(changes, force=force, adopt=adopt)
        there = {url_of(one.wanted): one.there for one in sight.seen if one.there is not None}
        refuse_beyond(rendered.objects, there, changes, client)
        with applying.lease(rendered.app, client, self._settings.lease_s) as renew:
            sight = self.observe(rendered, client)
            changes, found = self.plan(rendered, sight)
            if found != expected:
                raise applying.moved(expected, found)
            return applying.carry_out(sight, changes, client, told, renew)

    def running(self, app: str, client: Cluster) -> tuple[Revision | None, Split | None]:
        """The revisions that run, as their records say."""
        return looking.running_of(observing.ours(client, app), app)

    def revisions(self, app: str, client: Cluster) -> Sequence[Revision]:
        """All that can be gone back to, the newest first."""
        return looking.revisions_of(observing.ours(client, app))

    def status(self, app: str, client: Cluster, lines: int) -> Health:
        """How it is, with so many last lines of the log of what is not well."""
        return looking.status_of(app, client, lines)

    def destroy(self, app: str, client: Cluster, told: Told) -> int:
        """Take away exactly what bears the app's label, what was written last first."""
        count = 0
        with applying.lease(app, client, self._settings.lease_s) as renew:
            for item in reversed(observing.ours(client, app)):
                renew()
                kind = observing.kind_of(client, item)
                if client.delete(kind, item["metadata"]["name"], item["metadata"].get("uid", "")):
                    told(f"delete {'/'.join((item['apiVersion'], item['kind'], item['metadata']['name']))}")
                    count += 1
        left = client.kind(applying.LEASE, "Lease")
        for item in [] if left is None else client.list(left, f"{APP}={app}"):
            client.delete(left, item["metadata"]["name"], item["metadata"]["uid"])  # type: ignore[arg-type]
        return count

    def files(self, revision: Revision, rendered: Rendered, form: str) -> Mapping[str, bytes]:
        """What was rendered as files. Pure."""
        if form == "helm":
            return chart(rendered.app, rendered.objects, revision.release)
        if form == "kustomize":
            return kustomization(rendered.objects, revision.release)
        return manifests(rendered.objects)
