"""Deployments against a real API server with its controllers: plan, apply, drift, conflicts, canaries, kills."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import cluster_kit
from cluster_kit import ApiServer, api_server
from cluster_kit import RefusedError as Refuse
from mainspring.adapters.kubernetes.cluster import LightkubeCluster, open_cluster
from mainspring.adapters.kubernetes.settings import KubernetesSettings, PriceSettings
from mainspring.adapters.kubernetes.target import KubernetesTarget
from mainspring.deploy.rollout import Rollout
from mainspring.errors import MainspringError, RefusedError, ServiceError, UsageError
from mainspring.ports.target import App, Finding, ImageFacts, Job, Release, Revision

pytestmark = pytest.mark.skipif(not cluster_kit.available(), reason=cluster_kit.HOW)

APP = App("shop", ("late",), (Job("nightly", "0 3 * * *", "UTC", ("run", "pipeline/nightly")),))
HPA = "/apis/autoscaling/v2beta2"


def revision(number: int, name: str = "shop") -> Revision:
    image = f"registry.example.com/team/{name}@sha256:{number:064x}"
    return Revision(APP, Release(image, {"late": f"{number:064x}"}, {"MAINSPRING_PROFILE": "prod"}))


@pytest.fixture(scope="module")  # idle, it takes a fifth of a core
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("kubernetes")) as found:
        found.define("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
        found.define("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors")
        found.define("serving.kserve.io", "v1beta1", "InferenceService", "inferenceservices")
        yield found


class Place:
    """A namespace, and an app on its way into it."""

    def __init__(self, server: ApiServer, name: str, **settings: Any) -> None:
        self.server = server
        self.name = server.namespace(name)
        more = {"gateway": "infra/public", "lease_s": 1, "history": 3, **settings}
        kserve = more.pop("kserve", False)
        self.settings = KubernetesSettings(namespace=name, kubeconfig=str(server.kubeconfig), **more)
        self.client = open_cluster(self.settings, Path("."))
        self.told: list[str] = []
        self.target = KubernetesTarget(self.settings, kserve=kserve)
        self.rollout = Rollout("kubernetes", self.target, self.client, "shop", self.told.append)

    def apply(self, one: Revision, percent: int | None = None, **more: bool) -> int:
        return self.rollout.apply(self.rollout.plan(*self.rollout.beside(one, percent)), **more)

    def path(self, what: str) -> str:
        group, _, rest = what.partition(":")
        return f"{group}/namespaces/{self.name}/{rest}"

    def get(self, what: str) -> Any:
        return self.server.ask("GET", self.path(what))

    def patch(self, what: str, body: Any, manager: str = "kubectl-edit") -> Any:
        path = f"{self.path(what)}?fieldManager={manager}"
        return self.server.ask("PATCH", path, body, "application/merge-patch+json")

    def writes(self) -> int:
        return sum(
            f"/namespaces/{self.name}/" in path and "/leases" not in path for _, path in self.server.dressed.asked
        )

    def labelled(self) -> list[str]:
        """Everything of every kind that bears the app's label, looked up without our code."""
        found = []
        for group in (
            "/api/v1:configmaps", "/api/v1:services", "/apis/apps/v1:deployments", f"{HPA}:horizontalpodautoscalers",
            "/apis/policy/v1beta1:poddisruptionbudgets", "/apis/networking.k8s.io/v1:networkpolicies",
            "/apis/batch/v1beta1:cronjobs", "/apis/gateway.networking.k8s.io/v1:httproutes",
            "/apis/monitoring.coreos.com/v1:servicemonitors", "/apis/serving.kserve.io/v1beta1:inferenceservices",
            "/apis/coordination.k8s.io/v1:leases",
        ):  # fmt: skip
            items = self.get(f"{group}?labelSelector=mainspring.dev/app%3Dshop")["items"]
            found += [f"{group.partition(':')[2]}/{item['metadata']['name']}" for item in items]
        return found


