"""What is rendered for Kubernetes, held against every supported version's schemas and the restricted standard."""

import copy
import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.adapters.kubernetes.files import chart, kustomization, spelled
from mainspring.adapters.kubernetes.objects import named, release_name, url_of
from mainspring.adapters.kubernetes.pods import doubled
from mainspring.adapters.kubernetes.render import render
from mainspring.adapters.kubernetes.settings import (
    EngineSettings,
    ExternalSettings,
    KedaSettings,
    KubernetesSettings,
    RaySettings,
)
from mainspring.adapters.kubernetes.target import KubernetesTarget
from mainspring.errors import UsageError
from mainspring.ports.target import App, Job, LanguageModel, Release, Revision, Secret, Split, World
from unit.adapters.kuberay import KUBERAY

IMAGE = "registry.example.com/team/shop@sha256:" + "a" * 64
VLLM = "registry.example.com/vllm@sha256:" + "b" * 64
OWN = (
    "ExternalSecret", "HTTPRoute", "InferenceService", "RayJob", "RayService", "ScaledObject", "ServiceMonitor",
    "PrometheusRule",
)  # fmt: skip
APP = App(
    "shop",
    endpoints=("late",),
    jobs=(Job("nightly", "0 3 * * *", "Europe/Berlin", ("run", "pipeline/nightly", 'day="2013-07-01"')),),
    kept=("/source/odd",),
    secrets=(
        Secret("online.url", "MAINSPRING_ONLINE_URL", "redis://:${file:{REDIS}}@cache:6379/0", ("REDIS",)),
        Secret("server.keys", "MAINSPRING_SERVER_KEYS", "file:{KEY_A},file:{KEY_B}", ("KEY_A", "KEY_B")),
    ),
    language_models=(LanguageModel("chat", 2, 8192, 0.9, 140e9),),
)
RELEASE = Release(IMAGE, {"late": "d" * 64}, {"MAINSPRING_PROFILE": "prod"})
REVISION = Revision(APP, RELEASE)
OTHER = Revision(APP, Release(IMAGE.replace("a" * 64, "c" * 64), {}, {"MAINSPRING_PROFILE": "prod"}))
RAY = "registry.example.com/shop-ray@sha256:" + "d" * 64
FULL = KubernetesSettings(
    gateway="infra/public",
    hostnames=("shop.example.com",),
    egress=("10.0.0.0/8",),
    clients=("web",),
    pull_secrets=("registry",),
    priority="high",
    engines={"chat": EngineSettings(VLLM, "org/model", "weights", revision="0" * 40, selector="gpu=h100")},
    ray=RaySettings("2.50.0", RAY, ("pipeline/nightly",)),
)
OPERATED = msgspec.structs.replace(
    FULL,
    external=ExternalSettings("vault", "apps/shop"),
    keda=KedaSettings("http://prometheus.monitoring:9090", wake='sum(rate(gateway_requests{host="shop"}[1m]))'),
)
"""With the operators that do what plain Kubernetes does not."""
SERVED_ON_RAY = msgspec.structs.replace(FULL, ray=RaySettings("2.50.0", RAY, ("pipeline/nightly",), serve=True))
VERSIONS = [f"1.{minor}" for minor in range(29, 38)]


def objects(
    settings: KubernetesSettings = FULL, minor: int = 29, split: Split | None = None, kserve: bool = False
) -> list[dict[str, Any]]:
    return list(render(REVISION, split, settings, "team", World((1, minor)), kserve=kserve).objects)


def of(found: list[dict[str, Any]], kind: str, name: str = "shop-server") -> dict[str, Any]:
    return next(item for item in found if item["kind"] == kind and item["metadata"]["name"] == name)


