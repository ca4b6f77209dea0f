"""What Mainspring writes into a project is no part of the app: neither its image nor its digest knows it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from mainspring.adapters.kubernetes.files import chart, kustomization, manifests
from mainspring.deploy.ci.integration import Integration
from mainspring.deploy.ci.jenkins import jenkinsfile
from mainspring.deploy.ci.report import markdown
from mainspring.deploy.ci.verdict import Check, Verdict, read_verdict
from mainspring.deploy.image.files import app_files
from mainspring.deploy.kubeflow import Compiled, spelled
from mainspring.deploy.rollout import read_plan
from mainspring.ports.target import App, Plan, Release, Revision

RELEASE = Release("registry.example.com/team/shop@sha256:" + "0" * 64)
OBJECT = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "shop", "labels": {"mainspring.dev/component": "server"}},
}
PLAN = Plan("kubernetes", Revision(App("shop"), RELEASE), None, (), "0" * 16)
VERDICT = Verdict(1, "shop", "late", "c0ffee", 2, 1, "", (Check("leakage", "passed", "none"),))
CI = Integration("shop", ("late",), ".", "requirements.lock", "", "", "3.12", "ubuntu-latest", *[""] * 5, "10m", "")
PIPELINE = Compiled("shop-nightly", {"components": {}, "root": {}, "sdkVersion": "mainspring"}, ())


def written() -> dict[str, bytes]:
    """Every kind of output, as the command writes it."""
    return {
        "plan.json": msgspec.json.encode(PLAN),
        "out/late.json": msgspec.json.format(msgspec.json.encode(VERDICT)) + b"\n",
        **{name: text.encode() for name, text in jenkinsfile(CI).items()},
        "report.md": markdown([VERDICT]).encode(),
        "nightly.yaml": spelled(PIPELINE).encode(),
        "nightly.json": spelled(PIPELINE, as_json=True).encode(),
        "bills/image.cdx.json": b"{}",
        "bills/image-2.cdx.json": b"{}",
        **{f"k8s/{name}": data for name, data in manifests([OBJECT]).items()},
        **{f"base/{name}": data for name, data in kustomization([OBJECT], RELEASE).items()},
        **{f"chart/{name}": data for name, data in chart("shop", [OBJECT], RELEASE).items()},
        "layout/oci-layout": b"{}",
        "layout/index.json": b"{}",
        "layout/blobs/sha256/ab": b"layer",
        "result/artifact.json": b"{}",
        "result/data": b"rows",
        "result/value.json": b"{}",
    }


def test_what_is_written_into_the_project_is_not_in_its_image(tmp_path: Path) -> None:
    kept = {
        "a.py": b"app = 1",
        "rules.json": b'{"target": "kubernetes", "revision": {}}',
        "evals/cases.yaml": b"sdkVersion: mainspring\nname: a case\n",
        "docs/artifact.json": b"{}",
        "charts/Chart.yaml": b"apiVersion: v2\n",
        "Jenkinsfile.py": b"// Written by `mainspring",
        "empty.json": b"",
    }
    for name, data in {**kept, **written()}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert {file.name for file in app_files(tmp_path, ())} == set(kept)


def test_the_word_that_marks_them_does_not_keep_them_from_being_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(msgspec.json.encode(PLAN))
    assert read_plan(path) == PLAN
    plain = {name: value for name, value in json.loads(path.read_bytes()).items() if name != "made_by"}
    path.write_text(json.dumps(plain))
    assert read_plan(path) == PLAN, "one of before there was a mark"
    assert read_verdict(msgspec.json.encode(VERDICT)) == VERDICT
    with pytest.raises(ValueError, match="made_by"):
        read_verdict(msgspec.json.encode(PLAN))