@pytest.fixture
def place(
    server: ApiServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []
    server.dressed.before = lambda method, path: None
    monkeypatch.setattr("mainspring.deploy.rollout._POLL_S", 0.1)
    monkeypatch.setattr("mainspring.deploy.rollout._SURE_S", 1.0)  # no pull that failed here succeeds later

    def make(**settings: Any) -> Place:
        name = request.node.name.partition("[")[0].replace("_", "-")[5:50].strip("-")
        made.append(Place(server, f"{name}-{len(made)}-{time.time_ns() % 10**6}", **settings))
        return made[-1]

    yield make
    server.dressed.before = lambda method, path: None
    for one in made:
        one.client.close()


def test_a_plan_writes_nothing_and_an_apply_is_all_of_it(place: Callable[..., Place]) -> None:
    at = place()
    found = at.rollout.plan(revision(1), None)
    assert {change.what for change in found.changes} == {"create"}
    assert at.labelled() == []
    assert at.writes() == 0
    assert at.rollout.plan(revision(1), None) == found
    count = at.rollout.apply(found)
    assert count == len(found.changes) == at.writes() == len(at.labelled())
    again = at.rollout.plan(revision(1), None)
    assert again.changes == ()
    assert at.rollout.apply(again) == 0
    assert at.writes() == count
    assert at.rollout.wait(60).state == "healthy"
    assert at.target.running("shop", at.client) == (revision(1), None)
    assert at.rollout.plan(revision(1), None).changes == ()  # nor does what the controllers wrote count


def test_drift_of_our_fields_is_seen_refused_and_repaired_by_force(place: Callable[..., Place]) -> None:
    at = place()
    at.apply(revision(1))
    deployment = "/apis/apps/v1:deployments/shop-server"
    at.patch(deployment, {"spec": {"progressDeadlineSeconds": 77, "minReadySeconds": 3}})
    found = at.rollout.plan(revision(1), None)
    (change,) = found.changes
    assert change.fields == (("spec.progressDeadlineSeconds", "77", "600"),)
    assert change.conflicts == (".spec.progressDeadlineSeconds: kubectl-edit",)
    before = at.writes()
    with pytest.raises(RefusedError) as refused:
        at.rollout.apply(found)
    assert refused.value.code == "MS-5081"
    assert "kubectl-edit" in refused.value.why
    assert at.writes() == before
    assert at.rollout.apply(found, force=True) == 1
    spec = at.get(deployment)["spec"]
    assert spec["progressDeadlineSeconds"] == 600
    assert spec["minReadySeconds"] == 3  # nobody's business of ours
    assert at.rollout.plan(revision(1), None).changes == ()


def test_what_was_deleted_comes_back(place: Callable[..., Place]) -> None:
    at = place()
    at.apply(revision(1))
    at.server.ask("DELETE", at.path("/api/v1:services/shop-server"))
    found = at.rollout.plan(revision(1), None)
    assert [(one.what, one.url) for one in found.changes] == [("create", "v1/Service/shop-server")]
    assert at.rollout.apply(found) == 1


def test_the_autoscaler_keeps_its_replicas(place: Callable[..., Place]) -> None:
    at = place(replicas=2, replicas_max=6)
    at.apply(revision(1))
    at.rollout.wait(60)
    deployment = "/apis/apps/v1:deployments/shop-server"
    until = time.monotonic() + 60
    while at.get(deployment)["spec"]["replicas"] != 2:  # the autoscaler's least
        assert time.monotonic() < until
        time.sleep(0.2)
    scale = at.get(f"{deployment}/scale")
    scale["spec"]["replicas"] = 4
    del scale["metadata"]["resourceVersion"]  # whatever its controllers have written meanwhile
    at.server.ask("PUT", f"{at.path(deployment)}/scale", scale)
    assert at.rollout.plan(revision(1), None).changes == ()
    at.apply(revision(2))
    assert at.get(deployment)["spec"]["replicas"] == 4
    health = at.rollout.wait(120)
    assert (health.parts[0].ready, health.parts[0].wanted) == (4, 4)


def test_somebody_elses_object_is_adopted_only_on_request(place: Callable[..., Place]) -> None:
    at = place()
    ports = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    theirs = {"metadata": {"name": "shop-server"}, "spec": {"ports": ports, "selector": {"app": "old"}}}
    at.server.ask("POST", f"{at.path('/api/v1:services')}?fieldManager=helm", theirs)
    found = at.rollout.plan(revision(1), None)
    (change,) = [one for one in found.changes if one.what == "adopt"]
    assert change.url == "v1/Service/shop-server"
    assert change.conflicts
    for words, code in (({}, "MS-5082"), ({"adopt": True}, "MS-5081")):
        with pytest.raises(RefusedError) as refused:
            at.rollout.apply(found, **words)
        assert refused.value.code == code
    assert at.labelled() == []
    at.rollout.apply(found, adopt=True, force=True)
    service = at.get("/api/v1:services/shop-server")
    assert service["spec"]["selector"]["app.kubernetes.io/component"] == "server"
    assert at.rollout.plan(revision(1), None).changes == ()


def test_a_moved_world_is_refused(place: Callable[..., Place]) -> None:
    at = place()
    at.apply(revision(1))
    found = at.rollout.plan(revision(2), None)
    at.patch("/apis/apps/v1:deployments/shop-server", {"spec": {"revisionHistoryLimit": 9}})
    before = at.writes()
    with pytest.raises(RefusedError) as refused:
        at.rollout.apply(found, force=True)
    assert refused.value.code == "MS-5080"
    assert at.writes() == before
    kept = msgspec.json.decode(msgspec.json.encode(at.rollout.plan(revision(2), None)), type=type(found))
    assert at.rollout.apply(kept, force=True) == 3  # a plan that was kept in a file is as good


def test_a_bad_image_leaves_the_old_one_serving_and_can_be_undone(place: Callable[..., Place]) -> None:
    at = place()
    at.apply(revision(1))
    until = time.monotonic() + 60
    while at.rollout.wait(60).parts[0].ready != 2:  # the autoscaler's least
        assert time.monotonic() < until
        time.sleep(0.1)
    at.apply(revision(2, "bad"))
    with pytest.raises(RefusedError) as refused:
        at.rollout.wait(60)
    assert refused.value.code == "MS-5089"
    assert "ImagePullBackOff: cannot pull registry.example.com/team/bad" in refused.value.why
    health = at.target.status("shop", at.client, 5)
    assert health.state == "degraded"
    assert (health.parts[0].ready, health.revision) == (2, revision(2, "bad").id)
    assert health.revisions == (revision(2, "bad").id, revision(1).id)
    back = at.rollout.before(None)
    assert back == revision(1)
    at.rollout.apply(at.rollout.plan(back, None))
    assert at.rollout.wait(60).revision == revision(1).id


def test_a_first_bad_image_stays_at_none_ready(place: Callable[..., Place]) -> None:
    at = place(replicas=1)
    at.apply(revision(1, "bad"))
    with pytest.raises(RefusedError):
        at.rollout.wait(60)
    health = at.target.status("shop", at.client, 5)
    assert (health.state, health.parts[0].ready, health.parts[0].wanted) == ("failed", 0, 1)
    with pytest.raises(UsageError) as none:
        at.rollout.before(None)
    assert none.value.code == "MS-2748"


def test_a_canary_gets_its_share_then_all_or_nothing(place: Callable[..., Place]) -> None:
    at = place()
    route = "/apis/gateway.networking.k8s.io/v1:httproutes/shop-server"

    def weights() -> list[tuple[str, int]]:
        behind = at.get(route)["spec"]["rules"][0]["backendRefs"]
        return [(one["name"], one["weight"]) for one in behind]

    with pytest.raises(UsageError) as none:
        at.apply(revision(2), 10)
    assert none.value.code == "MS-2746"
    at.apply(revision(1))
    at.apply(revision(2), 10)
    at.rollout.wait(60)
    health = at.target.status("shop", at.client, 0)
    assert (health.revision, health.canary, health.percent) == (revision(1).id, revision(2).id, 10)
    assert weights() == [("shop-server", 90), ("shop-canary", 10)]
    images = {
        item["metadata"]["name"]: item["spec"]["template"]["spec"]["containers"][0]["image"][-1]
        for item in at.get("/apis/apps/v1:deployments")["items"]
    }
    assert images == {"shop-server": "1", "shop-canary": "2"}
    at.rollout.apply(at.rollout.plan(*at.rollout.shared(50)))
    assert weights() == [("shop-server", 50), ("shop-canary", 50)]
    assert at.rollout.before(None) == revision(1)  # a rollback takes the canary away
    at.rollout.apply(at.rollout.plan(*at.rollout.shared(100)))
    assert weights() == [("shop-server", 100)]
    assert at.target.running("shop", at.client) == (revision(2), None)
    assert not [name for name in at.labelled() if "canary" in name]
    at.apply(revision(3), 20)
    at.rollout.apply(at.rollout.plan(*at.rollout.shared(0)))
    assert at.target.running("shop", at.client) == (revision(2), None)
    with pytest.raises(UsageError) as gone:
        at.rollout.shared(50)
    assert gone.value.code == "MS-2747"


def test_releases_are_kept_to_go_back_to_and_no_more_of_them(place: Callable[..., Place]) -> None:
    at = place(history=3)
    for number in range(1, 6):
        at.apply(revision(number))
        assert at.rollout.plan(revision(number), None).changes == ()
    kept = at.target.revisions("shop", at.client)
    assert list(kept) == [revision(5), revision(4), revision(3)]
    assert at.rollout.before(revision(3).id[:6]) == revision(3)
    with pytest.raises(UsageError):
        at.rollout.before("ffffffffff")


def test_a_changed_record_is_not_believed(place: Callable[..., Place]) -> None:
    at = place()
    at.apply(revision(1))
    name = next(item for item in at.labelled() if item.startswith("configmaps/"))
    forged = msgspec.json.encode(revision(9)).decode()
    at.patch(f"/api/v1:{name}", {"metadata": {"annotations": {"mainspring.dev/release": forged}}})
    with pytest.raises(RefusedError) as refused:
        at.target.revisions("shop", at.client)
    assert refused.value.code == "MS-5087"


def test_destroy_takes_exactly_what_bears_the_label(place: Callable[..., Place]) -> None:
    at = place()
    other = {"metadata": {"name": "other", "labels": {"mainspring.dev/app": "shop-two"}}, "data": {"a": "b"}}
    at.server.ask("POST", at.path("/api/v1:configmaps"), other)
    at.apply(revision(1))
    at.apply(revision(2), 10)
    there = len(at.labelled())
    assert at.target.destroy("shop", at.client, at.told.append) == there
    assert at.labelled() == []
    assert at.get("/api/v1:configmaps/other")["data"] == {"a": "b"}
    assert at.get("/api/v1:secrets/shop")["metadata"]["name"] == "shop"
    assert at.target.status("shop", at.client, 0).state == "absent"
    assert at.target.destroy("shop", at.client, at.told.append) == 0


@pytest.mark.parametrize("status", [429, 503])
def test_what_passes_is_asked_again(place: Callable[..., Place], status: int) -> None:
    at = place()
    waits: list[float] = []
    at.client._sleep = waits.append
    failed: set[str] = set()

    def before(method: str, path: str) -> None:
        if "/leases" not in path and path not in failed and f"/namespaces/{at.name}" in path:
            failed.add(path)
            raise Refuse(status, "too many requests", Retry_After="1")

    at.server.dressed.before = before
    at.apply(revision(1))
    assert set(waits) == {1.0}
    assert len(failed) == len(waits) > 20
    at.server.dressed.before = lambda method, path: None
    assert at.rollout.plan(revision(1), None).changes == ()


def test_a_server_that_stays_ill_is_told_as_it_is(place: Callable[..., Place]) -> None:
    at = place()
    at.client._sleep = lambda seconds: None

    def ill(method: str, path: str) -> None:
        raise Refuse(503, "etcdserver: request timed out")

    at.server.dressed.before = ill
    with pytest.raises(ServiceError) as error:
        at.rollout.plan(revision(1), None)
    assert error.value.code == "MS-2732"
    assert "etcdserver: request timed out" in error.value.why


@pytest.mark.slow
def test_an_apply_that_ends_after_any_step_is_gone_on_with(place: Callable[..., Place]) -> None:
    """The connection breaks at the nth write, for every n: the next apply finishes, and no write is done in vain."""
    steps = len(place(lease_s=1).rollout.plan(revision(1), None).changes)
    for number in range(steps):
        at = place(lease_s=1)
        done: list[str] = []

        def before(method: str, path: str, at: Place = at, done: list[str] = done, number: int = number) -> None:
            if method == "PATCH" and "dryRun" not in path and f"/namespaces/{at.name}/" in path:
                if len(done) == number:
                    raise Refuse(418, "the process was killed here")
                done.append(path)

        at.server.dressed.before = before
        with pytest.raises(MainspringError):
            at.apply(revision(1))
        assert len(at.labelled()) == number
        at.server.dressed.before = lambda method, path: None
        left = at.rollout.plan(revision(1), None)
        assert at.rollout.apply(left) == len(left.changes) == steps - number
        assert at.rollout.plan(revision(1), None).changes == ()
        assert at.writes() == steps


def test_two_applies_at_once_part_by_the_lease(place: Callable[..., Place]) -> None:
    at = place(lease_s=30)
    found = at.rollout.plan(revision(1), None)
    inside, go_on = threading.Event(), threading.Event()

    def before(method: str, path: str) -> None:
        if method == "PATCH" and "dryRun" not in path and "/services/" in path:
            inside.set()
            go_on.wait(60)

    at.server.dressed.before = before
    counts: list[int] = []
    first = threading.Thread(target=lambda: counts.append(at.rollout.apply(found)))
    first.start()
    assert inside.wait(60)
    second = Rollout("kubernetes", at.target, open_cluster(at.settings, Path(".")), "shop")
    with pytest.raises(RefusedError) as refused:
        second.apply(second.plan(revision(1), None))
    assert refused.value.code == "MS-5083"
    go_on.set()
    first.join(60)
    assert counts == [len(found.changes)]
    assert at.rollout.plan(revision(1), None).changes == ()
    second.client.close()


def test_kserve_runs_the_app_and_its_mode_is_changed_by_replacing(place: Callable[..., Place]) -> None:
    at = place(kserve=True, gateway="")
    at.apply(revision(1))
    kind = "/apis/serving.kserve.io/v1beta1:inferenceservices/shop"
    first = at.get(kind)
    assert at.target.running("shop", at.client) == (revision(1), None)
    assert at.rollout.plan(revision(1), None).changes == ()
    conditions = [{"type": "Ready", "status": "True"}]
    at.patch(kind, {"status": {"conditions": conditions}}, "kserve")
    assert at.rollout.wait(60).state == "healthy"
    at.patch(kind, {"metadata": {"annotations": {"serving.kserve.io/deploymentMode": "Knative"}}})
    found = at.rollout.plan(revision(1), None)
    assert [(one.what, one.url) for one in found.changes] == [
        ("replace", "serving.kserve.io/v1beta1/InferenceService/shop")
    ]
    at.rollout.apply(found)
    assert at.get(kind)["metadata"]["uid"] != first["metadata"]["uid"]


def test_preflight_tells_what_is_missing(place: Callable[..., Place], server: ApiServer) -> None:
    at = place()
    server.ask("DELETE", at.path("/api/v1:secrets/shop"))
    found = at.rollout.findings(revision(1))
    assert [one.what for one in found if one.level == "error"] == ["Secret 'shop' is not there"]
    assert "kubectl -n" in found[0].fix
    assert "management-token" in found[0].fix
    assert {"no metrics server", "no adapter for custom metrics"} <= {one.what.partition(":")[0] for one in found}
    assert not [one for one in found if "budgets" in one.what]
    apart = revision(1)
    apart = msgspec.structs.replace(apart, app=msgspec.structs.replace(apart.app, counted_apart=True))
    assert "budgets.url" in next(one.fix for one in at.rollout.findings(apart) if "budgets" in one.what)
    with pytest.raises(RefusedError) as refused:
        at.rollout.check(revision(1))
    assert refused.value.code == "MS-5090"


def test_clocks_and_images_are_looked_at_before_anything_is_written(
    place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server tells its time in its answers; nodes are those that it lists."""
    at = place()
    there = at.client.clock()
    assert there is not None
    assert abs(there - time.time()) < 5
    ours = ImageFacts("10001:10001", ("python3", "-m", "mainspring"), ("linux/amd64",), "prod")
    assert not [one for one in at.rollout.findings(revision(1), ours) if "clock" in one.what or "image" in one.what]
    node = {"metadata": {"name": f"arm-{at.name[-8:]}"}, "status": {"nodeInfo": {"architecture": "arm64"}}}
    made = at.server.ask("POST", "/api/v1/nodes", node)
    path = f"/api/v1/nodes/{made['metadata']['name']}"
    try:
        at.server.ask("PATCH", f"{path}/status", {"status": node["status"]}, "application/merge-patch+json")
        with pytest.raises(RefusedError) as caught:
            at.rollout.check(revision(1), ours)
        assert caught.value.code == "MS-5090"
        assert "the nodes are linux/arm64" in caught.value.what
    finally:
        at.server.ask("DELETE", path)
    ahead = types.SimpleNamespace(time=lambda: time.time() + 500)  # ours alone: the server tells this process's time
    monkeypatch.setattr("mainspring.adapters.kubernetes.target.time", ahead)
    (found,) = [one for one in at.rollout.findings(revision(1), ours) if "clock" in one.what]
    assert (found.level, "ahead of" in found.what) == ("error", True)
    monkeypatch.undo()
    gone = Finding("error", "the registry has no such image")
    with pytest.raises(RefusedError, match="the registry has no such image"):
        at.rollout.check(revision(1), gone)
    assert at.writes() == 0


def test_a_plan_says_what_it_comes_to(place: Callable[..., Place]) -> None:
    at = place(replicas=2, replicas_max=4, cpu="500m", memory="1Gi", prices=PriceSettings(cpu=0.1))
    before = at.rollout.plan(revision(1), None).cost
    assert before is not None
    assert (before.now, before.least["pods"], before.most["cpu"]) == ({}, 2, 2.0)
    at.apply(revision(1))
    at.rollout.wait(60)
    until = time.monotonic() + 60
    while (after := at.rollout.plan(revision(1), None).cost) is not None and after.now != after.least:
        assert time.monotonic() < until, after  # the autoscaler brings it to its least replicas
        time.sleep(0.5)
    assert after is not None
    assert after.now == after.least == {"pods": 2, "cpu": 1.0, "memory_gib": 2.0}
    assert after.hourly == (0.1, 0.1, 0.2)


def test_who_may_not_write_is_told_what_is_lacking(place: Callable[..., Place], server: ApiServer) -> None:
    at = place()
    path = server.kubeconfig_for("reader.yaml", {"token": "tests-reader"})
    client = open_cluster(msgspec.structs.replace(at.settings, kubeconfig=str(path)), Path("."))
    found = at.target.preflight(APP, None, client)
    assert any(one.what.startswith("you may not get, list, patch, create, delete deployments") for one in found)
    with pytest.raises(ServiceError) as refused:
        Rollout("kubernetes", at.target, client, "shop").plan(revision(1), None)
    assert refused.value.code == "MS-2731"
    client.close()


def test_a_version_that_is_too_old_is_refused(place: Callable[..., Place], server: ApiServer) -> None:
    at = place()
    server.dressed.version = (1, 20)
    try:
        with pytest.raises(RefusedError) as refused:
            at.rollout.plan(revision(1), None)
        assert refused.value.code == "MS-5088"
        server.dressed.version = (1, 99)
        assert "newer than what was tested" in str(at.rollout.findings(revision(1)))
    finally:
        server.dressed.version = (1, 29)
    assert at.labelled() == []


def test_a_token_by_a_command_is_fetched_again_when_it_runs_out(place: Callable[..., Place], server: ApiServer) -> None:
    at = place()
    token, calls = server.folder / "token", server.folder / "calls"
    token.write_text("expired")
    script = server.folder / "login.py"
    script.write_text(
        "import json, os, pathlib, sys\n"
        "told = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        f"calls = pathlib.Path({str(calls)!r})\n"
        "calls.write_text((calls.read_text() if calls.exists() else '') + told['apiVersion'] + '\\n')\n"
        f"token = pathlib.Path({str(token)!r}).read_text()\n"
        f"pathlib.Path({str(token)!r}).write_text({cluster_kit.TOKEN!r})\n"
        "print(json.dumps({'kind': 'ExecCredential', 'status': {'token': token}}))\n"
    )
    for version in ("v1", "v1beta1"):
        calls.unlink(missing_ok=True)
        token.write_text("expired")
        command = {
            "apiVersion": f"client.authentication.k8s.io/{version}", "command": sys.executable, "args": [str(script)],
            "env": [{"name": "WHO", "value": "tests"}], "interactiveMode": "Never",
        }  # fmt: skip
        path = server.kubeconfig_for("exec.yaml", {"exec": command})
        client = open_cluster(msgspec.structs.replace(at.settings, kubeconfig=str(path)), Path("."))
        assert client.version() == (1, 29)
        assert calls.read_text().count(version) == 2  # the expired one, and the next
        client.version()
        assert calls.read_text().count(version) == 2
        client.close()
    command["args"] = ["-c", "import sys; sys.exit('log in again')"]
    path = server.kubeconfig_for("exec.yaml", {"exec": command})
    client = open_cluster(msgspec.structs.replace(at.settings, kubeconfig=str(path)), Path("."))
    with pytest.raises(ServiceError) as error:
        client.version()
    assert error.value.code == "MS-2734"
    assert "log in again" in error.value.why
    client.close()


def test_nobody_answers(tmp_path: Path, server: ApiServer) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(server.kubeconfig.read_text().replace(server.dressed.url, "http://127.0.0.1:9"))
    client = open_cluster(KubernetesSettings(kubeconfig=str(path)), Path("."))
    assert isinstance(client, LightkubeCluster)
    client._sleep = lambda seconds: None
    with pytest.raises(ServiceError) as error:
        client.version()
    assert error.value.code == "MS-2730"
    client.close()
    for settings in (KubernetesSettings(kubeconfig=str(tmp_path / "none")), KubernetesSettings(context="none")):
        more = {"kubeconfig": str(server.kubeconfig)} if settings.context else {}
        with pytest.raises(MainspringError) as missing:
            open_cluster(msgspec.structs.replace(settings, **more), Path("."))
        assert missing.value.code == "MS-2733"


def kill_at(
    number: int, name: str, writes: list[str], started: list[subprocess.Popen[bytes]], method: str, path: str
) -> None:
    """Kill the process at its nth write, before the server has seen it."""
    if method == "PATCH" and "dryRun" not in path and f"/namespaces/{name}/" in path:
        writes.append(path)
        if len(writes) == number:
            started[0].send_signal(signal.SIGKILL)
            started[0].wait(60)


def test_killed_outright_it_makes_way_when_its_lease_has_run_out(place: Callable[..., Place], tmp_path: Path) -> None:
    """SIGKILL of a real process in the middle of its writes: of a first apply, and of an update."""
    at = place(lease_s=1)
    (tmp_path / "job.py").write_text(
        "import sys, msgspec\nfrom pathlib import Path\n"
        "from mainspring.adapters.kubernetes.cluster import open_cluster\n"
        "from mainspring.adapters.kubernetes.settings import KubernetesSettings\n"
        "from mainspring.adapters.kubernetes.target import KubernetesTarget\n"
        "from mainspring.deploy.rollout import Rollout\nfrom mainspring.ports.target import Plan\n"
        "settings = msgspec.json.decode(sys.argv[1], type=KubernetesSettings)\n"
        "plan = msgspec.json.decode(Path(sys.argv[2]).read_bytes(), type=Plan)\n"
        "one = Rollout('kubernetes', KubernetesTarget(settings), open_cluster(settings, Path('.')), 'shop')\n"
        "one.apply(plan)\n"
    )
    for number, write in ((1, 5), (2, 2)):
        kept = tmp_path / "plan.json"
        kept.write_bytes(msgspec.json.encode(at.rollout.plan(revision(number), None)))
        started: list[subprocess.Popen[bytes]] = []
        writes: list[str] = []

        at.server.dressed.before = functools.partial(kill_at, write, at.name, writes, started)
        words = [sys.executable, str(tmp_path / "job.py"), msgspec.json.encode(at.settings).decode(), str(kept)]
        started.append(subprocess.Popen(words))
        assert started[0].wait(120) == -signal.SIGKILL
        at.server.dressed.before = lambda method, path: None
        assert any(name.startswith("leases/") for name in at.labelled())
        until = time.monotonic() + 60
        while True:
            try:
                at.apply(revision(number))
                break
            except RefusedError as refused:
                # The write that was under way when it was killed may still land.
                if refused.code not in ("MS-5083", "MS-5080") or time.monotonic() > until:
                    raise
                time.sleep(0.2)
        assert at.rollout.plan(revision(number), None).changes == ()
        assert not [name for name in at.labelled() if name.startswith("leases/")]


def mainspring(folder: Path, *words: str, **more: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "mainspring", *words],
        cwd=folder, capture_output=True, text=True, timeout=120, env={**os.environ, **more},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_plans_and_statuses_are_json_too(place: Callable[..., Place], tmp_path: Path) -> None:
    at = place()
    (tmp_path / "shop.py").write_text("from mainspring import App\n\napp = App('shop')\n")
    (tmp_path / "mainspring.toml").write_text(
        'app = "shop:app"\n[profiles.prod]\ncatalog.adapter = "sqlite"\nobjects.adapter = "localfs"\n'
        'tables.adapter = "delta"\nonline.adapter = "lmdb"\n'
        f'[profiles.prod.targets.eu]\nadapter = "kubernetes"\nnamespace = "{at.name}"\nreplicas = 1\n'
    )
    more = {"KUBECONFIG": str(at.server.kubeconfig)}
    options = ("--target", "eu", "--profile", "prod", "--json")
    image = ("--image", revision(1).release.image)
    status, out, err = mainspring(tmp_path, "deploy", "plan", *options, *image, "--out", "plan.json", **more)
    assert status == 2, err
    assert json.loads(out)["changes"][0]["what"] == "create"
    status, out, _ = mainspring(tmp_path, "deploy", "status", *options, **more)
    assert (status, json.loads(out)["state"]) == (4, "absent")
    status, out, err = mainspring(tmp_path, "deploy", "apply", "plan.json", *options, "--wait", "60", **more)
    assert status == 0, err
    told = json.loads(out)
    assert told["status"]["state"] == "healthy"
    assert told["written"] == len(at.labelled())
    status, out, err = mainspring(tmp_path, "deploy", "apply", "plan.json", *options, **more)
    assert status == 5
    assert json.loads(out)["error"]["code"] == "MS-5080"
    status, out, err = mainspring(tmp_path, "deploy", "plan", "--target", "us", "--profile", "prod", *image, **more)
    assert (status, "MS-2741" in err) == (2, True)
    status, out, err = mainspring(tmp_path, "deploy", "destroy", *options, **more)
    assert (status, "MS-2749" in err) == (2, True)
    status, out, err = mainspring(tmp_path, "deploy", "destroy", "--yes", *options, **more)
    assert status == 0, err
    assert at.labelled() == []


@pytest.mark.parametrize("number", [1, 4])
def test_ctrl_c_amid_an_apply_gives_its_lease_back_and_the_next_goes_on(
    place: Callable[..., Place], tmp_path: Path, number: int
) -> None:
    """SIGINT of the real command at a write: exit 130 at once, and whoever comes next waits for nobody."""
    at = place(lease_s=600)
    (tmp_path / "shop.py").write_text("from mainspring import App\n\napp = App('shop')\n")
    (tmp_path / "mainspring.toml").write_text(
        'app = "shop:app"\n[profiles.prod]\ncatalog.adapter = "sqlite"\nobjects.adapter = "localfs"\n'
        'tables.adapter = "delta"\nonline.adapter = "lmdb"\n'
        f'[profiles.prod.targets.kubernetes]\nnamespace = "{at.name}"\nreplicas = 1\nlease_s = 600\n'
    )
    words = ["deploy", "apply", "--profile", "prod", "--image", revision(1).release.image]
    started: list[subprocess.Popen[bytes]] = []
    writes: list[str] = []
    at.server.dressed.before = functools.partial(stop_at, number, at.name, writes, started)
    more = {**os.environ, "KUBECONFIG": str(at.server.kubeconfig)}
    started.append(subprocess.Popen([sys.executable, "-m", "mainspring", *words], cwd=tmp_path, env=more))
    assert started[0].wait(60) == 130
    at.server.dressed.before = lambda method, path: None
    assert not [name for name in at.labelled() if name.startswith("leases/")]
    assert 0 <= at.writes() <= number
    status, out, err = mainspring(tmp_path, *words, "--wait", "60", KUBECONFIG=str(at.server.kubeconfig))
    assert status == 0, err
    assert "shop is healthy" in out
    plan = ["deploy", "plan", "--profile", "prod", "--image", revision(1).release.image]
    assert mainspring(tmp_path, *plan, KUBECONFIG=str(at.server.kubeconfig))[0] == 0


def stop_at(
    number: int, name: str, writes: list[str], started: list[subprocess.Popen[bytes]], method: str, path: str
) -> None:
    """Ctrl-C of the process at its nth write."""
    if method == "PATCH" and "dryRun" not in path and f"/namespaces/{name}/" in path:
        writes.append(path)
        if len(writes) == number:
            started[0].send_signal(signal.SIGINT)