def pods(found: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in found:
        spec, name = item.get("spec", {}), item["kind"]
        if name == "Deployment":
            yield name, spec["template"]["spec"]
        elif name == "CronJob":
            yield name, spec["jobTemplate"]["spec"]["template"]["spec"]
        elif name == "InferenceService":
            yield name, spec["predictor"]
        elif name in ("RayJob", "RayService"):
            for template in ray_templates(item):
                yield name, template["spec"]


def ray_templates(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    spec = item["spec"]
    cluster = spec.get("rayClusterSpec") or spec["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]
    if "submitterPodTemplate" in spec:
        yield spec["submitterPodTemplate"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_the_strict_schemas_of_every_supported_version(version: str) -> None:
    for split in (None, Split(OTHER, 10)):
        for item in objects(minor=int(version[2:]), split=split):
            if item["kind"] not in OWN:
                kubernetes_validate.validate(item, version, strict=True)


def test_the_schemas_refuse_what_is_wrong() -> None:
    item = of(objects(), "Deployment")
    item["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(item, "1.29", strict=True)


def restricted(pod: dict[str, Any]) -> list[str]:
    """What of a pod the restricted Pod Security Standard forbids; its controls, one by one."""
    faults = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    own = pod.get("securityContext", {})
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    faults += [f"volume {one['name']}" for one in pod.get("volumes", ()) if not (set(one) - {"name"}) <= allowed]
    for one in [*pod["containers"], *pod.get("initContainers", ())]:
        context = {**own, **one.get("securityContext", {})}
        if context.get("allowPrivilegeEscalation") is not False:
            faults.append("allowPrivilegeEscalation")
        if not context.get("runAsNonRoot") or context.get("runAsUser") == 0:
            faults.append("runAsNonRoot")
        if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            faults.append("seccompProfile")
        if context.get("capabilities", {}).get("drop") != ["ALL"] or context["capabilities"].get("add"):
            faults.append("capabilities")
        if context.get("privileged") or any("hostPort" in port for port in one.get("ports", ())):
            faults.append("privileged or hostPort")
    return faults


def test_every_pod_is_restricted_and_never_more_than_it_needs() -> None:
    found = objects(split=Split(OTHER, 10)) + objects(kserve=True) + objects(SERVED_ON_RAY)
    seen = [name for name, _ in pods(found)]
    assert {"Deployment", "CronJob", "InferenceService", "RayJob", "RayService"} == set(seen)
    for name, pod in pods(found):
        assert restricted(pod) == [], name
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
        for one in pod["containers"]:
            assert one["securityContext"]["readOnlyRootFilesystem"] is True
            assert re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", one["image"])
            assert one["resources"]["limits"]["memory"] == one["resources"]["requests"]["memory"]
    assert restricted({"containers": [{"name": "x"}]})  # the check itself can fail


def test_probes_are_told_apart_and_a_pod_stops_in_peace() -> None:
    pod = of(objects(), "Deployment")["spec"]["template"]["spec"]
    one = pod["containers"][0]
    told = {
        kind: (one[kind]["httpGet"]["path"], one[kind]["periodSeconds"], one[kind]["failureThreshold"])
        for kind in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert told == {
        "startupProbe": ("/v2/health/live", 2, 150),
        "readinessProbe": ("/v2/health/ready", 5, 2),
        "livenessProbe": ("/v2/health/live", 10, 3),
    }
    assert pod["terminationGracePeriodSeconds"] == 60 >= APP.grace + 5
    assert one["lifecycle"]["preStop"]["exec"]["command"][0] == "python3"
    newer = of(objects(minor=30), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert newer["lifecycle"]["preStop"] == {"sleep": {"seconds": 5}}


def test_the_autoscaler_owns_the_replicas() -> None:
    found = objects(split=Split(OTHER, 10))
    for item in found:
        assert item["kind"] != "Deployment" or "replicas" not in item["spec"]
    scaler = of(found, "HorizontalPodAutoscaler")["spec"]
    assert scaler["metrics"][0]["pods"]["metric"]["name"] == "mainspring_inflight_requests"
    assert scaler["metrics"][0]["pods"]["target"]["averageValue"] == "8"
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 10)
    assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert of(found, "HorizontalPodAutoscaler", "shop-canary")["spec"]["minReplicas"] == 1


def test_secrets_are_files_and_their_values_nowhere() -> None:
    found = objects()
    data = of(found, "ConfigMap", release_name("shop", REVISION.id))["data"]
    assert data["MAINSPRING_ONLINE_URL"] == "redis://:${file:/run/secrets/mainspring/REDIS}@cache:6379/0"
    assert data["MAINSPRING_SERVER_KEYS"] == "file:/run/secrets/mainspring/KEY_A,file:/run/secrets/mainspring/KEY_B"
    pod = of(found, "Deployment")["spec"]["template"]["spec"]
    volume = next(one["secret"] for one in pod["volumes"] if one["name"] == "secrets")
    assert volume["secretName"] == "shop"
    assert volume["defaultMode"] == 0o440
    assert [one["key"] for one in volume["items"]] == ["KEY_A", "KEY_B", "REDIS", "management-token"]
    assert not [item for item in found if item["kind"] == "Secret"]
    assert "env" not in pod["containers"][0]


def test_a_release_is_immutable_and_can_be_read_back() -> None:
    item = of(objects(), "ConfigMap", release_name("shop", REVISION.id))
    assert item["immutable"] is True
    assert item["metadata"]["name"].endswith(REVISION.id[:8])
    assert msgspec.json.decode(item["metadata"]["annotations"]["mainspring.dev/release"], type=Revision) == REVISION
    assert item["metadata"]["labels"]["mainspring.dev/revision"] == REVISION.id


def test_selectors_hold_no_version_and_find_their_own_pods_only() -> None:
    found = objects(split=Split(OTHER, 10))
    deployments = [item for item in found if item["kind"] == "Deployment"]
    for item in deployments:
        selector = item["spec"]["selector"]["matchLabels"]
        assert "mainspring.dev/revision" not in selector
        matching = [
            other["metadata"]["name"]
            for other in deployments
            if selector.items() <= other["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert matching == [item["metadata"]["name"]]
        service = of(found, "Service", item["metadata"]["name"])["spec"]["selector"]
        assert service == selector


def test_traffic_is_shared_out_by_the_route() -> None:
    assert [one["weight"] for one in of(objects(), "HTTPRoute")["spec"]["rules"][0]["backendRefs"]] == [100]
    behind = of(objects(split=Split(OTHER, 10)), "HTTPRoute")["spec"]["rules"][0]["backendRefs"]
    assert [(one["name"], one["weight"]) for one in behind] == [("shop-server", 90), ("shop-canary", 10)]
    for target in (KubernetesTarget(KubernetesSettings()), KubernetesTarget(FULL, kserve=True)):
        with pytest.raises(UsageError, match="cannot be shared out"):
            target.render(REVISION, Split(OTHER, 10), World((1, 29)))


def test_a_cron_job_ends_and_is_not_tried_again_when_its_command_is_wrong() -> None:
    spec = of(objects(), "CronJob", "shop-nightly")["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == ("0 3 * * *", "Europe/Berlin", "Forbid")
    job = spec["jobTemplate"]["spec"]
    assert job["template"]["spec"]["containers"][0]["args"] == ["run", "pipeline/nightly", 'day="2013-07-01"']
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    rules = job["podFailurePolicy"]["rules"]
    assert rules[0]["onExitCodes"]["values"] == [2, 3]
    assert rules[1]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    data = of(objects(), "ConfigMap", release_name("shop", REVISION.id))["data"]
    assert data["MAINSPRING_SERVER_SCHEDULES"] == "/source/odd"


def test_with_an_embedded_catalog_the_server_keeps_the_timetables() -> None:
    revision = Revision(msgspec.structs.replace(APP, embedded=("catalog",)), RELEASE)
    found = list(render(revision, None, KubernetesSettings(), "team", World((1, 29))).objects)
    assert not [item for item in found if item["kind"] == "CronJob"]
    assert of(found, "ConfigMap", release_name("shop", revision.id))["data"]["MAINSPRING_SERVER_SCHEDULES"] == "*"


def test_kserve_runs_our_server_as_its_predictor() -> None:
    found = objects(kserve=True)
    assert not [item for item in found if item["kind"] in ("HorizontalPodAutoscaler", "HTTPRoute", "Service")
                and item["metadata"]["name"] == "shop-server"]  # fmt: skip
    service = of(found, "InferenceService", "shop")
    assert service["metadata"]["annotations"] == {"serving.kserve.io/deploymentMode": "Standard"}
    predictor = service["spec"]["predictor"]
    assert "podSpec" not in predictor
    assert predictor["containers"][0]["name"] == "kserve-container"
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (2, 10)


def test_a_language_model_is_started_as_it_was_declared() -> None:
    found = objects()
    deployment = of(found, "Deployment", "shop-llm-chat")["spec"]
    pod = deployment["template"]["spec"]
    one = pod["containers"][0]
    given = dict(zip(one["args"][::2], one["args"][1::2], strict=True))
    assert one["command"] == ["vllm", "serve", "org/model"]
    assert given["--served-model-name"] == "chat"
    assert (given["--max-model-len"], given["--tensor-parallel-size"]) == ("8192", "2")
    assert (given["--gpu-memory-utilization"], given["--revision"]) == ("0.9", "0" * 40)
    assert one["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "4Gi"}} in pod["volumes"]
    assert {env["name"]: env["value"] for env in one["env"]}["HF_HUB_OFFLINE"] == "1"
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    wait = one["startupProbe"]["periodSeconds"] * one["startupProbe"]["failureThreshold"]
    assert 3 * 140e9 / 400e6 <= wait <= 3 * 140e9 / 400e6 + 10
    assert pod["terminationGracePeriodSeconds"] > 15 + int(given["--shutdown-timeout"])
    metrics = of(found, "HorizontalPodAutoscaler", "shop-llm-chat")["spec"]["metrics"]
    assert [one["pods"]["metric"]["name"] for one in metrics] == [
        "vllm_num_requests_waiting", "vllm_kv_cache_usage_perc",
    ]  # fmt: skip
    compile(one["startupProbe"]["exec"]["command"][2], "gate", "exec")
    assert {item["metadata"]["name"] for item in found if item["kind"] == "Service"} == {"shop-server", "shop-llm-chat"}


def test_each_object_tells_what_was_planned_for_it_and_no_other() -> None:
    """One that does not change keeps its label when others do; pods and selectors have none."""
    larger = msgspec.structs.replace(FULL, memory="3Gi")
    first, second = ({url_of(item): item for item in objects(one)} for one in (FULL, larger))

    def label(item: dict[str, Any]) -> str:
        return str(item["metadata"]["labels"]["mainspring.dev/plan-hash"])

    assert all(re.fullmatch(r"[0-9a-f]{16}", label(item)) for item in first.values())
    relabelled = [url for url, item in first.items() if label(item) != label(second[url])]
    changed = [url for url in first if first[url] != second[url]]
    assert sorted(relabelled) == sorted(changed)
    assert {url.split("/")[-2] for url in changed} == {"Deployment", "CronJob"}
    assert all("mainspring.dev/plan-hash" not in json.dumps(item.get("spec", {})) for item in first.values())
    (service,) = [item for item in objects(kserve=True) if item["kind"] == "InferenceService"]
    assert "mainspring.dev/plan-hash" not in service["metadata"]["labels"]
    for files in (chart("shop", objects(), RELEASE), kustomization(objects(), RELEASE)):
        assert not [name for name, data in files.items() if b"plan-hash" in data]


def test_a_ray_job_lives_as_long_as_its_run() -> None:
    job = next(item for item in objects() if item["kind"] == "RayJob")
    spec = job["spec"]
    assert spec["entrypoint"] == "python3 -m mainspring run pipeline/nightly"
    assert (spec["submissionMode"], spec["shutdownAfterJobFinishes"], spec["backoffLimit"]) == ("K8sJobMode", True, 0)
    assert job["metadata"]["name"].endswith(REVISION.id[:8])
    assert spec["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"
    policy = of(objects(), "NetworkPolicy", "shop-app")["spec"]["ingress"]
    assert any("ports" not in rule for rule in policy)
    operator = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-system"}}}
    asked = next(rule["ports"] for rule in policy if rule.get("from") == [operator])
    assert [one["port"] for one in asked] == [8265, 8000]


READ = """from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema
read = ServeDeploySchema.model_validate_json(told)
for app in read.applications:
    for one in app.deployments:
        AutoscalingConfig.model_validate(one.autoscaling_config)
print(read.model_dump_json())"""
IMPORTED = """from importlib import import_module
module, name = told.split(":")
print(getattr(import_module(module), name)._bound_deployment.name)"""


def _by_ray(code: str, told: str) -> str:
    """In a process of its own: what Ray Serve imports warns of itself."""
    command = [sys.executable, "-W", "ignore", "-c", f"import sys\ntold = sys.stdin.read()\n{code}"]
    return subprocess.run(command, input=told, capture_output=True, text=True, timeout=200, check=True).stdout


def test_a_server_on_ray_is_a_ray_service_that_ray_serve_and_kuberay_understand() -> None:
    found = objects(SERVED_ON_RAY)
    kinds = {item["kind"] for item in found if item["metadata"]["name"] in ("shop-server", "shop-canary")}
    assert kinds == {"HTTPRoute", "RayService"}  # no Deployment, Service, budget or autoscaler beside it
    spec = of(found, "RayService", "shop-server")["spec"]
    config = json.loads(_by_ray(READ, spec["serveConfigV2"]))
    (app,) = config["applications"]
    assert (app["name"], app["route_prefix"], config["http_options"]["port"]) == ("shop", "/", 8000)
    (replica,) = app["deployments"]
    assert replica["autoscaling_config"]["min_replicas"] == 2
    assert replica["autoscaling_config"]["target_ongoing_requests"] == 8
    assert _by_ray(IMPORTED, app["import_path"]).split() == [replica["name"]]
    worse = spec["serveConfigV2"].replace('"min_replicas": 2', '"min_replicas": "two"')
    with pytest.raises(subprocess.CalledProcessError):
        _by_ray(READ, worse)
    behind = of(found, "HTTPRoute")["spec"]["rules"][0]["backendRefs"]
    assert [(one["name"], one["port"]) for one in behind] == [("shop-server-serve-svc", 8000)]
    opened = of(found, "NetworkPolicy", "shop-app")["spec"]["ingress"][0]["ports"]
    assert [one["port"] for one in opened] == [8000]
    with pytest.raises(UsageError) as caught:
        KubernetesTarget(SERVED_ON_RAY).render(REVISION, Split(OTHER, 10), World((1, 29)))
    assert caught.value.code == "MS-2740"


def test_ray_runs_the_release_s_image_and_its_probes_need_no_wget() -> None:
    """The probes are really run, against a server that says what Ray's agents say, and one that does not."""
    plain = msgspec.structs.replace(SERVED_ON_RAY, ray=RaySettings("2.50.0", serve=True))
    service = of(objects(plain), "RayService")
    head, worker = (template["spec"]["containers"][0] for template in ray_templates(service))
    assert head["image"] == worker["image"] == IMAGE
    assert (head["readinessProbe"]["failureThreshold"], worker["readinessProbe"]["failureThreshold"]) == (10, 1)
    assert worker["readinessProbe"]["exec"]["command"][-1] == "http://127.0.0.1:8000/-/healthz"
    submitter = list(ray_templates(next(item for item in objects() if item["kind"] == "RayJob")))[-1]
    assert "livenessProbe" not in submitter["spec"]["containers"][0]

    class Agent(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"no" if "gcs" in self.path else b"success")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Agent) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        port = served.server_address[1]

        def well(command: list[str]) -> bool:
            words = [re.sub(r":\d+/", f":{port}/", word) for word in command]
            return subprocess.run([sys.executable, *words[1:]], capture_output=True, check=False).returncode == 0

        assert well(worker["livenessProbe"]["exec"]["command"])
        assert well(worker["readinessProbe"]["exec"]["command"])
        assert not well(head["livenessProbe"]["exec"]["command"])
        served.shutdown()
    assert not well(worker["livenessProbe"]["exec"]["command"])


@pytest.mark.parametrize("kind", ["RayJob", "RayService"])
def test_what_kuberay_reads_fits_its_types(kind: str) -> None:
    """And their pods the strict schemas of the oldest and the newest version."""
    for minor in (29, 37):
        item = next(item for item in objects(SERVED_ON_RAY, minor=minor) if item["kind"] == kind)
        jsonschema.validate(item, KUBERAY[kind])
        for template in ray_templates(item):
            whole = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
            kubernetes_validate.validate(whole, f"1.{minor}", strict=True)
    worse = copy.deepcopy(item)
    worse["spec"]["rayClusterConfig" if kind == "RayService" else "rayClusterSpec"]["headGroupSpec"].pop("template")
    with pytest.raises(jsonschema.ValidationError, match="template"):
        jsonschema.validate(worse, KUBERAY[kind])
    worse = copy.deepcopy(item)
    worse["spec"]["rayClusterSpecs"] = {}
    with pytest.raises(jsonschema.ValidationError, match="rayClusterSpecs"):
        jsonschema.validate(worse, KUBERAY[kind])


def test_secrets_come_from_a_store_outside_and_no_value_is_written() -> None:
    found = of(objects(OPERATED), "ExternalSecret", "shop")["spec"]
    assert found["target"]["name"] == "shop"
    assert found["secretStoreRef"] == {"name": "vault", "kind": "SecretStore"}
    names = ["KEY_A", "KEY_B", "REDIS", "management-token"]
    assert [one["secretKey"] for one in found["data"]] == names
    assert [one["remoteRef"] for one in found["data"]] == [{"key": "apps/shop", "property": name} for name in names]
    own = msgspec.structs.replace(OPERATED, external=ExternalSettings("v", "shop/{name}", cluster=True), secret="own")
    found = of(objects(own), "ExternalSecret", "shop")["spec"]
    assert found["target"]["name"] == "own"
    assert found["secretStoreRef"]["kind"] == "ClusterSecretStore"
    assert [one["remoteRef"] for one in found["data"]] == [{"key": f"shop/{name}"} for name in names]
    bare = msgspec.structs.replace(APP, secrets=())
    settings_ = msgspec.structs.replace(OPERATED, metrics=False)
    rendered = render(Revision(bare, RELEASE), None, settings_, "team", World((1, 29))).objects
    assert "ExternalSecret" not in {item["kind"] for item in rendered}


def test_keda_scales_in_the_place_of_the_autoscaler_and_down_to_none_only_when_something_wakes_it() -> None:
    found = objects(OPERATED, split=Split(OTHER, 10))
    scaled = {item["metadata"]["name"]: item["spec"] for item in found if item["kind"] == "ScaledObject"}
    assert scaled.keys() == {"shop-server", "shop-canary"}
    scalers = {item["metadata"]["name"] for item in found if item["kind"] == "HorizontalPodAutoscaler"}
    assert not scalers & scaled.keys(), "two would pull at one Deployment"
    assert scalers == {"shop-llm-chat"}
    spec = scaled["shop-server"]
    assert spec["scaleTargetRef"]["name"] == "shop-server"
    assert (spec["idleReplicaCount"], spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 2, 10)
    assert [one["type"] for one in spec["triggers"]] == ["prometheus", "prometheus", "cpu"]
    assert 'service="shop-server"' in spec["triggers"][1]["metadata"]["query"]
    asleep = msgspec.structs.replace(OPERATED, keda=KedaSettings("http://p:9090"), inflight=0)
    spec = of(objects(asleep), "ScaledObject")["spec"]
    assert "idleReplicaCount" not in spec
    assert [one["type"] for one in spec["triggers"]] == ["cpu"]


def test_keda_scales_by_the_age_of_what_waits_longest_and_that_is_no_average() -> None:
    queued = KedaSettings("http://p:9090", oldest='max(queue_oldest_seconds{queue="shop"})', oldest_s=20)
    spec = of(objects(msgspec.structs.replace(OPERATED, keda=queued)), "ScaledObject")["spec"]
    first, second, third = spec["triggers"]
    assert first["metricType"] == "Value", "of ten replicas an average would take an age for a tenth of it"
    assert (first["metadata"]["query"], first["metadata"]["threshold"]) == (queued.oldest, "20")
    assert "metricType" not in second
    assert third["type"] == "cpu"
    assert "idleReplicaCount" not in spec, "others may ask, too"


def test_two_things_of_one_name_are_refused() -> None:
    jobs = (Job("a-b", "0 3 * * *", "UTC", ("run", "step/a-b")), Job("a_b", "0 4 * * *", "UTC", ("run", "step/a_b")))
    revision = Revision(msgspec.structs.replace(APP, jobs=jobs), RELEASE)
    with pytest.raises(UsageError, match="would both be batch/v1/CronJob/shop-a-b"):
        render(revision, None, KubernetesSettings(), "team", World((1, 29)))


def test_what_only_watches_is_left_out_where_nobody_watches() -> None:
    known = render(REVISION, None, FULL, "team", World((1, 29), ("HTTPRoute", "RayJob"))).objects
    assert not {item["kind"] for item in known} & {"ServiceMonitor", "PrometheusRule"}


def test_rendering_is_the_same_in_every_process() -> None:
    code = (
        "import sys, hashlib; sys.path.insert(0, 'tests')\n"
        "from unit.adapters.test_kubernetes_render import objects\n"
        "from mainspring.adapters.kubernetes.files import spelled\n"
        "print(hashlib.sha256(spelled(objects()).encode()).hexdigest())"
    )
    found = set()
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONHASHSEED": seed}, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1


_TEXTS = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"[0-9]{1,4}e[0-9]{1,12}", fullmatch=True),
    st.sampled_from(
        ["y", "no", "On", "null", "~", "1_000", "0o7", "0x1f", "1:30", ".5", "-", "=", "<<", "1e3", "{{ .Values }}"]
    ),
    st.builds("\n".join, st.lists(st.text("ab :#-", max_size=8), max_size=4)),
)
# What no YAML can hold in a text: surrogates are no characters.
_VALUES = st.recursive(
    st.one_of(_TEXTS, st.booleans(), st.integers(-(2**53), 2**53), st.none()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(_TEXTS, _VALUES, max_size=5))
@settings(max_examples=100, deadline=None)
def test_what_is_spelled_is_read_back(value: dict[str, Any]) -> None:
    assert yaml.safe_load(spelled([value])) == value


@given(st.from_regex(r"[0-9a-f]{16}", fullmatch=True))
def test_digests_are_quoted_when_a_reader_of_1_2_could_take_them_for_numbers(text: str) -> None:
    written = spelled([{"a": text}]).removeprefix("a: ").strip()
    try:
        float(text)
        assert written == f'"{text}"'
    except ValueError:
        assert written.strip('"') == text


@given(st.lists(st.text("abcdefgh-XY_ .", min_size=1, max_size=60), min_size=1, max_size=3))
def test_names_fit_and_stay_apart(parts: list[str]) -> None:
    name = named("app", *parts)
    assert len(name) <= 63
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    longer = named("app", *parts, "x" * 70)
    assert len(longer) <= 63
    assert longer != named("app", *parts, "x" * 71)
    assert release_name(name, "0123456789abcdef").endswith("-01234567")
    assert len(release_name(name, "0123456789abcdef")) <= 63


@given(st.integers(1, 64_000))
def test_twice_the_cpu(milli: int) -> None:
    assert doubled(f"{milli}m") == f"{2 * milli}m"
    assert doubled(f"{milli / 1000:g}") == f"{round(float(f'{milli / 1000:g}') * 2000)}m"


def test_a_chart_has_values_and_hides_braces() -> None:
    found = objects()
    of(found, "ConfigMap", release_name("shop", REVISION.id))["data"]["ODD"] = "a {{ b }} c"
    files = chart("shop", found, RELEASE)
    values = yaml.safe_load(files["values.yaml"])
    assert values["image"] == IMAGE
    assert values["replicas"]["server"] == {"min": 2, "max": 10}
    texts = b"".join(files.values()).decode()
    assert "\x01" not in texts
    assert '{{ "{{" }} b {{ "}}" }}' in texts
    assert "image: {{ .Values.image | quote }}" in texts
    assert IMAGE not in "".join(data.decode() for name, data in files.items() if "deployment-shop-server" in name)


def test_a_kustomize_base_names_every_object_once() -> None:
    found = objects()
    files = kustomization(found, RELEASE)
    base = yaml.safe_load(files["kustomization.yaml"])
    assert base["images"] == [{"name": IMAGE.partition("@")[0], "digest": "sha256:" + "a" * 64}]
    assert len(base["resources"]) == len(found) == len(files) - 1
    read = [yaml.safe_load(files[name]) for name in base["resources"]]
    for item in found:
        item["metadata"]["labels"].pop("mainspring.dev/plan-hash", None)
    assert json.dumps(read) == json.dumps(found)
